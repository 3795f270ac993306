"""The endpoint file beside a queue's file: which process owns it, and how to talk to it."""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from hitl_nb.errors import QueueLocked, QueueTooNew
from hitl_nb.queue.file import SCHEMA_VERSION

#: largest endpoint file, in bytes
_MOST = 4096
_ADDRESS = re.compile(r"http://127\.0\.0\.1:[1-9]\d{0,4}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where the owner of a file listens."""

    #: the queue's file, absolute
    path: str
    #: the owner's process
    pid: int
    #: when that process was started, as the system counts; empty where it cannot be known
    started: str
    #: ``http://127.0.0.1:port``
    address: str
    #: what a client must show; empty: it was agreed on elsewhere
    token: str = field(repr=False)
    #: schema version of the owner
    schema: int

    @property
    def alive(self) -> bool:
        """Whether that process is still there, and no other under its number."""
        with suppress(ProcessLookupError, OverflowError):
            with suppress(PermissionError):
                os.kill(self.pid, 0)
            return started(self.pid) == self.started
        return False

    def write(self) -> None:
        """Put the file beside the queue's, whole or not at all, for its owner's eyes only."""
        place = beside(self.path)
        new = place.with_name(f"{place.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        new.replace(place)

    def remove(self) -> None:
        """Take the file away if it is this process's; one of a later owner stays."""
        if self.pid == os.getpid() and read(self.path) == self:
            beside(self.path).unlink(missing_ok=True)

    def check_version(self) -> None:
        """Refuse an owner that runs another version.

        Raises
        ------
        QueueTooNew, QueueLocked
            It is newer; it is older.
        """
        if self.schema > SCHEMA_VERSION:
            raise QueueTooNew(path=self.path, version=self.schema, known=SCHEMA_VERSION)
        if self.schema < SCHEMA_VERSION:
            raise QueueLocked(path=self.path, owner=f"process {self.pid} of an older hitl_nb", pid=self.pid)


def beside(path: str) -> Path:
    """Return the place of the endpoint file.

    >>> beside("/data/reviews.duckdb").name
    'reviews.duckdb.owner'
    """
    return Path(f"{path}.owner")


def read(path: str) -> Endpoint | None:
    """Return what the endpoint file says; None if there is none, or none that this package wrote for this user."""
    try:
        with open(os.open(beside(path), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | os.O_NONBLOCK), "rb") as file:
            facts = os.fstat(file.fileno())
            private = facts.st_uid == os.geteuid() and not facts.st_mode & 0o077
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MOST or not private:
                return None
            found = Endpoint(**json.loads(file.read(_MOST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = {"str": str, "int": int}
    right = all(type(getattr(found, part.name)) is kinds[str(part.type)] for part in fields(Endpoint))
    right = right and found.token.isascii() and found.token.isprintable() and bool(_ADDRESS.fullmatch(found.address))
    return found if right and found.path == path and found.pid > 0 else None


def started(pid: int) -> str:
    """Return when a process was started; empty where the system does not tell."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return ""
