"""Storing a whole frame: the engine makes the canonical texts, with the same bytes as one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hitl_nb.errors import BadInput, KeyConflict, NoCanonicalForm, TooLarge
from hitl_nb.payload import MAX_FIELD_BYTES, MAX_PAYLOAD_BYTES, canonical, parse
from hitl_nb.queue.row import COLUMNS, TaskRow
from hitl_nb.queue.store import Transaction
from hitl_nb.queue.submit import first_body, known_id
from hitl_nb.task import OPEN

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

Array = np.ndarray[Any, Any]

#: rows that are turned into Arrow at a time, two row groups of the engine: it writes whole groups straight to the file
CHUNK = 245_760
_NAN = '{"$float":"nan"}'
#: control characters that the engine writes with other escapes than we do, and NUL
_CONTROL = r"[\x00-\x07\x0b\x0e-\x1f]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What tasks of one kind have in common: the same rules fired, the same model, the same group."""

    #: line at submission
    first: TaskRow
    #: line after an audit was drawn; else the same
    last: TaskRow
    #: body of the audit event; None where no audit was drawn
    audit: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSubmission:
    """Many tasks ready to be stored; checked as far as can be without their texts."""

    #: ids as text
    task_id: pa.Array
    #: inputs, n rows
    inputs: pd.DataFrame
    #: predictions, n rows
    predictions: pd.DataFrame
    #: the kinds
    kinds: Sequence[Kind]
    #: kind of each row, int64 of shape (n,)
    codes: Array
    #: float64 columns of the log: confidence, audit_uniform, value; NaN is stored as NULL
    numbers: dict[str, Array]
    #: further texts by payload kind: key, subject, score; None: none
    texts: dict[str, Sequence[str | None]] = field(default_factory=dict)
    #: number by which each key is found, int64; None without keys
    key_hashes: Array | None = None
    #: whether another process made its ids, which may be those of tasks that are there
    foreign: bool = False

    def take(self, rows: Array) -> FrameSubmission:
        """Return some of the rows."""
        return replace(
            self,
            task_id=self.task_id.take(pa.array(rows)),
            inputs=self.inputs.iloc[rows],
            predictions=self.predictions.iloc[rows],
            codes=self.codes[rows],
            numbers={name: values[rows] for name, values in self.numbers.items()},
            texts={kind: [texts[i] for i in rows] for kind, texts in self.texts.items()},
            key_hashes=None if self.key_hashes is None else self.key_hashes[rows],
        )


def travelling(frame: FrameSubmission) -> FrameSubmission:
    """Return a frame of numbers, texts and plain objects, of which another process makes the same texts."""
    return replace(frame, inputs=_plain(frame.inputs), predictions=_plain(frame.predictions))


def _plain(data: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    def plain(series: pd.Series[Any]) -> pd.Series[Any]:
        return series if _is_typed(series) else pd.Series(series.tolist(), index=data.index, dtype=object)

    counted = data.index.equals(pd.RangeIndex(len(data)))
    index = pd.RangeIndex(len(data)) if counted else data.index.map(str)  # for what errors say
    plain_data = pd.DataFrame({name: plain(data[name]) for name in data.columns}, index=data.index)
    return plain_data.set_axis(index.rename(None))


def _is_typed(series: pd.Series[Any]) -> bool:
    dtype = series.dtype
    plain = isinstance(dtype, np.dtype) and dtype.kind in "iubf" and dtype.isnative and dtype.itemsize <= 8
    return plain or _is_text(series)


def store_frame(
    tx: Transaction, frame: FrameSubmission, progress: Callable[[int], None] | None = None
) -> dict[int, str]:
    """Store many tasks in one transaction, chunk by chunk; returns the task of each row whose key is known already."""
    known = _known(tx, frame)
    if known:
        rest = np.setdiff1d(np.arange(len(frame.task_id)), list(known))
        frame = frame.take(rest)
    if frame.foreign and len(frame.task_id):
        twice = tx.engine.arrow("known_ids", pa.table({"task_id": frame.task_id}))["task_id"].to_pylist()
        if twice:
            raise known_id(str(twice[0]))
    _store(tx, frame, progress)
    return known


def _store(tx: Transaction, frame: FrameSubmission, progress: Callable[[int], None] | None) -> None:
    with _text_maker() as writer:
        for start in range(0, len(frame.task_id), CHUNK):
            tx.check()
            rows = slice(start, start + CHUNK)
            task_id = frame.task_id[rows]
            for kind, data in (("input", frame.inputs), ("prediction", frame.predictions)):
                body = frame_texts(writer, kind, data.iloc[rows])
                tx.engine.put_arrow("payload", _bodies(task_id, kind, body))
            for kind, texts in frame.texts.items():
                body = pa.array(texts[rows], pa.string())
                there = pc.is_valid(body)
                tx.engine.put_arrow("payload", _bodies(task_id.filter(there), kind, body.filter(there)))
            _log(tx, frame, rows, task_id)
            if progress is not None:
                progress(len(task_id))


def _known(tx: Transaction, frame: FrameSubmission) -> dict[int, str]:
    """Return the tasks that keys of the frame belong to, after comparing their content."""
    if frame.key_hashes is None:
        return {}
    texts = frame.texts["key"]
    if len(set(texts)) < len(texts):
        twice = Counter(texts).most_common(1)[0][0]
        raise BadInput(name="key", value=twice, remedy="it stands twice in the frame; keys are unique")
    hashed = pa.table({"line": np.arange(len(texts)), "key_hash": frame.key_hashes})
    maybe = tx.engine.arrow("rows_of_keys", hashed)
    lines, task_ids = maybe["line"].to_numpy(), maybe["task_id"].combine_chunks()
    known: dict[int, str] = {}
    for start in range(0, len(lines), CHUNK):
        found = _same_content(tx, frame, lines[start : start + CHUNK], task_ids[start : start + CHUNK])
        known.update(found)
    return known


def _same_content(
    tx: Transaction, frame: FrameSubmission, lines: Array, task_ids: pa.Array
) -> Iterator[tuple[int, str]]:
    """Yield the lines whose key a task has, and that task; other content under the same key is refused."""
    sides = {"input": frame.inputs, "prediction": frame.predictions}
    with _text_maker() as writer:
        texts = {kind: frame_texts(writer, kind, data.iloc[lines]) for kind, data in sides.items()}
    keys = [frame.texts["key"][i] for i in lines.tolist()]
    given = pa.table({"line": np.arange(len(lines)), "task_id": task_ids, "key": pa.array(keys, pa.string()), **texts})
    for i, is_key, is_same in zip(*(c.to_pylist() for c in tx.engine.arrow("content_of_keys", given)), strict=True):
        if is_key and not is_same:
            raise KeyConflict(key=parse(keys[i] or ""), task_id=task_ids[i].as_py())
        if is_key:
            yield int(lines[i]), task_ids[i].as_py()


def _text_maker() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect()


def _bodies(task_id: pa.Array, kind: str, body: pa.Array) -> pa.Table:
    n = len(task_id)
    return pa.table({"task_id": task_id, "version": _same(1, n), "kind": _same(kind, n), "body": body})


def frame_texts(writer: duckdb.DuckDBPyConnection, kind: str, data: pd.DataFrame) -> pa.Array:
    """Return the canonical text of each row of a frame, as ``canonical`` would make it."""
    found = _texts(writer, kind, data)
    longest = pc.max(pc.binary_length(found)).as_py() or 0
    if longest > MAX_PAYLOAD_BYTES:
        remedy = f"limit is {MAX_PAYLOAD_BYTES} bytes as canonical text; store a reference or a smaller version"
        raise TooLarge(name=kind, value=f"{longest} bytes", remedy=remedy)
    return found


def _texts(writer: duckdb.DuckDBPyConnection, kind: str, data: pd.DataFrame) -> pa.Array:
    columns: dict[str, Any] = {}
    parts: list[str] = []
    words: list[str] = []
    names = sorted(data.columns)
    for i, name in enumerate(names):
        words.append(f"{',' if i else ''}{canonical(name)}:")
        for part, values in _fragment(f"c{i}", data[name], f"{kind}.{name}"):
            columns[part] = values
        parts.append(_expression(f"c{i}", columns))
    wrap = any(name.startswith("$") for name in names)
    words[:1] = [('{"$object":{' if wrap else "{") + (words[0] if words else "")]
    words.append("}}" if wrap else "}")
    if not columns:
        return _same("".join(words), len(data))
    pieces = [piece for i, part in enumerate(parts) for piece in (f"$w{i}", part)]
    writer.register("batch", pa.table(columns))
    sql = f"SELECT concat({', '.join(pieces)}, $w{len(parts)}) FROM batch"
    found = writer.sql(sql, params={f"w{i}": word for i, word in enumerate(words)}).to_arrow_table()
    writer.unregister("batch")
    return found.column(0).combine_chunks()


def _fragment(name: str, series: pd.Series[Any], where: str) -> Iterator[tuple[str, pa.Array]]:
    """Yield the Arrow columns of which the engine makes one field's text: typed values, and texts that override."""
    kind = series.dtype.kind if isinstance(series.dtype, np.dtype) else "str" if _is_text(series) else "O"
    if kind in "iub":
        yield name, pa.array(series.to_numpy())
    elif kind == "f":
        yield from _floats(name, series.to_numpy().astype(np.float64))
    elif kind == "str" or (kind == "O" and _all_text(series)):
        yield from _strings(name, series, where)
    else:
        texts = [canonical(value, f"{where} (row {i})") for i, value in zip(series.index, series.tolist(), strict=True)]
        yield f"{name}_text", pa.array(texts, pa.string())


def _is_text(series: pd.Series[Any]) -> bool:
    import pandas as pd

    return isinstance(series.dtype, pd.StringDtype) and series.dtype.na_value is not pd.NA


def _all_text(series: pd.Series[Any]) -> bool:
    import pandas as pd

    return pd.api.types.infer_dtype(series, skipna=False) == "string"


def _floats(name: str, values: Array) -> Iterator[tuple[str, pa.Array]]:
    """Floats whose shortest form Python and the engine write alike; the others, and NaN, as texts."""
    size = np.abs(values)
    odd = ~((size >= 1e-4) & (size < 1e16))
    odd[odd] = (size[odd] != 0) | np.signbit(values[odd])
    yield name, pa.array(values)
    if odd.any():
        texts = np.full(len(values), None, dtype=object)
        missing = np.isnan(values)
        texts[missing] = _NAN
        rest = odd & ~missing
        texts[rest] = [canonical(value) for value in values[rest].tolist()]
        yield f"{name}_text", pa.array(texts, pa.string())


def _strings(name: str, series: pd.Series[Any], where: str) -> Iterator[tuple[str, pa.Array]]:
    try:
        values = pa.array(series, pa.string(), from_pandas=True)
    except UnicodeEncodeError:
        remedy = "holds a lone surrogate; decode the text properly or pass bytes"
        raise NoCanonicalForm(name=where, value="…", remedy=remedy) from None
    yield name, values
    odd = pc.or_kleene(pc.is_null(values), pc.match_substring_regex(values, _CONTROL))
    large = pc.greater(pc.binary_length(values), MAX_FIELD_BYTES // 6)  # six bytes at most for an escaped one
    odd = pc.or_kleene(odd, large)
    odd = pc.fill_null(odd, True).to_numpy(zero_copy_only=False)
    if odd.any():
        texts = np.full(len(values), None, dtype=object)
        rows = np.flatnonzero(odd)
        texts[rows] = [canonical(series.iloc[i], f"{where} (row {series.index[i]})") for i in rows.tolist()]
        yield f"{name}_text", pa.array(texts, pa.string())


def _expression(name: str, columns: dict[str, Any]) -> str:
    text = f"{name}_text"
    if name not in columns:
        return text
    made = f"CAST(to_json({name}) AS VARCHAR)"
    return f"coalesce({text}, {made})" if text in columns else made


def _log(tx: Transaction, frame: FrameSubmission, rows: slice, task_id: pa.Array) -> None:
    codes = frame.codes[rows]
    n = len(codes)
    numbers = {name: pa.array(values[rows], from_pandas=True) for name, values in frame.numbers.items()}
    bodies = [first_body(kind.first) for kind in frame.kinds]
    seq = _sequence(tx, n)
    events = {
        "seq": pa.array(seq),
        "task_id": task_id,
        "move": _same("submit", n),
        "at_time": _same(tx.now, n),
        **numbers,
        "body": _chosen(bodies, codes),
    }
    tx.engine.put_arrow("event", pa.table(events))
    last = seq.copy()
    drawn = np.array([kind.audit is not None for kind in frame.kinds])[codes]
    if drawn.any():
        last[drawn] = _log_audits(tx, frame, codes[drawn], task_id.filter(pa.array(drawn)))
    values = {c: [getattr(kind.last, c) for kind in frame.kinds] for c in COLUMNS}
    columns = {c: _chosen(found, codes) for c, found in values.items() if any(v is not None for v in found)}
    columns |= {"task_id": task_id, "created_at": _same(tx.now, n), "seq": pa.array(last), **numbers}
    if frame.key_hashes is not None:
        columns["key_hash"] = pa.array(frame.key_hashes[rows])
    tx.engine.put_arrow("task", pa.table(columns))
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        row = frame.kinds[code].last
        if row.status in OPEN:
            tx.arrived[row.expertise, row.priority, row.due_at] += int(count)


def _log_audits(tx: Transaction, frame: FrameSubmission, codes: Array, task_id: pa.Array) -> Array:
    n = len(codes)
    seq = _sequence(tx, n)
    events = {
        "seq": pa.array(seq),
        "task_id": task_id,
        "move": _same("audit", n),
        "at_time": _same(tx.now, n),
        "attempt": _same(0, n),
        "body": _chosen([kind.audit for kind in frame.kinds], codes),
    }
    tx.engine.put_arrow("event", pa.table(events))
    return seq


def _sequence(tx: Transaction, n: int) -> Array:
    taken = tx.take(n)
    return np.arange(taken.start, taken.stop) if isinstance(taken, range) else np.array(taken, np.int64)


def _same(value: Any, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), n)


def _chosen(values: Sequence[Any], codes: Array) -> pa.Array:
    """Return ``values[codes]``; texts stay one dictionary, so that a million lines cost four bytes each."""
    found = pa.array(list(values))
    if len(values) == 1:
        return pa.repeat(found[0], len(codes))
    if pa.types.is_string(found.type):
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), found)
    return found.take(pa.array(codes))
