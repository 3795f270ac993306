"""Keeping the file sound: the task table against the log, and the log against itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hitl_nb.payload import parse
from hitl_nb.queue.row import COLUMNS, TaskRow, fold
from hitl_nb.queue.store import Transaction, event_row, task_row
from hitl_nb.queue.submit import key_hash
from hitl_nb.task import MOVES, Move, Status

#: problems of one kind that are named; more are only counted by looking again
NAMED = 20


def verify(tx: Transaction) -> list[str]:
    """Return what is wrong, in words; an empty list means that table, log and payloads agree."""
    problems = [f"task {row[0]} stands twice" for row in tx.rows("doubled", n=NAMED)]
    problems += [f"task {row[0]} has no payload and no logged erasure" for row in tx.rows("missing_payload", n=NAMED)]
    problems += [f"a payload of task {row[0]} should not be there" for row in tx.rows("stray_payload", n=NAMED)]
    table = {row.task_id: row for row in map(task_row, tx.rows("all_tasks"))}
    for row, illegal in from_log(tx):
        problems += illegal
        stored = table.pop(row.task_id, None)
        if stored is None:
            problems.append(f"task {row.task_id} is in the log but not in the table")
        elif stored != row:
            differing = [c for c in COLUMNS if getattr(stored, c) != getattr(row, c)]
            problems.append(f"task {row.task_id} differs from its log in {', '.join(differing)}")
    return problems + [f"task {task_id} is in the table but not in the log" for task_id in table]


def from_log(tx: Transaction) -> Iterator[tuple[TaskRow, list[str]]]:
    """Yield each task as log and keys tell it, with the moves that the table of moves does not allow."""
    hashes = {str(task_id): key_hash(parse(body)) for task_id, body in tx.rows("keys")}
    row: TaskRow | None = None
    illegal: list[str] = []
    for event in map(event_row, tx.rows("events_by_task")):
        if row is not None and row.task_id != event.task_id:
            yield replace(row, key_hash=hashes.get(row.task_id)), illegal
            row, illegal = None, []
        before, row = row, fold(row, event)
        if before is not None and not _legal(before, event.move, row):
            illegal.append(f"event {event.seq}: task {row.task_id} was {before.status} and made {event.move}")
    if row is not None:
        yield replace(row, key_hash=hashes.get(row.task_id)), illegal


def _legal(before: TaskRow, move: str, after: TaskRow) -> bool:
    if move == "forget":
        return before.status == after.status
    return move in tuple(Move) and after.status in MOVES[Status(before.status)].get(Move(move), ())


def rebuild(tx: Transaction) -> int:
    """Write the task table anew from the log; returns the number of tasks."""
    rows = [row for row, _ in from_log(tx)]
    tx.rows("clear_tasks")
    if rows:
        tx.engine.put("task", COLUMNS, [[getattr(row, c) for c in COLUMNS] for row in rows])
    return len(rows)
