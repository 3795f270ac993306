"""One value, one text: what a payload may hold, and what is refused with its key named."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from strategies import payloads, values

from hitl_nb.errors import BadInput, HitlError, NoCanonicalForm, TooLarge
from hitl_nb.payload import MAX_DEPTH, MAX_FIELD_BYTES, canonical, digest, name, parse


def same(a, b):
    """Whether two values are equal to the last bit; lists for tuples, NaN equals NaN, -0.0 is not 0.0."""
    if isinstance(a, np.ndarray):
        little = a.astype(a.dtype.newbyteorder("<"))
        return b.dtype == little.dtype and b.shape == a.shape and b.tobytes() == little.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@settings(max_examples=400)
@given(payloads)
@example({"$float": "x"})
@example({"$object": {"$array": {"dtype": "O"}}})
@example({"$unknown": 1, "plain": {"$time": "never"}})
@example({"x": [float("nan"), float("inf"), -float("inf"), -0.0, 1e-7, 1e22]})
@example({"x": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "y": date(1, 1, 1)})
def test_a_payload_survives_its_text(payload):
    assert same(payload, parse(canonical(payload)))


@settings(max_examples=400)
@given(values)
def test_a_value_has_one_text(value):
    text = canonical(value)
    assert canonical(parse(text)) == text
    assert "\n" not in text
    json.loads(text, parse_constant=pytest.fail)


@settings(max_examples=400)
@given(payloads)
def test_the_order_of_keys_does_not_matter(payload):
    assert canonical(dict(reversed(payload.items()))) == canonical(payload)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.10000000149011612),
        (np.float32("nan"), float("nan")),
        (np.float16(2), 2.0),
        (np.longdouble(1.5), 1.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("é"), "é"),
        (np.bytes_(b"x"), b"x"),
        (np.datetime64("2026-01-02"), datetime(2026, 1, 2)),
        (np.datetime64("NaT"), None),
        (np.datetime64("2026-01-02T00:00:00.000001999"), datetime(2026, 1, 2, 0, 0, 0, 1)),
        (pd.Timestamp("2026-01-02T00:00:00.000001999"), datetime(2026, 1, 2, 0, 0, 0, 1)),
        (pd.Timestamp("2026-01-02", tz="UTC"), datetime(2026, 1, 2, tzinfo=UTC)),
        (pd.NaT, None),
        (pd.NA, None),
        (StrEnum("Colour", {"RED": "red"}).RED, "red"),
        (Enum("Colour", {"RED": "red"}, type=str).RED, "red"),
        (IntEnum("Size", {"BIG": 9}).BIG, 9),
        ((1, (2,)), [1, [2]]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (np.arange(6.0).reshape(2, 3)[:, ::2], np.array([[0.0, 2.0], [3.0, 5.0]])),
        (np.array([1, 2], dtype=">i8"), np.array([1, 2], dtype="<i8")),
    ],
)
def test_equal_values_of_other_types_have_the_same_text(value, plain):
    assert canonical({"x": value}) == canonical({"x": plain})


@pytest.mark.parametrize("dtype", ["?", "i1", "<u2", ">u2", ">i4", "<i8", ">f2", "<f4", ">f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_arrays_keep_dtype_and_shape(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    found = parse(canonical(array))
    assert found.shape == shape
    assert found.dtype == np.dtype(dtype).newbyteorder("<")
    assert (found == array).all()
    assert found.flags.writeable


def deep(levels):
    value = "leaf"
    for _ in range(levels):
        value = [value]
    return value


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("a\0b", "NUL"),
        ("\ud83d", "surrogate"),
        ({"in\0ner": 1}, "NUL"),
        ({"\ud83d": 1}, "surrogate"),
        ({3: 1}, "keys are text"),
        ({None: 1}, "keys are text"),
        ({("a",): 1}, "keys are text"),
        ({1, 2}, "set"),
        (frozenset(), "frozenset"),
        (object(), "object"),
        (Decimal("0.5"), "Decimal"),
        (UUID(int=5), "UUID"),
        (1 + 2j, "complex"),
        (timedelta(1), "timedelta"),
        (np.timedelta64(1, "D"), "timedelta64"),
        (pd.Timedelta(1), "Timedelta"),
        (np.array(["a"]), "ndarray"),
        (np.array([object()]), "ndarray"),
        (np.array(["2026"], dtype="M8[us]"), "ndarray"),
        (np.ma.masked_array([1, 2], [True, False]), "MaskedArray"),
        (pd.Series([1]), "Series"),
        (iter([1]), "iterator"),
        (deep(MAX_DEPTH), "nested deeper"),
        (LOOP, "nested deeper"),
        (10**400, "300 digits"),
        (-(10**300), "300 digits"),
    ],
)
def test_what_has_no_text_is_refused_by_its_key(value, word):
    with pytest.raises(NoCanonicalForm, match=word) as caught:
        canonical({"fine": 1, "outer": {"field": value}}, "input")
    assert caught.value.name.startswith("input.outer.field")
    assert len(str(caught.value)) < 1000


def test_the_deepest_payload_and_the_longest_integer_are_kept():
    for value in (deep(MAX_DEPTH - 1), 10**300 - 1):
        assert parse(canonical({"x": value})) == {"x": value}


def test_a_field_of_ten_megabytes_is_refused_by_its_name():
    with pytest.raises(TooLarge, match=r"input\.scan"):
        canonical({"small": 1, "scan": "x" * 10_000_000}, "input")


@pytest.mark.parametrize(
    "value",
    ["x" * (MAX_FIELD_BYTES - 2), "é" * (MAX_FIELD_BYTES // 2 - 1), ["y" * 4093] * 2047 + ["y" * 4092]],
    ids=["ascii", "two bytes", "list"],
)
def test_the_limit_of_a_field_counts_the_bytes_of_its_text(value):
    assert abs(len(canonical({"x": value}).encode()) - MAX_FIELD_BYTES) < 10
    with pytest.raises(TooLarge, match=r"payload\.x"):
        canonical({"x": value + value[:1]})


def test_a_payload_of_many_large_fields_is_refused_whole():
    half = "x" * (MAX_FIELD_BYTES // 2)
    canonical({str(i): half for i in range(7)})
    with pytest.raises(TooLarge, match="payload = "):
        canonical({str(i): half for i in range(8)})


@pytest.mark.parametrize(
    "text",
    [
        '{"$unknown":1}',
        '{"x":{"$unknown":1}}',
        '{"$float":"x"}',
        '{"$float":[1]}',
        '{"$bytes":5}',
        '{"$bytes":"=@"}',
        '{"$object":5}',
        '{"$time":"yesterday"}',
        '{"$time":7}',
        '{"$array":5}',
        '{"$array":{}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"O","shape":[1]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"|O","shape":[1]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"<M8[us]","shape":[1]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"V8","shape":[1]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":[["a","O"]],"shape":[1]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"no such","shape":[1]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"<f8","shape":[2]}}',
        '{"$array":{"data":"AAAAAAAAAAA=","dtype":"<f8","shape":"wide"}}',
        '{"$array":{"data":"AAA","dtype":"<f8","shape":[1]}}',
        "NaN",
        '{"x":Infinity}',
        "",
        "{",
        "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_a_text_of_another_origin_is_an_error_of_the_tree(text):
    with pytest.raises(HitlError, match="no canonical text") as caught:
        parse(text)
    assert isinstance(caught.value, BadInput)
    assert len(str(caught.value)) < 1000


def test_a_text_never_becomes_an_array_of_objects():
    with pytest.raises(BadInput):
        parse('{"$array":{"data":"","dtype":"O","shape":[0]}}')


def test_a_digest_tells_payloads_apart():
    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("a"), digest("ab")}) == 4


@pytest.mark.parametrize("value", ["", " ", "x" * 201, None, 5, True, b"a", "a\0b", "\ud83d"])
def test_what_is_no_name_is_refused(value):
    with pytest.raises(BadInput, match="reviewer"):
        name("reviewer", value)


@pytest.mark.parametrize("value", ["a", "x" * 200, "'; DROP TABLE task; --", "<b>", "é\n😀"])
def test_a_name_is_any_other_text(value):
    assert name("reviewer", value) == value
