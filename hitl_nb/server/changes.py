"""Waiting for a task without a thread: look, sleep until it changes, look again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from hitl_nb.errors import BadInput, TaskNotFound
from hitl_nb.queue import ReviewQueue

T = TypeVar("T")

#: longest time that one request waits for a change, in seconds
LONGEST_WAIT = 30.0
#: how soon a waiting request notices that the server stops, in seconds
_SLICE = 0.2


async def changed(
    queue: ReviewQueue, task_id: str, look: Callable[[], Awaitable[T | None]], seconds: float,
    leaves: Callable[[], Awaitable[bool]],
) -> T | None:  # fmt: skip
    """Return what a look finds, at once or after a change of the task; None at the timeout, or once who asks leaves."""
    woken, loop, until = asyncio.Event(), asyncio.get_running_loop(), time.monotonic() + min(seconds, LONGEST_WAIT)

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(woken.set)

    end = queue.watch(task_id, wake)
    try:
        while True:
            woken.clear()
            found = await look()
            if found is not None:
                return found
            while not woken.is_set():
                if time.monotonic() >= until or await leaves():
                    return None
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), _SLICE)
    finally:
        end()


def place(asked: Mapping[str, str]) -> tuple[str, int, float]:
    """Return whose changes after which event a client asks for, and for how many seconds it waits."""
    try:
        seconds = float(asked.get("timeout", 0))
        if math.isfinite(seconds):
            return asked.get("task_id", ""), int(asked.get("after", -1)), seconds
    except ValueError:
        pass
    given = {what: asked[what] for what in ("after", "timeout") if what in asked}
    raise BadInput(name="after or timeout", value=given, remedy="pass a whole number and seconds")


def last_event(queue: ReviewQueue, task_id: str) -> int:
    """Return the number of a task's last event; 0 if there is no such task."""
    try:
        return queue.store.read(lambda tx: tx.task(task_id).seq, search=False)
    except TaskNotFound:
        return 0
