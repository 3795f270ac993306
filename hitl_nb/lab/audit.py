"""How many audits a statement needs, and which rows to audit for the most of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Interval, clopper_pearson
from hitl_nb.evidence.check import count, within

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPlan(Shows):
    """So many audits, and what to expect of them; made by `plan_audits`."""

    #: rows to audit at random
    audits: int
    #: rows that go through without a person while they are drawn
    automatic: int
    #: chance with which each is to be drawn: ``Policy(audit_rate=...)``
    rate: float
    #: error rate that was assumed, a share
    expected: float
    #: what comes out, or something narrower, with the chance `power`
    interval: Interval
    #: how often it comes out so, a share
    power: float

    def __str__(self) -> str:
        outcome = f"{100 * self.interval.low:.1f} % to {100 * self.interval.high:.1f} %"
        return (
            f"Audit {self.audits:,} of {self.automatic:,} ({100 * self.rate:.1f} %): if {100 * self.expected:.3g} % are"
            f" wrong, {outcome} or better comes out in {100 * self.power:.3g} % of the cases."
        )

    def _table(self) -> Table:
        return table(str(self), notes=[f"next: Policy(audit_rate={self.rate:.3g}), or choose_audits for fewer"])


def plan_audits(
    automatic: int, expected: float = 0.01, *, at_most: float | None = None, width: float | None = None,
    budget: int | None = None, level: float = 0.95, power: float = 0.8,
) -> AuditPlan:  # fmt: skip
    """Say how many of the automatic rows to audit at random, for what is to be said of them.

    Parameters
    ----------
    automatic
        Rows that go through without a person in the time for which the statement is to be made.
    expected
        Share of wrong ones to reckon with.
    at_most, width, budget
        What is wanted, one of them: an upper end, a width of the exact interval (Clopper and Pearson 1934), or what
        comes out of so many audits.
    level, power
        How often the interval holds the truth, and how often it comes out as wanted.

    Raises
    ------
    EvidenceError
        Not even an audit of all rows would do.

    Examples
    --------
    >>> print(plan_audits(20_000, 0.01, at_most=0.02))
    Audit 1,360 of 20,000 (6.8 %): if 1 % are wrong, 0.7 % to 2.0 % or better comes out in 80 % of the cases.
    >>> print(plan_audits(20_000, 0.01, budget=400).interval)
    1.5% (0.6% to 3.2% at 95%, n = 400)
    """
    from scipy.special import betaincinv
    from scipy.stats import binom

    rows, rate = count("automatic", automatic), within("expected", expected)
    if sum(one is not None for one in (at_most, width, budget)) != 1:
        raise BadInput(name="at_most, width, budget", value=(at_most, width, budget), remedy="pass one of the three")
    sizes = np.unique(np.append(np.geomspace(1, max(rows, 1), 3000).astype(int), rows))
    if budget is not None:
        audits = count("budget", budget, rows)
    else:
        errors, tail = binom.ppf(within("power", power, inside=True), sizes, rate), (1 - within("level", level)) / 2
        high = betaincinv(errors + 1, np.maximum(sizes - errors, 1e-9), 1 - tail)
        low = np.where(errors > 0, betaincinv(np.maximum(errors, 1e-9), sizes - errors + 1, tail), 0.0)
        missed = high > within("at_most", at_most) if at_most is not None else high - low > within("width", width or 0)
        if missed[-1]:
            raise EvidenceError(what=f"not even an audit of all {rows:,} rows would do; ask for less, or wait")
        audits = int(sizes[np.flatnonzero(missed)[-1] + 1]) if missed.any() else int(sizes[0])
    found = clopper_pearson(int(binom.ppf(power, audits, rate)), audits, level)
    chance = audits / rows if rows else 0.0
    return AuditPlan(audits=audits, automatic=rows, rate=chance, expected=rate, interval=found, power=power)


def choose_audits(confidence: ArrayLike, budget: int, *, floor: float = 0.25, seed: int = 0) -> pd.DataFrame:
    """Draw which automatic rows to audit: those that may be wrong more often, every one with a known chance.

    A row is drawn with a chance in proportion to how much its outcome is expected to scatter, which is the root of
    c (1 - c) at confidence c (Neyman 1934; Kossen and others 2021, arXiv 2103.05331); where confidences say nothing, a
    part is drawn evenly. What is estimated from it must weigh by these chances: store the columns with the rows, and
    ask ``estimate_risk(..., method="horvitz_thompson")``, or ``"hajek"``, which is narrower, of such rows alone; a
    plain mean is far off.

    Parameters
    ----------
    confidence
        Of the rows that went through, shape (n,); a Series keeps its index.
    budget
        Rows to audit, on average.
    floor
        Share of the budget that is drawn evenly.

    Returns
    -------
    DataFrame
        A line a row: ``review_probability``, ``audit_probability`` (the same: no rule asked), ``audit_uniform``,
        ``drawn``; to be stored with the rows.

    Examples
    --------
    >>> choose_audits([0.5, 0.9, 1.0, 1.0], budget=2)["review_probability"].round(3).tolist()
    [1.0, 0.733, 0.133, 0.133]
    """
    import pandas as pd

    sure = np.asarray(confidence, dtype=np.float64)
    if sure.ndim != 1 or not ((sure >= 0) & (sure <= 1)).all():
        raise BadInput(name="confidence", value=confidence, remedy="pass one share between 0 and 1 a row")
    wanted, even = count("budget", budget, len(sure)), within("floor", floor)
    if not even:
        raise BadInput(name="floor", value=floor, remedy="must be above 0, else some rows could never be judged")
    spread = np.sqrt(sure * (1 - sure))
    spread = spread / spread.mean() if spread.any() else np.ones(len(sure))
    chance = _up_to_one((1 - even) * spread + even, wanted)
    uniform = np.random.default_rng(seed).random(len(sure))
    columns: dict[str, Any] = {
        "review_probability": chance, "audit_probability": chance, "audit_uniform": uniform, "drawn": uniform < chance,
    }  # fmt: skip
    return pd.DataFrame(columns, index=confidence.index if isinstance(confidence, pd.Series) else None)


def _up_to_one(share: Any, budget: int) -> Any:
    """Return chances in proportion to the shares, with the budget as their sum; what exceeds 1 goes to the others."""
    chance = np.zeros(len(share))
    while (free := chance < 1).any() and budget > (~free).sum():
        chance[free] = share[free] * (budget - (~free).sum()) / share[free].sum()
        if not (over := chance > 1).any():
            break
        chance[over] = 1.0
    return chance
