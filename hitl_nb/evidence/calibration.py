"""How far confidences are from the shares of right answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput, EvidenceError


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Figures of confidences against outcomes, all shares; made by `calibration`."""

    #: expected calibration error: mean distance of confidence and share right, over bins of equally many cases
    ece: float
    #: largest distance of the summed confidences from the summed right answers; needs no bins (Gupta and others 2021)
    ks: float
    #: mean squared distance of confidence and outcome (Brier 1950), which is reliability - resolution + uncertainty
    brier: float
    #: its parts over the bins (Murphy 1973): distance from the share right, use of the bins, spread of the outcome
    reliability: float
    resolution: float
    uncertainty: float
    #: cases behind it
    n: int

    def __str__(self) -> str:
        return f"confidences are off by {self.ece:.1%} on average (Brier {self.brier:.3f}, n = {self.n:,})"


def bins_of(confidence: NDArray[np.float64], bins: int) -> list[NDArray[np.int64]]:
    """Return the positions of cases in bins of equally many, least confident first; equal confidences stay together.

    >>> [one.tolist() for one in bins_of(np.array([0.9, 0.1, 0.5, 0.5]), 2)]
    [[1, 2, 3], [0]]
    """
    order = np.argsort(confidence, kind="stable")
    wanted = np.linspace(0, len(order), bins + 1).astype(int)[1:] - 1
    ends = np.searchsorted(confidence[order], confidence[order][wanted], side="right")
    return [part for part in np.split(order, np.unique(ends)) if len(part)]


def calibration(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> Calibration:
    """Measure how far confidences are from the shares of right answers.

    Parameters
    ----------
    confidence, right
        A share and an outcome (0 or 1) for each case, shape (n,).
    bins
        Of equally many cases, for the measures that need them.

    Examples
    --------
    >>> print(calibration([0.8] * 10, [1] * 6 + [0] * 4))
    confidences are off by 20.0% on average (Brier 0.280, n = 10)
    """
    sure, outcome = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if sure.shape != outcome.shape or sure.ndim != 1:
        raise BadInput(
            name="confidence, right", value=(sure.shape, outcome.shape), remedy="need the same cases in each"
        )
    if not len(sure):
        raise EvidenceError(what="no judged case: nothing can be said about the confidences")
    for name, given, odd in (
        ("confidence", sure, ~((sure >= 0) & (sure <= 1))),
        ("right", outcome, ~np.isin(outcome, (0, 1))),
    ):
        if odd.any():
            raise BadInput(name=name, value=float(given[odd][0]), remedy="must lie between 0 and 1")
    parts = bins_of(sure, bins)
    weight = np.array([len(part) for part in parts]) / len(sure)
    said, share = (np.array([given[part].mean() for part in parts]) for given in (sure, outcome))
    summed, spread = np.cumsum((sure - outcome)[np.argsort(sure, kind="stable")]), outcome.mean() * (1 - outcome.mean())
    return Calibration(
        ece=float(weight @ np.abs(said - share)), ks=float(np.abs(summed).max() / len(sure)),
        brier=float(np.mean((sure - outcome) ** 2)), reliability=float(weight @ (said - share) ** 2),
        resolution=float(weight @ (share - outcome.mean()) ** 2), uncertainty=float(spread), n=len(sure),
    )  # fmt: skip
