"""What waits, what is next, and how fast it is answered, kept in memory by the owner of a file."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hitl_nb.evidence import wait_interval
from hitl_nb.queue.head import Head
from hitl_nb.queue.row import TaskRow
from hitl_nb.task import OPEN

#: answers from which the rate is measured
RECENT = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """How long a new task would wait for its answer."""

    #: expected, in minutes
    minutes: float
    #: lower end of the 80 % interval, in minutes
    low: float
    #: upper end of the 80 % interval, in minutes
    high: float


class Backlog:
    """Counts of open tasks by expertise and priority, and the times of the last answers."""

    def __init__(
        self,
        waiting: Iterable[tuple[Any, ...]] = (),
        recent: Iterable[tuple[Any, ...]] = (),
        next_due: datetime | None = None,
    ) -> None:
        self.waiting: Counter[tuple[str | None, int]] = Counter()
        for expertise, priority, count in waiting:
            self.waiting[expertise, priority] = count
        #: no lease or deadline acts before this time, naive UTC; None: none is set
        self.next_due: datetime | None = next_due
        #: what can be claimed next
        self.head = Head()
        self.recent: deque[tuple[str | None, datetime]] = deque(reversed(list(recent)), maxlen=RECENT)

    def moved(self, before: TaskRow | None, after: TaskRow, now: datetime) -> None:
        """Take note of a committed change."""
        self.head.moved(before, after)
        for row, sign in ((before, -1), (after, 1)):
            if row is not None and row.status in OPEN:
                self.waiting[row.expertise, row.priority] += sign
        if after.status in OPEN:
            self.expect(after.due_at)
            self.expect(after.lease_until)
        if after.answers > (before.answers if before else 0):
            self.recent.append((after.expertise, now))

    def arrived(self, expertise: str | None, priority: int, due: datetime | None, count: int) -> None:
        """Take note of many new tasks at once."""
        self.head.clear(expertise)
        self.waiting[expertise, priority] += count
        self.expect(due)

    def expect(self, when: datetime | None) -> None:
        """Look again at leases and deadlines at this time."""
        if when is not None:
            self.next_due = when if self.next_due is None else min(when, self.next_due)

    def wait(self, expertise: str | None, priority: int | None) -> Wait | None:
        """Return the wait behind everything of the same or higher priority; None before anything is known."""
        ahead = sum(
            count
            for (needs, rank), count in list(self.waiting.items())  # a copy: the writer's thread goes on
            if (expertise is None or needs in (None, expertise)) and (priority is None or rank >= priority)
        )
        times = [when for needs, when in list(self.recent) if expertise is None or needs in (None, expertise)]
        if len(times) < 3:
            return None
        span = (max(times) - min(times)).total_seconds() / 60
        found = wait_interval(ahead, len(times) - 1, span)
        return None if found is None else Wait(minutes=found[0], low=found[1], high=found[2])
