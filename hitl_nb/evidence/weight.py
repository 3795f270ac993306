"""Sample weights from confidences."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import count

#: confidence that stands in for an unknown one when weights are computed
UNKNOWN_CONFIDENCE = 0.5


def inverse_confidence(confidence: ArrayLike) -> NDArray[np.float64]:
    """Return raw sample weights ``1 / (confidence + 0.01)``: the less sure the model was, the more a label counts.

    Parameters
    ----------
    confidence : shares between 0 and 1, any shape; an unknown one (NaN, None) counts as 0.5

    Returns
    -------
    array of the same shape, values from 0.99 to 100; not yet capped or brought to mean 1

    Raises
    ------
    BadInput : text, booleans, or a value outside 0..1 (infinities too), which the message names

    Examples
    --------
    >>> inverse_confidence([0.99, 0.49, 0.0]).tolist()
    [1.0, 2.0, 100.0]
    """
    given = np.asarray(confidence)
    if given.dtype.kind in "bUS" or (given.dtype == object and any(isinstance(c, (str, bool)) for c in given.flat)):
        raise BadInput(name="confidence", value=given.tolist(), remedy="text and booleans are no confidences")
    shares = given.astype(np.float64)
    outside = (shares < 0) | (shares > 1)
    if outside.any():
        raise BadInput(name="confidence", value=float(shares[outside][0]), remedy="must lie between 0 and 1, or be NaN")
    return np.asarray(1.0 / (np.where(np.isnan(shares), UNKNOWN_CONFIDENCE, shares) + 0.01))


def inverse_propensity(probability: ArrayLike) -> NDArray[np.float64]:
    """Return weights ``1 / p`` for rows that were each drawn with a known probability (Horvitz and Thompson 1952).

    A weighted sum over the drawn rows is an unbiased estimate of the sum over all. An unknown probability (NaN) is 1.

    Raises
    ------
    BadInput : a probability that is not above 0 and at most 1

    Examples
    --------
    >>> inverse_propensity([1.0, 0.02, np.nan]).tolist()
    [1.0, 50.0, 1.0]
    """
    p = np.asarray(probability, dtype=np.float64)
    if (odd := ~((p > 0) & (p <= 1)) & ~np.isnan(p)).any():
        raise BadInput(name="probability", value=float(p[odd][0]), remedy="must lie above 0 and be at most 1")
    return np.asarray(1 / np.where(np.isnan(p), 1.0, p))


def lure(probability: ArrayLike, pool: int) -> NDArray[np.float64]:
    """Return LURE weights: the weighted mean over rows that were chosen one by one is unbiased for the whole pool.

    ``1 + (N - M) / (N - m) * (1 / ((N - m + 1) q) - 1)`` for the m-th of M rows out of N (Farquhar, Gal and Rainforth
    2021, arXiv 2101.11665). The naive mean over actively chosen rows is that of the rows that were worth asking about.

    Parameters
    ----------
    probability : q (M,): chance with which each row was drawn among those left at its turn, in that order; NaN: by pure
        chance
    pool : N, rows there were at first

    Examples
    --------
    >>> lure([1 / 4, 1 / 3], pool=4).round(6).tolist()  # by pure chance: each row counts once
    [1.0, 1.0]
    """
    q = np.asarray(probability, dtype=np.float64)
    m = np.arange(1, len(q) + 1)
    if count("pool", pool) < len(q):
        raise BadInput(name="pool", value=pool, remedy=f"{len(q)} rows were drawn from it")
    left = pool - m + 1
    ratio = inverse_propensity(q) / left
    return np.asarray(1 + (pool - len(q)) / np.maximum(left - 1, 1) * (np.where(np.isnan(q), 1.0, ratio) - 1))
