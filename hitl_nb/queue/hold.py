"""A store's hold on its file: the engine's connection, a lock that nobody drops by accident, what was acknowledged."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from contextlib import suppress
from pathlib import Path

import duckdb

from hitl_nb.errors import QueueDamaged, QueueLocked
from hitl_nb.queue.file import connect, dialect

_holds: weakref.WeakSet[Hold] = weakref.WeakSet()
#: files that the process had open from which this one was forked, by device and inode
_inherited: set[tuple[int, int]] = set()


class Hold:
    """What one store has of its file, from opening to closing.

    The engine locks the file with a lock that the system drops as soon as this process closes the file anywhere, such
    as after copying it; so there is a second one, which is not dropped. Beside the file stands, until it is closed in
    good order, the number of the last event that was acknowledged: a log that ends before it is not opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._inode: tuple[int, int] | None = None
        self._file: int | None = None
        self._count: int | None = None
        self._trusted = False
        _holds.add(self)

    def open(self) -> duckdb.DuckDBPyConnection:
        """Open or create the file, or open it anew; until it is trusted, closing leaves it byte for byte as it is."""
        self._trusted = False
        new = self.path != ":memory:" and not Path(self.path).exists()
        self._connection = connect(self.path, lock=self.lock)
        if new:
            self._beside.unlink(missing_ok=True)
        return self._connection

    def trust(self, seq: int) -> None:
        """Let the engine write, if the log, whose last number is ``seq``, holds what was acknowledged.

        Raises
        ------
        QueueDamaged
            It does not.
        """
        connection, known = self._connection, acknowledged(self.path)
        assert connection is not None
        if known is not None:  # the file was not closed in good order
            missing = [f"{known - seq} of {known} acknowledged events are missing"] if seq < known else []
            found = connection.execute(dialect("disorder"), {"n": 1}).fetchall()
            missing += [f"its log is out of order at event {number}" for number, _ in found]
            if missing:
                problems = f"{', '.join(missing)} (if you put an older file there: remove {self._beside})"
                raise QueueDamaged(path=self.path, problems=problems)
        connection.execute("PRAGMA enable_checkpoint_on_shutdown")
        connection.execute("SET lock_configuration = true")
        self._trusted = True

    def acknowledge(self, seq: int) -> None:
        """Keep the number of the last event that callers will hear of; it outlives this process, not the machine."""
        if self.path == ":memory:":
            return
        with suppress(OSError):
            if self._count is None:
                flags = os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
                self._count = os.open(self._beside, flags, 0o600)
            os.pwrite(self._count, b"%019d\n" % seq, 0)

    def close(self) -> None:
        """Give the file free; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            if self._trusted and not Path(f"{self.path}.wal").exists():
                self._beside.unlink(missing_ok=True)
        for file in (self._count, self._file):
            if file is not None:
                os.close(file)
        self._count = self._file = self._inode = None

    @property
    def _beside(self) -> Path:
        return Path(f"{self.path}.last")

    def lock(self) -> None:
        """Take the second lock, once there is a file.

        Raises
        ------
        QueueLocked
            Somebody has the file open, under whatever name.
        """
        if self._inode is not None or self.path == ":memory:" or not Path(self.path).exists():
            return
        facts = os.stat(self.path)
        inode = facts.st_dev, facts.st_ino
        if inode in _inherited:
            owner = "the process from which this one was forked; a fork can never own it (start it with 'spawn')"
            raise QueueLocked(path=self.path, owner=owner)
        for other in list(_holds):
            if other._inode == inode:
                raise QueueLocked(path=self.path, owner=f"this process as {other.path}", pid=os.getpid())
        self._file = _locked(self.path, inode)
        self._inode = inode

    def leak(self) -> None:
        """In a fork: never close the engine's connection, or it would write into the file of the process before."""
        if self._connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        if self._inode is not None:
            _inherited.add(self._inode)
        self._connection = None
        self.close()


def _forked() -> None:
    for hold in list(_holds):
        hold.leak()


os.register_at_fork(after_in_child=_forked)


def acknowledged(path: str) -> int | None:
    """Return the number of the last acknowledged event of a file that was not closed in good order; None: unknown."""
    with suppress(OSError, ValueError):
        with open(os.open(f"{path}.last", os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | os.O_NONBLOCK), "rb") as file:
            text = file.read(64)
        return int(text) if len(text) == 20 else None
    return None


def _locked(path: str, inode: tuple[int, int]) -> int | None:
    """Lock a file for as long as the descriptor that is returned is open; None where the two locks are one."""
    if sys.platform != "linux":
        return None
    import fcntl

    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        pid = _owner(inode[1])
        named = f"process {pid}" if pid else "another process"
        raise QueueLocked(path=path, owner=named, pid=pid) from None
    except OSError:  # a file system without such locks; the engine's remains
        pass
    return file


def _owner(inode: int) -> int | None:
    """Return who holds the second lock of a file; None where the system does not tell."""
    with suppress(OSError, ValueError):
        lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        found = {int(line[4]) for line in lines if line[1] == "FLOCK" and line[5].endswith(f":{inode}")}
        return found.pop() if len(found) == 1 and min(found) > 0 else None
    return None
