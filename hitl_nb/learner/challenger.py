"""A fitted model, and what it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


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
