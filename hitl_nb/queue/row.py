"""A line of the task table and of the log, and how the one follows from the other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from hitl_nb.errors import IllegalMove
from hitl_nb.task import MOVES, Move, Reason, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """One line of the table ``task``: narrow, derived from the log. Times are naive UTC."""

    #: UUIDv7 as text
    task_id: str
    #: a Status
    status: str
    #: rank of Priority
    priority: int = 0
    #: 0..1; None if unknown
    confidence: float | None = None
    #: who may judge it; None: anyone
    expertise: str | None = None
    #: when it was submitted
    created_at: datetime
    #: latest time
    deadline: datetime | None = None
    #: when the deadline acts next
    due_at: datetime | None = None
    #: how often it has been leased
    attempt: int = 0
    #: who holds it
    holder: str | None = None
    #: until when
    lease_until: datetime | None = None
    #: when the last claim was made
    claimed_at: datetime | None = None
    #: state from which it was claimed
    came_from: str | None = None
    #: leases that ran out or were skipped since the last escalation
    returns: int = 0
    #: escalation level
    level: int = 0
    #: whether its deadline has passed
    overdue: bool = False
    #: version of the payload
    version: int = 1
    #: answers ever given
    answers: int = 0
    #: answers that stand: JSON list of [number, reviewer]
    standing: str = "[]"
    #: who skipped it: JSON list of reviewers
    skipped: str = "[]"
    #: number of the answer that holds
    final: int | None = None
    #: its outcome
    outcome: str | None = None
    #: who gave it
    reviewer: str | None = None
    #: when
    reviewed_at: datetime | None = None
    #: when a waiter received it
    delivered_at: datetime | None = None
    #: number of the last answer that was delivered
    delivered: int = 0
    #: how many reviewers are asked
    reviews_required: int = 1
    #: how their answers become one
    consensus: str = "majority"
    #: what a passed deadline does
    on_deadline: str = "escalate"
    #: expertise of level 1, 2, …: JSON list
    escalation: str = "[]"
    #: whether it is judged as an audit: blind
    audit: bool = False
    #: the logged draw
    audit_uniform: float | None = None
    #: probability of an audit; 0 where a rule asked for a person
    audit_probability: float | None = None
    #: probability that a person sees it
    review_probability: float | None = None
    #: whether a hard rule fired
    hard: bool = False
    #: why it was sent: JSON list of reasons without their values
    reasons: str = "[]"
    #: model that made the prediction
    model: str | None = None
    #: fingerprint of the policy
    policy: str | None = None
    #: group for per-group statements
    grouping: str | None = None
    #: what a wrong decision costs, in the user's unit
    value: float | None = None
    #: first 8 bytes of the sha256 of the ingest key, to find it fast
    key_hash: int | None = None
    #: when the payload was erased
    erased_at: datetime | None = None
    #: last event that it follows from
    seq: int = 0

    @property
    def reviewers(self) -> list[str]:
        """Those whose answers stand."""
        return [] if self.standing == "[]" else [reviewer for _, reviewer in json.loads(self.standing)]

    @property
    def random_audit(self) -> bool:
        """Whether chance drew it, with a known probability; what a caller asked to audit was chosen."""
        return self.audit and bool(self.audit_probability)


#: columns of the table, in order
COLUMNS = tuple(field.name for field in fields(TaskRow))
#: returns the values of a row, in that order
values = attrgetter(*COLUMNS)
_PLACES = tuple(TaskRow.__dict__[column].__set__ for column in COLUMNS)
#: the JSON of a list or a text in a column
dump_list = json.JSONEncoder(ensure_ascii=False).encode
_TIMES = ("created_at", "deadline", "due_at", "lease_until", "claimed_at", "reviewed_at", "delivered_at", "erased_at")


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRow:
    """One line of the append-only log."""

    #: order of the log, from 1
    seq: int
    #: task it is about; None: about the queue
    task_id: str | None
    #: a Move, or ``submit``, ``policy``, ``forget``, ``note``
    move: str
    #: when, naive UTC
    at_time: datetime
    #: who
    actor: str | None = None
    #: lease under which it happened
    attempt: int | None = None
    #: id that the client gave before its first try
    submit_id: str | None = None
    #: numbers that a submission or a new score brings
    confidence: float | None = None
    #: the logged audit draw
    audit_uniform: float | None = None
    #: what a wrong decision costs
    value: float | None = None
    #: JSON: ``set`` holds the columns it changes, the rest are facts for readers
    body: str = "{}"

    @property
    def facts(self) -> dict[str, Any]:
        """The body, parsed."""
        return dict(json.loads(self.body))


EVENT_COLUMNS = tuple(field.name for field in fields(EventRow))
event_values = attrgetter(*EVENT_COLUMNS)


def task_row(line: Iterable[Any]) -> TaskRow:
    """Return a line of the task table as a record, in half the time of its own constructor: each change makes one."""
    row = object.__new__(TaskRow)
    for place, value in zip(_PLACES, line, strict=True):
        place(row, value)
    object.__setattr__(row, "task_id", str(row.task_id))
    return row


#: what events of early files are called now
_NOW_CALLED = {"rescore": "reorder"}


def event_row(row: Iterable[Any]) -> EventRow:
    """Return a line of the log as a record."""
    values = dict(zip(EVENT_COLUMNS, row, strict=True))
    task_id, move = values["task_id"], values["move"]
    known = {"task_id": None if task_id is None else str(task_id), "move": _NOW_CALLED.get(move, move)}
    return EventRow(**values | known)


def change(row: TaskRow, move: Move, to: Status, **columns: Any) -> TaskRow:
    """Return the row after a legal move; the table of moves is the only judge.

    Raises
    ------
    IllegalMove
        The state does not allow the move.
    """
    if to not in MOVES[Status(row.status)].get(move, ()):
        legal = ", ".join(MOVES[Status(row.status)]) or "nothing"
        remedy = f"from here it can: {legal}"
        raise IllegalMove(task_id=row.task_id, status=row.status, move=str(move), remedy=remedy)
    after = task_row(values(row))
    for column, value in {**columns, "status": str(to)}.items():
        object.__setattr__(after, column, value)
    return after


def difference(before: TaskRow, after: TaskRow, columns: Iterable[str] = COLUMNS) -> dict[str, Any]:
    """Return those of some columns that changed, as JSON values; the number of the event is none of them."""
    pairs = [(c, getattr(after, c)) for c in columns if getattr(after, c) != getattr(before, c) and c != "seq"]
    return {c: v.isoformat() if isinstance(v, datetime) else v for c, v in pairs}


def fold(row: TaskRow | None, event: EventRow) -> TaskRow:
    """Return the row after an event of the log: what ``rebuild`` and ``verify`` stand on."""
    columns = dict(event.facts.get("set", {}))
    for name in _TIMES:
        if columns.get(name) is not None:
            columns[name] = datetime.fromisoformat(columns[name])
    columns["seq"] = event.seq
    if row is not None:
        return replace(row, **columns)
    numbers: dict[str, Any] = {
        "confidence": event.confidence,
        "audit_uniform": event.audit_uniform,
        "value": event.value,
    }
    return TaskRow(task_id=str(event.task_id), created_at=event.at_time, **numbers, **columns)


def aware(when: datetime | None) -> datetime | None:
    """Return a stored time as aware UTC."""
    return None if when is None else when.replace(tzinfo=UTC)


def dump_reasons(reasons: Iterable[Reason]) -> str:
    """Return reasons as JSON without their values, which stand in the payload alone."""
    keep = ("rule", "says", "bound", "field", "hard")
    return dump_list([{k: getattr(r, k) for k in keep} for r in reasons])


def load_reasons(text: str, payload: dict[str, Any], confidence: float | None) -> tuple[Reason, ...]:
    """Return reasons with their values read from the payload; erased ones stay None."""
    return tuple(Reason(**r, value=_value(r["field"], payload, confidence)) for r in json.loads(text))


def _value(where: str | None, payload: dict[str, Any], confidence: float | None) -> Any:
    if where is None:
        return None
    if where == "confidence":
        return confidence
    side, _, name = where.partition(".")
    found = payload.get(side)
    return found.get(name) if isinstance(found, dict) else None
