"""RemoteQueue: the calls of a queue whose file another process owns."""

from __future__ import annotations

import functools
import inspect
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from hitl_nb.errors import BadInput, HitlError, NoServer, QueueClosed, QueueError, QueueLocked, WrongToken, plain
from hitl_nb.queue import wire
from hitl_nb.queue.endpoint import Endpoint
from hitl_nb.queue.ids import Array, Ids
from hitl_nb.queue.queue import ReviewQueue
from hitl_nb.queue.request import ONCE, SAFE, Requests
from hitl_nb.queue.token import Book

if TYPE_CHECKING:
    from hitl_nb.queue.frame import FrameSubmission

#: how long a call may take before it is asked again, in seconds, if the owner is there; one about a few tasks
QUICK = 15.0
#: and one of ``LONG``
PATIENCE = 300.0
#: calls that look at everything, or store a frame
LONG = (
    "store_frame", "history", "training_frame", "training_frames", "annotations", "export", "backup", "snapshot",
    "verify", "rebuild", "stats", "_table", "pending", "reviewed", "forget", "tick", "reorder",
)  # fmt: skip
#: how soon an owner says that it is there, in seconds
ALIVE = 5.0
#: longest time that a client waits for a change in one request, in seconds
POLL = 10.0
#: pause before a server that is busy is asked again, in seconds
RETRY = 0.5
#: owners that one call tries
TRIES = 20


class OwnerGone(Exception):
    """The owner did not answer; whether it did what was asked is not known."""


class OwnerBusy(OwnerGone):
    """A server is there and takes nothing more just now."""


class Line:
    """Connections to one owner, kept open; one for each call that is under way."""

    def __init__(self, endpoint: Endpoint, token: str | None = None) -> None:
        self.endpoint, self.process = endpoint, os.getpid()
        self._url = urlsplit(endpoint.address)
        self._headers = {"Authorization": f"Bearer {token or endpoint.token}"}
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._open: set[HTTPConnection] = set()
        self._closed = False

    def ask(self, call: str, message: bytes) -> Any:
        """Do one call at the owner."""
        seconds = PATIENCE if call in LONG else QUICK
        return wire.load(self._send("POST", f"/queue/{call}", message, seconds))

    def changed(self, task_id: str, after: int | None) -> int:
        """Return the last event of a task once it is later than ``after``, or after a while."""
        asked = {"task_id": task_id, "timeout": POLL} | ({} if after is None else {"after": after})
        return int(wire.load(self._send("GET", f"/changes?{urlencode(asked)}", seconds=POLL + QUICK)))

    def answers(self, seconds: float) -> bool:
        """Whether the owner is there and has this file; one that refuses the token raises ``WrongToken``."""
        try:
            facts = wire.load(self._send("GET", "/health", seconds=seconds))
        except (OwnerGone, HitlError) as error:
            if isinstance(error, WrongToken):
                raise
            return isinstance(error, OwnerBusy)
        if not self.endpoint.pid:  # a server, which does not say whose file it has
            return True
        return bool(facts == {"path": self.endpoint.path, "schema": self.endpoint.schema, "pid": self.endpoint.pid})

    def close(self) -> None:
        """Close the connections; calls that are under way end with ``OwnerGone``."""
        if self.process != os.getpid():  # a fork must not say goodbye for its parent
            return
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
            under_way = self._open.difference(idle)
        for connection in idle:
            self._drop(connection)
        for connection in under_way:
            with suppress(OSError, AttributeError):  # it may have ended just now
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _send(self, method: str, path: str, content: bytes | None = None, seconds: float = PATIENCE) -> bytes:
        try:
            connection = self._take(seconds)
            try:
                connection.request(method, self._url.path.rstrip("/") + path, content, self._headers)
                answer = connection.getresponse()
                data = answer.read()
            except BaseException:
                self._drop(connection)
                raise
        except (OSError, HTTPException) as error:
            raise OwnerGone(str(error)) from error
        self._give_back(connection)
        if answer.status == 200:
            return data
        foreign = "json" not in (answer.headers["content-type"] or "")
        if answer.headers["retry-after"] or (answer.status >= 502 and foreign):
            time.sleep(RETRY)  # a server that is busy or ends, or a proxy whose server is away
            raise (OwnerGone if foreign else OwnerBusy)(f"status {answer.status}")
        refused = wire.load_error(data)
        if isinstance(refused, QueueClosed):
            raise OwnerGone(str(refused))
        raise refused

    def _take(self, seconds: float) -> HTTPConnection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connected()
            elif _ended(connection):
                self._drop(connection)
                continue
            connection.sock.settimeout(seconds)
            return connection

    def _connected(self) -> HTTPConnection:
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        connection = kind(self._url.netloc, timeout=5)
        connection.connect()
        with self._lock:
            if not self._closed:
                self._open.add(connection)
                return connection
        connection.close()
        raise OwnerGone("it was hung up")

    def _give_back(self, connection: HTTPConnection) -> None:
        with self._lock:
            if not self._closed and connection.sock is not None:
                return self._idle.append(connection)
        self._drop(connection)

    def _drop(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()


def _ended(connection: HTTPConnection) -> bool:
    """Whether the other end has hung up: nothing was asked, so whatever can be read says goodbye."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def server_line(url: str, token: str, seconds: float) -> Line:
    """Return a line to a server that serves a queue, as soon as it answers.

    Raises
    ------
    NoServer
        It has not in so many seconds.
    """
    try:
        parts = urlsplit(url)
        fine = bool(parts.hostname) and not (parts.query or parts.username or parts.fragment) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isascii() or not url.isprintable() or " " in url:
        remedy = "pass http://host:port or https://host, and the token as token="
        raise BadInput(name="url", value=plain("…"), remedy=remedy)  # it may hold a secret
    endpoint = Endpoint(path=url, pid=0, started="", address=url, token=token, schema=0)
    until = time.monotonic() + seconds
    while True:
        line = Line(endpoint)
        if line.answers(ALIVE):
            return line
        line.close()
        if time.monotonic() > until:
            raise NoServer(url=url, reason=f"for {seconds:g} seconds")
        time.sleep(RETRY / 5)


class RemoteQueue(ReviewQueue):
    """A queue in a file that another process owns; it has the same calls, and raises the same errors.

    Each call is repeated by itself when the owner is lost, with whoever owns the file then, and that may be this
    process. Nothing is done twice: *resolve* is known by its ``submit_id`` (made here if the caller gave none);
    *submit*, *claim*, *release*, *renew*, *undo*, *object*, *replace*, *withdraw*, *reopen*, *forget*, *note* and what
    an orchestrator stores carry the id of the request into the log, where a repeat finds them: a claim gets the same
    leases again, a submission the same task. *tick*, *deliver*, *rebuild* and all that reads may be done twice.
    *backup* and *snapshot* overwrite nothing: where an owner was killed in the middle of one, its remains are named.

    An owner that lives and does not answer (stopped, or in a long computation that lets no other thread run) is given
    up with QueueLocked after 40 seconds, or after five minutes where a call may take long; the next call tries again.

    Parameters
    ----------
    path
        The queue's file.
    find
        Returns the line to the owner, or the queue if this process owns the file now; raises QueueLocked if there is
        neither.
    """

    def __init__(self, path: str, find: Callable[[], Line | ReviewQueue]) -> None:
        self.name = path
        self.ended = threading.Event()
        self.leaving = []
        self._ids = Ids()
        self._tokens = Book()
        self._find = find
        self._lock = threading.Lock()
        self._line: Line | None = None
        #: when an owner was looked for in vain, by the monotonic clock, and why
        self._vain: tuple[float, QueueError] | None = None
        self._owned: ReviewQueue | None = None
        self._requests = Requests(lambda: self._owned)

    def __repr__(self) -> str:
        return f"RemoteQueue({self.name!r})"

    def new_ids(self, n: int) -> Array:
        """Return ``n`` new task ids as uint64 of shape (n, 2), in order; the owner is not asked."""
        return self._ids.make(n, datetime.now(UTC).replace(tzinfo=None))

    @property
    def now(self) -> datetime:
        """The owner's time, naive UTC."""
        found: datetime = self._call("now")
        return found

    def store_frame(
        self, ready: FrameSubmission, fingerprint: str, policy: Mapping[str, Any],
        progress: Callable[[int], None] | None = None,
    ) -> dict[int, str]:  # fmt: skip
        """Store what a policy decided for a frame, in one transaction."""
        from hitl_nb.queue.frame import travelling

        known: dict[int, str] = self._call("store_frame", travelling(ready), fingerprint, policy)
        if progress is not None:
            progress(len(ready.task_id))
        return known

    def export(self, path: str, inputs: bool = False) -> int:
        """Write the history to a file; see ``ReviewQueue.export``."""
        count: int = self._call("export", str(Path(path).absolute()), inputs)
        return count

    def backup(self, path: str) -> None:
        """Copy the whole queue to a new file while it is in use."""
        self._call("backup", str(Path(path).absolute()))

    def snapshot(self, folder: str) -> None:
        """Write the tables to a new folder; see ``ReviewQueue.snapshot``."""
        self._call("snapshot", str(Path(folder).absolute()))

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after changes of a task, on a thread of its own; returns what ends it."""
        found = self._reach()
        if isinstance(found, ReviewQueue):
            return found.watch(task_id, wake)
        ended = threading.Event()
        try:
            seq = found.changed(task_id, None)
        except OwnerGone:
            seq = 0  # the first look tells
        given = (task_id, wake, seq, ended)
        threading.Thread(target=self._watch, args=given, name="hitl_nb-watch", daemon=True).start()
        return ended.set

    def _watch(self, task_id: str, wake: Callable[[], None], seq: int, ended: threading.Event) -> None:
        while not ended.is_set():
            line = None
            try:
                line = self._reach()
                if isinstance(line, ReviewQueue):  # this process owns the file now
                    end = line.watch(task_id, wake)
                    wake()
                    ended.wait()
                    return end()
                found = line.changed(task_id, seq)
            except OwnerGone:
                self._lose(line)
                continue
            except QueueError:  # nobody owns it just now; the caller's own look says so if it stays like that
                if self.ended.is_set():
                    return None
                time.sleep(1)
                continue
            if found > seq and not ended.is_set():
                seq = found
                wake()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.ended.is_set() or (self._owned is not None and self._owned.closed)

    def close(self) -> None:
        """Hang up, and give the file free if this process owns it by now; safe to call twice."""
        self.ended.set()
        with self._lock:
            owned, line = self._owned, self._line
            self._line = None
        if line is not None:
            line.close()
        if owned is not None:
            owned.close()

    def _call(self, call: str, *args: Any, **more: Any) -> Any:
        request, again = uuid4().hex, False
        if call == "resolve" and more.get("submit_id") is None:
            more["submit_id"] = request
        tries, until = 0, time.monotonic() + PATIENCE
        while tries < TRIES:
            line = self._reach()
            if isinstance(line, ReviewQueue):
                return self._requests.do(call, args, more, request if again else None, again)
            asked = {"args": list(args), "more": more, "request": request, "again": again}
            try:
                return line.ask(call, wire.dump(asked, call))
            except OwnerGone as gone:
                again, tries = True, tries + (not isinstance(gone, OwnerBusy) or time.monotonic() > until)
                self._lose(line)
        raise QueueLocked(path=self.name, owner=f"one process after the other, {TRIES} times")

    def _reach(self) -> Line | ReviewQueue:
        """Return the line to the owner, or the queue if this process owns it; look for the owner if need be."""
        begun = time.monotonic()
        with self._lock:
            if self.ended.is_set():
                raise QueueClosed(path=self.name, reason="it was closed")
            if self._owned is not None:
                return self._owned
            if self._line is None or self._line.process != os.getpid():
                if self._vain is not None and self._vain[0] > begun:  # another thread has just looked
                    raise self._vain[1]
                try:
                    found = self._find()
                except QueueError as error:
                    self._vain = time.monotonic(), error
                    raise
                if isinstance(found, ReviewQueue):
                    self._owned = found
                    return found
                self._line = found
            return self._line

    def _lose(self, line: Line | ReviewQueue | None) -> None:
        """Give up a line, unless its owner is there and only slow."""
        if not isinstance(line, Line):
            return
        with suppress(WrongToken):  # by now somebody else's owner listens there
            if line.answers(ALIVE):
                return
        if self._line is not line:  # another thread gave it up, and may be looking for the owner just now
            return
        with self._lock:
            if self._line is line:
                self._line = None
                line.close()


def _over_the_line(name: str) -> Callable[..., Any]:
    method = getattr(ReviewQueue, name)
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: RemoteQueue, *args: Any, **more: Any) -> Any:
        signature.bind(self, *args, **more)  # a call that is off is told here
        return self._call(name, *args, **more)

    return call


for _name in (*SAFE, *ONCE):
    if _name not in vars(RemoteQueue):
        setattr(RemoteQueue, _name, _over_the_line(_name))
