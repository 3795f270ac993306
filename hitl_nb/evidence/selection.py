"""Which of many thresholds may be used with a promise: exact tests in a sequence that was fixed beforehand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.evidence.check import within

#: each step of a sequence takes so many times the rows of the one before
GROWTH = 1.02
#: errors that the first test of a sequence forgives, if there are rows enough for that
FORGIVEN = (2, 1, 0)


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


def sequence(n: int, risk: float, delta: float, start: float | None = None) -> NDArray[np.int64]:
    """Return how many of the most confident rows each test of a sequence takes; it depends on no label.

    Parameters
    ----------
    n
        Rows in all.
    start
        Share of the rows that the first test takes; None: as few as forgive two errors, or one, or none.

    Examples
    --------
    >>> sequence(300, 0.05, 0.1)[:5].tolist(), sequence(300, 0.05, 0.1, start=0.6)[:3].tolist()
    ([106, 108, 110, 112, 114], [180, 183, 187])
    """
    if start is None:
        wanted = [rows_needed(risk, delta, errors) + 1 for errors in FORGIVEN]
        first = next((k for k in wanted if k <= n), n)
    else:
        first = max(1, math.ceil(within("start", start) * n))
    steps = np.arange(math.ceil(math.log(max(n / max(first, 1), 1)) / math.log(GROWTH)) + 1)
    return np.unique(np.minimum((first * GROWTH**steps).astype(np.int64), n))


def certified(wrong: NDArray[Any], ends: NDArray[np.int64], risk: float, delta: float) -> NDArray[np.int64]:
    """Return the position in `ends` of the last test that was passed, -1 where the first one was not.

    Tests follow each other until one fails, each at the full `delta` (fixed-sequence testing, as in Learn-then-Test,
    Angelopoulos and others 2021, arXiv 2110.01052). Given the confidence of the last row that a test takes, those above
    it are a simple random sample; so that row counts as an error if it is one, and never as a trial.

    Parameters
    ----------
    wrong
        Whether each row was wrong, the most confident first; the last axis runs over rows, others over streams.
    ends
        How many rows each test takes, rising, at least 1.
    risk, delta
        What is promised, and how often such a promise may break.
    """
    errors = np.cumsum(wrong, axis=-1)[..., ends - 1]
    passed = exact_p_value(errors, ends - 1, risk) <= delta
    return np.asarray(np.cumprod(passed, axis=-1).sum(axis=-1) - 1)
