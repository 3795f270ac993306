"""When to stop asking: advice, never an order. How many labels are still needed, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence.check import within

#: models in a row that must agree, and how much (Cohen's kappa), as Bloodgood and Vijay-Shanker found in 2009
WINDOW, AGREED = 3, 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Labels that an error rate takes; made by `forecast`."""

    #: labels in all, inf where the errors do not fall
    labels: float
    #: lower end of the interval
    low: float
    #: upper end of the interval, inf where the errors may not fall at all
    high: float
    #: how often such an interval holds the truth, if the curve is one, a share
    level: float
    #: by how much the error rate is expected to fall with the next `step` labels, a share
    gain: float

    def __str__(self) -> str:
        ends = [f"{n:,.0f}" if n < np.inf else "no number" for n in (self.labels, self.low, self.high)]
        return f"about {ends[0]} labels in all ({ends[1]} to {ends[2]} at {self.level:.0%})"


def forecast(
    labels: ArrayLike, wrong: ArrayLike, of: ArrayLike, target: float, *, level: float = 0.9, step: int = 100,
    seed: int = 0,
) -> Forecast:  # fmt: skip
    """Say how many labels an error rate takes, from the models so far.

    A line is laid through the logarithms of labels and errors (a power law, as learning curves mostly are: Viering and
    Loog 2022, arXiv 2103.10948). The interval comes from redrawing each error rate from its posterior (Jeffreys): it
    holds what counting few errors leaves open, not that the curve may bend.

    Parameters
    ----------
    labels, wrong, of : for each model what it was fitted to, and how many of how many random cases it got wrong
    target : error rate that is wanted, a share

    Examples
    --------
    >>> print(forecast([100, 200, 400], [400, 200, 100], [2000] * 3, target=0.025))  # halved each time
    about 805 labels in all (659 to 1,032 at 90%)
    """
    n, k, m = (np.asarray(one, dtype=np.float64) for one in (labels, wrong, of))
    if n.ndim != 1 or not n.shape == k.shape == m.shape or ((n <= 0) | (k < 0) | (k > m)).any():
        raise BadInput(name="labels, wrong, of", value=(labels, wrong, of), remedy="need a count each for every model")
    if len(np.unique(n)) < 3:
        raise EvidenceError(what=f"{len(np.unique(n))} sizes are too few for a curve; it takes models of three")
    within("target", target, inside=True)
    drawn = np.random.default_rng(seed).beta(k + 0.5, m - k + 0.5, size=(2000, len(k)))
    slope, start = np.polyfit(np.log(n), np.log(np.vstack([(k + 0.5) / (m + 1), drawn])).T, 1)
    with np.errstate(over="ignore", divide="ignore"):
        needed = np.where(slope < 0, np.exp((np.log(target) - start) / slope), np.inf)
    tail = (1 - within("level", level, inside=True)) / 2
    low, high = np.quantile(needed[1:], [tail, 1 - tail], method="inverted_cdf")
    now, then = np.exp(start[0] + slope[0] * np.log([n.max(), n.max() + step]))
    ends = {"labels": needed[0], "low": low, "high": high, "gain": now - then}
    return Forecast(level=level, **{name: float(value) for name, value in ends.items()})


def reasons_to_stop(
    answers: Sequence[ArrayLike], *, gain: float | None = None, worth: float = 0.005, reviewed: int = 0,
    budget: int | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Return what speaks for an end, a sentence each; nothing: go on.

    Parameters
    ----------
    answers : what each model so far says about the same unlabelled rows, the present one last
    gain, worth : expected fall of the error rate (`Forecast.gain`), and the least that is worth the next labels
    reviewed, budget : answers so far, and how many there may be

    Examples
    --------
    >>> reasons_to_stop([["a", "b"]] * 4)
    ('the last 4 models say the same of nearly all unlabelled rows',)
    >>> reasons_to_stop([], gain=0.001, reviewed=500, budget=500)
    ('the next labels are expected to take 0.1% off the errors, less than 0.5%', 'the budget of 500 answers is used up')
    """
    from sklearn.metrics import cohen_kappa_score

    last, found = [np.asarray(one).astype(str) for one in answers[-WINDOW - 1 :]], []
    if len(last) > WINDOW and all((a == b).all() or cohen_kappa_score(a, b) >= AGREED for a, b in pairwise(last)):
        found.append(f"the last {len(last)} models say the same of nearly all unlabelled rows")
    if gain is not None and gain < worth:
        found.append(f"the next labels are expected to take {gain:.1%} off the errors, less than {worth:.1%}")
    if budget is not None and reviewed >= budget:
        found.append(f"the budget of {budget:,} answers is used up")
    return tuple(found)
