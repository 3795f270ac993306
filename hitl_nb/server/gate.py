"""What stands before every route: who comes in, how much at once, how large, how slow; and a line in the log."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from hitl_nb.errors import BadInput, HitlError, OwnerFailed, ServerBusy, TokenRefused, TooLarge, TooSlow
from hitl_nb.payload import load
from hitl_nb.queue import ReviewQueue, wire
from hitl_nb.queue.token import Token
from hitl_nb.server.access import ROUTES, check
from hitl_nb.server.problem import nowhere, problem

#: largest body of a route, in bytes; a frame of a producer's notebook may have as many as a message between processes
MAX_BODY = 8 * 2**20
#: bodies that are held at the same time, in bytes: those of producers' notebooks, and all others
MAX_HELD = {True: 2 * wire.MAX_BYTES, False: 64 * 2**20}
#: a larger body is looked at beside the other requests, in bytes
SMALL = 64 * 1024
#: how long a body may take, in seconds; and a large one
SLOW, SLOW_LARGE = 30.0, 300.0
#: calls done at the same time, and requests that wait for a change
CALLS, WAITING = 64, 2000
#: routes that wait; each has its own places, so that who asks for health without a token keeps nobody out
_WAITS = dict.fromkeys(("GET /tasks/{task_id}/wait", "GET /changes"), "changes") | {"GET /health": "health"}

log = logging.getLogger("hitl_nb.access")


class Gate:
    """Lets in who shows a token that may use a route, before anything of the body is read."""

    def __init__(
        self, app: Starlette, queue: ReviewQueue, *, calls: int = CALLS, max_body: int = MAX_BODY, slow: float = SLOW
    ) -> None:  # fmt: skip
        self._app, self._queue = app, queue
        self._calls, self._max_body, self._slow = calls, max_body, slow
        self._running = {"calls": 0, "changes": 0, "health": 0}
        self._held = {True: 0, False: 0}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (an ASGI application)."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, told = time.monotonic(), {"method": scope["method"][:20], "route": None, "status": 0, "token": None}

        async def noted(message: Message) -> None:
            told["status"] = message.get("status", told["status"])
            await send(message)

        try:
            await self._enter(scope, receive, noted, told)
        except HitlError as error:
            await self._refuse(scope, told, noted, error)
        except Exception as error:  # its text may hold data: only where it happened is told
            places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:]]
            log.error({"error": type(error).__name__, "at_places": places})
            failed = OwnerFailed(path="this queue", call=scope["path"], reason=type(error).__name__)
            await self._refuse(scope, told, noted, failed)
        finally:
            log.info(told | {"ms": round(1000 * (time.monotonic() - begun), 1)})

    async def _refuse(
        self, scope: Scope, told: dict[str, Any], send: Send, error: HitlError, status: int | None = None
    ) -> None:
        if told["status"]:  # an answer has begun
            return
        wired = scope["path"].startswith(("/queue/", "/changes"))
        status, headers, content = problem(error, wired=wired, status=status)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _enter(self, scope: dict[str, Any], receive: Receive, send: Send, told: dict[str, Any]) -> None:
        found, status = self._match(scope)
        route = found and f"{scope['method']} {getattr(found, 'path', '')}"
        told["route"] = route and route.partition(" ")[2]
        most, large = 0, False
        if ROUTES.get(route or "", "") is not None:
            token = await holder(self._queue, scope)
            told["token"] = token.id
            large = scope["path"].startswith("/queue/") and bool({"producer", "admin"} & {*token.roles})
            most = wire.MAX_BYTES if large else self._max_body
            if route in ROUTES:
                check(token, ROUTES[route])
            elif route is not None:  # a call between two parts of this package
                check(token, scope["path"].rpartition("/")[2])
            scope.setdefault("state", {})["token"] = token
        size = await self._body(scope, receive, most, large)
        place = _WAITS.get(route or "", "calls")
        self._running[place] += 1
        try:
            if self._running[place] > (self._calls if place == "calls" else WAITING):
                raise ServerBusy(calls=self._running[place] - 1)
            if found is None:
                return await self._refuse(scope, told, send, nowhere(scope), status)
            await found.handle(scope, receive, send)
        finally:
            self._running[place] -= 1
            self._held[large] -= size

    def _match(self, scope: dict[str, Any]) -> tuple[BaseRoute | None, int]:
        """Return the route of a request, and note what it is called with; or none, and the status that says why."""
        status = 404
        for route in self._app.router.routes:
            match, called = route.matches(scope)
            if match is Match.FULL:
                scope.update(called, app=self._app)
                return route, 200
            status = 405 if match is Match.PARTIAL else status
        return None, status

    async def _body(self, scope: dict[str, Any], receive: Receive, most: int, large: bool) -> int:
        """Read the body, whole, in time and within the limit; return its bytes, which count as held from here on."""
        seconds = SLOW_LARGE if large else self._slow
        data, more = bytearray(), True
        try:
            async with asyncio.timeout(seconds):
                while more:
                    part = await receive()
                    if part["type"] == "http.disconnect":
                        raise BadInput(
                            name="body", value=f"{len(data)} bytes", remedy="it stopped half-way; send it whole"
                        )
                    data += part.get("body", b"")
                    self._held[large] += len(part.get("body", b""))
                    more = part.get("more_body", False)
                    if len(data) > most:
                        raise TooLarge(name="body", value=f"over {most} bytes", remedy="send less at once")
                    if self._held[large] > MAX_HELD[large]:
                        raise ServerBusy(calls=self._running["calls"])
            read = bytes(data)
            if data and not scope["path"].startswith("/queue/"):
                read = await run_sync(_parsed, read) if len(data) > SMALL else _parsed(read)
            if data:
                scope.setdefault("state", {})["body"] = read
        except BaseException as error:
            self._held[large] -= len(data)
            if isinstance(error, TimeoutError):
                remedy = f"a body has {seconds:g} seconds; send it again"
                raise TooSlow(name="body", value=f"{len(data)} bytes", remedy=remedy) from None
            raise
        return len(data)


async def holder(queue: ReviewQueue, scope: Mapping[str, Any]) -> Token:
    """Return the token that a request shows, if it holds now.

    Raises
    ------
    TokenRefused
        It shows none that holds.
    """
    shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    kind, _, secret = shown.partition(" ")
    token = None
    if kind.lower() == "bearer" and 0 < len(secret.strip()) <= 200:
        token = queue.token_at_hand(secret.strip()) or await run_sync(queue.token_of, secret.strip())
    if token is None:
        raise TokenRefused()
    return token


def _parsed(data: bytes) -> Any:
    """Return what a body holds; what is no JSON is refused before it is looked at in any other way."""
    try:
        return load(data.decode())
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:80]
        remedy = f"this is no JSON ({reason}); send UTF-8 JSON as /openapi.json says"
        raise BadInput(name="body", value=f"{len(data)} bytes", remedy=remedy) from None
