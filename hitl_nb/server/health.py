"""Health: a queue is well if it has just stored something."""

from __future__ import annotations

import threading
import time

from hitl_nb.errors import HitlError, QueueClosed
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.store import Transaction

#: how long a proof holds, in seconds
HOLDS = 1.0


class Health:
    """Proves that a queue commits, by a row beside the log, at most once a second however many ask."""

    def __init__(self, queue: ReviewQueue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._proven = -HOLDS

    def prove(self) -> None:
        """Store the time.

        Raises
        ------
        QueueClosed
            It could not be stored.
        """
        with self._lock:
            if time.monotonic() - self._proven < HOLDS:
                return
            try:
                self._queue.store.write(_beat)
            except HitlError as error:
                reason = f"nothing can be stored: {type(error).__name__}"
                raise QueueClosed(path="that is served here", reason=reason) from error
            self._proven = time.monotonic()


def _beat(tx: Transaction) -> None:
    known = any(name == "health" for name, _ in tx.rows("get_meta"))
    tx.rows("set_meta" if known else "put_meta", name="health", value=tx.now.isoformat())
