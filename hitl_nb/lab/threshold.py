"""Threshold rules: each fits a threshold to a history and says what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from hitl_nb.display import spell
from hitl_nb.errors import BadInput
from hitl_nb.evidence import Certificate
from hitl_nb.evidence.check import within
from hitl_nb.evidence.selection import certified, chances, exact_p_value, rows_needed, sequence, starts
from hitl_nb.lab.history import Evidence, History, read


class ThresholdRule(Protocol):
    """Fits a threshold to a history."""

    def fit(self, rows: History, *, model: str | None, seed: int) -> Certificate:
        """Return the threshold and what is promised of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed:
    """A threshold that somebody chose; nothing is promised of it."""

    #: confidence from which nobody is asked, a share
    threshold: float

    def fit(self, rows: History, *, model: str | None = None, seed: int = 0) -> Certificate:
        """Return it, with the share that it automates."""
        return _unpromised(rows, within("threshold", self.threshold), "fixed", model)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The highest threshold that leaves no more to people than they can judge; nothing is promised of its errors.

    It is one of the confidences seen, so at least the surest goes through. Audits are not counted: leave room for them.
    """

    #: share of all rows that people can judge; hard rules and unknown confidences come first
    reviews: float

    def fit(self, rows: History, *, model: str | None = None, seed: int = 0) -> Certificate:
        """Return the threshold below which that share lies."""
        room = within("reviews", self.reviews) * len(rows) - (~rows.open).sum()
        sure = np.sort(rows.confidence[rows.open])
        if room < 0 or not len(sure):
            why = f"{int((~rows.open).sum()):,} of {len(rows):,} rows go to people anyway"
            less = "more than they can judge" if room < 0 else "so none is left to a threshold"
            return _none(f"{why}, {less}", "capacity", model, 0)
        return _unpromised(rows, float(sure[min(int(room), len(sure) - 1)]), "capacity", model)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The threshold at which reviews and errors together were cheapest (Chow 1970); nothing is promised of it.

    An answer goes through where its chance of being wrong costs less than a review; that chance is isotonic in the
    confidence, which makes the best threshold the one with the largest saving on the evidence. It is chosen for its
    few errors there: `estimate_risk` of it needs other rows, on the same ones its interval misses too often.
    """

    #: of one review, and of one wrong answer that nobody stopped, in the same unit
    review: float
    error: float

    def fit(self, rows: History, *, model: str | None = None, seed: int = 0) -> Certificate:
        """Return the threshold with the largest saving."""
        within("review", self.review, 0, np.inf)
        evidence = rows.evidence(seed)
        sure, wrong = _sorted(evidence)
        saved = np.cumsum(self.review - within("error", self.error, 0, np.inf) * wrong)
        ends = _whole(sure, np.arange(1, len(sure) + 1))
        best = ends[int(np.argmax(saved[ends - 1]))] if len(ends) else 0
        if not best or saved[best - 1] <= 0:
            return _none("a review is cheaper than the errors of any threshold", "cost", model, len(evidence))
        return replace(_unpromised(rows, float(sure[best - 1]), "cost", model), n=len(evidence), id="")


@dataclass(frozen=True, kw_only=True, slots=True)
class Certified:
    """The lowest threshold whose risk is proven to be at most ``target_risk``: Learn-then-Test in fixed sequences.

    The promise: in at most ``1 - confidence_level`` of all cases in which a threshold is fitted in this way, more than
    ``target_risk`` of what passes it is wrong. It holds for one look at a history; a second look needs fresh rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 3000)
    >>> rows = read({"confidence": sure, "wrong": rng.random(3000) > sure})
    >>> found = Certified(target_risk=0.05, confidence_level=0.9).fit(rows)
    >>> round(found.threshold, 2), round(found.coverage, 2)
    (0.89, 0.69)
    """

    #: error rate that is promised not to be exceeded, a share
    target_risk: float = 0.02
    #: how often such a promise holds, a share
    confidence_level: float = 0.95
    #: share of the rows with which tests begin, or several that share the chance of a broken promise, chosen before any
    #: label is seen; 0: the top, with as few as can carry the promise. Where the most confident are not the safest,
    #: begin in the middle, such as at 0.6, or put them in order first (`calibrate` with ``"bins"``). None: at the top,
    #: and with many rows at 0.6 too
    start: float | Sequence[float] | None = None
    kind: ClassVar[str] = "certified"

    def fit(self, rows: History, *, model: str | None = None, seed: int = 0) -> Certificate:
        """Return the lowest threshold that the evidence carries, or why there is none."""
        target = within("target_risk", self.target_risk, inside=True)
        delta = 1 - within("confidence_level", self.confidence_level, inside=True)
        evidence = rows.evidence(seed)
        sure, wrong = _sorted(evidence)
        promise = (target, 1 - delta)
        least = rows_needed(target, delta) + 1
        if len(sure) < least:
            return _none(_too_few(evidence, least), self.kind, model, len(sure), *promise)
        shares = self._shares(len(sure), target)
        ends = _whole(sure, sequence(len(sure), target, delta / len(shares), min(shares)))
        spent = chances(ends, len(sure), delta, shares)
        last, able = int(certified(wrong, ends, target, spent)), exact_p_value(0, ends - 1, target) <= spent
        if not able.any():
            why = f"tests begin with {ends[0]:,} of {len(sure):,} judged rows, too few for a proof without an error"
            needed = rows_needed(target, float(spent.max())) + 1
            what = f"{why}; it takes {needed:,}: judge more, or begin where a proof can be (start=0)"
            return _none(what, self.kind, model, len(sure), *promise)
        if last < 0:
            first = int(ends[able][0])
            errors = int(wrong[:first].sum())
            why = f"of the {first:,} most confident judged rows {errors:,} were wrong ({errors / first:.1%})"
            what = "train the model, promise less, or on fresh rows begin elsewhere (start) or reorder (calibrate)"
            return _none(f"{why}: {what}", self.kind, model, len(sure), *promise)
        threshold = float(sure[ends[last] - 1])
        return Certificate(
            threshold=threshold, target_risk=promise[0], confidence_level=promise[1], n=len(sure),
            coverage=_coverage(rows, threshold), kind=self.kind, model=model,
        )  # fmt: skip

    def _shares(self, n: int, risk: float) -> tuple[float, ...]:
        if self.start is None:
            return starts(n, risk)
        given = self.start if isinstance(self.start, Sequence) else (self.start,)
        if not given:
            raise BadInput(name="start", value=self.start, remedy="pass a share of the rows, or several")
        return tuple(within("start", share) for share in given)


def choose_threshold(
    history: Any, target_risk: float = 0.02, confidence_level: float = 0.95, *, rule: ThresholdRule | None = None,
    start: float | Sequence[float] | None = None, model: str | None = None, seed: int = 0,
) -> Certificate:  # fmt: skip
    """Fit a threshold to a history.

    Parameters
    ----------
    history
        What `read` takes, such as ``queue.history()``.
    target_risk, confidence_level, start
        What `Certified` promises, and where its tests begin.
    rule
        Another rule in place of ``Certified(...)``.
    model
        Version of the model for which it shall hold; default: the only one in the history.
    seed
        Draws which reviewed rows serve as evidence beside the audits.

    Returns
    -------
    Certificate
        ``Policy(certificate)`` uses it; without a threshold it says why.

    Raises
    ------
    EvidenceError
        Rows could never be judged.
    BadInput
        Several models and no word which one.

    Examples
    --------
    >>> choose_threshold({"confidence": [0.9] * 40, "wrong": [False] * 40}).reason_if_none
    'a promise needs at least 150 judged rows without an error, there are 40: judge 110 more'
    """
    rows, version = _of_model(read(history), model)
    found = rule or Certified(target_risk=target_risk, confidence_level=confidence_level, start=start)
    return _fitted(found, rows, version, seed)


def by_group(
    history: Any, rule: Certified, *, by: str = "group", model: str | None = None, seed: int = 0
) -> dict[Any, Certificate]:
    """Fit a threshold for each value of a column; the promise holds for all of them at once.

    With ``by="prediction"`` the thresholds fit ``Policy(label_thresholds=...)``.
    """
    rows, version = _of_model(read(history), model)
    if by not in rows.frame:
        raise BadInput(name="by", value=by, remedy=f"columns are {', '.join(map(str, rows.frame.columns[:20]))}")
    if not hasattr(rule, "confidence_level"):
        raise BadInput(name="rule", value=rule, remedy="promises nothing that groups could share; pass Certified(...)")
    try:
        groups = list(rows.frame[by].dropna().unique())
    except TypeError as error:
        raise BadInput(name="by", value=by, remedy=f"holds what cannot name a group ({error})") from None
    delta = 1 - within("confidence_level", rule.confidence_level)
    each = replace(rule, confidence_level=1 - delta / max(len(groups), 1))
    return {value: _fitted(each, rows[(rows.frame[by] == value).to_numpy(bool, na_value=False)], version, seed)
            for value in groups}  # fmt: skip


def _fitted(rule: ThresholdRule, rows: History, model: Any, seed: int) -> Certificate:
    """Fit a threshold, and say on what its promise rests beside the judged rows."""
    found, waits, hard = rule.fit(rows, model=model, seed=seed), int(rows.waiting.sum()), int(rows.hard.sum())
    said = [f"the {waits:,} rows that wait for their judgement are like those that were judged"] if waits else []
    said += [f"hard rules go on asking a person, as they did of {hard:,} rows"] if hard else []
    return found if found.target_risk is None or not said else replace(found, provided=" and ".join(said))


def _of_model(rows: History, model: Any) -> tuple[History, Any]:
    """Return the rows of one model, and which it is."""
    if "model" not in rows.frame:
        return rows, model
    seen, unnamed = rows.frame["model"].dropna().unique().tolist(), int(rows.frame["model"].isna().sum())
    if model is None and (len(seen) > 1 or (seen and unnamed)):
        names = ", ".join([*map(spell, seen[:10]), *[f"{unnamed:,} rows without a model"] * (unnamed > 0)])
        raise BadInput(
            name="model", value=None, remedy=f"the history holds {names}; name the one that it shall hold for"
        )
    if model is None:
        return rows, seen[0] if seen else None
    return rows[(rows.frame["model"] == model).to_numpy(bool, na_value=False)], model


def _sorted(evidence: Evidence) -> tuple[Any, Any]:
    order = np.argsort(-evidence.confidence, kind="stable")
    return evidence.confidence[order], evidence.wrong[order]


def _whole(sure: Any, ends: Any) -> Any:
    """Return the ends moved down to where a threshold can stand: equal confidences go together."""
    last = np.searchsorted(-sure, -sure[ends - 1], side="right") if len(sure) else ends
    return np.unique(last)


def _coverage(rows: History, threshold: float) -> float:
    return float((rows.open & (rows.confidence >= threshold)).mean()) if len(rows) else 0.0


def _unpromised(rows: History, threshold: float, kind: str, model: str | None) -> Certificate:
    return Certificate(
        threshold=threshold, target_risk=None, confidence_level=None, n=0, kind=kind, model=model,
        coverage=_coverage(rows, threshold),
    )  # fmt: skip


def _none(
    why: str, kind: str, model: str | None, n: int, risk: float | None = None, level: float | None = None
) -> Certificate:
    return Certificate(
        threshold=None, target_risk=risk, confidence_level=level, n=n, coverage=0.0, kind=kind, model=model,
        reason_if_none=why,
    )  # fmt: skip


def _too_few(evidence: Evidence, least: int) -> str:
    more, p = least - len(evidence), evidence.probability
    what = f"a promise needs at least {least:,} judged rows without an error, there are {len(evidence):,}"
    audits = f"judge {more:,} more" if p == 1 else f"{more:,} more audits, about {more / p:,.0f} more rows at p={p:g}"
    return f"{what}: {audits}"
