"""Reviews against capacity and deadlines: a queue with people who judge as fast as the log says they do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence.check import count, within
from hitl_nb.lab.history import Bools, Floats
from hitl_nb.lab.logged import Logged
from hitl_nb.policy import Policy
from hitl_nb.policy.batch import Array
from hitl_nb.task import Priority

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, slots=True)
class Staff:
    """Who judges, how fast, and when."""

    #: how many people; None: as many as the history names
    reviewers: int | None = None
    #: time of one review; None: as measured, from its claim, or its reviewer's answer before if later, to its answer
    seconds: float | None = None
    #: when they work, two hours of the day in UTC
    hours: tuple[float, float] = (0, 24)

    def __post_init__(self) -> None:
        if self.reviewers is not None and not count("reviewers", self.reviewers):
            raise BadInput(name="reviewers", value=0, remedy="somebody must judge; pass 1 or more")
        if self.seconds is not None:
            within("seconds", self.seconds, 0, 1e9, inside=True)
        if not within("hours", self.hours[0], 0, 24) < within("hours", self.hours[1], 0, 24):
            raise BadInput(name="hours", value=self.hours, remedy="the first is before the second, such as (8, 17)")

    def opens(self, now: float) -> float:
        """Return the first second from `now` at which they work."""
        day, second = divmod(now, 86_400)
        first, last = self.hours[0] * 3600, self.hours[1] * 3600
        return now if first <= second < last else (day + (second >= last)) * 86_400 + first


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Workload(Shows):
    """What some people would have had to do; made by `workload`."""

    #: a line for each review, in the order in which they come: arrived, started, finished (seconds), rank of priority
    frame: pd.DataFrame
    #: who judges, the mean time of a review among it
    staff: Staff
    #: time that a review may take from its arrival; None: there is no deadline
    deadline: timedelta | None

    @property
    def minutes(self) -> Floats:
        """How long each waits until somebody takes it, in minutes."""
        return np.asarray(self.frame["started"] - self.frame["arrived"]) / 60

    @property
    def backlog(self) -> pd.Series[Any]:
        """How many wait, by the time in seconds at which that changes."""
        import pandas as pd

        times = np.concatenate([self.frame["arrived"], self.frame["started"]])
        steps = np.repeat([1, -1], len(self.frame))
        order = np.lexsort((-steps, times))  # who comes and is taken at once has waited for no time
        return pd.Series(steps[order].cumsum(), index=times[order]).groupby(level=0).last()

    @property
    def missed(self) -> int:
        """How many are not answered by their deadline."""
        late = np.inf if self.deadline is None else self.deadline.total_seconds()
        return int((self.frame["finished"] - self.frame["arrived"] > late).sum())

    @property
    def capacity(self) -> float:
        """How many reviews an hour these people can do, closing times included."""
        staff = self.staff
        return (staff.reviewers or 1) * 3600 / (staff.seconds or 1) * (staff.hours[1] - staff.hours[0]) / 24

    @property
    def demand(self) -> float:
        """How many reviews an hour come."""
        span = float(np.ptp(self.frame["arrived"])) if len(self.frame) else 0.0
        return len(self.frame) * 3600 / span if span else float("nan")

    def __str__(self) -> str:
        if not len(self.frame):
            return "Nothing comes to a person."
        half, most = np.quantile(self.minutes, (0.5, 0.95))
        late = f"; {self.missed:,} miss their deadline of {self.deadline}" if self.deadline else ""
        more = "; more come than they can judge" if self.demand > self.capacity else ""
        return (
            f"{self.staff.reviewers:,} at {self.staff.seconds:.1f} s a review can judge {self.capacity:,.1f} an hour,"
            f" {self.demand:,.1f} come; half wait at most {half:,.1f} min, 95% at most {most:,.1f};"
            f" up to {self.backlog.max():,} wait at once{late}{more}."
        )

    def _table(self) -> Table:
        words = self.frame["priority"].map({one.rank: str(one) for one in Priority})
        by = self.frame.assign(minutes=self.minutes).groupby(words)["minutes"]
        found = zip(by.size().items(), by.median(), by.quantile(0.95), strict=True)
        rows = [(rank, f"{n:,}", f"{half:,.1f}", f"{most:,.1f}") for (rank, n), half, most in found]
        return table(str(self), ("priority", "reviews", "half wait at most, min", "95% at most"), rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how many wait, over time."""
        import matplotlib.pyplot as plt
        import pandas as pd

        ax = plt.subplots()[1] if ax is None else ax
        ax.step(pd.to_datetime(self.backlog.index, unit="s"), self.backlog.to_numpy(), where="post")
        ax.set(xlabel="time (UTC)", ylabel="waiting", ylim=(0, None))
        ax.set_title("How many wait for a person")
        ax.tick_params(axis="x", rotation=30)
        return ax


def workload(policy: Policy, history: Any, staff: Staff | None = None, *, seed: int = 0) -> Workload:
    """Simulate the people behind a policy: rows come as they were logged, and are judged as fast as reviews were.

    The order is the queue's: priority, then deadline, then arrival. Expertise, skipped tasks and second reviews are
    left out. The time of each review is drawn from the measured ones.

    Parameters
    ----------
    policy
        What sends rows to people; its audits are those of the logged draws.
    history
        What `read` takes, with ``at_time`` and the fields that the rules need; or a `Logged`.
    staff
        Who judges; default: as many as the history names, day and night.
    seed
        Draws the times of reviews.

    Raises
    ------
    EvidenceError
        No times of arrival, or nothing tells how long a review takes.

    Examples
    --------
    >>> times = ["2026-01-05 08:00", "2026-01-05 08:00", "2026-01-05 09:00"]
    >>> rows = {"confidence": [0.5] * 3, "wrong": [False] * 3, "at_time": times}
    >>> workload(Policy(0.85, audit_rate=0), rows, Staff(reviewers=1, seconds=600)).minutes.tolist()
    [0.0, 10.0, 0.0]
    """
    logged = Logged.of(history)
    decided = logged.decide(policy)
    asked = decided.audit | ~decided.approved | logged.unexplained
    return staffed(logged, asked, decided.priority, staff, policy.deadline, seed)


def staffed(
    logged: Logged, asked: Bools, ranks: Array, staff: Staff | None, deadline: timedelta | None, seed: int
) -> Workload:
    """Simulate the reviews of some rows; see `workload`."""
    import pandas as pd

    staff, arrived, held = staff or Staff(), logged.rows.times("at_time"), logged.rows.frame
    if arrived is None or np.isnan(arrived[asked]).any():
        raise EvidenceError(what="rows have no at_time, so nothing tells how many come at once; add that column")
    took = np.array([staff.seconds]) if staff.seconds else _measured(logged)
    named = max(1, int(held["reviewer"].nunique())) if "reviewer" in held else 1
    staff = replace(staff, reviewers=staff.reviewers or named, seconds=float(took.mean()))
    rows = np.flatnonzero(asked)[np.argsort(arrived[asked], kind="stable")]
    each = np.random.default_rng(seed).choice(took, len(rows))
    started = _serve(arrived[rows].tolist(), ranks[rows].tolist(), each.tolist(), staff)
    columns = {"arrived": arrived[rows], "started": started, "finished": started + each, "priority": ranks[rows]}
    return Workload(frame=pd.DataFrame(columns), staff=staff, deadline=deadline)


def _serve(arrived: list[float], ranks: list[int], took: list[float], staff: Staff) -> Floats:
    """Return when each is taken: by whoever is free first, the highest rank first, then who came first."""
    free, waiting, came, now = [-np.inf] * (staff.reviewers or 1), list[tuple[int, int]](), 0, -np.inf
    started = np.empty(len(arrived))
    for _ in arrived:
        now = staff.opens(max(heappop(free), now if waiting else arrived[came]))
        while came < len(arrived) and arrived[came] <= now:
            heappush(waiting, (-ranks[came], came))
            came += 1
        _, one = heappop(waiting)
        started[one] = now
        heappush(free, now + took[one])
    return started


def _measured(logged: Logged) -> Floats:
    """Return how long reviews took, in seconds."""
    import pandas as pd

    claimed, reviewed, held = logged.rows.times("claimed_at"), logged.rows.times("reviewed_at"), logged.rows.frame
    if claimed is None or reviewed is None or "reviewer" not in held:
        raise EvidenceError(what="no claimed_at, reviewed_at and reviewer tell how long a review takes; pass seconds=")
    who = pd.factorize(held["reviewer"])[0]
    order = np.lexsort((reviewed, who))
    claimed, reviewed, who = claimed[order], reviewed[order], who[order]
    before = np.where(np.diff(who, prepend=-2) == 0, np.roll(reviewed, 1), -np.inf)
    took = reviewed - np.maximum(claimed, before)
    took = took[(who >= 0) & (took > 0)]
    if not len(took):
        what = "no review was claimed before it was answered, so none tells how long it takes; pass seconds="
        raise EvidenceError(what=what)
    return np.asarray(took)
