"""The doctor: looks at everything about a queue's file, changes nothing, and says what to do."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from hitl_nb.connect import reached
from hitl_nb.display import Shows, Table, line
from hitl_nb.errors import HitlError, NotAQueue, QueueDamaged, QueueLocked
from hitl_nb.queue import ReviewQueue, change, endpoint
from hitl_nb.queue.file import SCHEMA_VERSION
from hitl_nb.queue.hold import acknowledged
from hitl_nb.queue.look import Look
from hitl_nb.queue.store import Transaction

#: free space below which a checkpoint may not find room, in bytes
LITTLE = 100 * 2**20
#: size of the engine's own log from which on something keeps it from being taken in, in bytes
LARGE_WAL = 128 * 2**20
#: how long a lease may be over before nobody seems to look after the queue
LONG_OVER = timedelta(hours=1)
#: problems of the task table alone, and of what somebody added to it
_DERIVED = re.compile(r"task \S+ (differs from its log|is in the log but not in the table|stands twice)")
_EXTRA = re.compile(r"(index|constraint) .* should not be there")
#: most problems, leases and deadlines that are told
TOLD = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    #: what was looked at
    what: str
    #: whether it is as it should be; None: it could not be looked at
    fine: bool | None
    #: what was found
    says: str
    #: what to do: a command or a call; empty: nothing
    todo: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Diagnosis(Shows):
    """What `examine` found, in the order in which it looked."""

    #: the file
    path: str
    #: everything that was looked at
    findings: tuple[Finding, ...]

    @property
    def fine(self) -> bool:
        """Whether everything could be looked at and is as it should be."""
        return all(finding.fine for finding in self.findings)

    def _table(self) -> Table:
        marks = {True: "ok", False: "WRONG", None: "not looked at"}
        rows = [(found.what, marks[found.fine], line(found.says, 400)) for found in self.findings]
        todo = [line(f"{found.what}: {found.todo}", 1000) for found in self.findings if found.todo]
        title = "all is well" if self.fine else "something is wrong; what to do:"
        return Table(title=line(self.path, 1000), facts=(), columns=(), rows=tuple(rows), notes=(title, *todo))


def examine(path: str | Path, token: str | None = None) -> Diagnosis:
    """Look at everything about a queue's file, through its owner if there is one, without changing a byte.

    Parameters
    ----------
    path
        The file; it may be damaged, or none of ours.
    token
        That of the owner, if it was given one.

    Examples
    --------
    >>> examine("nothing-here.duckdb").findings[0].says
    'there is no such file'
    """
    place = os.path.realpath(os.path.expanduser(path))
    return Diagnosis(path=place, findings=tuple(_findings(place, token)))


def _findings(path: str, token: str | None) -> Iterator[Finding]:
    if not Path(path).exists():
        wal = Path(f"{path}.wal").exists()
        todo = f"put the file back: {path}.wal has what was not yet in it" if wal else "check the path"
        yield Finding(what="file", fine=False, says="there is no such file", todo=todo)
        return
    yield Finding(what="file", fine=True, says=f"{Path(path).stat().st_size:,} bytes")
    yield from (_permissions(path), _space(path), _wal(path))
    yield _owner(path)
    try:
        queue = reached(path, token)
        if queue is not None:
            yield from _asked(queue)
            return
        look = Look(path, _now())
    except NotAQueue as error:
        todo = f"choose another path, or {_backup(path)}"
        yield Finding(what="queue", fine=False, says=error.values["reason"], todo=todo)
    except QueueDamaged as error:
        yield Finding(what="queue", fine=False, says=error.values["problems"], todo=_backup(path))
    except QueueLocked as error:
        says = f"it is open in {error.values['owner']}, which lets nobody look"
        yield Finding(what="queue", fine=None, says=says, todo="close the queue there, and look again")
    except HitlError as error:
        yield Finding(what="queue", fine=None, says=str(error), todo="mend that, and look again")
    else:
        try:
            yield from _looked(path, look)
        finally:
            look.close()


def _permissions(path: str) -> Finding:
    closed = [str(place) for place in (path, Path(path).parent) if not os.access(place, os.W_OK)]
    mode = Path(path).stat().st_mode & 0o777
    if closed or not mode & 0o222:
        says = f"cannot be written: {', '.join(closed) or path}"
        return Finding(what="permissions", fine=False, says=says, todo=f"chmod u+w {' '.join(closed) or path}")
    return Finding(what="permissions", fine=True, says=f"file and folder can be written (mode {mode:o})")


def _space(path: str) -> Finding:
    free = shutil.disk_usage(Path(path).parent).free
    todo = "" if free >= LITTLE else "make room on the disk; what is acknowledged is safe, but nothing more may fit"
    return Finding(what="disk", fine=free >= LITTLE, says=f"{free:,} bytes are free", todo=todo)


def _wal(path: str) -> Finding:
    wal = Path(f"{path}.wal")
    size = wal.stat().st_size if wal.exists() else 0
    says = f"{size:,} bytes wait in {wal.name}" if size else "nothing waits outside the file"
    todo = "" if size < LARGE_WAL else "close the queue once, so that it is taken in; never delete it"
    return Finding(what="engine's log", fine=size < LARGE_WAL, says=says, todo=todo)


def _owner(path: str) -> Finding:
    found, beside = endpoint.read(path), endpoint.beside(path)
    if found is None and os.path.lexists(beside):
        says = f"{beside} was not made by this package for this user, or is broken"
        return Finding(what="owner", fine=False, says=says, todo=f"rm {beside}")
    if found is None:
        return Finding(what="owner", fine=True, says="no process shares it")
    if found.alive:
        return Finding(what="owner", fine=True, says=f"process {found.pid} owns it, at {found.address}")
    says = f"process {found.pid} owned it and has ended without closing it; whoever opens it next cleans up"
    return Finding(what="owner", fine=True, says=says)


def _asked(queue: ReviewQueue) -> Iterator[Finding]:
    """Look through the owner; it ends leases and applies deadlines itself."""
    yield Finding(what="schema", fine=True, says=f"version {SCHEMA_VERSION}, that of its owner")
    yield _clock(queue.now)
    yield from _verified(queue)
    overdue = queue.stats().overdue
    yield _late("deadlines", overdue, f"{overdue} open tasks are overdue")


def _looked(path: str, look: Look) -> Iterator[Finding]:
    tables = {row[0] for row in look.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not {"meta", "payload", "event", "task"} <= tables:
        says = f"it holds the tables {', '.join(sorted(tables)) or 'of nobody'}"
        yield Finding(what="queue", fine=False, says=says, todo="choose another path; this is no queue")
        return
    broken = {table: said for table in ("meta", "payload", "event", "task") if (said := look.unreadable(table))}
    rebuild = f"hitl-nb rebuild {path} NEW.duckdb"
    for table, said in broken.items():
        todo = rebuild if set(broken) == {"task"} else _backup(path)
        yield Finding(what=f"table {table}", fine=False, says=said, todo=todo)
    if "meta" not in broken:
        yield _schema(path, look)
    if broken:
        return
    yield Finding(what="tables", fine=True, says="every line of every table can be read")
    try:
        seq, last = look.catch_up(), look.now
    except Exception as error:
        yield Finding(what="log", fine=False, says=f"{type(error).__name__}: {error}", todo=_backup(path))
        return
    yield _acknowledged(path, seq)
    yield _clock(last)
    queue = ReviewQueue(look)  # type: ignore[arg-type]  # it only reads
    yield from _verified(queue)
    over = len(_rows(look, "leases_out", _now() - LONG_OVER))
    yield _late("leases", over, f"{over} claims ended over an hour ago, and nobody gave the tasks free")
    due = len(_rows(look, "deadlines_due", _now()))
    overdue = queue.stats().overdue
    yield _late("deadlines", due + overdue, f"{overdue} open tasks are overdue, {due} deadlines were not applied yet")
    yield _backups(look)


def _rows(look: Look, statement: str, now: datetime) -> list[tuple[object, ...]]:
    return look.read(lambda tx: tx.rows(statement, now=now, n=1000))


def _late(what: str, count: int, says: str) -> Finding:
    todo = "open_queue(path).tick(), and let reviewers look at queue.pending()" if count else ""
    return Finding(what=what, fine=not count, says=says if count else "none is over", todo=todo)


def _schema(path: str, look: Look) -> Finding:
    facts = dict(look.connection.execute("SELECT name, value FROM looked.meta").fetchall())
    version = facts.get("schema_version", "missing")
    fine = version == str(SCHEMA_VERSION)
    newer = version.isdecimal() and int(version) > SCHEMA_VERSION
    todo = "" if fine else "pip install --upgrade hitl-nb" if newer else _backup(path)
    return Finding(what="schema", fine=fine, says=f"version {version}, this package has {SCHEMA_VERSION}", todo=todo)


def _acknowledged(path: str, seq: int) -> Finding:
    known = acknowledged(path)
    if known is None or known <= seq:
        says = "" if known is None else ", among them all that were acknowledged"
        return Finding(what="log", fine=True, says=f"{seq:,} events{says}")
    says = f"{known - seq} of {known} acknowledged events are missing at its end"
    return Finding(what="log", fine=False, says=says, todo=f"{_backup(path)}; or go on without them: rm {path}.last")


def _clock(last: datetime) -> Finding:
    ahead = last - _now()
    if ahead > timedelta(seconds=5):
        says = f"the log is {ahead} ahead of this computer's clock; until then all events get its last time"
        return Finding(what="clock", fine=False, says=says, todo="set the clock right: timedatectl status")
    return Finding(what="clock", fine=True, says="not behind the log")


def _verified(queue: ReviewQueue) -> Iterator[Finding]:
    try:
        problems = queue.verify()
    except HitlError as error:
        yield Finding(what="content", fine=False, says=str(error), todo=_backup(queue.name))
        return
    for problem in problems[:TOLD]:
        yield Finding(what="content", fine=False, says=problem, todo=_remedy(problems, queue.name))
    if not problems:
        yield Finding(what="content", fine=True, says="log, table and payloads agree; no index, no constraint")


def _remedy(problems: list[str], path: str) -> str:
    """Say what to do about all problems together: the table is built anew only from a log that has everything."""
    if all(map(_EXTRA.match, problems)):
        return f"hitl-nb rebuild {path} NEW.duckdb, which has none"
    return "queue.rebuild()" if all(map(_DERIVED.match, problems)) else _backup(path)


def _backups(look: Look) -> Finding:
    def work(tx: Transaction) -> tuple[change.Copy, ...]:
        return change.copies(tx.events("copies"))

    there = [copy for copy in look.read(work) if copy.kind == "backup" and copy.there]
    newest = max(there, key=lambda copy: copy.at_time, default=None)
    says = "none is known" if newest is None else f"{len(there)}; the newest: {newest.path}, {newest.at_time:%Y-%m-%d}"
    return Finding(what="backups", fine=True, says=says)


def _backup(path: str) -> str:
    """Say how to go back to a backup; which files those are, a log that cannot be read does not tell."""
    return f"put your newest backup in the place of {path}, and keep the damaged files until it is opened"


def _now() -> datetime:
    from hitl_nb.queue.duckdb import utc_now

    return utc_now()
