"""What an operation of the queue sees of a store: rows in, rows out, all or nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hitl_nb.errors import PayloadErased, TaskNotFound
from hitl_nb.payload import canonical, digest, dump, parse
from hitl_nb.queue.hand import AHEAD, MOST_OF_ONE, AtHand, Texts
from hitl_nb.queue.row import (
    COLUMNS,
    EVENT_COLUMNS,
    EventRow,
    TaskRow,
    aware,
    change,
    difference,
    event_row,
    event_values,
    task_row,
    values,
)
from hitl_nb.task import Move, Reviewer, Status

if TYPE_CHECKING:
    import pyarrow as pa

    from hitl_nb.queue.backlog import Backlog

T = TypeVar("T")

#: id of the client's request that is being done; what it changes is logged under it
REQUEST: ContextVar[str | None] = ContextVar("hitl_nb_request", default=None)
#: tasks whose row the table does not show yet: what it shows, and what it should show
Behind = Mapping[str, tuple[TaskRow | None, TaskRow]]
#: longest lists that one statement takes as a parameter
PAGE = 1000


@cache
def statements(source: str = "queries.sql") -> dict[str, str]:
    """Return the statements of an .sql file by name, parameters as ``:name``."""
    text = files("hitl_nb.queue").joinpath(source).read_text(encoding="utf-8")
    parts = re.split(r"^-- (\w+): .*$", text, flags=re.MULTILINE)[1:]
    return {name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)}


@cache
def reads(statement: str) -> frozenset[str]:
    """Return the tables that a named statement looks into."""
    return frozenset(re.findall(r"\b(?:FROM|JOIN) (payload|event|task|token)\b", statements()[statement]))


@cache
def changes(statement: str) -> bool:
    """Whether a named statement changes something."""
    return not statements()[statement].startswith(("SELECT", "WITH"))


@cache
def searching() -> frozenset[str]:
    """Return the statements that search the task table, beyond looking up one id."""
    return frozenset({name for name in statements() if "task" in reads(name)} - {"get_task"})


class AlreadyDone(Exception):
    """A client's request that another process has done meanwhile; nothing was done again."""

    def __init__(self, events: list[EventRow]) -> None:
        self.events = events


def logged_under(request: str | None, work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """Return a unit of work whose events carry the id of a client's request."""
    if request is None:
        return work
    return lambda tx: work(tx.log_under(request))


def settle(engine: Engine, rows: Iterable[tuple[TaskRow | None, TaskRow]]) -> None:
    """Let the task table follow the log: pairs of what it shows and what it should show."""
    pairs = list(rows)
    new = [after for before, after in pairs if before is None]
    if new:
        engine.put("task", COLUMNS, [values(row) for row in new])
    old = [(before, after) for before, after in pairs if before is not None]
    changed = {c for pair in old for c, b, a in zip(COLUMNS, *map(values, pair), strict=True) if b != a}
    columns = ["task_id", *(c for c in COLUMNS if c in changed)]
    if len(columns) > 1:
        engine.update(columns, [[getattr(after, c) for c in columns] for _, after in old])


class Engine(Protocol):
    """What differs between databases."""

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement and return its rows."""

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Append rows; they may wait until something else is asked."""

    def put_arrow(self, table: str, data: pa.Table) -> None:
        """Append an Arrow table whose columns have the table's names."""

    def update(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Set columns of the task table; the first one is ``task_id``."""

    def arrow(self, statement: str, given: pa.Table | None = None, **values: Any) -> pa.Table:
        """Run a named statement and return an Arrow table; it finds rows of the caller's as the table ``given``."""


class Transaction:
    """One unit of work: reads see its own writes; it is stored whole or not at all.

    Writes are collected and handed to the engine in one go before the commit, so that many operations can share one.
    Only payload and log are written at once; the task table follows later, and until then ``behind`` holds its rows.
    """

    def __init__(
        self,
        engine: Engine,
        now: datetime,
        seq: int,
        backlog: Backlog,
        behind: Behind | None = None,
        check: Callable[[], None] = lambda: None,
        hand: AtHand | None = None,
    ) -> None:
        self.engine = engine
        #: stops the work if nobody waits for it any more; long work calls it from time to time
        self.check = check
        #: id of the client's request, for events that bring none of their own
        self.request: str | None = None
        #: rows that the task table does not show yet; None: it is settled and may be searched
        self.behind = behind
        #: time of everything that happens in it, naive UTC, never before the last event
        self.now = now
        #: last number of the log
        self.seq = seq
        #: what need not be read, as it was before
        self.hand = hand or AtHand()
        #: what waits, as it was before
        self.backlog = backlog
        #: rows it changed: before and after
        self.changed: dict[str, tuple[TaskRow | None, TaskRow]] = {}
        #: open tasks that came in bulk, by expertise, priority and deadline
        self.arrived: dict[tuple[str | None, int, datetime | None], int] = defaultdict(int)
        self._events: list[EventRow] = []
        self._payloads: dict[str, Texts] = {}

    # -- reading

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a named statement; those that search the task table need a settled one."""
        if self.behind is not None and statement in searching():
            raise RuntimeError(f"{statement} searches the task table, which is not settled in this unit of work")
        return self.engine.rows(statement, **values)

    def tasks(self, statement: str, **values: Any) -> list[TaskRow]:
        """Run a statement that selects tasks; rows changed here come as they are now."""
        found = [task_row(row) for row in self.rows(statement, **values)]
        return [self.changed[row.task_id][1] if row.task_id in self.changed else row for row in found]

    def task(self, task_id: str) -> TaskRow:
        """Return a task.

        Raises
        ------
        TaskNotFound
            No task has this id.
        """
        near = self.near(task_id)
        if near is not None:
            return near
        found = self.tasks("get_task", task_id=task_id) if is_id(task_id) else []
        if not found:
            raise TaskNotFound(task_id=task_id)
        return found[0]

    def near(self, task_id: str) -> TaskRow | None:
        """Return a task if it is in memory."""
        if task_id in self.changed:
            return self.changed[task_id][1]
        if self.behind and task_id in self.behind:
            return self.behind[task_id][1]
        return self.hand.row(task_id)

    def payload(self, row: TaskRow) -> dict[str, Any]:
        """Return the payload of a task as it stands: input, prediction, score, reason, key, subject.

        Raises
        ------
        PayloadErased
            It was erased on request.
        """
        self.refuse_erased(row)
        return payloads(self.texts([row.task_id])[row.task_id], row)

    def refuse_erased(self, row: TaskRow) -> None:
        """Stop if the payload of a task was erased."""
        if row.erased_at is not None:
            raise PayloadErased(task_id=row.task_id, when=aware(row.erased_at))

    def texts(self, task_ids: Iterable[str], ahead: Callable[[], Iterable[str]] = lambda: ()) -> dict[str, Texts]:
        """Return the payload rows of tasks; what is not at hand is read at once, with that of the tasks ``ahead``."""
        found = {task_id: self.hand.texts(task_id) for task_id in task_ids}
        missing = [task_id for task_id, texts in found.items() if texts is None]
        if missing:
            further = [task_id for task_id in ahead() if self.hand.texts(task_id) is None]
            read = defaultdict(list)
            for task_id, *row in self._texts(missing, further if len(missing) < AHEAD else []):
                read[str(task_id)].append(tuple(row))
            for task_id, rows in read.items():
                if all(body is not None for _, _, body in rows):
                    self.hand.keep(task_id, self.hand.row(task_id), tuple(rows))
            found |= {task_id: tuple(read[task_id]) for task_id in missing}
        return {task_id: texts or () for task_id, texts in found.items()}

    def _texts(self, wanted: list[str], further: list[str]) -> list[tuple[Any, ...]]:
        if not further:
            return self.rows("get_payloads", task_ids=wanted)
        return self.rows("get_texts", task_ids=list({*wanted, *further}), whole=wanted, most=MOST_OF_ONE)

    def best(self, reviewer: Reviewer, expertise: Sequence[str], n: int) -> list[TaskRow] | None:
        """Return the ``n`` tasks that a reviewer gets next; None if it takes a search of a settled table."""
        return self.backlog.head.best(reviewer, expertise, n)

    def ahead(self, expertise: Sequence[str]) -> list[str]:
        """Return tasks that reviewers get soon, whose payloads may be read together with the next one's."""
        return self.backlog.head.ahead(expertise, AHEAD)

    def known(self, submit_id: str) -> list[EventRow]:
        """Return the event that a client gave an id, if there is one."""
        numbers = lambda: self.engine.arrow("submit_numbers")["number"].to_numpy()  # noqa: E731
        may = self.hand.submits.may_hold(submit_id, numbers)
        return self.events("event_by_submit", submit_id=submit_id) if may else []

    def events(self, statement: str, **values: Any) -> list[EventRow]:
        """Run a statement that selects events."""
        return [event_row(row) for row in self.rows(statement, **values)]

    # -- writing

    def create(self, row: TaskRow, body: str) -> TaskRow:
        """Add a task; ``body`` is that of its first event."""
        row = replace(row, created_at=self.now, seq=self.coming())
        numbers = {"confidence": row.confidence, "audit_uniform": row.audit_uniform, "value": row.value}
        self._log("submit", row.task_id, body, **numbers)
        self.changed[row.task_id] = (None, row)
        return row

    def move(
        self, row: TaskRow, move: Move, to: Status, *, about: dict[str, Any] | None = None, **more: Any
    ) -> TaskRow:
        """Change a task by a legal move and log it; ``more`` holds columns, ``actor`` and ``submit_id``."""
        actor, submit_id = more.pop("actor", None), more.pop("submit_id", None)
        after = change(row, move, to, seq=self.coming(row), **more)
        body = dump({"set": difference(row, after, ("status", *more)), **(about or {})})
        self._log(str(move), row.task_id, body, actor=actor, submit_id=submit_id, attempt=after.attempt)
        return self._keep(row, after)

    def mark(self, row: TaskRow, move: str, **columns: Any) -> TaskRow:
        """Change columns outside the table of moves (an erasure) and log it."""
        after = replace(row, seq=self.coming(row), **columns)
        self._log(move, row.task_id, dump({"set": difference(row, after)}))
        return self._keep(row, after)

    def _keep(self, row: TaskRow, after: TaskRow) -> TaskRow:
        before = self.changed[row.task_id][0] if row.task_id in self.changed else row
        self.changed[row.task_id] = (before, after)
        return after

    def log_under(self, request: str) -> Transaction:
        """Log what follows under the id of a client's request."""
        self.request = request
        return self

    def note(self, move: str, actor: str | None, body: dict[str, Any]) -> None:
        """Log something about the queue itself."""
        self._log(move, None, canonical(body, "event"), actor=actor)

    def store(self, task_id: str, version: int, kind: str, body: str) -> None:
        """Add a payload row."""
        self._payloads[task_id] = (*self._payloads.get(task_id, ()), (version, kind, body))

    def coming(self, row: TaskRow | None = None) -> int:
        """Return the number of the next event; about a task, it comes after the last one about that task."""
        return self.seq + 1

    def take(self, n: int) -> Sequence[int]:
        """Reserve ``n`` numbers of the log, in order."""
        first, self.seq = self.seq + 1, self.seq + n
        return range(first, first + n)

    def follow(self) -> None:
        """Tell what is at hand of the changes."""
        for task_id, (before, after) in self.changed.items():
            self.hand.moved(before, after, self._payloads.get(task_id, ()))
        for event in self._events:
            if event.submit_id is not None:
                self.hand.submits.add(event.submit_id)

    def flush(self) -> None:
        """Hand payloads and events to the engine; the store calls it once, before the commit."""
        self.check()
        if self._payloads:
            rows = [(task_id, *row) for task_id, stored in self._payloads.items() for row in stored]
            self.engine.put("payload", ("task_id", "version", "kind", "body"), rows)
        if self._events:
            self.engine.put("event", EVENT_COLUMNS, [event_values(event) for event in self._events])

    def _log(self, move: str, task_id: str | None, body: str, **columns: Any) -> None:
        [self.seq] = self.take(1)
        columns["submit_id"] = columns.get("submit_id") or self.request
        event = EventRow(seq=self.seq, task_id=task_id, move=move, at_time=self.now, body=body, **columns)
        self._events.append(event)


class Store(Protocol):
    """A place where a queue lives; one behaviour suite runs over all of them."""

    #: what errors and people call it
    name: str
    #: whether other processes write to it, too
    shared: bool

    @property
    def backlog(self) -> Backlog:
        """What waits and how fast it is answered."""

    @property
    def next_due(self) -> datetime | None:
        """No lease or deadline acts before this time, naive UTC; None: none is set."""

    @property
    def now(self) -> datetime:
        """The time, naive UTC; it never steps back behind the last event."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, or stopped after an error of the engine."""

    def write(self, work: Callable[[Transaction], T], *, search: bool = False) -> T:
        """Run a unit of work and store it, or store nothing; ``search``: it searches the task table."""

    def read(self, work: Callable[[Transaction], T], *, search: bool = True) -> T:
        """Run a unit of work that only reads, from any thread."""

    def watch(self, task_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after each change of a task; returns what ends it."""

    def look_ahead(self) -> None:
        """Find out when the next lease or deadline is due."""

    def recount(self) -> None:
        """Count the backlog anew."""

    def checkpoint(self) -> None:
        """Make erasures final."""

    def snapshot(self, folder: str) -> None:
        """Write the three tables to a folder."""

    def backup(self, path: str) -> None:
        """Copy everything to a new file."""

    def close(self) -> None:
        """Give the place free."""


def is_id(task_id: object) -> bool:
    """Whether a value has the form of a task id."""
    form = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    return isinstance(task_id, str) and re.fullmatch(form, task_id) is not None


def payloads(rows: Sequence[tuple[int, str, str]], row: TaskRow) -> dict[str, Any]:
    """Return the current version of a task's payload; ``shown`` is its digest, ``answers`` what reviewers wrote."""
    texts = {(kind, version): body for version, kind, body in rows}
    now = dict.fromkeys(("input", "prediction", "score"), row.version) | dict.fromkeys(("key", "subject", "reason"), 1)
    current = {kind: parse(texts[kind, version]) for kind, version in now.items() if (kind, version) in texts}
    said = {key: parse(body) for key, body in texts.items() if key[0] in ("correction", "comment", "remark")}
    return {**current, "answers": said, "shown": digest(*sides(rows, row))}


def sides(rows: Sequence[tuple[int, str, str]], row: TaskRow) -> tuple[str, str]:
    """Return the texts of the current input and prediction, whose digest says what a reviewer was shown."""
    texts = {kind: body for version, kind, body in rows if version == row.version}
    return texts.get("input", ""), texts.get("prediction", "")
