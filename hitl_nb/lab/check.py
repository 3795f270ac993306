"""What can be concluded from a history, and what cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hitl_nb.display import Shows, Table, table
from hitl_nb.evidence.check import within
from hitl_nb.evidence.selection import rows_needed
from hitl_nb.lab.history import History, read


@dataclass(frozen=True, kw_only=True, slots=True)
class Check(Shows):
    """What a history can carry; made by `check`."""

    #: rows in all, judged ones, and those that go to a person whatever a threshold says
    rows: int
    judged: int
    hard: int
    #: rows that were to be judged, by a rule or an audit, and wait still
    waiting: int
    #: rows about which a threshold decides that had no chance of being judged
    unseen: int
    #: judged rows that are left as a simple random sample
    sample: int
    #: rows of such a sample that a promise needs at the least, without an error
    needed: int
    #: chance with which a row came into the sample
    probability: float
    #: what is promised: risk and confidence level, shares
    promise: tuple[float, float]
    #: chance below which rows are rare and cost most of the sample, those rows, and the sample without them; None: none
    rare: tuple[float, int, int] | None = None
    #: rows an hour; NaN where no times tell
    pace: float = math.nan

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What can be said from it, what cannot, and what to do; a sentence each."""
        risk, level = (f"{100 * share:g} %" for share in self.promise)
        promise = f"at most {risk} wrong, at {level}"
        found = []
        if self.unseen:
            found.append(f"{self.unseen:,} rows had no chance of being judged: of them nothing can be said; audit them")
        elif self.sample >= self.needed:
            found.append(f"a threshold may be promised ({promise}): {self.sample:,} rows are a random sample")
        else:
            more = self.needed - self.sample
            rows = more / self.probability
            what = f", {rows:,.0f} rows more at p={self.probability:g}" if self.probability < 1 else ""
            what += f", about {rows / self.pace / 24:.2g} days at the pace of this history" if self.pace > 0 else ""
            found.append(f"no promise yet ({promise}): it needs {more:,} more judged rows without an error{what}")
        if self.rare:
            below, n, left = self.rare
            found.append(
                f"or leave out the {n:,} rows with review_probability below {below:g}, of which nothing is said then:"
                f" {left:,} rows remain as a random sample"
            )
        if self.waiting:
            found.append(
                f"{self.waiting:,} rows that were to be judged wait still; what is said here holds if they are like the"
                " others, so have them judged first"
            )
        return tuple(found)

    def _table(self) -> Table:
        facts = [("rows", self.rows), ("judged", self.judged), ("to a person whatever the threshold", self.hard),
                 ("to be judged, and waiting", self.waiting), ("without a chance of being judged", self.unseen),
                 ("left as a random sample", self.sample)]  # fmt: skip
        return table("What this history can carry", (), [(name, f"{n:,}") for name, n in facts], self.conclusions)


def check(history: Any, target_risk: float = 0.02, confidence_level: float = 0.95, *, seed: int = 0) -> Check:
    """Say what can be concluded from a history, what cannot, and which audits are missing.

    Parameters
    ----------
    history
        What `read` takes.
    target_risk, confidence_level
        What is to be promised.

    Examples
    --------
    >>> check({"confidence": [0.9] * 40, "wrong": [False] * 40}).conclusions
    ('no promise yet (at most 2 % wrong, at 95 %): it needs 110 more judged rows without an error',)
    """
    rows: History = read(history)
    delta = 1 - within("confidence_level", confidence_level, inside=True)
    needed = rows_needed(within("target_risk", target_risk, inside=True), delta) + 1
    chance = rows.probability[rows.open]
    carries = bool(len(chance)) and chance.min() > 0  # else nothing is known of some, or waits
    evidence = rows.evidence(seed) if carries else None
    return Check(
        rows=len(rows), judged=int(rows.judged.sum()), hard=int((~rows.open).sum()), waiting=int(rows.waiting.sum()),
        unseen=int((rows.logged[rows.open] <= 0).sum()), sample=0 if evidence is None else len(evidence), needed=needed,
        probability=1.0 if evidence is None else evidence.probability, promise=(target_risk, confidence_level),
        rare=_rare(rows, len(evidence or ()), seed), pace=rows.pace,
    )  # fmt: skip


def _rare(rows: History, kept: int, seed: int) -> tuple[float, int, int] | None:
    """Return what is gained without the few rows that were least likely to be judged, where it doubles the sample."""
    if not rows.open.any():
        return None
    below = float(np.quantile(rows.logged[rows.open], 0.05, method="higher"))
    part = rows[rows.open & (rows.logged >= below)]
    left = int(part.sample(seed)[0].sum()) if (part.probability > 0).all() else 0
    return (below, int(rows.open.sum()) - len(part), left) if left > 2 * kept else None
