"""What the queue tells: tasks, reviews, events, counts, and why a thing happened, in plain words."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hitl_nb.errors import BadInput, IllegalMove, TaskExpired, TaskNotFound, TaskWithdrawn
from hitl_nb.payload import digest, name, parse
from hitl_nb.queue.hand import MOST_OF_ONE
from hitl_nb.queue.row import EventRow, TaskRow, aware, fold, load_reasons
from hitl_nb.queue.store import PAGE, Transaction, is_id, payloads
from hitl_nb.task import OPEN, Move, Priority, Review, ReviewOutcome, ReviewTask, Status

#: most tasks or events that one call returns
MAX_PAGE = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Counts over the whole queue."""

    #: tasks by status
    status: dict[str, int] = field(default_factory=dict)
    #: answers that hold, by outcome
    outcome: dict[str, int] = field(default_factory=dict)
    #: open tasks by priority
    open_by_priority: dict[str, int] = field(default_factory=dict)
    #: open tasks by expertise; None: anyone
    open_by_expertise: dict[str | None, int] = field(default_factory=dict)
    #: open tasks whose deadline has passed
    overdue: int = 0
    #: tasks whose caller was told ``auto_approved``, audited since or not
    automatic: int = 0
    #: random audits drawn, with a known probability; what a caller asked to audit was chosen and is none
    audits: int = 0
    #: random audits judged at least once; None: not told to reviewers over the network, who judge them blind
    audited: int | None = 0
    #: random audits whose first standing judgement disagrees with the model; a later one never replaces it
    disagreed: int | None = 0
    #: random audits that two people judged without knowing of each other; adjudicators know
    judged_twice: int | None = 0
    #: of those, how often one agreed with the model and the other did not
    differed: int | None = 0
    #: answers by reviewer
    reviewers: dict[str, int] = field(default_factory=dict)
    #: of those, how many in the last hour
    last_hour: dict[str, int] = field(default_factory=dict)
    #: and in the last day
    last_day: dict[str, int] = field(default_factory=dict)
    #: when somebody answered last
    last_answer: datetime | None = None
    #: since when the oldest open task waits
    oldest: datetime | None = None
    #: the next deadline of an open task that is to come
    next_deadline: datetime | None = None
    #: all tasks, auto-approved ones included
    total: int = 0
    #: when it was counted, by the queue's time
    at_time: datetime | None = None

    @property
    def audit_counts(self) -> tuple[int, int, int, int]:
        """Disagreed of audited, and differed of judged twice; zeros where they are not told."""
        return self.disagreed or 0, self.audited or 0, self.differed or 0, self.judged_twice or 0

    @property
    def automatic_share(self) -> float | None:
        """Share whose caller was told ``auto_approved`` at once; None for an empty queue."""
        return self.automatic / self.total if self.total else None


def page(limit: int) -> int:
    """Return how many lines a call may return."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise BadInput(name="limit", value=limit, remedy=f"pass 1 to {MAX_PAGE}")
    return limit


def review_of(
    event: EventRow, said: Mapping[tuple[str, int], Any], found: Mapping[str, Any], facts: dict[str, Any] | None = None
) -> Review:
    """Return the review of a logged answer; ``found`` is the payload, ``said`` what reviewers wrote."""
    facts = facts or event.facts
    number, outcome = facts["number"], ReviewOutcome(facts["outcome"])
    correction = said.get(("correction", number))
    answers = {ReviewOutcome.APPROVE: found.get("prediction"), ReviewOutcome.CORRECT: correction}
    claimed = facts.get("claimed_at")
    return Review(
        task_id=str(event.task_id),
        reviewer=event.actor or "",
        outcome=outcome,
        correction=correction,
        comment=said.get(("comment", number)),
        at_time=_utc(event.at_time),
        claimed_at=None if claimed is None else aware(datetime.fromisoformat(claimed)),
        attempt=event.attempt or 0,
        number=number,
        version=facts["version"],
        shown=facts["shown"],
        submit_id=event.submit_id,
        adjudication=facts["adjudication"],
        answer=answers.get(outcome),
    )


def _utc(when: datetime) -> datetime:
    return aware(when) or when


def as_task(row: TaskRow, found: Mapping[str, Any], reviews: Iterable[Review] = ()) -> ReviewTask:
    """Return a row with its payload as the record that people see."""
    reasons = load_reasons(row.reasons, dict(found), row.confidence)
    return ReviewTask(
        task_id=row.task_id,
        input_data=found.get("input"),
        ai_prediction=found.get("prediction"),
        confidence=row.confidence,
        reason=reasons[0].text if reasons else "",
        priority=Priority.ranked(row.priority),
        created_at=_utc(row.created_at),
        deadline=aware(row.deadline),
        status=Status(row.status),
        reasons=reasons,
        expertise=row.expertise,
        attempt=row.attempt,
        version=row.version,
        shown=found.get("shown"),
        level=row.level,
        overdue=row.overdue,
        audit=row.audit,
        audit_probability=row.audit_probability,
        disputed=Status.DISPUTED in (row.status, row.came_from),
        holder=row.holder,
        lease_until=aware(row.lease_until),
        model=row.model,
        policy=row.policy,
        reviews=tuple(reviews),
    )


def submitted(row: TaskRow, texts: Mapping[str, str]) -> ReviewTask:
    """Return a task that has just been stored, with the texts of its payload by kind."""
    shown = digest(texts["input"], texts["prediction"])
    return as_task(row, {kind: parse(text) for kind, text in texts.items()} | {"shown": shown})


def as_tasks(tx: Transaction, rows: list[TaskRow]) -> list[ReviewTask]:
    """Return rows with their payloads, read at once."""
    texts = tx.texts(row.task_id for row in rows)
    return [as_task(row, payloads(texts[row.task_id], row)) for row in rows]


def get(tx: Transaction, task_id: str) -> ReviewTask:
    """Return one task with the answers that stand."""
    row = tx.task(task_id)
    found = payloads(tx.texts([task_id])[task_id], row)
    return as_task(row, found, standing(tx, row, found))


def reviewed(tx: Transaction, limit: int) -> list[ReviewTask]:
    """Return what was answered last, newest first, with the answers that stand; tasks with long texts are left out."""
    rows = tx.tasks("answered_last", n=limit)
    ids = [row.task_id for row in rows]
    texts, events = defaultdict[str, list[Any]](list), defaultdict[str, list[EventRow]](list)
    for task_id, *rest in tx.rows("get_texts", task_ids=ids, whole=[], most=MOST_OF_ONE):
        texts[str(task_id)].append(tuple(rest))
    for event in tx.events("events_of_tasks", task_ids=ids):
        events[str(event.task_id)].append(event)
    short = [row for row in rows if all(body is not None for *_, body in texts[row.task_id])]
    read = [(row, payloads(texts[row.task_id], row), events[row.task_id]) for row in short]
    return [as_task(row, found, _standing(row, found, log)) for row, found, log in read]


def told(tx: Transaction, task_ids: Sequence[str]) -> list[tuple[Status, ReviewTask]]:
    """Return what callers were told at submission, and the tasks as they were then, whatever became of them."""
    found: dict[str, tuple[Status, ReviewTask]] = {}
    for start in range(0, len(task_ids), PAGE):
        page = [task_id for task_id in task_ids[start : start + PAGE] if is_id(task_id)]
        first = [fold(None, event) for event in tx.events("submissions_of", task_ids=page)]
        found |= {task.task_id: (task.status, task) for task in as_tasks(tx, first)}
    for task_id in task_ids:
        if task_id not in found:
            raise TaskNotFound(task_id=task_id)
    return [found[task_id] for task_id in task_ids]


def standing(tx: Transaction, row: TaskRow, found: Mapping[str, Any]) -> list[Review]:
    """Return the answers of a task that stand."""
    return [] if row.standing == "[]" else _standing(row, found, tx.events("events_of", task_id=row.task_id))


def _standing(row: TaskRow, found: Mapping[str, Any], log: Iterable[EventRow]) -> list[Review]:
    numbers = [number for number, _ in json.loads(row.standing)]
    reviews = [event for event in log if event.move == Move.REVIEW]
    return [review_of(e, found["answers"], found) for e in reviews if e.facts["number"] in numbers]


def pending(tx: Transaction, expertise: str | Sequence[str] | None, limit: int, after: str | None) -> list[ReviewTask]:
    """Return what waits for a person: best first, or by id from the one after ``after``."""
    several = [expertise] if isinstance(expertise, str) else expertise or ()
    words = {"anybody": expertise is None, "expertises": [name("expertise", word) for word in several]}
    if after is not None and not is_id(after):
        raise BadInput(name="after", value=after, remedy="pass the id of the last task that you know")
    found = {"after": after} if after else {}
    return as_tasks(tx, tx.tasks("open_after" if after else "open_tasks", **words, n=limit, **found))


def answer_of(tx: Transaction, task_id: str, after: int) -> tuple[TaskRow, Review | None]:
    """Return a task and the answer that holds, if there is one later than number ``after``.

    Raises
    ------
    TaskExpired, TaskWithdrawn, IllegalMove
        There will be no answer.
    """
    row = tx.task(task_id)
    if row.status == Status.EXPIRED:
        raise TaskExpired(task_id=task_id, when=aware(row.deadline))
    if row.status == Status.WITHDRAWN:
        raise TaskWithdrawn(task_id=task_id, reason="see queue.explain()")
    if row.status == Status.AUTO_APPROVED:
        remedy = "it was auto-approved, nobody will answer it"
        raise IllegalMove(task_id=task_id, status=row.status, move="wait", remedy=remedy)
    if row.status != Status.REVIEWED or (row.final or 0) <= after:
        return row, None
    found = payloads(tx.texts([task_id])[task_id], row)
    return row, next(r for r in standing(tx, row, found) if r.number == row.final)


def stats(tx: Transaction) -> Stats:
    """Count everything, at one moment."""
    counters: dict[str, Counter[Any]] = {k: Counter() for k in ("status", "outcome", "priority", "expertise")}
    overdue = 0
    for status, outcome, priority, expertise, late, count in tx.rows("counts"):
        counters["status"][status] += count
        if status == Status.REVIEWED:
            counters["outcome"][outcome] += count
        if status in OPEN:
            counters["priority"][str(Priority.ranked(priority))] += count
            counters["expertise"][expertise] += count
            overdue += count * late
    audited_later, *audits = tx.rows("audit_counts")[0]
    oldest, due = tx.rows("open_times")[0]
    answered = tx.rows("reviewer_counts", hour=tx.now - timedelta(hours=1), day=tx.now - timedelta(days=1))
    return Stats(
        status=dict(counters["status"]),
        outcome=dict(counters["outcome"]),
        open_by_priority=dict(counters["priority"]),
        open_by_expertise=dict(counters["expertise"]),
        overdue=overdue,
        automatic=counters["status"][Status.AUTO_APPROVED] + audited_later,
        **dict(zip(("audits", "audited", "disagreed", "judged_twice", "differed"), audits, strict=True)),
        reviewers={actor: count for actor, count, *_ in answered},
        last_hour={actor: hour for actor, _, hour, _, _ in answered if hour},
        last_day={actor: day for actor, _, _, day, _ in answered if day},
        last_answer=aware(max((last for *_, last in answered), default=None)),
        oldest=aware(oldest),
        next_deadline=aware(due),
        total=sum(counters["status"].values()),
        at_time=aware(tx.now),
    )


def events(tx: Transaction, since: int, limit: int, move: str | None) -> list[dict[str, Any]]:
    """Return the log after a place, as plain dicts with aware times."""
    if isinstance(since, bool) or not isinstance(since, int) or not 0 <= since < 2**63:
        raise BadInput(name="since", value=since, remedy="pass the seq of the last event that you know, or 0")
    kind = None if move is None else name("move", move)
    found = tx.events("events_since", since=since, limit=limit, move=kind)
    return [asdict(event) | {"at_time": _utc(event.at_time), "body": event.facts} for event in found]


def explain(tx: Transaction, task_id: str) -> str:
    """Say why a task is where it is: reasons, policy, model, who did what when."""
    row = tx.task(task_id)
    found = payloads(tx.texts([task_id])[task_id], row)
    lines = [f"Task {task_id} is {row.status}.", *_origin(row, found)]
    for event in tx.events("events_of", task_id=task_id):
        lines.append(f"{event.at_time:%Y-%m-%d %H:%M:%S} UTC: {_sentence(event, found)}")
    if row.erased_at is not None:
        lines.append("Its payload was erased on request; values and texts are gone, facts and times remain.")
    return "\n".join(lines)


def _origin(row: TaskRow, found: Mapping[str, Any]) -> list[str]:
    reasons = load_reasons(row.reasons, dict(found), row.confidence)
    bounds = ["" if r.bound is None or "{bound}" in r.says else f" (bound {r.bound})" for r in reasons]
    lines = [f"Reason: {r.text}{bound}" for r, bound in zip(reasons, bounds, strict=True)]
    confidence = "unknown" if row.confidence is None else f"{row.confidence:.4g}"
    lines.append(f"Model {row.model or 'not named'}, confidence {confidence}, policy {row.policy or 'none'}.")
    return lines if reasons else ["No rule asked for a person.", *lines]


def _sentence(event: EventRow, found: Mapping[str, Any]) -> str:
    facts, who = event.facts, event.actor or "the queue"
    if event.move == "submit":
        return f"submitted as {facts['set'].get('status')}"
    if event.move == Move.REVIEW:
        return f"{who} answered {facts['outcome']}{_said(facts, found)}" + (
            " as adjudicator" if facts["adjudication"] else ""
        )
    words = {Move.CLAIM: "claimed", Move.RELEASE: "gave it back", Move.LAPSE: "ended a lease that ran out"}
    words |= {Move.RENEW: "kept it longer", Move.ESCALATE: "escalated it", Move.HOLD: "marked it overdue"}
    words |= {Move.DENY: "let it expire without a judgement", Move.NOTE_DEADLINE: "noted that its deadline passed"}
    words |= {Move.REOPEN: "opened it again", Move.REORDER: "ordered it anew by a later model"}
    words |= {Move.DELIVER: "received the answer", Move.UNDO: "took the answer back", Move.OBJECT: "objected"}
    words |= {Move.AUDIT: "drew it for a random audit", Move.WITHDRAW: "withdrew it", Move.REPLACE: "replaced it"}
    remark = found.get("answers", {}).get(("remark", facts.get("remark")))
    spoken = words[Move(event.move)] if event.move in tuple(Move) and Move(event.move) in words else event.move
    return f"{who} {spoken}" + (f": {remark}" if remark else "")


def _said(facts: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    said = found.get("answers", {})
    parts = [said.get((kind, facts[kind])) for kind in ("correction", "comment") if facts.get(kind)]
    return "".join(f" {part!r}" for part in parts if part is not None)
