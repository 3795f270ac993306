"""Batches that spread: each pick takes the ones before it into account."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.utils.extmath import row_norms, safe_sparse_dot

Floats = NDArray[np.float64]


def steady(scores: Floats) -> Floats:
    """Round to 40 binary digits (12 decimal ones): noise of a CPU or of a number of threads decides no order.

    >>> steady(np.array([0.1 + 0.2])) == steady(np.array([0.3]))
    array([ True])
    """
    bits = np.ascontiguousarray(scores, dtype=np.float64).view(np.int64) + (1 << 11)
    return (bits & ~0xFFF).view(np.float64)


def picked(order: Any, rows: int) -> Floats:
    """Return scores of which the rows in `order` have the largest, the first one most; all others have 0.

    >>> picked([2, 0], 4).tolist()
    [1.0, 0.0, 2.0, 0.0]
    """
    scores = np.zeros(rows)
    scores[np.asarray(order, dtype=np.intp)] = np.arange(len(order), 0, -1)
    return scores


def ranked_batch(probabilities: Floats, rng: np.random.Generator, *, X: Any, labelled: Any, n: int) -> Floats:
    """Ask one by one where the best label is improbable and no row like it is labelled or picked (Cardoso 2017).

    The picks are those of modAL's ``uncertainty_batch_sampling``; the distances are kept from pick to pick, so a pick
    costs one distance per row and not one per row and labelled row. Without labelled rows the most uncertain is first.

    >>> p, X = np.array([[0.5, 0.5], [0.51, 0.49], [0.6, 0.4]]), np.array([[1.0], [1.0], [9.0]])
    >>> ranked_batch(p, np.random.default_rng(0), X=X, labelled=np.array([[0.0]]), n=2).tolist()  # the twin waits
    [1.0, 0.0, 2.0]
    """
    doubt, rows, known = 1 - probabilities.max(axis=1), len(probabilities), max(labelled.shape[0], 1)
    nearest = np.full(rows, np.inf)
    if labelled.shape[0]:
        nearest = pairwise_distances_argmin_min(X, labelled)[1]
    squares, order = row_norms(X, squared=True), list[int]()
    for step in range(min(n, rows)):
        alpha = (rows - step) / (rows + known)
        pick = int(np.argmax(steady(alpha * (1 - 1 / (1 + nearest)) + (1 - alpha) * doubt)))
        order.append(pick)
        doubt[pick] = -np.inf
        across = np.ravel(safe_sparse_dot(X, X[[pick]].T, dense_output=True))
        np.minimum(nearest, np.sqrt(np.maximum(squares - 2 * across + squares[pick], 0)), out=nearest)
    return picked(order, rows)
