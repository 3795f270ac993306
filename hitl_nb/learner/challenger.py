"""A fitted model, and what it was made from."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a model was made from; kept beside it wherever it goes."""

    #: its name: v1, v2, …
    version: str
    #: rows it was fitted to
    n_rows: int = 0
    #: rows of equal weight that would carry as much (Kish)
    effective_size: float = 0.0
    #: name of exactly those rows
    data_hash: str = ""
    #: name of the query strategy
    strategy: str = ""
    #: name of the weighting
    weighting: str = ""
    #: figures of the fit and of the comparison
    metrics: Mapping[str, Any] = field(default_factory=dict)
    #: feature columns in the order of the fit
    columns: tuple[str | int, ...] = ()
    #: task id of each row it was fitted to, with the hash of the row
    trained: Mapping[str, int] = field(default_factory=dict, repr=False)
    #: task ids that were held out then
    held: tuple[str, ...] = field(default=(), repr=False)

    @property
    def number(self) -> int:
        """The n of a version v<n>; 0 for any other name."""
        found = re.fullmatch(r"v([0-9]{1,9})", self.version)
        return int(found[1]) if found else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenger(Origin):
    """A fitted model; the one in use is called champion."""

    #: the fitted estimator
    model: Any


def is_fitted(estimator: Any) -> bool:
    """Say whether an estimator was fitted."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def seeded(estimator: Any, seed: int) -> Any:
    """Return an unfitted clone whose open random states are `seed`, so that the same rows give the same model."""
    fresh = clone(estimator)
    is_open = {k: seed for k, v in fresh.get_params().items() if k.split("__")[-1] == "random_state" and v is None}
    return fresh.set_params(**is_open)


def probabilities_of(model: Any, x: Any) -> NDArray[np.float64]:
    """Return (n, k) probabilities; rows that the model refuses because of gaps are NaN, so they go to a person."""
    try:
        return np.asarray(model.predict_proba(x), dtype=np.float64)
    except ValueError:
        if not isinstance(x, (pd.DataFrame, np.ndarray)):
            raise
        whole = np.asarray(pd.DataFrame(x).replace([np.inf, -np.inf], np.nan).notna().all(axis=1))
        if len(whole) and whole.all():
            raise
        matrix = np.full((len(whole), len(model.classes_)), np.nan)
        if whole.any():
            matrix[whole] = model.predict_proba(x[whole])
        return matrix


def warm_names(estimator: Any) -> list[str]:
    """Return the parameters that let a fit begin where the last one ended; more trees are no better beginning."""
    names = [name for name in estimator.get_params() if name.split("__")[-1] == "warm_start"]
    return [name for name in names if f"{name.removesuffix('warm_start')}n_estimators" not in estimator.get_params()]


def bare(model: Any) -> Any:
    """Return a model without the temperature that `calibrated` put around it."""
    from sklearn.frozen import FrozenEstimator

    inside = getattr(model, "estimator", None)
    return inside.estimator if isinstance(inside, FrozenEstimator) else model


def continued(champion: Challenger | None, y: NDArray[Any]) -> Any:
    """Return a copy of the model in use whose fit begins there; None if there is none, or the classes are others."""
    model = bare(champion.model) if champion else None
    if model is None or set(model.classes_.tolist()) != set(y.tolist()):
        return None
    return copy.deepcopy(model).set_params(**dict.fromkeys(warm_names(model), True))


def calibrated(model: Any, x: Any, y: NDArray[Any]) -> Any:
    """Return a fitted model with one temperature for its probabilities, fitted to random rows that hold every class.

    Where a class is missing among them the model comes back as it is; so it does where one of them would get another
    answer: some models answer by other scores than those that a temperature scales.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    if set(y.tolist()) != set(model.classes_.tolist()):
        return model
    found = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(x, y)
    same = (found.predict_proba(x).argmax(axis=1) == model.predict_proba(x).argmax(axis=1)).all()
    return found if same else model
