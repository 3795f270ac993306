"""One DuckDB connection as operations see it: named statements, rows, Arrow tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import duckdb
import pandas as pd  # noqa: F401  pyarrow asks for it at its first array, and at exit it is too late to import it
import pyarrow as pa

from hitl_nb.queue.file import dialect
from hitl_nb.queue.store import reads

#: rows up to which parameters are faster than an Arrow batch
FEW = 16


class DuckDBEngine:
    """One connection; rows that are put wait until their table is read, so that many units of work share an insert."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._waiting: dict[tuple[str, tuple[str, ...]], list[Sequence[Any]]] = {}

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement and return its rows."""
        self.flush(reads(statement))
        return self.connection.execute(dialect(statement), _all_bound(values)).fetchall()

    def arrow(self, statement: str, given: pa.Table | None = None, **values: Any) -> pa.Table:
        """Run a named statement and return an Arrow table; it finds rows of the caller's as the table ``given``."""
        self.flush(reads(statement))
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

    def flush(self, tables: Collection[str] = ("payload", "event", "task")) -> None:
        """Write the rows that wait for some tables: a few as parameters, more as one Arrow batch."""
        for table, columns in [place for place in self._waiting if place[0] in tables]:
            rows = self._waiting.pop((table, columns))
            try:
                self._insert(table, columns, rows)
            except pa.ArrowException as error:
                raise duckdb.ConversionException(str(error)) from error

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) > FEW:
            self._insert_arrow(table, _arrow(columns, rows))
            return
        marks = ", ".join(["(" + ", ".join("?" * len(columns)) + ")"] * len(rows))
        values = [_bound(column, value) for row in rows for column, value in zip(columns, row, strict=True)]
        self.connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks}", values)

    def put_arrow(self, table: str, data: pa.Table) -> None:
        """Append an Arrow table."""
        self.flush([table])
        self._insert_arrow(table, data)

    def _insert_arrow(self, table: str, data: pa.Table) -> None:
        columns = ", ".join(data.column_names)
        self._with(data, f"INSERT INTO {table} ({columns}) SELECT {columns} FROM batch")

    def update(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of the task table by id."""
        self.flush(["task"])
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
    if name == "task_ids":
        return [UUID(task_id) for task_id in value]
    return value


def _arrow(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    table = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return pa.table({name: pa.array(list(values)) for name, values in table.items()})
