"""What the data can carry: weights, exact intervals, paired comparisons, certificates.

Pure functions of numbers: no clock, no files, no randomness. Rates are shares between 0 and 1, never percent.

>>> round(clopper_pearson(0, 24).high, 2)  # no error in 24 audits does not mean "no errors"
0.14
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput, EvidenceError, plain

#: confidence that stands in for an unknown one when weights are computed
UNKNOWN_CONFIDENCE = 0.5
#: share of doubtful double audits assumed before there is one: two reviewers who each err in 5 % disagree in 9.5 %
ASSUMED_DISAGREEMENT = 0.095
#: more double audits than this are never asked for
MOST_PAIRS = 10_000

Verdict = Literal["promote", "refuse", "undecided"]


def _within(name: str, value: float, low: float = 0.0, high: float = 1.0, *, inside: bool = False) -> float:
    """Return a number from `low` to `high`, refuse any other value by name; with `inside` the ends do not count."""
    number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if not number or not low <= value <= high or (inside and value in (low, high)):  # NaN lies nowhere
        strictly = "strictly " if inside else ""
        raise BadInput(name=name, value=value, remedy=f"must be a number {strictly}between {low:g} and {high:g}")
    return float(value)


def _count(name: str, value: int, most: float = math.inf) -> int:
    if _within(name, value, 0, most) % 1 or value == math.inf:
        raise BadInput(name=name, value=value, remedy="must be a whole number")
    return int(value)


# -- weights -----------------------------------------------------------------------------------------------------------


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


# -- intervals of a rate -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A rate with its error; ``str()`` gives it in percent."""

    #: best single guess, a share; NaN when there are no cases
    estimate: float
    #: lower end, a share
    low: float
    #: upper end, a share
    high: float
    #: how often such an interval holds the truth, a share
    level: float
    #: cases behind it
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.1%} ({self.low:.1%} to {self.high:.1%} at {self.level:.0%}, n = {self.n})"


def clopper_pearson(wrong: int, n: int, level: float = 0.95) -> Interval:
    """Return the exact two-sided interval of an error rate (Clopper and Pearson 1934); it never covers too rarely.

    For a one-sided upper bound at 95 % take ``clopper_pearson(wrong, n, level=0.90).high``. Without cases (``n`` 0)
    the interval is 0..1. It is valid at one look that was planned beforehand, not after each review.

    Examples
    --------
    >>> print(clopper_pearson(2, 100))
    2.0% (0.2% to 7.0% at 95%, n = 100)
    """
    from scipy.special import betaincinv

    wrong, n, tail = _count("wrong", wrong, _count("n", n)), int(n), (1 - _within("level", level, inside=True)) / 2
    low = float(betaincinv(wrong, n - wrong + 1, tail)) if wrong else 0.0
    high = float(betaincinv(wrong + 1, n - wrong, 1 - tail)) if wrong < n else 1.0
    return Interval(estimate=wrong / n if n else math.nan, low=low, high=high, level=level, n=n)


def _error_from_disagreement(disagreement: float) -> float:
    """Solve d = 2e(1 - e) for e; from d = 1/2 on, reviewers are as good as coins."""
    return (1 - math.sqrt(max(0.0, 1 - 2 * disagreement))) / 2


def reviewer_error(disagreements: int, pairs: int, level: float = 0.95) -> Interval:
    """Return how often one reviewer errs, from cases that two reviewers judged without seeing each other's answer.

    Two independent reviewers who each err with e disagree with 2e(1 - e). Valid if both err equally often, as often on
    right as on wrong answers, and not on the same cases (shared mistakes stay invisible). The interval is the exact one
    of the disagreement, carried over; it ends at 1/2, where a judgement says nothing.

    Raises
    ------
    EvidenceError : no pairs; ``pairs_needed`` says about how many it takes

    Examples
    --------
    >>> print(reviewer_error(19, 200))  # 2 x 0.05 x 0.95 = 0.095 = 19 / 200
    5.0% (3.0% to 7.8% at 95%, n = 200)
    """
    d = clopper_pearson(disagreements, pairs, level)
    if not pairs:
        raise _cannot_be_said(pairs_needed(level=level))
    estimate, low, high = (_error_from_disagreement(share) for share in (d.estimate, d.low, d.high))
    return Interval(estimate=estimate, low=low, high=high, level=level, n=d.n)


def pairs_needed(disagreement: float = ASSUMED_DISAGREEMENT, level: float = 0.95) -> int | None:
    """Return the fewest double audits that show reviewers to be better than coins at this share of disagreement.

    None when no affordable number does (a share of about 1/2 or more).

    >>> pairs_needed()
    9
    """
    _within("disagreement", disagreement)
    for pairs in range(1, MOST_PAIRS if disagreement < 0.5 else 1):
        if clopper_pearson(math.ceil(pairs * disagreement), pairs, level).high < 0.5:
            return pairs
    return None


def _cannot_be_said(needed: int | None) -> EvidenceError:
    remedy = f"needs about {needed} double audits" if needed else "the two reviewers disagree as often as coins would"
    return EvidenceError(what=plain(f"the true error rate cannot be said: {remedy}"), pairs_needed=needed)


def corrected_risk(wrong: int, n: int, disagreements: int, pairs: int, level: float = 0.95) -> Interval:
    """Return the true error rate among audited cases, freed from the reviewers' own errors.

    Auditors who err with e see ``observed = r (1 - e) + (1 - r) e`` where the truth is r: at e = 5 %, 0.8 % looks like
    5.7 %. So r = (observed - e) / (1 - 2e), clipped to 0..1. Both rates get exact intervals at half the error budget
    (Bonferroni, so the two may come from the same audits); r is monotone in each, so its ends lie at the corners.

    Of `n` audits, `wrong` said "wrong" (the first judgement of each case only); of `pairs` double audits the two
    answers of `disagreements` differ.

    Raises
    ------
    EvidenceError : no pairs, or reviewers may be as bad as coins; ``pairs_needed`` is a number or None

    Examples
    --------
    >>> print(corrected_risk(114, 2000, 38, 400))
    0.8% (0.0% to 3.9% at 95%, n = 2000)
    """
    split = (1 + _within("level", level, inside=True)) / 2
    observed, differ = clopper_pearson(wrong, n, split), clopper_pearson(disagreements, pairs, split)
    if not differ.high < 0.5:
        raise _cannot_be_said(pairs_needed(differ.estimate if pairs else ASSUMED_DISAGREEMENT, split))

    def risk(seen: float, disagreement: float) -> float:
        error = _error_from_disagreement(disagreement)
        return min(1.0, max(0.0, (seen - error) / (1 - 2 * error)))

    corners = [risk(seen, share) for seen in (observed.low, observed.high) for share in (differ.low, differ.high)]
    estimate = risk(observed.estimate, differ.estimate) if n else math.nan
    return Interval(estimate=estimate, low=min(corners), high=max(corners), level=level, n=observed.n)


# -- champion and challenger -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedComparison:
    """Two models on the same random cases; made by `compare_paired`."""

    #: challenger's error rate minus the champion's, a share; NaN without cases
    difference: float
    #: one-sided lower score bound of the difference
    low: float
    #: one-sided upper score bound of the difference
    high: float
    #: cases both models answered
    n: int
    #: cases that the challenger repaired
    only_champion_wrong: int
    #: cases that the challenger broke
    only_challenger_wrong: int
    #: cases that both got wrong
    both_wrong: int
    #: promote (proven not worse than the margin), refuse (proven worse), undecided
    verdict: Verdict
    #: about how many more random labels an equally good challenger needs, 80 % power; 0 unless undecided
    labels_needed: int

    def __str__(self) -> str:
        more = f", about {self.labels_needed} more random labels needed" if self.labels_needed else ""
        bounds = f"{self.difference:+.1%} errors ({self.low:+.1%} to {self.high:+.1%}, n = {self.n})"
        return f"{self.verdict}: {bounds}{more}"


def _null_variance(repaired: float, broken: float, n: float, delta: float) -> float:
    """Return the variance of one case's difference, fitted under difference = `delta` (Tango 1998, eq. 4-5)."""
    b = -repaired - broken + (2 * n - broken + repaired) * delta
    root = math.sqrt(max(0.0, b * b + 8 * n * repaired * delta * (1 - delta)))
    return max(0.0, 2 * (root - b) / (4 * n) + delta * (1 - delta))


def _score_bound(repaired: int, broken: int, n: int, z: float) -> float:
    """Return the delta whose score statistic is `z`, by bisection on the far side of the estimate, where it falls."""
    estimate = (broken - repaired) / n
    low, high = (-1.0, estimate) if z > 0 else (estimate, 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        excess = broken - repaired - n * middle - z * math.sqrt(n * _null_variance(repaired, broken, n, middle))
        low, high = (middle, high) if excess > 0 else (low, middle)
    return (low + high) / 2


def _labels_needed(repaired: int, broken: int, n: int, margin: float, z: float) -> int:
    """Return how many more cases bring 80 % power at difference 0.

    The discordance is an estimate, shrunk towards one in ten; so the plan is made for 85 %.
    """
    discordant = (repaired + broken + 1) / (n + 10)
    at_margin = math.sqrt(_null_variance(discordant / 2, discordant / 2, 1, margin))
    total = ((z * at_margin + 1.0364334 * math.sqrt(discordant)) / margin) ** 2
    return max(1, math.ceil(total) - n)


def compare_paired(
    champion_wrong: ArrayLike, challenger_wrong: ArrayLike, margin: float = 0.02, level: float = 0.95
) -> PairedComparison:
    """Say whether a challenger is proven not worse than the champion by more than `margin`.

    One-sided score bounds for a difference of paired proportions (Tango 1998, Statistics in Medicine 17:891-908).
    ``promote`` if the upper bound is at most `margin`; else ``refuse`` if the lower bound is above 0; else
    ``undecided``. "No significant difference" would promote on little data; this does not. A level holds for one look:
    each further look at the same cases adds its own chance of a wrong promotion.

    One boolean per random case and model, True where it erred; `margin` is the largest loss that is accepted, a share
    (0.02 is two points).

    Examples
    --------
    >>> champion, challenger = [False] * 200, [False] * 200
    >>> print(compare_paired(champion, challenger))
    promote: +0.0% errors (-1.3% to +1.3%, n = 200)
    """
    from scipy.special import ndtri

    champion, challenger = np.asarray(champion_wrong, dtype=object), np.asarray(challenger_wrong, dtype=object)
    if champion.shape != challenger.shape or champion.ndim != 1:
        sizes = (champion.shape, challenger.shape)
        raise BadInput(name="champion_wrong, challenger_wrong", value=sizes, remedy="need the same cases in each")
    if odd := [wrong for wrong in (*champion, *challenger) if wrong not in (0, 1)]:
        raise BadInput(name="wrong", value=odd[0], remedy="must be True or False for every case")
    _within("margin", margin, inside=True)
    first, second = champion.astype(bool), challenger.astype(bool)
    n, repaired, broken = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    z = float(ndtri(_within("level", level, inside=True)))
    low, high = (_score_bound(repaired, broken, n, sign * z) for sign in (1, -1)) if n else (-1.0, 1.0)
    verdict: Verdict = "promote" if high <= margin else "refuse" if low > 0 else "undecided"
    return PairedComparison(
        difference=(broken - repaired) / n if n else math.nan, low=low, high=high, n=n, verdict=verdict,
        only_champion_wrong=repaired, only_challenger_wrong=broken, both_wrong=int((first & second).sum()),
        labels_needed=_labels_needed(repaired, broken, n, margin, z) if verdict == "undecided" else 0,
    )  # fmt: skip


# -- certificates ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What a threshold rule promises: above `threshold`, risk is at most `target_risk`, and how sure that is.

    Examples
    --------
    >>> promise = Certificate(
    ...     threshold=0.9, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v7"
    ... )
    >>> Certificate.from_dict(promise.to_dict()) == promise
    True
    """

    #: lowest confidence that is decided without a person, a share; None when no threshold qualifies
    threshold: float | None
    #: error rate among automatic decisions that is promised not to be exceeded, a share; None: nothing is promised
    target_risk: float | None
    #: how often such a promise holds, a share; None: nothing is promised
    confidence_level: float | None
    #: labelled cases behind it
    n: int
    #: share of cases decided without a person at that threshold
    coverage: float
    #: name of the threshold rule
    kind: str
    #: version of the model it is valid for; None: any
    model: str | None = None
    #: why there is no threshold, one sentence; None when there is one
    reason_if_none: str | None = None
    #: name of the certificate; by default the first 12 hex digits of the sha256 of its content
    id: str = ""
    #: when it was taken back (UTC); None while valid
    revoked_at: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "target_risk", "confidence_level", "coverage"):
            if getattr(self, name) is not None or name == "coverage":
                object.__setattr__(self, name, _within(name, getattr(self, name)))  # numpy numbers become plain ones
        object.__setattr__(self, "n", _count("n", self.n))
        if (self.threshold is None) != bool(self.reason_if_none):
            remedy = "must say why when threshold is None, and only then"
            raise BadInput(name="reason_if_none", value=self.reason_if_none, remedy=remedy)
        if not self.id:
            object.__setattr__(self, "id", self._content_hash())

    def _content_hash(self) -> str:
        content = {k: v for k, v in self.to_dict().items() if k not in ("id", "revoked_at")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; times as ISO 8601."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"revoked_at": self.revoked_at.isoformat() if self.revoked_at else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Certificate:
        """Return the certificate that `to_dict` wrote; missing or unknown fields are `BadInput`."""
        needed = {"threshold", "target_risk", "confidence_level", "n", "coverage", "kind"}
        if odd := (set(values) - {field.name for field in fields(cls)}) | (needed - set(values)):
            raise BadInput(name="certificate", value=sorted(odd), remedy="these fields are unknown or missing")
        at = values.get("revoked_at")
        return cls(**{**values, "revoked_at": datetime.fromisoformat(at) if isinstance(at, str) else at})
