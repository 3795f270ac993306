"""The threads of a panel: drawings that had to wait, signs of life, and clicks while a cell is busy."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

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
            if found is None or found.state is State.FINISHED:
                return
            found.heartbeat()
            del found

    threading.Thread(target=run, name="hitl_nb-heartbeat", daemon=True).start()


def whenever(wanted: threading.Event, draw: Callable[[], None], pace: Callable[[], float]) -> None:
    """Call a panel's method a moment after each time that it is wanted, until the panel is forgotten.

    All calls come on one thread: a kernel may hold back what a thread said last that ends right after it.
    """
    alive, paced = weakref.WeakMethod(draw), weakref.WeakMethod(pace)
    weakref.finalize(draw.__self__, wanted.set).atexit = False  # type: ignore[attr-defined]

    def run() -> None:
        while wanted.wait():
            wanted.clear()
            waits = paced()
            seconds = waits() if waits else 0
            del waits  # nothing holds the panel meanwhile
            time.sleep(seconds)
            found = alive()
            if found is None:
                return
            found()
            del found

    threading.Thread(target=run, name="hitl_nb-drawing", daemon=True).start()


def unless(happened: threading.Event, call: Callable[[], None], seconds: float) -> None:
    """Call a panel's method unless something happens within some seconds, or the panel is forgotten."""
    alive = weakref.WeakMethod(call)

    def run() -> None:
        found = None if happened.wait(seconds) else alive()
        if found is not None:
            found()

    threading.Thread(target=run, name="hitl_nb-patience", daemon=True).start()


def answer_beside_cells(comm: Any) -> None:
    """Let a click be handled in the thread that the front end asks for, also while a cell is busy.

    Where the last message to a widget came out of a cell, ipykernel would keep its clicks for after the next cell.
    """
    if comm is not None:
        vars(comm).pop("_reply_subshell_id", None)
