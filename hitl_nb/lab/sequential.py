"""A threshold with a promise that may be looked at after every review."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hitl_nb.errors import EvidenceError
from hitl_nb.evidence import Certificate
from hitl_nb.evidence.check import within
from hitl_nb.evidence.sequential import most_evidence
from hitl_nb.lab.history import Bools, Floats, History

#: each threshold lets so many times the rows of the one before through
STEP = 1.07


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequential:
    """The lowest threshold whose risk is proven to be at most ``target_risk``, whenever and however often one looks.

    For each of some thresholds an e-process bets that the risk above it is below the target. From the highest down each
    must have won ``1 / (1 - confidence_level)`` once; the first that is not safe ever does so with a chance of at most
    ``1 - confidence_level`` (Ville 1939), and below it nothing is certified (fixed sequence, as in Learn-then-Test,
    arXiv 2110.01052). So reviews may end, or a threshold be put to use, at any moment; `Certified` finds more in one
    look that was planned beforehand.

    Where answers wait, ``reviewed_at`` must say when each came. The thresholds are quantiles of the first ``settle``
    confidences, whose labels are not used; later looks see the same ones as long as the history only grows.

    Examples
    --------
    >>> from hitl_nb.lab.history import read
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 3000)
    >>> rows = read({"confidence": sure, "wrong": rng.random(3000) > sure})
    >>> print(Sequential(target_risk=0.05, confidence_level=0.9).fit(rows))  # doctest: +NORMALIZE_WHITESPACE
    At 0.9133 or more, 61.6 % go through without a person; at most 5 % of those are wrong (with 90 % confidence, 2,900
    judged).
    """

    #: error rate that is promised not to be exceeded, a share
    target_risk: float = 0.02
    #: how often such a promise holds, over all looks together; a share
    confidence_level: float = 0.95
    #: share of the rows above the first threshold; where few are judged, or the most confident are not the safest,
    #: begin lower, such as at 0.5
    start: float = 0.2
    #: open rows, judged or not, that settle the thresholds
    settle: int = 100
    kind: ClassVar[str] = "sequential"

    def fit(self, rows: History, *, model: str | None = None, seed: int = 0) -> Certificate:
        """Return the lowest threshold that the evidence carries so far, or why there is none."""
        risk = within("target_risk", self.target_risk, inside=True)
        late = rows.open & (rows.waiting if "audit_uniform" in rows.frame else ~rows.judged & (rows.logged > 0))
        if late.any() and "reviewed_at" not in rows.frame:
            what = f"{int(late.sum()):,} rows may be answered late, and no reviewed_at says in which order answers come"
            raise EvidenceError(what=f"{what}; add that column")
        limit = -np.log(1 - within("confidence_level", self.confidence_level, inside=True))
        first = np.flatnonzero(rows.open)[: self.settle]
        grid = thresholds(rows.confidence[first], self.start)
        later = np.ones(len(rows), dtype=bool)
        later[first] = False
        judged = in_order(rows, later, seed)
        found = None
        for one in grid:
            if most_evidence(judged.wrong[judged.confidence >= one] == 1, risk) < limit:
                break
            found = float(one)
        return Certificate(
            threshold=found, target_risk=risk, confidence_level=self.confidence_level, n=len(judged), kind=self.kind,
            coverage=0.0 if found is None else float((rows.open & (rows.confidence >= found)).mean()), model=model,
            reason_if_none=self._why(judged, grid) if found is None else None,
        )  # fmt: skip

    def _why(self, judged: History, grid: Floats) -> str:
        if not len(grid) or not len(judged):
            return f"no judged row after the first {self.settle:,}, which settle the thresholds: judge more"
        above = judged.wrong[judged.confidence >= grid[0]]
        seen = f"of {len(above):,} judged rows at {grid[0]:.3g} or more {int(above.sum()):,} were wrong"
        todo = "judge more and look again, or begin lower (start)"
        return f"{seen}, which does not prove at most {100 * self.target_risk:.3g} % yet: {todo}"


def thresholds(confidence: Floats, start: float) -> Floats:
    """Return the thresholds that let a share ``start`` of the confidences through, and more and more; highest first."""
    if not len(confidence):
        return np.zeros(0)
    steps = np.ceil(np.log(1 / within("start", start, 1e-6)) / np.log(STEP)) if start < 1 else 0
    shares = np.minimum(start * STEP ** np.arange(steps + 1), 1.0)
    found: Floats = np.unique(np.quantile(confidence, 1 - shares, method="higher"))[::-1]
    return found


def in_order(rows: History, some: Bools, seed: int = 0) -> History:
    """Return the rows that serve as evidence, in the order in which they were judged.

    The order makes looks comparable: what is judged later stands later. Without ``reviewed_at`` it is that of the rows.
    """
    part, when = rows[some], rows.times("reviewed_at")
    if when is not None:
        part = part[np.argsort(when[some], kind="stable")]  # missing ones go last
    if not part.judged.any() or (part.open & (part.probability <= 0) & (part.logged > 0)).any():
        return part[part.judged & False]  # the answers to some wait, every one of them
    return part[part.sample(seed)[0]]
