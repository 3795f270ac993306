"""Inputs and predictions side by side, as columns: what rules look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from hitl_nb.policy.rule import Finding, Rule

Array = np.ndarray[Any, Any]


class Batch(Mapping[str, Array]):
    """``n`` inputs with their predictions.

    ``batch["amount"]`` and ``batch["input.amount"]`` are the input field, ``batch["prediction.label"]`` a field of the
    prediction, ``batch["confidence"]`` the confidence as float64 with NaN where it is unknown; each of shape (n,).

    >>> batch = Batch.from_rows([{"amount": 3}], [{"label": "ok", "confidence": "high"}])
    >>> batch["amount"].tolist(), batch["confidence"].tolist()
    ([3], [nan])
    """

    def __init__(
        self, n: int, column: Callable[[str, str], Array | None], names: Sequence[str],
        given: Callable[[str, str], Array] | None = None,
    ) -> None:  # fmt: skip
        self.n = n
        self._column = column
        self._names = tuple(names)
        self._given = given or (lambda side, name: np.full(n, column(side, name) is not None))
        self._cache: dict[str, Array] = {}

    @classmethod
    def from_rows(cls, inputs: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> Batch:
        """Build a batch from dicts, one input and one prediction a row."""
        sides = _sides(inputs, predictions)

        def column(side: str, name: str) -> Array | None:
            if not any(name in row for row in sides[side]):
                return None
            return objects([_stored(row.get(name)) for row in sides[side]])

        def given(side: str, name: str) -> Array:
            return np.fromiter((name in row for row in sides[side]), bool, len(inputs))

        names = [f"{side}.{name}" for side, rows in sides.items() for name in _keys(rows)]
        return cls(len(inputs), column, names, given)

    @classmethod
    def from_frames(cls, inputs: pd.DataFrame, predictions: pd.DataFrame) -> Batch:
        """Build a batch from two frames of the same index."""
        sides = _sides(inputs, predictions)

        def column(side: str, name: str) -> Array | None:
            return values(sides[side][name]) if name in sides[side].columns else None

        return cls(len(inputs), column, [f"{side}.{name}" for side, frame in sides.items() for name in frame.columns])

    def get(self, name: str, default: Any = None) -> Any:
        """Return the column, or ``default`` where no row has it."""
        found = self.confidence if name == "confidence" else self._column(*place(name))
        return default if found is None else found

    def given(self, name: str) -> Array:
        """Return where a row has the field at all, even if empty, bool of shape (n,)."""
        return self._given(*place(name))

    def __getitem__(self, name: str) -> Array:
        found = self.get(name)
        if found is None:
            known = ", ".join(self._names[:20])
            raise BadInput(name="field", value=name, remedy=f"no row has it; there are: {known}")
        return np.asarray(found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def check(self, rule: Rule) -> list[Finding]:
        """Return what a rule finds in it."""
        return rule.check(self)

    def rows(self) -> Iterator[Batch]:
        """Yield each row as a batch of its own."""
        for i in range(self.n):
            yield self.take(np.array([i]))

    def take(self, rows: Array) -> Batch:
        """Return some of the rows."""
        return Batch(
            len(rows), lambda side, name: part(self._column(side, name), rows), self._names,
            lambda side, name: self._given(side, name)[rows],
        )  # fmt: skip

    @property
    def confidence(self) -> Array:
        """Confidence, float64 of shape (n,); NaN: missing, no number, or outside 0..1."""
        if "confidence" not in self._cache:
            found = self.numbers("prediction.confidence")
            with np.errstate(invalid="ignore"):
                self._cache["confidence"] = np.where((found >= 0) & (found <= 1), found, np.nan)
        return self._cache["confidence"]

    def numbers(self, name: str) -> Array:
        """Return a field as float64 of shape (n,), NaN where it is missing or no finite number; booleans are none."""
        found = self.get(name)
        if found is None or found.dtype.kind not in "iufO":
            return np.full(self.n, np.nan)
        if found.dtype.kind == "O":
            found = np.fromiter((_number(value) for value in found), np.float64, self.n)
        with np.errstate(over="ignore"):
            numbers = found.astype(np.float64)
        return np.where(np.isfinite(numbers), numbers, np.nan)


def _sides(inputs: Any, predictions: Any) -> dict[str, Any]:
    if len(inputs) != len(predictions):
        remedy = f"there are {len(inputs)} inputs; pass one prediction for each"
        raise BadInput(name="predictions", value=f"{len(predictions)} rows", remedy=remedy)
    return {"input": inputs, "prediction": predictions}


def values(series: pd.Series[Any]) -> Array:
    """Return a column as an array, each value as it is stored: an integer beside a missing value stays one."""
    if series.dtype.kind in "biuf" and (isinstance(series.dtype, np.dtype) or not series.hasnans):
        return series.to_numpy()
    return objects([_stored(value) for value in series.tolist()])


def _stored(value: Any) -> Any:
    """Return a value as its payload has it: pandas' missing values are stored as null."""
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def place(name: str) -> tuple[str, str]:
    """Return the side and the field that a name means: ``input`` unless it says otherwise."""
    side, dot, rest = name.partition(".")
    return (side, rest) if dot and side in ("input", "prediction") else ("input", name)


def part(column: Array | None, rows: Array) -> Array | None:
    """Return some rows of a column."""
    return None if column is None else column[rows]


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def objects(values: Sequence[Any]) -> Array:
    """Return a one-dimensional object array, whatever the values are."""
    return np.fromiter(values, dtype=object, count=len(values))


def absent(values: Array) -> Array:
    """Return where there is no value at all, bool of shape (n,)."""
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    return np.fromiter((value is None for value in values), bool, len(values))


def is_bool(value: object) -> bool:
    """Return whether a value is a boolean, of Python or of numpy."""
    return isinstance(value, (bool, np.bool_))


def is_number(value: object) -> bool:
    """Return whether a value is a real number, of Python or of numpy; booleans and time spans are none."""
    number = isinstance(value, (int, float, np.integer, np.floating))
    return number and not isinstance(value, (bool, np.timedelta64))


def _number(value: Any) -> float:
    if not is_number(value):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")
