"""A queue's DuckDB file: opened, created, or refused with the way out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import duckdb

from hitl_nb.errors import (
    HitlError,
    NotAQueue,
    QueueDamaged,
    QueueLocked,
    QueueReadOnly,
    QueueTooNew,
    StorageFailed,
)
from hitl_nb.queue.store import statements

#: version of the tables; a file of a newer one is refused
SCHEMA_VERSION = 1
#: nothing from outside is code: no downloads, not even to open a file of another kind, no Python variables as tables
SETTINGS: dict[str, str | bool | int | float | list[str]] = dict.fromkeys(
    ("python_enable_replacements", "autoinstall_known_extensions", "autoload_known_extensions"), "false"
)
#: where a file of the engine says that it is one
_MAGIC = slice(8, 12)
#: how the engine tells that bytes are not those that it wrote; it has no class for that
_CORRUPT = re.compile("corrupt|could not read enough bytes|replaying wal|deserializ|not a valid duckdb", re.IGNORECASE)


def connect(path: str, lock: Callable[[], None] = lambda: None) -> duckdb.DuckDBPyConnection:
    """Open or create a queue file; closing it changes nothing in it, until somebody lets the engine checkpoint.

    Parameters
    ----------
    path
        The file, or ``:memory:``.
    lock
        Called before the engine opens it, and again once it is there.

    Raises
    ------
    QueueLocked, QueueReadOnly, NotAQueue, QueueDamaged, QueueTooNew
        What stands in the way, and the way out.
    """
    if path != ":memory:":
        check_file(Path(path))
        check_writable(Path(path))
    lock()
    try:
        connection = duckdb.connect(path, config=SETTINGS)
    except duckdb.Error as error:
        raise _cannot_open(path, error) from error
    try:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        lock()
        _check_schema(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, duckdb.Error):
            raise _cannot_open(path, error) from error
        raise
    return connection


def check_file(path: Path) -> None:
    """Refuse what cannot be a queue before the engine sees it."""
    if path.exists() and not path.is_file():
        raise NotAQueue(path=str(path), reason="it is a folder" if path.is_dir() else "it is no regular file")
    wal = Path(f"{path}.wal")
    if not path.exists() and wal.exists() and wal.stat().st_size:  # the engine would delete it
        problems = f"the file is gone, and what was not yet in it stands in {wal}; put the file back, or move that away"
        raise QueueDamaged(path=str(path), problems=problems)


def check_writable(path: Path) -> None:
    """Refuse a place that is marked read-only, even to who could write there all the same."""
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
    if not Path(path).is_file():
        return QueueReadOnly(path=path, reason=first)
    if isinstance(error, (duckdb.BinderException, duckdb.CatalogException)):  # it was opened, and holds other tables
        return NotAQueue(path=path, reason=first)
    if isinstance(error, duckdb.FatalException):
        return told(path, error)
    with open(path, "rb") as file:  # not ours, so no lock of ours is lost by closing it
        start = file.read(_MAGIC.stop)
    if not start:
        return NotAQueue(path=path, reason="it is empty; delete it to have a new queue there")
    if start[_MAGIC] != b"DUCK" or "version number" in first:
        return NotAQueue(path=path, reason=first)
    return QueueDamaged(path=path, problems=first)


def told(path: str, error: duckdb.Error) -> HitlError:
    """Return an error of the engine as one of ours."""
    first = str(error).splitlines()[0]
    if _CORRUPT.search(first):
        return QueueDamaged(path=path, problems=first)
    return StorageFailed(reason=first)


def attach(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """Let a connection read the tables of a file, as ``looked.…``, without a byte of it being changed."""
    try:
        quoted = path.replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS looked (READ_ONLY, TYPE duckdb)")
    except duckdb.Error as error:
        raise _cannot_open(path, error) from error


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
