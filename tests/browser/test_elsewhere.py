"""The panel with keys in Notebook 7 and in Voila, under fingers, and under an input method that composes."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from browser.conftest import TESTS, LivePanel, first_page
from browser.notebook import Notebook
from browser.test_judging import code
from browser.test_live import (
    FREE,
    GATED,
    LIVE,
    SAID,
    SHORTCUTS,
    correct_by_keys,
    judge_beside_a_cell,
    judge_by_keys,
    judge_in_a_burst,
    judged,
    keep_to_the_panel,
    restart_with_unsaved,
)
from hitl_nb import open_queue

#: mails in every run, and at night
SIZES = [10, pytest.param(100, marks=pytest.mark.nightly)]


class Notebook7(Notebook):
    """A notebook on a page of its own; the kernel outlives the page."""

    def show(self):
        self.page.goto(f"/notebooks/{self.file.name}")
        self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.context?.isReady")
        self._js("await app.restored; await session.ready; await session.session.kernel.info;")
        return self


class Voila(Notebook):
    """A notebook as an application: no cells, and a kernel of its own for each time that it is shown."""

    def show(self):
        self.page.goto(f"/voila/render/{self.file.name}")
        return self

    def ask(self, expression):
        """Return what an expression is worth here, over the file that the kernel has open."""
        with open_queue(self.file.with_suffix(".duckdb")) as queue:
            return eval(expression, {"queue": queue})

    def restart(self):
        """End the kernel; there will be another one only for another page."""
        settings = json.loads(self.page.locator("#jupyter-config-data").text_content())
        self.page.request.post(f"/voila/api/shutdown/{settings['kernelId']}")

    def shut_down(self):
        self.page.goto("about:blank")  # who leaves the page ends its kernel


def mails(path, n, text, **more):
    """Put mails into a queue; return the code of a panel that shows them."""
    with open_queue(path) as queue:
        for i in range(n):
            said = {"label": "spam"}
            queue.submit(input_data={"text": f"mail {i}"}, ai_prediction=said, confidence=0.6, reason="unsure")
    return f"{TESTS}\n{code(text, path, n=0, **more)}"


@pytest.fixture(scope="module")
def seven(chrome, server):
    """One notebook on a screen that can be touched, too."""
    book = Notebook7.open(first_page(chrome, server, has_touch=True), server.root / "seven.ipynb", ["", ""])
    yield book
    book.shut_down()
    book.page.context.close()


@pytest.fixture
def in_seven(seven, tmp_path):
    """Show mails in Notebook 7; returns the notebook and its panel."""

    def open_(n, text=LIVE):
        seven.type(mails(tmp_path / "mails.duckdb", n, text, gate=str(tmp_path / "never")))
        return seven, LivePanel(seven.page)

    return open_


@pytest.fixture
def in_voila(new_page, server, tmp_path):
    """Show mails in Voila; returns the notebook and its panel."""
    opened = []

    def open_(n, text=LIVE):
        file = server.root / f"{tmp_path.name}.ipynb"
        cell = mails(file.with_suffix(".duckdb"), n, text, gate=str(tmp_path / "never"))
        opened.append(Voila.open(new_page(), file, [cell]))
        return opened[-1], LivePanel(opened[-1].page)

    yield open_
    for book in opened:
        book.shut_down()


@pytest.fixture(params=["in_seven", "in_voila"])
def elsewhere(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("n", SIZES)
def test_in_notebook_7_keys_judge_each_task_once_and_in_order_also_on_a_page_that_is_loaded_anew(in_seven, n):
    book, live = in_seven(n)
    judge_by_keys(book, live, range(n // 2), done=n // 2)
    book.save()
    book.show()
    live.counts(n // 2, f"of {n}")
    judge_by_keys(book, live, range(n // 2, n), done=n)
    assert book.ask("queue.verify()") == []


@pytest.mark.parametrize("n", SIZES)
def test_in_voila_keys_judge_each_task_once_and_in_order_also_in_the_kernel_of_another_load(in_voila, n):
    book, live = in_voila(n)
    judge_by_keys(book, live, range(n // 2), done=n // 2)
    book.show()
    live.counts(0, f"of {n - n // 2}")
    judge_by_keys(book, live, range(n // 2, n), done=n - n // 2)
    assert book.ask("queue.verify()") == []


@pytest.mark.parametrize("keys", [20, pytest.param(100, marks=pytest.mark.nightly)])
def test_a_burst_of_keys_loses_and_doubles_nothing(elsewhere, keys):
    judge_in_a_burst(*elsewhere(keys + 8), keys)


def test_keys_stay_in_the_panel_and_chords_with_notebook_7(in_seven):
    keep_to_the_panel(*in_seven(8, FREE), SHORTCUTS)


def test_what_is_typed_arrives_whole_in_voila_and_who_leaves_in_haste_is_asked_nothing_again(in_voila):
    book, live = in_voila(20, FREE)
    live.focus()
    correct_by_keys(book, live, SHORTCUTS)
    live.press(*"aaaa")
    book.show()
    live.counts(0)
    found = judged(book)
    assert [text for _, text in found] == [f"mail {i}" for i in range(len(found))]
    expect(live.box("Input")).to_have_text(re.compile(rf"mail {len(found)}$"))
    live.focus()
    live.press("r")
    live.counts(1)
    assert judged(book) == [*found, ["reject", f"mail {len(found)}"]]


@pytest.mark.parametrize("n", SIZES)
def test_decisions_land_while_a_cell_of_notebook_7_is_busy(in_seven, tmp_path, n):
    judge_beside_a_cell(*in_seven(n), tmp_path / "gate", n)


@pytest.mark.parametrize("elsewhere", ["in_seven", pytest.param("in_voila", marks=pytest.mark.nightly)], indirect=True)
def test_a_kernel_that_is_gone_leaves_a_list_of_what_was_not_saved(elsewhere):
    restart_with_unsaved(*elsewhere(8, GATED))


def double_tap(page, button):
    """Tap twice within 50 ms, as the touches are dated, however long the machine takes."""
    session, box, now = page.context.new_cdp_session(page), button.bounding_box(), time.time()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for i, (kind, points) in enumerate([("touchStart", [place]), ("touchEnd", [])] * 2):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points, "timestamp": now + i * 0.01})
    session.detach()


def test_a_finger_does_what_the_mouse_does(in_seven):
    book, live = in_seven(8)
    before = book.cells()
    live.button("Approve").tap()
    live.counts(1)
    live.button("Correct").tap()
    expect(live.box("Correct to")).to_be_focused()
    live.page.keyboard.type("ham")
    live.box("Correct to").tap()
    live.button("Correct").tap()
    live.counts(2)
    live.button("Undo").tap()
    live.counts(1)
    expect(live.box("Input")).to_have_text(re.compile("mail 1$"))
    double_tap(live.page, live.button("Reject"))  # its second half is void
    live.counts(2)
    live.press("a")  # keys count where a finger was
    live.counts(3)
    assert judged(book)[-2:] == [["reject", "mail 1"], ["approve", "mail 2"]]
    assert book.cells() == before


@pytest.fixture
def compose(page):
    """Compose a text by keys that an input method keeps for itself."""
    session = page.context.new_cdp_session(page)
    key = {"key": "Process", "code": "KeyA", "windowsVirtualKeyCode": 229}

    def compose_(*texts):
        for text in texts:
            ends = {"selectionStart": len(text), "selectionEnd": len(text)}
            session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
            session.send("Input.imeSetComposition", {"text": text, **ends})
            session.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})

    yield compose_
    session.detach()


#: notes which keys reached the page while a text was composed
COMPOSING = "() => { window.told = []; addEventListener('keydown', e => e.isComposing && told.push(e.key), true); }"


def test_what_is_composed_judges_nothing_and_arrives_whole(book, live, page, compose):
    book.type(code(LIVE.replace("ham", "はむ")))
    before = book.cells()
    live.focus()
    compose("a", "あ", "あr", "ある")
    page.keyboard.insert_text("ある")
    live.counts(0)
    page.evaluate(COMPOSING)
    live.press("n")
    compose("a", "あ", "あr", "ある")
    live.press("Enter", "Escape")
    page.keyboard.insert_text("ある")
    expect(live.box("Note")).to_be_focused()
    expect(live.box("Note")).to_have_value("ある")
    live.press("Escape", "c")
    compose("h", "は")
    live.press("ArrowDown", "Enter", "Escape")  # the input method's: they take no label and send nothing
    expect(live.box("Correct to")).to_have_value("は")
    expect(live.box("Correct to")).to_be_focused()
    compose("はm", "はむ")
    live.press("Enter")
    live.counts(0)
    page.keyboard.insert_text("はむ")
    expect(live.box("Correct to")).to_have_value("はむ")
    in_note, in_label = "Process Process Process Enter Escape", "Process ArrowDown Enter Escape Process Process Enter"
    assert page.evaluate("told") == f"{in_note} {in_label}".split()
    live.press("Enter")
    live.counts(1)
    assert book.ask(SAID) == [[{"label": "はむ"}, "ある"]]
    assert book.cells() == before
