"""Which candidates to ask a person about.

A query strategy is a function ``(probabilities (n, k), rng) -> scores (n,)``; the larger the score, the sooner it is
asked. `score_pool` applies one, `select` picks by score and stable id, `check_strategy` tests one of your own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput
from hitl_nb.learner import modal
from hitl_nb.learner.weighting import keep_rules

Floats = NDArray[np.float64]
#: (probabilities (n, k), generator) -> scores (n,)
Strategy = Callable[[Floats, np.random.Generator], Floats]


def margin(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where two labels compete: 1 - (p1 - p2) (Scheffer 2001); the default, the best of the field by measurement.

    >>> margin(np.array([[0.5, 0.25, 0.25]]), np.random.default_rng(0)).tolist()
    [0.75]
    """
    return 1 - modal.margin(probabilities)


def least_confident(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where the best label is improbable: 1 - p1 (Lewis and Gale 1994).

    >>> least_confident(np.array([[0.5, 0.25, 0.25]]), np.random.default_rng(0)).tolist()
    [0.5]
    """
    return modal.least_confident_uncertainty(probabilities)


def entropy(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where many labels compete (Shannon entropy, nats); with many classes often no better than chance."""
    return modal.entropy(probabilities)


def random(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask anything: the arm to compare any other strategy with."""
    return rng.random(len(probabilities))


def margin_inverse_confidence(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where two labels compete, and the more so the less probable the best one is: (1 - (p1 - p2)) / (p1 + 0.01).

    Times the least-confident score, 1 - p1, it would order like least-confident alone; times the margin it does not.

    >>> p = np.array([[0.49, 0.49, 0.02], [0.39, 0.31, 0.3]])
    >>> margin_inverse_confidence(p, np.random.default_rng(0)).round(2).tolist()  # 1 / 0.5 and 0.92 / 0.4
    [2.0, 2.3]
    """
    return np.asarray((1 - modal.margin(probabilities)) / (np.max(probabilities, axis=1) + 0.01))


#: query strategies by name
STRATEGIES: dict[str, Strategy] = {
    "margin": margin,
    "least_confident": least_confident,
    "entropy": entropy,
    "random": random,
    "margin_inverse_confidence": margin_inverse_confidence,
}


def score_pool(strategy: Strategy, probabilities: ArrayLike, rng: np.random.Generator) -> Floats:
    """Return the scores (n,) of a pool; NaN for a row that cannot be judged (NaN or infinite probabilities)."""
    matrix = np.asarray(probabilities, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise BadInput(name="probabilities", value=matrix.shape, remedy="must have the shape (rows, labels)")
    judged = np.isfinite(matrix).all(axis=1)
    scores = np.full(len(matrix), math.nan)
    if judged.any():
        scores[judged] = strategy(matrix[judged], rng)
    return scores


def select(scores: ArrayLike, n: int, ids: ArrayLike | None = None) -> NDArray[np.intp]:
    """Return the indices of the `n` rows to ask first, by (score, id): the same batch whatever the order of the rows.

    Rows with a NaN score come first, because what cannot be judged goes to a person. `n` is clipped to the pool.

    Parameters
    ----------
    scores : array (m,), larger = sooner
    ids : array (m,) of stable ids that break ties, smallest first; without them the row number does

    Examples
    --------
    >>> select([0.2, 0.9, float("nan"), 0.9], n=3, ids=["d", "c", "b", "a"]).tolist()
    [2, 3, 1]
    """
    ranks = -np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=math.inf, posinf=math.inf, neginf=-math.inf)
    names = np.arange(len(ranks)) if ids is None else np.asarray(ids)
    if names.shape != ranks.shape:
        raise BadInput(name="ids", value=names.shape, remedy=f"needs one id for each of the {len(ranks)} rows")
    if isinstance(n, bool) or n != int(n) or n < 0:
        raise BadInput(name="n", value=n, remedy="must be a whole number, 0 or more")
    n = min(int(n), len(ranks))
    if n == 0:
        return np.empty(0, dtype=np.intp)
    among = np.flatnonzero(ranks <= np.partition(ranks, n - 1)[n - 1])  # all ties of the last one taken are in it
    tied = names[among] if names.dtype.kind in "iu" else names[among].astype(str)
    return among[np.lexsort((tied, ranks[among]))][:n]


def check_strategy(strategy: Strategy) -> None:
    """Test a query strategy of your own: shape, finite scores, seeded chance only, no side effects, row by row.

    Raises
    ------
    LearnerError : naming the first rule that is broken

    Examples
    --------
    >>> check_strategy(margin)
    >>> check_strategy(lambda probabilities, rng: probabilities)
    Traceback (most recent call last):
    hitl_nb.errors.LearnerError: strategy '<lambda>' breaks a rule: one score per row
    """
    pools = [np.random.default_rng(k).dirichlet(np.ones(k), size=n) for k, n in [(1, 3), (2, 7), (10, 50)]]
    for pool in [*pools, np.eye(3), np.full((4, 4), 0.25)]:
        given = pool.copy()
        scores = np.asarray(strategy(given, np.random.default_rng(0)))
        again, other = (np.asarray(strategy(pool.copy(), np.random.default_rng(seed))) for seed in (0, 1))
        shape = scores.shape == (len(pool),)
        by_chance = shape and not np.array_equal(scores, other)
        rules = {
            "one score per row": shape,
            "scores are finite": shape and bool(np.isfinite(scores).all()),
            "the probabilities stay as they were": np.array_equal(given, pool),
            "the same generator gives the same scores": np.array_equal(scores, again),
            "a row's score does not hang on its place": by_chance
            or (shape and np.allclose(strategy(pool[::-1].copy(), np.random.default_rng(0))[::-1], scores)),
        }
        keep_rules("strategy", strategy, rules)
