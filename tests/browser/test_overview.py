"""QueueView in a real JupyterLab: shown, brought up to date in place, readable, and quiet when nobody looks."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.notebook import Notebook
from browser.test_judging import BUSY
from browser.test_look import CONTRAST, TOO_WIDE, theme, width  # noqa: F401  two fixtures

ROOT = Path(__file__).parents[2]
START = """
from datetime import UTC, datetime, timedelta
from payloads import MARKUP
from hitl_nb import Reviewer, open_queue
from hitl_nb.panel import QueueView, overview
overview.SHARE = 1e9  # as often as it is told, however slow this machine is
late = [timedelta()]
queue = open_queue({path!r}, clock=lambda: datetime.now(UTC).replace(tzinfo=None) + late[0])
def ask(**more):
    return queue.submit(**dict(input_data={{}}, ai_prediction={{}}, confidence=0.4, reason="unsure") | more).task_id
ask(expertise="law", deadline=timedelta(minutes=30))
for name in ("ann", "bob"):
    queue.resolve(ask(), name, "approve")
view = QueueView(queue, every=0.2)
view
"""
#: marks every element, so that a later look tells new ones from old ones; and counts those without a mark
MARK = "() => document.querySelectorAll('.hitl-overview, .hitl-overview *').forEach(e => e.known = true)"
NEW = "() => [...document.querySelectorAll('.hitl-overview, .hitl-overview *')].filter(e => !e.known).length"


@pytest.fixture
def overview(page):
    return page.locator(".hitl-overview:visible").last


def row(overview, name):
    """Return a line of a table, found as a screen reader does: by the header of the row."""
    return overview.get_by_role("row").filter(has=overview.page.get_by_role("rowheader", name=name, exact=True))


def test_it_follows_the_queue_in_place(book, page, overview):
    book.type(START.format(path=":memory:"))
    expect(row(overview, "law")).to_contain_text("1")
    expect(overview.get_by_role("table", name="By reviewer").get_by_role("row")).to_have_count(3)
    page.evaluate(MARK)
    models = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel._comms.size"
    before = page.evaluate(models)
    book.tell("ask(expertise='law')")
    expect(row(overview, "law")).to_contain_text("2")
    book.tell("queue.resolve(ask(), 'bob', 'approve')")
    expect(row(overview, "bob").get_by_role("cell")).to_have_text(["2", "2", "2"])
    assert page.evaluate(NEW) == 0
    assert page.evaluate(models) == before


def test_alarms_are_announced_and_go_again(book, overview):
    book.type(START.format(path=":memory:"))
    alarms = overview.get_by_role("list", name="Alarms")
    expect(row(overview, "law")).to_be_visible()
    expect(alarms).to_have_attribute("aria-live", "polite")
    expect(alarms.get_by_role("listitem")).to_have_count(0)
    book.tell("late[0] = timedelta(minutes=31); queue.tick()")
    expect(alarms).to_contain_text("1 overdue")
    book.tell("queue.resolve(queue.pending()[0].task_id, Reviewer(id='eve', expertise=('law',)), 'approve')")
    expect(alarms.get_by_role("listitem")).to_have_count(0)
    assert overview.locator("[aria-live]").count() == 1


def test_it_goes_on_while_a_cell_runs_and_stops_when_it_is_closed(book, overview, tmp_path):
    book.type(START.format(path=":memory:"))
    expect(row(overview, "law")).to_be_visible()
    book.type(BUSY.format(gate=str(tmp_path / "gate")), index=1, wait=False)
    for _ in range(2):  # the first answer may have been on its way
        at = overview.locator("p").text_content()
        expect(overview.locator("p")).not_to_have_text(at)
    assert book.is_running(1)
    (tmp_path / "gate").touch()
    book.tell("looks, stats = [], queue.stats\nqueue.stats = lambda: looks.append(1) or stats()")
    at = overview.locator("p").text_content()
    expect(overview.locator("p")).not_to_have_text(at)
    assert book.ask("len(looks)") >= 1
    book.tell("view.close()")
    expect(overview).to_have_count(0)
    book.tell("looks.clear()")
    book.page.wait_for_timeout(1000)
    assert book.ask("looks") == []


def test_a_file_whose_owner_is_restarted_is_followed_on(book, open_notebook, overview, tmp_path):
    path = str(tmp_path / "reviews.duckdb")
    owner = open_notebook(f"from hitl_nb import open_queue\nqueue = open_queue({path!r})\nqueue").run()
    book.show()
    start = START.replace(", clock=lambda: datetime.now(UTC).replace(tzinfo=None) + late[0]", "")
    book.type(start.format(path=path))
    expect(row(overview, "law")).to_contain_text("1")
    assert book.ask("repr(queue)").startswith("RemoteQueue")
    owner.restart()
    book.tell("ask(expertise='law')")
    expect(row(overview, "law")).to_contain_text("2")
    expect(overview.get_by_role("listitem")).to_have_count(0)


def test_a_kernel_that_is_gone_is_told_with_the_last_figures(open_notebook, page, overview):
    book = open_notebook("")
    book.type(START.format(path=":memory:"))
    expect(row(overview, "law")).to_contain_text("1")
    book.shut_down()
    expect(overview.get_by_role("listitem")).to_contain_text("not reached since")
    expect(row(overview, "law")).to_contain_text("1")


HOSTILE = (
    START.format(path=":memory:").replace("\nview\n", "")
    + """
for text in MARKUP[:6]:
    ask(expertise=text)
    queue.resolve(ask(), text, "approve")
    queue.note("revoke_certificate", {"certificate": text, "why": text})
late[0] = timedelta(minutes=31)
queue.tick()
view
"""
)


def test_hostile_names_run_nothing_and_are_shown(book, page, watch, overview):
    book.type(HOSTILE)
    expect(overview.get_by_role("listitem")).to_have_count(7)
    expect(row(overview, "<script>window.hit = 1</script>").first).to_be_visible()
    assert overview.locator("script, img, svg, style, a, mjx-container").count() == 0
    assert watch.harm() == {}
    saved = book.save()
    assert "QueueView(ReviewQueue" in saved
    assert "window.hit" not in saved.replace("MARKUP", "")


def test_every_text_stands_out_and_nothing_is_cut_off(book, page, overview, theme, width):  # noqa: F811
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    book.type(HOSTILE)
    expect(overview.get_by_role("listitem")).to_have_count(7)
    for name in ("Light", "Dark"):
        theme(f"JupyterLab {name}")
        found = page.evaluate(CONTRAST)
        assert len(found) > 30
        assert [one for one in found if one[0] < 4.5] == [], name
        if folder := os.environ.get("HITL_PICTURES"):
            overview.screenshot(path=Path(folder) / f"overview-{name.lower()}.png")
    for pixels in (1280, 700):
        width(pixels)
        assert page.evaluate(TOO_WIDE) == [], pixels
        if folder := os.environ.get("HITL_PICTURES"):
            overview.screenshot(path=Path(folder) / f"overview-{pixels}.png")


@pytest.mark.nightly
def test_in_the_notebook_of_the_service_an_escalation_is_seen_as_it_happens(page, server, overview):
    name = "05_service.ipynb"
    shutil.copy(ROOT / "notebooks" / name, server.root / name)
    book = Notebook(page, server.root / name).show()
    for index, cell in enumerate(book.cells()):
        if cell["type"] == "code":
            book.run(index)
        if cell["source"].endswith("\nview"):
            expect(overview).to_contain_text("0 open")
        if "told.append" in cell["source"]:
            expect(overview.get_by_role("listitem")).to_contain_text("1 overdue")
            expect(row(overview, "goodwill").get_by_role("cell").first).to_have_text("1")
            if folder := os.environ.get("HITL_PICTURES"):
                overview.screenshot(path=Path(folder) / "overview-service.png")
    expect(overview).to_have_count(0)
    book.close()
