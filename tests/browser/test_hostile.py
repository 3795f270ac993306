"""Whatever an item holds is text on the screen: nothing runs or loads, the browser answers, the next item works."""

import re

import pytest
from payloads import PICTURES
from playwright.sync_api import expect

from browser.payloads import ALL

#: bytes that one item may cost
MOST = 256 * 1024


WALK = """
from browser.walks import {walk}
walk = {walk}()
panel = next(walk)
panel
"""
#: number of the first payload in TeX
TEX = list(ALL).index("tex link")
#: steps until the payload with number 1, an image with a handler, is shown; and which of its fields each box holds
READ = {
    "walk_items": (3, {
        "Input": ["na", "va"], "Prediction": ["la", "pn", "pv"], "Confidence": ["pr"],
        "Why here": ["re", "mo", "po", "ex"],
    }),
    "walk_words": (2, {"Correct to": ["dr"], "Note": ["co"]}),
}  # fmt: skip


def walk_on(book, steps):
    """Go on with a walk, a few steps at a time: of thousands of messages at once a slow notebook server loses some."""
    for done in range(0, steps, 5):
        book.tell(f"for _ in range({min(5, steps - done)}): next(walk)")


def to_the_end(book):
    while book.ask("[step for step, _ in zip(range(5), walk)] != []"):
        pass


def typeset(book, page):
    """Return when TeX is typeset wherever something asked for it."""
    book.type("from IPython.display import Math\nMath('x^2')", index=1)
    expect(page.locator("mjx-container:visible").last).to_be_visible()


@pytest.mark.parametrize("walk", READ)
def test_no_payload_does_anything_in_any_field(book, page, panel, watch, walk):
    steps, boxes = READ[walk]
    book.type(WALK.format(walk=walk))
    walk_on(book, steps)
    for box, fields in boxes.items():
        for field in fields:
            panel.says(re.escape(f"hit('{field}1')"), box=box)
    walk_on(book, 2 * TEX - 2)
    for _ in range(4):  # two payloads of TeX, each in both of its states
        typeset(book, page)
        book.tell("next(walk)")
    to_the_end(book)
    panel.says("a plain mail", box="Input")
    assert watch.harm() == {}
    panel.click("Approve")
    expect(panel.root).to_contain_text("Nothing waits for you")
    assert watch.harm() == {}


#: what is shown of each field, as text somewhere in the panel with keys
FIELDS = ["na", "va", "la", "pn", "pv", "pr", "re", "mo", "po", "ex"]


@pytest.mark.parametrize("walk", READ)
def test_no_payload_does_anything_in_the_panel_with_keys(book, page, live, watch, walk):
    steps = READ[walk][0]
    book.type(WALK.format(walk=walk).replace(f"= {walk}()", f"= {walk}(plain=False)"))
    expect(live.button("Approve")).to_have_attribute("aria-disabled", "false")
    walk_on(book, steps)
    for field in FIELDS if walk == "walk_items" else ():
        expect(live.root).to_contain_text(f"hit('{field}1')")
    walk_on(book, 2 * TEX - 2)
    for _ in range(4):
        typeset(book, page)
        book.tell("next(walk)")
    to_the_end(book)
    live.says("a plain mail", box="Input")
    assert watch.harm() == {}
    live.focus()
    live.press("a")
    expect(live.root).to_contain_text("Nothing waits for you")
    assert watch.harm() == {}


def test_the_name_of_who_was_faster_is_text(book, panel, watch):
    book.type(WALK.format(walk="walk_words"))
    walk_on(book, 3)
    panel.says("answered by (.|\n)*ot1")
    assert watch.harm() == {}


def test_a_walk_that_is_shown_as_markup_is_noticed(book, page, watch):
    """The test above can fail: the same texts in a widget that takes markup."""
    shown = "import ipywidgets\nfrom browser.payloads import hostile\nbox = ipywidgets.HTML('')\nbox.add_class('hitl')"
    book.type(f"{shown}\nfor text in hostile('x'): box.value = text\nbox.value = 'done'\nbox")
    expect(page.locator(".widget-html:visible")).to_have_text("done")
    book.tell("for text in hostile('x'): box.value = text\nbox.value = 'all done'")
    expect(page.locator(".widget-html:visible")).to_have_text("all done")
    harm = watch.harm()
    assert {"ran", "strange", "outside"} <= set(harm)
    assert "x1" in harm["ran"]


SIZES = r"""
import numpy as np
from datetime import timedelta
from hitl_nb import open_queue
from hitl_nb.panel import ReviewPanel
from payloads import PICTURES, header, png

def fails(item):
    return 1 / 0 if item.get("text") == "raise" else {"an array": np.zeros((6000, 6000))}.get(item.get("text"), item)

queue = open_queue(":memory:")
panel = ReviewPanel(queue, "ann", render=fails, plain=True)
items = {name: {"photo": data} for name, data in PICTURES.items()}
items |= {
    "100 megapixels": {"photo": header(10_000, 10_000)},
    "an array": {"text": "an array"},
    "noise": {"photo": np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)},
    "5 MB of text": {"text": "all work \n" * 500_000},
    "5 MB of hidden characters": {"text": "\u202e" * 1_700_000, "more": "\u200b" * 900_000},
    "5 MB in one word": {"text": "w" * 5_000_000},
    "10,000 fields": {f"field {i}": "\u202e" * 400 for i in range(10_000)},
    "long names": {"\u4e00" * 300 + str(i): "\u4e00" * 300 for i in range(1000)},
    "deep": {"a": [[[[[list(range(100))]]]]] * 100},
    "a render that raises": {"text": "raise"},
}
panel
"""
#: what is said of an item; the rest shows a part of itself
SAID = {"an array": "cannot show this image", "a render that raises": "render raised ZeroDivisionError"}
FOLDED = ["5 MB of text", "5 MB of hidden characters", "5 MB in one word", "10,000 fields", "long names"]
NAMES = [*PICTURES, "100 megapixels", *SAID, "noise", *FOLDED, "deep"]


@pytest.fixture(scope="module")
def sizes(kernel):
    return kernel.type(SIZES)


@pytest.mark.parametrize("name", NAMES)
def test_an_item_costs_little_and_the_next_one_works(sizes, panel, page, watch, name):
    sizes.tell(
        f"""queue.submit(input_data=items[{name!r}], ai_prediction={{"label": "x"}}, confidence=0.6, reason="r")"""
    )
    before = watch.received
    sizes.tell("panel.retry()")
    expect(panel.button("Approve")).to_be_enabled()
    assert page.evaluate("6 * 7") == 42
    cannot = SAID.get(name) or ("cannot show this image" if name in PICTURES or "pixels" in name else None)
    if cannot:
        panel.says(cannot)
        expect(panel.root).to_contain_text("Cannot be shown as it should")
    for _ in range(name in FOLDED):
        panel.says("more", box="Input")
        panel.click("Show more")
        expect(panel.button("Approve")).to_be_enabled()
    assert 0 < watch.received - before < (2 if name in FOLDED else 1) * MOST
    assert panel.root.bounding_box()["height"] < 1500
    panel.click("Reject")
    expect(panel.root).to_contain_text("Nothing waits for you")
    sizes.tell(
        """queue.submit(input_data={"text": "plain"}, ai_prediction={"label": "x"}, confidence=0.6, reason="r")"""
    )
    sizes.tell("panel.retry()")
    panel.says("^plain$", box="Input")
    panel.click("Approve")
    expect(panel.root).to_contain_text("Nothing waits for you")
