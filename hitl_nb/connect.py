"""open_queue: picks the store for a URL."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from weakref import WeakValueDictionary

from hitl_nb.errors import BadInput
from hitl_nb.queue import ReviewQueue

_lock = threading.Lock()
#: queues of this process by their file, so that a cell that runs again gets the same queue
_open: WeakValueDictionary[str, ReviewQueue] = WeakValueDictionary()


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
        queue.start_ticking()
    return queue


@atexit.register
def _close_all() -> None:
    for queue in list(_open.values()):
        queue.close()
