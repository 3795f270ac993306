"""A queue's DuckDB file: opened, created, or refused with the way out."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import duckdb

from hitl_nb.errors import (
    HitlError,
    MigrationFailed,
    NotAQueue,
    QueueDamaged,
    QueueLocked,
    QueueReadOnly,
    QueueTooNew,
    StorageFailed,
)
from hitl_nb.queue.store import statements

#: version of the tables that queries.sql makes; older files are brought to it, a file of a newer one is refused
SCHEMA_VERSION = 2
#: nothing from outside is code: no downloads, not even to open a file of another kind, no Python variables as tables
SETTINGS: dict[str, str | bool | int | float | list[str]] = dict.fromkeys(
    ("python_enable_replacements", "autoinstall_known_extensions", "autoload_known_extensions"), "false"
)
#: where a file of the engine says that it is one
_MAGIC = slice(8, 12)
#: how the engine tells that bytes are not those that it wrote; it has no class for that
_CORRUPT = re.compile("corrupt|could not read enough bytes|replaying wal|deserializ|not a valid duckdb", re.IGNORECASE)

_log = logging.getLogger("hitl_nb")


def migrations() -> dict[int, str]:
    """Return what brings a file to a schema version from the one before it, by version."""
    return {int(version): sql for version, sql in statements("migrations.sql").items()}


def connect(
    path: str, steps: Mapping[int, str] | None = None, lock: Callable[[], None] = lambda: None
) -> duckdb.DuckDBPyConnection:
    """Open or create a queue file, and bring it to this package's schema version.

    Closing it changes nothing in it, until somebody lets the engine checkpoint.

    Parameters
    ----------
    path
        The file, or ``:memory:``.
    steps
        Migrations by the version that they lead to; by default those of this package.
    lock
        Called before the engine opens it, and again once it is there.

    Raises
    ------
    QueueLocked, QueueReadOnly, NotAQueue, QueueDamaged, QueueTooNew, MigrationFailed
        What stands in the way, and the way out.
    """
    try:
        if path != ":memory:":
            check_file(Path(path))
            check_writable(Path(path))
            _make(Path(path))
        lock()
        connection = duckdb.connect(path, config=SETTINGS)
    except duckdb.Error as error:
        raise _cannot_open(path, error) from error
    try:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        lock()
        _check_schema(connection, path, migrations() if steps is None else steps)
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
    return QueueDamaged(path=path, problems=first + _older(path, first))


def _older(path: str, said: str) -> str:
    """Say what to do where the engine's log belongs to another state of the file."""
    moved = "wal" in said.lower() and "does not match" in said.lower()
    return f" (if you put an older file there: move {path}.wal and {path}.last away)" if moved else ""


def told(path: str, error: Exception) -> HitlError:
    """Return an error of the engine as one of ours."""
    first = str(error).partition("\n")[0] or repr(error)
    if _CORRUPT.search(first):
        return QueueDamaged(path=path, problems=first + _older(path, first))
    return StorageFailed(reason=first)


def attach(connection: duckdb.DuckDBPyConnection, path: str) -> None:
    """Let a connection read the tables of a file, as ``looked.…``, without a byte of it being changed."""
    try:
        quoted = path.replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS looked (READ_ONLY, TYPE duckdb)")
    except duckdb.Error as error:
        raise _cannot_open(path, error) from error


def _check_schema(connection: duckdb.DuckDBPyConnection, path: str, steps: Mapping[int, str]) -> None:
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        _create(connection)
    elif not {"meta", "payload", "event", "task"} <= tables:
        raise NotAQueue(path=path, reason=f"it holds the tables {', '.join(sorted(tables))}")
    facts = dict(connection.execute(dialect("get_meta")).fetchall())
    version = int(facts["schema_version"]) if facts.get("schema_version", "").isdecimal() else 0
    if version < 1:
        raise NotAQueue(path=path, reason="its schema version is missing")
    known = max([SCHEMA_VERSION, *steps])
    if version > known:
        raise QueueTooNew(path=path, version=version, known=known)
    if version < known:
        _migrate(connection, path, {step: steps[step] for step in range(version + 1, known + 1)})


def _migrate(connection: duckdb.DuckDBPyConnection, path: str, steps: Mapping[int, str]) -> None:
    """Take the steps one by one, each whole or not at all; the file as it was is kept beside it."""
    backup = f"{path}.v{min(steps) - 1}-backup"
    try:
        Path(f"{backup}.part").unlink(missing_ok=True)  # torn by a process that was killed
        copy(connection, f"{backup}.part")
        os.replace(f"{backup}.part", backup)
        for version, sql in steps.items():
            connection.execute("BEGIN")
            connection.execute(sql)
            connection.execute(dialect("set_meta"), {"name": "schema_version", "value": str(version)})
            connection.execute("COMMIT")
            connection.execute("CHECKPOINT")
    except (duckdb.Error, OSError) as error:
        raise MigrationFailed(path=path, version=max(steps), reason=str(error).splitlines()[0]) from error
    says = "%s has schema version %d now; %s is the file as it was: delete it once all is well, it forgets nothing"
    _log.warning(says, path, max(steps), backup)


def copy(connection: duckdb.DuckDBPyConnection, target: str) -> None:
    """Copy a whole open database to a new file, which the same people may read."""
    here = "SELECT database_name, path FROM duckdb_databases() WHERE database_name = current_database()"
    [(name, path)] = connection.execute(here).fetchall()
    quoted = '"' + name.replace('"', '""') + '"'
    connection.execute("ATTACH '" + target.replace("'", "''") + "' AS copy_of_queue")
    try:
        if path is not None:
            shutil.copymode(path, target)
        connection.execute(f"COPY FROM DATABASE {quoted} TO copy_of_queue")
        connection.execute("CHECKPOINT copy_of_queue")  # or a part of it would stay in a file beside
    finally:
        connection.execute("DETACH copy_of_queue")


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("BEGIN")
    for table in ("meta", "payload", "event", "task", "token"):
        connection.execute(dialect(f"create_{table}"))
    connection.execute(dialect("put_meta"), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
    connection.execute("COMMIT")
    connection.execute("CHECKPOINT")


def dialect(statement: str) -> str:
    """Return a named statement as DuckDB takes it."""
    return re.sub(r"(?<![:\w]):(\w+)", r"$\1", statements()[statement])
