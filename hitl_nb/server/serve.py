"""Serving the review API: addresses, limits of connections, logs, and an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import resource
import signal
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hitl_nb.errors import BadInput, NotAllowed, plain
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
#: files and connections that a process may have open
_FILES = 65_536


class _Impatient(H11Protocol):
    """A connection that is closed unless a whole head of a request comes in time."""

    patience = PATIENCE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(self.patience, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

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
        self, queue: ReviewQueue, host: str = "127.0.0.1", port: int = 8000, patience: float = PATIENCE, **limits: Any
    ) -> None:
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
        protocol = type("_Connection", (_Impatient,), {"patience": patience})
        config = uvicorn.Config(
            app, http=protocol, ws="none", loop="asyncio", interface="asgi3", lifespan="on", log_config=None,
            access_log=False, server_header=False, timeout_keep_alive=IDLE, timeout_graceful_shutdown=DRAIN,
            h11_max_incomplete_event_size=MAX_HEAD, backlog=1024,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        shown = f"[{host}]" if ":" in host else host
        #: where it listens
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        """Serve until ``stop``; in a process's main thread until SIGTERM or SIGINT, too."""
        _raise_file_limit()
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Take no more connections, answer those who wait, let calls under way end."""
        self._server.should_exit = True


def serve(queue: ReviewQueue, host: str, port: int) -> None:
    """Serve a queue from the command line until SIGTERM or SIGINT; logs are lines of JSON on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log = logging.getLogger("hitl_nb")
    log.setLevel(logging.INFO)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ended)  # the server hands the signal on when it has ended
    service = Service(queue, host, port)
    log.info({"event": "started", "address": service.address, "queue": queue.name})
    if not any(token.lives(queue.now) for token in queue.tokens()):
        log.warning({"event": "no token", "next": f"hitl-nb token create {queue.name} --reviewer NAME"})
    service.run()
    queue.close()
    log.info({"event": "ended"})


def _ended(number: int, frame: FrameType | None) -> None:
    """Do nothing: the server has noticed, or has not begun."""


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


def _raise_file_limit() -> None:
    """Let idle connections take no file from the queue."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
