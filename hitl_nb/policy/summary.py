"""A policy as a table: which rules ask a person, when, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hitl_nb.display import Table, line, table
from hitl_nb.evidence import Certificate
from hitl_nb.policy.predicate import Predicate
from hitl_nb.policy.rule import FLAGS, FieldAbove, Flag, Outlier, Rule

if TYPE_CHECKING:
    from hitl_nb.policy.policy import Policy

Row = tuple[str, ...]
_COLUMNS = ("rule", "asks a person when", "bound", "hard", "priority")
#: what the columns mean
_LEGEND = "hard: no threshold lets it through; priority by confidence: high below 0.5, medium below 0.7, else low"
#: a rule of the policy's own: no bound to show, not hard
_SOFT = ("no", "by confidence")


def of_policy(policy: Policy) -> Table:
    """Return the rules, then what happens to audits and deadlines."""
    unread = "the confidence is no number from 0 to 1" + (
        ", or the label none at all" if policy.label_thresholds else ""
    )
    rows = [*map(_rule, (*FLAGS, *policy.rules)), ("unknown", unread, "", "yes", "high"), *_thresholds(policy)]
    return table(f"Policy {policy.fingerprint}", _COLUMNS, rows, [_LEGEND, *_notes(policy)])


def _rule(rule: Rule) -> Row:
    asks = {
        Flag: "the prediction says so, or neither yes nor no",
        FieldAbove: "the field is above the bound, or no number",
        Outlier: "the detector finds the input odd, or cannot judge it",
        Predicate: f"{getattr(rule, 'says', '') or 'its function is true'}; or it cannot judge",
    }
    known = ("yes", "high") if type(rule) in asks else ("as it says", "")
    return rule.name, asks.get(type(rule), "it fires"), str(getattr(rule, "bound", "")), *known


def _thresholds(policy: Policy) -> Iterator[Row]:
    threshold, below = policy.confidence_threshold, "the confidence is below the bound"
    for label, bound in policy.label_thresholds.items():
        yield f"confidence of {line(label)}", below, f"{bound:g}", *_SOFT
    if not isinstance(threshold, Certificate):
        yield "confidence", below, f"{threshold:g}", *_SOFT
    elif threshold.threshold is None or threshold.revoked_at is not None:
        yield "certificate", f"always: {threshold.reason_if_none or 'the certificate was revoked'}", "", *_SOFT
    else:
        other = f", or the model is not {threshold.model}" if threshold.model else ""
        yield "certificate", below + other, f"{threshold.threshold:g}", *_SOFT


def _notes(policy: Policy) -> list[str]:
    when = "before the caller is told" if policy.audit_blocks else "after the fact"
    twice = f"; two people judge {_percent(policy.second_audit)} of them" if policy.audit_rate else ""
    levels = f" to {', '.join(policy.escalation)}" if policy.escalation else ""
    deadline = f"{policy.deadline}, then {policy.on_deadline}{levels}" if policy.deadline else "none"
    return [f"audits: {_percent(policy.audit_rate)} of the rest, at random, {when}{twice}", f"deadline: {deadline}"]


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
