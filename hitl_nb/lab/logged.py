"""A history as a policy sees it: the columns that its rules read, the draws, and what was decided."""

from __future__ import annotations

from datetime import datetime
from itertools import repeat
from operator import is_not
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitl_nb.display import spell
from hitl_nb.errors import BadInput, CannotReplay, EvidenceError
from hitl_nb.evidence import Certificate
from hitl_nb.lab.history import Bools, Floats, History, read
from hitl_nb.policy import Batch, Decisions, Finding, Policy, Rule
from hitl_nb.policy.batch import Array, values
from hitl_nb.task import FLAGS

#: where a history keeps what a prediction said; every other field stands under its full name
_PLACES = {f"prediction.{flag}": flag for flag in FLAGS}
_PLACES |= {"prediction.label": "prediction", "prediction.model": "model"}
#: most rules whose findings are kept for the next policy
_KEPT = 16
#: chances of being judged that are looked for one by one
_FEW = 16
#: stands for the time of a decision, on which no route depends
_ANY_TIME = datetime(2000, 1, 1)


class Logged:
    """Decisions of a history, n of them, for as many policies as one likes: what they share is computed once.

    ``Logged(history)`` takes what `read` takes. A field of an input is found in the column ``input.<name>``, one of a
    prediction in ``prediction.<name>``; label and flags of a prediction are where ``queue.history()`` has them.
    """

    def __init__(self, history: Any, seed: int = 0) -> None:
        import pandas as pd

        rows: History = read(history)
        self.rows, self.batch = rows, _Columns(rows)
        #: the logged draws, float64 of shape (n,); NaN where none was logged
        self.uniform = self.floats("audit_uniform")
        logged = "review_probability" in rows.frame and "audit_probability" in rows.frame
        #: what the log let through without a person, audited or not; None where routes were not logged
        self.automatic: Bools | None = ~rows.asked if logged else None
        named = rows.frame["reasons"].notna().to_numpy(bool) if "reasons" in rows.frame else False
        #: rows that a hard rule sent to a person, and no reason says which: whatever the policy, they go there again
        self.unexplained: Bools = rows.hard & ~np.asarray(named, dtype=bool)
        drawn = np.random.default_rng(seed).random(len(rows)) * rows.probability
        self._turn = np.where(rows.judged, drawn, np.inf)
        self._levels = sorted(pd.unique(rows.probability).tolist())
        self._ids = np.zeros((len(rows), 2), dtype=np.uint64)
        self._ids[:, 0] = np.arange(len(rows))

    @classmethod
    def of(cls, history: Any, seed: int = 0) -> Logged:
        """Return it for a history, or what is one already."""
        return history if isinstance(history, cls) else cls(history, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def decide(self, policy: Policy) -> Decisions:
        """Return what a policy decides about the rows, with the logged draws; one that is missing is drawn by place.

        Raises
        ------
        CannotReplay
            A rule needs a field that the history does not hold.
        """
        self._can(policy)
        return policy.decide(self.batch, task_ids=self._ids, now=_ANY_TIME, uniform=self.uniform)

    def passes(self, policy: Policy) -> Bools:
        """Return what goes through: no rule asks, audits aside, and no hard rule that the log does not name asked."""
        self._can(policy)
        return np.asarray(~policy.asks(self.batch)) & ~self.unexplained

    def _can(self, policy: Policy) -> None:
        threshold, held = policy.confidence_threshold, self.rows.frame
        if policy.label_thresholds and "prediction" not in held:
            raise CannotReplay(rule="confidence", field="prediction")
        if isinstance(threshold, Certificate) and threshold.model is not None and "model" not in held:
            raise CannotReplay(rule="certificate", field="model")

    def sample(self, among: Bools) -> tuple[NDArray[np.intp], float]:
        """Return which judged ones of some rows are a simple random sample of those, and its inclusion probability.

        They are thinned to the one probability that the least likely of them had, as `History.evidence` does it; a row
        that serves two policies serves both or neither, which keeps comparisons close.

        Raises
        ------
        EvidenceError
            Some of the rows could never be judged, or none of them is.
        """
        n, least = np.count_nonzero(among), self._least(among)
        if least <= 0:
            never = bool((among & (self.rows.logged <= 0)).any())
            some = among & ((self.rows.logged if never else self.rows.probability) <= 0)
            why = "had no chance of being judged; audit them" if never else "are like rows that all wait; judge those"
            raise EvidenceError(what=f"{np.count_nonzero(some):,} of {n:,} rows {why} first")
        found = np.flatnonzero(among & (self._turn < least))
        if not len(found):
            raise EvidenceError(what=f"none of {n:,} rows is judged" if n else "no row goes through without a person")
        return found, least

    def _least(self, among: Bools) -> float:
        chance = self.rows.probability
        if len(self._levels) > _FEW:
            return float(np.where(among, chance, 1.0).min(initial=1.0))
        return next((level for level in self._levels if (among & (chance == level)).any()), 1.0)

    def floats(self, name: str) -> Floats:
        """Return a column of numbers, NaN where there is none."""
        return numbers(self.rows, name)


def numbers(rows: History, name: str) -> Floats:
    """Return a column of numbers, NaN where there is none; what is no number is refused."""
    if name not in rows.frame:
        return np.full(len(rows), np.nan)
    try:
        return np.asarray(rows.frame[name].to_numpy(np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        remedy = f"holds what is no number ({error}); make it numbers"
        raise BadInput(name=name, value=str(rows.frame[name].dtype), remedy=remedy) from None


def pooled(rows: History) -> list[str]:
    """Return a sentence where the answers of several models are taken together; none where they are of one."""
    models = rows.frame["model"].value_counts().to_dict() if "model" in rows.frame else {}
    named = ", ".join(f"{spell(name)} ({n:,})" for name, n in list(models.items())[:10])
    return [f"answers of {len(models):,} models are taken together: {named}"] if len(models) > 1 else []


class _Columns(Batch):
    """The columns of a history as a batch; what a rule found in it is kept for the next policy that holds the rule."""

    def __init__(self, rows: History) -> None:
        self._rows, self._read, self._missing = rows, dict[str, Array | None](), dict[str, None]()
        self._found: dict[int, tuple[Rule, list[Finding]]] = {}
        names = [name for name in map(str, rows.frame.columns) if name.startswith(("input.", "prediction."))]
        super().__init__(len(rows), self._of, [*_PLACES, *names], self._is_given)

    def check(self, rule: Rule) -> list[Finding]:
        if id(rule) not in self._found:
            self._missing.clear()
            found = rule.check(self)
            if absent := [field for field in self._missing if field not in _PLACES]:
                raise CannotReplay(rule=rule.name, field=absent[0])
            if len(self._found) >= _KEPT:
                del self._found[next(iter(self._found))]
            self._found[id(rule)] = rule, found  # the rule is kept too, or its id could be another's
        return self._found[id(rule)][1]

    def _of(self, side: str, name: str) -> Array | None:
        """Return a column, and note it where there is none."""
        field = f"{side}.{name}"
        if field == "prediction.confidence":
            return self._rows.confidence
        if field not in self._read:
            place = _PLACES.get(field, field)
            self._read[field] = self._values(place) if place in self._rows.frame else None
        if self._read[field] is None:
            self._missing[field] = None
        return self._read[field]

    def _values(self, place: str) -> Array | None:
        given = self._rows.frame[place]
        return None if place in FLAGS and not _there(given).any() else values(given)

    def _is_given(self, side: str, name: str) -> Array:
        place = _PLACES.get(f"{side}.{name}", f"{side}.{name}")
        return _there(self._rows.frame[place]) if place in self._rows.frame else np.zeros(self.n, dtype=bool)


def _there(column: Any) -> Bools:
    """Return which flags were given at all: one that was given as null is None, one that was not is NA."""
    import pandas as pd

    if column.dtype != object:
        return np.asarray(column.notna(), dtype=bool)
    return np.fromiter(map(is_not, column.tolist(), repeat(pd.NA)), bool, len(column))
