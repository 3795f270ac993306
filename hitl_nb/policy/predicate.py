"""Predicate: a rule made of any function of the columns, and what that function gets to see."""

from __future__ import annotations

import cmath
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

import numpy as np

from hitl_nb.errors import BadInput
from hitl_nb.payload import MAX_DEPTH, MAX_NAME, name
from hitl_nb.policy.batch import Array, Batch, is_bool, is_number, objects, part
from hitl_nb.policy.rule import Finding, as_plain, content_hash, seen, truth

#: most calls of a function for one batch: rows that it fails on are found by halving, the rest goes to a person
MAX_CALLS = 10_000
#: types of columns; what is none of them, such as text, stays as it is; what is lost is unknown
_TYPES = (np.bool_, np.int64, np.float64)
_LOST, _BOOL, _INT, _FLOAT, _OTHER = range(-1, 4)
#: integers from here stay Python's: a product of two could leave int64, which wraps in silence
_LARGE = 2**31


@dataclass(frozen=True, kw_only=True)
class Predicate:
    """Any vectorised function of the columns: true asks for a person, and so does what it cannot judge.

    A row cannot be judged where a field that the function reads is unknown (missing, None, NaN, infinite), where the
    function fails, and where its answer is neither true nor false. ``batch.get(field, default)`` is the way to read a
    field that may be missing. Numbers come as float64 or int64, however they are stored; integers from 2^31 stay
    Python's own, so that a product never wraps.

    >>> rule = Predicate(name="night", function=lambda batch: batch["hour"] < 6, says="Night: {value}", field="hour")
    >>> found = rule.check(Batch.from_rows([{"hour": 3}, {"hour": 9}, {}], [{}, {}, {}]))
    >>> [(finding.says, finding.fired.tolist()) for finding in found if finding.fired.any()]
    [('Night: {value}', [True, False, False]), ('night cannot judge this input: hour is unknown', [False, False, True])]
    """

    #: name of the rule
    name: str
    #: takes the batch (a mapping from field to array), returns bool of shape (n,)
    function: Callable[[Batch], Any]
    #: the reason in words; default: the name
    says: str = ""
    #: field to show as the value
    field: str | None = None
    #: who may judge what it sends
    expertise: str | None = None
    kind: ClassVar[str] = "predicate"

    def __post_init__(self) -> None:
        name("rule", self.name)
        if not callable(self.function):
            raise BadInput(name=f"function of {self.name}", value=self.function, remedy="pass a function of the batch")

    def check(self, batch: Batch) -> list[Finding]:
        """Return where the function is true, and where it cannot judge."""
        fired, unjudged = self._judge(batch)
        shown = seen(batch, self.field) if self.field else {}
        true = Finding(rule=self.name, says=self.says or self.name, fired=fired, expertise=self.expertise, **shown)
        return [true, *(self._unjudged(batch, field, rows) for field, rows in unjudged.items() if rows.any())]

    def _unjudged(self, batch: Batch, field: str, rows: Array) -> Finding:
        says = f"{self.name} cannot judge this input"
        if field:
            says += f": {field[:MAX_NAME]} is unknown"
        shown = seen(batch, field) if 0 < len(field) <= MAX_NAME else {}
        return Finding(rule=self.name, says=says, fired=rows, expertise=self.expertise, **shown)

    def _judge(self, batch: Batch) -> tuple[Array, dict[str, Array]]:
        """Return where the function is true; and where it cannot judge, by the field that is unknown, "" for none."""
        columns = Batch(batch.n, cache(batch._column), batch._names)
        fired, unjudged = np.zeros(batch.n, dtype=bool), {"": np.zeros(batch.n, dtype=bool)}
        waiting, calls = deque([np.arange(batch.n)]), 0
        while waiting:
            rows, calls = waiting.popleft(), calls + 1
            if calls > MAX_CALLS:
                unjudged[""][rows] = True
            elif len(rows):
                waiting.extend(self._try(columns, rows, fired, unjudged))
        return fired, unjudged

    def _try(self, columns: Batch, rows: Array, fired: Array, unjudged: dict[str, Array]) -> list[Array]:
        """Call the function for some rows, note what it says, and return those that must be tried again."""
        known = _Known(columns, rows)
        try:
            with np.errstate(invalid="raise"):  # a NaN made on the way, as 0 / 0 makes it, is no answer either
                answers = _array(self.function(known))
        except Exception:
            if known.groups is None and len(rows) > 1:
                return list(np.array_split(rows, 2))  # one row that fails must not speak for the others
            answers = np.full(len(rows), None)
        if known.groups is not None:
            unjudged.setdefault(known.field, np.zeros(columns.n, dtype=bool))[rows[known.groups == _LOST]] = True
            return [rows[known.groups == group] for group in np.unique(known.groups) if group != _LOST]
        self._check(answers, len(rows))
        fired[rows], unjudged[""][rows] = truth(answers)
        return []

    def _check(self, answers: Array, n: int) -> None:
        if answers.shape != (n,) or answers.dtype.kind not in "biufO":
            remedy = f"returned {answers.dtype} of shape {answers.shape}, return one boolean a row: shape ({n},)"
            raise BadInput(name=f"predicate {self.name}", value=answers.ravel()[:5].tolist(), remedy=remedy)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict; the function is named with its content hash."""
        return as_plain(self, "name", "says", "field", "expertise") | {"content": content_hash(self.function)}


class _Known(Batch):
    """Some rows of a batch, as a function sees them: known values only, and each column of one type.

    Where rows must part for that, reading raises, and ``groups`` holds which of them the function may see together.
    """

    def __init__(self, batch: Batch, rows: Array) -> None:
        super().__init__(len(rows), lambda side, name: part(batch._column(side, name), rows), batch._names)
        self.groups: Array | None = None
        self.field = ""

    def get(self, name: str, default: Any = None) -> Any:
        """Return the column; ``default`` stands where there is no value."""
        values = super().get(name, objects([None] * self.n))
        if _group(default) != _LOST:
            values = _filled(values, default)
        with np.errstate(over="ignore"):
            values = values.astype(np.float64) if values.dtype.kind == "f" else values
        group = self._part(name, _groups(values))
        if group == _OTHER:
            return objects([int(value) if is_number(value) else value for value in values])
        return values.astype(_TYPES[group])

    def numbers(self, name: str) -> Array:
        found = super().numbers(name)
        self._part(name, _groups(found))
        return found

    def take(self, rows: Array) -> Batch:
        return _Known(self, rows)

    def _part(self, name: str, groups: Array) -> int:
        if groups[0] == _LOST or (groups != groups[0]).any():
            self.groups, self.field = groups, name
            remedy = "its values are unknown or of several types; use batch.get(field, default)"
            raise BadInput(name="field", value=name, remedy=remedy)
        return int(groups[0])


def _array(answers: Any) -> Array:
    masked = isinstance(answers, np.ma.MaskedArray)
    return np.asarray(np.ma.filled(answers.astype(object), None) if masked else answers)


def _filled(values: Array, default: Any) -> Array:
    filled = values.astype(object)
    gone = [value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)) for value in filled]
    filled[gone] = default
    return filled


def _groups(values: Array) -> Array:
    """Return the type that each value has in a column of its own, or that it is lost, of shape (n,)."""
    if values.dtype.kind == "O":
        return np.fromiter(map(_group, values), np.int8, len(values))
    if values.dtype.kind == "f":
        return np.where(np.isfinite(values), _FLOAT, _LOST)
    whole = values.dtype.kind != "b"
    return np.where((values < _LARGE) & (values > -_LARGE), _INT, _OTHER) if whole else np.full(len(values), _BOOL)


def _group(value: Any) -> int:
    if isinstance(value, (float, np.floating)):
        return _FLOAT if cmath.isfinite(value) else _LOST
    if is_bool(value):
        return _BOOL
    if is_number(value):
        return _INT if abs(int(value)) < _LARGE else _OTHER
    return _LOST if value is None or _is_lost(value) else _OTHER


def _is_lost(value: Any, depth: int = 0) -> bool:
    """Return whether a value is, or holds, a number or time that is none."""
    if isinstance(value, (float, complex, np.floating, np.complexfloating, Decimal)):
        return not cmath.isfinite(value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and not np.isfinite(value).all()
    if isinstance(value, (Mapping, list, tuple)):
        parts = value.values() if isinstance(value, Mapping) else value
        return depth > MAX_DEPTH or any(_is_lost(one, depth + 1) for one in parts)
    return isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value))
