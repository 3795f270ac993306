"""How long a new task waits for its answer: measured pace, forecast, and an interval that learns from its misses.

Pure functions of numbers, as in `hitl_nb.evidence`: counts and times in minutes come as arguments.

>>> steady = pace(created=[0] * 6, claimed=range(6), answered=range(1, 7))  # six at once; a minute each, one by one
>>> forecast(steady, ahead=11).mean  # eleven come before it, then its own minute
12.0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: share of waits beyond each end of the interval: it holds 80 %
TAIL = 0.1
#: score that a tenth of standard normal numbers exceeds: the ends before anything was learnt
EDGE = 1.2815515655446004
#: how far an end moves, in scores: by 0.9 of it outwards after a miss, by 0.1 of it inwards after a hit
STEP = 0.05
#: forecasts of a kind that must have come true before its learnt ends are used
LEARNT = 20
#: times of more than so many medians are pauses, not speed, and count as so many
PAUSE = 10.0
#: probability that nobody is there, before any silence is heard
AWAY = 0.05
#: least net share of the pace that is left to tasks that are overtaken
CRAWL = 0.05
#: minutes, and shares of a task, that are too few to measure a pace
LEAST = 1e-9
#: bounds of a forecast's squared coefficient of variation; beyond them the cube root is no longer normal
SHARPEST, WIDEST = 0.01, 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast tasks are taken up and answered; made by `pace`."""

    #: tasks taken up per minute while some wait
    rate: float
    #: minutes from claim to answer
    work: float
    #: variance of these minutes
    spread: float
    #: tasks behind the rate
    n: float


def pace(created: ArrayLike, claimed: ArrayLike, answered: ArrayLike, share: ArrayLike = 1.0) -> Pace | None:
    """Measure the pace of reviewers from answered tasks; None when nothing took any time.

    While a task waits, every reviewer who is there is busy: so the time in which at least one waited, over the tasks
    taken up from waiting, is the time that reviewers need for one. Idle time does not count, pauses count little.

    Parameters
    ----------
    created, claimed, answered
        Times in minutes, one each per task; what is out of order counts as no time.
    share
        How much each task counts, 0 to 1.

    Examples
    --------
    >>> pace([0, 0, 0, 60], [0, 2, 4, 60], [2, 4, 6, 62])  # two minutes each; nobody came for almost an hour
    Pace(rate=0.5, work=2.0, spread=0.0, n=2.0)
    """
    came, until = np.asarray(created, dtype=np.float64), np.asarray(answered, dtype=np.float64)
    until = np.maximum(came, until)
    begun = np.clip(np.asarray(claimed, dtype=np.float64), came, until)
    weight = np.broadcast_to(np.asarray(share, dtype=np.float64), came.shape)
    if not weight.sum() > LEAST:
        return None
    spans = _paused(until - begun)
    work = float(np.average(spans, weights=weight))
    spread = float(np.average((spans - work) ** 2, weights=weight))
    order = np.flatnonzero((begun > came) & (weight > 0))
    order = order[np.argsort(begun[order], kind="stable")]
    some_wait_since = np.minimum.accumulate(came[order][::-1])[::-1]
    before = np.concatenate([[-np.inf], begun[order][:-1]])
    busy = float(_paused(begun[order] - np.maximum(before, some_wait_since)).sum())
    n = float(weight[order].sum())
    if min(busy, n) > LEAST:
        return Pace(rate=n / busy, work=work, spread=spread, n=n)
    return Pace(rate=1 / work, work=work, spread=spread, n=1.0) if work > LEAST else None


def _paused(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut times that are so long that nobody worked on anything."""
    times = np.maximum(times, 0.0)
    some = times[times > 0]
    return np.minimum(times, PAUSE * np.median(some)) if some.size else times


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The distribution of a wait, a gamma distribution; made by `forecast`."""

    #: expected minutes
    mean: float
    #: its squared coefficient of variation: variance over squared mean
    cv2: float

    def at(self, score: float) -> float:
        """Return the wait at a standard normal score, in minutes.

        The cube root of a gamma variable is nearly normal (Wilson and Hilferty 1931, PNAS 17:684-688).

        >>> round(Forecast(mean=10, cv2=1).at(EDGE), 1)  # exponential: 10 ln 10 = 23.0
        22.8
        """
        root = max(0.0, 1 - self.cv2 / 9 + score * math.sqrt(self.cv2) / 3)
        return self.mean * root * root * root


def forecast(pace: Pace, ahead: float, overtaking: float = 0.0, silence: float = 0.0) -> Forecast:
    """Forecast the wait of a new task: until it is taken up, and the work on it.

    Of those ahead, ``rate x work`` are worked on at once (Little 1961, Operations Research 9:383-387), so with as few
    before it a task is taken up at once. Others wait as long as the busy period of an M/M/1 queue that begins with k
    tasks and that the overtaking ones enter: mean ``k / (r - l)``, variance ``k (r + l) / (r - l)^3``. The longer a
    silence against the usual time until something happens, the surer that nobody is there; it then goes on for about
    as long as it has lasted.

    Parameters
    ----------
    ahead
        Open tasks that come before it, those that are worked on included.
    overtaking
        Tasks that arrive later and still come before it, per minute.
    silence
        Minutes since a reviewer last did anything while something was open.

    Examples
    --------
    >>> one_a_minute = Pace(rate=1.0, work=1.0, spread=1.0, n=1000)
    >>> [forecast(one_a_minute, ahead, overtaking=0.5).mean for ahead in (0, 5)]  # five, of which half is for others
    [1.0, 11.0]
    """
    queued = max(0.0, ahead + 1 - pace.rate * pace.work)
    net = max(pace.rate - overtaking, CRAWL * pace.rate)
    mean = queued / net
    variance = queued * (pace.rate + overtaking) / net**3 + (mean * pace.rate / net) ** 2 / pace.n + pace.spread
    usual = max(1 / pace.rate, pace.work)
    away = 1 / (1 + (1 / AWAY - 1) * math.exp(-silence / usual)) if silence > 0 else 0.0  # Bayes
    mean, variance = mean + pace.work + away * silence, variance + (away * silence) ** 2
    return Forecast(mean=mean, cv2=min(max(variance / mean**2, SHARPEST), WIDEST))


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The scores at which the interval of a kind of tasks ends, learnt answer by answer.

    A wait that comes out beyond an end moves that end outwards, one that does not moves it a ninth as far back
    (adaptive conformal inference: Gibbs and Candes 2021, arXiv 2106.00104; on scores: Angelopoulos, Candes and
    Tibshirani 2023, arXiv 2307.16895). The moves add up, so whatever the waits do, over T answers
    ``share beyond an end - 0.1 = how far it has moved outwards / (0.05 T)``: one that has moved by a score in 500
    answers was passed by 14 instead of 10 %. This holds over all T, not within each hour.

    Examples
    --------
    >>> band = Band()
    >>> for minutes in [5, 30, 30, 30, 30] * 20:  # where ten were forecast
    ...     low, high = band.interval(Forecast(mean=10, cv2=0.1))
    ...     band = band.after(minutes < low, minutes > high)
    >>> [round(minutes) for minutes in band.interval(Forecast(mean=10, cv2=0.1))]
    [5, 30]
    """

    #: score of the lower end
    low: float = -EDGE
    #: score of the upper end
    high: float = EDGE
    #: waits that are over
    n: int = 0

    def after(self, below: bool, above: bool) -> Band:
        """Return the band after one more wait, which came out below or above the interval that was stated for it."""
        return Band(low=self.low + STEP * (TAIL - below), high=self.high - STEP * (TAIL - above), n=self.n + 1)

    def interval(self, forecast: Forecast) -> tuple[float, float]:
        """Return the ends of the 80 % interval, in minutes."""
        ends = (self.low, self.high) if self.n >= LEARNT else (-EDGE, EDGE)
        low, high = sorted(map(forecast.at, ends))
        return low, high
