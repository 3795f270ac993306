"""Error rates from cases that were judged with unequal, known chances, and from few judgements beside many guesses."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence.check import count, within
from hitl_nb.evidence.rate import Interval, exact_ends

Floats = NDArray[np.float64]


def horvitz_thompson(wrong: ArrayLike, probability: ArrayLike, population: int, level: float = 0.95) -> Interval:
    """Return the error rate among ``population`` cases of which some were judged, each with its own chance.

    The sum of 1 / probability over the errors, divided by the population (Horvitz and Thompson 1952). Errors are rare,
    so the interval is that of a weighted sum of Poisson counts (gamma interval, Fay and Feuer 1997, with the largest
    weight for one error more), and not a normal one: without an error it still ends above 0.

    Parameters
    ----------
    wrong, probability
        For each judged case whether it was wrong, and the chance with which it was to be judged; shape (n,).
    population
        Cases in all, judged or not; each had its chance.

    Examples
    --------
    >>> print(horvitz_thompson([True] * 2 + [False] * 98, [0.1] * 100, 1000))
    2.0% (0.2% to 7.2% at 95%, n = 100)
    """
    from scipy.special import gammaincinv

    errors, chance = _sample(wrong, probability)
    size = count("population", population)
    if not len(errors) or size < len(errors):
        raise EvidenceError(what=f"{len(errors):,} judged of {size:,} cases: nothing can be said of them")
    tail, weight = (1 - within("level", level, inside=True)) / 2, 1 / (chance * size)
    total, variance = float(errors @ weight), float(errors @ weight**2)
    low = gammaincinv(total**2 / variance, tail) * variance / total if total else 0.0
    total_, variance_ = total + weight.max(), variance + weight.max() ** 2
    high = gammaincinv(total_**2 / variance_, 1 - tail) * variance_ / total_
    return Interval(estimate=min(1.0, total), low=float(low), high=min(1.0, float(high)), level=level, n=len(errors))


def hajek(wrong: ArrayLike, probability: ArrayLike, level: float = 0.95) -> Interval:
    """Return the weighted share of errors among judged cases, each with its own chance (Hajek 1971).

    The interval is the exact one at the number of equally weighted cases that would scatter as much (Korn and Graubard
    1998). It does not reckon with an error that weighs much and was not met: where rare errors and chances far apart
    come together, such as reviews at 1 beside audits at 0.02, its upper end is too low up to four times in ten (at 90
    %), and `horvitz_thompson` holds. While no weight is above four times their mean, as `choose_audits` draws, it holds
    about as often as it says, and is narrower.

    Examples
    --------
    >>> print(hajek([True, False, False, False], [1.0, 0.5, 0.5, 1.0]))  # weights 1, 2, 2, 1
    16.7% (0.3% to 67.4% at 95%, n = 4)
    """
    errors, chance = _sample(wrong, probability)
    if not len(errors):
        raise EvidenceError(what="no judged case: nothing can be said of the others")
    weight = 1 / chance / (1 / chance).sum()
    rate = float(weight @ errors)
    variance = float(weight**2 @ (errors - rate) ** 2)
    size = rate * (1 - rate) / variance if variance else 1 / float(weight @ weight)
    return _effective(rate, size, len(errors), level)


def ppi_mean(wrong: ArrayLike, guess: ArrayLike, others: ArrayLike, level: float = 0.95) -> Interval:
    """Return the error rate from a simple random sample of judged cases and guesses for all (PPI++).

    The guesses, such as 1 - confidence, carry as much as they have shown to be worth: their weight has the least
    variance (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, example 6.1); useless ones cost next to nothing, and
    wrong ones do no harm. The interval is the exact one at the number of cases without guesses that would scatter as
    much.

    Parameters
    ----------
    wrong, guess
        Of the judged cases whether each was wrong, and its guess; shape (n,).
    others
        Guesses for the cases that nobody judged; shape (m,).

    Examples
    --------
    >>> print(ppi_mean([1] * 5 + [0] * 95, [0.6] * 5 + [0.02] * 95, [0.6] * 40 + [0.02] * 960))
    4.4% (2.8% to 6.6% at 95%, n = 100)
    """
    errors, said = _sample(wrong, guess, least=-math.inf)
    rest = np.asarray(others, dtype=np.float64)
    if len(errors) < 2:
        raise EvidenceError(what=f"{len(errors)} judged cases are too few; judge more")
    estimate, variance, _ = ppi_parts(errors, said, rest)
    plain = float(errors.var())
    size = plain / variance if variance else float(len(errors))
    return _effective(min(1.0, max(0.0, estimate)), size, len(errors), level)


def ppi_parts(errors: Floats, said: Floats, rest: Floats) -> tuple[float, float, float]:
    """Return the estimate of PPI++, its variance, and the weight of the guesses."""
    n, m = len(errors), len(rest)
    spread = float(np.concatenate([said, rest]).var(ddof=1))
    shared = float(np.cov(errors, said, ddof=0)[0, 1])
    weight = min(1.0, max(0.0, shared / ((1 + n / m) * spread))) if m and spread else 0.0
    left = errors - weight * said
    if not weight:
        return float(left.mean()), float(left.var() / n), 0.0
    variance = weight**2 * float(rest.var()) / m + float(left.var()) / n
    return float(weight * rest.mean() + left.mean()), variance, weight


def _effective(rate: float, size: float, n: int, level: float) -> Interval:
    low, high = exact_ends(rate * size, size, level)
    return Interval(estimate=rate, low=low, high=high, level=level, n=n)


def _sample(wrong: ArrayLike, other: ArrayLike, least: float = 0.0) -> tuple[Floats, Floats]:
    """Return outcomes and chances as floats, checked."""
    errors, chance = np.asarray(wrong, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if errors.shape != chance.shape or errors.ndim != 1:
        raise BadInput(name="wrong", value=(errors.shape, chance.shape), remedy="need the same cases in each")
    for name, given, odd in (
        ("wrong", errors, ~np.isin(errors, (0, 1))),
        ("probability", chance, ~((chance > least) & (chance <= 1))),
    ):
        if odd.any():
            raise BadInput(name=name, value=float(given[odd][0]), remedy="must be above 0 and at most 1, or an outcome")
    return errors, chance
