"""Changes to a task from outside the review: replaced, withdrawn, reopened, ordered anew, erased."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, IllegalMove
from hitl_nb.payload import canonical, name
from hitl_nb.queue.row import EventRow, TaskRow, aware
from hitl_nb.queue.store import PAGE, Transaction
from hitl_nb.queue.submit import known_confidence, model_of, texts
from hitl_nb.task import OPEN, Move, Status

#: events that tell of a copy
COPIES = ("backup", "snapshot", "export")

#: rule of the reason that a later model's order leaves, and what it was called in early files
ORDERED = ("reordered", "rescored")


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """A copy that was made of the queue, as its log tells."""

    #: backup, snapshot or export
    kind: str
    #: where, absolute
    path: str
    #: when the last one was made there, aware
    at_time: datetime

    @property
    def there(self) -> bool | None:
        """Whether something stands at that path now; None: that cannot be known."""
        try:
            os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError):
            return None
        return True


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Forgotten(Shows):
    """What an erasure did, and what may hold the data still; showing it tells which copies are there."""

    #: tasks whose payload is gone
    tasks: tuple[str, ...]
    #: those of them that were open, and are withdrawn now
    withdrawn: tuple[str, ...]
    #: backups, snapshots and exports made since the first of these tasks came; copies made by hand are not known
    copies: tuple[Copy, ...] = ()
    #: models fitted by a loop since the first of these tasks was answered; others are not known
    models: tuple[str, ...] = ()

    def _table(self) -> Table:
        states = {True: "there", False: "gone", None: "unknown"}
        rows = [(copy.kind, copy.path, f"{copy.at_time:%Y-%m-%d %H:%M}", states[copy.there]) for copy in self.copies]
        rows += [("model", model, "", "may have learned from it") for model in self.models]
        notes = ["next: delete what is there, and retrain or delete the models"] if rows else []
        notes += ["the file may hold erased text in parts that it no longer uses; one made by queue.backup() does not"]
        title = f"{len(self.tasks)} tasks erased, {len(self.withdrawn)} of them were open and are withdrawn"
        facts = ["what may hold the data still:" if rows else "no copy and no model is known that holds the data"]
        return table(title, ("what", "where", "made at", "now") if rows else (), rows, notes, facts)


def replace(tx: Transaction, task_id: str, input_data: Any, ai_prediction: Any, confidence: float | None) -> TaskRow:
    """Put a new payload in the place of the old one; leases and answers to the old one are void.

    Raises
    ------
    IllegalMove
        It is decided already, or a random audit: no chosen case takes the place of one that chance drew.
    """
    row = tx.task(task_id)
    new = texts(input_data, ai_prediction)
    known = known_confidence(ai_prediction.get("confidence") if confidence is None else confidence)
    if row.status not in OPEN:
        remedy = "only open tasks can be replaced; submit a new one"
        raise IllegalMove(task_id=task_id, status=row.status, move="replace", remedy=remedy)
    if row.random_audit:
        remedy = "chance drew it for an audit, and a chosen case in its place would count as a random one; "
        remedy += "withdraw() it and submit the other case anew (under a new key, if it has one)"
        raise IllegalMove(task_id=task_id, status=row.status, move="replace", remedy=remedy)
    version = row.version + 1
    for kind, text in new.items():
        tx.store(task_id, version, kind, text)
    back = Status(row.came_from or Status.PENDING) if row.status == Status.CLAIMED else Status(row.status)
    void: dict[str, Any] = dict.fromkeys(("holder", "lease_until", "came_from")) | {"standing": "[]"}
    return tx.move(row, Move.REPLACE, back, version=version, confidence=known, model=model_of(ai_prediction), **void)


def reorder(tx: Transaction, scored: Sequence[TaskRow], policy: str) -> list[str]:
    """Order and route tasks that nobody has had in hand by a later model's scores; returns which were.

    Of the new rows only priority, expertise and reason are taken: what a reviewer sees and approves is what the caller
    handed in, whatever a later model says. What a caller sent by hand keeps the order and the people it came with, an
    escalated task its people; audits stay, and so does what was held, judged, closed or replaced since it was read.
    Chance did not choose what these are judged after, so they are no evidence for a threshold: hard.
    """
    new, done = {one.task_id: one for one in scored}, []
    for start in range(0, len(scored), PAGE):
        for row in tx.tasks("get_tasks", task_ids=list(new)[start : start + PAGE]):
            one, reasons = new[row.task_id], json.loads(row.reasons)
            unseen = row.status == Status.PENDING and not (row.attempt or row.answers or row.audit)
            if unseen and row.version == one.version and all(known["rule"] != "submit" for known in reasons):
                kept = [known for known in reasons if known["rule"] not in ORDERED] + json.loads(one.reasons)
                expertise = row.expertise if row.level else one.expertise
                tx.move(
                    row, Move.REORDER, Status.PENDING, about={"policy": policy}, priority=one.priority, hard=True,
                    expertise=expertise, reasons=json.dumps(kept, ensure_ascii=False),
                )  # fmt: skip
                done.append(row.task_id)
    return done


def withdraw(tx: Transaction, task_id: str, reason: str | None) -> TaskRow:
    """Take a task back; whoever waits is told."""
    row = tx.task(task_id)
    if row.status not in OPEN:
        remedy = "only open tasks can be withdrawn"
        raise IllegalMove(task_id=task_id, status=row.status, move="withdraw", remedy=remedy)
    about: dict[str, Any] = {}
    if reason is not None:
        tx.store(task_id, tx.coming(row), "remark", canonical(str(reason), "reason"))
        about = {"remark": tx.coming(row)}
    return tx.move(row, Move.WITHDRAW, Status.WITHDRAWN, about=about, holder=None, lease_until=None, due_at=None)


def reopen(tx: Transaction, task_id: str) -> TaskRow:
    """Ask again after a deadline denied a task; it has no deadline any more."""
    row = tx.task(task_id)
    tx.payload(row)  # an erased one cannot be judged
    freed: dict[str, Any] = {"deadline": None, "due_at": None, "overdue": False, "standing": "[]"}
    return tx.move(row, Move.REOPEN, Status.PENDING, **freed)


def forget(tx: Transaction, subject: str) -> Forgotten:
    """Erase everything personal about a subject; facts and times stay in the log."""
    body, seq = canonical(name("subject", subject), "subject"), tx.seq
    rows = [tx.task(str(task_id)) for (task_id,) in tx.rows("subject_tasks", subject=body)]
    if not rows:
        raise BadInput(name="subject", value=subject, remedy="no task is about this subject; nothing was erased")
    open_ones = [row.task_id for row in rows if row.status in OPEN]
    for row in rows:
        if row.task_id in open_ones:
            row = withdraw(tx, row.task_id, None)
        tx.rows("erase", task_id=row.task_id)
        tx.mark(row, "forget", erased_at=tx.now, key_hash=None)
    return forgotten(tx, [row.task_id for row in rows], open_ones, seq)


def forgotten(tx: Transaction, tasks: Sequence[str], withdrawn: Sequence[str], until: int) -> Forgotten:
    """Return what an erasure did that began after event number ``until``."""
    found = tx.events("traces", task_ids=list(tasks), until=until)
    models = dict.fromkeys(model for event in found if event.move == "retrain" if (model := _model(event)))
    return Forgotten(tasks=tuple(tasks), withdrawn=tuple(withdrawn), copies=copies(found), models=tuple(models))


def copies(found: Sequence[EventRow]) -> tuple[Copy, ...]:
    """Return the copies of which events tell, each path once."""
    told: dict[tuple[str, str], EventRow] = {}
    for event in found:
        path = event.facts.get("path")
        if event.move in COPIES and isinstance(path, str):
            told[event.move, path] = event
    times = {place: aware(event.at_time) or event.at_time for place, event in told.items()}
    return tuple(Copy(kind=kind, path=path, at_time=when) for (kind, path), when in times.items())


def _model(event: EventRow) -> str | None:
    model, folder = event.facts.get("model"), event.facts.get("folder")
    return f"{model} in {folder}" if model and folder else str(model) if model else None


def copied(tx: Transaction, kind: str, path: str | Path) -> None:
    """Log that a copy is being made, so that an erasure can name it."""
    place = os.fsencode(Path(path).absolute()).decode("utf-8", "backslashreplace")
    tx.note(kind, None, {"path": place})


def deliver(tx: Transaction, row: TaskRow, to: str) -> TaskRow:
    """Log that somebody received the answer; from then on it cannot be undone."""
    if row.delivered == row.final:
        return row
    return tx.move(row, Move.DELIVER, Status.REVIEWED, actor=to, delivered_at=tx.now, delivered=row.final)
