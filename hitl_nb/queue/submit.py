"""Submitting tasks: what a policy decided, or what a caller wants judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from numbers import Real
from typing import Any

from hitl_nb.errors import BadInput, KeyConflict
from hitl_nb.payload import MAX_NAME, canonical, dump, name
from hitl_nb.queue.row import COLUMNS, TaskRow, change, difference, dump_list, dump_reasons
from hitl_nb.queue.store import Transaction
from hitl_nb.task import CONSENSUS, ON_DEADLINE, Move, Priority, Reason, Status

#: what a caller may say of a task, and what holds where nothing is said; ``...``: it must be said
OPTIONS: dict[str, Any] = {
    "input_data": ..., "ai_prediction": ..., "confidence": None, "reason": ..., "priority": None, "key": None,
    "subject": None, "expertise": None, "deadline": None, "on_deadline": "escalate", "escalation": (),
    "reviews_required": 1, "consensus": "majority", "audit": None, "model": None, "policy": None, "group": None,
    "value": None,
}  # fmt: skip
#: tasks at most that are submitted at once
MOST_AT_ONCE = 1000
_BLANK = TaskRow(task_id="", status="", created_at=datetime.min)
#: columns that stand in the event itself, or follow from the payload
_TYPED = ("task_id", "created_at", "confidence", "audit_uniform", "value", "key_hash", "seq")
_FIRST = [column for column in COLUMNS if column not in _TYPED]


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One task ready to be stored: everything is checked, nothing is written yet."""

    #: its first line
    row: TaskRow
    #: canonical texts by kind: input, prediction, score, reason, key, subject
    texts: dict[str, str]
    #: whether it was drawn for an audit after the caller was told ``auto_approved``
    audited: bool = False
    #: deadline of that audit, naive UTC
    audit_deadline: datetime | None = None
    #: whether another process made its id, which may be that of a task that is there
    foreign: bool = False


def first_body(row: TaskRow) -> str:
    """Return the body of a first event: the columns that are not the default."""
    return dump({"set": difference(_BLANK, row, _FIRST)})


def texts(input_data: Any, ai_prediction: Any, **more: Any) -> dict[str, str]:
    """Return the canonical texts of a payload; both sides are dicts."""
    for side, value in (("input_data", input_data), ("ai_prediction", ai_prediction)):
        if not isinstance(value, Mapping):
            raise BadInput(name=side, value=value, remedy="pass a dict of fields, such as {'amount': 12.5}")
    found = {"input": canonical(input_data, "input"), "prediction": canonical(ai_prediction, "prediction")}
    return found | {kind: canonical(value, kind) for kind, value in more.items() if value is not None}


def key_hash(key: str | None) -> int | None:
    """Return the number by which a key is found."""
    return None if key is None else int.from_bytes(sha256(key.encode()).digest()[:8], signed=True)


def audit_event(row: TaskRow, deadline: datetime | None) -> tuple[TaskRow, str]:
    """Return an auto-approved row after its audit was drawn, and the body of that event."""
    after = change(row, Move.AUDIT, Status.PENDING, audit=True, deadline=deadline, due_at=deadline)
    return after, canonical({"set": difference(row, after)}, "event")


def model_of(prediction: Mapping[str, Any]) -> str | None:
    """Return the model that a prediction names, if it names one."""
    model = prediction.get("model")
    return name("model", model) if isinstance(model, str) and model else None


def options(given: Any) -> dict[str, Any]:
    """Return all that is said of a task, with what holds where nothing is said."""
    found = OPTIONS | dict(given if isinstance(given, Mapping) else {})
    odd = [str(name) for name in found if name not in OPTIONS or found[name] is ...]
    if odd:
        remedy = "a task has input_data, ai_prediction, reason and what else submit() takes, nothing more"
        raise BadInput(name=", ".join(odd)[:MAX_NAME], value=given, remedy=remedy)
    return found


def by_hand_all(tasks: Any, new_id: Callable[[], str], now: datetime) -> list[Submission]:
    """Return the submissions of tasks that come at once."""
    if not isinstance(tasks, Sequence) or not 1 <= len(tasks) <= MOST_AT_ONCE:
        raise BadInput(name="tasks", value=tasks, remedy=f"pass a list of 1 to {MOST_AT_ONCE} tasks")
    return [by_hand(**options(one), task_id=new_id(), now=now) for one in tasks]


def keyed(ready: Sequence[Submission]) -> bool:
    """Whether tasks that come at once have keys: all have one of their own, or none has one.

    Of some with and some without a repeat could not tell which are stored.
    """
    keys = [one.texts["key"] for one in ready if "key" in one.texts]
    if keys and len({*keys}) < len(ready):
        raise BadInput(name="key", value=keys[0], remedy="give each task of the list a key of its own, or none of them")
    return bool(keys)


def by_hand(input_data: Any, ai_prediction: Any, *, task_id: str, now: datetime, **options: Any) -> Submission:
    """Return the submission of ``queue.submit``: a caller wants a judgement, without a policy."""
    confidence, reason = known_confidence(options["confidence"]), options["reason"]
    if not isinstance(reason, str) or not reason.strip():
        raise BadInput(name="reason", value=reason, remedy="say in words why a person is asked")
    due = deadline(options["deadline"], now)
    row = TaskRow(
        task_id=task_id,
        status=str(Status.PENDING),
        created_at=now,
        confidence=confidence,
        priority=_priority(options["priority"], confidence),
        expertise=_optional_name("expertise", options["expertise"]),
        deadline=due,
        due_at=due,
        on_deadline=one_of("on_deadline", options["on_deadline"], ON_DEADLINE),
        escalation=_escalation(options["escalation"]),
        reviews_required=_count(options["reviews_required"]),
        consensus=one_of("consensus", options["consensus"], CONSENSUS),
        audit=bool(options["audit"]),
        review_probability=1.0,
        reasons=dump_reasons([Reason(rule="submit", says="{value}", field="reason.text")]),
        model=_optional_name("model", options["model"]),
        policy=_optional_name("policy", options["policy"]),
        grouping=_optional_name("group", options["group"]),
        value=number("value", options["value"]),
        key_hash=key_hash(_optional_name("key", options["key"])),
    )
    payload = {"key": options["key"], "subject": _optional_name("subject", options["subject"])}
    found = texts(input_data, ai_prediction, reason={"text": reason}, **payload)
    return Submission(row=row, texts=found)


def store(tx: Transaction, submission: Submission) -> TaskRow:
    """Store one task, or return the one that its key belongs to.

    Raises
    ------
    KeyConflict
        The key belongs to a task with other content.
    BadInput
        A task has this id.
    """
    row = submission.row
    if row.key_hash is not None:
        known = known_key(tx, row.key_hash, submission.texts)
        if known is not None:
            return known
    if submission.foreign and (tx.near(row.task_id) or tx.rows("get_task", task_id=row.task_id)):
        raise known_id(row.task_id)
    for kind, text in submission.texts.items():
        tx.store(row.task_id, 1, kind, text)
    row = tx.create(row, first_body(row))
    if not submission.audited:
        return row
    due = submission.audit_deadline
    return tx.move(row, Move.AUDIT, Status.PENDING, audit=True, deadline=due, due_at=due)


def known_id(task_id: str) -> BadInput:
    """Return what is said of a new task whose id another has."""
    return BadInput(name="task_id", value=task_id, remedy="a task has this id; make one with new_ids() for each")


def known_key(tx: Transaction, hashed: int, given: Mapping[str, str]) -> TaskRow | None:
    """Return the task of a key, after comparing its content."""
    for task_id, _ in tx.rows("known_keys", hashes=[hashed]):
        texts_of = {kind: body for version, kind, body in tx.texts([str(task_id)])[str(task_id)] if version == 1}
        if texts_of.get("key") != given["key"]:
            continue
        if any(texts_of.get(side) != given[side] for side in ("input", "prediction")):
            raise KeyConflict(key=json.loads(given["key"]), task_id=str(task_id))
        return tx.task(str(task_id))
    return None


def remember_policy(tx: Transaction, fingerprint: str, policy: Mapping[str, Any]) -> None:
    """Log a policy once, so that every decision can be explained."""
    if not tx.rows("known_policy", fingerprint=fingerprint):
        tx.note("policy", fingerprint, {"policy": dict(policy)})


def deadline(value: datetime | timedelta | None, now: datetime) -> datetime | None:
    """Return a deadline as naive UTC."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        return after(now, value, "deadline")
    return utc("deadline", value)


def utc(what: str, value: Any) -> datetime:
    """Return a time with a time zone as naive UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        with suppress(OverflowError):
            return value.astimezone(UTC).replace(tzinfo=None)
    remedy = "pass a datetime with a time zone, such as datetime.now(UTC)"
    raise BadInput(name=what, value=value, remedy=remedy)


def after(now: datetime, span: Any, what: str) -> datetime:
    """Return the time a positive while from now."""
    if isinstance(span, timedelta) and span > timedelta(0):
        with suppress(OverflowError):
            return now + span
    raise BadInput(name=what, value=span, remedy="pass a positive timedelta, such as timedelta(minutes=10)")


def known_confidence(value: Any) -> float | None:
    """Return a confidence between 0 and 1; anything else is unknown, and a person looks at it anyway."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if real and 0 <= value <= 1 else None


def one_of(what: str, value: Any, words: tuple[str, ...]) -> str:
    """Return a word of a fixed list."""
    if value not in words:
        raise BadInput(name=what, value=value, remedy=f"pass one of {', '.join(words)}")
    return str(value)


def number(what: str, value: Any) -> float | None:
    """Return a finite number, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise BadInput(name=what, value=value, remedy="pass a finite number, or None")
    return float(value)


def _priority(value: Any, confidence: float | None) -> int:
    if value is None:
        return 2 if confidence is None or confidence < 0.5 else 1 if confidence < 0.7 else 0
    return rank(value)


def rank(priority: Any) -> int:
    """Return the rank of a priority given at the front door."""
    return Priority(one_of("priority", priority, tuple(Priority))).rank


def _escalation(words: Any) -> str:
    if isinstance(words, str):
        raise BadInput(name="escalation", value=words, remedy=f"pass a list of expertises, such as [{words!r}]")
    return dump_list([name("escalation", word) for word in words])


def _optional_name(what: str, value: Any) -> str | None:
    return None if value is None else name(what, value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 20:
        raise BadInput(name="reviews_required", value=value, remedy="pass how many people judge it, 1 to 20")
    return value
