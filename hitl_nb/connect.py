"""open_queue: picks the store for a URL."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from hitl_nb.errors import BadInput, QueueError
from hitl_nb.queue import ReviewQueue

#: seconds between two looks at leases and deadlines
TICK = 1.0

_lock = threading.Lock()
#: queues of this process by their file, so that a cell that runs again gets the same queue
_open: weakref.WeakValueDictionary[str, ReviewQueue] = weakref.WeakValueDictionary()


def open_queue(url: str | Path, *, clock: Callable[[], datetime] | None = None) -> ReviewQueue:
    """Open a review queue, and create it if there is none.

    Parameters
    ----------
    url
        Path of a DuckDB file, or ``:memory:``.
    clock
        Returns the time, naive UTC; for tests and simulations. With a clock of the caller's nothing happens by itself:
        call ``tick()``.

    Raises
    ------
    QueueLocked
        Another process has the file open; the error names it.
    NotAQueue, QueueReadOnly, QueueTooNew
        The file cannot be used; it was left as it is.

    Examples
    --------
    >>> with open_queue(":memory:") as queue:
    ...     queue.stats().total
    0
    """
    name = str(url)
    if not name.strip() or "\0" in name or name.startswith(("http://", "https://", "postgres://", "postgresql://")):
        raise BadInput(name="url", value=name, remedy="pass the path of a file, or ':memory:'")
    if name == ":memory:":
        return _new(name, clock)
    try:
        path = str(Path(name).expanduser().resolve())
        Path(path).exists()
    except (OSError, RuntimeError) as error:
        raise BadInput(name="url", value=name, remedy=f"{error}; pass the path of a file, or ':memory:'") from error
    with _lock:
        known = _open.get(path)
        if known is None or known.closed:
            known = _open[path] = _new(path, clock)
        return known


def _new(name: str, clock: Callable[[], datetime] | None) -> ReviewQueue:
    from hitl_nb.queue.duckdb import DuckDBStore, utc_now

    queue = ReviewQueue(DuckDBStore(name, clock or utc_now))
    if clock is None:
        ticking = (weakref.ref(queue), queue.ended)
        threading.Thread(target=_tick, args=ticking, name="hitl_nb-tick", daemon=True).start()
    return queue


def _tick(alive: weakref.ref[ReviewQueue], ended: threading.Event) -> None:
    """Look at leases and deadlines each second, until the queue is closed or forgotten."""
    while not ended.wait(TICK):
        queue = alive()
        if queue is None:
            return
        with suppress(QueueError):  # closed between two looks, or a full disk: look again later
            queue.tick_if_due()
        del queue


@atexit.register
def _close_all() -> None:
    for queue in list(_open.values()):
        queue.close()
