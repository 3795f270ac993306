"""What a new user does first: the README's lines in a fresh notebook, and the first notebook from top to bottom."""

import os
import re
import shutil
from pathlib import Path

from playwright.sync_api import expect

from browser.notebook import Notebook
from hitl_nb import open_queue

ROOT = Path(__file__).parents[2]
#: set to store the picture that the README shows
STORE = "HITL_STORE_PICTURE"


def test_the_readme_typed_into_a_fresh_notebook_and_judged_with_the_mouse(page, server, live, tmp_path):
    panel = live
    first = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)[1]
    path = tmp_path / "digits.duckdb"
    book = Notebook.open(page, server.root / "digits.ipynb")
    book.type(first.replace("n=100)", f"n=100, path={str(path)!r})"))
    expect(panel.root.locator("img:visible")).to_have_count(1)
    for done in range(1, 6):
        panel.judge("Approve", done)
    panel.judge("Reject", 6)
    panel.box("Correct to").fill("8")
    panel.judge("Correct", 7)
    panel.judge("Approve", 8)
    panel.judge("Undo", 7)
    book.type(first)  # what the README shows needs no file
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    for done in (1, 2, 3):
        panel.judge("Approve", done)
    panel.root.scroll_into_view_if_needed()
    page.mouse.move(0, 0)
    page.set_viewport_size({"width": 1120, "height": 820})
    page.screenshot(path=ROOT / "docs" / "panel.png" if os.environ.get(STORE) else tmp_path / "panel.png")
    page.set_viewport_size({"width": 1280, "height": 1000})
    book.shut_down()
    book.close()
    with open_queue(path) as queue:
        assert queue.stats().outcome == {"approve": 5, "reject": 1, "correct": 1}
        [corrected] = queue.history().query("outcome == 'correct'")["label"]
        assert corrected == 8
        assert queue.verify() == []


def test_the_first_notebook_runs_whole(page, server, live):
    panel = live
    shutil.copy(ROOT / "notebooks" / "01_review.ipynb", server.root / "01_review.ipynb")
    book = Notebook(page, server.root / "01_review.ipynb").show()
    try:
        book.run_all()
        expect(panel.root).to_contain_text(re.compile(r"\d+ of \d+"))
        expect(page.locator(".jp-OutputArea img[alt], .jp-RenderedImage img").first).to_be_attached()
    finally:
        book.close()
