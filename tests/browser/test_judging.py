"""A person with a mouse: decisions land, survive kernels, and wait for no cell."""

import json

import pandas as pd
import pytest
from playwright.sync_api import expect

from hitl_nb import open_queue

QUEUE = """
from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.panel import ReviewPanel
queue = open_queue({path!r})
orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
for i in range({n}):
    said = {{"label": "spam", "confidence": 0.6, "probabilities": {{"spam": 0.6, "ham": 0.4}}}}
    orchestrator.process({{"text": f"mail {{i}}"}}, said)
"""
MAILS = QUEUE + 'panel = ReviewPanel(queue, reviewer="ann", labels=["ham", "spam"], plain=True)\npanel'
DIGITS = """
from hitl_nb import review
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
x, y = load_digits(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=500).fit(x[:1000], y[:1000])
handle = review(x[1000:], model, path={path!r}, n=250)
handle
"""
SPAM = """
from hitl_nb import review
from hitl_nb.shipped import load_spam
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
table = load_spam().sample(1000, random_state=0)
x, y = table.drop(columns="label"), table["label"]
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:300], y[:300])
handle = review(x[300:], model, path={path!r}, n=100)
handle
"""
#: waits for a file, and so keeps the kernel or a fit busy until the test has seen enough
BUSY = """
import time
from pathlib import Path
while not Path({gate!r}).exists():
    time.sleep(0.02)
"""


def code(text, path=":memory:", n=8, **more):
    return text.format(path=str(path), n=n, **more)


def answers(queue):
    found = queue.history().dropna(subset=["outcome"]).sort_values("reviewed_at")
    return [[outcome, None if pd.isna(label) else label] for outcome, label in found[["outcome", "label"]].values]


def test_what_a_mouse_decides_is_in_the_file_when_the_kernel_is_gone(open_notebook, panel, tmp_path):
    path = tmp_path / "mails.duckdb"
    book = open_notebook(code(MAILS, path)).run()
    for done in range(1, 6):
        panel.judge("Approve", done)
    panel.judge("Reject", 6)
    panel.box("Correct to").fill("ham")
    panel.box("Note").fill("a newsletter")
    panel.judge("Correct", 7)
    panel.says("corrected spam → ham; saved", box="Last")
    expect(panel.box("Note")).to_have_value("")
    panel.judge("Approve", 8)
    panel.judge("Undo", 7)
    book.shut_down()
    with open_queue(path) as queue:
        expected = [["approve", "spam"]] * 5 + [["reject", None], ["correct", "ham"]]
        assert answers(queue) == expected
        assert [event["move"] for event in queue.events() if event["move"] in ("review", "undo")][-2:] == [
            "review",
            "undo",
        ]
        [corrected] = queue.history().query("outcome == 'correct'")["task_id"]
        [review] = queue.get(corrected).reviews
        assert (review.reviewer, review.correction, review.comment) == ("ann", {"label": "ham"}, "a newsletter")


#: what stands on the screen, and the answers so far
SEEN = "[handle.panel.view.shown.rows, handle.panel.view.confidence, handle.panel.view.prediction]"
KEPT = "handle.frame.dropna(subset=['outcome']).to_json(orient='records')"


@pytest.mark.parametrize(("text", "label"), [(DIGITS, 3), (SPAM, "ham")], ids=["digits", "spam"])
def test_a_frame_under_review_goes_on_where_it_was_after_a_restart(open_notebook, live, tmp_path, text, label):
    panel = live
    book = open_notebook(code(text, tmp_path / "table.duckdb")).run()
    expect(panel.root.locator("img:visible")).to_have_count(int(text is DIGITS))
    panel.judge("Approve", 1)
    panel.box("Correct to").fill(str(label))
    panel.judge("Correct", 2)
    panel.judge("Reject", 3)
    before, frame = book.ask(SEEN), book.ask(KEPT)
    assert {"approve", "reject"} <= {row["outcome"] for row in json.loads(frame)}
    book.restart()
    book.run()
    panel.counts(0)
    assert (book.ask(SEEN), book.ask(KEPT)) == (before, frame)
    panel.judge("Approve", 1)
    assert book.ask("handle.frame['outcome'].notna().sum().item()") == 4


def test_a_decision_lands_while_a_cell_is_busy(book, panel, tmp_path):
    gate = tmp_path / "gate"
    book.type(code(MAILS))
    book.type(BUSY.format(gate=str(gate)), index=1, wait=False)
    panel.judge("Approve", 1)
    panel.judge("Reject", 2)
    assert book.is_running(1)
    gate.touch()
    assert book.ask("queue.stats().outcome") == {"approve": 1, "reject": 1}


LOOP = (
    QUEUE
    + """
from sklearn.linear_model import LogisticRegression
from hitl_nb.learner import Learner
from hitl_nb.loop import Loop

class Slow(LogisticRegression):
    def fit(self, *args, **options):
        {busy}
        return super().fit(*args, **options)

queue = open_queue(":memory:")
for i in range({n}):
    queue.submit(input_data={{"x": float(i)}}, ai_prediction={{"label": "low"}}, confidence=0.5, reason="first labels")
loop = Loop(queue, Learner(Slow(), min_samples=4))
panel = ReviewPanel(queue, reviewer="ann", labels=["low", "high"], loop=loop, plain=True)
for i in range(6):
    panel.correct("high" if i > 2 else "low")
panel
"""
)


def test_a_decision_lands_while_a_model_is_trained(book, panel, tmp_path):
    gate = tmp_path / "gate"
    busy = BUSY.format(gate=str(gate)).strip().replace("\n", "\n        ")
    book.type(code(LOOP, n=12, busy=busy))
    panel.counts(6)
    panel.click("Retrain")
    panel.says("^running", box="Retrain")
    panel.judge("Approve", 7)
    panel.judge("Reject", 8)
    panel.says("^running", box="Retrain")
    gate.touch()
    panel.says("^done .*in use, as the first model", box="Retrain")
    assert book.ask("len(queue.history().dropna(subset=['outcome']))") == 8


FLAKY = (
    QUEUE
    + """
from flaky import Flaky
from hitl_nb.queue import ReviewQueue
store = Flaky(queue.store)
panel = ReviewPanel(ReviewQueue(store), reviewer="ann", labels=["ham", "spam"], plain=True)
store.fails, store.late = 2, {late}
panel
"""
)


@pytest.mark.parametrize("late", [False, True], ids=["the write is lost", "the answer to it is lost"])
def test_a_store_that_fails_twice_and_then_works_loses_and_doubles_nothing(book, panel, late):
    book.type(code(FLAKY, late=late))
    panel.box("Correct to").fill("ham")
    panel.click("Correct")
    panel.says("no connection(.|\n)*Not saved yet: corrected spam → ham")
    panel.counts(0, of="8 · 1 not saved")
    panel.click("Retry")
    panel.says("no connection")
    panel.judge("Retry", 1)
    panel.judge("Approve", 2)
    assert book.ask("queue.stats().outcome") == {"approve": 1, "correct": 1}
    assert book.ask("len([e for e in queue.events() if e['move'] == 'review'])") == 2


#: a panel whose clock stands still until it is moved: its kernel may take any time between two clicks
STILL = "from datetime import UTC, datetime, timedelta\nnow = [datetime.now(UTC)]\n" + MAILS.replace(
    "plain=True", "plain=True, now=lambda: now[0]"
)


def test_a_click_twice_is_one_review(book, panel):
    book.type(code(STILL))
    expect(panel.button("Approve")).to_be_enabled()
    book.tell("now[0] += timedelta(seconds=1)")
    panel.button("Approve").dblclick(force=True)
    panel.counts(1)
    panel.wait()  # time for a second review that must not come
    assert book.ask("queue.stats().outcome") == {"approve": 1}


#: keys that add, cut, paste, move, merge or turn cells, or restart the kernel
COMMANDS = ["a", "b", "m", "x", "d", "d", "c", "v", "y", "r", "z", "1", "Shift+m", "0", "0"]


def test_no_key_reaches_the_notebook_after_a_click(book, panel, page):
    book.type(code(MAILS).replace('f"mail {i}"', '"long " * 3000'))
    before = book.cells()
    for name in ("Show more", "Correct", "Skip", "Approve", "Undo", "Finish"):
        panel.click(name)
        expect(page.locator("button:focus")).to_have_count(0)
        for key in COMMANDS:
            page.keyboard.press(key)
        assert book.cells() == before, name


def test_a_keyboard_alone_judges(book, panel, page):
    book.type(code(MAILS))
    before = book.cells()
    panel.button("Approve").focus()
    panel.wait()
    page.keyboard.press("Space")
    panel.saves(1)
    page.keyboard.press("Tab")  # goes on from where the focus was
    expect(panel.button("Reject")).to_be_focused()
    panel.wait()
    page.keyboard.press("Space")
    panel.counts(2)
    panel.box("Note").focus()
    page.keyboard.type("abcxdd")
    expect(panel.box("Note")).to_have_value("abcxdd")
    assert book.ask("queue.stats().outcome") == {"approve": 1, "reject": 1}
    assert book.cells() == before
