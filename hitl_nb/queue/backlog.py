"""What waits, what is next, and how fast it is answered, kept in memory by the owner of a file."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hitl_nb.queue.head import Head
from hitl_nb.queue.row import TaskRow
from hitl_nb.task import OPEN, Status
from hitl_nb.waiting import Band, Forecast, Pace, forecast, pace

#: answers, and as many arrivals, from which the pace is measured
RECENT = 200
#: answers before which nothing is said
FEWEST = 3
#: open tasks of a kind whose forecasts are followed, and kinds
MOST_FOLLOWED, MOST_KINDS = 200, 200

_START, _MINUTE = datetime(2020, 1, 1), timedelta(minutes=1)
#: what tells tasks apart for a wait: expertise and priority
Kind = tuple[str | None, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """How long a new task would wait for its answer."""

    #: expected, in minutes
    minutes: float
    #: lower end of the 80 % interval, in minutes
    low: float
    #: upper end of the 80 % interval, in minutes
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """When an answered task came, was claimed and was answered, in minutes, and by whom."""

    #: expertise that it needed
    expertise: str | None
    #: who answered
    reviewer: str
    #: when it came; of a later answer to the same task: when it was claimed
    created: float
    #: when it was claimed
    claimed: float
    #: when it was answered
    at: float


class Backlog:
    """Counts of open tasks by expertise and priority, and the times of the last arrivals, claims and answers.

    Parameters
    ----------
    waiting
        Lines of the statement ``backlog``.
    reviews, arrivals
        Lines of ``recent_reviews`` and ``recent_arrivals``, latest first.
    next_due
        When the next lease or deadline acts.
    """

    def __init__(
        self,
        waiting: Iterable[tuple[Any, ...]] = (),
        reviews: Iterable[tuple[Any, ...]] = (),
        arrivals: Iterable[tuple[Any, ...]] = (),
        next_due: datetime | None = None,
    ) -> None:
        self.waiting: Counter[Kind] = Counter()
        #: no lease or deadline acts before this time, naive UTC; None: none is set
        self.next_due: datetime | None = next_due
        #: what can be claimed next
        self.head = Head()
        self.recent: deque[Answered] = deque(maxlen=RECENT)
        self._held: Counter[Kind] = Counter()
        self._arrivals: dict[tuple[float, str | None, int], None] = {}  # a set in order: what came at once counts once
        self._came: Counter[Kind] = Counter()
        self._heard: dict[str | None, float] = {}  # of expertises with open tasks: the last claim or answer
        self._paces: dict[str | None, tuple[Pace, dict[str | None, float]] | None] = {}
        self._followed: dict[str, tuple[Kind, float, float, float]] = {}
        self._following: Counter[Kind] = Counter()
        self._bands: dict[Kind, Band] = {}
        for created, expertise, priority in reversed(list(arrivals)):
            self._arrived(_minutes(created), expertise, priority)
        for expertise, reviewer, created, claimed, when in reversed(list(reviews)):
            self._answered(expertise, reviewer, created, claimed, when)
        self._load(waiting)

    def _load(self, waiting: Iterable[tuple[Any, ...]]) -> None:
        heard = {one.expertise: one.at for one in self.recent}
        since: dict[str | None, float] = {}
        for expertise, priority, count, held, oldest, claimed in waiting:
            self.waiting[expertise, priority], self._held[expertise, priority] = count, held
            since[expertise] = min(_minutes(oldest), since.get(expertise, math.inf))
            if claimed is not None:
                heard[expertise] = max(_minutes(claimed), heard.get(expertise, -math.inf))
        self._heard = {one: max(oldest, heard.get(one, oldest)) for one, oldest in since.items()}

    def moved(self, before: TaskRow | None, after: TaskRow, now: datetime) -> None:
        """Take note of a committed change."""
        self.head.moved(before, after)
        if before is None and after.status in OPEN:
            self._follow(after)
        for row, sign in ((before, -1), (after, 1)):
            if row is not None and row.status in OPEN:
                self._count(self.waiting, row, sign)
            if row is not None and row.status == Status.CLAIMED:
                self._count(self._held, row, sign)
        if after.status in OPEN:
            self.expect(after.due_at)
            self.expect(after.lease_until)
        self._hear(before, after, now)

    @staticmethod
    def _count(counter: Counter[Kind], row: TaskRow, sign: int) -> None:
        kind = row.expertise, row.priority
        counter[kind] += sign
        if not counter[kind]:
            del counter[kind]

    def _hear(self, before: TaskRow | None, after: TaskRow, now: datetime) -> None:
        """Take note of arrivals, claims and answers, and of the times between them."""
        if before is None:
            if after.status in OPEN:
                self._arrived(_minutes(after.created_at), after.expertise, after.priority)
        elif after.attempt > before.attempt or after.answers > before.answers:
            self._heard[before.expertise] = _minutes(now)
        new = after.answers > (before.answers if before else 0)
        if new and (reviewers := after.reviewers):  # none: it was undone meanwhile
            when, claimed = after.reviewed_at or now, after.claimed_at or now
            created = after.created_at if after.answers == 1 else claimed
            self._answered(after.expertise, reviewers[-1], created, claimed, when)
        if after.status not in OPEN:
            self._came_true(after)
        for expertise in {after.expertise} if before is None else {before.expertise, after.expertise}:
            if any(self.waiting[expertise, rank] for rank in range(3)):
                self._heard.setdefault(expertise, _minutes(now))
            else:
                self._heard.pop(expertise, None)  # nothing is open: silence says nothing

    def arrived(self, expertise: str | None, priority: int, due: datetime | None, count: int, now: datetime) -> None:
        """Take note of many new tasks at once."""
        self.head.clear(expertise)
        self.waiting[expertise, priority] += count
        self.expect(due)
        self._heard.setdefault(expertise, _minutes(now))
        self._arrived(_minutes(now), expertise, priority)

    def expect(self, when: datetime | None) -> None:
        """Look again at leases and deadlines at this time."""
        if when is not None:
            self.next_due = when if self.next_due is None else min(when, self.next_due)

    # -- waiting

    def wait(self, expertise: str | None, priority: int | None, now: datetime) -> Wait | None:
        """Return the wait of a task that would come now; None before anything is known.

        Without an expertise anyone may answer it; without a priority it is the least urgent one that is known.
        """
        if priority is None:
            priority = min((rank for _, rank in [*self.waiting, *self._came]), default=0)
        found = self._forecast((expertise, priority), _minutes(now))
        if found is None:
            return None
        low, high = self._bands.get((expertise, priority), Band()).interval(found)
        return Wait(minutes=min(max(found.mean, low), high), low=low, high=high)

    def _forecast(self, kind: Kind, time: float) -> Forecast | None:
        measured = self._pace(kind[0])
        if measured is None:
            return None
        pace, shares = measured
        before, later = list(self.waiting.items()), list(self._came.items())  # copies: the writer's thread goes on
        ahead = sum(shares.get(needs, 0.0) * n for (needs, rank), n in before if rank >= kind[1])
        ahead += sum(shares.get(needs, 0.0) * n for (needs, rank), n in list(self._held.items()) if rank < kind[1])
        urgent = sum(shares.get(needs, 0.0) * n for (needs, rank), n in later if rank > kind[1])
        span = time - next(iter(list(self._arrivals)), (time,))[0]
        heard = [when for needs, when in list(self._heard.items()) if shares.get(needs, 0.0) >= 0.5]
        silence = max(0.0, time - max(heard)) if heard else 0.0
        return forecast(pace, ahead, urgent / span if span > 0 else 0.0, silence)

    def _pace(self, expertise: str | None) -> tuple[Pace, dict[str | None, float]] | None:
        """Return the pace of those who answer for an expertise, and how far other expertises take their time."""
        known = self._paces
        if expertise in known:
            return known[expertise]
        if len(known) >= MOST_KINDS:
            known = self._paces = {}  # a new one: another thread may be looking into the old
        known[expertise] = found = _measured(list(self.recent), expertise)
        return found

    def _arrived(self, time: float, expertise: str | None, priority: int) -> None:
        if (time, expertise, priority) not in self._arrivals:
            self._arrivals[time, expertise, priority] = None
            self._came[expertise, priority] += 1
        if len(self._arrivals) > RECENT:
            oldest = next(iter(self._arrivals))
            del self._arrivals[oldest]
            self._came -= Counter([oldest[1:]])

    def _answered(
        self, expertise: str | None, reviewer: str, created: datetime, claimed: datetime, at: datetime
    ) -> None:
        times = {"created": _minutes(created), "claimed": _minutes(claimed), "at": _minutes(at)}
        self.recent.append(Answered(expertise=expertise, reviewer=reviewer, **times))
        self._paces = {}

    def _follow(self, row: TaskRow) -> None:
        """Remember what is forecast for a new task, to learn from how it comes out."""
        kind, time = (row.expertise, row.priority), _minutes(row.created_at)
        if self._following[kind] >= MOST_FOLLOWED or (kind not in self._bands and len(self._bands) >= MOST_KINDS):
            return
        found = self._forecast(kind, time)
        if found is not None:
            ends = self._bands.setdefault(kind, Band()).interval(found)
            self._following[kind] += 1
            self._followed[row.task_id] = kind, time, *ends

    def _came_true(self, row: TaskRow) -> None:
        if row.task_id in self._followed:
            kind, time, low, high = self._followed.pop(row.task_id)
            self._following[kind] -= 1
            if row.status == Status.REVIEWED and row.reviewed_at is not None:
                waited = _minutes(row.reviewed_at) - time
                self._bands[kind] = self._bands[kind].after(waited < low, waited > high)


def _measured(recent: list[Answered], expertise: str | None) -> tuple[Pace, dict[str | None, float]] | None:
    """Return a pace and the share of each expertise in it.

    The share is how much of an expertise's answers comes from reviewers who have answered the other, too. Before its
    first answer, tasks for anyone count in full, and for a task that anyone may answer all do.
    """
    mine = Counter(one.reviewer for one in recent if one.expertise == expertise)
    does: defaultdict[str | None, set[str]] = defaultdict(set)
    for one in recent:
        does[one.expertise].add(one.reviewer)
    if mine:
        shares = {needs: sum(mine[who] for who in whom) / mine.total() for needs, whom in does.items()}
    else:
        shares = {needs: 1.0 for needs in (*does, expertise) if expertise is None or needs in (None, expertise)}
    rows = [(one.created, one.claimed, one.at, share) for one in recent if (share := shares.get(one.expertise))]
    found = pace(*zip(*rows, strict=True)) if len(rows) >= FEWEST else None
    return None if found is None else (found, shares)


def _minutes(when: datetime) -> float:
    """Return a time as minutes since 2020, in which doubles tell microseconds apart."""
    return (when - _START) / _MINUTE
