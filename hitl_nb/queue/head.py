"""The head of the line: the tasks to be claimed next, kept in memory, so that a claim searches nothing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from datetime import datetime
from heapq import merge
from itertools import islice

from hitl_nb.queue.row import TaskRow, dump_list
from hitl_nb.task import Reviewer, Status

#: rows that a search puts on a shelf; twice as many at most stand there
SHELF = 1000
#: shelves at most; one for each expertise
MOST_SHELVES = 64

_Key = tuple[int, datetime, str]


def _key(row: TaskRow) -> _Key:
    return -row.priority, row.deadline or datetime.max, row.task_id


class _Shelf:
    """The best tasks of one expertise, in order; what is missing comes after ``bound``, or there is none."""

    def __init__(self, rows: Sequence[TaskRow]) -> None:
        self.rows = [(_key(row), row) for row in rows]
        self.bound: _Key | None = self.rows[-1][0] if len(rows) >= SHELF else None

    def add(self, row: TaskRow) -> None:
        if self.bound is not None and _key(row) > self.bound:
            return
        insort(self.rows, (_key(row), row))
        if len(self.rows) > 2 * SHELF:
            del self.rows[SHELF:]
            self.bound = self.rows[-1][0]

    def drop(self, row: TaskRow) -> None:
        place = bisect_left(self.rows, (_key(row),))
        if place < len(self.rows) and self.rows[place][1].task_id == row.task_id:
            del self.rows[place]


class Head:
    """What can be claimed next, by expertise; the store tells it of every change."""

    def __init__(self) -> None:
        self._shelves: dict[str | None, _Shelf] = {}

    def moved(self, before: TaskRow | None, after: TaskRow) -> None:
        """Take note of a change."""
        if before is not None and before.expertise in self._shelves:
            self._shelves[before.expertise].drop(before)
        if after.status in (Status.PENDING, Status.DISPUTED) and after.expertise in self._shelves:
            self._shelves[after.expertise].add(after)

    def fill(self, expertise: str | None, rows: Sequence[TaskRow]) -> None:
        """Put the first ``SHELF`` rows of an expertise on its shelf; fewer are all that there are."""
        while len(self._shelves) >= MOST_SHELVES:
            del self._shelves[next(iter(self._shelves))]
        self._shelves[expertise] = _Shelf(rows)

    def clear(self, expertise: str | None) -> None:
        """Know nothing of an expertise any more, since many tasks came at once."""
        self._shelves.pop(expertise, None)

    def ahead(self, expertise: Iterable[str], n: int) -> list[str]:
        """Return the ids of the first ``n`` tasks on some shelves."""
        shelves = [self._shelves[one].rows for one in (None, *expertise) if one in self._shelves]
        return [row.task_id for _, row in islice(merge(*shelves), n)]

    def best(self, reviewer: Reviewer, expertise: Iterable[str], n: int) -> list[TaskRow] | None:
        """Return the ``n`` best tasks for a reviewer, those that they skipped last; None if it takes a search."""
        shelves = [self._shelves.get(one) for one in (None, *expertise)]
        known = [shelf for shelf in shelves if shelf is not None]
        if len(known) < len(shelves):
            return None
        bound = min((shelf.bound for shelf in known if shelf.bound is not None), default=None)
        me = dump_list(reviewer.id)
        fresh: list[TaskRow] = []
        skipped: list[TaskRow] = []
        for key, row in merge(*(shelf.rows for shelf in known)) if known[1:] else known[0].rows:
            if len(fresh) == n or (bound is not None and key > bound):
                break
            if _may_claim(row, reviewer, me):
                (skipped if me in row.skipped else fresh).append(row)
        if len(fresh) == n:
            return fresh
        return (fresh + skipped)[:n] if bound is None else None


def _may_claim(row: TaskRow, reviewer: Reviewer, me: str) -> bool:
    if row.status == Status.DISPUTED:
        return reviewer.adjudicates and (row.reviews_required == 1 or f", {me}]" not in row.standing)
    return f", {me}]" not in row.standing
