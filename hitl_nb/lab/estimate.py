"""How often the part is wrong that nobody was asked about, with its error, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Certificate, Interval, clopper_pearson, reviewer_error
from hitl_nb.evidence.check import within
from hitl_nb.evidence.estimate import hajek, horvitz_thompson, ppi_mean
from hitl_nb.evidence.rate import corrected
from hitl_nb.evidence.sequential import always_valid
from hitl_nb.lab.history import Bools, History, read

#: largest weight, in mean weights, up to which `hajek` holds about as often as it says
_EVEN = 4.0
Method = Literal["clopper_pearson", "horvitz_thompson", "hajek", "ppi", "always_valid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskEstimate(Shows):
    """The error of the automatic part; made by `estimate_risk`."""

    #: how often reviewers disagree with what went through
    disagreement: Interval
    #: upper end of that alone, at the same level: what the sentence says
    at_most: float
    #: how it was estimated
    method: Method
    #: confidence from which nobody was asked; None: as it was decided at the time
    threshold: float | None
    #: rows that went through without a person
    automatic: int
    #: their share of all rows
    coverage: float
    #: rows among them that were to be judged, by a rule or a drawn audit, and wait still
    waiting: int
    #: how often a reviewer errs, for one look, also where `disagreement` may be looked at again; None: nothing tells
    reviewer: Interval | None = None
    #: the true error rate, freed from the reviewers' own errors; None where it cannot be said
    corrected: Interval | None = None
    #: upper end of that alone, at the same level
    corrected_at_most: float | None = None
    #: why it cannot be said; None where it can
    unknown: str | None = None
    #: why the interval may hold less often than it says; None where nothing tells
    doubt: str | None = None

    def __str__(self) -> str:
        said = self.disagreement
        where = "" if self.threshold is None else f"At {self.threshold:.3g} or more, "
        go = f"{_percent(self.coverage, 0)} go through without a person"
        most = f"reviewers would disagree with at most {_percent(self.at_most, 1)} of those"
        behind = f"{said.n:,} audited of {self.automatic:,}"
        freed = self.corrected_at_most
        behind += "" if freed is None else f"; corrected for reviewer error: {_percent(freed, 1)}"
        behind += f"; {self.waiting:,} wait still and count as like these" if self.waiting else ""
        return f"{where}{go}; with {100 * said.level:.3g} % confidence {most} ({behind})."

    def _table(self) -> Table:
        rows = [("reviewers disagree", str(self.disagreement))]
        rows += [("a reviewer errs", str(self.reviewer))] if self.reviewer else []
        rows += [("corrected for it", str(self.corrected))] if self.corrected else []
        notes = [f"corrected: {self.unknown}"] if self.unknown else []
        notes += [self.doubt] if self.doubt else []
        notes += [f"{self.waiting:,} that were to be judged wait still: have them judged"] if self.waiting else []
        return table(str(self), (), rows, [f"method: {self.method}", *notes])


def estimate_risk(
    history: Any, method: Method = "clopper_pearson", *, threshold: float | Certificate | None = None,
    level: float = 0.95, twice: tuple[int, int] = (0, 0), seed: int = 0,
) -> RiskEstimate:  # fmt: skip
    """Estimate how often the automatic part is wrong.

    Parameters
    ----------
    history
        What `read` takes, such as ``queue.history()``; rows of one model, if it is to be said of one.
    method
        ``clopper_pearson``, exact, from the rows of one probability; ``always_valid``, the same, to be looked at as
        often as one likes; ``horvitz_thompson`` and ``hajek``, from all judged rows, weighted by their probabilities,
        as an active audit needs it (the second is narrower, and holds only while no row weighs much more than others);
        ``ppi``, with the confidences as guesses for the rows that nobody judged.
    threshold
        Confidence from which nobody is asked, to see what it would let through; None: what went through at the time.
    level
        How often such an interval holds the truth.
    twice
        Of so many audits that two people judged, in how many the two differed, in the other order: ``(differed,
        judged_twice)`` of ``queue.stats()``. Without them reviewers' own errors count as the model's.
    seed
        Draws which judged rows count where they were judged with different probabilities.

    Raises
    ------
    EvidenceError
        Nothing went through, nothing of it was judged, or some of it could never be.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 3000)
    >>> rows = {"confidence": sure, "wrong": rng.random(3000) > sure}
    >>> print(estimate_risk(rows, threshold=0.91, twice=(19, 200)))  # doctest: +NORMALIZE_WHITESPACE
    At 0.91 or more, 63 % go through without a person; with 95 % confidence reviewers would disagree with at most 4.4 %
    of those (1,885 audited of 1,885; corrected for reviewer error: 1.7 %).
    """
    if method not in get_args(Method):
        raise BadInput(name="method", value=method, remedy=f"pass one of {', '.join(get_args(Method))}")
    rows: History = read(history)
    bound = threshold.threshold if isinstance(threshold, Certificate) else threshold
    if isinstance(threshold, Certificate) and bound is None:
        raise EvidenceError(what=f"this certificate lets nothing through: {threshold.reason_if_none}")
    among = automatic(rows, bound)
    part = rows[among]
    part.sample(seed)  # refuses what nobody could judge, whatever the method
    within("level", level, 0.5, inside=True)
    one_sided = _ESTIMATES[method](part, level if method == "always_valid" else 2 * level - 1, seed)
    found = RiskEstimate(
        disagreement=_ESTIMATES[method](part, level, seed), at_most=one_sided.high, method=method, threshold=bound,
        automatic=len(part), coverage=float(among.mean()), waiting=int(part.waiting.sum()), doubt=_doubt(part, method),
    )  # fmt: skip
    return _corrected(found, part, twice, seed)


def automatic(rows: History, threshold: float | None = None) -> Bools:
    """Return the rows that go through at a threshold, or that went through at the time: no rule asked a person.

    Raises
    ------
    EvidenceError
        There is none.
    """
    if threshold is not None:
        found = rows.open & (rows.confidence >= within("threshold", threshold))
    else:
        found = rows.open & ~rows.asked
    if not found.any():
        raise EvidenceError(what="no row goes through without a person; pass a threshold (threshold=0.9) to try one")
    return np.asarray(found)


def _counted(count: Callable[[int, int, float], Interval]) -> Callable[[History, float, int], Interval]:
    def estimate(part: History, level: float, seed: int) -> Interval:
        wrong = part.wrong[part.sample(seed)[0]]
        return count(int(wrong.sum()), len(wrong), level)

    return estimate


def _horvitz_thompson(part: History, level: float, seed: int) -> Interval:
    return horvitz_thompson(part.wrong[part.judged], part.probability[part.judged], len(part), level)


def _hajek(part: History, level: float, seed: int) -> Interval:
    return hajek(part.wrong[part.judged], part.probability[part.judged], level)


def _doubt(part: History, method: Method) -> str | None:
    weight = 1 / part.probability[part.judged]
    if method != "hajek" or weight.max() <= _EVEN * weight.mean() * (1 + 1e-9):
        return None
    much = f"a row weighs up to {weight.max() / weight.mean():.0f} times the mean"
    return f"{much}: an upper end by hajek may be too low; ask horvitz_thompson"


def _ppi(part: History, level: float, seed: int) -> Interval:
    kept, guess = part.sample(seed)[0], 1 - part.confidence
    return ppi_mean(part.wrong[kept], guess[kept], guess[~kept], level)


_ESTIMATES: dict[str, Callable[[History, float, int], Interval]] = {
    "clopper_pearson": _counted(clopper_pearson), "always_valid": _counted(always_valid), "hajek": _hajek,
    "horvitz_thompson": _horvitz_thompson, "ppi": _ppi,
}  # fmt: skip


def _corrected(found: RiskEstimate, part: History, twice: tuple[int, int], seed: int) -> RiskEstimate:
    """Add what double audits tell: both rates at half the error budget, looked at as often as the method allows.

    A confidence sequence has no ends of its own level: one alone holds no more often than both.
    """
    level, (differed, pairs) = found.disagreement.level, twice
    both = (1 + level) / 2
    count, one = (always_valid, both) if found.method == "always_valid" else (clopper_pearson, level)
    try:
        freed, one_sided = (
            corrected(_ESTIMATES[found.method](part, each, seed), count(differed, pairs, each), level)
            for each in (both, one)
        )
        errs = reviewer_error(differed, pairs, level)
        return replace(found, reviewer=errs, corrected=freed, corrected_at_most=one_sided.high)
    except EvidenceError as error:
        reviewer = reviewer_error(differed, pairs, level) if pairs else None
        return replace(found, unknown=str(error), reviewer=reviewer)


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"
