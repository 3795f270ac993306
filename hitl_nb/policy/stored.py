"""Rules read back from what was stored, and the check that a rule keeps the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hitl_nb.errors import BadInput, RuleChanged, UnknownRule
from hitl_nb.payload import canonical
from hitl_nb.policy.batch import Batch
from hitl_nb.policy.predicate import Predicate
from hitl_nb.policy.rule import FieldAbove, Flag, Outlier, Rule, check_finding, content_hash

#: fields of a stored rule that are read back; detectors and functions come from outside
_STORED: dict[str, tuple[type, set[str]]] = {
    "flag": (Flag, {"flag", "says", "strength", "expertise"}),
    "field_above": (FieldAbove, {"field", "bound", "expertise"}),
    "outlier": (Outlier, {"name", "fields", "expertise", "content"}),
    "predicate": (Predicate, {"name", "says", "field", "expertise", "content"}),
}


def rule_from_dict(stored: Mapping[str, Any], using: Mapping[str, Any]) -> Rule:
    """Return the rule of a dict; detectors, predicates and rules of your own are looked up in ``using`` by name.

    Raises
    ------
    UnknownRule
        The kind is unknown, or the object is missing from ``using``.
    RuleChanged
        The object's content is not the one that was stored.
    BadInput
        The dict is no rule.
    """
    if not isinstance(stored, Mapping):
        raise BadInput(name="rules", value=stored, remedy="pass what Policy.to_dict gave")
    kind, title = str(stored.get("kind")), str(stored.get("name", stored.get("kind")))
    thing = using.get(title)
    if isinstance(thing, Rule):
        _unchanged(title, canonical(stored), canonical(thing.to_dict()))
        return thing
    made, fields = _STORED.get(kind, (None, set()))
    if made is None or ("content" in fields and title not in using):
        raise UnknownRule(rule=title)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items() if k != "kind"}
    if "content" in fields:
        _unchanged(title, values.pop("content", None), content_hash(thing))
        values["detector" if made is Outlier else "function"] = thing
    try:
        rule: Rule = made(**values)
    except TypeError as error:
        raise BadInput(name=f"rule {title}", value=dict(stored), remedy=f"{error}; fields are {fields}") from None
    return rule


def _unchanged(rule: str, stored: Any, given: str) -> None:
    if stored != given:
        raise RuleChanged(rule=rule, stored=stored, given=given)


def check_rule(rule: Rule, batch: Batch) -> None:
    """Check that a rule keeps the contract: run it on ``batch`` whole and row by row.

    Raises
    ------
    BadInput
        What it found differs, has another shape, or the rule cannot be stored.
    """
    whole = rule.check(batch)
    for finding in whole:
        check_finding(finding, batch.n)
    together = np.zeros(batch.n, dtype=bool)
    for finding in whole:
        together |= finding.fired
    single = [any(f.fired[0] for f in rule.check(row)) for row in batch.rows()]
    if together.tolist() != single:
        raise BadInput(name=f"rule {rule.name}", value=single, remedy="one row alone must be judged as in the batch")
    stored = rule.to_dict()
    if not isinstance(stored.get("kind"), str) or canonical(stored, f"rule {rule.name}") != canonical(rule.to_dict()):
        raise BadInput(name=f"rule {rule.name}", value=stored, remedy="to_dict gives the same plain dict with a kind")
