"""Where the automatic part is wrong: fields and their values, corrected for many looks, each to be made a rule."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, line, spell, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import clopper_pearson
from hitl_nb.evidence.check import count, within
from hitl_nb.lab.history import Bools, read
from hitl_nb.lab.logged import pooled
from hitl_nb.policy import FieldAbove, Predicate

if TYPE_CHECKING:
    import pandas as pd

    from hitl_nb.policy import Batch

#: columns that say nothing of an input: what became of it is known only once it is decided or judged
_OURS = {"confidence", "wrong", "label", "review_probability", "hard", "task_id", "at_time", "outcome", "reviewer",
         "policy", "status", "priority", "expertise", "deadline", "reasons", "audit_uniform", "audit_probability",
         "claimed_at", "reviewed_at"}  # fmt: skip
#: columns of what is found
COLUMNS = ("field", "value", "rows", "judged", "wrong", "risk", "low", "high", "lift", "p")
#: a column with more different values than this is looked at only if it holds numbers
MOST_VALUES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """The rows in which a field has a value or lies in a range; true where a batch has it."""

    #: name of the column, and of the field as rules know it; None: no rule can see it
    column: str
    field: str | None
    #: the value; None in a range
    value: Any = None
    #: the range: above ``low``, at most ``high``, in the field's unit
    low: float = -np.inf
    high: float = np.inf

    def __str__(self) -> str:
        if self.value is not None:
            return spell(self.value)
        low = f"above {self.low:.4g}" if self.low > -np.inf else ""
        return " and ".join(filter(None, (low, f"at most {self.high:.4g}" if self.high < np.inf else "")))

    def of(self, values: Any) -> Bools:
        """Return where values lie in it, shape (n,)."""
        import pandas as pd

        given = pd.Series(values)
        if self.value is not None:
            return np.asarray((given == self.value).to_numpy(bool, na_value=False))
        numbers = pd.to_numeric(given, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        return np.asarray((numbers > self.low) & (numbers <= self.high))

    def __call__(self, batch: Batch) -> Bools:
        """Return where the inputs of a batch lie in it."""
        return self.of(batch[str(self.field)])

    def rule(self) -> FieldAbove | Predicate:
        """Return a rule that asks a person about it.

        Raises
        ------
        BadInput
            No rule can see that column.
        """
        if self.field is None:
            raise BadInput(name="column", value=self.column, remedy="is no field of an input; choose another row")
        if self.value is None and self.high == np.inf:
            return FieldAbove(field=self.field, bound=self.low)
        name = f"{self.column}: {line(str(self), 60)}"
        return Predicate(name=name, function=self, says=f"Often wrong where {name}", field=self.field)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Slices(Shows):
    """Parts of what goes through without a person, the surest to be worse than the rest first; made by `slices`."""

    #: a line each: field, value, rows; judged, wrong; risk, low, high (shares); lift (risk to that of all); p (Holm)
    frame: pd.DataFrame
    #: what the lines are, in the same order
    parts: tuple[Slice, ...]
    #: how often all intervals hold at once, a share
    level: float
    #: error of all that goes through, a share, and the judged rows behind it
    risk: float
    n: int
    #: what else is to be known, a sentence each, such as that several models are taken together
    notes: tuple[str, ...] = ()

    def rule(self, number: int = 0) -> FieldAbove | Predicate:
        """Return a rule for one line, to be added to a policy: ``Policy(..., rules=(found.rule(0),))``."""
        return self.parts[count("number", number, len(self.parts) - 1)].rule()

    def _table(self) -> Table:
        worse = int((self.frame["p"] <= 1 - self.level).sum())
        title = f"{worse} of {len(self.parts)} parts of the automatic answers are proven to be worse than the rest"
        fact = f"of all {self.risk:.1%} are wrong ({self.n:,} judged); corrected for {len(self.parts)} looks"
        lines = [
            (i, one.field, one.value, f"{one.rows:,}", f"{one.wrong} of {one.judged:,}",
             f"{one.low:.1%} to {one.high:.1%}", f"{one.lift:.1f}", f"{one.p:.2g}")
            for i, one in enumerate(self.frame.head(10).itertuples(index=False))
        ]  # fmt: skip
        header = ("", "field", "value", "rows", "wrong", f"at {self.level:.0%}", "lift", "p")
        notes = ["add a line as a rule: Policy(..., rules=(found.rule(0),))"]
        return table(title, header, lines, notes, [fact, *self.notes])


def slices(
    history: Any, fields: Sequence[str] | None = None, *, threshold: float | None = None, bins: int = 4,
    level: float = 0.95, seed: int = 0,
) -> Slices:  # fmt: skip
    """Look where the answers that go through without a person are wrong more often than elsewhere.

    Each value of a field is one look, or each of ``bins`` ranges of a number with equally many rows, whose ends depend
    on no label. A look compares the part with the rest by Fisher's exact test, one-sided; p-values are corrected by
    Holm's method, and the exact intervals (Clopper and Pearson) share ``1 - level`` equally, so that all hold at once.

    Parameters
    ----------
    history
        What `read` takes, such as ``queue.history(inputs=True)``.
    fields
        Columns to look at; default: the inputs, the prediction and the group.
    threshold
        Confidence from which answers go through; default: those that were audited, not sent to a person by a rule.

    Raises
    ------
    EvidenceError
        Nothing went through, or nothing of that was judged, or there is no column to look at.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> country = rng.choice(["a", "b", "c"], 3000)
    >>> wrong = rng.random(3000) < np.where(country == "b", 0.06, 0.01)
    >>> found = slices({"confidence": [0.9] * 3000, "wrong": wrong, "country": country}, threshold=0.85)
    >>> found.frame[["field", "value", "wrong", "judged"]].values[0].tolist(), found.rule(0).name
    (['country', 'b', 66, 995], 'country: b')
    """
    import pandas as pd
    from scipy.stats import hypergeom

    rows, delta = read(history), 1 - within("level", level, inside=True)
    limit = None if threshold is None else within("threshold", threshold)
    passed = rows[rows.open & (~rows.asked if limit is None else rows.confidence >= limit)]
    if not len(passed):
        raise EvidenceError(what="nothing goes through without a person; pass threshold=, from which it would")
    judged, _ = passed.sample(seed)
    frame, wrong, n = passed.frame, passed.wrong[judged] == 1, int(judged.sum())
    found = [(part, inside) for part in _parts(frame, fields, count("bins", bins))
             if 0 < (inside := part.of(frame[part.column]))[judged].sum() < n]  # fmt: skip
    if not found:
        raise EvidenceError(
            what=f"no field tells the {n:,} judged rows apart; use history(inputs=True), name fields=, or judge more"
        )
    lines, risk = [], wrong.mean()
    for part, inside in found:
        seen, bad = int(inside[judged].sum()), int(wrong[inside[judged]].sum())
        one = clopper_pearson(bad, seen, 1 - delta / len(found))
        p = float(hypergeom.sf(bad - 1, n, wrong.sum(), seen))
        lift = one.estimate / risk if risk else 1.0
        many = int(inside.sum())
        lines.append((str(part.column), str(part), many, seen, bad, one.estimate, one.low, one.high, lift, p))
    made = pd.DataFrame(lines, columns=list(COLUMNS))
    order = np.lexsort((-made["lift"], made["p"]))
    made = made.iloc[order].reset_index(drop=True)
    made["p"] = np.minimum(1, np.maximum.accumulate(made["p"] * np.arange(len(made), 0, -1)))  # Holm 1979
    parts = tuple(found[k][0] for k in order)
    return Slices(frame=made, parts=parts, level=level, risk=float(risk), n=n, notes=tuple(pooled(rows)))


def _parts(frame: pd.DataFrame, fields: Sequence[str] | None, bins: int) -> Iterator[Slice]:
    """Yield the parts of each column, cut without a look at any label."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if fields is None and "task_id" in frame:  # it is a queue's history
        fields = [
            name for name in map(str, frame.columns) if name.startswith("input.") or name in ("prediction", "group")
        ]
    for name in [name for name in frame.columns if name not in _OURS] if fields is None else fields:
        if name not in frame:
            raise BadInput(name="fields", value=name, remedy=f"columns are {', '.join(map(str, frame.columns[:20]))}")
        column, short = frame[name].dropna(), str(name).removeprefix("input.")
        field = {"prediction": "prediction.label", "group": None}.get(name, str(name) if "." in short else short)
        if column.dtype == object and not all(isinstance(value, Hashable) for value in column):
            continue
        values = column.unique()
        if is_numeric_dtype(column) and not is_bool_dtype(column) and len(values) > bins:
            inner = np.quantile(column.to_numpy(np.float64), np.linspace(0, 1, bins + 1)[1:-1])
            ends = [-np.inf, *map(float, np.unique(inner)), np.inf]
            yield from (Slice(column=name, field=field, low=a, high=b) for a, b in pairwise(ends))
        elif len(values) <= MOST_VALUES:
            yield from (Slice(column=name, field=field, value=value) for value in values)
