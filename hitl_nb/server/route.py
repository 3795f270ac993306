"""A route that binds in one go what its endpoint's signature says; FastAPI writes the document from the same."""

from __future__ import annotations

import re
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from anyio.to_thread import run_sync
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from hitl_nb.errors import BadInput, plain

#: content types of a body that is read
_JSON = re.compile(r"\s*application/([^/;]*\+)?json\s*(;.*)?", re.IGNORECASE | re.DOTALL)


class BoundRoute(APIRoute):
    """Makes the call of a request that matches; whoever hands it on tells the errors.

    What an endpoint depends on is a plain function that does not wait.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (an ASGI application)."""
        wrong: list[dict[str, Any]] = []
        values = _bound(self.dependant, Request(scope, receive, send), wrong)
        if wrong:
            said = [f"{'.'.join(map(str, one['loc']))[:100]}: {one['msg'][:200]}" for one in wrong[:5]]
            raise BadInput(name="request", value=plain("…"), remedy="; ".join(said))
        call = partial(self.endpoint, **values)
        found = await (call() if iscoroutinefunction(self.endpoint) else run_sync(call))
        await (found or Response(status_code=204, media_type="application/json"))(scope, receive, send)


def _bound(takes: Dependant, request: Request, wrong: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a call takes of a request; what is not as it must be is added to ``wrong``."""
    values: dict[str, Any] = {takes.request_param_name: request} if takes.request_param_name else {}
    for one in takes.dependencies:
        own = _bound(one, request, wrong)
        if not wrong and one.call and one.name:
            values[one.name] = one.call(**own)
    params = (takes.path_params, takes.query_params, takes.header_params)
    for fields, given in zip(params, (request.path_params, request.query_params, request.headers), strict=True):
        found, errors = request_params_to_args(fields, given)
        values |= found
        wrong += errors
    for field in takes.body_params:
        errors = [{"loc": ("body",), "msg": "Field required"}]
        if "body" in request.scope["state"]:
            read = request.state.body if _JSON.fullmatch(request.headers.get("content-type", "")) else b""
            values[field.name], errors = field.validate(read, loc=("body",))
        wrong += errors or []  # None, of an older FastAPI
    return values
