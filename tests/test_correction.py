"""Corrections: what is accepted and how it is stored, what a view is told, and that nothing hostile gets through."""

import enum
import json
import math
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from payloads import HIDDEN, MARKUP

from hitl_nb.errors import BadInput, TooLarge
from hitl_nb.panel.correction import MAX_OPTIONS, checker
from hitl_nb.payload import canonical, parse


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Line(pydantic.BaseModel):
    amount: float


class Claim(pydantic.BaseModel):
    kind: Literal["refund", "delivery"]
    colour: Colour = pydantic.Field(description="of the parcel")
    level: Literal[1, 2, None]
    count: int = pydantic.Field(gt=0, le=9)
    share: float | None = pydantic.Field(default=None, ge=0, le=1)
    paid: bool = False
    sure: bool | None = None
    note: str = pydantic.Field(max_length=20)
    price: Decimal
    day: date
    lines: list[Line] = []
    first: Line
    either: int | str = 0
    parcels: int = pydantic.Field(alias="nParcels", default=3, multiple_of=2)


#: a claim as a view sends it
CLAIM = {
    "kind": "refund",
    "colour": "red",
    "level": "2",
    "count": 3,
    "note": "hm",
    "price": "12.50",
    "day": "2026-01-05",
    "first": {"amount": 1},
    "nParcels": 4,
}


class Root(pydantic.RootModel[list[int]]):
    pass


class Fragile(pydantic.BaseModel):
    x: int

    @pydantic.field_validator("x")
    @classmethod
    def fails(cls, value):
        return {1: 1}[value]


class Odd:
    """A type that JSON cannot describe."""


class WithOdd(pydantic.BaseModel, arbitrary_types_allowed=True):
    x: int
    odd: Odd | None = None


#: one checker of each kind
EVERY = {
    "text": lambda: checker(),
    "label": lambda: checker(["refund", 7, True]),
    "new label": lambda: checker(["refund"], new_labels=True),
    "labels": lambda: checker(["refund", 7], multiple=True),
    "new labels": lambda: checker(["refund"], multiple=True, new_labels=True),
    "number": lambda: checker(schema=(0, 5)),
    "whole number": lambda: checker(schema=range(6)),
    "form": lambda: checker(schema=Claim),
    "one text": lambda: checker(schema=pydantic.create_model("Note", label=(str, ...))),
    "one number": lambda: checker(schema=pydantic.create_model("Number", label=(float, ...))),
    "anything": lambda: checker(schema=pydantic.create_model("Anything", label=(Any, ...))),
    "whatever comes": lambda: checker(schema=type("Open", (pydantic.BaseModel,), {}, extra="allow")),
}


def refused(check, value):
    with pytest.raises(BadInput) as error:
        check.check(value)
    return error.value


# -- labels


def test_several_labels_are_stored_in_the_order_of_the_labels():
    check = checker(["b", "a", 7], multiple=True)
    assert check.check(["7", "a", "b"]) == {"label": ["b", "a", 7]}
    assert check.check({"label": ("a",)}) == {"label": ["a"]}


@pytest.mark.parametrize(
    "value", ["a", [], None, ["a", "a"], ["a", "c"], ["a", ["b"]], {"a": "b"}, [None], 7, ["a", {}]]
)
def test_several_labels_are_a_list_of_known_ones_each_once(value):
    error = refused(checker(["a", "b"], multiple=True), value)
    assert error.fields == {"label": error.remedy}


def test_a_new_label_is_offered_from_then_on():
    check = checker(["ham"], new_labels=True)
    assert check.check("  cold   spam ") == {"label": "cold spam"}
    assert check.options == ("ham", "cold spam")
    assert check.spec()["options"] == ["ham", "cold spam"]
    assert check.check("cold spam") == {"label": "cold spam"}
    assert check.options == ("ham", "cold spam")
    assert "reads like cold spam" in refused(check, "Cold spam").remedy


@pytest.mark.parametrize("typed", ["Cold Spam", "cold  spam", "COLD\tSPAM", "Cafe\u0301"])
@pytest.mark.parametrize("new_labels", [True, False])
def test_a_label_that_reads_like_a_known_one_is_refused_by_its_name(typed, new_labels):
    error = refused(checker(["cold spam", "Café"], new_labels=new_labels), typed)
    assert ("reads like cold spam" in error.remedy) != ("reads like Café" in error.remedy)


def test_labels_that_differ_in_case_only_are_both_known():
    check = checker(["US", "us"], new_labels=True, multiple=True)
    assert check.check(["us", "US"]) == {"label": ["US", "us"]}
    assert "reads like US" in refused(check, ["Us"]).remedy


@pytest.mark.parametrize("typed", ["", " ", None, 5, True, math.nan, ["x"], {"x": 1}, "x" * 201, *HIDDEN])
def test_a_new_label_is_a_short_text_that_can_be_seen(typed):
    check = checker(["ham"], new_labels=True)
    refused(check, typed)
    assert check.options == ("ham",)


def test_of_a_list_with_something_wrong_nothing_becomes_a_label():
    check = checker(["ham"], multiple=True, new_labels=True)
    for wrong in (["new", ""], ["new", "New"], ["new", 3]):
        refused(check, wrong)
    assert check.options == ("ham",)
    assert check.check(["new", "ham"]) == {"label": ["ham", "new"]}


def test_there_may_be_no_label_yet():
    check = checker([], new_labels=True)
    assert check.check("first") == {"label": "first"}


@pytest.mark.parametrize("label", [*MARKUP, "__proto__", "constructor", "toString"])
def test_a_hostile_label_is_a_text_like_any_other(label):
    assert checker([label, "ham"]).check(label) == {"label": label}
    assert checker(["ham"], new_labels=True).check(label) == {"label": " ".join(label.split())}
    refused(checker(["ham"]), label)


@pytest.mark.parametrize(
    "options",
    [
        {"multiple": True},
        {"new_labels": True},
        {"schema": (0, 1), "multiple": True},
        {"labels": [1, 2], "new_labels": True},
        {"schema": range(0)},
        {"schema": (1, 0)},
        {"schema": (0, math.nan)},
        {"schema": ("a", "b")},
        {"schema": Root},
    ],
)
def test_what_cannot_be_is_refused_before_the_first_item(options):
    with pytest.raises(BadInput):
        checker(**options)


# -- numbers


@pytest.mark.parametrize(
    ("schema", "value", "stored"),
    [
        ((0, 1), 0.3, 0.3),  # whole bounds do not ask for a whole number
        ((0, 1), "0.3", 0.3),
        ((0, math.inf), 1e300, 1e300),
        (range(1, 6), 5, 5),
        (range(1, 6), "5", 5),
        (range(1, 6), 5.0, 5),
        (range(10, 0, -2), 4, 4),
        (range(2**53, 2**53 + 9), "9007199254740993", 9007199254740993),
    ],
)
def test_a_number_within_its_bounds_is_stored_as_a_number(schema, value, stored):
    label = checker(schema=schema).check(value)["label"]
    assert (label, type(label)) == (stored, type(stored))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ((0, 50), "1_5"),
        ((0, 5), ""),
        ((0, 5), [1]),
        ((0, math.inf), "inf"),
        ((0, math.inf), "1e999"),
        (range(1, 6), 6),
        (range(1, 6), 2.5),
        (range(1, 6), "2.5"),
        (range(1, 6), True),
        (range(10, 0, -2), 3),
        (range(1, 6), "9" * 5000),
    ],
)
def test_another_number_is_refused(schema, value):
    assert "number" in refused(checker(schema=schema), value).fields["label"]


def test_a_huge_range_costs_nothing():
    assert checker(schema=range(10**15)).check(10**14) == {"label": 10**14}


# -- forms


def test_a_form_takes_what_a_view_sends():
    found = checker(schema=Claim).check(CLAIM)
    assert found == Claim.model_validate(CLAIM | {"level": 2}).model_dump(mode="json")
    assert (found["level"], found["price"], found["parcels"]) == (2, "12.50", 4)


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"count": 0}, "count", "greater than 0"),
        ({"kind": "Refund"}, "kind", "'refund' or 'delivery'"),
        ({"first": {"amount": "x"}}, "first.amount", "valid number"),
        ({"lines": [{"amount": 1}, {}]}, "lines.1.amount", "Field required"),
        ({"nParcels": 3}, "nParcels", "multiple of 2"),
        ({"share": math.nan}, "share", "NaN"),
        ({"share": "nan"}, "share", "Input should be"),
    ],
)
def test_what_is_wrong_with_a_form_is_told_by_field(changed, field, says):
    fields = refused(checker(schema=Claim), CLAIM | changed).fields
    assert set(fields) == {field}
    assert says in fields[field]


def test_a_typed_nan_is_refused_by_field():
    check = EVERY["one number"]()
    assert refused(check, {"label": "nan"}).fields == {"label": "NaN and infinity are no answers"}


def test_whatever_a_validator_raises_is_bad_input():
    error = refused(checker(schema=Fragile), {"x": 2})
    assert "KeyError" in error.remedy
    assert error.fields == {}
    assert checker(schema=Fragile).check({"x": 1}) == {"x": 1}


def test_a_thousand_errors_are_told_in_part():
    assert len(refused(checker(schema=Claim), CLAIM | {"lines": [{}] * 1000}).fields) == 100


# -- what a view is told


@pytest.mark.parametrize(
    ("made", "spec"),
    [
        (checker(), {"kind": "text"}),
        (checker(["a", 7]), {"kind": "label", "options": ["a", "7"], "more": 0, "new_labels": False}),
        (
            checker(["a"], multiple=True, new_labels=True),
            {"kind": "labels", "options": ["a"], "more": 0, "new_labels": True},
        ),
        (
            checker(schema=(0, math.inf)),
            {"kind": "number", "low": 0, "high": None, "step": None, "range": "a number from 0"},
        ),
        (
            checker(schema=range(0, 11, 5)),
            {"kind": "number", "low": 0, "high": 10, "step": 5, "range": "a whole number from 0 to 10 in steps of 5"},
        ),
    ],
)
def test_a_view_is_told_what_can_be_entered(made, spec):
    assert made.spec() == spec


def test_a_form_is_told_field_by_field():
    fields = {field["name"]: field for field in checker(schema=Claim).spec()["fields"]}
    assert {name: field["type"] for name, field in fields.items()} == {
        "kind": "choice",
        "colour": "choice",
        "level": "choice",
        "count": "integer",
        "share": "number",
        "paid": "boolean",
        "sure": "boolean",
        "note": "text",
        "price": "text",
        "day": "text",
        "lines": "json",
        "first": "json",
        "either": "json",
        "nParcels": "integer",
    }
    assert fields["colour"]["options"] == ["red", "green"]
    assert fields["colour"]["help"] == "of the parcel"
    assert fields["level"] == {
        "name": "level", "type": "choice", "options": ["1", "2"], "required": False, "nullable": True, "help": "",
    }  # fmt: skip
    assert fields["count"]["range"] == "a whole number above 0 to 9"
    assert (fields["share"]["low"], fields["share"]["high"], fields["share"]["nullable"]) == (0, 1, True)
    assert fields["note"]["longest"] == 20
    assert (fields["paid"]["required"], fields["paid"]["nullable"], fields["paid"]["help"]) == (
        False, False, "default: False",
    )  # fmt: skip
    assert fields["nParcels"]["step"] == 2
    assert {name for name, field in fields.items() if field["required"]} == {
        "kind", "colour", "count", "note", "price", "day", "first",
    }  # fmt: skip
    assert checker(schema=Claim).fields == tuple(fields)


def test_choices_that_read_the_same_are_typed_as_json():
    check = checker(schema=pydantic.create_model("Same", x=(Literal[1, "1"], ...)))
    assert check.spec()["fields"][0]["type"] == "json"
    assert (check.check({"x": "1"}), check.check({"x": 1})) == ({"x": "1"}, {"x": 1})


def test_a_model_that_json_cannot_describe_is_filled_in_as_json():
    check = checker(schema=WithOdd)
    assert [(field["name"], field["type"]) for field in check.spec()["fields"]] == [("x", "json"), ("odd", "json")]
    assert check.check({"x": 1}) == {"x": 1, "odd": None}


def test_so_many_labels_are_sent_and_the_rest_is_counted():
    check = checker(["x" * 2000, *range(5000)])
    assert check.spec()["options"] == [str(i) for i in range(MAX_OPTIONS)]
    assert check.spec()["more"] == 3001
    assert check.check("4999") == {"label": 4999}
    many = checker(schema=pydantic.create_model("Many", x=(Literal[tuple(map(str, range(3000)))], ...)))
    assert many.spec()["fields"][0]["type"] == "text"


@pytest.mark.parametrize("made", EVERY.values(), ids=EVERY)
def test_what_a_view_is_told_is_json(made):
    spec = made().spec()
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec


def test_every_text_that_a_view_is_told_can_be_seen():
    for hidden, code in HIDDEN.items():
        told = json.dumps(checker([hidden]).spec(), ensure_ascii=False)
        if "\ud800" not in hidden:
            choice = Literal[hidden, "other"]
            field = (choice, pydantic.Field(description=hidden))
            told += json.dumps(checker(schema=pydantic.create_model("M", x=field)).spec(), ensure_ascii=False)
        assert code in told
        assert hidden not in told


def test_a_choice_with_hidden_characters_is_stored_as_it_is():
    check = checker(schema=pydantic.create_model("M", x=(Literal["pay\u200bpal", "other"], ...)))
    (field,) = check.spec()["fields"]
    assert check.check({"x": field["options"][0]}) == {"x": "pay\u200bpal"}


# -- hostile values

_keys = st.sampled_from(["__proto__", "constructor", "label", "x", "", "kind", "toString", "$float", "a.b"]) | st.text()
_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([*MARKUP, *HIDDEN]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=10,
)


def deep(levels, one=list):
    value = "x"
    for _ in range(levels):
        value = [value] if one is list else {"__proto__": value}
    return value


HUGE = {
    "a list in lists": deep(50_000),
    "a dict in dicts": deep(50_000, dict),
    "a long text": "x" * 2_000_000,
    "a long list": ["x"] * 300_000,
    "a wide dict": {f"{i:040}": 1 for i in range(25_000)},
    "a whole number without end": 10**5000,
    "a lone surrogate": "\ud800",
    "a NUL": "\0",
    "a NUL as a name": {"\0": 1},
}


@pytest.mark.parametrize("made", EVERY.values(), ids=EVERY)
@given(value=_plain)
def test_whatever_a_view_sends_is_stored_in_full_or_bad_input(made, value):
    check = made()
    with suppress(BadInput):  # every other exception fails
        found = check.check(value)
        assert isinstance(found, dict)
        assert parse(canonical(found)) == found
        assert check.check(found) == found


@pytest.mark.parametrize("made", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
def test_what_is_huge_or_deep_is_a_named_error(made, value):
    for one in (value, {"label": value}, [value], {"__proto__": value}):
        error = refused(made(), one)
        assert len(str(error)) < 3000


def test_a_long_correction_is_too_large():
    with pytest.raises(TooLarge, match="limit is 1,000,000"):
        checker().check("x" * 1_000_000)
    assert checker().check("x" * 900_000)["label"]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"label": -math.inf}, {"a": {"b": [math.nan]}}])
def test_nan_and_infinity_are_no_answers(value):
    for made in EVERY.values():
        refused(made(), value)
