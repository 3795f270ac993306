"""Serving the review API: addresses, limits of connections, logs, and an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hitl_nb.errors import BadInput, NotAllowed, QueueClosed, plain
from hitl_nb.queue import ReviewQueue
from hitl_nb.server.api import create_app

#: how long a connection may take until its first request is there, in seconds
PATIENCE = 20.0
#: how long a kept connection may be idle, in seconds
IDLE = 75
#: longest head of a request, in bytes
MAX_HEAD = 64 * 1024
#: how long calls under way have at the end, in seconds
DRAIN = 30
#: files and connections that a process may have open, and how many of them connections leave to the queue
_FILES, _SPARE = 65_536, 256


class _Impatient(H11Protocol):
    """A connection that is closed unless a whole head of a request comes in time; at once where there are too many."""

    patience = PATIENCE
    most = _FILES
    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(self.patience, self._hang_up)
        if len(self.connections) > self.most:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        self._stops_looking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look(math.inf)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stops_looking()

    def _look(self, before: float) -> None:
        """Hang up on who takes nothing of an answer for as long as a request may take to come."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            return self.transport.abort()
        self._looking = self.loop.call_later(self.patience, self._look, left)

    def _stops_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._late.cancel()
        self._late = self.loop.call_later(IDLE + self.patience, self._hang_up)

    def _hang_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Service:
    """The review API of a queue at an address.

    Parameters
    ----------
    queue
        A queue that this process owns.
    host, port
        Where it listens; port 0: any that is free. An address that other machines reach takes a token that holds.
    patience
        How long a connection may take until its first request is there, in seconds.
    connections
        How many at the same time; by default as many as the process may have open, less what the queue needs.
    limits
        As of `create_app`.

    Raises
    ------
    NotAllowed
        Others could reach it, and no token would let anybody in.
    BadInput
        It cannot listen there.
    """

    def __init__(
        self, queue: ReviewQueue, host: str = "127.0.0.1", port: int = 8000, patience: float = PATIENCE,
        connections: int | None = None, **limits: Any,
    ) -> None:  # fmt: skip
        if not hasattr(queue, "store"):
            remedy = f"another process has {queue.name} open; close it there, or serve it from there"
            raise NotAllowed(who=plain("this process"), call=plain("serve it"), remedy=remedy)
        if not _is_loopback(host) and not any(token.lives(queue.now) for token in queue.tokens()):
            remedy = f"make a token first: hitl-nb token create {queue.name} --reviewer NAME --role admin"
            raise NotAllowed(
                who=plain("nobody has a token: this process"), call=plain(f"serve at {host}"), remedy=remedy
            )
        self._socket = _bound(host, port)
        app = create_app(queue, stopping=lambda: self._server.should_exit, **limits)
        limit = _file_limit()
        most = max(limit - _SPARE, limit // 2) if connections is None else connections
        protocol = type("_Connection", (_Impatient,), {"patience": patience, "most": max(most, 1)})
        self._ended: Callable[[], bool] = lambda: False
        config = uvicorn.Config(
            app, http=protocol, ws="none", loop="asyncio", interface="asgi3", lifespan="on", log_config=None,
            access_log=False, server_header=False, timeout_keep_alive=IDLE, timeout_graceful_shutdown=DRAIN,
            h11_max_incomplete_event_size=MAX_HEAD, backlog=1024, callback_notify=self._look, timeout_notify=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        shown = f"[{host}]" if ":" in host else host
        #: where it listens
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"

    def run(self, ended: Callable[[], bool] | None = None) -> None:
        """Serve until ``stop``, or until ``ended`` says so; in a process's main thread until SIGTERM or SIGINT, too."""
        self._ended = ended or self._ended
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Take no more connections, answer those who wait, let calls under way end."""
        self._server.should_exit = True

    async def _look(self) -> None:
        if self._ended():
            self.stop()


def serve(queue: ReviewQueue, host: str, port: int) -> None:
    """Serve a queue from the command line until SIGTERM or SIGINT; logs are lines of JSON on stderr.

    Raises
    ------
    QueueClosed
        The queue has stopped after an error of the engine; whoever watches the process starts it anew.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log = logging.getLogger("hitl_nb")
    log.setLevel(logging.INFO)
    service = Service(queue, host, port)
    for number in (signal.SIGTERM, signal.SIGINT):  # before the server listens to them, and after
        signal.signal(number, lambda *_: service.stop())
    log.info({"event": "started", "address": service.address, "queue": queue.name})
    if not any(token.lives(queue.now) for token in queue.tokens()):
        log.warning({"event": "no token", "next": f"hitl-nb token create {queue.name} --reviewer NAME"})
    service.run(lambda: queue.closed)
    failed = queue.closed
    queue.close()
    log.info({"event": "ended"})
    if failed:
        raise QueueClosed(path=queue.name, reason="it stopped after an error of the engine; see the log")


class _Lines(logging.Formatter):
    """One line of JSON a record; of an error no text, which could hold data."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = record.msg if isinstance(record.msg, dict) else {"says": record.getMessage()}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at, "level": record.levelname.lower(), **said}, default=str)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65_536:  # or the system takes what is left of it
        raise BadInput(name="port", value=port, remedy="pass 0 to 65535")
    try:
        [(family, _, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise BadInput(name="address", value=f"{host}:{port}", remedy=f"{error}; choose another") from None
    made.listen(1024)
    return made


def _file_limit() -> int:
    """Return how many files and connections this process may have open, after asking for many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return _FILES if soft == resource.RLIM_INFINITY else soft
