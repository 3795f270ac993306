"""open_queue: picks the store for a URL, finds the owner of a file, or becomes it."""

from __future__ import annotations

import atexit
import logging
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hitl_nb.errors import BadInput, OwnerEnded, QueueError, QueueLocked, QueueReadOnly, WrongToken, plain
from hitl_nb.queue import ReviewQueue

if TYPE_CHECKING:
    from hitl_nb.queue.http import Line
    from hitl_nb.server import Server

#: seconds between two looks at leases and deadlines
TICK = 1.0
#: how long to look for the owner of a file that is locked, in seconds; it may be opening the file still
PATIENCE = 20.0
#: how long an owner that lives may take to answer, in seconds
STARTING = 20.0
#: how long one that was started for a file may take until it does, on a busy machine, in seconds
SPAWNING = 60.0
#: how many owner processes may end before they answer
STARTED = 3
#: how long an owner process of its own stays without a call, in seconds
IDLE = 300.0
#: environment variable with the token of a served queue, for who opens one without naming it
_TOKEN = "HITL_NB_TOKEN"
#: and with the token of a file, for the process that is started to own it, and for ``hitl-nb doctor``
OWNER_TOKEN = "HITL_NB_OWNER_TOKEN"

_log = logging.getLogger("hitl_nb")
_lock = threading.Lock()
#: queues of this process by their file, so that a cell that runs again gets the same queue
_open: weakref.WeakValueDictionary[str, ReviewQueue] = weakref.WeakValueDictionary()


def open_queue(
    url: str | Path, *, token: str | None = None, serve: str | None = "thread",
    clock: Callable[[], datetime] | None = None,
) -> ReviewQueue:  # fmt: skip
    """Open a review queue, and create it if there is none.

    One process owns a file; others that open it talk to that one, and when it ends, one of them takes the file over.

    Parameters
    ----------
    url
        Path of a DuckDB file, ``:memory:``, ``http://…`` or ``https://…`` of a queue that ``hitl-nb serve`` serves, or
        ``postgresql://…``, where many processes write at once; ``?hitl_skip_locked=off&hitl_notify=off`` at its end
        does without what some databases lack.
    token
        Of a served queue: what ``hitl-nb token create`` printed; by default that in ``HITL_NB_TOKEN``. Of a file:
        what other processes must show to share the file; by default a random one that only this user's processes can
        read, in a file beside the queue's.
    serve
        How others get in while this process owns the file: ``thread``: from a thread of this process; ``process``: a
        process of its own owns it, until nobody has called for five minutes; None: not at all.
    clock
        Returns the time, naive UTC; for tests and simulations. With a clock of the caller's nothing happens by itself:
        call ``tick()``; and the file is not shared.

    Raises
    ------
    QueueLocked
        Another process has the file open and does not share it; the error names it.
    OwnerEnded
        With ``serve="process"``: the process that was started for the file ended at once, again and again.
    WrongToken
        The owner shares the file, but not with this token.
    NoServer, TokenRefused
        Nobody answers at that address; the server lets nobody in with this token.
    NotAQueue, QueueReadOnly, QueueTooNew
        The file cannot be used; it was left as it is.

    Examples
    --------
    >>> with open_queue(":memory:") as queue:
    ...     queue.stats().total
    0
    """
    name = str(url)
    if name.startswith(("http://", "https://")):
        return _at_server(name, token)
    if not isinstance(url, (str, os.PathLike)) or not name.strip() or "\0" in name:
        raise BadInput(name="url", value=url, remedy="pass the path of a file, ':memory:', or a URL")
    if name.startswith(("postgres://", "postgresql://")):
        with _lock:
            known = _open.get(name)
            if known is None or known.closed:
                known = _open[name] = _on_postgres(name, clock)
            return known
    if re.match(r"\w[\w+.-]+://", name):
        remedy = "no such store; pass the path of a file, ':memory:', http(s)://… or postgresql://…"
        raise BadInput(name="url", value=name, remedy=remedy)
    if serve not in ("thread", "process", None):
        raise BadInput(name="serve", value=serve, remedy="pass 'thread', 'process' or None")
    if token is not None:
        _check_token(token)
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
            how = _Opening(path=path, token=token, serve=serve)
            known = _open[path] = _new(path, clock) if clock is not None else how.open()
        return known


def check_opened(queue: object) -> None:
    """Refuse the path or URL of a queue where the queue itself is meant."""
    if isinstance(queue, (str, os.PathLike)):
        raise BadInput(name="queue", value=str(queue), remedy="pass open_queue(path)")


def reached(path: str, token: str | None = None) -> ReviewQueue | None:
    """Return the queue of a file that this or another process has open and shares; None where nobody does."""
    from hitl_nb.queue.http import RemoteQueue

    known = _open.get(path)
    if known is not None and not known.closed:
        return known
    line = _Opening(path=path, token=token, serve=None).line()
    return None if line is None else RemoteQueue(path, lambda: line)


def _at_server(url: str, token: str | None) -> ReviewQueue:
    """Return the queue that is served at an address."""
    from hitl_nb.queue.http import RemoteQueue, server_line

    token = token or os.environ.get(_TOKEN)
    if not token:
        remedy = f"pass open_queue(url, token=…) or set {_TOKEN}, as hitl-nb token create printed it"
        raise BadInput(name="token", value=token, remedy=remedy)
    token = token.strip() if isinstance(token, str) else token  # a file that it was read from ends with a line end
    _check_token(token)
    seconds = [PATIENCE]  # of the first look; a server that starts anew may take longer
    queue = RemoteQueue(url, lambda: server_line(url, token, seconds.pop() if seconds else STARTING))
    try:
        queue.now  # noqa: B018  whether the token lets anybody in is told here
    except BaseException:
        queue.close()
        raise
    return queue


def _check_token(token: object) -> None:
    """Refuse what cannot be shown in a header, without repeating it."""
    if not (isinstance(token, str) and len(token) >= 8 and token.isascii() and token.isprintable()):
        raise BadInput(name="token", value=plain("…"), remedy="pass 8 or more printable ASCII characters")


def _on_postgres(url: str, clock: Callable[[], datetime] | None) -> ReviewQueue:
    try:
        from hitl_nb.queue.postgres import PostgresStore
    except ImportError as error:
        remedy = f'{error}; pip install "hitl-nb[postgres]"'
        raise BadInput(name="url", value="postgresql://…", remedy=remedy) from error
    facts = {f"hitl_{what}": f"hitl_{what}=off" not in url for what in ("skip_locked", "notify")}
    plain = re.sub(r"hitl_(skip_locked|notify)=off&?", "", url).rstrip("?&")
    queue = ReviewQueue(PostgresStore(plain, clock, skips=facts["hitl_skip_locked"], notifies=facts["hitl_notify"]))
    if clock is None:
        _let_tick(queue)
    return queue


def _let_tick(queue: ReviewQueue) -> None:
    ticking = (weakref.ref(queue), queue.ended)
    threading.Thread(target=_tick, args=ticking, name="hitl_nb-tick", daemon=True).start()


def _new(name: str, clock: Callable[[], datetime] | None) -> ReviewQueue:
    from hitl_nb.queue.duckdb import DuckDBStore, utc_now

    queue = ReviewQueue(DuckDBStore(name, clock or utc_now))
    if clock is None:
        _let_tick(queue)
    return queue


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opening:
    """How a file is to be opened; a client opens it again in the same way when its owner is lost."""

    path: str
    token: str | None
    serve: str | None

    def open(self) -> ReviewQueue:
        from hitl_nb.queue.http import RemoteQueue

        found = self.reach()
        if isinstance(found, ReviewQueue):
            return found
        lines = [found]  # the first one is there already
        return RemoteQueue(self.path, lambda: lines.pop() if lines else self.reach())

    def reach(self) -> Line | ReviewQueue:
        """Become the owner or find it; the engine's lock decides, and a file that says otherwise is stale."""
        until, wait, ended = time.monotonic() + PATIENCE, 0.02, 0
        starting: subprocess.Popen[bytes] | None = None
        while True:
            locked = QueueLocked(path=self.path, owner="a process that was started for it and does not answer")
            try:
                if starting is None or starting.poll() is not None:
                    queue = self._own()
                    if queue is not None:
                        return queue
                    ended += starting is not None
                    if ended == STARTED:
                        raise OwnerEnded(path=self.path, times=ended)
                    starting, until = _spawn(self.path, self.token), time.monotonic() + SPAWNING
            except QueueLocked as error:
                locked = error
            line = self.line()
            if line is not None:
                return line
            if time.monotonic() > until:
                raise self._named(locked)
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, 0.3)

    def _own(self) -> ReviewQueue | None:
        """Open the file; None where that is for a process of its own to do."""
        queue = _new(self.path, None)
        if self.serve == "thread":
            _share(queue, self.token)
        if self.serve != "process":
            return queue
        queue.close()
        return None

    def _named(self, locked: QueueLocked) -> QueueLocked:
        """Say of an owner that shares the file, and lives, that it does not answer."""
        from hitl_nb.queue import endpoint

        found = endpoint.read(self.path)
        if found is None or not found.alive or found.pid != locked.values.get("pid"):
            return locked
        return QueueLocked(path=self.path, owner=f"{locked.values['owner']}, which does not answer", pid=found.pid)

    def line(self) -> Line | None:
        """Return the line to a living owner; None if there is none."""
        from hitl_nb.queue import endpoint

        found = endpoint.read(self.path)
        if found is None or not found.alive:
            return None
        found.check_version()
        if not (self.token or found.token):
            raise WrongToken(path=self.path, pid=found.pid)
        from hitl_nb.queue.http import Line

        line = Line(found, self.token)
        try:
            if line.answers(STARTING):
                return line
        except WrongToken:
            line.close()
            raise
        line.close()
        return None


def _share(queue: ReviewQueue, token: str | None) -> Server | None:
    """Let other processes in, and tell them where; an owner that cannot goes on alone."""
    from hitl_nb.server import Server

    made = token or secrets.token_urlsafe(32)
    try:
        server = Server(queue, made)
        queue.leaving.append(server.stop)
        endpoint = replace(server.endpoint, token="" if token else made)
        endpoint.write()
    except OSError as error:
        _log.warning("%s is not shared with other processes: %s", queue.name, error)
        return None
    queue.leaving.append(endpoint.remove)
    return server


def _spawn(path: str, token: str | None) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    environment = {name: value for name, value in os.environ.items() if name != _TOKEN}  # which is none of its business
    if token:
        environment[OWNER_TOKEN] = token
    command = [sys.executable, "-m", "hitl_nb.cli", "serve", path, "--idle", str(IDLE)]
    owner = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True, env=environment)
    threading.Thread(target=owner.wait, name="hitl_nb-owner", daemon=True).start()  # leaves no zombie
    return owner


def serve_file(path: str | Path, idle: float = IDLE) -> None:
    """Own a file for other processes until none has called for ``idle`` seconds, or SIGTERM comes."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    token = os.environ.pop(OWNER_TOKEN, None)
    if token is not None:
        _check_token(token)
    with _new(str(Path(path).resolve()), None) as queue:
        server = _share(queue, token)
        if server is None:
            raise QueueReadOnly(path=queue.name, reason="nobody can be told beside it where its owner listens")
        while time.monotonic() - server.last_call < idle and not ended.wait(TICK):
            pass


def _tick(alive: weakref.ref[ReviewQueue], ended: threading.Event) -> None:
    """Look at leases and deadlines each second, until the queue is closed or forgotten."""
    while not ended.wait(TICK):
        queue = alive()
        if queue is None:
            return
        with suppress(QueueError):  # closed between two looks, or a full disk: look again later
            queue.tick_if_due()
        del queue


def _forked() -> None:
    """In a fork: what the process before had open is not open here, and nobody holds the lock."""
    global _lock
    _lock = threading.Lock()
    _open.clear()


os.register_at_fork(after_in_child=_forked)


@atexit.register
def _close_all() -> None:
    for queue in list(_open.values()):
        queue.close()
    if "hitl_nb.queue.writer" in sys.modules:
        from hitl_nb.queue.writer import rest

        rest()
