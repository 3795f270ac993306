"""One DuckDB connection as operations see it: named statements, rows, Arrow tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import duckdb
import pandas as pd  # noqa: F401  pyarrow asks for it at its first array, and at exit it is too late to import it
import pyarrow as pa

from hitl_nb.queue.file import dialect
from hitl_nb.queue.store import changes, reads

#: rows up to which parameters are faster than an Arrow batch
FEW = 3
#: a table with the columns that are written
Place = tuple[str, tuple[str, ...]]
#: named statements, parsed once for all connections: a reader has a connection of its own for each call
_parsed: dict[str, duckdb.Statement] = {}


class DuckDBEngine:
    """One connection; rows that are put wait until their table is read or the commit, so that many share an insert.

    A transaction begins with the first change that is not the only one: a single insert commits itself.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._waiting: dict[Place, list[Sequence[Any]]] = {}
        self._appenders: dict[Place, Any] = {}
        self._begun = False

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement and return its rows."""
        self._prepare(statement)
        if statement not in _parsed:
            [_parsed[statement]] = self.connection.extract_statements(dialect(statement))
        return self.connection.execute(_parsed[statement], _all_bound(values)).fetchall()

    def arrow(self, statement: str, given: pa.Table | None = None, **values: Any) -> pa.Table:
        """Run a named statement and return an Arrow table; it finds rows of the caller's as the table ``given``."""
        self._prepare(statement)
        if given is None:
            return self.connection.sql(dialect(statement), params=_all_bound(values)).to_arrow_table()
        self.connection.register("given", given)
        try:
            return self.connection.sql(dialect(statement), params=_all_bound(values)).to_arrow_table()
        finally:
            self.connection.unregister("given")

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Append rows, at the latest before their table is read or changed."""
        self._waiting.setdefault((table, tuple(columns)), []).extend(rows)

    def commit(self) -> None:
        """Store all that was put and changed."""
        if len(self._waiting) > 1:
            self._begin()
        self._flush()
        if self._begun:
            self.connection.execute("COMMIT")
        self._begun = False

    def rollback(self) -> None:
        """Forget all that was put and changed."""
        self._waiting.clear()
        if self._begun:
            self.connection.execute("ROLLBACK")
        self._begun = False

    def _begin(self) -> None:
        if not self._begun:
            self.connection.execute("BEGIN")
        self._begun = True

    def _prepare(self, statement: str) -> None:
        """Write the rows that a statement would see; begin a transaction before it changes something."""
        if changes(statement) or any(table in reads(statement) for table, _ in self._waiting):
            self._begin()
            self._flush(reads(statement))

    def _flush(self, tables: Collection[str] | None = None) -> None:
        """Write the rows that wait, for some tables or for all."""
        for place in [place for place in self._waiting if tables is None or place[0] in tables]:
            rows = self._waiting.pop(place)
            if place not in self._appenders:
                self._appenders[place] = self.connection.appender(place[0], columns=list(place[1]))
            try:
                self._appenders[place].append_rows(rows)
                self._appenders[place].flush()
            except Exception as error:
                self._appenders[place].clear()
                if isinstance(error, duckdb.Error):
                    raise
                raise duckdb.ConversionException(str(error)) from error

    def put_arrow(self, table: str, data: pa.Table) -> None:
        """Append an Arrow table."""
        self._begin()
        self._flush([table])
        columns = ", ".join(data.column_names)
        self._with(data, f"INSERT INTO {table} ({columns}) SELECT {columns} FROM batch")

    def update(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of the task table by id."""
        self._begin()
        self._flush(["task"])
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


def _all_bound(values: dict[str, Any]) -> dict[str, Any] | None:
    return {name: _bound(name, value) for name, value in values.items()} or None


def _bound(name: str, value: Any) -> Any:
    if name == "task_id" and isinstance(value, str):
        return UUID(value)
    if name in ("task_ids", "whole"):
        return [UUID(task_id) for task_id in value]
    return value


def _arrow(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    table = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return pa.table({name: pa.array(list(values)) for name, values in table.items()})
