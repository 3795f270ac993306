"""DuckDB store: one file, one owner process, one writer at a time."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import duckdb
import pandas as pd  # noqa: F401  pyarrow asks for it at its first array, and at exit it is too late to import it
import pyarrow as pa

from hitl_nb.errors import (
    BadInput,
    HitlError,
    QueueClosed,
    StorageFailed,
)
from hitl_nb.payload import parse
from hitl_nb.queue.backlog import RECENT, Backlog
from hitl_nb.queue.file import connect, dialect
from hitl_nb.queue.row import TaskRow, fold
from hitl_nb.queue.store import Transaction, event_row, settle, task_row
from hitl_nb.queue.submit import key_hash

T = TypeVar("T")

#: rows that the task table may be behind the log
MOST_BEHIND = 1000
#: rows up to which parameters are faster than an Arrow batch
FEW = 16


def utc_now() -> datetime:
    """Return the time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


class DuckDBEngine:
    """One connection: named statements and bulk rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement and return its rows."""
        return self.connection.execute(dialect(statement), _all_bound(values)).fetchall()

    def arrow(self, statement: str, **values: Any) -> pa.Table:
        """Run a named statement and return an Arrow table."""
        found = self.connection.sql(dialect(statement), params=_all_bound(values))
        return found.to_arrow_table()

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Append rows: a few as parameters, more as one Arrow batch."""
        if len(rows) > FEW:
            self.put_arrow(table, _arrow(columns, rows))
            return
        marks = ", ".join(["(" + ", ".join("?" * len(columns)) + ")"] * len(rows))
        values = [_bound(column, value) for row in rows for column, value in zip(columns, row, strict=True)]
        self.connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks}", values)

    def put_arrow(self, table: str, data: pa.Table) -> None:
        """Append an Arrow table."""
        columns = ", ".join(data.column_names)
        self._with(data, f"INSERT INTO {table} ({columns}) SELECT {columns} FROM batch")

    def update(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of the task table by id."""
        if len(rows) > FEW:
            sets = ", ".join(f"{c} = batch.{c}" for c in columns[1:])
            where = "WHERE task.task_id = CAST(batch.task_id AS UUID)"
            self._with(_arrow(columns, rows), f"UPDATE task SET {sets} FROM batch {where}")
            return
        sql = f"UPDATE task SET {', '.join(f'{c} = ?' for c in columns[1:])} WHERE task_id = ?"
        for task_id, *values in rows:
            self.connection.execute(sql, [*values, UUID(task_id)])

    def _with(self, data: pa.Table, sql: str) -> None:
        self.connection.register("batch", data)
        try:
            self.connection.execute(sql)
        finally:
            self.connection.unregister("batch")


class DuckDBStore:
    """A queue in a DuckDB file, or in memory.

    Parameters
    ----------
    path
        File, or ``:memory:``.
    clock
        Returns the time, naive UTC.
    """

    def __init__(self, path: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.name = path
        self._clock = clock
        self._lock = threading.RLock()
        self._watchers: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._closed: str | None = None
        self._open()

    def _open(self) -> None:
        self._connection = connect(self.name)
        engine = DuckDBEngine(self._connection)
        self._seq, last = engine.rows("last_seq")[0]
        self._last = last or datetime.min
        self._catch_up(engine)
        self._count(engine)

    def _catch_up(self, engine: DuckDBEngine) -> None:
        """Find what the log holds beyond the task table; a killed owner may have left it behind."""
        self._behind: dict[str, tuple[TaskRow | None, TaskRow]] = {}
        for event in map(event_row, engine.rows("unsettled")):
            task_id = str(event.task_id)
            if task_id not in self._behind:
                found = [task_row(row) for row in engine.rows("get_task", task_id=task_id)]
                shown = found[0] if found else None
                row = fold(shown, event)
                self._behind[task_id] = (shown, row if shown else replace(row, key_hash=_key_of(engine, task_id)))
            else:
                shown, row = self._behind[task_id]
                self._behind[task_id] = (shown, fold(row, event))

    def _settle(self) -> None:
        """Write the rows that the task table does not show yet; they follow from the log, so nothing new is stored."""
        if not self._behind:
            return
        try:
            self._connection.execute("BEGIN")
            settle(DuckDBEngine(self._connection), self._behind.values())
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._undo(error)
            raise
        self._behind = {}

    def _count(self, engine: DuckDBEngine) -> None:
        next_due = engine.rows("next_due")[0][0]
        self.backlog = Backlog(engine.rows("backlog"), engine.rows("recent_reviews", n=RECENT), next_due)
        for before, after in self._behind.values():
            self.backlog.moved(before, after, self._last)

    @property
    def now(self) -> datetime:
        """The time, naive UTC; it never steps back behind the last event."""
        return max(self._clock(), self._last)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or stopped after an error of the engine."""
        return self._closed is not None

    def write(self, work: Callable[[Transaction], T], *, search: bool = False) -> T:
        """Run a unit of work, alone, and store it whole or not at all."""
        with self._lock:
            self._check_open()
            if search or len(self._behind) >= MOST_BEHIND:
                self._settle()
            transaction = self._transaction(DuckDBEngine(self._connection), search)
            try:
                self._connection.execute("BEGIN")
                result = work(transaction)
                transaction.flush()
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._undo(error)
                raise
            self._committed(transaction)
        self._wake(transaction)
        return result

    def _transaction(self, engine: DuckDBEngine, search: bool) -> Transaction:
        return Transaction(engine, self.now, self._seq, self.backlog, None if search else dict(self._behind))

    def _committed(self, transaction: Transaction) -> None:
        self._seq, self._last = transaction.seq, max(self._last, transaction.now)
        for task_id, (before, after) in transaction.changed.items():
            self.backlog.moved(before, after, transaction.now)
            shown = self._behind[task_id][0] if task_id in self._behind else before
            self._behind[task_id] = (shown, after)
        for (expertise, priority, due), count in transaction.arrived.items():
            self.backlog.waiting[expertise, priority] += count
            self.backlog.expect(due)

    def _undo(self, error: BaseException) -> None:
        """Roll back; after an error of the engine itself reopen the file, so that what is stored is known."""
        if not isinstance(error, duckdb.Error):
            self._connection.execute("ROLLBACK")
            return
        try:
            self._recover(error)
        except (duckdb.Error, HitlError) as fatal:
            self._closed = f"it stopped after an error of the engine: {str(fatal).splitlines()[0]}"
        raise StorageFailed(reason=str(error).splitlines()[0]) from error

    def _recover(self, error: duckdb.Error) -> None:
        if self.name == ":memory:":
            if isinstance(error, duckdb.FatalException):
                raise error
            self._connection.execute("ROLLBACK")
            return
        self._connection.close()
        self._open()

    def read(self, work: Callable[[Transaction], T], *, search: bool = True) -> T:
        """Run a unit of work on a snapshot, from any thread."""
        with self._lock:  # a snapshot begins between two writes; the reading itself holds nobody up
            self._check_open()
            if search:
                self._settle()
            cursor = self._connection.cursor()
            cursor.execute("BEGIN")
            cursor.execute(dialect("get_meta")).fetchall()  # the snapshot begins with the first query, not with BEGIN
            transaction = self._transaction(DuckDBEngine(cursor), search)
        try:
            return work(transaction)
        except duckdb.Error as error:
            self._check_open()  # closed meanwhile
            raise StorageFailed(reason=str(error).splitlines()[0]) from error
        finally:
            cursor.close()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise QueueClosed(path=self.name, reason=self._closed)

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after each change of a task; returns what ends it."""
        with self._lock:
            self._watchers[task_id].append(wake)

        def end() -> None:
            with self._lock:
                self._watchers[task_id].remove(wake)
                if not self._watchers[task_id]:
                    del self._watchers[task_id]

        return end

    def _wake(self, transaction: Transaction) -> None:
        with self._lock:
            calls = [wake for task_id in transaction.changed for wake in self._watchers.get(task_id, ())]
        for wake in calls:
            wake()

    def backup(self, path: str) -> None:
        """Copy the whole file to a new one while it is open."""
        if "\0" in path or Path(path).exists() or not Path(path).parent.is_dir():
            raise BadInput(name="path", value=path, remedy="pass the path of a new file in a folder that exists")
        with self._lock:
            self._check_open()
            self._settle()
            try:
                self._copy(path.replace("'", "''"))
            except duckdb.Error as error:
                Path(path).unlink(missing_ok=True)
                raise StorageFailed(reason=str(error).splitlines()[0]) from error

    def _copy(self, target: str) -> None:
        (name,) = self._connection.execute("SELECT current_database()").fetchone() or ("memory",)
        quoted = '"' + name.replace('"', '""') + '"'
        self._connection.execute(f"ATTACH '{target}' AS copy_of_queue")
        try:
            self._connection.execute(f"COPY FROM DATABASE {quoted} TO copy_of_queue")
        finally:
            self._connection.execute("DETACH copy_of_queue")

    def snapshot(self, folder: str) -> None:
        """Write the three tables to a folder as Parquet files."""
        target = Path(folder)
        if "\0" in folder or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise BadInput(name="folder", value=folder, remedy="pass a new or empty folder")
        target.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._check_open()
            self._settle()
            for table in ("payload", "event", "task"):
                path = str(target / f"{table}.parquet").replace("'", "''")
                self._connection.execute(f"COPY (SELECT * FROM {table}) TO '{path}' (FORMAT parquet)")

    def checkpoint(self) -> None:
        """Write the log of the engine into the file."""
        with self._lock:
            self._check_open()
            with suppress(duckdb.TransactionException):  # somebody reads; the engine does it later
                self._connection.execute("CHECKPOINT")

    def look_ahead(self) -> None:
        """Find out when the next lease or deadline is due."""
        with self._lock:
            self._check_open()
            self._settle()
            self.backlog.next_due = DuckDBEngine(self._connection).rows("next_due")[0][0]

    def recount(self) -> None:
        """Count the backlog anew after the task table was rewritten."""
        with self._lock:
            self._count(DuckDBEngine(self._connection))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock:
            if self._closed is None:
                with suppress(StorageFailed):  # the log has it all; the next owner catches up
                    self._settle()
                self._closed = self._closed or "it was closed"
                self._connection.close()


def _all_bound(values: dict[str, Any]) -> dict[str, Any] | None:
    return {name: _bound(name, value) for name, value in values.items()} or None


def _bound(name: str, value: Any) -> Any:
    if name == "task_id" and isinstance(value, str):
        return UUID(value)
    if name == "task_ids":
        return [UUID(task_id) for task_id in value]
    return value


def _arrow(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    table = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return pa.table({name: pa.array(list(values)) for name, values in table.items()})


def _key_of(engine: DuckDBEngine, task_id: str) -> int | None:
    """Return the number of a task's key, which stands in the payload and not in the log."""
    rows = engine.rows("get_payload", task_id=task_id)
    return next((key_hash(parse(body)) for _, kind, body in rows if kind == "key"), None)
