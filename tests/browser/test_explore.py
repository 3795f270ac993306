"""The slider of the lab, moved by the mouse and by keys in JupyterLab itself."""

import io
import re
import tomllib

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from browser.test_look import theme  # noqa: F401
from hitl_nb import Policy

CODE = """
import numpy as np, pandas as pd
from hitl_nb.lab import explore
rng = np.random.default_rng(0)
sure = rng.beta(8, 0.8, 2000)
rows = pd.DataFrame({{"confidence": sure, "wrong": rng.random(2000) > sure}})
rows["at_time"] = pd.date_range("2026-01-05", periods=2000, freq="36s")  # 100 an hour
slider = explore(rows, path={path!r}, review_cost=1, error_cost=20)
slider
"""
#: how far a bar is filled, a share
FILLED = """bar => bar.querySelector('.progress-bar').offsetWidth / bar.querySelector('.progress').offsetWidth"""
#: elements whose text is cut off
CUT = """root => [...root.querySelectorAll('label, button, textarea')]
    .filter(e => e.checkVisibility() && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1))
    .map(e => e.textContent || e.value)"""


class Shown:
    """The explorer of the cell in front, as a person sees it."""

    def __init__(self, page):
        self.page, self.root = page, page.locator(".jp-OutputArea:visible .widget-vbox").last
        self.handle = self.root.get_by_role("slider")
        self.said, self.done = (self.root.locator("textarea").nth(i) for i in (0, 1))
        self.button = self.root.get_by_role("button", name="Make this my policy")

    def bars(self):
        """Return each bar's words and how far it is filled."""
        rows = self.root.locator(".widget-hprogress")
        return {rows.nth(i).inner_text(): rows.nth(i).evaluate(FILLED) for i in range(rows.count())}

    def drag(self, pixels):
        box = self.handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + pixels, y, steps=5)
        self.page.mouse.up()

    def settles(self, book):
        """Wait until words and bars are those of the kernel."""
        for _ in range(600):
            told, shown = book.ask(OUTLOOK), {"text": self.said.input_value(), "words": list(self.bars())}
            if told == shown:
                return
            self.page.wait_for_timeout(100)
        assert told == shown


#: what the kernel says about where the slider stands
OUTLOOK = "dict(text=str(slider.outlook), words=[words for _, words in slider.outlook.bars.values()])"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "policy.toml"


@pytest.fixture
def shown(book, page, path):
    book.type(CODE.format(path=str(path)))
    found = Shown(page)
    expect(found.said).to_have_value(re.compile("go through without a person"))
    return found


def test_the_mouse_moves_words_and_bars_and_makes_the_policy(book, shown, watch, path):
    before, text = shown.bars(), shown.said.input_value()
    names = ["automatic: ", "of those wrong: ", "reviews in 1,000: ", "cost of 1,000: at most "]
    assert [words.startswith(name) for words, name in zip(before, names, strict=True)] == [True] * 4
    assert re.search(r"reviews in 1,000: \d+, \d+\.\d an hour", list(before)[2])
    shown.drag(150)
    expect(shown.said).not_to_have_value(text)
    shown.settles(book)
    after = shown.bars()
    assert not set(before) & set(after)
    moved = [new - old for old, new in zip(before.values(), after.values(), strict=True)]
    assert [step > 0 for step in moved] == [False, False, True, after_costs_more(before, after)]
    shown.button.click()
    expect(shown.done).to_have_value(re.compile("^policy .* is in"))
    made = Policy.from_dict(tomllib.loads(path.read_text("utf-8")))
    assert made.confidence_threshold == book.ask("float(slider.outlook.threshold)")
    assert watch.harm() == {}


def after_costs_more(before, after):
    old, new = (float(list(bars)[3].rsplit(" ", 1)[1].replace(",", "")) for bars in (before, after))
    return new > old


def test_keys_alone_move_it_and_make_the_policy_and_leave_the_notebook_as_it_is(book, shown, page, path):
    cells, place = book.cells(), book.ask("int(slider._slider.value)")
    shown.handle.focus()
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", None), ("Home", None)):
        page.keyboard.press(key)
        wanted = place + step if step else {"End": "len(slider.outlooks) - 1", "Home": 0}[key]
        text = book.ask(f"str(slider.outlooks[{wanted}])")
        expect(shown.said).to_have_value(text)
        shown.settles(book)
    page.keyboard.press("Tab")
    for _ in range(5):
        if shown.button.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(shown.button).to_be_focused()
    page.keyboard.press("Enter")
    expect(shown.done).to_have_value(re.compile("^policy .* is in"))
    made = Policy.from_dict(tomllib.loads(path.read_text("utf-8")))
    assert made.confidence_threshold == book.ask("float(slider.outlooks[0].threshold)")
    assert book.cells() == cells


def test_nothing_of_it_is_cut_off_or_pale_in_either_theme(shown, theme):  # noqa: F811
    for name in ("JupyterLab Light", "JupyterLab Dark"):
        theme(name)
        assert shown.root.evaluate(CUT) == [], name
        for text in (shown.said, shown.button, *shown.root.locator("label:visible").all()):
            assert contrast(text.screenshot()) >= 4.5, name


def contrast(png):
    """Return the contrast of a picture's text with its ground, the most frequent colour, as a person sees them."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3) / 255
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    light = np.round(linear @ [0.2126, 0.7152, 0.0722], 3)
    values, counts = np.unique(light, return_counts=True)
    ground = values[counts.argmax()]
    return max((max(one, ground) + 0.05) / (min(one, ground) + 0.05) for one in values)
