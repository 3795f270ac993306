"""What a policy decided: for one input, and for a batch as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from hitl_nb.policy.batch import Array
from hitl_nb.policy.rule import Finding
from hitl_nb.task import Priority, Reason, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What was decided for one input."""

    #: what the caller is told: auto_approved or pending_review
    status: Status
    #: confidence, 0 to 1; None if unknown
    confidence: float | None
    #: every rule that fired, strongest first; a random audit is one of them
    reasons: tuple[Reason, ...]
    #: order in the queue
    priority: Priority
    #: who may judge it; None: anyone
    expertise: str | None
    #: latest time, UTC; None: no deadline
    deadline: datetime | None
    #: whether it was drawn for an audit
    audit: bool
    #: the logged draw, uniform in 0..1
    audit_uniform: float
    #: probability with which an audit was drawn; 0 where a rule asked for a person
    audit_probability: float
    #: probability that a person sees it
    review_probability: float
    #: how many reviewers are asked
    reviews_required: int
    #: whether a hard rule fired
    hard: bool
    #: fingerprint of the policy
    policy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """What was decided for ``n`` inputs, as columns of shape (n,)."""

    #: rules that fired anywhere, strongest first
    findings: tuple[Finding, ...]
    #: what the callers are told: True for auto_approved
    approved: Array
    #: float64, NaN if unknown
    confidence: Array
    #: int8, ranks of Priority
    priority: Array
    #: whether it was drawn for an audit
    audit: Array
    #: the logged draws, uniform in 0..1
    audit_uniform: Array
    #: probability with which an audit was drawn; 0 where a rule asked for a person
    audit_probability: Array
    #: probability that a person sees it
    review_probability: Array
    #: how many reviewers are asked, int16
    reviews_required: Array
    #: whether a hard rule fired
    hard: Array
    #: latest time, UTC; None: no deadline
    deadline: datetime | None
    #: fingerprint of the policy
    policy: str

    def __len__(self) -> int:
        return len(self.approved)

    def __getitem__(self, i: int) -> Decision:
        confidence = float(self.confidence[i])
        fired = [finding for finding in self.findings if finding.fired[i]]
        return Decision(
            status=Status.AUTO_APPROVED if self.approved[i] else Status.PENDING,
            confidence=None if np.isnan(confidence) else confidence,
            reasons=tuple(reasons_at(finding, np.array([i]))[0] for finding in fired),
            priority=Priority.ranked(int(self.priority[i])),
            expertise=next((f.expertise for f in fired if f.expertise), None),
            deadline=self.deadline,
            audit=bool(self.audit[i]),
            audit_uniform=float(self.audit_uniform[i]),
            audit_probability=float(self.audit_probability[i]),
            review_probability=float(self.review_probability[i]),
            reviews_required=int(self.reviews_required[i]),
            hard=bool(self.hard[i]),
            policy=self.policy,
        )

    def __iter__(self) -> Iterator[Decision]:
        return (self[i] for i in range(len(self)))

    def combinations(self) -> tuple[Array, list[tuple[Finding, ...]]]:
        """Return which findings fired together: a code a row, int64 of shape (n,), and the findings of each code."""
        import pandas as pd

        codes = np.zeros(len(self), dtype=np.int64)
        for k, finding in enumerate(self.findings):
            codes = (codes if k % 30 else pd.factorize(codes)[0]) * 2 + finding.fired  # below 2^63 up to 2^33 rows
        codes = pd.factorize(codes)[0].astype(np.int64)
        first = np.flatnonzero(~pd.Series(codes).duplicated())
        return codes, [tuple(f for f in self.findings if f.fired[i]) for i in first]


def reasons_at(finding: Finding, rows: Array) -> list[Reason]:
    """Return what a finding says of each of some rows."""
    fixed = {key: getattr(finding, key) for key in ("rule", "says", "bound", "field", "hard")}
    if finding.values is None:
        return [Reason(**fixed)] * len(rows)
    return [Reason(value=value, **fixed) for value in map(scalar, finding.values[rows].tolist())]


def scalar(value: Any) -> Any:
    """Return a numpy scalar as a plain one."""
    return value.item() if isinstance(value, np.generic) else value
