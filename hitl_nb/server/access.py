"""Who may do what: one table for every call, and what of an answer the holder of a token may see."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from functools import cache
from hashlib import sha256
from typing import Any

from hitl_nb.errors import BadInput, NotAllowed, NotQualified, plain
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.incoming import UNTOUCHED
from hitl_nb.queue.request import Requests
from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.token import ROLES, Token
from hitl_nb.task import ReviewTask, Status

_ANYBODY = ROLES
_PRODUCE = ("producer", "admin")
_JUDGE = ("reviewer", "adjudicator", "admin")
_ADMIN = ("admin",)
#: who may make which call of a queue; what is not named is refused: ``export``, ``backup`` and ``snapshot`` write files
CALLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("now", "get", "stats", "_table", "estimated_wait", "changes"), _ANYBODY),
    **dict.fromkeys(("submit", "submit_all", "store_decided", "store_frame", "told", "deliver", "events"), _PRODUCE),
    **dict.fromkeys(("withdraw", "replace", "reopen"), _PRODUCE),
    **dict.fromkeys(("pending", "reviewed", "explain", "claim", "resolve", "release", "renew", "undo"), _JUDGE),
    "object": _JUDGE,
    **dict.fromkeys(
        ("history", "training_frame", "training_frames", "annotations", "verify", "rebuild", "tick", "tick_if_due"),
        _ADMIN,
    ),
    **dict.fromkeys(("forget", "note", "reorder", "tokens", "store_token", "revoke_token"), _ADMIN),
}
#: which call a route makes; who may make it may use the route; None: everybody, without a token
ROUTES: dict[str, str | None] = {
    "GET /health": None,
    "GET /openapi.json": "now",
    "GET /review/queue": "pending",
    "POST /review/claim": "claim",
    "POST /review/renew": "renew",
    "POST /review/{task_id}/submit": "resolve",
    "POST /review/{task_id}/release": "release",
    "POST /review/{task_id}/undo": "undo",
    "POST /review/{task_id}/object": "object",
    "POST /tasks": "submit",
    "POST /tasks/batch": "submit_all",
    "GET /tasks/{task_id}": "get",
    "GET /tasks/{task_id}/wait": "deliver",
    "POST /tasks/{task_id}/withdraw": "withdraw",
    "POST /tasks/{task_id}/reopen": "reopen",
    "GET /events": "events",
    "GET /stats": "stats",
    "GET /changes": "changes",
}
_BLANK = {field.name: field.default for field in fields(TaskRow)}
#: how long a token may hold a task without renewing the claim
LONGEST_LEASE = timedelta(days=1)
#: what a producer learns of an event: that something happened, not who said what
_OF_AN_EVENT = ("seq", "task_id", "move", "at_time")


def check(token: Token, call: str | None) -> None:
    """Refuse a call that none of a token's roles may make.

    Raises
    ------
    NotAllowed
        The table does not say that it may.
    """
    allowed = CALLS.get(call or "", ())
    if not set(allowed) & set(token.roles):
        remedy = (
            f"it takes one of the roles {', '.join(allowed)}" if allowed else "it is not served; do it on that machine"
        )
        raise NotAllowed(who=token.reviewer, call=plain(f"call {call}"[:40]), remedy=remedy)


class Door:
    """Makes calls for holders of tokens, as the table allows; shows them of the answers what they may see.

    Reviewers see no task outside their expertise, and of others' answers nothing before they have answered themselves
    and the task is settled; who has seen those takes an answer back no more. Producers see the answer that holds, which
    is delivered by that. An admin sees all, and may name any reviewer.
    """

    def __init__(self, queue: ReviewQueue) -> None:
        self.queue = queue
        self._requests = Requests(lambda: queue)

    def do(
        self, token: Token, call: str, args: Sequence[Any] = (), more: Mapping[str, Any] | None = None,
        request: str | None = None, again: bool = False,
    ) -> Any:  # fmt: skip
        """Make one call; ``request`` and ``again`` as in `Requests.do`, where a request is that of one token."""
        check(token, call)
        given = _bound(call, args, more or {})
        if "admin" not in token.roles:
            self._narrow(token, call, given.arguments)
        if call in ("store_decided", "store_frame"):
            given.arguments["ready"] = replace(given.arguments["ready"], foreign=True)
        if request is not None:
            request = sha256(f"{token.id} {request}".encode()).hexdigest()
        found = self._requests.do(call, given.args, given.kwargs, request, again)
        return found if "admin" in token.roles else self._shown(token, call, found)

    def _narrow(self, token: Token, call: str, given: dict[str, Any]) -> None:
        """Let a call speak for the holder of the token alone, about what they may judge."""
        if "reviewer" in given:
            given["reviewer"] = _person(token, given["reviewer"])
        if "to" in given:
            given["to"] = token.reviewer
        if isinstance(given.get("lease"), timedelta) and given["lease"] > LONGEST_LEASE:
            raise BadInput(name="lease", value=given["lease"], remedy=f"a token claims for up to {LONGEST_LEASE}")
        if call in ("claim", "pending"):
            asked = given.get("expertise")
            if asked is not None and (not isinstance(asked, str) or asked not in token.expertise):
                raise _outside(token, asked)
            if call == "pending" and asked is None:
                given["expertise"] = list(token.expertise)
        if call in ("explain", "object", "undo"):
            self._look(token, call, self.queue.get(given["task_id"]))

    def _look(self, token: Token, call: str, task: ReviewTask) -> None:
        """Refuse to say more of a task than this token sees of it, or to take an answer back that knew the others."""
        seen = self.seen(token, task)
        own = [review for review in seen.reviews if review.reviewer == token.reviewer]
        others = len(seen.reviews) > len(own)
        if call == "explain" and len(seen.reviews) < len(task.reviews):
            remedy = "others judge it yet; ask when it is settled" if own else "judge the task first"
            raise NotAllowed(who=token.reviewer, call=plain("read that"), remedy=remedy)
        fresh = task.attempt == 0 or (task.attempt == 1 and task.holder == token.reviewer)
        if call == "explain" and not task.reviews and not fresh:
            raise NotAllowed(who=token.reviewer, call=plain("read that"), remedy="judge the task first")
        if call == "undo" and others and not all(review.adjudication for review in own):
            remedy = "it is settled, and the others' answers can be read; object() asks for a second look"
            raise NotAllowed(who=token.reviewer, call=plain("take that back"), remedy=remedy)

    def _shown(self, token: Token, call: str, found: Any) -> Any:
        if call == "get":
            return self._delivered(token, found) if "producer" in token.roles else self.seen(token, found)
        if call == "reviewed":
            qualified = [task for task in found if task.expertise in (None, *token.expertise)]
            return [task for task in (self.seen(token, one) for one in qualified) if task.reviews]
        if call == "events":
            return [{name: event[name] for name in _OF_AN_EVENT} for event in found]
        if call == "submit":  # a key may have brought a task that is there
            return replace(found, reviews=())
        if call == "submit_all":
            return [replace(task, reviews=()) for task in found]
        if call == "store_decided":
            return replace(found, **{column: _BLANK[column] for column in UNTOUCHED})
        if call == "stats" and "producer" not in token.roles:  # or they tell what a second, blind reviewer finds
            return replace(found, **dict.fromkeys(("audited", "disagreed", "judged_twice", "differed")))
        return found

    def _delivered(self, token: Token, task: ReviewTask) -> ReviewTask:
        """Return a task with the answer that holds, which cannot be undone from now on."""
        if task.status is not Status.REVIEWED:
            return replace(task, reviews=())
        review = self.queue.deliver(task.task_id, token.reviewer)
        return replace(task, reviews=() if review is None else (review,))

    def seen(self, token: Token, task: ReviewTask) -> ReviewTask:
        """Return a task as a reviewer may see it."""
        if task.expertise not in (None, *token.expertise):
            raise _outside(token, task.expertise)
        own = tuple(review for review in task.reviews if review.reviewer == token.reviewer)
        settled = task.status is Status.REVIEWED
        settles = "adjudicator" in token.roles and (task.disputed or settled)
        return task if (own and settled) or settles else replace(task, reviews=own)


def blind(token: Token, task: ReviewTask) -> bool:
    """Whether the holder of a token judges a task without knowing the model's answer."""
    return task.audit and "admin" not in token.roles and not task.reviews


def told_blind(task: ReviewTask) -> ReviewTask:
    """Return an audit as who judges it sees it, until they have."""
    reason = "Audit: say what is right, without the model's answer"
    return replace(
        task, ai_prediction=None, confidence=None, reason=reason, reasons=(), audit_probability=None, model=None,
        policy=None,
    )  # fmt: skip


def _bound(call: str, args: Sequence[Any], more: Mapping[str, Any]) -> inspect.BoundArguments:
    """Return the arguments of a call by name, without the queue itself."""
    try:
        return _signature(call).bind(*args, **more)
    except TypeError as error:
        raise BadInput(name="arguments", value=call, remedy=f"{error}; use the same version on both") from None


@cache
def _signature(call: str) -> inspect.Signature:
    found = getattr(ReviewQueue, call)
    return inspect.signature(getattr(found, "fget", found).__get__(ReviewQueue))  # of a property: of what it calls


def _person(token: Token, named: Any) -> Any:
    """Return the holder of a token as who is named in a call; less expertise than the token's may be named."""
    person = token.person
    known, words = (
        (named, ()) if isinstance(named, str) else (getattr(named, "id", None), getattr(named, "expertise", ()))
    )
    if known != person.id:
        remedy = f"the token is that of {person.id}; pass this name, or show the token of the other"
        raise NotAllowed(who=person.id, call=plain("speak for others"), remedy=remedy)
    if not set(words) <= set(person.expertise):
        raise _outside(token, ", ".join(words))
    return replace(person, expertise=tuple(words) or person.expertise)


def _outside(token: Token, expertise: Any) -> NotQualified:
    remedy = f"the token's expertise is {', '.join(token.expertise) or 'none'}"
    return NotQualified(task_id=plain(f"of expertise {expertise!r}"[:60]), reviewer=token.reviewer, remedy=remedy)
