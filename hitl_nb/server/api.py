"""The review API: routes over the calls of a queue. All rules stand in `access` and in the queue itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

from anyio.to_thread import current_default_thread_limiter, run_sync
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response

from hitl_nb.errors import BadInput, HitlError, plain
from hitl_nb.payload import accept, agrees, dump, encode
from hitl_nb.queue import ReviewQueue, Stats, incoming, wire
from hitl_nb.queue.token import Token
from hitl_nb.server import form
from hitl_nb.server.access import Door, blind, told_blind
from hitl_nb.server.changes import LONGEST_WAIT, changed, last_event, place
from hitl_nb.server.document import document
from hitl_nb.server.gate import CALLS, Gate, holder
from hitl_nb.server.health import Health
from hitl_nb.server.route import BoundRoute
from hitl_nb.task import Review, ReviewTask

TaskId = Annotated[str, Path(description="id of a task", json_schema_extra={"format": "uuid"})]
Limit = Annotated[int, Query(ge=1, le=1000, description="how many at most")]
_routes: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []


def create_app(queue: ReviewQueue, *, stopping: Callable[[], bool] = lambda: False, **limits: Any) -> Gate:
    """Return the review API over a queue that this process owns, as an ASGI application.

    Parameters
    ----------
    queue
        What it serves.
    stopping
        Whether the server is about to end; those who wait are answered then.
    limits
        ``calls`` done at the same time, ``max_body`` in bytes, ``slow``: seconds that a body may take.
    """
    app = FastAPI(
        title="hitl_nb review API", version="1", docs_url=None, redoc_url=None, redirect_slashes=False,
        lifespan=_threads,
        description="People check what a model was not sure of: producers submit tasks, reviewers answer them.",
    )  # fmt: skip
    app.router.route_class = BoundRoute
    app.state.door, app.state.health, app.state.stopping = Door(queue), Health(queue), stopping
    for route, endpoint, more in _routes:
        method, _, path = route.partition(" ")
        app.add_api_route(path, endpoint, methods=[method], response_model=None, **more)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    return Gate(app, queue, **limits)


@asynccontextmanager
async def _threads(app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = CALLS + 16  # beyond the calls: for looking at tokens
    yield


def _json(value: Any) -> Any:
    """Return records as what JSON holds; payloads in their canonical form."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict) and None in value:
        value = {"" if key is None else key: item for key, item in value.items()}
    return encode(value, "answer", 0)


def _answer(value: Any, status: int = 200) -> Response:
    return Response(dump(_json(value)), status, media_type="application/json")


def _listed(what: str, found: Sequence[Any]) -> Response:
    lines = [{k: _json(v) for k, v in one.items()} if isinstance(one, dict) else _json(one) for one in found]
    return Response(dump({what: lines}), media_type="application/json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks, and how."""

    #: what lets calls through
    door: Door
    #: the token that was shown
    token: Token
    #: the client's id of this request
    key: str | None

    def do(self, call: str, **given: Any) -> Any:
        """Make one call; under an id of the client's it is done once."""
        request = None
        if self.key is not None:
            request = sha256(wire.dump([self.key, call, given])).hexdigest()
            if call == "resolve" and given["submit_id"] is None:
                given["submit_id"] = request
        return self.door.do(self.token, call, (), given, request, request is not None)

    def sees(self, task: ReviewTask) -> ReviewTask:
        """Return a task as this caller is shown it."""
        return told_blind(task) if blind(self.token, task) else task


def _caller(
    request: Request,
    key: Annotated[
        str | None, Header(alias="Idempotency-Key", max_length=200, description="the same request again is done once")
    ] = None,
) -> Caller:
    unknown = set(request.query_params) - {field.alias for field in request.scope["route"].dependant.query_params}
    if unknown:
        remedy = "it takes no such parameter; see /openapi.json"
        raise BadInput(name=min(unknown)[:40] or "parameter", value=plain("…"), remedy=remedy)
    return Caller(door=request.app.state.door, token=request.state.token, key=key)


Who = Annotated[Caller, Depends(_caller)]


def _route(route: str, model: Any = None, **more: Any) -> Callable[[Any], Any]:
    """Register a route; ``model`` is the form of its answer, None: it has no content."""
    said: dict[int | str, dict[str, Any]] = {200: {"model": model, "description": "done"}} if model else {}

    def register(endpoint: Any) -> Any:
        summary = (endpoint.__doc__ or "").partition(".")[0]
        status = 200 if model else 204
        given = {"summary": summary, "responses": said, "status_code": status, **more}
        given["responses"] = said | more.get("responses", {})
        _routes.append((route, endpoint, given))
        return endpoint

    return register


# -- for reviewers


@_route("GET /review/queue", form.Claimed)
def queued(who: Who, limit: Limit = 20, expertise: Annotated[str | None, Query(max_length=200)] = None) -> Response:
    """List the open tasks that the caller may judge, best first."""
    return _listed("tasks", [who.sees(task) for task in who.do("pending", expertise=expertise, limit=limit)])


@_route("POST /review/claim", form.Claimed)
def claim(who: Who, body: form.Claim) -> Response:
    """Take the best tasks for a while."""
    lease = timedelta(seconds=body.lease_seconds)
    found = who.do("claim", reviewer=who.token.person, n=body.n, expertise=body.expertise, lease=lease)
    return _listed("tasks", [who.sees(task) for task in found])


@_route("POST /review/{task_id}/submit", Review)
def answer(who: Who, task_id: TaskId, body: form.Answer) -> Response:
    """Answer a task. It need not have been claimed; what others hold is refused.

    An audit is judged blind: correct with what is right, which counts as an approval where the model said the same, or
    reject where nothing fits.
    """
    given = body.model_dump()
    given["correction"] = accept(body.correction, "correction")
    task = who.door.seen(who.token, who.door.queue.get(task_id)) if "admin" not in who.token.roles else None
    if task is not None and blind(who.token, task):
        given |= _blindly(task, given)
    return _answer(who.do("resolve", task_id=task_id, reviewer=who.token.person, **given))


def _blindly(task: ReviewTask, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer to an audit says, about the very prediction that it was compared with."""
    if given["outcome"] == "approve":
        remedy = "an audit is judged blind: send correct with what is right, or reject where nothing fits"
        raise BadInput(name="outcome", value="approve", remedy=remedy)
    same = given["outcome"] == "correct" and agrees(task.ai_prediction or {}, given["correction"] or {"": ""})
    shown = {"shown": given["shown"] or task.shown}
    return shown | ({"outcome": "approve", "correction": None} if same else {})


@_route("POST /review/{task_id}/release")
def release(who: Who, task_id: TaskId, body: form.Remark) -> None:
    """Give a claimed task back."""
    who.do("release", task_id=task_id, reviewer=who.token.person, reason=body.reason)


@_route("POST /review/renew")
def renew(who: Who, body: form.Renewal) -> None:
    """Keep claimed tasks longer."""
    who.do("renew", task_ids=body.task_ids, reviewer=who.token.person, lease=timedelta(seconds=body.lease_seconds))


@_route("POST /review/{task_id}/undo")
def undo(who: Who, task_id: TaskId) -> None:
    """Take the caller's own answer back, unless it was delivered."""
    who.do("undo", task_id=task_id, reviewer=who.token.person)


@_route("POST /review/{task_id}/object")
def object_(who: Who, task_id: TaskId, body: form.Objection) -> None:
    """Ask for a second look at an answer."""
    who.do("object", task_id=task_id, reviewer=who.token.person, comment=body.comment)


# -- for producers


async def _leaves(request: Request) -> bool:
    """Whether nobody will hear an answer later: the client has hung up, or the server ends."""
    return bool(request.app.state.stopping()) or await request.is_disconnected()


def _given(task: form.Task) -> dict[str, Any]:
    """Return a task as the queue takes it."""
    given = task.model_dump(exclude_unset=True)
    span = given.pop("deadline_seconds", None)
    if span is not None:
        if task.deadline is not None:
            raise BadInput(name="deadline_seconds", value=span, remedy="pass this or deadline")
        given["deadline"] = timedelta(seconds=span)
    sides = {side: accept(given[side], side) for side in ("input_data", "ai_prediction")}
    return given | sides


@_route("POST /tasks", ReviewTask)
def submit(who: Who, body: form.Task) -> Response:
    """Ask a person about one model output."""
    return _answer(who.do("submit", **_given(body)))


@_route("POST /tasks/batch", form.Claimed)
def submit_all(who: Who, body: form.Tasks) -> Response:
    """Ask about several outputs, all or none."""
    return _listed("tasks", who.do("submit_all", tasks=[_given(task) for task in body.tasks]))


@_route("GET /tasks/{task_id}", ReviewTask)
def get(who: Who, task_id: TaskId) -> Response:
    """Return one task. Reviewers see no answers before their own; an answer that a producer reads is delivered."""
    task = who.do("get", task_id=task_id)
    return _answer(task if "producer" in who.token.roles else who.sees(task))


@_route("GET /tasks/{task_id}/wait", Review, responses={202: {"model": form.Waiting, "description": "no answer yet"}})
async def wait(
    request: Request, who: Who, task_id: TaskId,
    timeout: Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds")] = LONGEST_WAIT,
    after: Annotated[int, Query(ge=0, le=2**31, description="number of the last answer that you know")] = 0,
    level: Annotated[int | None, Query(ge=0, le=2**31, description="escalation level that you know")] = None,
) -> Response:  # fmt: skip
    """Wait for the answer. 202 says that there is none yet: neither an approval nor a rejection; ask again."""
    queue = who.door.queue
    task = await run_sync(queue.get, task_id)
    known = task.level if level is None else level

    async def look() -> Review | ReviewTask | None:
        given = {"task_id": task_id, "to": who.token.reviewer, "after": after}
        await holder(queue, request.scope)  # the token may have been revoked meanwhile
        review: Review | None = await run_sync(who.door.do, who.token, "deliver", (), given)
        if review is not None:
            return review
        found = await run_sync(queue.get, task_id)
        return found if found.level > known else None

    found: Review | ReviewTask | None = await changed(queue, task_id, look, timeout, partial(_leaves, request))
    if isinstance(found, Review):
        return _answer(found)
    task = task if found is None else found
    facts = {"task_id": task_id, "status": str(task.status), "level": task.level, "expertise": task.expertise}
    return _answer(facts | {"escalated": task.level > known}, 202)


@_route("POST /tasks/{task_id}/withdraw")
def withdraw(who: Who, task_id: TaskId, body: form.Remark) -> None:
    """Take an open task back; whoever waits for it is told."""
    who.do("withdraw", task_id=task_id, reason=body.reason)


@_route("POST /tasks/{task_id}/reopen")
def reopen(who: Who, task_id: TaskId) -> None:
    """Ask again about an expired task."""
    who.do("reopen", task_id=task_id)


@_route("GET /events", form.Happenings)
def events(
    who: Who,
    since: Annotated[int, Query(ge=0, le=2**62, description="last that you know")] = 0,
    limit: Limit = 1000,
) -> Response:
    """List what happened, oldest first. Who answered what is for admins alone."""
    return _listed("events", who.do("events", since=since, limit=limit))


# -- for everybody


@_route("GET /stats", Stats)
def stats(who: Who) -> Response:
    """Count what is in the queue."""
    return _answer(who.do("stats"))


@_route("GET /health", form.Well)
async def health(request: Request) -> Response:
    """Say whether the queue has just stored something. This alone takes no token."""
    await request.app.state.health.prove()
    return _answer({"status": "ok"})


# -- for another notebook, which has the queue as a `RemoteQueue`


@_route("POST /queue/{call}", Any, include_in_schema=False)
def wired(request: Request, call: str) -> Response:
    """Make a call of a queue."""
    args, more, key, again = wire.load_call(request.scope["state"].get("body", b""))
    try:
        incoming.check(call, args)
        found = request.app.state.door.do(request.state.token, call, args, more, key, again)
        return Response(wire.dump(found, f"answer of {call}"), media_type="application/json")
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        if isinstance(error, HitlError):
            raise
        remedy = f"they are not what it takes ({type(error).__name__}); use the same version on both"
        raise BadInput(name="arguments", value=call, remedy=remedy) from error


@_route("GET /changes", Any, include_in_schema=False)
async def changes(request: Request) -> Response:
    """Return the number of a task's last event once it is later than ``after``."""
    task_id, after, seconds = place(request.query_params)
    queue = request.app.state.door.queue

    async def look() -> int | None:
        seq = await run_sync(last_event, queue, task_id)
        return seq if seq > after else None

    found = await changed(queue, task_id, look, seconds, partial(_leaves, request))
    return Response(wire.dump(after if found is None else found), media_type="application/json")
