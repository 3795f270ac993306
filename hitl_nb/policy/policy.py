"""Policy: the routing object that holds all rules. Pure: ids, time and seed come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np

from hitl_nb.errors import BadInput
from hitl_nb.evidence import Certificate
from hitl_nb.payload import canonical, digest, name
from hitl_nb.policy.batch import Array, Batch
from hitl_nb.policy.decision import Decisions
from hitl_nb.policy.rule import FLAGS, Finding, Rule, rule_from_dict
from hitl_nb.task import CONSENSUS, ON_DEADLINE

#: findings a policy may make: they are told apart by the bits of one integer
MAX_FINDINGS = 60


@dataclass(frozen=True)
class Policy:
    """Decides which predictions need a person.

    Parameters
    ----------
    confidence_threshold
        Predictions below it go to a person, 0..1; or a certificate, which holds for its own model only.
    rules
        Further reasons to ask, beside the four flags of the contract, which always hold.
    audit_rate
        Share of auto-approved predictions that a person judges after the fact, drawn at random.
    audit_blocks
        Whether callers wait for audits; by default they are told ``auto_approved`` at once.
    second_audit
        Share of the audits that two people judge, which tells how often reviewers err.
    deadline
        Time that a task may take; None: no deadline.
    on_deadline
        ``escalate`` to the next level, ``hold`` (marked overdue) or ``deny`` (expired). Never an approval.
    escalation
        Expertise of level 1, 2, …
    consensus
        How several reviews of a task become one answer: ``majority``, ``unanimous``, ``adjudicator``.
    seed
        Seed of the audit draws.
    label_thresholds
        Thresholds for single labels, in place of ``confidence_threshold``.

    Examples
    --------
    >>> batch = Batch.from_rows([{}, {}], [{"confidence": 0.93}, {"confidence": 0.62}])
    >>> ids = ["01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002"]
    >>> decided = Policy(0.85, audit_rate=0).decide(batch, task_ids=ids, now=datetime(2026, 1, 1))
    >>> [str(d.status) for d in decided], decided[1].reasons[0].text
    (['auto_approved', 'pending_review'], 'Low confidence: 0.62')
    """

    confidence_threshold: float | Certificate = 0.85
    rules: tuple[Rule, ...] = ()
    audit_rate: float = 0.02
    audit_blocks: bool = False
    second_audit: float = 0.1
    deadline: timedelta | None = None
    on_deadline: str = "escalate"
    escalation: tuple[str, ...] = ()
    consensus: str = "majority"
    seed: int = 0
    label_thresholds: Mapping[Any, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _freeze(self, rules=tuple(self.rules), escalation=tuple(self.escalation))
        if not isinstance(self.confidence_threshold, Certificate):
            _freeze(self, confidence_threshold=_share("confidence_threshold", self.confidence_threshold))
        for what in ("audit_rate", "second_audit"):
            _freeze(self, **{what: _share(what, getattr(self, what))})
        for label, threshold in self.label_thresholds.items():
            _share(f"threshold of label {label!r}", threshold)
        _one_of("on_deadline", self.on_deadline, ON_DEADLINE)
        _one_of("consensus", self.consensus, CONSENSUS)
        if self.deadline is not None and not (isinstance(self.deadline, timedelta) and self.deadline > timedelta(0)):
            raise BadInput(name="deadline", value=self.deadline, remedy="pass a positive timedelta, or None")
        for word in self.escalation:
            name("escalation", word)
        _check_rules(self.rules)

    def decide(self, batch: Batch, *, task_ids: Sequence[str] | Array, now: datetime) -> Decisions:
        """Decide for a batch.

        Parameters
        ----------
        batch
            Inputs and predictions, n rows.
        task_ids
            UUIDs as text, or as uint64 of shape (n, 2); the audit draw is keyed by them, never by the input.
        now
            UTC; deadlines count from it.
        """
        findings = [finding for rule in (*FLAGS, *self.rules) for finding in rule.check(batch)]
        findings += self._confidence(batch)
        asked = np.zeros(batch.n, dtype=bool)
        for finding in findings:
            asked |= finding.fired
        hard = np.zeros(batch.n, dtype=bool)
        for finding in findings:
            hard |= finding.fired & finding.hard
        uniform = draws(task_ids, self.seed)
        audit = ~asked & (uniform < self.audit_rate)
        if audit.any():
            findings.append(self._audit(audit))
        twice = audit & (draws(task_ids, self.seed ^ 1 << 63) < self.second_audit)
        fired = sorted((f for f in findings if f.fired.any()), key=lambda f: -f.strength)
        return Decisions(
            findings=tuple(fired),
            approved=~(asked | audit) if self.audit_blocks else ~asked,
            confidence=batch.confidence,
            priority=_ranks(batch.confidence, hard),
            audit=audit,
            audit_uniform=uniform,
            audit_probability=np.where(asked, 0.0, self.audit_rate),
            review_probability=np.where(asked, 1.0, self.audit_rate),
            reviews_required=np.where(twice, 2, 1).astype(np.int16),
            hard=hard,
            deadline=None if self.deadline is None else now + self.deadline,
            policy=self.fingerprint,
        )

    def _audit(self, drawn: Array) -> Finding:
        says = f"Random audit (p={self.audit_rate:g})"
        return Finding(rule="audit", says=says, fired=drawn, bound=self.audit_rate, hard=False, strength=10)

    def _confidence(self, batch: Batch) -> list[Finding]:
        found = batch.confidence
        unknown = np.isnan(found)
        raw = batch.get("prediction.confidence")
        says = "Unknown confidence" if raw is None else "Unknown confidence: {value}"
        where = None if raw is None else "prediction.confidence"
        missing = Finding(rule="unknown", says=says, fired=unknown, values=raw, field=where, strength=50)
        return [missing, *self._uncertified(batch, unknown), *self._below(batch, unknown)]

    def _below(self, batch: Batch, unknown: Array) -> list[Finding]:
        certificate = self.confidence_threshold
        default = certificate.threshold if isinstance(certificate, Certificate) else certificate
        rest = ~unknown
        findings = []
        for label, bound in self.label_thresholds.items():
            of_label = rest & _equal(batch.get("prediction.label"), label, batch.n)
            findings.append(_low(batch.confidence, bound, of_label))
            rest &= ~of_label
        return findings if default is None else [*findings, _low(batch.confidence, default, rest)]

    def _uncertified(self, batch: Batch, unknown: Array) -> list[Finding]:
        certificate = self.confidence_threshold
        if not isinstance(certificate, Certificate):
            return []
        common: dict[str, Any] = {"rule": "certificate", "hard": False, "strength": 30}
        models = batch.get("prediction.model")
        if certificate.threshold is None:
            says = f"No threshold qualifies: {certificate.reason_if_none or 'too little evidence'}"
            return [Finding(says=says, fired=~unknown, **common)]
        valid = _equal(models, certificate.model, batch.n) & (certificate.revoked_at is None)
        says = "No valid certificate for model {value}"
        where = None if models is None else "prediction.model"
        return [Finding(says=says, fired=~valid, values=models, field=where, **common)]

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of everything that the policy decides by; stored with every decision."""
        return digest(canonical(self.to_dict(), "policy"))[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as a plain dict that survives JSON and TOML."""
        threshold = self.confidence_threshold
        return {
            "confidence_threshold": threshold.to_dict() if isinstance(threshold, Certificate) else threshold,
            "rules": [rule.to_dict() for rule in self.rules],
            "audit_rate": self.audit_rate,
            "audit_blocks": self.audit_blocks,
            "second_audit": self.second_audit,
            "deadline_seconds": 0.0 if self.deadline is None else self.deadline.total_seconds(),
            "on_deadline": self.on_deadline,
            "escalation": list(self.escalation),
            "consensus": self.consensus,
            "seed": self.seed,
            "label_thresholds": [[label, bound] for label, bound in self.label_thresholds.items()],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], using: Mapping[str, Any] | None = None) -> Policy:
        """Return the policy of a dict.

        Parameters
        ----------
        stored
            What ``to_dict`` gave.
        using
            Detectors and functions by the name of their rule; they are checked against the stored content hash.
        """
        values = dict(stored)
        threshold, seconds = values["confidence_threshold"], values.pop("deadline_seconds")
        if isinstance(threshold, Mapping):
            values["confidence_threshold"] = Certificate.from_dict(dict(threshold))
        values["rules"] = tuple(rule_from_dict(rule, using or {}) for rule in values["rules"])
        values["label_thresholds"] = {label: bound for label, bound in values["label_thresholds"]}
        return cls(**values, deadline=timedelta(seconds=seconds) if seconds else None)


def draws(task_ids: Sequence[str] | Array, seed: int) -> Array:
    """Return one uniform number a task, float64 of shape (n,) in [0, 1), keyed by seed and task id (splitmix64)."""
    pairs = task_ids if isinstance(task_ids, np.ndarray) else id_pairs(task_ids)
    key = np.full(len(pairs), seed % 2**64, dtype=np.uint64)
    for half in (pairs[:, 0], pairs[:, 1]):
        key = _mix(key ^ half)
    return (key >> np.uint64(11)).astype(np.float64) / float(2**53)


def id_pairs(task_ids: Sequence[str]) -> Array:
    """Return UUIDs as uint64 of shape (n, 2)."""
    whole = b"".join(UUID(task_id).bytes for task_id in task_ids)
    return np.frombuffer(whole, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def _mix(x: Array) -> Array:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _low(confidence: Array, bound: float, among: Array) -> Finding:
    fired = among & ~(confidence >= bound)  # NaN must go to a human
    common: dict[str, Any] = {"field": "confidence", "hard": False, "strength": 20}
    return Finding(
        rule="confidence", says="Low confidence: {value}", fired=fired, values=confidence, bound=bound, **common
    )


def _equal(values: Array | None, wanted: Any, n: int) -> Array:
    found = [None] * n if values is None else values
    return np.fromiter((type(v) is type(wanted) and v == wanted for v in found), bool, n)


def _ranks(confidence: Array, hard: Array) -> Array:
    high = hard | ~(confidence >= 0.5)
    return np.where(high, 2, np.where(confidence < 0.7, 1, 0)).astype(np.int8)


def _share(what: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise BadInput(name=what, value=value, remedy="pass a number from 0 to 1")
    return float(value)


def _one_of(what: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise BadInput(name=what, value=value, remedy=f"pass one of {', '.join(words)}")


def _check_rules(rules: tuple[Rule, ...]) -> None:
    names = [flag.name for flag in FLAGS] + ["unknown", "confidence", "certificate", "audit"]
    for rule in rules:
        if not isinstance(rule, Rule):
            raise BadInput(name="rules", value=rule, remedy="pass rules such as FieldAbove, Outlier, Predicate")
        if rule.name in names:
            raise BadInput(name="rules", value=rule.name, remedy="two rules have this name; give each its own")
        names.append(rule.name)
    if 2 * len(names) > MAX_FINDINGS:
        raise BadInput(name="rules", value=len(rules), remedy=f"a policy holds up to {MAX_FINDINGS // 2 - 8} rules")


def _freeze(policy: Policy, **values: Any) -> None:
    for key, value in values.items():
        object.__setattr__(policy, key, value)
