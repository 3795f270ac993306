"""Health: a queue is well if it has just stored something."""

from __future__ import annotations

import asyncio
import time

from anyio.to_thread import run_sync

from hitl_nb.errors import HitlError, QueueClosed
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.store import Transaction

#: how long a proof holds, or that there is none, in seconds
HOLDS = 1.0
#: how long a proof may take, in seconds
PATIENCE = 3.0


class Health:
    """Proves that a queue commits, by a row beside the log: once a second, one at a time, however many ask."""

    def __init__(self, queue: ReviewQueue) -> None:
        self._queue = queue
        self._until = 0.0
        self._failed: HitlError | None = None
        self._proof: asyncio.Future[None] | None = None

    async def prove(self) -> None:
        """Store the time, unless that was done just now.

        Raises
        ------
        QueueClosed
            It could not be stored, or not yet.
        """
        if time.monotonic() > self._until:
            if self._proof is None or self._proof.done():
                self._proof = asyncio.ensure_future(run_sync(self._store))
            try:
                await asyncio.wait_for(asyncio.shield(self._proof), PATIENCE)
            except TimeoutError:
                reason = f"nothing was stored for {PATIENCE:g} seconds"
                raise QueueClosed(path="that is served here", reason=reason) from None
        if self._failed is not None:
            reason = f"nothing can be stored: {type(self._failed).__name__}"
            raise QueueClosed(path="that is served here", reason=reason) from self._failed

    def _store(self) -> None:
        try:
            self._queue.store.write(_beat)
            self._failed = None
        except HitlError as error:
            self._failed = error
        self._until = time.monotonic() + HOLDS


def _beat(tx: Transaction) -> None:
    known = any(name == "health" for name, _ in tx.rows("get_meta"))
    tx.rows("set_meta" if known else "put_meta", name="health", value=tx.now.isoformat())
