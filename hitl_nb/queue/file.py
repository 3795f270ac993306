"""A queue's DuckDB file: opened, created, or refused with the way out."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import duckdb

from hitl_nb.errors import HitlError, NotAQueue, QueueLocked, QueueReadOnly, QueueTooNew
from hitl_nb.queue.store import statements

#: version of the tables; a file of a newer one is refused
SCHEMA_VERSION = 1
#: nothing from outside is code: no downloads, no Python variables as tables; then the door is locked
SETTINGS = (
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET lock_configuration = true",
)


def connect(path: str) -> duckdb.DuckDBPyConnection:
    """Open or create a queue file and lock the engine's doors.

    Raises
    ------
    QueueLocked, QueueReadOnly, NotAQueue, QueueTooNew
        What stands in the way, and the way out.
    """
    try:
        if path != ":memory:":
            _check_file(Path(path))
            _make(Path(path))
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


def _make(path: Path) -> None:
    """Create a queue's file unless it is there, whole or not at all: who opens it meanwhile never sees half of one."""
    if path.exists():
        return
    new = path.with_name(f"{path.name}.{uuid4().hex}.new")
    try:
        with duckdb.connect(str(new)) as connection:
            _create(connection)
        with suppress(OSError):  # another process was faster; or links are unknown here, and the engine creates it
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


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
    facts = dict(connection.execute(dialect("get_meta")).fetchall())
    version = int(facts["schema_version"]) if facts.get("schema_version", "").isdecimal() else 0
    if version < 1:
        raise NotAQueue(path=path, reason="its schema version is missing")
    if version > SCHEMA_VERSION:
        raise QueueTooNew(path=path, version=version, known=SCHEMA_VERSION)


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("BEGIN")
    for table in ("meta", "payload", "event", "task"):
        connection.execute(dialect(f"create_{table}"))
    connection.execute(dialect("put_meta"), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
    connection.execute("COMMIT")
    connection.execute("CHECKPOINT")


def dialect(statement: str) -> str:
    """Return a named statement as DuckDB takes it."""
    return re.sub(r"(?<![:\w]):(\w+)", r"$\1", statements()[statement])
