"""Claiming, answering and giving back: everything that a reviewer does to a task."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hitl_nb.errors import (
    AlreadyReviewed,
    BadInput,
    IllegalMove,
    ItemChanged,
    LeaseLost,
    NotQualified,
    SubmitConflict,
    UndoRefused,
    plain,
)
from hitl_nb.payload import canonical, digest, name, parse
from hitl_nb.queue import deadline, head
from hitl_nb.queue.hand import Texts
from hitl_nb.queue.read import review_of
from hitl_nb.queue.row import EventRow, TaskRow, aware, dump_list
from hitl_nb.queue.store import Transaction, sides
from hitl_nb.queue.submit import after
from hitl_nb.task import Move, Review, Reviewer, ReviewOutcome, Status

#: how long a claim holds
LEASE = timedelta(minutes=10)
#: claims at most at once
MAX_CLAIM = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a reviewer says, checked and in canonical form."""

    #: approve, reject or correct
    outcome: ReviewOutcome
    #: canonical text of what is right instead, for ``correct``
    correction: str | None
    #: canonical text of the comment
    comment: str | None

    @classmethod
    def of(cls, outcome: Any, correction: Any, comment: Any) -> Answer:
        """Check an answer from outside."""
        if outcome not in tuple(ReviewOutcome):
            raise BadInput(name="outcome", value=outcome, remedy="pass approve, reject or correct")
        if hasattr(correction, "model_dump"):
            correction = correction.model_dump(mode="json")
        if (outcome == "correct") != isinstance(correction, dict):
            remedy = "correct needs a correction, a dict such as {'label': 'refund'}; the other outcomes take none"
            raise BadInput(name=f"correction of {outcome}", value=correction, remedy=remedy)
        if comment is not None and not isinstance(comment, str):
            raise BadInput(name="comment", value=comment, remedy="pass a text")
        said = [None if v is None else canonical(v, k) for k, v in (("correction", correction), ("comment", comment))]
        return cls(outcome=ReviewOutcome(outcome), correction=said[0], comment=said[1])

    @property
    def verdict(self) -> str:
        """What two answers must share to agree."""
        return f"{self.outcome} {self.correction or ''}"


def claim(
    tx: Transaction, reviewer: Reviewer, n: int, expertise: str | None, lease: timedelta
) -> tuple[list[TaskRow], dict[str, Texts]] | None:
    """Take the best ``n`` tasks for a while; None if it takes a search and the task table is not settled."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_CLAIM:
        raise BadInput(name="n", value=n, remedy=f"claim 1 to {MAX_CLAIM} tasks at once")
    allowed = _allowed(reviewer, expertise)
    found = tx.best(reviewer, allowed, n)
    until = after(tx.now, lease, "lease")
    if found is None and tx.behind is not None:
        return None
    rows = _searched(tx, reviewer, allowed, n) if found is None else found
    texts = tx.texts([row.task_id for row in rows], lambda: tx.ahead(allowed))
    return [_take(tx, row, reviewer, until) for row in rows], texts


def _allowed(reviewer: Reviewer, expertise: str | None) -> list[str]:
    if expertise is None:
        return list(reviewer.expertise)
    if reviewer.expertise and expertise not in reviewer.expertise:
        remedy = f"their expertise is {', '.join(reviewer.expertise)}"
        raise NotQualified(task_id=plain(f"of expertise {expertise!r}"), reviewer=reviewer.id, remedy=remedy)
    return [name("expertise", expertise)]


def fill(tx: Transaction, reviewer: Reviewer, n: int, expertise: str | None) -> None:
    """Fill the head of the line, if a claim finds too little there."""
    allowed = _allowed(reviewer, expertise)
    if tx.best(reviewer, allowed, n) is None:
        for one in (None, *allowed):
            tx.backlog.head.fill(one, tx.tasks("next_tasks", expertise=one, n=head.SHELF))


def _searched(tx: Transaction, reviewer: Reviewer, expertise: list[str], n: int) -> list[TaskRow]:
    """Return what a reviewer gets from behind the head of the line, where nothing can go to them."""
    me = dump_list(reviewer.id)
    words = {"expertises": expertise, "answered": f", {me}]", "passed": me}
    return tx.tasks("candidates", **words, adjudicates=reviewer.adjudicates, n=n)


def _take(tx: Transaction, row: TaskRow, reviewer: Reviewer, until: datetime) -> TaskRow:
    return tx.move(
        row,
        Move.CLAIM,
        Status.CLAIMED,
        actor=reviewer.id,
        holder=reviewer.id,
        lease_until=until,
        claimed_at=tx.now,
        came_from=row.status,
        attempt=row.attempt + 1,
    )


def renew(tx: Transaction, task_ids: Iterable[str], reviewer: Reviewer, lease: timedelta) -> list[TaskRow]:
    """Lengthen leases that the reviewer holds."""
    rows = [_held(tx, tx.task(task_id), reviewer, None) for task_id in task_ids]
    until = after(tx.now, lease, "lease")
    return [tx.move(row, Move.RENEW, Status.CLAIMED, actor=reviewer.id, lease_until=until) for row in rows]


def release(tx: Transaction, task_id: str, reviewer: Reviewer, reason: str | None) -> TaskRow:
    """Give a task back; with a reason it is a skip: it counts as a return, and others get it first."""
    row = _held(tx, tx.task(task_id), reviewer, None)
    if reason is None:
        return deadline.give_back(tx, row, Move.RELEASE, row.returns, actor=reviewer.id)
    skipped = dump_list(sorted({*json.loads(row.skipped), reviewer.id}))
    said = _say(tx, row, reason)
    return deadline.give_back(tx, row, Move.RELEASE, row.returns + 1, actor=reviewer.id, about=said, skipped=skipped)


def _say(tx: Transaction, row: TaskRow, text: Any) -> dict[str, int]:
    """Keep a remark in the payload; the log holds its number, which is that of the event to come."""
    tx.store(row.task_id, tx.coming(row), "remark", canonical(str(text), "remark"))
    return {"remark": tx.coming(row)}


def _held(tx: Transaction, row: TaskRow, reviewer: Reviewer, attempt: int | None) -> TaskRow:
    """Return the row if the reviewer's lease on it is alive; else say who has it, or who answered."""
    _refuse_answered(row)
    alive = row.status == Status.CLAIMED and row.lease_until is not None and row.lease_until > tx.now
    if not alive or row.holder != reviewer.id or attempt not in (None, row.attempt):
        raise LeaseLost(task_id=row.task_id, holder=row.holder if alive else plain("nobody any more"))
    return row


def _refuse_answered(row: TaskRow) -> None:
    if row.status == Status.REVIEWED:
        raise AlreadyReviewed(task_id=row.task_id, by=row.reviewer, when=aware(row.reviewed_at))


def resolve(tx: Transaction, task_id: str, reviewer: Reviewer, answer: Answer, **more: Any) -> Callable[[], Review]:
    """Answer a task; ``more`` holds attempt, submit_id and shown; returns what makes the review, for the caller."""
    submit_id = more["submit_id"]
    repeated = _repeated(tx, task_id, reviewer, answer, submit_id)
    if repeated is not None:
        return lambda: repeated
    row = tx.task(task_id)
    tx.refuse_erased(row)
    _refuse_answered(row)
    texts = tx.texts([task_id])[task_id]
    both = sides(texts, row)
    shown = digest(*both)
    if more["shown"] not in (None, shown):
        raise ItemChanged(task_id=task_id)
    row = _mine(tx, row, reviewer, more["attempt"])
    number = row.answers + 1
    for kind, text in (("correction", answer.correction), ("comment", answer.comment)):
        if text is not None:
            tx.store(task_id, number, kind, text)
    about = {
        "outcome": str(answer.outcome),
        "number": number,
        "shown": shown,
        "version": row.version,
        "adjudication": row.came_from == Status.DISPUTED,
        "correction": number if answer.correction else None,
        "comment": number if answer.comment else None,
        "claimed_at": None if row.claimed_at is None else row.claimed_at.isoformat(),
    }
    settled = _settle(tx, row, reviewer, answer, texts, about, submit_id)
    if settled.status == Status.PENDING:
        deadline.apply(tx, settled)

    def review() -> Review:
        event = EventRow(
            seq=tx.seq, task_id=task_id, move="review", at_time=tx.now, actor=reviewer.id, attempt=row.attempt,
            submit_id=submit_id,
        )  # fmt: skip
        said = {("correction", number): answer.correction, ("comment", number): answer.comment}
        parsed = {key: parse(text) for key, text in said.items() if text}
        return review_of(event, parsed, {"prediction": parse(both[1])} if both[1] else {}, about)

    return review


def _mine(tx: Transaction, row: TaskRow, reviewer: Reviewer, attempt: int | None) -> TaskRow:
    """Return the row under the reviewer's lease, taking it now if nobody holds it."""
    if reviewer.id in row.reviewers and not _may_settle(row, reviewer):
        when = [event.at_time for event in _reviews(tx, row) if event.actor == reviewer.id][-1]
        raise AlreadyReviewed(task_id=row.task_id, by=reviewer.id, when=aware(when))
    lapsed = row.status == Status.CLAIMED and row.lease_until is not None and row.lease_until <= tx.now
    if lapsed and attempt is None:
        row = deadline.give_back(tx, row, Move.LAPSE, row.returns + 1)
    if row.status not in (Status.PENDING, Status.DISPUTED) or attempt is not None:
        if row.status in (Status.CLAIMED, Status.PENDING, Status.DISPUTED):
            return _held(tx, row, reviewer, attempt)
        remedy = "only open tasks can be answered; see queue.explain() for what happened"
        raise IllegalMove(task_id=row.task_id, status=row.status, move="review", remedy=remedy)
    _qualified(row, reviewer)
    return _take(tx, row, reviewer, tx.now + LEASE)


def _may_settle(row: TaskRow, reviewer: Reviewer) -> bool:
    disputed = Status.DISPUTED in (row.status, row.came_from)
    return disputed and reviewer.adjudicates and row.reviews_required == 1


def _qualified(row: TaskRow, reviewer: Reviewer) -> None:
    if row.expertise is not None and row.expertise not in reviewer.expertise:
        remedy = f"it needs expertise {row.expertise!r}; pass Reviewer(id=…, expertise=({row.expertise!r},))"
        raise NotQualified(task_id=row.task_id, reviewer=reviewer.id, remedy=remedy)
    if row.status == Status.DISPUTED and not reviewer.adjudicates:
        remedy = "it is disputed; pass Reviewer(id=…, roles=('reviewer', 'adjudicator'))"
        raise NotQualified(task_id=row.task_id, reviewer=reviewer.id, remedy=remedy)


def _settle(
    tx: Transaction, row: TaskRow, reviewer: Reviewer, answer: Answer, texts: Texts, about: dict[str, Any],
    submit_id: str | None,
) -> TaskRow:  # fmt: skip
    """Log the answer; where enough have come, one of them holds, or the task is disputed."""
    number = about["number"]
    standing = [*json.loads(row.standing), [number, reviewer.id]]
    to, final = Status.PENDING, None
    if row.came_from == Status.DISPUTED:
        to, final = Status.REVIEWED, number
    elif len(standing) >= row.reviews_required:
        verdicts = {n: v for n, v in _verdicts(tx, row, texts).items() if n in [k for k, _ in standing]}
        final = consensus(row.consensus, {**verdicts, number: answer.verdict})
        to = Status.DISPUTED if final is None else Status.REVIEWED
    holds = {} if final is None else _holding(tx, row, final, number, reviewer, answer)
    return tx.move(
        row, Move.REVIEW, to, actor=reviewer.id, submit_id=submit_id, about=about, holder=None, lease_until=None,
        answers=number, standing=dump_list(standing), **holds,
    )  # fmt: skip


def _holding(
    tx: Transaction, row: TaskRow, final: int, number: int, reviewer: Reviewer, answer: Answer
) -> dict[str, Any]:
    if final == number:
        outcome, by = str(answer.outcome), reviewer.id
    else:
        event = next(e for e in _reviews(tx, row) if e.facts["number"] == final)
        outcome, by = event.facts["outcome"], event.actor or ""
    return {"final": final, "outcome": outcome, "reviewer": by, "reviewed_at": tx.now}


def _reviews(tx: Transaction, row: TaskRow) -> list[EventRow]:
    return [event for event in tx.events("events_of", task_id=row.task_id) if event.move == "review"]


def _verdicts(tx: Transaction, row: TaskRow, found: Texts) -> dict[int, str]:
    if row.answers == 0:
        return {}
    facts = [event.facts for event in _reviews(tx, row)]
    corrections = {version: body for version, kind, body in found if kind == "correction"}
    return {f["number"]: f"{f['outcome']} {corrections.get(f['number'], '')}" for f in facts}


def consensus(rule: str, verdicts: dict[int, str]) -> int | None:
    """Return the number of the first answer that holds, or None where they must be settled.

    >>> consensus("majority", {1: "approve", 2: "reject", 3: "approve"})
    1
    >>> consensus("unanimous", {1: "approve", 2: "reject"}) is None
    True
    """
    if len(verdicts) == 1 or rule == "adjudicator":
        return next(iter(verdicts)) if len(verdicts) == 1 else None
    verdict, count = Counter(verdicts.values()).most_common(1)[0]
    enough = count == len(verdicts) if rule == "unanimous" else 2 * count > len(verdicts)
    return min(n for n, v in verdicts.items() if v == verdict) if enough else None


def _repeated(
    tx: Transaction, task_id: str, reviewer: Reviewer, answer: Answer, submit_id: str | None
) -> Review | None:
    if submit_id is None:
        return None
    name("submit_id", submit_id)
    known = tx.known(submit_id)
    if not known:
        return None
    event = known[0]
    row = tx.task(str(event.task_id))
    found = tx.payload(replace(row, version=event.facts.get("version", row.version)))
    said = {k: found["answers"].get((k, event.facts.get("number"))) for k in ("correction", "comment")}
    texts = tuple(None if said[k] is None else canonical(said[k]) for k in ("correction", "comment"))
    given = (task_id, reviewer.id, str(answer.outcome), answer.correction, answer.comment)
    if given != (event.task_id, event.actor, event.facts.get("outcome"), *texts):
        raise SubmitConflict(submit_id=submit_id, task_id=event.task_id)
    return review_of(event, found["answers"], found)


def undo(tx: Transaction, task_id: str, reviewer: Reviewer) -> TaskRow:
    """Take the reviewer's own answer back, unless somebody acted on it."""
    row = tx.task(task_id)
    tx.refuse_erased(row)  # an erased one could not be answered again
    standing = json.loads(row.standing)
    mine = [pair for pair in standing if pair[1] == reviewer.id]
    if not mine:
        raise UndoRefused(task_id=task_id, remedy=f"no answer of {reviewer.id} stands")
    adjudicated = len(standing) > row.reviews_required
    if adjudicated and mine[-1] != standing[-1]:
        raise UndoRefused(task_id=task_id, remedy=f"{standing[-1][1]} settled it since")
    if row.delivered and (mine[-1][0] <= row.delivered or row.delivered == row.final):
        remedy = f"it was delivered at {row.delivered_at}Z; use object() to ask for a second look"
        raise UndoRefused(task_id=task_id, remedy=remedy, when=aware(row.delivered_at), told=row.outcome)
    standing.remove(mine[-1])
    taken: dict[str, Any] = {"about": {"number": mine[-1][0]}, "standing": dump_list(standing)}
    if row.status == Status.CLAIMED and row.came_from == Status.PENDING:  # somebody else judges it meanwhile
        return tx.move(row, Move.UNDO, Status.CLAIMED, actor=reviewer.id, **taken)
    back = Status.DISPUTED if adjudicated else Status.PENDING
    freed = dict.fromkeys(("came_from", "final", "outcome", "reviewer", "reviewed_at"))
    return tx.move(row, Move.UNDO, back, actor=reviewer.id, **taken, **freed)


def object_(tx: Transaction, task_id: str, reviewer: Reviewer, comment: str) -> TaskRow:
    """Ask for a second look at an answer, also after it was delivered."""
    row = tx.task(task_id)
    if not isinstance(comment, str) or not comment.strip():
        raise BadInput(name="comment", value=comment, remedy="say in words what is wrong")
    tx.refuse_erased(row)  # an erased one cannot be judged again
    said = _say(tx, row, comment) if row.status == Status.REVIEWED else {}
    passed = row.due_at is not None and row.due_at <= tx.now  # it was answered in time
    due = None if passed else row.due_at
    return tx.move(row, Move.OBJECT, Status.DISPUTED, actor=reviewer.id, about=said, due_at=due)
