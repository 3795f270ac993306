"""Exact intervals of error rates, of reviewers too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hitl_nb.errors import EvidenceError, plain
from hitl_nb.evidence.check import count, within

#: share of doubtful double audits assumed before there is one: two reviewers who each err in 5 % disagree in 9.5 %
ASSUMED_DISAGREEMENT = 0.095
#: more double audits than this are never asked for
MOST_PAIRS = 10_000


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
    wrong, n = count("wrong", wrong, count("n", n)), int(n)
    low, high = exact_ends(wrong, n, level)
    return Interval(estimate=wrong / n if n else math.nan, low=low, high=high, level=level, n=n)


def exact_ends(wrong: float, n: float, level: float) -> tuple[float, float]:
    """Return the ends of that interval; fractions of cases, as weighted samples have them, are taken too.

    >>> [round(end, 3) for end in exact_ends(2.5, 100, 0.9)]
    [0.006, 0.069]
    """
    from scipy.special import betaincinv

    tail = (1 - within("level", level, inside=True)) / 2
    low = float(betaincinv(wrong, n - wrong + 1, tail)) if wrong > 0 else 0.0
    return low, float(betaincinv(wrong + 1, n - wrong, 1 - tail)) if wrong < n else 1.0


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
    within("disagreement", disagreement)
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
    split = (1 + within("level", level, inside=True)) / 2
    return corrected(clopper_pearson(wrong, n, split), clopper_pearson(disagreements, pairs, split), level)


def corrected(observed: Interval, differ: Interval, level: float) -> Interval:
    """Return `corrected_risk` from intervals of the two rates, each of them at the level ``(1 + level) / 2``."""
    if not differ.high < 0.5:
        raise _cannot_be_said(pairs_needed(differ.estimate if differ.n else ASSUMED_DISAGREEMENT, differ.level))

    def risk(seen: float, disagreement: float) -> float:
        error = _error_from_disagreement(disagreement)
        return min(1.0, max(0.0, (seen - error) / (1 - 2 * error)))

    corners = [risk(seen, share) for seen in (observed.low, observed.high) for share in (differ.low, differ.high)]
    estimate = risk(observed.estimate, differ.estimate) if observed.n else math.nan
    return Interval(estimate=estimate, low=min(corners), high=max(corners), level=level, n=observed.n)
