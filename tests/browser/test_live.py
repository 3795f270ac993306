"""The panel with keys, in a real JupyterLab: nothing is lost, doubled or judged unseen; the notebook stays as it is."""

import re

import pytest
from playwright.sync_api import expect

from browser.conftest import LivePanel, Panel
from browser.jupyter import PATIENT
from browser.notebook import Notebook
from browser.test_judging import BUSY, COMMANDS, QUEUE, code
from browser.test_traces import SECRET
from hitl_nb.panel.live import KEYS

LIVE = QUEUE + 'panel = ReviewPanel(queue, reviewer="ann", labels=["ham", "spam"])\npanel'
#: how each task was judged, in the order of the answers
JUDGED = """[[str(task.reviews[0].outcome), task.input_data["text"]]
    for task in (queue.get(e["task_id"]) for e in queue.events(limit=10_000) if e["move"] == "review")]"""
#: what was entered with each
SAID = "[[one.correction, one.comment] for t in queue.history()['task_id'] for one in queue.get(t).reviews]"
#: every key of an action, and what deletes a cell
SHORTCUTS = "".join(KEYS.values()) + " d"
#: any text is a correction
FREE = LIVE.replace('["ham", "spam"]', "None")
#: a queue whose answers wait, first come first served, until a file is there; another file says that one has come
GATED = (
    QUEUE
    + """
from pathlib import Path
import threading
import time
turn, resolve = threading.Lock(), queue.resolve
panel = ReviewPanel(queue, reviewer="ann", labels=["ham", "spam"])
def slow(*answer, **options):
    with turn:
        Path({gate!r} + ".reached").touch()
        while not Path({gate!r}).exists():
            time.sleep(0.02)
    return resolve(*answer, **options)
queue.resolve = slow
panel
"""
)


def judged(book):
    return book.ask(JUDGED.replace("\n", " "))


def judge_by_keys(book, live, mails, done):
    """Approve and reject in turn, each mail once it is shown, up to so many in this sitting; that is what is stored."""
    live.focus()
    for i in mails:
        expect(live.box("Input")).to_have_text(re.compile(rf"mail {i}$"))
        live.press("ar"[i % 2])
    live.counts(done)
    assert judged(book) == [[("approve", "reject")[i % 2], f"mail {i}"] for i in range(mails.stop)]


def test_a_hundred_tasks_are_judged_by_keys_each_once_and_in_order(open_notebook, live):
    book = open_notebook(code(LIVE, n=100), "'another cell'").run()
    before = book.cells()
    judge_by_keys(book, live, range(100), done=100)
    assert book.cells() == before
    assert book.ask("queue.verify()") == []


def correct_by_keys(book, live, label):
    """Write every letter that is a shortcut into the note, and correct; both arrive whole."""
    live.press("n")
    live.page.keyboard.type(SHORTCUTS)
    expect(live.box("Note")).to_have_value(SHORTCUTS)
    live.press("Escape", "c")
    live.page.keyboard.type(label)
    expect(live.box("Correct to")).to_have_value(label)
    live.press("Enter")
    live.counts(1)
    live.press("a")  # the focus is back in the panel
    live.counts(2)
    assert judged(book) == [["correct", "mail 0"], ["approve", "mail 1"]]
    assert book.ask(SAID) == [[{"label": label}, SHORTCUTS], [None, None]]


def keep_to_the_panel(book, live, label):
    """Press keys that do something to a notebook, and those that do something to the panel."""
    before = book.cells()
    live.focus()
    live.press("z", "x", "d", "d", "0", "0", "b", "v", "y", "1", "ArrowDown", "Shift+m")
    live.counts(0)
    assert book.cells() == before
    correct_by_keys(book, live, label)
    assert book.cells() == before
    changed = book.file.stat().st_mtime_ns
    live.press("Control+s")
    live.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")
    assert book.file.stat().st_mtime_ns > changed
    live.page.locator(".jp-Notebook .jp-Cell").last.click()  # outside the panel its keys mean nothing
    live.press("Escape")
    live.counts(2)


@pytest.mark.parametrize(("text", "label"), [(LIVE, "ham"), (FREE, SHORTCUTS)], ids=["a label", "any text"])
def test_keys_stay_in_the_panel_and_chords_with_the_notebook(open_notebook, live, text, label):
    keep_to_the_panel(open_notebook(code(text), "'another cell'").run(), live, label)


def test_no_key_reaches_the_notebook_after_a_click(open_notebook, live, page):
    book = open_notebook(code(LIVE), "'another cell'").run()
    before = book.cells()
    for name in ("Approve", "Skip", "Undo", "Several", "Back"):
        live.button(name).click()
        for key in set(COMMANDS) - set("arcsu"):
            page.keyboard.press(key)
        assert book.cells() == before, name


def judge_in_a_burst(book, live, n=20):
    """Press keys faster than items can be shown, hold one down, click twice."""
    keyboard = live.page.keyboard
    live.focus()
    for _ in range(n):
        live.press("a")
    expect(live.root.locator(".hitl-live-counts")).not_to_contain_text("saving")
    found = judged(book)
    assert 9 <= len(found) <= n  # what came before its item could be seen was not counted
    assert found == [["approve", f"mail {i}"] for i in range(len(found))]
    live.counts(len(found))
    keyboard.down("r")
    for _ in range(10):
        keyboard.down("r")  # held down
    keyboard.up("r")
    live.counts(len(found) + 1)
    live.button("Approve").dblclick()
    live.counts(len(found) + 2)
    expect(live.box("Input")).to_contain_text(f"mail {len(found) + 2}")
    assert len(judged(book)) == len(found) + 2


def test_a_burst_of_keys_loses_and_doubles_nothing(open_notebook, live):
    judge_in_a_burst(open_notebook(code(LIVE, n=60)).run(), live)


def judge_beside_a_cell(book, live, gate, n):
    """Judge while the second cell waits for a file; what the panel heard last came out of a cell."""
    book.tell("panel.approve()")
    live.counts(1)
    book.type(BUSY.format(gate=str(gate)), index=1, wait=False)
    try:
        live.focus()
        for i in range(1, n):
            expect(live.box("Input")).to_have_text(re.compile(rf"mail {i}$"))
            live.press("a")
        live.counts(n)
        assert book.is_running(1)
    finally:
        gate.touch()


def test_decisions_land_while_a_cell_is_busy(open_notebook, live, tmp_path):
    book = open_notebook(code(LIVE, n=12), "").run()
    judge_beside_a_cell(book, live, tmp_path / "gate", 12)


@pytest.fixture
def other_page(new_page):
    """Another browser on the same server."""
    page = new_page()
    page.goto("/lab/workspaces/other?reset")
    page.wait_for_function("() => window.jupyterapp !== undefined")
    return page


def test_a_page_that_is_loaded_anew_goes_on_where_it_was(open_notebook, live, other_page):
    book = open_notebook(code(LIVE)).run()
    live.focus()
    live.press("a", "r")
    live.counts(2)
    live.press("n")
    book.save()
    again = LivePanel(other_page)
    Notebook(other_page, book.file).show()
    expect(again.box("Input")).to_have_text(re.compile("mail 2$"))
    again.focus()
    again.press("u")
    expect(again.box("Input")).to_have_text(re.compile("mail 1$"))
    expect(live.box("Input")).to_have_text(re.compile("mail 1$"))
    again.press("a")
    again.counts(2)
    live.counts(2)
    assert judged(book)[-1] == ["approve", "mail 1"]


def impatient(route):
    """Hand a script on that gives up at once."""
    answer = route.fetch()
    body = answer.text().replace(PATIENT, "AbortSignal.timeout(0)")
    route.fulfill(response=answer, body=body, headers=answer.headers | {"cache-control": "no-store"})


@pytest.mark.nightly  # the view waits ten seconds before it says so
def test_a_page_whose_view_hears_nothing_gets_the_plain_panel_until_it_is_loaded_anew(open_notebook, live, other_page):
    book = open_notebook(code("from hitl_nb.panel import live\nlive.DEAF = 2\n" + LIVE)).run()
    expect(live.box("Input")).to_have_text(re.compile("mail 0$"))
    book.save()
    other_page.route(re.compile("anywidget.*[.]js"), impatient)
    other_page.reload()
    other_page.wait_for_function("() => window.jupyterapp !== undefined")
    there = Notebook(other_page, book.file).show()
    deaf, plain = LivePanel(other_page), Panel(other_page)
    plain.says("mail 0", box="Input")
    deaf.says("Nothing from the kernel reaches this page")
    plain.judge("Approve", 1)
    live.counts(1)
    other_page.unroute_all()
    other_page.reload()
    other_page.wait_for_function("() => window.jupyterapp !== undefined")
    there.show()
    expect(deaf.box("Input")).to_have_text(re.compile("mail 1$"))
    expect(plain.root).to_have_count(0)
    assert judged(book) == [["approve", "mail 0"]]


def reached(gate, page):
    """Wait until an answer has come to the gate."""
    came = gate.with_name(f"{gate.name}.reached")
    for _ in range(1000):
        if came.exists():
            return
        page.wait_for_timeout(20)
    raise AssertionError("no answer has come to the gate")


def test_of_two_browsers_one_decides_and_the_other_is_told(open_notebook, live, other_page, tmp_path):
    gate = tmp_path / "gate"
    book = open_notebook(code(GATED, gate=str(gate), n=1)).run()
    book.save()
    other = LivePanel(other_page)
    Notebook(other_page, book.file).show()
    other.focus()
    live.focus()
    live.press("a")
    reached(gate, other_page)
    other.press("r")
    expect(other.root.locator(".hitl-live-counts")).to_contain_text("1 saving")
    gate.touch()
    live.counts(1)
    other.says("no longer in your hands.*\n*.*reject spam")
    assert judged(book) == [["approve", "mail 0"]]


def restart_with_unsaved(book, live):
    """Restart a kernel whose store holds every answer back."""
    live.focus()
    live.press("a", "r", "a")
    expect(live.root.locator(".hitl-live-counts")).to_contain_text("3 saving")
    book.restart()
    live.says("Not known to be saved \\(3\\)")
    live.says("reject spam")
    live.says("Run the cell again, or load the page again")
    expect(live.root.locator(".hitl-live-title")).to_have_text("Disconnected")


def test_a_kernel_that_restarts_leaves_a_list_of_what_was_not_saved(open_notebook, live, tmp_path):
    restart_with_unsaved(open_notebook(code(GATED, gate=str(tmp_path / "never"))).run(), live)


def test_a_kernel_that_is_gone_leaves_that_list_too(open_notebook, live, watch):
    book = open_notebook(code(LIVE)).run()
    live.focus()
    live.press("a")
    live.counts(1)
    book.shut_down()
    live.press("r")
    live.says("Not known to be saved \\(1\\)")
    expect(live.root.locator(".hitl-live-title")).to_have_text("Disconnected")
    assert watch.errors == []


CLOCK = """
from datetime import UTC, datetime, timedelta
from hitl_nb import open_queue
from hitl_nb.panel import ReviewPanel
late = [timedelta()]
queue = open_queue(":memory:", clock=lambda: datetime.now(UTC).replace(tzinfo=None) + late[0])
queue.submit(input_data={"text": "mail"}, ai_prediction={"label": "spam"}, confidence=0.5, reason="unsure")
panel = ReviewPanel(queue, reviewer="ann", labels=["ham", "spam"])
panel
"""
EXPIRE = "late[0] = timedelta(hours=1); queue.tick(); queue.claim('bob'); panel.controller.heartbeat()"


def test_a_lease_that_runs_out_keeps_the_comment(open_notebook, live, page):
    book = open_notebook(CLOCK).run()
    live.focus()
    live.press("n")
    page.keyboard.type("a newsletter, ")
    book.tell(EXPIRE)
    live.says("held by bob|bob")
    expect(live.box("Note")).to_be_focused()
    page.keyboard.type("I think")
    expect(live.box("Note")).to_have_value("a newsletter, I think")
    live.press("Escape", "r")
    live.says("bob")
    expect(live.box("Note")).to_have_value("a newsletter, I think")


SEVERAL = """
def ask(text):
    return queue.submit(input_data={"text": text}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure")
task = ask("the invoice you asked for")
queue.resolve(task.task_id, "bob", "correct", {"label": "ham"}, "<b>seen</b>")
ask("an invoice")
ask("minutes of a meeting")
panel.retry()
"""


def test_several_are_approved_at_once_and_taken_back_at_once(open_notebook, live):
    book = open_notebook(code(LIVE, n=12)).run()
    live.focus()
    live.press("g")
    tiles = live.root.locator(".hitl-live-tile")
    expect(tiles).to_have_count(12)
    tiles.nth(3).click()
    live.button("Approve the other 11").click()
    expect(live.root).to_contain_text("Approve 11 of 12? 1 marked wrong comes one by one.")
    live.button("Yes, approve 11").click()
    live.counts(11)
    expect(live.box("Input")).to_have_text(re.compile("mail 3$"))
    assert book.ask("queue.stats().outcome") == {"approve": 11}
    live.button("Undo").click()
    live.counts(0)
    assert book.ask("queue.stats().outcome") == {}


def test_judged_tasks_that_are_like_the_one_in_front_are_shown_when_they_are_asked_for(
    open_notebook, live, page, watch
):
    book = open_notebook(code(LIVE, n=0), "'another cell'").run()
    book.tell(SEVERAL)
    before = book.cells()
    found = live.root.locator(".hitl-live-found > li")
    live.focus()
    expect(found).to_be_hidden()
    live.press("l")
    expect(found).to_have_count(1)
    expect(found).to_have_text("ham; note: <b>seen</b> (the model: spam)textthe invoice you asked for")
    live.press("a")  # it goes on with the next one
    expect(found).to_have_text("Nothing like it was judged yet.")
    live.press("u")
    expect(live.box("Input")).to_contain_text("an invoice")
    expect(found).to_have_count(1)
    expect(found).to_contain_text("the invoice you asked for")
    live.press("l")
    expect(found).to_be_hidden()
    assert book.cells() == before
    assert watch.harm() == {}


def test_a_new_label_is_offered_for_the_next_item(open_notebook, live, page):
    book = open_notebook(code(LIVE.replace('"spam"])', '"spam"], new_labels=True)'))).run()
    live.focus()
    for typed, done in (("eggs", 1), ("eg", 2)):
        live.press("c")
        page.keyboard.type(typed)
        live.press(*(["ArrowUp"] if done == 2 else []), "Enter", "Enter")
        live.counts(done)
    assert [one[0] for one in judged(book)] == ["correct", "correct"]
    assert book.ask("queue.history()['label'].dropna().tolist()") == ["eggs", "eggs"]


LONG = QUEUE.replace('"text": f"mail {{i}}"', '"text": f"mail {{i}}" + " again" * 3000').replace(
    '"label": "spam"', '"label": "spam " * 2000'
)


def test_more_is_shown_of_every_item_and_of_every_answer_and_the_keys_stay_on(open_notebook, live):
    book = open_notebook(code(LONG + 'panel = ReviewPanel(queue, reviewer="ann")\npanel')).run()
    live.focus()
    for done, place in ((1, "input"), (2, "more")):
        part = live.root.locator(f".hitl-live-{place}")
        expect(live.box("Input")).to_contain_text(f"mail {done - 1} again")
        part.get_by_role("button", name="Show more").click()
        expect(part).not_to_contain_text(" more characters")
        expect(live.root).to_be_focused()  # the button that had the focus is gone
        live.press("ar"[done % 2])
        live.counts(done)
    live.root.get_by_role("button", name="Show all").first.click()
    live.press("a")
    live.counts(3)
    assert [outcome for outcome, _ in judged(book)] == ["reject", "approve", "approve"]


OWN = """
import ipywidgets as w
def own(item):
    return w.VBox([w.Label(f"This is {{item['text']}}"), w.Text(description="scale")])
panel = ReviewPanel(queue, "ann", labels=["ham", "spam"], render=own)
panel
"""


def test_a_widget_of_the_users_is_shown_for_each_item_and_what_is_typed_there_is_no_key(open_notebook, live, page):
    book = open_notebook(code(QUEUE + OWN), "'another cell'").run()
    before = book.cells()
    for done in range(3):
        live.focus()
        expect(live.root.get_by_text(f"This is mail {done}", exact=True)).to_be_visible()
        expect(live.root.locator(".hitl-live-widget .widget-vbox")).to_have_count(1)
        live.root.get_by_label("scale", exact=True).click()
        page.keyboard.type("arcs")
        expect(live.root.get_by_label("scale", exact=True)).to_have_value("arcs")
        live.press("Escape", "a")
        live.counts(done + 1)
    book.tell("panel.view.ahead[0].shown.parts[0].widget.close()")
    live.press("a")
    live.says("This widget was closed", box="Input")
    assert [outcome for outcome, _ in judged(book)] == ["approve"] * 4
    assert book.cells() == before


def test_what_the_kernel_refuses_takes_the_focus_from_no_cell(open_notebook, live, page):
    book = open_notebook(code(LIVE), "'another cell'").run()
    live.focus()
    cell = page.locator(".jp-Notebook .cm-content").last
    cell.click()
    book.tell("panel.correct('eggs')")
    live.says("labels are ham, spam")
    expect(cell).to_be_focused()


def test_what_is_not_shown_for_long_comes_back(open_notebook, live, page):
    book = open_notebook(code(LIVE), "'another cell'").run()
    live.focus()
    live.press("a")
    live.counts(1)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:hide-cell-outputs')")
    book._js("book.content.activeCellIndex = 0; await app.commands.execute('notebook:hide-cell-outputs');")
    expect(live.root).to_have_count(0)
    book.tell("panel.approve()")
    book._js("await app.commands.execute('notebook:show-cell-outputs');")
    live.counts(2)
    expect(live.box("Input")).to_have_text(re.compile("mail 2$"))


def test_five_hundred_decisions_add_no_widget(open_notebook, live):
    book = open_notebook(code(LIVE, n=510)).run()
    live.counts(0)
    count = "len(__import__('ipywidgets').widgets.widget._instances)"
    before = book.ask(count)
    for _ in range(10):  # of thousands of messages at once a slow notebook server loses some
        book.tell("for i in range(50): panel.correct('ham') if i % 2 else panel.approve()")
    live.counts(500)
    expect(live.box("Input")).to_have_text(re.compile("mail 500$"))
    assert book.ask(count) - before <= 10


def test_a_saved_notebook_holds_nothing_of_an_item(open_notebook, live):
    book = open_notebook(code(QUEUE + SECRET.replace(", plain=True", ""), n=0)).run()
    live.says("top-secret input", box="Input")
    saved = book.save()
    assert "ReviewPanel('ann'" in saved
    assert "top-secret" not in saved
