"""Rules that never ask, ask for nothing new, or contradict each other, by their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, spell, table
from hitl_nb.lab.history import Bools
from hitl_nb.lab.logged import Logged
from hitl_nb.policy import Finding, Policy
from hitl_nb.policy.policy import label_key

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PolicyCheck(Shows):
    """What the rules of a policy do on a history; made by `check_policy`."""

    #: a line for each rule, by its name: asks (rows that it sends to a person), alone (rows that no other sends)
    frame: pd.DataFrame
    #: what is odd about them, a sentence each
    conclusions: tuple[str, ...]

    def _table(self) -> Table:
        rows = [(name, f"{asks:,}", f"{alone:,}") for name, asks, alone in self.frame.itertuples()]
        title = f"{len(self.conclusions)} odd things about {len(self.frame)} rules"
        return table(title, ("rule", "asks", "alone"), rows, self.conclusions)


def check_policy(policy: Policy, history: Any) -> PolicyCheck:
    """Say which rules never ask, ask only where others ask, or want different people for one row.

    Parameters
    ----------
    policy
        The policy.
    history
        What `read` takes, with the fields that the rules need; or a `Logged`.

    Raises
    ------
    CannotReplay
        A rule needs a field that the history does not hold.

    Examples
    --------
    >>> from hitl_nb.policy import FieldAbove
    >>> rows = {"confidence": [0.95, 0.97], "wrong": [False, False], "input.amount": [10, 5000]}
    >>> rules = [FieldAbove(field="amount", bound=1000), FieldAbove(field="amount", bound=2000)]
    >>> for odd in check_policy(Policy(0.9, rules), rows).conclusions:
    ...     print(odd)
    confidence never asks on these 2 rows
    amount above 2000 asks only where amount above 1000 asks too, on these 2 rows
    """
    import pandas as pd

    logged = Logged.of(history)
    findings = [finding for finding in logged.decide(policy).findings if finding.rule != "audit"]
    names = [*(rule.name for rule in policy.rules), "confidence"]
    asks = {name: np.zeros(len(logged), dtype=bool) for name in names}
    for finding in findings:
        asks[finding.rule] = asks.get(finding.rule, False) | finding.fired
    times = np.sum(list(asks.values()), axis=0)
    columns = {"asks": [int(one.sum()) for one in asks.values()],
               "alone": [int((one & (times == 1)).sum()) for one in asks.values()]}  # fmt: skip
    odd = [*_always(policy, logged), *_on_rows(asks, len(logged)), *_apart(findings)]
    return PolicyCheck(frame=pd.DataFrame(columns, index=pd.Index(asks, name="rule")), conclusions=tuple(odd))


def _always(policy: Policy, logged: Logged) -> Iterator[str]:
    """Yield what holds of thresholds and audits."""
    if policy.audit_rate == 0:
        yield "audit is never drawn: its rate is 0, so nothing will be known of what goes through"
    if policy.label_thresholds:
        there = set(map(label_key, logged.rows.frame["prediction"].tolist()))
        for label in policy.label_thresholds:
            if label_key(label) not in there:
                yield f"the threshold of label {spell(label)} is never used: no prediction has it"


def _on_rows(asks: dict[str, Bools], n: int) -> Iterator[str]:
    """Yield what never asks, always asks, or asks only where another does, on these rows."""
    for name, fired in asks.items():
        if not fired.any():
            yield f"{name} never asks on these {n:,} rows"
        elif fired.all():
            yield f"{name} asks about all of these {n:,} rows, so no other rule matters"
    for (one, less), (other, more) in permutations(asks.items(), 2):
        known = one < other and (less == more).all()  # two that ask about the same rows are named once
        if less.any() and not known and not (less & ~more).any():
            yield f"{one} asks only where {other} asks too, on these {n:,} rows"


def _apart(findings: list[Finding]) -> Iterator[str]:
    """Yield which rules want different people for the same rows."""
    named = [finding for finding in findings if finding.expertise]
    for first, second in combinations(named, 2):
        both = int((first.fired & second.fired).sum())
        if both and first.expertise != second.expertise:
            people = f"{first.expertise}, {second.rule} asks {second.expertise}"
            yield f"{first.rule} asks {people}: on {both:,} rows both do, and {first.expertise} gets them"
