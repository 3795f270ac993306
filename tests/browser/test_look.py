"""Readable in both themes and in a narrow window."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from browser.states import START, STATES
from browser.test_first_minutes import STORE
from browser.test_judging import MAILS, SPAM, code

#: where the pictures of the states are, and what stands above them
PICTURES = Path(__file__).parents[2] / "docs" / "states"
HEAD = """# The panel in every state

In JupyterLab, light and dark; all items are invented. The browser tests take these pictures, and check in each state
that every text stands out from its background (contrast ≥ 4.5) and that nothing is cut off in a window of 640 pixels.
"""

#: contrast of every text that is not disabled with what lies behind it, 1 to 21, lowest first
CONTRAST = """() => {
    const numbers = colour => {
        const canvas = new OffscreenCanvas(1, 1).getContext('2d');
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = colour => {
        const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
        const [r, g, b] = numbers(colour).map(x => linear(x / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = element => {
        for (let e = element; e; e = e.parentElement)
            if (numbers(getComputedStyle(e).backgroundColor)[3] === 255) return getComputedStyle(e).backgroundColor;
        return 'white';
    };
    const kinds = ['textarea', 'label', 'button:enabled', '.widget-label']
        .map(kind => `.hitl ${kind}`);
    const live = 'strong, span, p, button[aria-disabled="false"], button:not([aria-disabled]), div, label, kbd, td, th'
        + ', dd, input, textarea, li, summary';
    const own = e => e.value || [...e.childNodes].some(one => one.nodeType === 3 && one.data.trim());
    const shown = [...document.querySelectorAll(live.split(', ').map(kind => `.hitl-live ${kind}`))].filter(own)
        .filter(e => !e.closest('[aria-disabled="true"], .hitl-live-heard'));
    const all = [...document.querySelectorAll(kinds), ...shown];
    return all.filter(e => e.checkVisibility({opacityProperty: true})).map(e => {
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
        return [(a + .05) / (b + .05), e.className, e.textContent || e.value];
    }).sort((x, y) => x[0] - y[0]);
}"""
#: elements of a panel that reach beyond it, or that can be scrolled sideways
TOO_WIDE = """() => {
    const panel = [...document.querySelectorAll('.hitl, .hitl-live')].find(e => e.checkVisibility());
    const right = panel.getBoundingClientRect().right, area = panel.closest('.jp-OutputArea');
    const overflow = e => getComputedStyle(e).overflowX;
    const scrolls = e => e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(overflow(e));
    const sticksOut = e => e !== area && e.getBoundingClientRect().right > right + 1;
    const seen = e => e.checkVisibility({opacityProperty: true});
    return [area, panel, ...panel.querySelectorAll('*')].filter(e => seen(e) && (scrolls(e) || sticksOut(e)))
        .map(e => e.outerHTML.slice(0, 120));
}"""


@pytest.fixture
def theme(page):
    def change(name):
        page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        expect(page.locator(f'body[data-jp-theme-name="{name}"]')).to_be_attached()
        expect(page.locator("#jupyterlab-splash")).to_have_count(0)

    yield change
    change("JupyterLab Light")


def test_every_text_stands_out_from_its_background(book, panel, page, theme):
    book.type(code(MAILS))
    panel.judge("Approve", 1)
    panel.click("Correct")
    panel.says("labels are ham, spam")
    for name in ("JupyterLab Light", "JupyterLab Dark"):
        theme(name)
        found = page.evaluate(CONTRAST)
        assert len(found) > 12
        assert [one for one in found if one[0] < 4.5] == [], name


@pytest.fixture
def width(page):
    yield lambda pixels: page.set_viewport_size({"width": pixels, "height": 1000})
    page.set_viewport_size({"width": 1280, "height": 1000})


@pytest.mark.parametrize("text", [SPAM, MAILS.replace('f"mail {{i}}"', '"w" * 900')], ids=["fields", "a long word"])
def test_nothing_is_cut_off_or_scrolls_sideways(book, page, width, text):
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    book.type(code(text))
    expect(page.get_by_role("button", name="Finish").last).to_be_visible()
    for pixels in (700, 1280, 1800):
        width(pixels)
        assert page.evaluate(TOO_WIDE) == [], pixels


@pytest.fixture
def stand(book, open_notebook, live, page):
    """Bring the panel with keys into a state."""

    def bring(stage):
        page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        notebook = open_notebook("") if stage.ends else book
        notebook.type(START + stage.code)
        if stage.keys:
            live.focus()
        if stage.tell:
            notebook.tell(stage.tell)
        for i, key in enumerate(stage.keys):
            if stage.ends and i:
                notebook.shut_down()
            live.press(key)
        if stage.typed:
            name, text = stage.typed
            live.root.get_by_label(name).fill(text)
            live.press("Enter")
        expect(live.root).to_contain_text(stage.says)

    yield bring
    book.tell("'gate' in globals() and gate.set()")  # the kernel that ended had a gate of its own


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_the_panel_with_keys_can_be_read(stand, live, page, theme, width, state):
    stand(STATES[state])
    width(900)
    for name in ("Light", "Dark"):
        theme(f"JupyterLab {name}")
        found = page.evaluate(CONTRAST)
        assert len(found) >= 1
        assert [one for one in found if one[0] < 4.5] == [], name
        if os.environ.get(STORE):
            keep(live.root.screenshot(), PICTURES / f"{state}-{name.lower()}.png")
    for pixels in (700, 640):  # 640 is half of 1280: a page at 200 %
        width(pixels)
        assert page.evaluate(TOO_WIDE) == [], pixels


def keep(png, path):
    """Store a picture in as many colours as one byte tells apart; of fewer, orange and red would be one."""
    path.parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(path, optimize=True)


def test_every_state_is_described_with_its_pictures():
    told = "".join(
        f"\n## {state}\n\n{stage.about}\n\n![{state}, light](states/{state}-light.png) "
        f"![{state}, dark](states/{state}-dark.png)\n"
        for state, stage in STATES.items()
    )
    page = PICTURES.parent / "states.md"
    if os.environ.get(STORE):
        page.write_text(HEAD + told, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == HEAD + told
    names = {f"{state}-{name}.png" for state in STATES for name in ("light", "dark")}
    assert {path.name for path in PICTURES.iterdir()} == names


#: the lines of the help on which a key does not stand before what it does
ASKEW = """() => [...document.querySelectorAll('.hitl-live-help dt')].filter(key => {
    const [a, b] = [key, key.nextSibling].map(one => one.getBoundingClientRect());
    return a.top !== b.top || a.right > b.left;
}).map(key => key.textContent)"""


def test_each_key_stands_before_what_it_does(book, live, page):
    book.type(START + STATES["item"].code)
    live.focus()
    live.press("?")
    expect(live.root.locator(".hitl-live-help dt")).to_have_count(13)
    assert page.evaluate(ASKEW) == []


MANY = MAILS.replace('["ham", "spam"], plain=True', '[f"label {{i:03}}" for i in range(200)]')
#: how much of the list of labels is cut off by the output that it stands in, in pixels; and how much shows
CUT = """() => {
    const list = document.querySelector('.hitl-live-options:not([hidden])'), box = list.getBoundingClientRect();
    const area = list.closest('.jp-OutputArea').getBoundingClientRect();
    return [box.bottom - area.bottom, box.height];
}"""


def test_a_long_list_of_labels_is_not_cut_off_by_the_output(book, live, page):
    book.type(code(MANY))
    live.focus()
    live.press("c", "ArrowDown")
    expect(live.root.get_by_role("option")).to_have_count(100)
    cut, height = page.evaluate(CUT)
    assert cut < 0
    assert height > 100
    page.keyboard.type("17")
    live.press("ArrowDown", "Enter", "Enter")
    live.counts(1)
    assert book.ask("queue.history()['label'].dropna().tolist()") == ["label 117"]


#: room in pixels between the ring around the panel with the focus and the next element that would cut it off
RING = """() => {
    const panel = document.activeElement, style = getComputedStyle(panel), box = panel.getBoundingClientRect();
    const reach = parseFloat(style.outlineWidth) + parseFloat(style.outlineOffset);
    let area = panel.parentElement;
    while (getComputedStyle(area).overflow === 'visible') area = area.parentElement;
    const {top, bottom, left, right} = area.getBoundingClientRect();
    return Math.min(box.top - top, bottom - box.bottom, box.left - left, right - box.right) - reach;
}"""


def test_the_ring_around_a_panel_with_the_focus_is_whole(book, live, page):
    book.type(START + STATES["item"].code)
    live.focus()
    live.press("a")
    live.counts(1)
    expect(page.locator(".hitl-live:focus-visible")).to_have_css("outline-style", "solid")
    assert page.evaluate(RING) >= 0
