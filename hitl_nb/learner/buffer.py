"""The labelled rows of a learner: one frame, checked before anything is stored.

Its form is the training frame: task_id, features…, label, confidence, weight (raw), source, outcome; where they are
known review_probability and audit_rate, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hitl_nb.errors import BadInput
from hitl_nb.evidence import inverse_confidence

#: column names -> X, or a function of the feature columns, or None for every scalar column
Features = Sequence[str] | Callable[[pd.DataFrame], Any] | None
Rejects = Literal["drop", "label"]

#: columns that are never features
RESERVED = ("task_id", "label", "confidence", "weight", "source", "outcome", "review_probability", "audit_rate")
#: where a label can come from; audits are never trained on
SOURCES = ("initial", "human_review", "audit", "adjudication")
OUTCOMES = ("approve", "reject", "correct")
#: how likely a row was to be seen: of itself, and of an automatic answer under the policy that decided about it
_CHANCES = ["review_probability", "audit_rate"]
#: column of the hashes; no text, because a field of the data may have any name
HASH: Any = object()
#: label of a rejected case where rejects are trained on
REJECTED = "rejected"


def as_labels(values: Sequence[Any]) -> NDArray[Any]:
    """Return labels as an array of one kind; numbers that became floats through a gap are whole again.

    >>> as_labels([1.0, 0.0]).tolist(), as_labels(["a", "b"]).tolist()
    ([1, 0], ['a', 'b'])
    """
    labels = np.asarray(values)
    whole = labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
    return labels.astype(np.int64) if whole else labels


def _refuse(frame: pd.DataFrame, column: str, bad: Any, remedy: str) -> None:
    """Refuse the first row where `bad` holds, by its task and value."""
    rows = np.flatnonzero(np.asarray(bad, dtype=bool))
    if len(rows):
        row = frame.iloc[rows[0]]
        raise BadInput(name=column, value=row[column], remedy=f"{remedy} (task {row['task_id']})", task=row["task_id"])


def _check_one_kind(rows: pd.DataFrame) -> None:
    """Refuse text beside numbers: sorted labels would be neither."""
    known = rows.loc[rows["label"].notna(), ["label"]].reset_index()
    text = known["label"].map(lambda label: isinstance(label, str)).to_numpy(bool)
    _refuse(known, "label", text != text[:1], "labels mix text and numbers; use one kind")


def _is_label(label: Any) -> bool:
    return pd.api.types.is_scalar(label) and not (isinstance(label, (int, float)) and abs(label) >= 2**53)


def _values(column: pd.Series[Any]) -> pd.Series[Any]:
    """Turn enum members into their values."""
    return column.astype(object).map(lambda value: getattr(value, "value", value))


def as_text(label: Any) -> Any:
    """Return a label as text, the same for 1 and 1.0; a gap stays."""
    return label if pd.isna(label) else str(int(label) if isinstance(label, float) and label.is_integer() else label)


def row_hashes(frame: pd.DataFrame) -> NDArray[np.uint64]:
    """Return a hash per row that does not hang on dtype, column order or how a gap is written."""
    total = np.zeros(len(frame), dtype=np.uint64)
    for name in sorted(frame.columns, key=str):
        total = total * np.uint64(1099511628211) ^ _hashes(frame[name])
    return total


def _is_number(value: Any) -> bool:
    """Tell what can be a float; a whole number may be too long for one."""
    is_float = isinstance(value, (float, np.floating, np.integer, np.bool_))
    return is_float or (isinstance(value, int) and value.bit_length() < 1000)


def _hashes(column: pd.Series[Any]) -> NDArray[np.uint64]:
    number = np.ones(len(column), dtype=bool)
    if not pd.api.types.is_numeric_dtype(column):
        number[:] = column.map(_is_number)
    hashes = np.zeros(len(column), dtype=np.uint64)
    hashes[number] = pd.util.hash_array(column[number].to_numpy(dtype=float, na_value=np.nan))
    hashes[~number] = pd.util.hash_array(column[~number].map(str).to_numpy(dtype=object), categorize=False)
    return np.where(column.isna(), np.uint64(0), hashes)


class Buffer:
    """Labelled rows, one per task; a later row for a known task takes its place."""

    def __init__(self, features: Features, rejects: Rejects) -> None:
        self.features, self.rejects = features, rejects
        #: feature columns in stored order; empty until the first rows, unless they are given as a list
        self.columns: list[Any] = [] if features is None or callable(features) else list(features)
        if taken := [name for name in self.columns if name in RESERVED]:
            raise BadInput(name="features", value=taken, remedy="these columns describe the label; rename them")
        #: all rows by task_id, with their hash; replaced as a whole by `add`, so a reader keeps what it took
        self.rows = pd.DataFrame(columns=[*RESERVED, HASH]).set_index("task_id")
        self._synced: frozenset[str] = frozenset()  # ids that came by `sync`
        self._fields: list[str] = []  # columns of the last frame that did

    def frame(self) -> pd.DataFrame:
        """Return the rows in the form of a training frame; the probabilities come with it where one is known."""
        known = [name for name in RESERVED[1:] if name not in _CHANCES or self.rows[name].notna().any()]
        return self.rows.reset_index()[["task_id", *self.columns, *known]]

    def add(self, frame: pd.DataFrame) -> int:
        """Store checked rows; return how many were new or changed."""
        columns, rows = self._checked(frame)
        rows[HASH] = row_hashes(rows.drop(columns=_CHANCES))  # how a row was drawn makes it no other row
        rows = rows.drop_duplicates("task_id", keep="last").set_index("task_id")
        fresh = rows[~rows[HASH].isin(self.rows[HASH])]
        kept = self.rows.drop(index=fresh.index, errors="ignore")
        if len(kept) and rows["audit_rate"].notna().any():  # a policy may come into the log after its first answers
            kept = kept.assign(audit_rate=rows["audit_rate"].reindex(kept.index).fillna(kept["audit_rate"]))
        stored = pd.concat([kept, fresh]) if len(kept) and len(fresh) else kept if len(kept) else fresh
        _check_one_kind(stored)
        self.columns, self.rows = columns, stored
        return len(fresh)

    def sync(self, frame: pd.DataFrame) -> int:
        """Let go of rows that came by an earlier `sync` and are not in this frame, then add it.

        Rows that go are gone even if the frame is refused. A column that an earlier frame had is a gap where it lacks.
        """
        ids = frozenset(map(str, frame.get("task_id", ())))
        gone = self.rows.index.intersection(list(self._synced - ids))
        self.rows, self._synced = self.rows.drop(index=gone), self._synced & ids
        if not len(frame):
            return len(gone)
        frame = frame.assign(**{name: np.nan for name in self._fields if name not in frame.columns})
        changed = self.add(frame)
        self._synced, self._fields = ids, list(frame.columns)
        return len(gone) + changed

    def framed(self, pool: Any) -> pd.DataFrame:
        """Give the rows of an array the stored feature names."""
        if isinstance(pool, pd.DataFrame):
            return pool
        array = np.asarray(pool)
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise BadInput(name="pool", value=array.shape, remedy=f"must have the columns {self.columns}")
        return pd.DataFrame(array, columns=self.columns)

    def block(self, rows: Any) -> Any:
        """Return X for some rows of a pool of any kind; without names of columns an array is X as it is."""
        if not (isinstance(rows, pd.DataFrame) or self.columns or callable(self.features)):
            return rows
        return self.inputs(self.framed(rows.toarray() if hasattr(rows, "toarray") else rows))

    def inputs(self, frame: pd.DataFrame) -> Any:
        """Return X for an estimator; the frame may hold more columns than are used."""
        names = self.columns or self._feature_columns(frame)  # a model from elsewhere, before the first row
        if missing := [name for name in names if name not in frame.columns]:
            raise BadInput(name="features", value=missing, remedy="these columns are missing; add them to the frame")
        x = frame[names]
        return self.features(x) if callable(self.features) else x

    def _feature_columns(self, frame: pd.DataFrame) -> list[str]:
        """Return the feature columns, or refuse a frame whose columns are others than before."""
        found = [name for name in frame.columns if name not in RESERVED and self._usable(frame[name])]
        wanted = self.columns or found
        changed = [f"missing: {name}" for name in wanted if name not in found]
        if self.features is None or callable(self.features):
            changed += [f"new: {name}" for name in found if name not in wanted]
        if changed:
            remedy = "the feature columns are not those this learner works on; give the same, or Learner(features=[…])"
            raise BadInput(name="features", value=changed, remedy=remedy)
        return wanted

    def _usable(self, column: pd.Series[Any]) -> bool:
        by_hand = self.features is not None
        return by_hand or column.dtype != object or bool(column.map(pd.api.types.is_scalar).all())

    def _checked(self, frame: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
        """Return feature columns and clean rows, or refuse by value; nothing is stored here."""
        if not isinstance(frame, pd.DataFrame):
            raise BadInput(name="frame", value=type(frame).__name__, remedy="must be a pandas DataFrame")
        if not frame.columns.is_unique:
            twice = list(frame.columns[frame.columns.duplicated()])
            raise BadInput(name="columns", value=twice, remedy="these names stand twice; rename them")
        for name in ("task_id", "label", "source"):
            if name not in frame.columns:
                raise BadInput(name="columns", value=list(frame.columns), remedy=f"the column {name!r} is missing")
        columns = self._feature_columns(frame)
        absent = {name: None for name in RESERVED if name not in frame.columns}
        rows = frame.reset_index(drop=True).assign(**absent)[["task_id", *columns, *RESERVED[1:]]]
        rows = rows.assign(source=_values(rows["source"]), outcome=_values(rows["outcome"]))
        _refuse(rows, "task_id", rows["task_id"].isna(), "every row needs a task_id")
        _refuse(rows, "source", ~rows["source"].isin(SOURCES), f"must be one of {', '.join(SOURCES)}")
        known = rows["outcome"].isin(OUTCOMES) | (rows["outcome"].isna() & (rows["source"] == "initial"))
        _refuse(rows, "outcome", ~known, f"must be one of {', '.join(OUTCOMES)}")
        return columns, _weighed(self._labelled(rows))

    def _labelled(self, rows: pd.DataFrame) -> pd.DataFrame:
        rejected = rows["outcome"] == "reject"
        label = rows["label"].astype(object)
        _refuse(rows, "label", ~label.map(_is_label).astype(bool), "must be text, True, False, or a number below 2**53")
        if self.rejects == "label":
            label = label.map(as_text).mask(rejected, REJECTED)
        rows = rows.assign(label=label, task_id=rows["task_id"].astype(str))
        _refuse(rows, "label", label.isna() & ~rejected, "a row that trains needs a label; drop it, or review it again")
        return rows


def _weighed(rows: pd.DataFrame) -> pd.DataFrame:
    names = ("confidence", "weight", *_CHANCES)
    confidence, weight, drawn, rate = (pd.to_numeric(rows[name], errors="coerce").astype(float) for name in names)
    odd = (confidence.isna() & rows["confidence"].notna()) | (confidence < 0) | (confidence > 1)
    odd |= rows["confidence"].map(lambda value: isinstance(value, (str, bool, np.bool_)))
    _refuse(rows, "confidence", odd, "must be a number between 0 and 1, or NaN if unknown")
    if rows["weight"].isna().all():
        weight = pd.Series(inverse_confidence(confidence), index=rows.index)
    _refuse(rows, "weight", ~((weight >= 0) & (weight < np.inf)), "must be finite and 0 or more")
    unlikely = ~((drawn > 0) & (drawn <= 1)) & rows["review_probability"].notna()
    _refuse(rows, "review_probability", unlikely, "must lie above 0 and be at most 1, or be missing")
    _refuse(rows, "audit_rate", ~rate.between(0, 1) & rows["audit_rate"].notna(), "must be 0 to 1, or be missing")
    return rows.assign(confidence=confidence, weight=weight, review_probability=drawn, audit_rate=rate)


def data_hash(rows: pd.DataFrame) -> str:
    """Return a name of exactly these rows, whatever their order: 16 hex digits of a sha256."""
    pairs = sorted(zip(rows.index, rows[HASH].tolist(), strict=True))
    return hashlib.sha256(repr(pairs).encode()).hexdigest()[:16]
