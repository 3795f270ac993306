"""How arguments and answers of a queue travel: JSON in which every type has its tag; nothing in it is ever run."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Any

import numpy as np

from hitl_nb import errors
from hitl_nb.errors import BadInput, HitlError, NoCanonicalForm, TooLarge, plain
from hitl_nb.payload import MAX_DEPTH, decode_tag, encode

#: largest message either way, in bytes
MAX_BYTES = 256 * 2**20
#: most lists and dicts in a call: each takes fifty times the memory of the two characters that make it
MAX_PARTS = 4_000_000
#: longest id of a request, in characters
MAX_REQUEST = 200
#: levels that a message adds around a payload
_MORE_DEPTH = 12
#: text columns that travel, by the name of their type
_TEXTS = ("str", "string")
#: what makes the value of what stands under a tag
Tags = dict[str, Callable[[Any, Any], Any]]


@cache
def _records() -> dict[str, type[Any]]:
    """Return what may travel as a record or as a word of a fixed list, by the name of its class."""
    from hitl_nb import display, task
    from hitl_nb.queue import backlog, change, read, row, submit, token

    found = [task.Reviewer, task.Reason, task.Review, task.ReviewTask, read.Stats, backlog.Wait, change.Forgotten]
    found += [row.TaskRow, submit.Submission, display.Table, task.ReviewOutcome, task.Priority, task.Status]
    found += [change.Copy, token.Token]
    return {kind.__name__: kind for kind in found}


def _record(name: str) -> type[Any]:
    if name in ("FrameSubmission", "Kind"):  # these need Arrow
        from hitl_nb.queue import frame

        found: type[Any] = getattr(frame, name)
        return found
    return _records()[name]


def dump(value: Any, where: str = "message") -> bytes:
    """Return a value as a message.

    Raises
    ------
    NoCanonicalForm
        A value of a type that does not travel.
    TooLarge
        A message over 256 MiB.

    Examples
    --------
    >>> load(dump({"lease": timedelta(minutes=5), "ids": ("a", "b")}))
    {'lease': datetime.timedelta(seconds=300), 'ids': ('a', 'b')}
    """
    text = json.dumps(_pack(value, where, 0), separators=(",", ":"), ensure_ascii=False)
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        remedy = f"limit is {MAX_BYTES} bytes between processes; take parts, or do it in the process that owns the file"
        raise TooLarge(name=where, value=f"{len(data)} bytes", remedy=remedy)
    return data


def load(data: bytes) -> Any:
    """Return the value of a message.

    Raises
    ------
    BadInput
        It is none that ``dump`` makes.
    """
    return _load(data, _TAGS)


def load_call(data: bytes) -> tuple[list[Any], dict[str, Any], str, bool]:
    """Return what a client asks for: arguments, named arguments, the id of its request, and whether it asks again.

    A frame comes as numbers and texts alone: Arrow that a stranger made is not opened.
    """
    parts = data.count(b"[") + data.count(b"{")
    if parts > MAX_PARTS:
        raise TooLarge(name="message", value=f"{parts} lists and dicts", remedy=f"limit is {MAX_PARTS}; take parts")
    asked = _load(data, _TAGS_OF_A_CALL)
    match asked:
        case {"args": list(args), "more": dict(more), "request": str(request), "again": bool(again)}:
            if all(isinstance(name, str) for name in more) and len(request) <= MAX_REQUEST:
                return args, more, request, again
    raise BadInput(name="message", value=data[:100], remedy="this is no call; use the same version on both")


def _load(data: bytes, tags: Tags) -> Any:
    try:
        return _unpack(json.loads(data), tags)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, ImportError) as error:
        remedy = f"this is no message of this package ({type(error).__name__}: {error}); use the same version on both"
        raise BadInput(name="message", value=data[:100], remedy=remedy) from None


def dump_error(error: HitlError) -> bytes:
    """Return an error with its values; one that cannot travel goes as the text that a message shows."""
    kind, values = error.__reduce__()[1]
    return dump({"error": kind.__name__, "values": {key: _travelling(value) for key, value in values.items()}})


def load_error(data: bytes) -> HitlError:
    """Return the error of a message, of the same class and with the same values."""
    said = load(data)
    try:
        kind = getattr(errors, said["error"])
        if issubclass(kind, HitlError):
            error: HitlError = kind(**said["values"])
            return error
    except (TypeError, LookupError, AttributeError):
        pass
    raise BadInput(name="message", value=data[:100], remedy="this is no error of this package")


def _travelling(value: Any) -> Any:
    try:
        _pack(value, "value", 0)
    except HitlError:
        return plain(errors.shown(value))
    return value


def _pack(value: Any, where: str, depth: int) -> Any:
    if value is None or type(value) in (str, bool) or (type(value) is float and isfinite(value)):
        return value
    if depth > MAX_DEPTH + _MORE_DEPTH:
        raise NoCanonicalForm(name=where, value="…", remedy=f"nested deeper than {MAX_DEPTH} levels; flatten it")
    if isinstance(value, str):
        return _pack_text(value)
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        return _pack_mapping(value, where, depth)
    if isinstance(value, timedelta):
        return {"$span": [value.days, value.seconds, value.microseconds]}
    if is_dataclass(value) and not isinstance(value, type):
        return _pack_record(value, where, depth)
    pack = _BY_NAME.get(f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}")
    if pack is not None:
        return pack(value)
    if hasattr(value, "model_dump"):
        return _pack(value.model_dump(mode="json"), where, depth)
    return encode(value, where, 0)


def _pack_text(value: str) -> Any:
    if isinstance(value, StrEnum) and _records().get(type(value).__name__) is type(value):
        return {"$word": [type(value).__name__, value.value]}
    return {"$plain": str(value)} if isinstance(value, type(plain(""))) else value


def _pack_mapping(value: Mapping[Any, Any], where: str, depth: int) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _pack(item, f"{where}.{key}"[:200], depth + 1) for key, item in value.items()}
    return {"$pairs": [[_pack(k, f"{where} key", depth + 1), _pack(v, where, depth + 1)] for k, v in value.items()]}


def _pack_record(value: Any, where: str, depth: int) -> Any:
    name = type(value).__name__
    if name not in ("FrameSubmission", "Kind") and _records().get(name) is not type(value):
        raise NoCanonicalForm(name=where, value=name, remedy="it does not travel between processes")
    items = {f.name: _pack(getattr(value, f.name), f"{where}.{f.name}"[:200], depth + 1) for f in fields(value)}
    return {"$record": [name, items]}


def _pack_frame(frame: Any) -> Any:
    """Return a frame of numbers, texts and plain cells as lists; any other goes as Arrow, which only answers may."""
    names, index = frame.columns, frame.index
    counted = _is_counted(index)
    plain_index = counted or (index.name is None and all(type(label) is str for label in index))
    if not plain_index or not names.is_unique or not all(type(name) is str for name in names):
        return _pack_arrow(frame)
    if not all(_kind(frame[name].dtype) for name in names):
        return _pack_arrow(frame)
    columns = [_pack_column(frame[name], name) for name in names]
    return {"$columns": [len(frame), None if counted else index.tolist(), list(names), columns]}


def _is_counted(index: Any) -> bool:
    import pandas as pd

    return isinstance(index, pd.RangeIndex) and index.name is None and (index.start, index.step) == (0, 1)


def _kind(dtype: Any) -> str | None:
    """Return as what a column travels: numbers, object, or the name of its text type; None: as Arrow."""
    if isinstance(dtype, np.dtype):
        return "object" if dtype.kind == "O" else "numbers" if dtype.kind in "biuf" else None
    return str(dtype) if str(dtype) in _TEXTS else None


def _pack_column(column: Any, name: str) -> Any:
    kind = _kind(column.dtype)
    if kind == "numbers":
        return encode(column.to_numpy(), name, 0)
    return {str(kind): [cell if type(cell) is str else _pack(cell, name, 0) for cell in column.tolist()]}


def _pack_arrow(frame: Any) -> Any:
    import pyarrow as pa

    numbered = frame.set_axis([str(i) for i in range(frame.shape[1])], axis=1)
    odd = [name for name in numbered.columns if numbered[name].dtype == object]
    names = dict(zip(numbered.columns, map(str, frame.columns), strict=True))
    cells = {name: [_pack(cell, names[name], 0) for cell in numbered[name].tolist()] for name in odd}
    rest, sink = pa.Table.from_pandas(numbered.drop(columns=odd)), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rest.schema) as stream:
        stream.write_table(rest)
    return {"$frame": [list(frame.columns), base64.b64encode(sink.getvalue()).decode(), cells]}


_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "pandas.DataFrame": _pack_frame,
    "pandas.NAType": lambda value: {"$missing": "NA"},
    "pandas.NaTType": lambda value: {"$missing": "NaT"},
    "pyarrow.StringArray": lambda array: {"$texts": array.to_pylist()},
    "pyarrow.LargeStringArray": lambda array: {"$texts": array.to_pylist()},
    "pyarrow.ChunkedArray": lambda array: {"$texts": array.to_pylist()},
}


def _unpack(value: Any, tags: Tags) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tags) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        tag, inner = next(iter(value.items()))
        if tag.startswith("$"):
            return tags[tag](inner, tags) if tag in tags else decode_tag(tag, inner)
    return {key: _unpack(item, tags) for key, item in value.items()}


def _unpack_record(inner: Any, tags: Tags) -> Any:
    name, items = inner
    return _record(name)(**{key: _unpack(item, tags) for key, item in items.items()})


def _unpack_columns(inner: Any, tags: Tags) -> Any:
    import pandas as pd

    n, index, names, columns = inner
    if type(n) is not int or not all(type(name) is str for name in (*names, *(index or ()))):
        raise ValueError("columns or rows without names")
    if len(set(names)) < len(names):
        raise ValueError("columns without names of their own")
    place = pd.RangeIndex(n) if index is None else pd.Index(list(index))
    made = {name: _unpack_column(column, tags) for name, column in zip(names, columns, strict=True)}
    return pd.DataFrame({name: series.set_axis(place) for name, series in made.items()}, index=place)


def _unpack_column(packed: Any, tags: Tags) -> Any:
    import pandas as pd

    [(kind, cells)] = packed.items()
    if kind == "$array":
        return pd.Series(decode_tag(kind, cells))  # of one dimension, or this fails
    if kind not in ("object", *_TEXTS):
        raise ValueError("no column")
    return pd.Series([_unpack(cell, tags) for cell in cells], dtype=kind)


def _unpack_arrow(inner: Any, tags: Tags) -> Any:
    import pandas as pd
    import pyarrow as pa

    names, data, cells = inner
    with pa.ipc.open_stream(pa.py_buffer(base64.b64decode(data, validate=True))) as stream:
        frame = stream.read_all().to_pandas()
    odd = {
        name: pd.Series([_unpack(cell, tags) for cell in c], index=frame.index, dtype=object)
        for name, c in cells.items()
    }
    numbered = pd.DataFrame({**{name: frame[name] for name in frame.columns}, **odd}, index=frame.index)
    return numbered[[str(i) for i in range(len(names))]].set_axis(names, axis=1)


def _unpack_texts(inner: Any, tags: Tags) -> Any:
    import pyarrow as pa

    return pa.array(inner, pa.string())


def _unpack_missing(name: Any, tags: Tags) -> Any:
    import pandas as pd

    return {"NA": pd.NA, "NaT": pd.NaT}[name]


def _text(key: Any) -> str:
    """Return a key of a call: a text, of which nobody can make many that take long to tell apart."""
    if type(key) is not str:
        raise TypeError("keys are texts")
    return key


_TAGS_OF_A_CALL: Tags = {
    "$plain": lambda inner, tags: plain(inner),
    "$word": lambda inner, tags: _records()[inner[0]](inner[1]),
    "$tuple": lambda inner, tags: tuple(_unpack(item, tags) for item in inner),
    "$span": lambda inner, tags: timedelta(days=inner[0], seconds=inner[1], microseconds=inner[2]),
    "$pairs": lambda inner, tags: {_text(key): _unpack(item, tags) for key, item in inner},
    "$record": _unpack_record,
    "$columns": _unpack_columns,
    "$missing": _unpack_missing,
    "$texts": _unpack_texts,
}
_TAGS = _TAGS_OF_A_CALL | {
    "$frame": _unpack_arrow,
    "$pairs": lambda inner, tags: {_unpack(key, tags): _unpack(item, tags) for key, item in inner},
}
