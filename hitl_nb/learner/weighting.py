"""How much each labelled row counts in a fit.

A weighting is a function from confidences (n,) to raw weights (n,): finite, 0 or more. One that is marked `on_rows`
gets the labelled rows instead: a frame with label, confidence, outcome, source and review_probability. Raw weights are
what is stored; `fit_weights` bounds them and brings them to mean 1 for the fit; `check_weighting` tests one of yours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput, LearnerError, plain
from hitl_nb.evidence import inverse_confidence, inverse_propensity
from hitl_nb.evidence import lure as lure_weights
from hitl_nb.evidence.weight import UNKNOWN_CONFIDENCE

Floats = NDArray[np.float64]
#: confidences (n,), NaN where unknown, or rows where it is marked so -> raw weights (n,)
Weighting = Callable[[Any], Floats]
#: how much more than others a corrected row counts where the model was sure of its wrong answer
BOOST = 2.0

#: no row weighs more than this before weights are brought to mean 1
CAP = 10.0


def ones(confidence: ArrayLike) -> Floats:
    """Let each row count the same: the arm to compare any other weighting with.

    >>> ones([0.2, 0.9]).tolist()
    [1.0, 1.0]
    """
    return np.ones(np.shape(confidence))


def on_rows(weighting: Weighting) -> Weighting:
    """Mark a weighting that looks at labelled rows, not at confidences alone."""
    weighting.on_rows = True  # type: ignore[attr-defined]
    return weighting


def weigh(weighting: Weighting, rows: pd.DataFrame) -> Floats:
    """Return the raw weights of labelled rows."""
    given = rows.copy() if getattr(weighting, "on_rows", False) else rows["confidence"].to_numpy(float)
    return np.asarray(weighting(given), dtype=np.float64)


@on_rows
def correction_boost(rows: pd.DataFrame) -> Floats:
    """Let a corrected row count the more the surer the model was: inverse confidence gives those the least.

    >>> correction_boost(pd.DataFrame({"outcome": ["correct", "correct", "approve"], "confidence": [1.0, 0.5, 1.0]}))
    array([3., 2., 1.])
    """
    sure = rows["confidence"].fillna(UNKNOWN_CONFIDENCE).to_numpy(float)
    return np.asarray(1 + BOOST * sure * (rows["outcome"] == "correct").to_numpy(bool))


@on_rows
def class_balanced(rows: pd.DataFrame) -> Floats:
    """Let each class count the same: n / (classes * rows of the class), as ``class_weight="balanced"`` does.

    >>> class_balanced(pd.DataFrame({"label": ["a", "a", "a", "b"]})).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    counts = rows["label"].map(rows["label"].value_counts()).to_numpy(float)
    return np.asarray(len(rows) / (max(rows["label"].nunique(), 1) * counts))


@on_rows
def propensity(rows: pd.DataFrame) -> Floats:
    """Undo a choice by chance: 1 / review_probability, and 1 where that is not known."""
    return inverse_propensity(rows["review_probability"])


def lure(pool: int) -> Weighting:
    """Return a weighting that undoes a choice one by one from a pool of `pool` rows; see `hitl_nb.evidence.lure`.

    ``review_probability`` is the chance with which a row was drawn at its turn; turns go by task id.
    """

    @on_rows
    def lure_of_pool(rows: pd.DataFrame) -> Floats:
        return lure_weights(rows["review_probability"], pool)

    return lure_of_pool


#: weightings by name
WEIGHTINGS: dict[str, Weighting] = {
    "ones": ones, "inverse_confidence": inverse_confidence, "correction_boost": correction_boost,
    "class_balanced": class_balanced, "inverse_propensity": propensity,
}  # fmt: skip


def fit_weights(raw: ArrayLike, cap: float = CAP) -> Floats:
    """Return the weights of a fit: raw ones capped, then divided by their mean.

    Without the cap one row at confidence 0 would count as much as a hundred at 0.99.

    Raises
    ------
    BadInput : a negative, NaN or infinite weight, or none above 0

    Examples
    --------
    >>> fit_weights([1.0, 4.0, 100.0]).tolist()  # capped 1, 4, 10; mean 5
    [0.2, 0.8, 2.0]
    """
    weights = np.asarray(raw, dtype=np.float64)
    bad = ~((weights >= 0) & (weights < math.inf))
    if bad.any():
        raise BadInput(name="weight", value=float(weights[bad][0]), remedy="must be finite and 0 or more")
    capped = np.minimum(weights, cap)
    if not capped.any():
        raise BadInput(name="weight", value=weights.tolist(), remedy="at least one row needs a weight above 0")
    return np.asarray(capped / capped.mean())


def effective_size(weights: ArrayLike) -> float:
    """Return how many equally weighted rows carry as much as these (Kish 1965): (sum w)^2 / sum w^2.

    >>> effective_size([1, 1, 1, 1]), effective_size([1, 0, 0, 0])
    (4.0, 1.0)
    """
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0


def weight_parameters(estimator: Any) -> tuple[str, ...]:
    """Return the names under which ``estimator.fit`` takes sample weights; in a pipeline, those of its last step.

    What cross-validates, such as ``CalibratedClassifierCV(pipeline)``, hands them on to what is inside.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> weight_parameters(make_pipeline(LogisticRegression()))
    ('logisticregression__sample_weight',)
    """
    from sklearn.utils.validation import has_fit_parameter

    if steps := getattr(estimator, "steps", None):
        name, last = steps[-1]
        return tuple(f"{name}__{inner}" for inner in weight_parameters(last))
    inside = getattr(estimator, "estimator", None) if hasattr(estimator, "cv") else None
    own = ("sample_weight",) if has_fit_parameter(estimator, "sample_weight") else ()
    if inside is None or (own and not hasattr(inside, "steps")):
        return own
    return own + weight_parameters(inside)


def rows_at(X: Any, index: NDArray[np.intp]) -> Any:
    """Return rows by number of a DataFrame, sparse matrix, array or list."""
    if hasattr(X, "iloc"):
        return X.iloc[index]
    return X.tocsr()[index] if hasattr(X, "tocsr") else np.asarray(X)[index]


def fit_weighted(estimator: Any, X: Any, y: Any, weights: ArrayLike, *, seed: int = 0, **fit_kwargs: Any) -> Any:
    """Fit `estimator` in place with one weight per row and return it.

    An estimator that takes no weights is fitted to as many rows drawn in proportion to them, with a warning: a label
    with few rows can be lost in the draw, so prefer one with ``sample_weight``.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if names := weight_parameters(estimator):
        with warnings.catch_warnings():  # it gets the weights of its pipeline under their own name
            warnings.filterwarnings("ignore", "Since .* does not appear to accept sample_weight", UserWarning)
            return estimator.fit(X, y, **dict.fromkeys(names, weights), **fit_kwargs)
    if weights.size and np.ptp(weights) > 0:
        warnings.warn(f"{type(estimator).__name__} takes no sample_weight; rows are resampled instead", stacklevel=2)
        rng = np.random.default_rng(seed)
        drawn = np.sort(rng.choice(len(weights), len(weights), p=weights / weights.sum()))
        X, y = rows_at(X, drawn), rows_at(y, drawn)
    return estimator.fit(X, y, **fit_kwargs)


def keep_rules(kind: str, function: Any, rules: Mapping[str, bool]) -> None:
    """Name the first rule that a function of the user's breaks."""
    if broken := [rule for rule, kept in rules.items() if not kept]:
        name = getattr(function, "__name__", type(function).__name__)
        raise LearnerError(what=plain(f"{kind} {name!r} breaks a rule: {broken[0]}"), rule=broken[0])


def check_weighting(weighting: Weighting) -> None:
    """Test a weighting of your own: shape, finite, 0 or more, unknown confidences, no side effects, no chance.

    Raises
    ------
    LearnerError : naming the first rule that is broken

    Examples
    --------
    >>> check_weighting(lambda confidence: 2 - np.nan_to_num(confidence, nan=0.5))
    >>> check_weighting(lambda confidence: confidence - 0.5)
    Traceback (most recent call last):
    hitl_nb.errors.LearnerError: weighting '<lambda>' breaks a rule: weights are finite and 0 or more
    """
    cases = [np.array(c) for c in ([], [0.0], [1.0], [math.nan], [0.2, math.nan, 0.9, 0.2, 0.0, 1.0])]
    for case in cases:
        n, confidences = len(case), not getattr(weighting, "on_rows", False)
        rows = pd.DataFrame({"label": ["a", "b", "a", "a", "c", "a"][:n], "confidence": case}).assign(
            outcome=["approve", "correct", "reject"] * (n // 3) or "correct", source="human_review",
            review_probability=[math.nan, 0.02, 1.0] * (n // 3) or 0.5,
        )  # fmt: skip
        known: Any = case if confidences else rows
        given = known.copy()
        weights = np.asarray(weighting(given), dtype=np.float64)
        same = np.array_equal(given, known, equal_nan=True) if confidences else given.equals(known)
        rules = {
            "one weight per row": weights.shape == case.shape,
            "weights are finite and 0 or more": bool((np.isfinite(weights) & (weights >= 0)).all()),
            "not all weights are 0": not weights.size or bool(weights.any()) or bool((case == 1).all()),
            "the argument stays as it was": same,
            "the same confidences give the same weights": np.array_equal(weights, weighting(known.copy())),
        }
        keep_rules("weighting", weighting, rules)
