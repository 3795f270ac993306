"""PostgreSQL store: many processes write at once; the database keeps what they must agree on."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pyarrow as pa
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool, PoolTimeout

from hitl_nb.errors import BadInput, OutcomeUnknown, QueueClosed, StorageFailed
from hitl_nb.queue.backlog import RECENT, Backlog
from hitl_nb.queue.change import copied
from hitl_nb.queue.postgres_engine import TRIES, PostgresEngine, PostgresTransaction, column_type, dialect, plain_table
from hitl_nb.queue.postgres_schema import connectable, is_direct, make, shown, sweep
from hitl_nb.queue.postgres_watch import Watch
from hitl_nb.queue.store import AlreadyDone, Transaction
from hitl_nb.task import OPEN, Status

T = TypeVar("T")

#: what others do to a unit of work that is then done again
_IN_THE_WAY = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
#: limits of the server's own, which are there at the next try, too
_LIMITS = (
    psycopg.errors.QueryCanceled, psycopg.errors.DiskFull, psycopg.errors.OutOfMemory,
    psycopg.errors.ConfigurationLimitExceeded,
)  # fmt: skip

#: connections of one process for units of work; one more listens, one more brings frames: 8 in all
MOST = 6
#: how long a call tries to reach a server that is gone, in seconds
PATIENCE = 30.0
#: how long the server waits for the next word of who is in a unit of work; others may wait for what it holds
IDLE = "300s"
#: how long what waits is held for true, in seconds
FRESH = 1.0
#: counting what waits takes no more than one part in so many of the time
SHARE = 50
#: how long the server's time is told from what it said last, in seconds
MINUTE = 60.0


class PostgresStore:
    """A queue in a PostgreSQL database, in the schema that its connections find first.

    Parameters
    ----------
    url
        ``postgresql://user@host/database``.
    clock
        Returns the time, naive UTC; None: the server's.
    skips
        Whether the server knows SKIP LOCKED.
    notifies
        Whether it knows NOTIFY; without it changes of other processes are seen within a second.
    """

    shared = True

    def __init__(
        self, url: str, clock: Callable[[], datetime] | None = None, skips: bool = True, notifies: bool = True
    ) -> None:
        self.name, self._url = shown(url), connectable(url)
        self._clock, self._skips = clock, skips
        self._process, self._closed = os.getpid(), False
        self._ingesting, self._counting = threading.Lock(), threading.Lock()
        self._known: tuple[float, Backlog] | None = None
        self._due: tuple[float, datetime | None] | None = None
        self._last = datetime.min
        self._heard = datetime.min, -math.inf
        self._pool = ConnectionPool(
            self._url, min_size=0, max_size=MOST, open=False, timeout=PATIENCE, configure=self._configure
        )
        try:
            with _told(), psycopg.connect(self._url) as connection:
                self._direct = is_direct(connection)
                make(connection, self.name)
                [(channel,)] = connection.execute("SELECT 'hitl_nb_' || md5(current_schema())").fetchall()
            self._watch = Watch(self._url, channel if notifies else None, self._with)
            self._pool.open()
        except BaseException as error:
            self._pool.close()
            if isinstance(error, psycopg.OperationalError):
                remedy = "see whether the server runs and lets this user in"
                raise StorageFailed(reason=f"{self.name} cannot be opened ({_first(error)}); {remedy}") from None
            raise

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        connection.adapters.register_loader("uuid", TextLoader)  # as everybody takes them
        if not self._direct:
            connection.prepare_threshold = None

    @property
    def now(self) -> datetime:
        """The time, naive UTC: the server's, unless a clock was given."""
        known, moment = self._heard
        if self._clock is not None:
            return self._time(self._last)
        if time.monotonic() - moment > MINUTE:
            known = self._with(lambda c: c.execute(dialect("now")).fetchall()[0][0], reads=True)
            self._heard, moment = (known, time.monotonic()), time.monotonic()
        return self._time(known + timedelta(seconds=time.monotonic() - moment))

    def _time(self, server: datetime) -> datetime:
        """Return the time, never before that of the last event that this process stored."""
        return max(server if self._clock is None else self._clock(), self._last)

    def _hear(self, server: datetime) -> datetime:
        self._heard = server, time.monotonic()
        return self._time(server)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def backlog(self) -> Backlog:
        """What waits and how fast it is answered, as of a moment ago."""
        self._check_open()
        known = self._known
        stale = known is None or self._clock is not None or time.monotonic() > known[0]
        if stale and self._counting.acquire(blocking=known is None or self._clock is not None):
            try:  # the others take what was counted last meanwhile
                begun = time.monotonic()
                found = self._with(self._count, reads=True)
                ended = time.monotonic()
                known = self._known = ended + max(FRESH, SHARE * (ended - begun)), found
            finally:
                self._counting.release()
        return known[1] if known else Backlog()

    def _count(self, connection: psycopg.Connection[Any]) -> Backlog:
        engine = self._engine(connection, False)
        reviews, arrivals = (engine.rows(f"recent_{what}", n=RECENT) for what in ("reviews", "arrivals"))
        return Backlog(engine.rows("backlog"), reviews, arrivals)

    @property
    def next_due(self) -> datetime | None:
        """No lease or deadline acts before this time, as far as is known; None: none is set."""
        due, begun = self._due, time.monotonic()
        if due is None or begun - due[0] > FRESH:
            due = begun, self._with(lambda c: c.execute(dialect("next_due")).fetchall()[0][0], reads=True)
            self._due = due
        return due[1]

    # -- units of work

    def write(self, work: Callable[[Transaction], T], *, search: bool = False) -> T:
        """Run a unit of work and store it whole or not at all.

        It is done again if another one got in its way or the connection broke before it was stored. Where the
        connection breaks in the middle of the commit, the server is asked what became of it.
        """
        staged: list[str] = []
        try:
            for _ in range(TRIES):
                try:
                    done: tuple[T, PostgresTransaction] = self._with(lambda c: self._stored(c, work, staged))
                except _IN_THE_WAY:
                    continue
                self._follow(done[1])
                return done[0]
        finally:
            if staged:  # and what killed processes left
                with suppress(Exception), self._connection(False) as connection:
                    sweep(connection)
        raise StorageFailed(reason=f"others got in the way {TRIES} times; try again")

    def _stored(
        self, connection: psycopg.Connection[Any], work: Callable[[Transaction], T], staged: list[str]
    ) -> tuple[T, Any]:
        with closing(self._engine(connection, True)) as engine:
            engine.staged = staged
            tx = PostgresTransaction(engine, self._hear, self._lazy(), IDLE)
            result = work(tx)
            tx.flush()
        try:
            connection.commit()
        except psycopg.OperationalError:
            if self._fate(tx.xid) != "committed":
                raise
        return result, tx

    def _fate(self, xid: str) -> str:
        """Return what became of a transaction whose commit broke off."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with psycopg.connect(self._url, connect_timeout=5) as connection:
                    [(fate,)] = connection.execute(dialect("fate"), {"xid": xid}).fetchall()
                    if fate in ("committed", "aborted"):
                        return str(fate)
                    found = f"it is {fate or 'too old'}"
            except psycopg.Error as error:
                found = _first(error)
            if time.monotonic() > until:
                raise OutcomeUnknown(reason=found)
            time.sleep(0.2)

    def read(self, work: Callable[[Transaction], T], *, search: bool = True) -> T:
        """Run a unit of work on a snapshot; it holds nobody up."""
        hear, known = self._hear, self._lazy()
        return self._with(lambda c: work(PostgresTransaction(self._engine(c, False), hear, known)), reads=True)

    def _lazy(self) -> Backlog:
        return self._known[1] if self._known else Backlog()

    def _engine(self, connection: psycopg.Connection[Any], writes: bool) -> PostgresEngine:
        return PostgresEngine(connection, writes, self._skips, self._ingest)

    def _with(self, what: Callable[[psycopg.Connection[Any]], T], reads: bool = False) -> T:
        """Do something in a transaction; while the server is gone, try again for a while."""
        until, rest = time.monotonic() + PATIENCE, 0.05
        while True:
            self._check_open()
            try:
                with _told(), self._connection(reads) as connection:
                    return what(connection)
            except (psycopg.OperationalError, PoolTimeout) as error:
                if isinstance(error, _IN_THE_WAY):
                    raise
                if isinstance(error, _LIMITS):
                    raise StorageFailed(reason=_first(error)) from error
                if time.monotonic() > until:
                    full = self._pool.get_stats().get("pool_size") == MOST and isinstance(error, PoolTimeout)
                    why = f"all {MOST} connections of this process are in use" if full else _first(error)
                    reason = f"{self.name} does not answer ({why}); see whether the server runs, then try again"
                    raise StorageFailed(reason=reason) from error
                time.sleep(rest)
                rest = min(2 * rest, 1.0)

    @contextmanager
    def _connection(self, reads: bool) -> Iterator[psycopg.Connection[Any]]:
        with self._pool.connection() as connection:
            level = psycopg.IsolationLevel.REPEATABLE_READ if reads else psycopg.IsolationLevel.READ_COMMITTED
            if connection.isolation_level != level:
                connection.isolation_level, connection.read_only = level, reads
            yield connection

    def _follow(self, tx: PostgresTransaction) -> None:
        """Take note of what was stored, and let those know who wait for it."""
        self._last = max(self._last, tx.now)
        if self._due is not None:
            times = [
                t for _, row in tx.changed.values() if row.status in OPEN for t in (row.due_at, row.lease_until) if t
            ]
            times += [due for _, _, due in tx.arrived if due]
            times += [self._due[1]] if self._due[1] else []
            self._due = self._due[0], min(times, default=None)
        changed = {task_id: row for task_id, (before, row) in tx.changed.items() if before is not None}
        self._watch.wake(changed)
        answered = [task_id for task_id, row in changed.items() if row.status != Status.CLAIMED]
        self._watch.tell(answered)  # a claim answers nobody

    # -- waiting

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after each change of a task, by whatever process; returns what ends it."""
        return self._watch.watch(task_id, wake)

    # -- copies

    def _ingest(self, table: str, data: pa.Table) -> None:
        from adbc_driver_postgresql import dbapi

        plain = plain_table(data)
        columns = ", ".join(f"{f.name} {column_type(f.type)}" for f in plain.schema)
        try:
            with self._ingesting, dbapi.connect(self._url) as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE UNLOGGED TABLE {table} ({columns})")
                cursor.adbc_ingest(table, plain, mode="append")
                connection.commit()
        except dbapi.OperationalError as error:  # such as a server that went away
            raise psycopg.OperationalError(_first(error)) from error
        except dbapi.Error as error:
            raise StorageFailed(reason=_first(error)) from error

    def snapshot(self, folder: str) -> None:
        """Write the three tables to a folder as Parquet files."""
        import pyarrow.parquet as pq

        target = Path(folder)
        if "\0" in folder or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise BadInput(name="folder", value=folder, remedy="pass a new or empty folder")
        self.write(lambda tx: copied(tx, "snapshot", folder))
        target.mkdir(parents=True, exist_ok=True)
        tables = ("payload", "event", "task")
        found = self.read(lambda tx: {name: tx.engine.arrow(f"all_{name}") for name in tables})
        for name, rows in found.items():
            pq.write_table(rows, target / f"{name}.parquet")

    def backup(self, path: str) -> None:
        """Refuse: a server's own tools make copies of it."""
        self._check_open()
        remedy = "use pg_dump --format=custom on the server, or snapshot() for Parquet files"
        raise BadInput(name="path", value=path, remedy=remedy)

    def look_ahead(self) -> None:
        """Find out when the next lease or deadline is due."""
        self._due = None

    def recount(self) -> None:
        """Count what waits anew."""
        self._known = None

    def checkpoint(self) -> None:
        """Drop what killed processes left; what was erased leaves the server's files with its next VACUUM."""
        with suppress(StorageFailed):  # or the next one does it
            self._with(sweep)

    def close(self) -> None:
        """End the connections; safe to call twice."""
        if self._process != os.getpid() or self._closed:
            return
        self._closed = True
        self._pool.close(timeout=3)
        self._watch.close()

    def _check_open(self) -> None:
        if self._process != os.getpid():
            raise QueueClosed(path=self.name, reason=f"process {self._process} has it open, and this is a fork of it")
        if self._closed:
            raise QueueClosed(path=self.name, reason="it was closed")


@contextmanager
def _told() -> Iterator[None]:
    """Turn an error of the server into one of ours, unless trying again may help."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout):
        raise
    except psycopg.Error as error:
        if error.diag.constraint_name == "task_pkey":  # a frame that came with its ids before
            raise AlreadyDone([]) from error
        raise StorageFailed(reason=_first(error)) from error


def _first(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
