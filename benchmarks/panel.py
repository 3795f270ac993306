"""From a key, or a click, to the next task on the screen, in a real JupyterLab: the panel with keys, and the plain one.

Run ``python benchmarks/panel.py [ROUNDS]``; each panel is measured on this machine and over a link of 100 ms there and
back, both in turn. It needs what the tests need.
"""

import asyncio
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser.chromium import ARGUMENTS, find_or_install
from browser.jupyter import jupyterlab
from browser.notebook import Notebook
from playwright.sync_api import sync_playwright

PANEL = """
from hitl_nb import open_queue
from hitl_nb.panel import ReviewPanel
queue = open_queue(":memory:")
for i in range({n}):
    said = {{"label": "spam"}}
    queue.submit(input_data={{"text": f"mail {{i}}"}}, ai_prediction=said, confidence=0.5, reason="unsure")
panel = ReviewPanel(queue, "ann", labels=["ham", "spam"], plain={plain})
panel
"""
#: how each panel is told to approve, and where its item stands
LIVE = """() => document.querySelector('.hitl-live-input')?.textContent"""
PLAIN = """() => document.querySelector('.hitl-prose textarea, .hitl-fields textarea')?.value"""
ONE = """async ([plain, wanted]) => {
    const shown = plain ? PLAIN : LIVE;
    const target = document.querySelector(plain ? '.hitl .hitl-approve' : '.hitl-live');
    const start = performance.now();
    if (plain) target.click();
    else target.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', bubbles: true, composed: true}));
    while (!shown()?.endsWith(wanted)) await new Promise(requestAnimationFrame);
    return performance.now() - start;
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


def measure(browser, server, port, plain, rounds):
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"http://127.0.0.1:{port}/lab?token={server.token}&reset")
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate("() => window.jupyterapp.restored.then(() => true)")
    book = Notebook.open(page, server.root / f"{port}-{plain}.ipynb")
    book.type(PANEL.format(n=rounds + 20, plain=plain))
    page.wait_for_function(f"() => ({PLAIN if plain else LIVE})()?.endsWith('mail 0')")
    took = []
    for i in range(rounds):
        page.wait_for_timeout(400)  # so fast nobody reads; a plain panel takes an earlier click for a double one
        took.append(page.evaluate(ONE, [plain, f"mail {i + 1}"]))
    book.close()
    page.context.close()
    return median(took), quantiles(took, n=20)[-1]


def main(rounds):
    with (
        tempfile.TemporaryDirectory() as folder,
        jupyterlab(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_or_install(playwright), args=ARGUMENTS)
        here = int(server.url.rsplit(":", 1)[1])
        for name, port in (("on this machine", here), ("over 100 ms", late(here, 0.05))):
            keys, plain = (measure(browser, server, port, one, rounds) for one in (False, True))
            print(
                f"{name:>16}: keys p50 {keys[0]:.0f} p95 {keys[1]:.0f} ms, plain p50 {plain[0]:.0f} "
                f"p95 {plain[1]:.0f} ms, ratio of medians {keys[0] / plain[0]:.2f}",
                flush=True,
            )
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
