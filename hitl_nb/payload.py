"""The canonical form of a payload: one text for one value, the same in every store."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from hashlib import sha256
from typing import Any

import numpy as np

from hitl_nb.errors import BadInput, NoCanonicalForm, TooLarge

#: largest canonical text of one field of an input or prediction, in bytes
MAX_FIELD_BYTES = 8 * 2**20
#: largest canonical text of one whole payload, in bytes
MAX_PAYLOAD_BYTES = 32 * 2**20
#: deepest nesting of a payload
MAX_DEPTH = 60
#: longest name: reviewer, key, subject, expertise, rule; in characters
MAX_NAME = 200


def canonical(value: Any, where: str = "payload") -> str:
    r"""Return the one canonical text of a payload.

    Parameters
    ----------
    value
        Dicts with text keys, lists, tuples, text, numbers, booleans, None, bytes, dates, numpy scalars and numeric
        arrays.
    where
        Name of the payload, for errors.

    Raises
    ------
    NoCanonicalForm
        A value of another type, NUL or a lone surrogate in a text; named by its key.
    TooLarge
        A field over 8 MiB or a payload over 32 MiB, as canonical text.

    Examples
    --------
    >>> canonical({"b": float("nan"), "a": b"\x00"})
    '{"a":{"$bytes":"AA=="},"b":{"$float":"nan"}}'
    """
    text = dump(encode(value, where, 0))
    if len(text) * 4 > MAX_FIELD_BYTES:  # four bytes at most for a character
        check_size(text, where, MAX_PAYLOAD_BYTES)
        for key, part in value.items() if isinstance(value, Mapping) else [("", value)]:
            check_size(dump(encode(part, where, 0)), f"{where}.{key}" if key else where, MAX_FIELD_BYTES)
    return text


#: the canonical text of what JSON holds
dump = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def check_size(text: str, where: str, limit: int) -> None:
    """Refuse a canonical text over ``limit`` bytes."""
    size = len(text.encode())
    if size > limit:
        remedy = f"limit is {limit} bytes as canonical text; store a reference or a smaller version"
        raise TooLarge(name=where, value=f"{size} bytes", remedy=remedy)


def digest(*texts: str) -> str:
    """Return the sha256 of canonical texts, as hexadecimal text.

    >>> digest("{}")[:8]
    '44136fa3'
    """
    return sha256("\n".join(texts).encode()).hexdigest()


def parse(text: str) -> Any:
    """Return the value of a canonical text.

    Raises
    ------
    BadInput
        The text is not one that ``canonical`` makes; nothing in a text can name a type beyond its few.

    Examples
    --------
    >>> parse(canonical({"x": [1, 2.5, None]}))
    {'x': [1, 2.5, None]}
    """
    try:
        return _decode(load(text))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        remedy = f"this is no canonical text ({error}); restore it from a backup"
        raise BadInput(name="stored text", value=text, remedy=remedy) from None


def accept(value: Any, where: str) -> Any:
    """Return the value of what came as JSON from outside, in which every other type stands under its tag.

    >>> accept({"x": {"$float": "inf"}}, "input")
    {'x': inf}
    """
    try:
        return _decode(value)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        remedy = f"under a key that begins with $ stands one of {', '.join(_TAGS)} ({type(error).__name__})"
        raise NoCanonicalForm(name=where, value="…", remedy=remedy) from None


def encode(value: Any, where: str, depth: int) -> Any:
    """Return a value as what JSON holds, every other type under its tag."""
    if depth > MAX_DEPTH:
        raise NoCanonicalForm(name=where, value="…", remedy=f"nested deeper than {MAX_DEPTH} levels; flatten it")
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, (int, np.integer)) and not isinstance(value, np.timedelta64):
        return _integer(int(value), where)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Mapping):
        return _mapping(value, where, depth)
    if isinstance(value, (list, tuple)):
        return [encode(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    return _special(value, where)


def _integer(value: int, where: str) -> int:
    if abs(value) >= 10**300:
        raise NoCanonicalForm(name=where, value="…", remedy="an integer of over 300 digits; pass it as text")
    return value


def _text(value: str, where: str) -> str:
    if "\0" in value:
        raise NoCanonicalForm(name=where, value=value, remedy="holds a NUL character; remove it or pass bytes")
    try:
        value.encode()
    except UnicodeEncodeError:
        remedy = "holds a lone surrogate; decode the text properly or pass bytes"
        raise NoCanonicalForm(name=where, value=value, remedy=remedy) from None
    return str.__str__(value)  # of a text that is an enum member: its text, not its name


def _mapping(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    encoded = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise NoCanonicalForm(name=f"{where} key", value=key, remedy="keys are text; use str(key)")
        encoded[_text(key, f"{where} key")] = encode(item, f"{where}.{key}"[:MAX_NAME], depth + 1)
    return {"$object": encoded} if any(key.startswith("$") for key in encoded) else encoded


def _special(value: Any, where: str) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and not isinstance(value, np.ma.MaskedArray):
        array = np.asarray(value, order="C", dtype=value.dtype.newbyteorder("<"))
        data = base64.b64encode(array.tobytes()).decode()
        return {"$array": {"data": data, "dtype": array.dtype.str, "shape": list(array.shape)}}
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (datetime, date)):  # a pandas Timestamp too, in microseconds
        return {"$time": (datetime if isinstance(value, datetime) else date).isoformat(value)}
    remedy = f"{type(value).__name__} has no canonical form; pass text, numbers, bytes, lists, dicts or numeric arrays"
    raise NoCanonicalForm(name=where, value=type(value).__name__, remedy=remedy)


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


#: what a JSON text holds; NaN and infinities are no JSON
load = json.JSONDecoder(parse_constant=_no_json).decode


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        tag, inner = next(iter(value.items()))
        if tag.startswith("$"):
            return decode_tag(tag, inner)
    return {key: _decode(item) for key, item in value.items()}


def decode_tag(tag: str, inner: Any) -> Any:
    """Return the value under one of the few tags."""
    return _TAGS[tag](inner)


def _array(inner: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(str(inner["dtype"]))
    if dtype.kind not in "biuf":
        raise TypeError(f"no array of {dtype}")
    return np.frombuffer(_bytes(inner["data"]), dtype=dtype).reshape(inner["shape"]).copy()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_TAGS: dict[str, Any] = {
    "$float": float,
    "$bytes": _bytes,
    "$array": _array,
    "$time": lambda text: datetime.fromisoformat(text) if "T" in text else date.fromisoformat(text),
    "$object": lambda inner: {key: _decode(item) for key, item in inner.items()},
}


def agrees(said: Mapping[str, Any], correction: Mapping[str, Any]) -> bool:
    """Whether a correction says what was said already; several labels are the same in any order.

    >>> agrees({"label": 7, "confidence": 0.6}, {"label": "7"}), agrees({"label": 7}, {"label": 2})
    (True, False)
    """
    return all(field in said and _same(said[field], value) for field, value in correction.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(any(_same(x, y) for y in other) for x in one)
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (one, other))
    if numbers or (isinstance(other, str) and isinstance(one, (int, float))):
        return bool(one == other or str(one) == other)
    try:
        return canonical(one) == canonical(other)
    except BadInput:  # the queue will say what is wrong with it
        return False


def name(what: str, value: object) -> str:
    """Return ``value`` if it is a usable name; names are text on screen and parameters in SQL."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME:
        raise BadInput(name=what, value=value, remedy=f"pass a text of 1 to {MAX_NAME} characters")
    return _text(value, what)
