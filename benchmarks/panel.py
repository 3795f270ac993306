"""From a key, or a click, to the next task on the screen, in a real JupyterLab: the panel with keys, and the plain one.

Run ``python benchmarks/panel.py [ROUNDS [WAITING]]``; each panel is measured on this machine and over a link of 100 ms
there and back, both in turn; then how long the first view takes, what 500 decisions leave behind, and the panel with
keys before queues of 100, 10,000 and WAITING tasks (100,000), from a key until the next task is shown and until the
answer is saved. It needs what the tests need.
"""

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser.chromium import ARGUMENTS, find_or_install
from browser.jupyter import jupyterlab
from browser.notebook import Notebook
from playwright.sync_api import sync_playwright

PANEL = """
from hitl_nb import open_queue
from hitl_nb.panel import ReviewPanel
import pandas as pd
from hitl_nb import Orchestrator, Policy
queue = open_queue({path!r})
inputs = pd.DataFrame({{"text": [f"mail {{i}}" for i in range({n})]}})
said = [dict(label="spam", confidence=0.5)] * {n}
Orchestrator(queue=queue, policy=Policy(0.85)).process_frame(inputs, said)
"""
SHOW = """
panel = ReviewPanel(queue, "ann", labels=["ham", "spam"], plain={plain})
panel
"""
#: widgets in the kernel, and elements in the page
LEFT = "len(__import__('ipywidgets').widgets.widget._instances)"
ELEMENTS = "() => document.querySelectorAll('.hitl-live *').length"
#: how each panel is told to approve, and where its item stands
LIVE = """() => document.querySelector('.hitl-live-input')?.textContent"""
PLAIN = """() => document.querySelector('.hitl-prose textarea, .hitl-fields textarea')?.value"""
ONE = """async ([plain, wanted]) => {
    const shown = plain ? PLAIN : LIVE;
    const isSaving = () => !plain && document.querySelector('.hitl-live-counts').textContent.includes('saving');
    const target = document.querySelector(plain ? '.hitl .hitl-approve' : '.hitl-live');
    const start = performance.now();
    if (plain) target.click();
    else target.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', bubbles: true, composed: true}));
    while (!shown()?.endsWith(wanted)) await new Promise(requestAnimationFrame);
    const seen = performance.now() - start;
    while (isSaving()) await new Promise(requestAnimationFrame);
    return [seen, performance.now() - start];
}""".replace("PLAIN", f"({PLAIN})").replace("LIVE", f"({LIVE})")


def late(port, seconds):
    """Return the port of a line to a server on which everything comes later."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def pump(reader, writer):
        while data := await reader.read(65536):
            loop.call_later(seconds, writer.write, data)
        loop.call_later(seconds, writer.close)

    async def connect(reader, writer):
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)

    def run():
        server = loop.run_until_complete(asyncio.start_server(connect, "127.0.0.1", 0))
        ready.port = server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    return ready.port


def opened(browser, server, port):
    """Open a notebook of its own on a page of its own."""
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.set_default_timeout(120_000)
    page.goto(f"http://127.0.0.1:{port}/lab?token={server.token}&reset")
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate("() => window.jupyterapp.restored.then(() => true)")
    return Notebook.open(page, server.root / f"{uuid4().hex}.ipynb")


def closed(book):
    book.close()
    book.page.context.close()


def shown(book, plain, name):
    """Return after how many milliseconds a task is on the screen."""
    start = perf_counter()
    book.page.wait_for_function(f"name => ({PLAIN if plain else LIVE})()?.endsWith(name)", arg=name)
    return 1000 * (perf_counter() - start)


def key_to_next(book, plain, rounds, first=0):
    """Return for each decision when the next task was on the screen, and when its answer was saved, in milliseconds."""
    took = []
    for i in range(first, first + rounds):
        book.page.wait_for_timeout(400)  # so fast nobody reads; a plain panel takes an earlier click for a double one
        took.append(book.page.evaluate(ONE, [plain, f"mail {i + 1}"]))
    return took


def measure(browser, server, port, plain, rounds, waiting=None):
    book = opened(browser, server, port)
    path = str(server.root / f"{uuid4().hex}.duckdb") if waiting else ":memory:"
    book.type(PANEL.format(n=waiting or rounds + 20, path=path))
    book.type(SHOW.format(plain=plain))
    shown(book, plain, "mail 0")
    took = key_to_next(book, plain, rounds)
    closed(book)
    return [middle(times) for times in zip(*took, strict=True)]


def middle(times):
    return median(times), quantiles(times, n=20)[-1]


def first_views(browser, server, port, rounds):
    """Return the times from running a cell to the first task on the screen, with keys and plain, in turn."""
    book = opened(browser, server, port)
    book.type(PANEL.format(n=30 * rounds, path=":memory:"))
    took = {False: [], True: []}
    for _ in range(rounds):
        for plain, times in took.items():
            start = perf_counter()
            book.type(SHOW.format(plain=plain))
            shown(book, plain, "mail 0")
            times.append(1000 * (perf_counter() - start))
            book.tell("panel.close()")
    closed(book)
    return took[False], took[True]


def left_behind(browser, server, port):
    """Return how many widgets and elements 500 decisions by keys add."""
    book = opened(browser, server, port)
    book.type(PANEL.format(n=600, path=":memory:"))
    book.type(SHOW.format(plain=False))
    shown(book, False, "mail 0")
    key_to_next(book, False, 1)
    before = book.ask(LEFT), book.page.evaluate(ELEMENTS)
    for i in range(1, 501):
        book.page.evaluate(ONE, [False, f"mail {i + 1}"])
    after = book.ask(LEFT), book.page.evaluate(ELEMENTS)
    closed(book)
    return after[0] - before[0], after[1] - before[1]


def main(rounds, waiting):
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyterlab(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_or_install(playwright), args=ARGUMENTS)
        here = int(server.url.rsplit(":", 1)[1])
        for name, port in (("on this machine", here), ("over 100 ms", late(here, 0.05))):
            keys, plain = (measure(browser, server, port, one, rounds)[0] for one in (False, True))
            print(
                f"{name:>16}: keys p50 {keys[0]:.0f} p95 {keys[1]:.0f} ms, plain p50 {plain[0]:.0f} "
                f"p95 {plain[1]:.0f} ms, ratio of medians {keys[0] / plain[0]:.2f}",
                flush=True,
            )
        keys, plain = map(middle, first_views(browser, server, here, 10))
        print(
            f"      first view: keys p50 {keys[0]:.0f} p95 {keys[1]:.0f} ms, plain p50 {plain[0]:.0f} "
            f"p95 {plain[1]:.0f} ms, ratio of medians {keys[0] / plain[0]:.2f}"
        )
        print(
            "500 decisions by keys add {} widgets and {} elements".format(*left_behind(browser, server, here)),
            flush=True,
        )
        for n in dict.fromkeys((10_000, waiting)):
            few, many = (measure(browser, server, here, False, min(rounds, 80), one) for one in (100, n))
            for what, one, other in zip(("shown", "saved"), many, few, strict=True):
                print(
                    f"{n:>16,}: {what} p50 {one[0]:.1f} p95 {one[1]:.1f} ms, before 100 waiting p50 {other[0]:.1f} "
                    f"p95 {other[1]:.1f} ms, ratio of medians {one[0] / other[0]:.2f}",
                    flush=True,
                )
        browser.close()


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [60, 100_000][len(given) :]))
