"""Evidence that may be looked at after every case: e-processes, confidence sequences, alarms.

By Ville's inequality a process of bets that is fair under a hypothesis ever passes 1/alpha with a chance of at most
alpha, whenever and however often one looks. All evidence here is the natural logarithm of such a capital.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.evidence.check import count, within
from hitl_nb.evidence.rate import Interval

Floats = NDArray[np.float64]
#: after so many cases an alarm has laid out 1 - 1 / sqrt(2) of its capital: a later change is found somewhat later
PATIENCE = 1000
#: odds of an error, in multiples of the odds at the bound, that the bets of an alarm are made for
ODDS = np.array([1.5, 2.5, 4.0, 8.0])
#: stakes of the bets on ranks: that they fall or rise, or move to the ends or to the middle
STAKES = np.array([-0.9, -0.3, 0.3, 0.9])


def evidence_below(wrong: ArrayLike, n: ArrayLike, rate: float) -> Floats:
    """Return the log evidence that an error rate is below ``rate``, for each number of cases; shapes broadcast.

    A uniform mixture of bets, one for each rate below: at an error the capital is multiplied by q / rate, else by
    (1 - q) / (1 - rate), which no error rate of ``rate`` or more lets grow on average.

    Examples
    --------
    >>> evidence_below([0, 0, 3], [0, 100, 100], 0.05).round(2).tolist()  # log(1 / 0.05) is 3.0
    [0.0, 3.5, 0.06]
    """
    from scipy.special import betainc, betaln

    k, n = np.asarray(wrong, dtype=np.float64), np.asarray(n, dtype=np.float64)
    within("rate", rate, inside=True)
    with np.errstate(divide="ignore"):  # no rate below it is at all likely: nothing is left of the capital
        mixed = betaln(k + 1, n - k + 1) + np.log(betainc(k + 1, n - k + 1, rate)) - math.log(rate)
    return np.asarray(mixed - k * math.log(rate) - (n - k) * math.log1p(-rate))


def confidence_sequence(wrong: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return lower and upper ends of an error rate that hold at every number of cases at once.

    The rates against which a mixture of bets (Robbins 1970, with the prior Beta(1/2, 1/2)) has not won enough yet.

    Examples
    --------
    >>> low, high = confidence_sequence([0, 2], [24, 100])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.0], [0.194, 0.105])
    """
    from scipy.special import betaln, xlog1py, xlogy

    k, n = np.broadcast_arrays(np.asarray(wrong, dtype=np.float64), np.asarray(n, dtype=np.float64))
    most = -math.log(1 - within("level", level, inside=True))
    mixed, best = betaln(k + 0.5, n - k + 0.5) - betaln(0.5, 0.5), np.where(n > 0, k / np.maximum(n, 1), 0.5)

    def end(far: float) -> Floats:
        inside, outside = best.copy(), np.full(best.shape, far)
        for _ in range(50):
            middle = (inside + outside) / 2
            held = mixed - xlogy(k, middle) - xlog1py(n - k, -middle) < most
            inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
        return outside

    return end(0.0), end(1.0)


def always_valid(wrong: int, n: int, level: float = 0.95) -> Interval:
    """Return the interval of a confidence sequence: it may be looked at after every case, and is wider for that.

    Examples
    --------
    >>> print(always_valid(2, 100))
    2.0% (0.0% to 10.5% at 95%, n = 100)
    """
    wrong, n = count("wrong", wrong, count("n", n)), int(n)
    low, high = (float(end) for end in confidence_sequence(wrong, n, level))
    return Interval(estimate=wrong / n if n else math.nan, low=low, high=high, level=level, n=n)


def most_evidence(wrong: NDArray[np.bool_], rate: float) -> float:
    """Return the largest `evidence_below` after any number of the cases; it can only be just before an error or now.

    >>> round(most_evidence(np.array([False] * 100 + [True] * 20), 0.05), 2)
    3.5
    """
    cases = np.append(np.flatnonzero(wrong), len(wrong))
    return float(evidence_below(np.arange(len(cases)), cases, rate).max())


def error_bets(wrong: ArrayLike, bound: float) -> Floats:
    """Return by how much each case multiplies bets that the error rate is above a bound: logs, shape (..., n, bets)."""
    odds = ODDS * within("bound", bound, inside=True)
    above = odds / (1 - bound + odds)
    return np.where(np.asarray(wrong, dtype=bool)[..., None], np.log(above / bound), np.log((1 - above) / (1 - bound)))


def rank_bets(rank: ArrayLike) -> Floats:
    """Return by how much each rank (uniform on 0..1 while nothing changes) multiplies bets that they change."""
    to_the_right = 2 * np.asarray(rank, dtype=np.float64)[..., None] - 1
    to_the_ends = 2 * np.abs(to_the_right) - 1
    return np.asarray(np.log1p(np.concatenate([STAKES * to_the_right, STAKES * to_the_ends], axis=-1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """Bets against "nothing has changed", some of them begun anew at each case; a state, to be stored as it is."""

    #: how often it fires although nothing changes, at most, over the whole of an endless stream; a share
    false_alarms: float
    #: cases so far
    n: int = 0
    #: log capital of each bet; None before the first case
    bets: tuple[float, ...] | None = None
    #: log evidence now; it fires at -log(false_alarms)
    evidence: float = 0.0
    #: number of the case at which it fired; None while it has not
    fired_at: int | None = None

    @property
    def limit(self) -> float:
        """Log evidence at which it fires."""
        return -math.log(within("false_alarms", self.false_alarms, inside=True))

    def after(self, growth: Floats) -> tuple[Alarm, Floats]:
        """Return it after more cases, and the log evidence at each of them.

        Parameters
        ----------
        growth
            What `error_bets` or `rank_bets` gives, shape (n, bets).
        """
        if not len(growth):
            return self, np.zeros(0)
        path, bets = change_evidence(growth, self.bets, self.n)
        above = np.flatnonzero(path >= self.limit)
        first = self.n + int(above[0]) + 1 if len(above) else None
        fired = first if self.fired_at is None else self.fired_at
        now = replace(self, n=self.n + len(growth), bets=tuple(bets.tolist()), evidence=float(path[-1]), fired_at=fired)
        return now, path


def change_evidence(growth: Floats, bets: ArrayLike | None = None, seen: int = 0) -> tuple[Floats, Floats]:
    """Return the log evidence of a change at some time, after each case, and the log capitals in the end.

    The capital is laid out over time: at each case a share begins to bet, so that the cases before a change cost
    little. The shares sum to 1, so wrong alarms stay as rare as promised (the sum of e-processes of Shin, Ramdas and
    Rinaldo 2022, E-detectors, arXiv 2203.03532, with weights where they bound the mean time to a wrong alarm). What is
    not laid out yet is kept.

    Parameters
    ----------
    growth
        Logs by which each case multiplies each bet, shape (..., n, bets).
    bets, seen
        Log capitals and number of the cases before these.
    """
    total = np.cumsum(growth, axis=-2)
    kept = 1 / np.sqrt(1 + np.arange(seen, seen + growth.shape[-2] + 1) / PATIENCE)
    share = np.log((kept[:-1] - kept[1:]) / growth.shape[-1])[:, None]
    begun = share - (total - growth)
    if bets is not None:
        begun[..., 0, :] = np.logaddexp(begun[..., 0, :], bets)
    capital = total + np.logaddexp.accumulate(begun, axis=-2)
    return np.logaddexp(np.logaddexp.reduce(capital, axis=-1), np.log(kept[1:])), capital[..., -1, :]
