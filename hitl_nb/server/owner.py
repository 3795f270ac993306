"""The owner's side of a shared file: the calls of a queue over HTTP, on loopback, with a token."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl

from hitl_nb.errors import BadInput, HitlError, OwnerFailed, QueueClosed, TooLarge, WrongToken
from hitl_nb.queue import ReviewQueue, incoming, wire
from hitl_nb.queue.endpoint import Endpoint, started
from hitl_nb.queue.file import SCHEMA_VERSION
from hitl_nb.queue.request import Requests
from hitl_nb.server.changes import changed, last_event, place
from hitl_nb.server.problem import status_of

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

#: calls that are done at the same time
THREADS = 64
#: most time that other threads of a process that serves are let run before a call has its turn, in seconds
TURN = 0.001

_log = logging.getLogger("hitl_nb")
_turns: list[float] = []  # as they were when each server that serves began
_turning = threading.Lock()


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let threads have short turns while any server of this process serves.

    Where a cell computes in pure Python, a call waits for half a dozen turns of the interpreter.
    """
    with _turning:
        _turns.append(sys.getswitchinterval())
        sys.setswitchinterval(min(TURN, _turns[-1]))
    try:
        yield
    finally:
        with _turning:
            before = _turns.pop()
            if not _turns:
                sys.setswitchinterval(before)


class Server:
    """Serves a queue from a thread; until the first client comes that thread sleeps and nothing heavy is loaded.

    From then on until it ends the whole process changes threads each millisecond where several want to run
    (`sys.setswitchinterval`).

    Parameters
    ----------
    queue
        Held weakly: the server ends with it.
    token
        What a client must show.
    """

    def __init__(self, queue: ReviewQueue, token: str) -> None:
        self._path, self._token = queue.name, token
        self._queue = weakref.ref(queue)
        self._requests = Requests(self._queue)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)  # made with its protocol named, or asyncio leaves it on slow small answers
        self._waker, self._sleeper = socket.socketpair()
        self._stopped = False
        self._uvicorn: Any = None
        #: when the last request ended, by the monotonic clock
        self.last_call = time.monotonic()
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="hitl_nb-server", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, without the token."""
        address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        pid = os.getpid()
        return Endpoint(
            path=self._path, pid=pid, started=started(pid), address=address, token="", schema=SCHEMA_VERSION
        )

    def stop(self) -> None:
        """Take no more requests, end those that run, and return when they have ended or after a few seconds."""
        self._stopped = True
        if self._process != os.getpid():
            return
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
        with suppress(OSError):
            self._waker.send(b".")
        if self._thread is not threading.current_thread():
            self._thread.join(5)

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                selector.register(self._sleeper, selectors.EVENT_READ)
                while not selector.select(1.0) and self._queue() is not None:
                    pass
            if not self._stopped and self._queue() is not None:
                self._serve()
        finally:
            for one in (self._socket, self._waker, self._sleeper):
                one.close()

    def _serve(self) -> None:
        import uvicorn

        with _short_turns(), ThreadPoolExecutor(THREADS, thread_name_prefix="hitl_nb-call") as self._threads:
            config = uvicorn.Config(
                self._answer, interface="asgi3", log_config=None, access_log=False, lifespan="off", log_level="error",
                ws="none", timeout_keep_alive=75, timeout_graceful_shutdown=3, server_header=False,
            )  # fmt: skip
            self._uvicorn = uvicorn.Server(config)
            self._uvicorn.should_exit = self._stopped
            self._uvicorn.run(sockets=[self._socket])

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Do one request (an ASGI application): let in who shows the token, and turn errors into answers."""
        status = 200
        try:
            shown = dict(scope["headers"]).get(b"authorization", b"")
            if not secrets.compare_digest(shown, f"Bearer {self._token}".encode()):
                raise WrongToken(path=self._path, pid=os.getpid())
            content = await self._routed(scope["method"], scope["path"], scope, receive)
        except HitlError as error:
            status, content = status_of(error), wire.dump_error(error)
        self.last_call = time.monotonic()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _routed(self, method: str, path: str, scope: dict[str, Any], receive: Receive) -> bytes:
        match method, *path.split("/")[1:]:
            case "GET", "health":
                return self._health()
            case "GET", "changes":
                return await self._changes(dict(parse_qsl(scope["query_string"].decode("latin-1"))))
            case "POST", "queue", call:
                found: bytes = await self._on_a_thread(self._do, call, await _body(receive))
                return found
        raise BadInput(name="path", value=f"{method} {path}", remedy="there are /health, /changes and /queue/{call}")

    def _health(self) -> bytes:
        if self._requests.queue.closed:
            raise QueueClosed(path=self._path, reason="it was closed, or stopped after an error of the engine")
        return wire.dump({"path": self._path, "schema": SCHEMA_VERSION, "pid": os.getpid()})

    def _do(self, call: str, data: bytes) -> bytes:
        args, more, request, again = wire.load_call(data)
        try:
            incoming.check(call, args)
            found = self._requests.do(call, args, more, request, again)
            return wire.dump(found, f"answer of {call}")
        except HitlError:
            raise
        except Exception as error:
            _log.exception("a client's call failed")
            raise OwnerFailed(path=self._path, call=call, reason=f"{type(error).__name__}: {error}") from error

    async def _changes(self, asked: dict[str, str]) -> bytes:
        """Return the number of a task's last event, as soon as it is later than ``after``, or at the timeout."""
        task_id, after, seconds = place(asked)

        async def look() -> int | None:
            seq: int = await self._on_a_thread(last_event, self._requests.queue, task_id)
            return seq if seq > after else None

        found = await changed(self._requests.queue, task_id, look, seconds, self._leaves)
        return wire.dump(after if found is None else found)

    async def _leaves(self) -> bool:
        return self._stopped or bool(self._uvicorn.should_exit)

    async def _on_a_thread(self, what: Callable[..., Any], *given: Any) -> Any:
        try:
            done = asyncio.get_running_loop().run_in_executor(self._threads, what, *given)
        except RuntimeError as error:  # the interpreter ends
            raise QueueClosed(path=self._path, reason="its process ends") from error
        return await done


async def _body(receive: Receive) -> bytes:
    data, more = bytearray(), True
    while more:
        part = await receive()
        if part["type"] == "http.disconnect":
            raise BadInput(name="message", value=bytes(data[:100]), remedy="it stopped half-way; send it whole")
        data += part.get("body", b"")
        more = part.get("more_body", False)
        if len(data) > wire.MAX_BYTES:
            remedy = f"a message has at most {wire.MAX_BYTES} bytes"
            raise TooLarge(name="message", value=f"{len(data)} bytes", remedy=remedy)
    return bytes(data)
