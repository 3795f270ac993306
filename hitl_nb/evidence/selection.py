"""Which of many thresholds may be used with a promise: exact tests in a sequence that was fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.evidence.check import within

#: each test of a sequence takes so many times the rows of the one before
GROWTH = 1.02
#: the first test forgives this many times the square root of the errors expected in all rows
FORGIVEN = 0.7
#: share of the rows with which a second run of tests begins, where all rows are expected to hold `ERRORS` errors
MIDDLE, ERRORS = 0.6, 25


def exact_p_value(wrong: ArrayLike, n: ArrayLike, risk: float) -> NDArray[np.float64]:
    """Return how likely so few errors were if the risk were exactly `risk`; small: it is below that.

    The lower tail of the binomial distribution, for each of the cases; shapes broadcast.

    Examples
    --------
    >>> exact_p_value([0, 1], [149, 149], 0.02).round(3).tolist()
    [0.049, 0.199]
    """
    from scipy.special import bdtr

    return np.asarray(bdtr(np.asarray(wrong, dtype=float), np.asarray(n), risk), dtype=np.float64)


def rows_needed(risk: float, delta: float, errors: int = 0) -> int:
    """Return the fewest rows on which so many errors still prove a risk below `risk`, wrongly in at most `delta`.

    Examples
    --------
    >>> rows_needed(0.02, 0.05), rows_needed(0.05, 0.1, errors=2)
    (149, 105)
    """
    within("risk", risk, inside=True)
    within("delta", delta, inside=True)
    low, high = errors, errors + 1
    while exact_p_value(errors, high, risk) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if exact_p_value(errors, middle, risk) <= delta else (middle, high)
    return high


def starts(n: int, risk: float) -> tuple[float, ...]:
    """Return the shares of the rows with which runs of tests begin: the top, and with many rows the middle too.

    >>> starts(300, 0.05), starts(1000, 0.05)
    ((0.0,), (0.0, 0.6))
    """
    return (0.0, MIDDLE) if n * risk >= ERRORS else (0.0,)


def sequence(n: int, risk: float, delta: float, start: float = 0.0) -> NDArray[np.int64]:
    """Return how many of the most confident rows each test of a sequence takes; it depends on no label.

    Parameters
    ----------
    n
        Rows in all.
    delta
        Chance of a broken promise that the first test may spend.
    start
        Share of the rows that the first test takes; 0: as few as forgive some errors, the more the more rows there are.

    Examples
    --------
    >>> sequence(300, 0.05, 0.1)[:5].tolist(), sequence(300, 0.05, 0.1, start=0.6)[:3].tolist()
    ([106, 108, 110, 112, 114], [180, 183, 187])
    """
    if start:
        first = math.ceil(within("start", start) * n)
    else:
        forgiven = range(int(FORGIVEN * math.sqrt(n * risk)), -1, -1)
        first = max(1, next((k for errors in forgiven if (k := rows_needed(risk, delta, errors) + 1) <= n), n))
    steps = np.arange(math.ceil(math.log(max(n / max(first, 1), 1)) / math.log(GROWTH)) + 1)
    return np.unique(np.minimum((first * GROWTH**steps).astype(np.int64), n))


def chances(ends: NDArray[np.int64], n: int, delta: float, shares: Sequence[float]) -> NDArray[np.float64]:
    """Return what each test of a sequence brings of `delta`: equal parts, at the first test that takes such a share.

    >>> chances(np.array([100, 500, 600, 1000]), 1000, 0.1, (0, 0.6)).tolist()
    [0.05, 0.0, 0.05, 0.0]
    """
    at = np.minimum(np.searchsorted(ends, np.asarray(shares) * n), len(ends) - 1)
    return np.asarray(np.bincount(at, minlength=len(ends)) * (delta / len(shares)), dtype=np.float64)


def certified(
    wrong: NDArray[Any], ends: NDArray[np.int64], risk: float, delta: float | NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the position in `ends` of the last test that was passed, -1 where none was.

    Each test may spend what it brings of `delta` and what the one before handed on, which it does if it was passed: the
    fallback procedure (Wiens 2003), which with one start is fixed-sequence testing as in Learn-then-Test (Angelopoulos
    and others 2021, arXiv 2110.01052). Given the confidence of the last row that a test takes, those above it are a
    simple random sample; so that row counts as an error if it is one, and never as a trial.

    Parameters
    ----------
    wrong
        Whether each row was wrong, the most confident first; the last axis runs over rows, others over streams.
    ends
        How many rows each test takes, rising, at least 1.
    risk
        What is promised.
    delta
        How often such a promise may break: what each test brings of it (see `chances`); a number: the first brings all.
    """
    p = exact_p_value(np.cumsum(wrong, axis=-1)[..., ends - 1], ends - 1, risk)
    brought = np.zeros(len(ends))
    brought[: np.size(delta)] = delta
    last, handed = np.full(p.shape[:-1], -1), np.zeros(p.shape[:-1])
    for step, more in enumerate(brought):
        passed = p[..., step] <= handed + more
        last, handed = np.where(passed, step, last), np.where(passed, handed + more, 0.0)
    return last
