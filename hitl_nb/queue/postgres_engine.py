"""One PostgreSQL connection as operations see it: named statements, rows, Arrow tables; and a unit of work on it."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import cache
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pyarrow as pa

from hitl_nb.queue.backlog import Backlog
from hitl_nb.queue.hand import MOST_OF_ONE
from hitl_nb.queue.row import EventRow, TaskRow, dump_list, task_row
from hitl_nb.queue.store import AlreadyDone, Transaction, settle, statements
from hitl_nb.task import Reviewer

#: tries of a unit of work that others got in the way of, and of a claim without SKIP LOCKED
TRIES = 20
#: rows up to which parameters are sent one by one; more go through a table of their own
FEW = 500
#: rows up to which those of one table are stored together with those of others
AT_ONCE = 8
#: tasks of one frame from which the planner must count anew, before the server does so by itself
MANY = 5_000
#: how a table begins that rows of a batch wait in
STAGING = "hitl_staging_"
#: Arrow types as columns
_TYPES = ((pa.types.is_boolean, "boolean"), (pa.types.is_integer, "bigint"), (pa.types.is_floating, "double precision"),
          (pa.types.is_timestamp, "timestamp"))  # fmt: skip
_WIDE = ((pa.types.is_dictionary, pa.string()), (pa.types.is_integer, pa.int64()), (pa.types.is_floating, pa.float64()),
         (pa.types.is_timestamp, pa.timestamp("us")), (pa.types.is_null, pa.string()))  # fmt: skip
#: columns as Arrow types, by the number of the type
_ARROW = {16: pa.bool_(), 20: pa.int64(), 21: pa.int16(), 23: pa.int32(), 701: pa.float64(), 1114: pa.timestamp("us")}
#: rows that a unit of work locks before it changes them, and those of which it leaves alone what others hold
LOCKED = frozenset({"get_task", "get_tasks"})
PASSING = frozenset({"leases_out", "deadlines_due", "claimable", "claim_first"})
#: what a unit of work knows from when it has begun
_TOLD = ("engine", "now", "seq", "_numbers", "_began")
_COLUMNS = """SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %s"""
#: columns of ids
_IDS = frozenset({"task_id", "task_ids", "whole", "after", "until"})


@cache
def dialect(statement: str, lock: str = "") -> str:
    """Return a named statement as PostgreSQL takes it, with the rows that it finds locked."""
    if statement == "claim_first":
        as_seen = "(SELECT seq FROM task WHERE task.task_id = found.task_id) = found.seq"  # not changed before the lock
        texts = f"CASE WHEN {as_seen} THEN ARRAY({dialect('found_texts')}) END"
        found = f"FROM begun LEFT JOIN ({dialect('claimable', lock)}) AS found ON true"
        return dialect("begin").replace("FROM begun", f", {texts}, found.* {found}")
    text = (statements() | statements("postgres.sql"))[statement].replace("%", "%%")
    text = re.sub(r"(?<![:\w]):([a-z]\w*)", r"%(\1)s", text)
    if statement.startswith("create_"):
        text = re.sub(r"\bDOUBLE\b(?! PRECISION)", "DOUBLE PRECISION", text).replace("TINYINT", "SMALLINT")
    if lock and statement == "claimable":
        return text.replace("LIMIT %(n)s", f"LIMIT %(n)s {lock}")
    return f"{text} {lock}"


class PostgresEngine:
    """One connection in one transaction.

    Parameters
    ----------
    connection
        A psycopg connection.
    writes
        Whether rows are locked before they are changed.
    skips
        Whether rows that others hold can be passed over.
    ingest
        Appends an Arrow table to a table, as a transaction of its own.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], writes: bool, skips: bool, ingest: Callable[[str, pa.Table], None]
    ) -> None:
        self.connection, self._ingest, self.skips = connection, ingest, skips
        #: how tables begin that rows of a batch came in; they go when the transaction has ended
        self.staged: list[str] = []
        self._begins: str | None = None
        self._tables = count()
        self._aside: ThreadPoolExecutor | None = None
        self._inserting: Future[None] | None = None
        self._waiting: list[tuple[str, Sequence[Any]]] = []
        self._locks = dict.fromkeys(LOCKED, "FOR UPDATE") if writes else {}
        if writes:
            self._locks |= dict.fromkeys(PASSING, "FOR UPDATE SKIP LOCKED" if skips else "FOR UPDATE")
            if not skips:
                self._locks["claimable"] = self._locks["claim_first"] = ""  # locked and looked at again after

    def close(self) -> None:
        """Leave the connection with nothing under way."""
        if self._aside is not None:
            self._aside.shutdown()

    def wait(self) -> None:
        """Wait for the table that is being inserted meanwhile."""
        inserting, self._inserting = self._inserting, None
        if inserting is not None:
            inserting.result()

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement and return its rows."""
        if statement == "known_keys":
            self.rows("lock_keys", **values)
        elif statement == "clear_tasks":
            self.rows("lock_tasks")
        elif statement == "events_since":
            values["settled"] = self._settled()
        found = self.run(statement, values)
        return found.fetchall() if dialect(statement).startswith(("SELECT", "WITH")) else []

    def _settled(self) -> int:
        """Return up to which number the log is complete for whoever reads it next.

        Numbers are taken before a commit, and commits have another order. Who takes one holds a lock since before
        that; so numbers up to the last one, as it was before one looks at the locks, belong to those who have ended,
        or come after a lock. What has ended by then is in a snapshot that begins only now.
        """
        [(last,)] = self.rows("last_number")
        [(unfinished,)] = self.rows("unfinished", last=last)
        if not self._locks:
            self.connection.commit()  # a rollback would have the server plan everything anew
        return int(last) - int(unfinished)

    def run(self, statement: str, values: dict[str, Any]) -> psycopg.Cursor[Any]:
        """Run a named statement, in words for which the server makes one plan for all times."""
        self.wait()
        text = dialect(statement, self._locks.get(statement, ""))
        given = {name: _bound(name, value) for name, value in values.items()}
        if "VALUES %(expertises)s" in text:
            given |= {f"one{i}": name for i, name in enumerate(given.pop("expertises"))}
            named = ", ".join(f"(CAST(%({name})s AS text))" for name in given if name.startswith("one"))
            text = text.replace("%(expertises)s", named)
        for name, value in given.items():
            if isinstance(value, list) and len(value) == 1 and f"ANY(%({name})s)" in text:
                text, given[name] = text.replace(f"ANY(%({name})s)", f"%({name})s"), value[0]
        return self.connection.execute(text, given or None)

    def wait_for_others(self) -> None:
        """Pass over no task any more that others hold."""
        self._locks["claimable"] = "FOR UPDATE"

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Append rows; a few wait for ``send``."""
        if len(rows) > FEW:
            self.put_arrow(table, pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))))
            return
        names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
        self._do(f"INSERT INTO {table} ({names}) VALUES ({places})", rows)

    def update(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of the task table by id; one waits for ``send``."""
        sets = ", ".join(f"{name} = %s" for name in columns[1:])
        self._do(f"UPDATE task SET {sets} WHERE task_id = %s", [(*values, task_id) for task_id, *values in rows])

    def _do(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) <= AT_ONCE:
            self._waiting += [(statement, row) for row in rows]
            return
        self.wait()
        with self.connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def send(self) -> None:
        """Store what waits, in one statement."""
        self.wait()
        if self._waiting:
            *others, last = (statement for statement, _ in self._waiting)
            text = ", ".join(f"w{i} AS ({statement})" for i, statement in enumerate(others))
            values = [value for _, row in self._waiting for value in row]
            self._waiting = []
            self.connection.execute(f"WITH {text} {last}" if text else last, values)

    def put_arrow(self, table: str, data: pa.Table) -> None:
        """Append an Arrow table: as texts and numbers to a table of its own, and typed from there.

        The latter goes on while the caller makes the next one.
        """
        staged = self._staged(data)
        self.wait()
        self._aside = self._aside or ThreadPoolExecutor(1, "hitl_nb-inserts")
        self._inserting = self._aside.submit(self._insert, table, data.column_names, staged)

    def _insert(self, table: str, columns: Sequence[str], staged: str) -> None:
        types = dict(self.connection.execute(_COLUMNS, [table]).fetchall())
        chosen = ", ".join(f"{name}::{types[name]}" for name in columns)
        self.connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {staged}")

    def _staged(self, data: pa.Table) -> str:
        """Bring a table to the server, and return its name there."""
        if self._begins is None:
            self._begins = f"{STAGING}{uuid4().hex}"
            self.rows("stage", name=self._begins)
            self.staged.append(self._begins)
        staged = f"{self._begins}_{next(self._tables)}"
        self._ingest(staged, data)
        return staged

    def arrow(self, statement: str, given: pa.Table | None = None, **values: Any) -> pa.Table:
        """Run a named statement and return an Arrow table; it finds rows of the caller's as the table ``given``."""
        if statement == "rows_of_keys":
            self.rows("lock_all_keys")
        if given is not None:
            self._give(given)
        found = self.run(statement, values)
        rows = found.fetchall()
        about = found.description or []
        columns = list(zip(*rows, strict=True)) or [()] * len(about)
        arrays = [_array(one.type_code, column) for one, column in zip(about, columns, strict=True)]
        if given is not None:
            self.connection.execute("DROP TABLE given")
        return pa.table(
            arrays, names=[f"{one.name}{i}" if one.name == "?column?" else one.name for i, one in enumerate(about)]
        )

    def _give(self, given: pa.Table) -> None:
        staged = self._staged(given)
        self.connection.execute(f"CREATE TEMP TABLE given ON COMMIT DROP AS SELECT * FROM {staged}")


def column_type(kind: pa.DataType) -> str:
    """Return the type of a column that takes an Arrow type."""
    return next((name for fits, name in _TYPES if fits(kind)), "text")


def plain_table(data: pa.Table) -> pa.Table:
    """Return a table in the types that travel: no dictionaries, and numbers as wide as their columns."""
    wide = [next((kind for fits, kind in _WIDE if fits(column.type)), column.type) for column in data.columns]
    return pa.table([c.cast(kind) for c, kind in zip(data.columns, wide, strict=True)], names=data.column_names)


def _array(code: int, column: Sequence[Any]) -> pa.Array:
    if code in _ARROW:
        return pa.array(column, _ARROW[code])
    return pa.array([None if value is None else str(value) for value in column], pa.string())


def _bound(name: str, value: Any) -> Any:
    if name in _IDS and isinstance(value, str):
        return UUID(value)
    if name in _IDS and isinstance(value, list):
        return [UUID(str(one)) for one in value]
    return value


class PostgresTransaction(Transaction):
    """A unit of work among those of other processes: it locks the rows that it changes."""

    engine: PostgresEngine
    _numbers: deque[int]
    _began: float

    def __init__(
        self, engine: PostgresEngine, time: Callable[[datetime], datetime], backlog: Backlog, idle: str | None = None
    ) -> None:
        super().__init__(engine, datetime.min, 0, backlog)
        self._unasked, self._time, self._idle = engine, time, idle
        #: number of the server's transaction
        self.xid = ""
        for name in _TOLD:
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        """Begin, when something is first asked for that the server tells then."""
        if name not in _TOLD:
            raise AttributeError(name)
        if self._idle is None:
            self._told([("", *self._unasked.rows("now")[0])])
        else:
            self._told(self._unasked.rows("begin", idle=self._idle))
        return self.__dict__[name]

    def _told(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take note of number and time of the transaction, and of numbers of the log: one stands in each line."""
        self.engine, self.xid, self.now = self._unasked, rows[0][0], self._time(rows[0][1])
        self._numbers = deque(number for _, _, *numbers in rows for number in numbers[:1])
        self.seq = self._numbers[0] - 1 if self._numbers else 0
        self._began = self.seq if self._numbers else math.inf

    def tasks(self, statement: str, **values: Any) -> list[TaskRow]:
        """Run a statement that selects tasks; where it had to wait for another unit of work, it is later now."""
        found = super().tasks(statement, **values)
        if any(row.seq > self._began and row.task_id not in self.changed for row in found):
            [(now,)] = self.engine.rows("now")
            self.now = max(self.now, self._time(now))
            self._numbers.clear()  # what is later has a later number
        return found

    def coming(self, row: TaskRow | None = None) -> int:
        """Return the number of the next event; those taken before another unit of work let go of the row are void."""
        while row is not None and self._numbers and self._numbers[0] <= row.seq:
            self._numbers.popleft()
        if not self._numbers:
            self._numbers.extend(number for (number,) in self.engine.rows("numbers", n=1))
        return self._numbers[0]

    def take(self, n: int) -> Sequence[int]:
        """Reserve ``n`` numbers of the log, in order; others may have some in between."""
        if n > len(self._numbers):
            more = self.engine.rows("numbers", n=n - len(self._numbers))
            self._numbers.extend(number for (number,) in more)
        taken = [self._numbers.popleft() for _ in range(n)]
        self.seq = taken[-1] if taken else self.seq
        return taken

    def best(self, reviewer: Reviewer, expertise: Sequence[str], n: int) -> list[TaskRow] | None:
        """Return the ``n`` tasks that a reviewer gets next, locked; those that they skipped come last."""
        found = self._best(reviewer, expertise, n)
        if found or not self.engine.skips:
            return found
        self.engine.wait_for_others()  # who holds the last ones may let go of them
        return self._best(reviewer, expertise, n)

    def _best(self, reviewer: Reviewer, expertise: Sequence[str], n: int) -> list[TaskRow]:
        me = dump_list(reviewer.id)
        words = {"answered": f", {me}]", "me": me, "adjudicates": reviewer.adjudicates}
        words["expertises"] = ["", *sorted(expertise)]
        for _ in range(TRIES):
            fresh = self._first(n, passed=False, **words)
            found = fresh + ([] if len(fresh) == n else self._skipped(fresh, n, words))
            kept = found if self.engine.skips else [row for row in found if self.task(row.task_id) == row]  # locked now
            if len(kept) == len(found):
                return kept
        if kept:
            return kept
        raise psycopg.errors.SerializationFailure("others were faster each time")

    def _skipped(self, fresh: list[TaskRow], n: int, words: dict[str, Any]) -> list[TaskRow]:
        known = {row.task_id for row in fresh}
        found = [row for row in self._first(n, passed=True, **words) if row.task_id not in known]
        return found[: n - len(fresh)]

    def _first(self, n: int, **words: Any) -> list[TaskRow]:
        if "engine" not in self.__dict__:  # it begins with this
            rows = self._unasked.rows("claim_first", idle=self._idle, **words, n=n, most=MOST_OF_ONE)
            self._told(rows)
            for _, _, _, came, task_id, *_ in rows:
                texts = tuple((int(version), kind, body) for version, kind, body in came or ())
                if texts and all(body is not None for _, _, body in texts):
                    self.hand.keep(str(task_id), None, texts)
            return sorted((task_row(row[4:]) for row in rows if row[4] is not None), key=_urgency)[:n]
        return sorted(self.tasks("claimable", **words, n=n), key=_urgency)[:n]

    def ahead(self, expertise: Sequence[str]) -> list[str]:
        """Return none: payloads are read one by one."""
        return []

    def known(self, submit_id: str) -> list[EventRow]:
        """Return the event that a client gave an id, if there is one; nobody else uses that id meanwhile."""
        self.engine.rows("lock_submit", submit_id=submit_id)
        return self.events("event_by_submit", submit_id=submit_id)

    def log_under(self, request: str) -> Transaction:
        """Log what follows under the id of a client's request, unless another process has done that."""
        super().log_under(request)
        self.engine.rows("lock_submit", submit_id=request)
        done = [event for event in self.events("events_of_request", request=request) if event.move != "policy"]
        if done:
            raise AlreadyDone(done)
        return self

    def flush(self) -> None:
        """Write payloads, events and rows."""
        super().flush()
        settle(self.engine, self.changed.values())
        self.engine.send()
        if sum(self.arrived.values()) >= MANY:  # or claims would be planned for the table as it was
            self.engine.rows("count_anew")


def _urgency(row: TaskRow) -> tuple[int, datetime, str]:
    return -row.priority, row.deadline or datetime.max, row.task_id
