"""How much each labelled row counts in a fit.

A weighting is a function from confidences (n,) to raw weights (n,): finite, 0 or more. Raw weights are what is stored;
`fit_weights` bounds them and brings them to mean 1 for the fit. `check_weighting` tests one of your own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput, LearnerError, plain
from hitl_nb.evidence import inverse_confidence

Floats = NDArray[np.float64]
#: confidences (n,), NaN where unknown -> raw weights (n,)
Weighting = Callable[[Floats], Floats]

#: no row weighs more than this before weights are brought to mean 1
CAP = 10.0


def ones(confidence: ArrayLike) -> Floats:
    """Let each row count the same: the arm to compare any other weighting with.

    >>> ones([0.2, 0.9]).tolist()
    [1.0, 1.0]
    """
    return np.ones(np.shape(confidence))


#: weightings by name
WEIGHTINGS: dict[str, Weighting] = {"ones": ones, "inverse_confidence": inverse_confidence}


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


def weight_parameter(estimator: Any) -> str | None:
    """Return the name under which ``estimator.fit`` takes sample weights, or None; in a pipeline, of its last step.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> weight_parameter(make_pipeline(LogisticRegression()))
    'logisticregression__sample_weight'
    """
    from sklearn.utils.validation import has_fit_parameter

    if steps := getattr(estimator, "steps", None):
        name, last = steps[-1]
        inner = weight_parameter(last)
        return f"{name}__{inner}" if inner else None
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None


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
    if name := weight_parameter(estimator):
        return estimator.fit(X, y, **{name: weights}, **fit_kwargs)
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
        given = case.copy()
        weights = np.asarray(weighting(given), dtype=np.float64)
        rules = {
            "one weight per row": weights.shape == case.shape,
            "weights are finite and 0 or more": bool((np.isfinite(weights) & (weights >= 0)).all()),
            "not all weights are 0": not weights.size or bool(weights.any()) or bool((case == 1).all()),
            "the argument stays as it was": np.array_equal(given, case, equal_nan=True),
            "the same confidences give the same weights": np.array_equal(weights, weighting(case.copy())),
        }
        keep_rules("weighting", weighting, rules)
