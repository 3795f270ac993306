"""The threads of a panel: drawings that had to wait, and signs of life."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from hitl_nb.panel.controller import Controller
from hitl_nb.panel.sitting import State

#: time between two signs of life, in seconds
BEAT = 60.0


def beat(controller: Controller) -> None:
    """Give a sign of life each minute until the sitting is finished or forgotten."""
    alive = weakref.ref(controller)

    def run() -> None:
        while True:
            time.sleep(BEAT)
            found = alive()
            if found is None or found.view().state is State.FINISHED:
                return
            found.heartbeat()
            del found

    threading.Thread(target=run, name="hitl_nb-heartbeat", daemon=True).start()


def whenever(wanted: threading.Event, draw: Callable[[], None], pace: Callable[[], float]) -> None:
    """Call a panel's method a moment after each time that it is wanted, until the panel is forgotten.

    All calls come on one thread: a kernel may hold back what a thread said last that ends right after it.
    """
    alive = weakref.WeakMethod(draw)
    weakref.finalize(draw.__self__, wanted.set).atexit = False  # type: ignore[attr-defined]

    def run() -> None:
        while wanted.wait():
            wanted.clear()
            time.sleep(pace())
            found = alive()
            if found is None:
                return
            found()
            del found

    threading.Thread(target=run, name="hitl_nb-drawing", daemon=True).start()
