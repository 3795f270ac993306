"""The parts of an item in a bare page: text stays text, marks stay where they are, pictures stay in their frame."""

import base64
import json

import numpy as np
import payloads
import pytest
from playwright.sync_api import expect

from browser.conftest import HERE, LONG
from browser.payloads import CHARACTERS, hostile
from hitl_nb.panel.parts import as_message
from hitl_nb.panel.show import show, show_input

PANEL = HERE.parents[1] / "hitl_nb" / "panel"
SCRIPT = "\n".join((PANEL / "js" / f"{name}.js").read_text(encoding="utf-8") for name in ("dom", "fields", "image"))
STYLE = (PANEL / "live.css").read_text(encoding="utf-8")
KNOWN = {"DIV", "SECTION", "MARK", "TABLE", "TBODY", "TR", "TH", "TD", "SPAN", "DETAILS", "SUMMARY", "UL", "LI"}
KNOWN |= {"FIGURE", "FIGCAPTION", "IMG", "BUTTON"}
#: every element, what of its attributes could run or load something, and what stands in the first places
LOOK = """() => {
    const all = [...document.querySelectorAll("#root *")], first = name => document.querySelector(`#root ${name}`);
    const runs = ({name, value}) => /^on|href|style|action|srcdoc/i.test(name) && !/^min-width: [0-9]+ch;$/.test(value);
    return {
        elements: [...new Set(all.map(e => e.tagName))],
        runs: all.flatMap(e => [...e.attributes]).filter(runs).map(one => one.name),
        text: first(".hitl-live-text").textContent, field: first("td").textContent, alt: first("img").alt,
    };
}"""
PHOTO, WIDE = payloads.png(), np.tile(np.arange(1500) % 256, (1200, 1)).astype(np.uint8)


class Page:
    """A page of nothing but one item."""

    def __init__(self, page):
        self.page, self.root, self.requests, self.errors = page, page.locator("#root"), [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append("a dialog"))

    def clear(self, width=700):
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.set_content('<body style="margin:0"><div id="root"></div>')
        self.page.add_style_tag(content=STYLE)
        self.page.add_script_tag(content=f"{SCRIPT}\nvar hits = []; var hit = id => hits.push(id);")
        self.requests.clear()
        self.errors.clear()
        return self

    def show(self, shown):
        message, pictures = as_message(shown)
        urls = [f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in pictures]
        self.page.evaluate(
            """([message, urls]) => showParts(document.getElementById("root"), message.parts, {
                unfold: message.folded ? () => hits.push("unfold") : null,
                url: part => urls[part.buffer],
                widget: (model, place) => place.append(`widget ${model}`),
            })""",
            [json.loads(json.dumps(message, allow_nan=False)), urls],
        )
        return self.root

    def texts(self, selector):
        return self.page.evaluate("s => [...document.querySelectorAll(s)].map(e => e.textContent)", f"#root {selector}")


@pytest.fixture(scope="module")
def tab(chrome):
    page = chrome.new_page()
    page.set_default_timeout(LONG)
    yield Page(page)
    page.close()


@pytest.fixture
def page(tab):
    return tab.clear()


# -- text


@pytest.mark.parametrize("texts", [payloads.MARKUP, hostile("p")], ids=["markup", "browser"])
def test_no_payload_is_more_than_text_in_any_place(page, texts):
    for text in texts:
        item = {
            "text": f"{text}\n",
            "field": text[:79],
            text[:79]: 1,
            f"{text} tree": {text: {text: [text, {"a": text}]}},
        }
        shown = show_input(item | {f"{text} photo": PHOTO}, words=[text])
        page.show(shown)
        seen, (said, photo, fields, _) = page.page.evaluate(LOOK), shown.parts
        assert (set(seen["elements"]) <= KNOWN, seen["runs"]) == (True, [])
        assert (seen["text"], seen["field"]) == (said.text, fields.rows[0].value)
        assert seen["alt"] == f"Picture: {photo.name}"
    assert (page.page.evaluate("hits"), page.errors) == ([], [])
    assert [url for url in page.requests if not url.startswith("data:image/png")] == []


@pytest.mark.parametrize(
    ("text", "words", "marked"),
    [
        ("Pay now,\nPAY! payee", ["pay"], ["Pay", "PAY"]),
        ("\U0001f600\U0001f600 pay \U0001f600 pay", ["pay"], ["pay", "pay"]),
        ("\U0001f600 x", ["\U0001f600"], ["\U0001f600"]),
        ("<b>pay</b> \u202epay", ["pay", "b"], ["b", "pay", "b", "pay"]),
        ("nothing", ["pay"], []),
    ],
)
def test_marks_stand_where_the_kernel_found_them(page, text, words, marked):
    shown = show(text, words=words)
    page.show(shown)
    assert page.texts("mark") == marked
    assert page.texts(".hitl-live-text") == [shown.text]


def test_a_text_keeps_its_lines_and_its_direction_to_itself(page):
    root = page.show(show({"a": "one\n  two\n" + "\u05d0" * 90, "b": 1}))
    css = root.locator(".hitl-live-text").evaluate(
        "e => [getComputedStyle(e).whiteSpace, getComputedStyle(e).unicodeBidi]"
    )
    assert css == ["pre-wrap", "isolate"]
    assert root.locator(".hitl-live-text").inner_text().startswith("one\n  two\n")
    assert "one" not in root.locator("td").inner_text()


@pytest.mark.parametrize(
    ("text", "folds"), [("x\n" * 29, False), ("x\n" * 31, True), ("x" * 3_900, True)], ids=range(3)
)
def test_a_long_text_scrolls_until_all_of_it_is_asked_for(page, text, folds):
    root = page.show(show(text))
    toggle = root.get_by_role("button", name="Show all")
    assert toggle.count() == folds
    if folds:
        box = root.locator(".hitl-live-text")
        low = box.bounding_box()["height"]
        assert (box.get_attribute("tabindex"), toggle.get_attribute("aria-expanded")) == ("0", "false")
        toggle.click()
        assert box.bounding_box()["height"] > low
        root.get_by_role("button", name="Show less").click()
        assert box.bounding_box()["height"] == low


def test_what_is_folded_in_the_kernel_is_asked_for_there(page):
    page.show(show({"a": "x" * 9_000})).get_by_role("button", name="Show more").click()
    assert page.page.evaluate("hits") == ["unfold"]
    assert page.show(show({"a": "x"})).get_by_role("button").count() == 0


# -- fields and trees


#: where each text ends
ENDS = """all => all.map(one => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return range.getBoundingClientRect().right;
})"""


def test_fields_are_a_table_whose_rows_have_names(page):
    root = page.show(show({"amount": 12.5, "country": "NL", "n": 3}))
    assert root.get_by_role("rowheader").all_inner_texts() == ["amount", "country", "n"]
    assert root.get_by_role("cell").all_inner_texts() == ["12.5", "NL", "3"]
    page.clear().show(
        show({"amount": 12.5, "country": "w" * 79, "n": 3})
    )  # the numbers end at one line, near their names
    amount, country, n = root.locator("td > span").evaluate_all(ENDS)
    assert abs(amount - n) < 1
    assert n < country / 2
    figures = root.locator("td").evaluate_all("all => all.map(e => getComputedStyle(e).fontVariantNumeric)")
    assert figures == ["tabular-nums", "normal", "tabular-nums"]


def test_an_odd_value_says_why_in_words(page):
    root = page.show(show({"a": None, "b": float("nan"), "c": float("inf"), "d": 1}))
    assert root.locator("td").all_inner_texts() == [
        "None\n⚠ missing", "NaN\n⚠ not a number", "inf\n⚠ infinite", "1",
    ]  # fmt: skip


def test_a_tree_is_open_for_two_levels(page):
    root = page.show(show({"a": {"b": {"c": {"d": 1}}, "e": "", "f": ["x", "y"]}}))
    opened = root.locator("details").evaluate_all("all => all.map(e => [e.firstChild.textContent, e.open])")
    assert opened == [["a 3", True], ["b 1", True], ["c 1", False]]
    assert root.locator("li").all_inner_texts()[-2:] == ["e", "f: ['x', 'y']"]
    root.get_by_text("c", exact=True).click()
    expect(root.get_by_text("d: 1")).to_be_visible()


def test_names_of_every_object_are_names_of_fields(page):
    item = {"__proto__": {"__proto__": {"constructor": 1}}, "constructor": 2, "toString": "x\ny"}
    root = page.show(show(item))
    assert root.get_by_role("rowheader").all_inner_texts() == ["constructor"]
    assert root.locator("summary").all_inner_texts() == ["__proto__ 1", "__proto__ 1"]


def test_the_largest_item_is_shown_whole_and_within_the_panel(page):
    item = {f"text {i}": "w" * 10**4 for i in range(9)} | {f"{'n' * 300}{i}": CHARACTERS["pile"] for i in range(90)}
    item |= {f"tree {i}": {"w" * 300: ["w" * 300] * 90} for i in range(9)}
    page.clear(width=500).show(show(item, 5))
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 500


# -- pictures


def test_a_picture_fits_and_shows_its_pixels_on_request(page):
    root = page.show(show({"photo": WIDE, "n": 1}))
    image, frame = root.get_by_role("img", name="Picture: photo"), root.locator(".hitl-live-frame")
    toggle = root.get_by_role("button", name="100 %")
    page.page.wait_for_function("() => document.querySelector('img').naturalWidth")
    natural = image.evaluate("e => e.naturalWidth")
    assert natural > 700 >= image.bounding_box()["width"]
    assert root.locator("figcaption").inner_text().startswith("photo")
    toggle.click()
    assert (image.bounding_box()["width"], toggle.get_attribute("aria-pressed")) == (natural, "true")
    assert frame.bounding_box()["width"] <= 700
    assert frame.evaluate("e => e.scrollLeft > 0 && e.tabIndex === 0")
    image.click()
    assert (image.bounding_box()["width"] <= 700, toggle.get_attribute("aria-pressed")) == (True, "false")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 700


def test_a_click_into_a_picture_shows_that_place(page):
    root = page.show(show(WIDE))
    page.page.wait_for_function("() => document.querySelector('img').naturalWidth")
    root.locator("img").click(position={"x": 2, "y": 2})
    assert root.locator(".hitl-live-frame").evaluate("e => [e.scrollLeft, e.scrollTop]") == [0, 0]


@pytest.mark.parametrize(("side", "rendering"), [(8, "pixelated"), (400, "auto")])
def test_a_small_picture_keeps_its_pixels_apart(page, side, rendering):
    root = page.show(show(np.zeros((side, side), dtype=np.uint8)))
    page.page.wait_for_function("() => document.querySelector('img').naturalWidth")
    assert root.locator("img").evaluate("e => getComputedStyle(e).imageRendering") == rendering


def test_a_picture_that_the_browser_refuses_is_named(page):
    page.page.evaluate("document.getElementById('root').append(showImage({name: '<b>', note: ''}, 'data:image/png,x'))")
    expect(page.root).to_contain_text("Picture: <b> cannot be shown")


def test_a_widget_is_handed_its_place(page):
    chart = type("Chart", (), {"model_id": "abc", "comm": None})()
    assert page.show(show_input({"x": 1}, lambda d: chart)).inner_text() == "widget abc"
