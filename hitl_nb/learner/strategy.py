"""Which candidates to ask a person about.

A query strategy is a function ``(probabilities (n, k), rng) -> scores (n,)``; the larger the score, the sooner it is
asked. It scores row by row, so a pool may come in parts. What else it needs it names as further arguments, see
`GIVEN`; one that names ``n`` sees the whole pool at once and gives the largest scores to the batch that it picks.
`score_pool` applies one, `select` picks by score and stable id, `check_strategy` tests one of your own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import count, within
from hitl_nb.learner import committee, modal
from hitl_nb.learner.batch import ranked_batch, steady
from hitl_nb.learner.weighting import keep_rules, rows_at

Floats = NDArray[np.float64]
#: ``(probabilities (n, k), generator, **what it names of GIVEN) -> scores (n,)``
Strategy = Callable[..., Floats]

#: what a strategy may name besides probabilities and generator
GIVEN = {
    "X": "features of the rows, as the last step of the model takes them",
    "votes": "probabilities of each member of a committee, (n, members, k)",
    "n": "size of the batch",
    "labelled": "features of the rows that the next fit would train on",
    "labels": "their labels",
    "model": "the champion",
}
#: rows that are scored at a time: as many as a processor's cache holds
BLOCK = 4096


def margin(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where two labels compete: 1 - (p1 - p2) (Scheffer 2001).

    A label that was never seen competes with none: begin with so many random labels that each has come a few times, or
    take `Exploring`.

    >>> margin(np.array([[0.5, 0.25, 0.25]]), np.random.default_rng(0)).tolist()
    [0.75]
    """
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)
    return np.asarray(1 - (top[:, -1] - top[:, -2]))


def least_confident(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where the best label is improbable: 1 - p1 (Lewis and Gale 1994).

    >>> least_confident(np.array([[0.5, 0.25, 0.25]]), np.random.default_rng(0)).tolist()
    [0.5]
    """
    return modal.least_confident_uncertainty(probabilities)


def entropy(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where many labels compete (Shannon entropy, nats); with many classes often no better than chance."""
    return modal.entropy(probabilities)


def margin_inverse_confidence(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Ask where two labels compete, and the more so the less probable the best one is: (1 - (p1 - p2)) / (p1 + 0.01).

    Times the least-confident score, 1 - p1, it would order like least-confident alone; times the margin it does not.

    >>> p = np.array([[0.49, 0.49, 0.02], [0.39, 0.31, 0.3]])
    >>> margin_inverse_confidence(p, np.random.default_rng(0)).round(2).tolist()  # 1 / 0.5 and 0.92 / 0.4
    [2.0, 2.3]
    """
    return np.asarray(margin(probabilities, rng) / (probabilities.max(axis=1) + 0.01))


def margin_subset(probabilities: Floats, rng: np.random.Generator, share: float = 0.1) -> Floats:
    """Ask where two labels compete among a random tenth of the rows (Ertekin 2007): fewer of a kind in one batch.

    Rows outside of it come only when it has run out. Another share: ``functools.partial(margin_subset, share=0.3)``.
    """
    return margin(probabilities, rng) - 2.0 * (rng.random(len(probabilities)) >= share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stochastic:
    """Draw without replacement, each time in proportion to (score of `by`) ** `power` (Kirsch 2021; Gumbel: Kool 2019).

    Every row can come, with a probability that `Learner.batch` returns, so what is learned from the batch can be
    weighted back to the pool.

    Examples
    --------
    >>> Stochastic(power=2.0).weight(np.array([[0.75, 0.25], [1.0, 0.0]]), np.random.default_rng(0)).tolist()
    [0.25, 1e-06]
    """

    #: strategy whose score counts; it may name nothing besides probabilities and generator
    by: Strategy = margin
    #: 0: all rows alike; the larger, the more like `by` itself
    power: float = 1.0
    #: a smaller score counts as this, so that no row is left out for good
    floor: float = 0.001

    def __post_init__(self) -> None:
        within("power", self.power, 0, 1000)
        within("floor", self.floor, 0, math.inf, inside=True)

    def weight(self, probabilities: Floats, rng: np.random.Generator) -> Floats:
        """Return what each row counts in the draw."""
        return np.asarray(np.maximum(self.by(probabilities, rng), self.floor) ** self.power)

    def __call__(self, probabilities: Floats, rng: np.random.Generator) -> Floats:
        """Return log weights with Gumbel noise: their largest are the draw."""
        return self.drawn(self.weight(probabilities, rng), rng)

    @staticmethod
    def drawn(weights: Floats, rng: np.random.Generator) -> Floats:
        """Return the scores of rows whose weights are known."""
        return np.log(weights) + rng.gumbel(size=len(weights))


def margin_odds(probabilities: Floats, rng: np.random.Generator) -> Floats:
    """Order as `margin` does, with room at both ends: margin / (1 - margin), at most 1,000.

    >>> margin_odds(np.array([[0.5, 0.25, 0.25]]), np.random.default_rng(0)).tolist()  # 0.75 / 0.25
    [3.0]
    """
    found = margin(probabilities, rng)
    return np.asarray(found / np.maximum(1 - found, 0.001))


@dataclass(frozen=True, kw_only=True, slots=True)
class Exploring:
    """The default: draw by margin, the more freely the fewer labels there are.

    A model of few labels is sure where it knows nothing, at the worst about a whole class that has not come yet; and
    the smallest margins are full of twins. So a row counts (margin / (1 - margin)) ** power in a draw without
    replacement (`Stochastic`; power acquisition, Kirsch 2021, arXiv 2106.12059). The power grows with the labels per
    known class; it ends at 32, where only near ties are still drawn.

    Examples
    --------
    >>> Exploring().at(labels=20, classes=2).power  # 10 of each class, to 10
    1.0
    >>> Exploring().at(labels=0, classes=2) is margin  # a model from elsewhere: what it learned from is not known
    True
    """

    #: labels per known class at which the odds count as they are (power 1)
    each: float = 10.0

    def __post_init__(self) -> None:
        within("each", self.each, 0, math.inf, inside=True)

    def at(self, labels: int, classes: int) -> Strategy:
        """Return the strategy for a model that was fitted to so many labels of so many classes."""
        return Stochastic(by=margin_odds, power=min(labels / classes / self.each, 32.0)) if labels else margin

    def __call__(self, probabilities: Floats, rng: np.random.Generator, labels: ArrayLike) -> Floats:
        """Return scores: their largest are the draw."""
        return np.asarray(self.at(np.size(labels), probabilities.shape[1])(probabilities, rng))


#: query strategies by name; random is the arm to compare any other with; what ends in "sampling" are modAL's names
STRATEGIES: dict[str, Strategy] = {
    "exploring_margin": Exploring(),
    "margin": margin,
    "least_confident": least_confident,
    "entropy": entropy,
    "random": Stochastic(power=0.0),
    "margin_inverse_confidence": margin_inverse_confidence,
    "margin_subset": margin_subset,
    "stochastic_margin": Stochastic(),
    "ranked_batch": ranked_batch,
    "committee_disagreement": committee.disagreement,
    "uncertainty_sampling": least_confident,
    "margin_sampling": margin,
    "entropy_sampling": entropy,
    "uncertainty_batch_sampling": ranked_batch,
    "vote_entropy_sampling": committee.vote_entropy,
    "consensus_entropy_sampling": committee.consensus_entropy,
    "max_disagreement_sampling": committee.max_disagreement,
}


def wants(strategy: Strategy) -> frozenset[str]:
    """Return what a strategy names of `GIVEN`.

    Raises
    ------
    BadInput : it needs an argument that is none of them

    Examples
    --------
    >>> sorted(wants(ranked_batch)), sorted(wants(margin))
    (['X', 'labelled', 'n'], [])
    """
    further = list(inspect.signature(strategy).parameters.values())[2:]
    needed = [
        its.name
        for its in further
        if its.default is its.empty and its.kind not in (its.VAR_KEYWORD, its.VAR_POSITIONAL)
    ]
    if odd := sorted(set(needed) - set(GIVEN)):
        raise BadInput(name="strategy", value=odd, remedy=f"a strategy can name {', '.join(GIVEN)}, and nothing else")
    return frozenset(its.name for its in further) & frozenset(GIVEN)


def score_pool(strategy: Strategy, probabilities: ArrayLike, rng: np.random.Generator, **given: Any) -> Floats:
    """Return the scores (n,) of a pool; NaN for a row that cannot be judged (NaN or infinite probabilities).

    `given` is what the strategy names of `GIVEN`; X and votes have one entry for each row of probabilities.
    """
    matrix = np.asarray(probabilities)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise BadInput(name="probabilities", value=matrix.shape, remedy="must have the shape (rows, labels)")
    names = wants(strategy)
    if missing := sorted(names - set(given)):
        raise BadInput(name="strategy", value=missing, remedy="it names these; hand them to score_pool by name")
    scores, block = np.full(len(matrix), math.nan), max(len(matrix), 1) if "n" in names else BLOCK
    for start in range(0, len(matrix), block):
        part = np.asarray(matrix[start : start + block], dtype=np.float64)
        judged = np.arange(len(part)) if math.isfinite(part.sum()) else np.flatnonzero(np.isfinite(part).all(axis=1))
        if len(judged):
            part = part if len(judged) == len(part) else part[judged]
            more = {k: rows_at(v, start + judged) if k in ("X", "votes") else v for k, v in given.items() if k in names}
            scores[start + judged] = strategy(part, rng, **more)
    return scores


def named(value: Any, known: Mapping[str, Any], kind: str) -> tuple[str, Any]:
    """Return the name and the function of what is given by either.

    >>> named("margin", {"margin": max}, "strategy")
    ('margin', <built-in function max>)
    """
    if getattr(value, "__module__", "").startswith("modAL."):
        value = value.__name__
    if callable(value):
        return getattr(value, "__name__", type(value).__name__), value
    if value not in known:
        raise BadInput(name=kind, value=value, remedy=f"is none of {', '.join(known)}, and no function")
    return value, known[value]


def select(scores: ArrayLike, n: int, ids: ArrayLike | None = None) -> NDArray[np.intp]:
    """Return the indices of the `n` rows to ask first, by (score, id): the same batch whatever the order of the rows.

    Rows with a NaN score come first, because what cannot be judged goes to a person. `n` is clipped to the pool.
    Scores that agree to 12 digits are equal, because the last ones hang on the processor.

    Parameters
    ----------
    scores : array (m,), larger = sooner
    ids : array (m,) of stable ids that break ties, smallest first; without them the row number does

    Examples
    --------
    >>> select([0.2, 0.9, float("nan"), 0.9], n=3, ids=["d", "c", "b", "a"]).tolist()
    [2, 3, 1]
    """
    found = np.asarray(scores, dtype=np.float64)
    names = np.arange(len(found)) if ids is None else np.asarray(ids)
    if names.shape != found.shape:
        raise BadInput(name="ids", value=names.shape, remedy=f"needs one id for each of the {len(found)} rows")
    n = min(count("n", n), len(found))
    if n == 0:
        return np.empty(0, dtype=np.intp)
    last = np.partition(found, len(found) - n)[len(found) - n]  # NaN counts as the largest
    reach = last if math.isinf(last) else last - abs(last) * 1e-11
    among = np.flatnonzero(np.isnan(found) if math.isnan(last) else ~(found < reach))  # with all ties of the last one
    tied = names[among] if names.dtype.kind in "iu" else names[among].astype(str)
    return among[np.lexsort((tied, -steady(np.nan_to_num(found[among])), ~np.isnan(found[among])))][:n]


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
    names = wants(strategy)
    pools = [np.random.default_rng(k).dirichlet(np.ones(k), size=n) for k, n in [(1, 3), (2, 7), (10, 50)]]
    for pool in [*pools, np.eye(3), np.full((4, 4), 0.25)]:
        rest = _example(pool)

        def run(rows: slice = slice(None), seed: int = 0, pool: Floats = pool, rest: dict[str, Any] = rest) -> Floats:
            more = {name: rest[name][rows] if name in ("X", "votes") else rest[name] for name in names}
            return np.asarray(strategy(pool[rows], np.random.default_rng(seed), **more))

        given, before = pool.copy(), {name: np.copy(value) for name, value in rest.items() if name != "model"}
        scores, again = run(), run()
        shape, half = scores.shape == (len(pool),), len(pool) // 2
        free = not shape or "n" in names or not np.array_equal(scores, run(seed=1))  # by chance, or as a whole
        rules = {
            "one score per row": shape,
            "scores are finite": shape and bool(np.isfinite(scores).all()),
            "the probabilities stay as they were": np.array_equal(given, pool),
            "what it is given stays as it was": all(
                np.array_equal(value, rest[name]) for name, value in before.items()
            ),
            "the same generator gives the same scores": np.array_equal(scores, again),
            "a row's score does not hang on its place": free or np.allclose(run(slice(None, None, -1))[::-1], scores),
            "a row's score does not hang on other rows, unless it names n": free
            or np.allclose(run(slice(half)), scores[:half]),
        }
        keep_rules("strategy", strategy, rules)


def _example(pool: Floats) -> dict[str, Any]:
    """Return something of each kind that a strategy may name."""
    from sklearn.ensemble import RandomForestClassifier

    rng, (rows, k) = np.random.default_rng(0), pool.shape
    labelled, labels = rng.normal(size=(2 * k, 3)), np.repeat(np.arange(k), 2)
    votes = rng.dirichlet(np.ones(k), size=(rows, 4))
    model = RandomForestClassifier(3, random_state=0).fit(labelled, labels)
    return {
        "X": rng.normal(size=(rows, 3)),
        "votes": votes,
        "n": 2,
        "labelled": labelled,
        "labels": labels,
        "model": model,
    }
