"""Keeping the file sound: the task table against the log, log and payloads against what they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from uuid import UUID

from hitl_nb.errors import QueueDamaged, shown
from hitl_nb.payload import parse
from hitl_nb.queue.row import COLUMNS, TaskRow, event_row, fold, task_row
from hitl_nb.queue.store import Engine, Transaction
from hitl_nb.queue.submit import key_hash
from hitl_nb.task import MOVES, Move, Status

#: problems that are named at once, and of those that a single query finds; mended ones make room for others
NAMED, NAMED_OF_A_KIND = 100, 20
#: lines of log and table that are looked at together; a task is never parted
PAGE = 10_000
#: id after which a page begins, and with which it ends; None: no bound
Page = dict[str, UUID | None]

_SAYS = {
    "twice": "event {} stands twice in the log",
    "gap": "events are missing in the log before event {}",
    "back": "event {} happened before the one before it",
    "doubled": "task {} stands twice",
    "missing_payload": "task {} has no payload and no logged erasure",
    "stray_payload": "a payload of task {} should not be there",
    "altered": "the payload of task {} is not what was shown to a reviewer",
}


def verify(tx: Transaction) -> list[str]:
    """Return what is wrong, in words; an empty list means that table, log and payloads agree.

    The file is read page by page, and the first 100 problems are named. A logged erasure is no problem.
    """
    return list(islice(_problems(tx), NAMED))


def _problems(tx: Transaction) -> Iterator[str]:
    yield from (_SAYS[what].format(seq) for seq, what in tx.rows("disorder", n=NAMED_OF_A_KIND))
    yield from (f"{what} {name} should not be there: this file has none" for what, name in tx.rows("extras"))
    for what in ("doubled", "missing_payload", "stray_payload"):
        yield from (_SAYS[what].format(row[0]) for row in tx.rows(what, n=NAMED_OF_A_KIND))
    for page in pages(tx):
        try:
            yield from _differences(tx, page)
            yield from (_SAYS["altered"].format(row[0]) for row in tx.rows("altered", **page))
        except (ValueError, TypeError, LookupError) as error:
            yield f"a task up to {page['until'] or 'the last'} has a log or key that cannot be read: {shown(error)}"


def pages(tx: Transaction) -> list[Page]:
    """Return the pages of the file, in the order of task ids."""
    bounds = [None, *(task_id for (task_id,) in tx.rows("pages", n=PAGE)), None]
    return [{"after": after, "until": until} for after, until in pairwise(bounds)]


def _differences(tx: Transaction, page: Page) -> Iterator[str]:
    table = {row.task_id: row for row in map(task_row, tx.rows("tasks_between", **page))}
    for row, illegal in from_log(tx, page):
        yield from illegal
        stored = table.pop(row.task_id, None)
        if stored is None:
            yield f"task {row.task_id} is in the log but not in the table"
        elif stored != row:
            differing = [c for c in COLUMNS if getattr(stored, c) != getattr(row, c)]
            yield f"task {row.task_id} differs from its log in {', '.join(differing)}"
    yield from (f"task {task_id} is in the table but not in the log" for task_id in table)


def from_log(tx: Transaction, page: Page) -> Iterator[tuple[TaskRow, list[str]]]:
    """Yield each task of a page as log and keys tell it, with the moves that the table of moves does not allow."""
    hashes = {str(task_id): key_hash(parse(body)) for task_id, body in tx.rows("keys_between", **page)}
    row: TaskRow | None = None
    illegal: list[str] = []
    for event in map(event_row, tx.rows("events_between", **page)):
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


def catch_up(engine: Engine) -> dict[str, tuple[TaskRow | None, TaskRow]]:
    """Find what the log holds beyond the task table; a killed owner may have left it behind."""
    behind: dict[str, tuple[TaskRow | None, TaskRow]] = {}
    for event in map(event_row, engine.rows("unsettled")):
        task_id = str(event.task_id)
        if task_id in behind:
            shown, row = behind[task_id]
            behind[task_id] = shown, fold(row, event)
            continue
        found = [task_row(row) for row in engine.rows("get_task", task_id=task_id)]
        shown = found[0] if found else None
        row = fold(shown, event)
        behind[task_id] = shown, row if shown else replace(row, key_hash=_key_of(engine, task_id))
    return behind


def _key_of(engine: Engine, task_id: str) -> int | None:
    """Return the number of a task's key, which stands in the payload and not in the log."""
    rows = engine.rows("get_payloads", task_ids=[task_id])
    return next((key_hash(parse(body)) for *_, kind, body in rows if kind == "key"), None)


def rebuild(tx: Transaction, path: str = ":memory:") -> int:
    """Write the task table anew from the log, page by page; returns the number of tasks.

    Raises
    ------
    QueueDamaged
        The log cannot be read; nothing was changed.
    """
    import pyarrow as pa

    found, count = pages(tx), 0
    tx.rows("clear_tasks")
    for page in found:
        try:
            rows = [row for row, _ in from_log(tx, page)]
        except (ValueError, TypeError, LookupError) as error:
            problems = f"its log cannot be read up to task {page['until'] or 'the last'} ({shown(error)})"
            raise QueueDamaged(path=path, problems=problems) from error
        if rows:
            tx.engine.put_arrow("task", pa.table({c: [getattr(row, c) for row in rows] for c in COLUMNS}))
        count += len(rows)
    return count
