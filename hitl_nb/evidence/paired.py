"""Two models on the same cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.display import spell
from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import count, within
from hitl_nb.evidence.rate import Interval

#: what a comparison says of the challenger
Verdict = Literal["promote", "refuse", "undecided"]


#: of a class: lost more than the floor and proven worse, or not proven; proven to hold; not proven; too few cases
ClassState = Literal["worse", "lower", "holds", "open", "few"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassComparison:
    """Two models on the cases of one class; made by `with_floor`."""

    #: true label of the cases
    label: Any
    #: challenger's error rate minus the champion's among them, a share
    difference: float
    #: one-sided lower bound of it; all classes together hold the level of the comparison
    low: float
    #: one-sided upper bound of it
    high: float
    #: cases of the class
    n: int
    #: what follows
    state: ClassState

    def __str__(self) -> str:
        return f"{spell(self.label, 40)}: {_bounds(self)}"


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
    #: how often each of the two bounds holds, a share
    level: float = 0.95
    #: the same for each class, where a floor guards them
    classes: tuple[ClassComparison, ...] = ()
    #: further cases of the same draw without a known label
    unanswered: int = 0
    #: on how many of those the two answer differently: in each bound they count the worse way
    differ: int = 0

    def __str__(self) -> str:
        more = f", about {self.labels_needed} more random labels needed" if self.labels_needed else ""
        more += f", {self.unanswered} cases without an answer (the two differ on {self.differ})" * bool(self.unanswered)
        worst = [f"; class {one}" for one in self.blocked[:1]]
        rest = f" and {len(self.blocked) - 1} more" if len(self.blocked) > 1 else ""
        return "".join([f"{self.verdict}: {_bounds(self)}{more}", *worst, rest])

    @property
    def blocked(self) -> tuple[ClassComparison, ...]:
        """Classes that lost more than the floor allows, the worst first: they speak against a promotion."""
        found = [one for one in self.classes if one.state in ("worse", "lower")]
        return tuple(sorted(found, key=lambda one: -one.difference))


def _bounds(found: ClassComparison | PairedComparison) -> str:
    return f"{found.difference:+.1%} errors ({found.low:+.1%} to {found.high:+.1%}, n = {found.n})"


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


def share_difference(only_first: int, only_second: int, n: int, level: float = 0.95) -> Interval:
    """Return by how much the second of two shares is larger, both of the same `n` cases (Tango 1998, score interval).

    `only_first` cases count for the first share alone, `only_second` for the second alone.

    Examples
    --------
    >>> print(share_difference(3, 8, 100))
    5.0% (-1.7% to 12.5% at 95%, n = 100)
    """
    from scipy.special import ndtri

    first, second, cases = count("only_first", only_first), count("only_second", only_second), count("n", n)
    if first + second > cases:
        raise BadInput(name="n", value=n, remedy=f"must be at least {first + second}, the cases in which they differ")
    if not cases:
        return Interval(estimate=math.nan, low=-1.0, high=1.0, level=level, n=0)
    z = float(ndtri((1 + within("level", level, inside=True)) / 2))
    low, high = (_score_bound(first, second, cases, sign * z) for sign in (1, -1))
    return Interval(estimate=(second - first) / cases, low=low, high=high, level=level, n=cases)


def spent(look: int, level: float = 0.95) -> float:
    """Return the level of one look at a holdout, such that all looks that ever come hold `level` together.

    Look k spends (1 - level) / (k (k + 1)); these sum up to 1 - level, however many there are (union bound).

    Examples
    --------
    >>> [round(1 - spent(look), 4) for look in (1, 2, 3)]  # 0.05 / 2, 0.05 / 6, 0.05 / 12
    [0.025, 0.0083, 0.0042]
    """
    if count("look", look) < 1:
        raise BadInput(name="look", value=look, remedy="looks are counted from 1")
    return 1 - (1 - within("level", level, inside=True)) / (look * (look + 1))


def held_draw(task_ids: ArrayLike) -> NDArray[np.float64]:
    """Return a uniform draw for each task id (SipHash): by it an answer is held back to compare models on.

    It is the same in every process, and is known before there is an answer.

    Examples
    --------
    >>> held_draw(["a", "b"]).round(2).tolist()
    [0.94, 0.98]
    """
    import pandas as pd

    hashes = pd.util.hash_array(np.asarray(task_ids, dtype=object), hash_key="held back answer", categorize=False)
    return np.asarray(hashes / 2.0**64)


def compare_paired(
    champion_wrong: ArrayLike, challenger_wrong: ArrayLike, margin: float = 0.02, level: float = 0.95,
    next_level: float | None = None, unanswered: int = 0, differ: int = 0,
) -> PairedComparison:  # fmt: skip
    """Say whether a challenger is proven not worse than the champion by more than `margin`.

    One-sided score bounds for a difference of paired proportions (Tango 1998, Statistics in Medicine 17:891-908).
    ``promote`` if the upper bound is at most `margin`; else ``refuse`` if the lower bound is above 0; else
    ``undecided``. "No significant difference" would promote on little data; this does not. A level holds for one look;
    for several at the same cases take `spent` levels, and the next one as `next_level`, for which labels are planned.

    One boolean per random case and model, True where it erred; `margin` is the largest loss that is accepted, a share
    (0.02 is two points). Cases that chance drew too and nobody has answered yet are `unanswered`: left out, they would
    tilt the comparison where hard cases are answered late. Where both models say the same neither gains, whatever the
    truth; the `differ` others count against the challenger in the upper bound and for it in the lower one. So the
    verdict that they get is never better than with their labels, whatever these will be.

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
    within("margin", margin, inside=True)
    first, second = champion.astype(bool), challenger.astype(bool)
    n, repaired, broken = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    if count("differ", differ) > count("unanswered", unanswered):
        raise BadInput(name="differ", value=differ, remedy=f"cannot be more than the {unanswered} unanswered")
    z = float(ndtri(within("level", level, inside=True)))
    planned = float(ndtri(within("next_level", level if next_level is None else next_level, inside=True)))
    low, high, cases = -1.0, 1.0, n + unanswered
    if cases:
        low = _score_bound(repaired + differ, broken, cases, z)
        high = _score_bound(repaired, broken + differ, cases, -z)
    more = max(_labels_needed(repaired, broken, n, margin, planned), differ)
    verdict: Verdict = "promote" if high <= margin else "refuse" if low > 0 else "undecided"
    return PairedComparison(
        difference=(broken - repaired) / n if n else math.nan, low=low, high=high, n=n, verdict=verdict,
        only_champion_wrong=repaired, only_challenger_wrong=broken, both_wrong=int((first & second).sum()),
        labels_needed=more if verdict == "undecided" else 0, level=level, unanswered=unanswered, differ=differ,
    )  # fmt: skip


def with_floor(
    found: PairedComparison, truth: Sequence[Any], champion_wrong: ArrayLike, challenger_wrong: ArrayLike,
    floor: float = 0.1,
) -> PairedComparison:  # fmt: skip
    """Guard each class: none may lose more than `floor`, however much the others gain.

    A class that lost more than `floor` turns ``promote`` to ``undecided``, and to ``refuse`` where it is proven worse
    (its lower bound is above 0). The bounds share the level among the classes (Bonferroni); a class whose upper bound
    is at most `floor` holds. In a class of fewer than 2 / `floor` cases one or two would exceed it: it speaks against a
    promotion only where it is proven worse. Classes that are not proven to hold are named and stop nothing.

    Examples
    --------
    >>> truth, champion = ["common"] * 400 + ["rare"] * 30, [True] * 20 + [False] * 410
    >>> challenger = [False] * 400 + [True] * 5 + [False] * 25  # better on the whole, at the cost of the rare ones
    >>> whole = compare_paired(champion, challenger)
    >>> whole.verdict, with_floor(whole, truth, champion, challenger).verdict
    ('promote', 'refuse')
    """
    within("floor", floor, inside=True)
    old, new = np.asarray(champion_wrong, dtype=bool), np.asarray(challenger_wrong, dtype=bool)
    codes = {label: np.array([one == label for one in truth]) for label in sorted(set(truth), key=str)}
    level = 1 - (1 - found.level) / max(len(codes), 1)
    parts = {label: compare_paired(old[rows], new[rows], floor, level) for label, rows in codes.items()}
    classes = tuple(_of_class(label, part, floor) for label, part in parts.items())
    more = [parts[one.label].labels_needed * found.n / one.n for one in classes if one.state == "lower"]
    states = {one.state for one in classes}
    verdict: Verdict = found.verdict
    if "worse" in states:
        verdict = "refuse"
    elif "lower" in states and verdict == "promote":
        verdict = "undecided"
    needed = max([found.labels_needed, *map(math.ceil, more)]) if verdict == "undecided" else 0
    return replace(found, verdict=verdict, labels_needed=needed, classes=classes)


def _of_class(label: Any, part: PairedComparison, floor: float) -> ClassComparison:
    state: ClassState = "few" if part.n < 2 / floor else "open"
    if part.verdict == "promote":
        state = "holds"
    elif part.difference > floor:
        state = "worse" if part.verdict == "refuse" else "few" if state == "few" else "lower"
    return ClassComparison(label=label, difference=part.difference, low=part.low, high=part.high, n=part.n, state=state)
