"""Policy: the routing object that holds all rules. Pure: ids, time and seed come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np

from hitl_nb.display import Shows, Table
from hitl_nb.errors import BadInput
from hitl_nb.evidence import Certificate
from hitl_nb.payload import canonical, digest, name
from hitl_nb.policy.batch import Array, Batch, absent, is_bool, is_number
from hitl_nb.policy.decision import Decisions
from hitl_nb.policy.rule import FLAGS, Finding, Rule, check_finding
from hitl_nb.policy.stored import rule_from_dict
from hitl_nb.policy.summary import of_policy
from hitl_nb.task import CONSENSUS, ON_DEADLINE


@dataclass(frozen=True)
class Policy(Shows):
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
        Thresholds for single labels, in place of ``confidence_threshold``. Numbers are compared by value (1 is 1.0),
        texts as texts, booleans apart from both; a prediction without a readable label then goes to a person.

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
        for what in ("rules", "escalation"):
            if not isinstance(getattr(self, what), (tuple, list)):
                raise BadInput(name=what, value=getattr(self, what), remedy="pass a tuple, also of one: (one,)")
        _freeze(self, rules=tuple(self.rules), escalation=tuple(self.escalation))
        if not isinstance(self.confidence_threshold, Certificate):
            _freeze(self, confidence_threshold=_share("confidence_threshold", self.confidence_threshold))
        for what in ("audit_rate", "second_audit"):
            _freeze(self, **{what: _share(what, getattr(self, what))})
        _freeze(self, label_thresholds=dict(_label_threshold(*one) for one in self.label_thresholds.items()))
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise BadInput(name="seed", value=self.seed, remedy="pass an integer")
        _freeze(self, seed=int(self.seed))
        _one_of("on_deadline", self.on_deadline, ON_DEADLINE)
        _one_of("consensus", self.consensus, CONSENSUS)
        if self.deadline is not None and not (isinstance(self.deadline, timedelta) and self.deadline > timedelta(0)):
            raise BadInput(name="deadline", value=self.deadline, remedy="pass a positive timedelta, or None")
        for word in self.escalation:
            name("escalation", word)
        _check_rules(self.rules)

    def decide(
        self, batch: Batch, *, task_ids: Sequence[str] | Array, now: datetime, uniform: Array | None = None
    ) -> Decisions:
        """Decide for a batch.

        Parameters
        ----------
        batch
            Inputs and predictions, n rows.
        task_ids
            UUIDs as text, or as uint64 of shape (n, 2); the audit draw is keyed by them, never by the input.
        now
            UTC; deadlines count from it.
        uniform
            Draws to use again, such as the logged ones, float64 of shape (n,); those that are NaN are drawn.
        """
        findings = self._findings(batch)
        asked, hard = _any(findings, batch.n), _any([f for f in findings if f.hard], batch.n)
        pairs = id_pairs(task_ids, batch.n)
        uniform = _drawn(pairs, self.seed, uniform)
        audit = ~asked & (uniform < self.audit_rate)
        findings.append(self._audit(audit))
        twice = np.zeros(batch.n, dtype=bool)
        twice[audit] = draws(pairs[audit], self.seed ^ 1 << 63) < self.second_audit
        return Decisions(
            findings=_strongest_first(findings),
            approved=~(asked | audit) if self.audit_blocks else ~asked,
            confidence=batch.confidence,
            priority=_ranks(batch.confidence, hard),
            audit=audit,
            audit_uniform=uniform,
            audit_probability=np.where(asked, 0.0, self.audit_rate),
            review_probability=np.where(asked, 1.0, self.audit_rate),
            reviews_required=np.where(twice, np.int16(2), np.int16(1)),
            hard=hard,
            deadline=None if self.deadline is None else now + self.deadline,
            policy=self.fingerprint,
        )

    def asks(self, batch: Batch) -> Array:
        """Return where any rule asks for a person, audits aside; bool of shape (n,)."""
        return _any(self._findings(batch), batch.n)

    def _findings(self, batch: Batch) -> list[Finding]:
        findings = [finding for rule in (*FLAGS, *self.rules) for finding in batch.check(rule)]
        for finding in findings:
            check_finding(finding, batch.n)
        return findings + self._confidence(batch)

    def _audit(self, drawn: Array) -> Finding:
        says = f"Random audit (p={self.audit_rate:g})"
        return Finding(rule="audit", says=says, fired=drawn, bound=self.audit_rate, hard=False, strength=10)

    def _confidence(self, batch: Batch) -> list[Finding]:
        unknown = np.isnan(batch.confidence)
        asked = [*_unknown(batch, "confidence", unknown), *self._uncertified(batch, unknown)]
        return asked + self._below(batch, ~unknown)

    def _below(self, batch: Batch, known: Array) -> list[Finding]:
        certificate = self.confidence_threshold
        default = certificate.threshold if isinstance(certificate, Certificate) else certificate
        if not self.label_thresholds:
            return [] if default is None else [_low(batch.confidence, default, known)]
        default = np.nan if default is None else default
        labels = _keys(batch, "label")
        own = {label_key(label): bound for label, bound in self.label_thresholds.items()} | {None: np.nan}
        bounds = np.fromiter((own.get(label, default) for label in labels), np.float64, batch.n)
        unread = np.fromiter((label is None for label in labels), bool, batch.n)
        low = [_low(batch.confidence, bound, known & (bounds == bound)) for bound in {default, *own.values()}]
        return [*_unknown(batch, "label", unread), *low]

    def _uncertified(self, batch: Batch, unknown: Array) -> list[Finding]:
        certificate = self.confidence_threshold
        if not isinstance(certificate, Certificate):
            return []
        common: dict[str, Any] = {"rule": "certificate", "hard": False, "strength": 30}
        models = batch.get("prediction.model", np.full(batch.n, None))
        if certificate.threshold is None:
            says = f"No threshold qualifies: {certificate.reason_if_none or 'too little evidence'}"
            return [Finding(says=says, fired=~unknown, **common)]
        key = label_key(certificate.model)
        right = certificate.model is None or [key is not None and key == model for model in _keys(batch, "model")]
        valid = np.full(batch.n, right, dtype=bool) & (certificate.revoked_at is None)
        says = "No valid certificate for model {value}"
        return [Finding(says=says, fired=~valid, values=models, field="prediction.model", **common)]

    def _table(self) -> Table:
        return of_policy(self)

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of everything that the policy decides by; stored with every decision."""
        return digest(canonical(self.to_dict(), "policy"))[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as a plain dict that survives JSON and TOML."""
        threshold = self.confidence_threshold
        return {
            "confidence_threshold": _stated(threshold.to_dict()) if isinstance(threshold, Certificate) else threshold,
            "rules": [rule.to_dict() for rule in self.rules],
            "audit_rate": self.audit_rate,
            "audit_blocks": self.audit_blocks,
            "second_audit": self.second_audit,
            "deadline_seconds": 0.0 if self.deadline is None else self.deadline.total_seconds(),
            "on_deadline": self.on_deadline,
            "escalation": list(self.escalation),
            "consensus": self.consensus,
            "seed": self.seed,
            "label_thresholds": sorted(map(list, self.label_thresholds.items()), key=canonical),
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
        values = dict(stored) if isinstance(stored, Mapping) else {"": stored}
        known = {one.name for one in fields(cls)} - {"deadline"} | {"deadline_seconds"}
        if odd := set(values) - known:
            raise BadInput(name="policy", value=sorted(map(str, odd)), remedy="unknown; pass what Policy.to_dict gave")
        threshold, seconds = values.get("confidence_threshold"), values.pop("deadline_seconds", 0)
        if isinstance(threshold, Mapping):
            open_ended = dict.fromkeys(("threshold", "target_risk", "confidence_level"))
            values["confidence_threshold"] = Certificate.from_dict({**open_ended, **threshold})
        values["rules"] = tuple(rule_from_dict(rule, using or {}) for rule in values.get("rules", ()))
        values["label_thresholds"] = dict(values.get("label_thresholds", ()))
        return cls(**values, deadline=timedelta(seconds=seconds) if seconds else None)


def draws(pairs: Array, seed: int) -> Array:
    """Return one uniform number a task, float64 of shape (n,) in [0, 1), keyed by seed and task id (splitmix64)."""
    key = np.full(len(pairs), seed % 2**64, dtype=np.uint64)
    for half in (pairs[:, 0], pairs[:, 1]):
        key = _mix(key ^ half)
    return (key >> np.uint64(11)).astype(np.float64) / float(2**53)


def _drawn(pairs: Array, seed: int, logged: Array | None) -> Array:
    """Return the logged draws, and new ones where there are none."""
    found = np.full(len(pairs), np.nan) if logged is None else np.asarray(logged, dtype=np.float64)
    if found.shape != (len(pairs),):
        raise BadInput(name="uniform", value=found.shape, remedy=f"there are {len(pairs)} rows; pass a draw for each")
    gone = np.isnan(found)
    return np.where(gone, draws(pairs, seed), found) if gone.any() else found


def id_pairs(task_ids: Sequence[str] | Array, n: int) -> Array:
    """Return ``n`` task ids as uint64 of shape (n, 2)."""
    if isinstance(task_ids, np.ndarray) and task_ids.dtype == np.uint64:
        pairs = task_ids
    else:
        pairs = np.frombuffer(b"".join(map(_octets, task_ids)), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    if pairs.shape != (n, 2):
        raise BadInput(name="task_ids", value=f"{len(task_ids)} ids", remedy=f"there are {n} rows; pass an id for each")
    return pairs


def _octets(task_id: Any) -> bytes:
    try:
        return UUID(task_id).bytes
    except (ValueError, AttributeError, TypeError):
        raise BadInput(name="task_ids", value=task_id, remedy="pass UUIDs as text") from None


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


def _unknown(batch: Batch, what: str, fired: Array) -> list[Finding]:
    raw = batch.get(f"prediction.{what}", np.full(batch.n, None))
    none = absent(raw)
    common: dict[str, Any] = {"rule": "unknown", "values": raw, "field": f"prediction.{what}", "strength": 50}
    missing = Finding(says=f"Unknown {what}", fired=fired & none, **common)
    return [missing, Finding(says=f"Unknown {what}: {{value}}", fired=fired & ~none, **common)]


def _keys(batch: Batch, what: str) -> list[tuple[type, Any] | None]:
    values = batch.get(f"prediction.{what}")
    return [None] * batch.n if values is None else list(map(label_key, values.tolist()))


def label_key(label: Any) -> tuple[type, Any] | None:
    """Return what a label is compared by: numbers by value, texts, booleans apart; None: it is no label.

    >>> label_key(1) == label_key(np.float32(1)), label_key(1) == label_key(True), label_key(float("nan"))
    (True, False, None)
    """
    if isinstance(label, str):
        return str, str.__str__(label)
    if is_bool(label):
        return bool, bool(label)
    if not is_number(label):
        return None
    number = int(label) if isinstance(label, (int, np.integer)) else float(label)
    if abs(number) < 2**53 and number == int(number):
        return float, int(number)
    return (float, number) if abs(number) < np.inf else None


def _any(findings: Sequence[Finding], n: int) -> Array:
    fired = np.zeros(n, dtype=bool)
    for finding in findings:
        fired |= finding.fired
    return fired


def _strongest_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted((f for f in findings if f.fired.any()), key=lambda f: -f.strength))


def _ranks(confidence: Array, hard: Array) -> Array:
    high = hard | ~(confidence >= 0.5)
    return np.where(high, np.int8(2), (confidence < 0.7).astype(np.int8))


def _share(what: str, value: Any) -> float:
    if not is_number(value) or not 0 <= value <= 1:
        raise BadInput(name=what, value=value, remedy="pass a number from 0 to 1")
    return float(value)


def _label_threshold(label: Any, threshold: Any) -> tuple[Any, float]:
    key = label_key(label)
    if key is None:
        raise BadInput(name="label_thresholds", value=label, remedy="labels are texts, finite numbers or booleans")
    return key[1], _share(f"threshold of label {label!r}", threshold)


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _one_of(what: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise BadInput(name=what, value=value, remedy=f"pass one of {', '.join(words)}")


def _check_rules(rules: tuple[Rule, ...]) -> None:
    names = [flag.name for flag in FLAGS] + ["unknown", "confidence", "certificate", "audit"]
    for rule in rules:
        if isinstance(rule, type) or not isinstance(rule, Rule):
            raise BadInput(name="rules", value=rule, remedy="pass rules such as FieldAbove, Outlier, Predicate")
        if rule.name in names:
            raise BadInput(name="rules", value=rule.name, remedy="two rules have this name; give each its own")
        names.append(rule.name)


def _freeze(policy: Policy, **values: Any) -> None:
    for key, value in values.items():
        object.__setattr__(policy, key, value)
