"""A policy decides anew about what was logged: what it lets through, how often that is wrong, and what changes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, line, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Interval, clopper_pearson
from hitl_nb.evidence.check import within
from hitl_nb.lab.history import Bools
from hitl_nb.lab.logged import Logged, pooled
from hitl_nb.lab.workload import Staff, Workload, staffed, workload
from hitl_nb.policy import Decisions, Policy
from hitl_nb.policy.batch import Array
from hitl_nb.policy.decision import reasons_at

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


#: what the table of a replay says
_FIGURES = ("go through without a person", "wrong among those", "wrong, at most (one-sided)", "reviews in 1,000",
            "reviews an hour", "cost of 1,000, about")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What reviews, errors and waiting cost, all in one unit."""

    #: of one review
    review: float = 0.0
    #: of one wrong answer that nobody stopped
    error: float = 0.0
    #: share of a row's ``value`` that is lost with such an answer; a row without a value loses nothing
    value: float = 0.0
    #: of one hour that a row waits for its review
    delay: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            within(field.name, getattr(self, field.name), 0, 1e12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What some routes come to: those that a policy takes, or those that were logged."""

    #: share decided without a person
    coverage: float
    #: how often reviewers disagree with what goes through, two-sided; None where nothing can be said
    risk: Interval | None
    #: one-sided upper bound of the same, at the same level; NaN where nothing can be said
    at_most: float
    #: why nothing can be said, one sentence; None where something can
    unsaid: str | None
    #: rows of 1,000 that a person judges, expected audits among them
    reviews: float
    #: the same an hour, at the pace at which the rows came; NaN where no times tell
    per_hour: float
    #: best guess of the cost of 1,000 rows; NaN where no price was given, or nothing can be said of errors. An audit
    #: stops an error only where callers wait for it (``audit_blocks``)
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Replay(Shows):
    """What a policy would have done with a history; made by `replay`."""

    #: the policy
    policy: Policy
    #: the history
    logged: Logged
    #: rows that go through without a person, audited or not; bool of shape (n,)
    automatic: Bools
    #: what that comes to
    outcome: Outcome
    #: what the logged routes came to; None where none were logged
    before: Outcome | None
    #: how often intervals hold, a share
    level: float

    @property
    def decisions(self) -> Decisions:
        """What the policy decides, as columns of shape (n,), with reasons and audits."""
        return self.logged.decide(self.policy)

    @property
    def changed(self) -> Bools:
        """Rows that take another route than the logged one; bool of shape (n,)."""
        before = self.logged.automatic
        return np.zeros(len(self.logged), dtype=bool) if before is None else self.automatic != before

    def changes(self) -> pd.DataFrame:
        """Return the rows that change their route, with their index: where they went, where they go now, and why."""
        import pandas as pd

        rows, held = np.flatnonzero(self.changed), self.logged.rows.frame
        now, routes = self.automatic[rows].astype(int), np.array(["a person", "automatic"])
        why = np.full(len(self.logged), "no rule asks", dtype=object)
        if "reasons" in held:
            why[rows] = [f"asked before: {_names(one)}" for one in held["reasons"].iloc[rows]]
        for finding in reversed(self.decisions.findings):  # the strongest is written last
            some = rows[finding.fired[rows] & (now == 0)]
            why[some] = [reason.text for reason in reasons_at(finding, some)]
        found = pd.DataFrame({"was": routes[1 - now], "now": routes[now], "why": why[rows]}, index=held.index[rows])
        if "task_id" in held:
            found.insert(0, "task_id", held["task_id"].iloc[rows])
        return found

    def misses(self, *, min_coverage: float | None = None, max_risk: float | None = None) -> list[str]:
        """Return which demands are not met, a sentence each.

        Parameters
        ----------
        min_coverage
            Least share that goes through without a person, counted on this history.
        max_risk
            Largest disagreement among those. Its upper bound is judged, not the best guess; without evidence it is
            not met.
        """
        found, one = [], self.outcome
        if min_coverage is not None and not one.coverage >= within("min_coverage", min_coverage):
            found.append(f"{one.coverage:.2%} go through without a person, at least {min_coverage:.2%} are asked for")
        if max_risk is not None and not one.at_most <= within("max_risk", max_risk):
            bound = f"its upper bound at {self.level:.0%} is {one.at_most:.2%}"
            said = f"nothing can be said: {one.unsaid}" if one.unsaid else bound
            found.append(f"the risk is to be at most {max_risk:.2%}, and {said}")
        return found

    def __str__(self) -> str:
        one, n = self.outcome, int(self.changed.sum())
        wrong = f"of their errors nothing can be said: {one.unsaid}"
        if one.risk is not None:
            waits = f", {self._waiting:,} wait still" if self._waiting else ""
            judged = f"({one.risk.n:,} judged of {int(self.automatic.sum()):,}{waits})"
            wrong = f"with {self.level:.0%} confidence reviewers would disagree with at most {one.at_most:.1%} of those"
            wrong = f"{wrong} {judged}"
        was = f" ({self.before.coverage:.1%} in the log)" if self.before else ""
        moved = f"; {n:,} rows change their route" if self.before else ""
        return f"{one.coverage:.1%} of {len(self.logged):,} go through without a person{was}; {wrong}{moved}."

    def _table(self) -> Table:
        both = [one for one in (self.before, self.outcome) if one is not None]
        header = ("", *["in the log"] * (self.before is not None), f"policy {self.policy.fingerprint}")
        rows = zip(_FIGURES, *map(_spelled, both), strict=True)
        return table(str(self), header, [row for row in rows if any(row[1:])], self._notes())

    @property
    def _waiting(self) -> int:
        return int((self.logged.rows.waiting & self.automatic).sum())

    @property
    def _held(self) -> int:
        return int((self.logged.unexplained & ~self.policy.asks(self.logged.batch)).sum())

    def _notes(self) -> list[str]:
        asked = [(line(f.rule), int((f.fired & self.changed & ~self.automatic).sum())) for f in self.decisions.findings]
        by = ", ".join(f"{rule} {n:,}" for rule, n in asked if n)
        freed, waiting, held = int((self.changed & self.automatic).sum()), self._waiting, self._held
        said = [
            (by, f"now to a person, by rule: {by}"),
            (freed, f"now automatic: {freed:,}; changes() says of each row why"),
            (waiting, f"{waiting:,} of the automatic wait for their judgement: this holds if they are like the others"),
            (held, f"{held:,} go to a person by a hard rule that the history does not name: add its reasons"),
        ]
        return [*(text for there, text in said if there), *pooled(self.logged.rows)]

    def plot(self, ax: Axes | None = None, *, bins: int = 40) -> Axes:
        """Draw the routes by confidence, and those that change."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        sure, now, moved = self.logged.rows.confidence, self.automatic, self.changed
        parts = {"automatic": now & ~moved, "now automatic": now & moved, "now to a person": ~now & moved,
                 "a person": ~now & ~moved}  # fmt: skip
        shown = {name: sure[some & ~np.isnan(sure)] for name, some in parts.items() if some.any()}
        colors = dict(zip(parts, ("C0", "C2", "C1", "0.7"), strict=True))
        edges = np.linspace(0, 1, bins + 1).tolist()
        ax.hist(list(shown.values()), edges, stacked=True, color=[colors[name] for name in shown], label=list(shown))
        ax.set(xlabel="confidence", ylabel="rows")
        ax.set_title("Who decides, by how sure the model was")
        ax.legend()
        return ax


def replay(
    policy: Policy, history: Any, *, prices: Prices | None = None, staff: Staff | None = None, level: float = 0.95,
    seed: int = 0,
) -> Replay:  # fmt: skip
    """Let a policy decide about what was logged: the same object that decides in production.

    Risk is that of what the policy lets through, from rows that were judged, thinned to one probability; so it is what
    reviewers disagree with. A row that could never have been judged makes it unsaid, never a number.

    Parameters
    ----------
    policy
        The policy.
    history
        What `read` takes, such as ``queue.history(inputs=True)``; or a `Logged`, which many replays share. Inputs stand
        in columns ``input.<name>``. Logged audit draws are used again.
    prices
        What reviews, errors and waiting cost; a price of waiting needs what `workload` needs. Whether audits stopped
        errors is taken from the policy, for the logged routes too.
    staff
        Who judges, for the waiting; see `workload`.
    level
        How often intervals hold, above 0.5.
    seed
        Draws which reviewed rows serve beside the audits, where no `Logged` did so.

    Raises
    ------
    CannotReplay
        A rule needs a field that the history does not hold.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 3000)
    >>> print(str(replay(Policy(0.9), {"confidence": sure, "wrong": rng.random(3000) > sure})).replace("; ", chr(10)))
    66.7% of 3,000 go through without a person
    with 95% confidence reviewers would disagree with at most 4.6% of those (2,001 judged of 2,001).
    """
    logged = Logged.of(history, seed)
    automatic, outcome = judge(policy, logged, prices=prices, staff=staff, level=level, seed=seed)
    old, chance, before, work = logged.automatic, logged.rows.logged, None, None
    if old is not None:
        if _waits(prices):
            asked, ranks = ~old | (logged.uniform < chance), logged.decide(policy).priority
            work = staffed(logged, asked, ranks, staff, policy.deadline, seed)
        before = _outcome(logged, old, float(chance.sum(where=old)), policy.audit_blocks, prices, work, level)
    return Replay(policy=policy, logged=logged, automatic=automatic, level=level, outcome=outcome, before=before)


def judge(
    policy: Policy, logged: Logged, *, prices: Prices | None, level: float, seed: int, staff: Staff | None = None
) -> tuple[Bools, Outcome]:
    """Return what goes through under a policy, and what comes of it; see `replay`."""
    within("level", level, 0.5, inside=True)
    if not isinstance(policy, Policy):
        raise BadInput(name="policy", value=policy, remedy="pass a Policy; Policy.from_dict makes one of a dict")
    automatic = logged.passes(policy)
    work = workload(policy, logged, staff, seed=seed) if _waits(prices) else None
    audits = policy.audit_rate * int(automatic.sum())
    return automatic, _outcome(logged, automatic, audits, policy.audit_blocks, prices, work, level)


def _waits(prices: Prices | None) -> bool:
    return prices is not None and prices.delay > 0


def _outcome(
    logged: Logged, automatic: Bools, audits: float, blocks: bool, prices: Prices | None, work: Workload | None,
    level: float,
) -> Outcome:  # fmt: skip
    n, passed = max(1, len(logged)), int(automatic.sum())
    reviews, unsaid, risk, at_most, loss, cost = len(logged) - passed + audits, None, None, np.nan, np.nan, np.nan
    try:
        rows, _ = logged.sample(automatic)
        errors = int(logged.rows.wrong[rows].sum())
        risk = clopper_pearson(errors, len(rows), level)
        at_most = clopper_pearson(errors, len(rows), 2 * level - 1).high
        loss = _loss(logged, rows, prices) if prices else np.nan
    except EvidenceError as error:
        unsaid = str(error)
    if prices:
        lost = (passed - audits * blocks) * loss if passed and (prices.error or prices.value) else 0.0
        waited = float(work.minutes.sum()) / 60 if work else 0.0
        cost = 1000 / n * (prices.review * reviews + prices.delay * waited + lost)
    return Outcome(
        coverage=passed / n, risk=risk, at_most=at_most, unsaid=unsaid, reviews=1000 * reviews / n,
        per_hour=reviews / n * logged.rows.pace, cost=cost,
    )  # fmt: skip


def _loss(logged: Logged, rows: Array, prices: Prices) -> float:
    """Return what one row that goes through loses on average, by its errors."""
    worth = prices.error + prices.value * np.nan_to_num(logged.floats("value")[rows])
    return float((logged.rows.wrong[rows] * worth).mean())


def _names(reasons: Any) -> str:
    """Return which rules a log names, of a list or of a text that a file made of it."""
    listed = isinstance(reasons, (list, tuple, np.ndarray))
    return ", ".join(str(one) for one in reasons if one != "audit") if listed else str(reasons)


def _spelled(one: Outcome) -> tuple[str, ...]:
    """Return the figures as texts, empty where there is none; see `_FIGURES`."""
    numbers = (one.coverage, one.at_most, one.reviews, one.per_hour, one.cost)
    patterns = (".1%", ".2%", ",.1f", ",.1f", ",.2f")
    first, *more = ("" if np.isnan(n) else format(n, how) for n, how in zip(numbers, patterns, strict=True))
    return first, str(one.risk or ""), *more
