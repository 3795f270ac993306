"""Who waits for tasks in PostgreSQL: hears what other processes changed, and tells them what this one has."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg

from hitl_nb.queue.postgres_engine import dialect

#: how often watched tasks are looked at, and how long threads stay with nothing to do, in seconds
POLL, LINGER = 1.0, 60.0
#: tasks that one hint names: 8,000 bytes are the most that it may have
IN_ONE_HINT = 200
#: does something in a transaction; tries again while the server is gone
Doing = Callable[[Callable[[psycopg.Connection[Any]], Any]], Any]

_SEQ = "SELECT task_id::text, seq FROM task WHERE task_id = ANY(%s::uuid[])"


class Watch:
    """Watched tasks of one process; two threads while there is something to do for them.

    Parameters
    ----------
    url
        Where it listens.
    channel
        Under which name hints go; None: the server knows none, and all is seen by looking.
    doing
        Does something on a connection of the store's.
    """

    def __init__(self, url: str, channel: str | None, doing: Doing) -> None:
        self._url, self._channel, self._doing = url, channel, doing
        self._lock, self._closed = threading.Lock(), False
        self._watchers: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._seen: dict[str, int] = {}
        self._changed, self._wanted = deque[str](), threading.Event()
        self._threads: dict[str, threading.Thread] = {}

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after each change of a task, by whatever process; returns what ends it."""

        def end() -> None:
            with self._lock:
                self._watchers[task_id].remove(wake)
                if not self._watchers[task_id]:
                    del self._watchers[task_id]

        with self._lock:
            self._watchers[task_id].append(wake)
        try:  # what changes from here on is seen, whenever the next look comes
            self._doing(self._look)
        except BaseException:
            end()
            raise
        self._start("listens", self._listen)
        return end

    def wake(self, changed: Iterable[str]) -> None:
        """Wake those who watch some tasks."""
        with self._lock:
            calls = [wake for task_id in changed for wake in self._watchers.get(task_id, ())]
        for wake in calls:
            with suppress(Exception):  # a callback of the caller's
                wake()

    def tell(self, changed: Sequence[str]) -> None:
        """Let other processes know, soon, what has changed."""
        if changed and self._channel:
            self._changed.extend(changed)
            self._wanted.set()
            self._start("hints", self._hint)

    def _start(self, name: str, run: Callable[[], None]) -> None:
        with self._lock:
            if not self._closed and name not in self._threads:
                self._threads[name] = threading.Thread(target=run, name=f"hitl_nb-{name}", daemon=True)
                self._threads[name].start()

    def _over(self, name: str, still: object) -> bool:
        """Whether a thread ends: nothing is left to do, and what comes will start another one."""
        with self._lock:
            if not still or self._closed:
                self._threads.pop(name, None)
                return True
        return False

    def _hint(self) -> None:
        """Tell other processes what has changed; a hint that is lost costs a second."""
        while self._wanted.wait(LINGER) or not self._over("hints", self._changed):
            self._wanted.clear()
            while self._changed and not self._closed:
                ids = [self._changed.popleft() for _ in range(min(len(self._changed), IN_ONE_HINT))]
                with suppress(Exception):
                    self._doing(partial(self._send, ids))
            if self._closed:
                return

    def _send(self, ids: list[str], connection: psycopg.Connection[Any]) -> None:
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute(dialect("hint"), {"channel": self._channel, "tasks": " ".join(ids)})

    def _listen(self) -> None:
        """Hear what other processes changed, and look at what is watched each second; a pooler may be in between."""
        needed = time.monotonic()
        while not self._over("listens", self._watchers or time.monotonic() < needed + LINGER):
            with (
                suppress(psycopg.Error),
                psycopg.connect(self._url, autocommit=True, prepare_threshold=None) as connection,
            ):
                if self._channel:
                    connection.execute(f"LISTEN {self._channel}")
                while self._watchers or time.monotonic() < needed + LINGER:
                    if self._closed:
                        return
                    needed = time.monotonic() if self._watchers else needed
                    self._hear(connection)
                    self._look(connection)
                continue
            time.sleep(POLL)

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        """Wake those of whom there are hints, until it is time for a look at all."""
        end = time.monotonic() + POLL
        while not self._closed and (left := end - time.monotonic()) > 0:
            if self._channel is None:
                time.sleep(left)
            else:
                for hint in connection.notifies(timeout=left, stop_after=1):
                    self.wake(hint.payload.split())

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        found = connection.execute(_SEQ, [[*self._watchers]]).fetchall()
        with self._lock:
            before, self._seen = self._seen, self._seen | dict(found)
            changed = [task_id for task_id, seq in self._seen.items() if before.get(task_id, seq) != seq]
            self._seen = {task_id: seq for task_id, seq in self._seen.items() if task_id in self._watchers}
        self.wake(changed)

    def close(self) -> None:
        """End the threads."""
        self._closed = True
        self._wanted.set()
        for thread in list(self._threads.values()):
            if thread is not threading.current_thread():
                thread.join(3)
