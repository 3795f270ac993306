"""DuckDB store: one file, one owner process, one writer at a time."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
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
    NotAQueue,
    QueueClosed,
    QueueLocked,
    QueueReadOnly,
    QueueTooNew,
    StorageFailed,
)
from hitl_nb.queue.backlog import RECENT, Backlog
from hitl_nb.queue.row import TaskRow, fold
from hitl_nb.queue.store import Transaction, event_row, settle, statements, task_row

T = TypeVar("T")

#: version of the tables; a file of a newer one is refused
SCHEMA_VERSION = 1
#: rows that the task table may be behind the log
MOST_BEHIND = 1000
#: rows up to which parameters are faster than an Arrow batch
FEW = 16
#: nothing from outside is code: no downloads, no Python variables as tables; then the door is locked
SETTINGS = (
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET lock_configuration = true",
)


def utc_now() -> datetime:
    """Return the time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


class DuckDBEngine:
    """One connection: named statements and bulk rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement and return its rows."""
        return self.connection.execute(_dialect(statement), _all_bound(values)).fetchall()

    def arrow(self, statement: str, **values: Any) -> pa.Table:
        """Run a named statement and return an Arrow table."""
        found = self.connection.sql(_dialect(statement), params=_all_bound(values))
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
                self._behind[task_id] = (shown, fold(shown, event))
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


def connect(path: str) -> duckdb.DuckDBPyConnection:
    """Open or create a queue file and lock the engine's doors.

    Raises
    ------
    QueueLocked, QueueReadOnly, NotAQueue, QueueTooNew
        What stands in the way, and the way out.
    """
    if path != ":memory:":
        _check_file(Path(path))
    try:
        connection = duckdb.connect(path)
    except duckdb.Error as error:
        raise _cannot_open(path, error) from error
    try:
        _check_schema(connection, path)
        for setting in SETTINGS:
            connection.execute(setting)
    except BaseException as error:
        connection.close()
        if isinstance(error, duckdb.Error):
            raise _cannot_open(path, error) from error
        raise
    return connection


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise NotAQueue(path=str(path), reason="it is a folder")
    if not path.parent.is_dir():
        raise QueueReadOnly(path=str(path), reason=f"the folder {path.parent} does not exist; create it")
    place = path if path.exists() else path.parent
    marked = not place.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    if marked or not os.access(place, os.W_OK):
        raise QueueReadOnly(path=str(path), reason=f"{place} is read-only")


def _cannot_open(path: str, error: duckdb.Error) -> HitlError:
    """Turn the engine's refusal into ours; the engine has one class for all, so the owner is read from its text."""
    owner = re.search(r"held in (.*?) ?\(PID (\d+)\)", str(error))
    if owner:
        return QueueLocked(path=path, owner=f"{Path(owner[1]).name} (process {owner[2]})", pid=int(owner[2]))
    first = str(error).splitlines()[0]
    if Path(path).is_file():
        empty = Path(path).stat().st_size == 0
        return NotAQueue(path=path, reason="it is empty; delete it to have a new queue there" if empty else first)
    return QueueReadOnly(path=path, reason=first)


def _check_schema(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        _create(connection)
    elif not {"meta", "payload", "event", "task"} <= tables:
        raise NotAQueue(path=path, reason=f"it holds the tables {', '.join(sorted(tables))}")
    facts = dict(connection.execute(_dialect("get_meta")).fetchall())
    version = int(facts["schema_version"]) if facts.get("schema_version", "").isdecimal() else 0
    if version < 1:
        raise NotAQueue(path=path, reason="its schema version is missing")
    if version > SCHEMA_VERSION:
        raise QueueTooNew(path=path, version=version, known=SCHEMA_VERSION)


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("BEGIN")
    for table in ("meta", "payload", "event", "task"):
        connection.execute(_dialect(f"create_{table}"))
    connection.execute(_dialect("put_meta"), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
    connection.execute("COMMIT")
    connection.execute("CHECKPOINT")


def _dialect(statement: str) -> str:
    return re.sub(r"(?<![:\w]):(\w+)", r"$\1", statements()[statement])


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
