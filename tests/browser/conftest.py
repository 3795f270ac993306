"""One Jupyter server and one browser for all tests of this folder; a notebook of its own for each that asks."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from browser.chromium import ARGUMENTS, NONE_FOUND, NoBrowser, find, find_or_install
from browser.jupyter import jupyterlab
from browser.notebook import Notebook
from hitl_nb.panel.plain import DOUBLE_CLICK

HERE = Path(__file__).parent
#: lets a kernel import from the tests
TESTS = f"import sys; sys.path.append({str(HERE.parent)!r})"
#: what a payload calls when it runs, and a list of all elements in a panel that have no business there
CANARY = """
window.hits = [];
window.hit = id => window.hits.push(id);
window.strange = [];
const known = new Set(['DIV', 'TEXTAREA', 'INPUT', 'LABEL', 'BUTTON', 'IMG', 'DATALIST', 'OPTION']);
const ofLive = 'SECTION HEADER STRONG SPAN PROGRESS DL DT DD KBD TABLE CAPTION THEAD TBODY TR TH TD MARK FIGURE'
    + ' FIGCAPTION DETAILS SUMMARY UL LI P SELECT';
for (const name of ofLive.split(' ')) known.add(name);
const isStrange = element => {
    if (!element.closest('.hitl, .hitl-live')) return false;
    if (element.tagName === 'STYLE') return !element.textContent.includes('--hitl-ink');
    const runs = a => /^on/i.test(a.name)
        || (/href|src|action/i.test(a.name) && /^[\\s\\x00-\\x20]*javascript:/i.test(a.value));
    return !known.has(element.tagName) || [...element.attributes].some(runs);
};
new MutationObserver(records => {
    for (const record of records)
        for (const node of record.addedNodes)
            for (const element of node.nodeType === 1 ? [node, ...node.querySelectorAll('*')] : [])
                if (isStrange(element)) window.strange.push(element.outerHTML.slice(0, 200));
}).observe(document, {childList: true, subtree: true});
"""


#: longest wait for anything on a page, in milliseconds; a test that needs it has failed
LONG = 120_000


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)


def pytest_collection_finish(session):
    """Install a browser, if any test needs one, in the time of no test."""
    needed = any("chrome" in getattr(item, "fixturenames", ()) for item in session.items)
    if needed and not session.config.option.collectonly:
        with suppress(NoBrowser), sync_playwright() as playwright:
            find_or_install(playwright)


@dataclass
class Watch:
    """What the browser did that a notebook with a panel must not do, and how much reached it."""

    page: Page
    server: str
    dialogs: list = field(default_factory=list)
    outside: list = field(default_factory=list)
    navigations: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    #: bytes that came through websockets
    received: int = 0

    def on(self):
        page = self.page
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("framenavigated", self._frame)
        page.on("request", self._request)
        page.on("websocket", lambda socket: socket.on("framereceived", self._receive))
        return self

    def _dialog(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _request(self, request):
        local = request.url.startswith((self.server, "data:", "blob:")) and "/canary/" not in request.url
        self.outside += [] if local else [request.url]

    def _frame(self, frame):  # JupyterLab changes its own address too
        self.navigations += [] if frame.url.startswith(f"{self.server}/lab") else [frame.url]

    def _receive(self, data):
        self.received += len(data)

    def harm(self):
        """Return everything that ran, loaded, moved or stood where only text may stand."""
        found = self.page.evaluate("() => ({ran: window.hits, strange: window.strange})")
        seen = {
            "dialogs": self.dialogs,
            "outside": self.outside,
            "navigations": self.navigations,
            "errors": self.errors,
        }
        return {what: kept for what, kept in (found | seen).items() if kept}

    def forget(self):
        self.page.evaluate("() => { window.hits.length = window.strange.length = 0; }")
        for kept in (self.dialogs, self.outside, self.navigations, self.errors):
            kept.clear()
        self.received = 0


@pytest.fixture(scope="package")
def chrome():
    with sync_playwright() as playwright:
        if (path := find(playwright)) is None:
            pytest.fail(NONE_FOUND, pytrace=False)
        expect.set_options(timeout=LONG)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(chrome, tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


def first_page(chrome, server, **options):
    """Return the first page of another browser, which the server knows already."""
    page = chrome.new_context(viewport={"width": 1280, "height": 1000}, base_url=server.url, **options).new_page()
    page.add_init_script(CANARY)
    page.set_default_timeout(LONG)
    page.request.get(f"/tree?token={server.token}")
    return page


@pytest.fixture(scope="package")
def lab(chrome, server):
    """A page with JupyterLab, and what is watched on it."""
    page = first_page(chrome, server)
    watch = Watch(page, server.url).on()
    page.goto("/lab?reset")
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate("() => window.jupyterapp.restored.then(() => true)")
    return page, watch


@pytest.fixture
def new_page(chrome, server):
    """Open a page of another browser, which goes with the test."""
    opened = []

    def open_(**options):
        opened.append(first_page(chrome, server, **options))
        return opened[-1]

    yield open_
    for page in opened:
        page.context.close()


@pytest.fixture
def page(lab):
    return lab[0]


@pytest.fixture
def watch(lab):
    """What happens during this test."""
    lab[1].forget()
    return lab[1]


@pytest.fixture(scope="package")
def kernel(lab, server):
    """One notebook, for every test that needs no kernel of its own."""
    opened = Notebook.open(lab[0], server.root / "shared.ipynb", ["", "'another cell'"])
    opened.tell(TESTS)
    yield opened
    opened.close()


@pytest.fixture
def book(kernel, page):
    """That notebook; afterwards every widget of its panels must have been shown."""
    yield kernel
    assert page.locator(".jupyter-widgets-error-widget").count() == 0


@pytest.fixture
def open_notebook(page, server, tmp_path):
    """Open a notebook with a kernel of its own, which ends with the test."""
    opened = []

    def open_(*cells):
        opened.append(Notebook.open(page, server.root / f"{tmp_path.name}.ipynb", cells))
        opened[-1].tell(TESTS)
        return opened[-1]

    yield open_
    for notebook in opened:
        notebook.close()


class Panel:
    """The panel of the notebook in front, as a person with a mouse has it."""

    def __init__(self, page):
        self.page, self.root = page, page.locator(".hitl:visible").last

    def button(self, name):
        return self.root.get_by_role("button", name=name, exact=True)

    def box(self, name):
        return self.root.get_by_label(name, exact=True)

    def click(self, name):
        """Press a button as soon as that is no double click."""
        expect(self.button(name)).to_be_enabled()
        self.wait()
        self.button(name).click()

    def wait(self):
        """Let the time pass in which a click counts as the second half of a double click."""
        self.page.wait_for_timeout(DOUBLE_CLICK.total_seconds() * 1000)

    def judge(self, name, done):
        """Press a button and wait until so many decisions are saved."""
        self.click(name)
        self.saves(done)

    def saves(self, done):
        """Wait until so many decisions are saved and the next item is shown."""
        self.counts(done)
        expect(self.root).not_to_have_class(re.compile("hitl-is-(loading|saving)"))

    def counts(self, done, of=r"[\d,]+"):
        expect(self.root.locator(".hitl-head")).to_contain_text(re.compile(rf"(?<!\d){done} of {of}"))

    def says(self, text, box="Message"):
        expect(self.box(box)).to_have_value(re.compile(text))


@pytest.fixture
def panel(page):
    return Panel(page)


class LivePanel:
    """The panel with keys of the notebook in front."""

    def __init__(self, page):
        self.page, self.root = page, page.locator(".hitl-live:visible").last

    def button(self, name):
        return self.root.get_by_role("button", name=name, exact=True)

    def box(self, name):
        return self.root.get_by_label(name, exact=True)

    def focus(self):
        """Put the focus into the panel, as a click beside its buttons does."""
        expect(self.button("Approve")).to_have_attribute("aria-disabled", "false")
        self.root.locator(".hitl-live-title").click()

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def judge(self, name, done):
        """Press a button and wait until so many decisions are saved."""
        expect(self.button(name)).to_have_attribute("aria-disabled", "false")
        self.button(name).click()
        self.counts(done)

    def counts(self, done, more=r"of [\d,]+"):
        expect(self.root.locator(".hitl-live-counts")).to_have_text(re.compile(rf"^{done} {more}"))

    def says(self, text, box="Message"):
        expect(self.box(box)).to_contain_text(re.compile(text))


@pytest.fixture
def live(page):
    return LivePanel(page)
