"""What happens by itself: leases run out, deadlines pass, tasks escalate. Never an approval."""

from __future__ import annotations

import json
from typing import Any

from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.store import PAGE, Transaction
from hitl_nb.task import Move, Status

#: leases that may run out or be given back before the next level is asked
MAX_RETURNS = 3


def tick(tx: Transaction) -> int:
    """End leases whose time is over and apply deadlines; returns how many tasks it touched."""
    out = [row for row in tx.tasks("leases_out", now=tx.now, n=PAGE) if row.status == Status.CLAIMED]
    for row in out:
        give_back(tx, row, Move.LAPSE, row.returns + 1)
    ended = {row.task_id for row in out}
    due = [row for row in tx.tasks("deadlines_due", now=tx.now, n=PAGE) if row.task_id not in ended]
    for row in due:
        apply(tx, row)
    return len(out) + len(due)


def give_back(tx: Transaction, row: TaskRow, move: Move, returns: int, **more: Any) -> TaskRow:
    """End a claim without an answer: the task goes back to where it was claimed from."""
    level = row.level
    if returns >= MAX_RETURNS:
        returns, level = 0, row.level + 1
    back = Status(row.came_from or Status.PENDING)
    freed: dict[str, Any] = {"holder": None, "lease_until": None, "came_from": None, "returns": returns}
    if level > row.level:
        freed |= {"level": level, "expertise": _expertise(row, level)}
    row = tx.move(row, move, back, **freed, **more)
    return apply(tx, row)


def apply(tx: Transaction, row: TaskRow) -> TaskRow:
    """Apply a deadline that has passed; while somebody holds the task it is noted only."""
    if row.due_at is None or row.due_at > tx.now:
        return row
    if row.status == Status.CLAIMED:
        return row if row.overdue else tx.move(row, Move.NOTE_DEADLINE, Status.CLAIMED, overdue=True)
    if row.on_deadline == "deny":
        return tx.move(row, Move.DENY, Status.EXPIRED, due_at=None, overdue=True)
    back = Status(row.status)
    if row.on_deadline == "hold" and back is Status.PENDING:
        return tx.move(row, Move.HOLD, back, due_at=None, overdue=True)
    return _escalate(tx, row, back)


def _escalate(tx: Transaction, row: TaskRow, back: Status) -> TaskRow:
    """Go to the next level; while levels are left, each gets the time that the first one had."""
    level = row.level + 1
    more = level < len(json.loads(row.escalation)) and row.deadline is not None
    due = tx.now + (row.deadline - row.created_at) if more and row.deadline else None
    columns: dict[str, Any] = {"level": level, "expertise": _expertise(row, level), "due_at": due, "overdue": True}
    return tx.move(row, Move.ESCALATE, back, **columns)


def _expertise(row: TaskRow, level: int) -> str | None:
    levels = json.loads(row.escalation)
    return levels[level - 1] if 0 < level <= len(levels) else row.expertise
