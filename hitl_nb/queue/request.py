"""Requests of clients: each is done once, however often it arrives and whoever owns the file by then."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hitl_nb.errors import BadInput, QueueClosed, TaskNotFound
from hitl_nb.queue import read
from hitl_nb.queue.change import Forgotten, forgotten
from hitl_nb.queue.queue import ReviewQueue
from hitl_nb.queue.row import EventRow
from hitl_nb.queue.store import REQUEST, AlreadyDone, Transaction
from hitl_nb.task import Move, ReviewTask

#: calls that change nothing, or nothing more when they are done again
SAFE = (
    "pending", "reviewed", "get", "stats", "events", "explain", "estimated_wait", "history", "training_frame",
    "training_frames", "annotations", "verify", "told", "now", "export", "backup", "snapshot", "tick", "tick_if_due",
    "rebuild", "deliver", "resolve", "_table", "tokens",
)  # fmt: skip
#: calls whose events carry the id of the request, so that a repeat finds in the log that it is done
ONCE = (
    "submit", "submit_all", "store_decided", "store_frame", "claim", "release", "renew", "undo", "object", "replace",
    "withdraw", "reopen", "forget", "note", "reorder", "store_token", "revoke_token",
)  # fmt: skip
#: ids of requests that an owner remembers; a repeat comes within moments
REMEMBERED = 10_000


class Requests:
    """Does what clients ask of a queue, each request once.

    A request of ``ONCE`` has an id made by the client; what it changes is logged under it in the same commit. A repeat
    waits for the first try if that is still running, looks into the log, and returns what the first try did. That holds
    for an owner that has only just taken over the file, too.

    Parameters
    ----------
    queue
        Returns the queue, or None once it is gone.
    """

    def __init__(self, queue: Callable[[], ReviewQueue | None]) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._turns: OrderedDict[str, threading.Lock] = OrderedDict()

    @property
    def queue(self) -> ReviewQueue:
        """The queue that they are about."""
        found = self._queue()
        if found is None:
            raise QueueClosed(path="?", reason="nobody used it any more")
        return found

    def do(
        self, call: str, args: Sequence[Any], more: Mapping[str, Any], request: str | None = None, again: bool = False
    ) -> Any:
        """Do one call, or return what its first try did; ``again``: the client does not know what came of that."""
        if call not in SAFE and call not in ONCE:
            raise BadInput(name="call", value=call, remedy="a queue has no such call")
        queue = self.queue
        if request is None or call in SAFE:
            return queue.now if call == "now" else getattr(queue, call)(*args, **more)
        with self._turn(request) as seen:
            if again or seen:
                events = queue.store.read(lambda tx: tx.events("events_of_request", request=request), search=False)
                if call == "store_decided":  # the policy may be all that came of it, where the key was known
                    events = [event for event in events if event.task_id is not None]
                if events or call == "store_frame":
                    return _AGAIN.get(call, _nothing)(queue, events, args)
            try:
                return self._do(queue, call, args, more, request)
            except AlreadyDone as done:  # by another process on the same database
                return _AGAIN.get(call, _nothing)(queue, done.events, args)

    def _do(self, queue: ReviewQueue, call: str, args: Sequence[Any], more: Mapping[str, Any], request: str) -> Any:
        token = REQUEST.set(request)
        try:
            return getattr(queue, call)(*args, **more)
        finally:
            REQUEST.reset(token)

    @contextmanager
    def _turn(self, request: str) -> Iterator[bool]:
        """Let tries of one request in one after the other; says whether there was one before."""
        with self._lock:
            seen = request in self._turns
            turn = self._turns.setdefault(request, threading.Lock())
            if len(self._turns) > REMEMBERED:
                self._turns.popitem(last=False)
        with turn:
            yield seen


def _nothing(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> Any:
    return None


def _same_task(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> Any:
    return queue.get(next(event.task_id for event in events if event.task_id is not None))


def _same_tasks(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> list[ReviewTask]:
    """Return a list of tasks; keys, if they have any, tell of those that were there before, too."""
    ids = [event.task_id for event in events if event.move == "submit"]
    return [queue.get(str(task_id)) for task_id in ids] if len(ids) == len(args[0]) else queue.submit_all(args[0])


def _same_row(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> Any:
    return queue.store.read(lambda tx: tx.task(str(events[0].task_id)), search=False)


def _same_leases(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> Any:
    def work(tx: Transaction) -> Any:
        rows = [(tx.task(str(event.task_id)), event) for event in events]
        held = [row for row, event in rows if (row.holder, row.attempt) == (event.actor, event.attempt)]
        return read.as_tasks(tx, held)

    return queue.store.read(work, search=False)


def _same_ids(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> list[str]:
    return [str(event.task_id) for event in events if event.task_id is not None]


def _same_erasure(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> Forgotten:
    queue.store.checkpoint()  # the first try may have ended before its own
    tasks, open_ones = ([str(e.task_id) for e in events if e.move == move] for move in ("forget", Move.WITHDRAW))
    until = events[0].seq - 1
    return queue.store.read(lambda tx: forgotten(tx, tasks, open_ones, until), search=False)


def _same_frame(queue: ReviewQueue, events: list[EventRow], args: Sequence[Any]) -> dict[int, str]:
    """Store a frame unless it is there: with keys these tell, else its first id."""
    ready = args[0]
    if ready.key_hashes is None and len(ready.task_id):
        try:
            queue.store.read(lambda tx: tx.task(ready.task_id[0].as_py()), search=False)
        except TaskNotFound:
            pass
        else:
            return {}
    try:
        known: dict[int, str] = queue.store_frame(*args)
    except AlreadyDone:  # just now, by another process on the same database
        return {}
    return {row: task_id for row, task_id in known.items() if task_id != ready.task_id[row].as_py()}


_AGAIN: dict[str, Callable[[ReviewQueue, list[EventRow], Sequence[Any]], Any]] = {
    "submit": _same_task,
    "submit_all": _same_tasks,
    "store_decided": _same_row,
    "store_frame": _same_frame,
    "claim": _same_leases,
    "forget": _same_erasure,
    "reorder": _same_ids,
}
