"""DuckDB store: one file, one owner process, one writer's thread that commits in groups."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from hitl_nb.errors import BadInput, HitlError, QueueClosed, StorageFailed
from hitl_nb.queue.backlog import RECENT, Backlog
from hitl_nb.queue.change import copied
from hitl_nb.queue.engine import DuckDBEngine
from hitl_nb.queue.file import copy, told
from hitl_nb.queue.hand import AtHand
from hitl_nb.queue.hold import Hold
from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.store import Behind, Transaction, settle
from hitl_nb.queue.upkeep import catch_up
from hitl_nb.queue.writer import Job, Writer

T = TypeVar("T")

#: how long closing waits for those who read, and then for those whom it interrupts, in seconds
PATIENCE = 3.0
#: rows that the task table may be behind the log before it has to follow
MOST_BEHIND = 1000

_log = logging.getLogger("hitl_nb")


def utc_now() -> datetime:
    """Return the time, naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


class DuckDBStore:
    """A queue in a DuckDB file, or in memory.

    All but reading happens on one thread, which no signal reaches; units of work that wait for it share a commit.

    Parameters
    ----------
    path
        File, or ``:memory:``.
    clock
        Returns the time, naive UTC.
    """

    shared = False

    def __init__(self, path: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.name = path
        self._clock = clock
        self._lock = threading.Lock()
        self._watchers: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._closed: str | None = None
        self._readers: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._seq, self._last, self._since = 0, datetime.min, 0.0
        #: rows that the task table does not show yet: what it shows, and what it should
        self._behind: dict[str, tuple[TaskRow | None, TaskRow]] = {}
        self._process = os.getpid()
        self._hold = Hold(path)
        weakref.finalize(self, self._hold.close).atexit = False  # at exit the queue is closed first
        try:
            self._open()
        except BaseException:
            self._hold.close()
            raise
        self._writer = Writer(self, self._serve)

    @property
    def now(self) -> datetime:
        """The time, naive UTC; where the system's clock was set back, time goes on from the last event."""
        now = self._clock()
        if now < self._last and self._clock is utc_now:  # or leases would stand still until it is as late again
            return self._last + timedelta(seconds=time.monotonic() - self._since)
        return max(now, self._last)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or stopped after an error of the engine."""
        return self._closed is not None

    @property
    def backlog(self) -> Backlog:
        """What waits and how fast it is answered."""
        self._check_open()
        return self._backlog

    @property
    def next_due(self) -> datetime | None:
        """No lease or deadline acts before this time, naive UTC; None: none is set."""
        return self.backlog.next_due

    # -- called from any thread

    def write(self, work: Callable[[Transaction], T], *, search: bool = False) -> T:
        """Run a unit of work and store it whole or not at all; with ``search`` it is alone, and the table settled."""
        self._check_open()
        if search:
            return self._writer.call(lambda job: self._commit_alone(work, job))
        return self._writer.call(work, shared=True)

    def read(self, work: Callable[[Transaction], T], *, search: bool = True) -> T:
        """Run a unit of work on a snapshot; it holds nobody up."""
        transaction, cursor = self._alone(self._snapshot, search)
        try:
            with _told(self.name):
                return work(transaction)
        except StorageFailed:
            self._check_open()  # closed meanwhile
            raise
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # the engine's only word for a signal
                self._check_open()
                raise KeyboardInterrupt from error
            raise
        finally:
            cursor.close()
            with self._lock:
                self._readers.discard(cursor)

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after each change of a task, on the writer's thread; returns what ends it."""
        with self._lock:
            self._watchers[task_id].append(wake)

        def end() -> None:
            with self._lock:
                self._watchers[task_id].remove(wake)
                if not self._watchers[task_id]:
                    del self._watchers[task_id]

        return end

    def backup(self, path: str) -> None:
        """Copy the whole file to a new one while it is open."""
        if "\0" in path or Path(path).exists() or not Path(path).parent.is_dir():
            raise BadInput(name="path", value=path, remedy="pass the path of a new file in a folder that exists")
        self.write(lambda tx: copied(tx, "backup", path))
        try:
            self._alone(self._copy, path)
        except StorageFailed:
            Path(path).unlink(missing_ok=True)
            raise

    def snapshot(self, folder: str) -> None:
        """Write the three tables to a folder as Parquet files."""
        target = Path(folder)
        if "\0" in folder or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise BadInput(name="folder", value=folder, remedy="pass a new or empty folder")
        self.write(lambda tx: copied(tx, "snapshot", folder))
        target.mkdir(parents=True, exist_ok=True)
        self._alone(self._copy_tables, target)

    def checkpoint(self) -> None:
        """Write the log of the engine into the file."""
        self._alone(self._checkpoint)

    def look_ahead(self) -> None:
        """Find out when the next lease or deadline is due."""
        self._alone(self._look_ahead)

    def recount(self) -> None:
        """Count the backlog anew after the task table was rewritten."""
        self._alone(self._count)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._process == os.getpid():
            with suppress(QueueClosed):
                self._alone(self._close)

    def _alone(self, what: Callable[..., T], *given: Any) -> T:
        """Call a method on the writer's thread, between two commits."""
        self._check_open()
        return self._writer.call(lambda job: what(*given, job=job))

    def _check_open(self) -> None:
        if self._process != os.getpid():
            raise QueueClosed(path=self.name, reason=f"process {self._process} has it open, and this is a fork of it")
        if self._closed is not None:
            raise QueueClosed(path=self.name, reason=self._closed)

    # -- called on the writer's thread

    def _serve(self, jobs: list[Job]) -> None:
        self._check_open()
        if jobs[0].shared:
            if len(self._behind) >= MOST_BEHIND:
                self._settle()
            self._commit([(job, job.work) for job in jobs], self._behind)
            return
        try:
            jobs[0].end(jobs[0].work(jobs[0]))
        except duckdb.Error as error:
            if isinstance(error, duckdb.FatalException):  # the engine does nothing more before it is opened anew
                self._recover(error)
            raise told(self.name, error) from error

    def _commit_alone(self, work: Callable[[Transaction], T], job: Job) -> T:
        self._settle()
        self._commit([(job, work)], None)
        found: T = job.result()
        return found

    def _commit(self, units: list[tuple[Job, Callable[[Transaction], Any]]], behind: Behind | None) -> None:
        """Run units of work in one transaction of the engine; one that is refused leaves no trace in it."""
        engine = self._engine
        done: list[tuple[Job, Any, Transaction]] = []
        refused: list[tuple[Job, BaseException]] = []
        before, failed = self._seq, None
        try:
            for job, work in units:
                transaction = Transaction(engine, self.now, self._seq, self._backlog, behind, job.check, self._hand)
                try:
                    result = work(transaction)
                    transaction.flush()
                except duckdb.Error:
                    raise
                except BaseException as error:
                    refused.append((job, error))  # told after the commit: what it came too late for may yet fail
                else:
                    self._follow(transaction)
                    done.append((job, result, transaction))
            if done:
                engine.commit()
            else:
                engine.rollback()
        except Exception as error:
            failed = error
            if not self._recover(error) or self._seq == before:
                done, refused = [], []
        if done:
            self._hold.acknowledge(self._seq)
        for job, reason in refused:
            job.end(error=reason)
        for job, result, _ in done:
            job.end(result)
        self._wake([task_id for *_, transaction in done for task_id in transaction.changed])
        if failed:
            raise told(self.name, failed) from failed

    def _follow(self, transaction: Transaction) -> None:
        """Take what a unit of work did into memory; should its commit fail, everything is loaded anew."""
        self._since = time.monotonic()  # before the time that it belongs to: others read them
        self._seq, self._last = transaction.seq, max(self._last, transaction.now)
        transaction.follow()
        for task_id, (before, after) in transaction.changed.items():
            self._backlog.moved(before, after, transaction.now)
            shown = self._behind[task_id][0] if task_id in self._behind else before
            self._behind[task_id] = (shown, after)
        for (expertise, priority, due), count in transaction.arrived.items():
            self._backlog.arrived(expertise, priority, due, count, transaction.now)

    def _wake(self, changed: list[str]) -> None:
        with self._lock:
            calls = [wake for task_id in changed for wake in self._watchers.get(task_id, ())]
        for wake in calls:
            try:
                wake()
            except Exception:
                _log.exception("a callback of queue.watch failed")

    def _settle(self) -> None:
        """Write the rows that the task table does not show yet; they follow from the log, so nothing new is stored."""
        if not self._behind:
            return
        try:
            settle(self._engine, self._behind.values())
            self._engine.commit()
        except duckdb.Error as error:
            self._recover(error)
            raise told(self.name, error) from error
        self._behind = {}

    def _recover(self, error: Exception) -> bool:
        """Load everything anew after an error of the engine; returns whether the log holds what memory held."""
        held = self._seq
        try:
            if self.name != ":memory:":
                self._connection.close()
                self._open()
            elif isinstance(error, duckdb.FatalException):
                raise error
            else:
                with suppress(duckdb.TransactionException):  # the engine may have rolled back by itself
                    self._engine.rollback()
                self._load()
        except (duckdb.Error, HitlError) as fatal:
            self._closed = f"it stopped after an error of the engine: {str(fatal).splitlines()[0]}"
            self._hold.close()
        return self._closed is None and self._seq == held

    def _open(self) -> None:
        self._connection = self._hold.open()
        with _told(self.name):
            self._load()
            self._hold.trust(self._seq)

    def _load(self) -> None:
        self._engine = engine = DuckDBEngine(self._connection)
        self._seq, last = engine.rows("last_seq")[0]
        self._since, self._last = time.monotonic(), last or datetime.min
        self._behind = catch_up(engine)
        self._count()

    def _count(self, job: Job | None = None) -> None:
        engine, self._hand = self._engine, AtHand()
        reviews, arrivals = (engine.rows(f"recent_{what}", n=RECENT) for what in ("reviews", "arrivals"))
        self._backlog = Backlog(engine.rows("backlog"), reviews, arrivals, engine.rows("next_due")[0][0])
        for before, after in self._behind.values():
            self._backlog.moved(before, after, self._last)

    def _snapshot(self, search: bool, job: Job) -> tuple[Transaction, duckdb.DuckDBPyConnection]:
        if search:
            self._settle()
        cursor = self._connection.cursor()
        with self._lock:
            self._readers.add(cursor)
        engine = DuckDBEngine(cursor)
        cursor.execute("BEGIN")
        engine.rows("get_meta")  # the snapshot begins with the first query, not with BEGIN
        behind = None if search else dict(self._behind)
        return Transaction(engine, self.now, self._seq, self._backlog, behind), cursor

    def _look_ahead(self, job: Job) -> None:
        self._settle()
        self._backlog.next_due = self._engine.rows("next_due")[0][0]

    def _checkpoint(self, job: Job) -> None:
        try:
            self._connection.execute("CHECKPOINT")
        except duckdb.TransactionException:
            pass  # somebody reads; the engine does it later
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            _log.warning("traces of what was erased stay in %s until it can be written: %s", self.name, reason)
            self._recover(error)

    def _copy(self, target: str, job: Job) -> None:
        self._settle()
        copy(self._connection, target)

    def _copy_tables(self, target: Path, job: Job) -> None:
        self._settle()
        for table in ("payload", "event", "task"):
            path = str(target / f"{table}.parquet").replace("'", "''")
            self._connection.execute(f"COPY (SELECT * FROM {table}) TO '{path}' (FORMAT parquet)")

    def _close(self, job: Job) -> None:
        with suppress(HitlError):  # the log has it all; the next owner catches up
            self._settle()
        self._closed = self._closed or "it was closed"
        until = time.monotonic() + PATIENCE
        try:
            while self._readers and time.monotonic() < until + PATIENCE:  # at exit nobody may be left in the engine
                if time.monotonic() > until:
                    self._interrupt_readers()
                time.sleep(0.01)
        finally:
            self._hold.close()

    def _interrupt_readers(self) -> None:
        with self._lock:
            readers = list(self._readers)
        for cursor in readers:
            with suppress(duckdb.Error):  # it has ended just now
                cursor.interrupt()


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn an error of the engine into one of ours."""
    try:
        yield
    except duckdb.Error as error:
        raise told(path, error) from error
