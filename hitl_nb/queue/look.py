"""A look into a queue's file that changes no byte of it, and a new file made from the log of a damaged one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import duckdb

from hitl_nb.errors import BadInput, HitlError
from hitl_nb.queue import upkeep
from hitl_nb.queue.backlog import Backlog
from hitl_nb.queue.engine import DuckDBEngine
from hitl_nb.queue.file import SETTINGS, attach, check_file, told
from hitl_nb.queue.hold import Hold
from hitl_nb.queue.row import COLUMNS, values
from hitl_nb.queue.store import Transaction

T = TypeVar("T")


class Look:
    """Reads a file that nobody has open; what a queue does with a store, as far as that only reads.

    Raises
    ------
    QueueLocked, NotAQueue, QueueDamaged
        It cannot be looked into.
    """

    closed = False

    def __init__(self, path: str, now: datetime) -> None:
        check_file(Path(path))
        self.name, self._hold = path, Hold(path)
        self._hold.lock()
        self.connection = duckdb.connect(":memory:", config=SETTINGS)
        try:
            attach(self.connection, path)
        except BaseException:
            self.close()
            raise
        self.connection.execute("USE looked")
        self.now = now

    def catch_up(self) -> int:
        """Let the task table, as it is seen here, follow the log; returns the last number of the log."""
        engine = DuckDBEngine(self.connection)
        seq, last = engine.rows("last_seq")[0]
        self.now = max(self.now, last or self.now)
        behind = upkeep.catch_up(engine)
        if behind:
            self.connection.execute("CREATE TEMP TABLE caught_up AS FROM looked.task LIMIT 0")
            engine.put("caught_up", COLUMNS, [values(row) for _, row in behind.values()])
            engine.commit()
            rest = "FROM looked.task WHERE task_id NOT IN (SELECT task_id FROM caught_up)"
            self.connection.execute(f"CREATE TEMP VIEW task AS SELECT * {rest} UNION ALL FROM caught_up")
        return int(seq)

    def unreadable(self, table: str) -> str | None:
        """Read a whole table; returns what the engine says if it cannot."""
        try:
            self.connection.execute(f"SELECT bit_xor(hash(t)) FROM looked.{table} AS t").fetchall()
        except duckdb.Error as error:
            return str(error).splitlines()[0]
        return None

    def read(self, work: Callable[[Transaction], T], *, search: bool = True) -> T:
        """Run a unit of work that only reads."""
        try:
            return work(Transaction(DuckDBEngine(self.connection), self.now, 0, Backlog()))
        except duckdb.Error as error:
            raise told(self.name, error) from error

    def close(self) -> None:
        """Give the file free."""
        self.connection.close()
        self._hold.close()


def salvage(path: str, new: str, now: datetime) -> int:
    """Make a new file from the log and the payloads of one that is damaged; its task table is built from the log.

    Raises
    ------
    QueueDamaged
        Log or payloads cannot be read.
    BadInput
        The new file is there already.
    """
    if Path(new).exists() or not Path(new).parent.is_dir():
        raise BadInput(name="new", value=new, remedy="pass the path of a new file in a folder that exists")
    Look(path, now).close()
    hold = Hold(new)
    try:
        connection = hold.open()
        attach(connection, path)
        for table in ("payload", "event"):
            connection.execute(f"INSERT INTO {table} FROM looked.{table}")
        engine = DuckDBEngine(connection)
        count = upkeep.rebuild(Transaction(engine, now, 0, Backlog()), path)
        hold.trust(engine.rows("last_seq")[0][0])
    except (duckdb.Error, HitlError) as error:
        hold.close()
        Path(new).unlink(missing_ok=True)
        raise told(path, error) if isinstance(error, duckdb.Error) else error from error
    hold.close()
    return count
