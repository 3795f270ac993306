"""Readable in both themes and in a narrow window."""

import pytest
from playwright.sync_api import expect

from browser.test_judging import MAILS, QUEUE, SPAM, code

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


#: code that brings a panel with keys into a state, and what is then said
STATES = {
    "item": ("", "Your judgement, please"),
    "refused": ("panel.correct('eggs')", "labels are ham, spam"),
    "conflict": (
        "task = panel.view.ticket.split(':')[0]; queue.release(task, 'ann')\n"
        "queue.resolve(task, 'bob', 'approve'); panel.reject('hm')",
        "answered by 'bob'",
    ),
    "item_changed": (
        "queue.replace(panel.view.ticket.split(':')[0], {'text': 'new'}, {'label': 'ham'}); panel.approve()",
        "changed",
    ),
    "error": ("store.fails = 9; panel.correct('ham')", "Not saved yet"),
    "empty": ("for _ in range(8): panel.approve()", "Nothing waits for you"),
    "finished": ("panel.finish()", "Finished"),
}
FLAKY = (
    QUEUE
    + """
from flaky import Flaky
from hitl_nb.queue import ReviewQueue
store = Flaky(queue.store)
panel = ReviewPanel(ReviewQueue(store), reviewer="ann", labels=["ham", "spam"])
panel
"""
)


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_the_panel_with_keys_can_be_read(book, live, page, theme, width, state, tmp_path):
    does, says = STATES[state]
    page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    book.type(code(FLAKY))
    expect(live.button("Finish")).to_be_visible()
    if does:
        book.tell(does)
    expect(live.root).to_contain_text(says)
    for name in ("JupyterLab Light", "JupyterLab Dark"):
        theme(name)
        found = page.evaluate(CONTRAST)
        assert len(found) >= 3
        assert [one for one in found if one[0] < 4.5] == [], name
        page.screenshot(path=tmp_path / f"{state}-{name[11:]}.png")
    width(700)
    assert page.evaluate(TOO_WIDE) == []


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
    book.type(code(MAILS.replace(", plain=True", "")))
    live.focus()
    live.press("a")
    live.counts(1)
    expect(page.locator(".hitl-live:focus-visible")).to_have_css("outline-style", "solid")
    assert page.evaluate(RING) >= 0
