"""Which cases a person sees, why, and with what probability."""

import json
import pickle
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import IsolationForest
from strategies import floats, scalars

from hitl_nb.errors import BadInput, RuleChanged, UnknownRule
from hitl_nb.evidence import Certificate
from hitl_nb.policy import Batch, FieldAbove, Finding, Flag, Outlier, Policy, Predicate, check_rule
from hitl_nb.policy.policy import draws, id_pairs
from hitl_nb.policy.rule import FLAGS, content_hash
from hitl_nb.task import Priority, Status

NOW = datetime(2026, 1, 1)
QUIET = {"audit_rate": 0}


def ids(n, first=0):
    return [str(UUID(int=(0x0190_0000_0000_7000 << 64) + (1 << 63) + first + i)) for i in range(n)]


def decide(policy, predictions, inputs=None):
    """Decide about dicts, one batch."""
    inputs = [{}] * len(predictions) if inputs is None else inputs
    return list(policy.decide(Batch.from_rows(inputs, predictions), task_ids=ids(len(predictions)), now=NOW))


def decide_frame(policy, predictions, inputs=None):
    inputs = pd.DataFrame(index=predictions.index) if inputs is None else inputs
    return list(policy.decide(Batch.from_frames(inputs, predictions), task_ids=ids(len(predictions)), now=NOW))


def both(policy, predictions, inputs=None):
    """Decide one by one and as a frame of objects, check that they agree, and return the decisions."""
    n = len(predictions)
    inputs = [{}] * n if inputs is None else inputs
    rows = zip(ids(n), inputs, predictions, strict=True)
    alone = [policy.decide(Batch.from_rows([a], [b]), task_ids=[i], now=NOW)[0] for i, a, b in rows]
    frames = [
        pd.DataFrame({k: pd.Series([row[k] for row in side], dtype=object) for k in side[0]}, index=range(n))
        for side in (inputs, predictions)
    ]
    assert list(map(repr, decide_frame(policy, frames[1], frames[0]))) == list(map(repr, alone))
    return alone


def inputs_of(values):
    """Return sure predictions, and inputs of one field."""
    return [{"confidence": 1}] * len(values), [{"x": value} for value in values]


def told(decision):
    return [reason.text for reason in decision.reasons]


def asks(decision):
    return decision.status is Status.PENDING


# -- confidence --------------------------------------------------------------------------------------------------------

UNKNOWN = [
    None,
    "0.9",
    "high",
    True,
    False,
    float("nan"),
    float("inf"),
    -float("inf"),
    -0.1,
    1.1,
    -5e-324,
    1 + 1e-9,
    Decimal("0.9"),
    10**400,
    -(10**400),
    2,
    [0.9],
    {"value": 0.9},
    0.9 + 0j,
    b"0.9",
    np.float32("nan"),
    np.float64("inf"),
    np.bool_(True),
    np.str_("0.9"),
    np.int64(2),
    np.array([0.9, 0.8]),
    np.array(0.9),
    np.datetime64("2026-01-01"),
    np.timedelta64(1),
    np.timedelta64("NaT"),
    np.longdouble("1e4000"),
    pd.NA,
    pd.NaT,
]


@pytest.mark.parametrize("confidence", UNKNOWN, ids=repr)
def test_an_unknown_confidence_goes_to_a_person(confidence):
    [decision] = decide(Policy(0.0, **QUIET), [{"confidence": confidence}])
    assert decision.status is Status.PENDING
    assert decision.confidence is None
    assert [reason.rule for reason in decision.reasons] == ["unknown"]
    assert told(decision)[0].startswith("Unknown confidence")
    assert decision.hard
    assert decision.priority is Priority.HIGH


def test_a_missing_confidence_goes_to_a_person_and_one_that_is_odd_is_shown():
    batch = [{}, {"confidence": None}, {"confidence": "0.9"}]
    texts = [told(decision) for decision in decide(Policy(0.0, **QUIET), batch)]
    assert texts == [["Unknown confidence"], ["Unknown confidence"], ["Unknown confidence: 0.9"]]
    assert told(decide(Policy(0.0, **QUIET), [{}])[0]) == ["Unknown confidence"]


@pytest.mark.parametrize(
    "confidence",
    [0, 1, 0.0, -0.0, 1.0, 0.5, np.float32(0.5), np.float16(0.5), np.longdouble(0.5), np.int8(1)],
    ids=repr,
)
def test_a_number_from_zero_to_one_is_a_confidence(confidence):
    [decision] = decide(Policy(0.0, **QUIET), [{"confidence": confidence}])
    assert decision.status is Status.AUTO_APPROVED
    assert decision.confidence == float(confidence)


@pytest.mark.parametrize(
    ("column", "known"),
    [
        (pd.Series([0.9, float("nan"), 1.5, -0.1, float("inf")], dtype="float32"), [True, False, False, False, False]),
        (pd.Series([0.9, None, 1.5], dtype="Float64"), [True, False, False]),
        (pd.Series([0.9, float("nan")], dtype="Float64"), [True, False]),
        (pd.Series([0, 1, 2, None], dtype="Int64"), [True, True, False, False]),
        (pd.Series([0, 1, 2, -1], dtype="int8"), [True, True, False, False]),
        (pd.Series([0, 1, 2**64 - 1], dtype="uint64"), [True, True, False]),
        (pd.Series([True, False], dtype="bool"), [False, False]),
        (pd.Series([True, None], dtype="boolean"), [False, False]),
        (pd.Series(["0.9", "1", None], dtype="str"), [False] * 3),
        (pd.Series(["0.9", None], dtype="string"), [False] * 2),
        (pd.Series(["0.9", "1"], dtype="category"), [False] * 2),
        (pd.Series([0.9, 0.8], dtype="category"), [True] * 2),
        (pd.Series([0.9, 0.8 + 1j], dtype="complex128"), [False] * 2),
        (pd.Series(pd.to_datetime(["2026-01-01"])), [False]),
        (
            pd.Series([0.9, "0.9", True, None, pd.NA, Decimal(1), 1, np.float32(0.5), 10**400], dtype="object"),
            [True, False, False, False, False, False, True, True, False],
        ),
    ],
    ids=lambda x: str(x.dtype) if isinstance(x, pd.Series) else "",
)
def test_only_numbers_of_a_column_are_confidences(column, known):
    decisions = decide_frame(Policy(0.0, **QUIET), pd.DataFrame({"confidence": column}))
    assert [decision.status is Status.AUTO_APPROVED for decision in decisions] == known
    assert [[reason.rule for reason in decision.reasons] for decision in decisions] == [
        [] if k else ["unknown"] for k in known
    ]


def test_a_frame_without_confidences_goes_to_people():
    decisions = decide_frame(
        Policy(0.0, **QUIET), pd.DataFrame({"label": ["a", "b"], "probabilities": [{"a": 1.0}, {"b": 1.0}]})
    )
    assert [told(decision) for decision in decisions] == [["Unknown confidence"]] * 2


@given(st.lists(floats | scalars, min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=300)
def test_a_stricter_threshold_never_approves_more(confidences, one, other):
    predictions = [{"confidence": c} for c in confidences]
    lax, strict = (decide(Policy(t, **QUIET), predictions) for t in sorted((one, other)))
    for lenient, severe in zip(lax, strict, strict=True):
        assert lenient.status is Status.AUTO_APPROVED or severe.status is Status.PENDING
        assert severe.status is Status.PENDING or severe.confidence >= max(one, other)


def test_the_threshold_itself_is_approved():
    decisions = decide(Policy(0.85, **QUIET), [{"confidence": c} for c in (0.85, np.nextafter(0.85, 0), 0.86)])
    assert [d.status is Status.AUTO_APPROVED for d in decisions] == [True, False, True]


def test_a_label_has_its_own_threshold():
    policy = Policy(0.8, label_thresholds={"fraud": 0.95, 7: 0.5, True: 0.99, 2.5: 1}, **QUIET)
    cases = [  # label, confidence, approved
        ("fraud", 0.94, False),
        ("fraud", 0.95, True),
        (np.str_("fraud"), 0.94, False),
        ("ok", 0.8, True),
        ("ok", 0.79, False),
        (7, 0.5, True),
        (7, 0.49, False),
        (7.0, 0.5, True),
        ("7", 0.5, False),
        (np.int64(7), 0.5, True),
        (np.uint8(7), 0.5, True),
        (np.float32(7), 0.5, True),
        (2.5, 0.99, False),
        (np.float16(2.5), 0.99, False),
        (True, 0.98, False),
        (np.bool_(True), 0.98, False),
        (1, 0.98, True),
        (1.0, 0.98, True),
    ]
    decisions = both(policy, [{"label": label, "confidence": c} for label, c, _ in cases])
    assert [not asks(d) for d in decisions] == [approved for *_, approved in cases]
    assert decisions[0].reasons[0].bound == 0.95
    assert decisions[4].reasons[0].bound == 0.8
    assert not decisions[0].hard


def test_a_number_and_a_boolean_are_two_labels():
    for wanted, other in ((1, True), (0, False), (True, 1), (False, 0.0)):
        [own, general] = both(
            Policy(0.5, label_thresholds={wanted: 0.99}, **QUIET),
            [{"label": label, "confidence": 0.9} for label in (wanted, other)],
        )
        assert asks(own)
        assert not asks(general)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "Int64", "object", "category", "float32", "Float64"])
def test_labels_of_any_numeric_column_have_their_threshold(dtype):
    predictions = pd.DataFrame({"label": pd.Series([7, 8], dtype=dtype), "confidence": [0.6, 0.6]})
    decisions = decide_frame(Policy(0.8, label_thresholds={7: 0.5}, **QUIET), predictions)
    assert [d.status is Status.AUTO_APPROVED for d in decisions] == [True, False]


@pytest.mark.parametrize("dtype", [None, "Int64", "object"])
def test_a_gap_in_a_column_of_labels_never_lowers_a_threshold(dtype):
    predictions = pd.DataFrame({"label": pd.Series([1, None, 2], dtype=dtype), "confidence": [0.9, 0.999, 0.9]})
    decisions = decide_frame(Policy(0.5, label_thresholds={1: 0.99}, **QUIET), predictions)
    assert [asks(d) for d in decisions] == [True, True, False]
    assert told(decisions[0]) == ["Low confidence: 0.9"]
    assert told(decisions[1])[0].startswith("Unknown label")


UNREADABLE = [None, pd.NA, pd.NaT, float("nan"), np.float32("nan"), float("inf"), ["fraud"], {"a": 1}, b"fraud", 1j]


@pytest.mark.parametrize("label", [*UNREADABLE, np.longdouble("1e4000"), np.datetime64("2026-01-01")], ids=repr)
def test_without_a_readable_label_no_threshold_holds(label):
    policy = Policy(0.5, label_thresholds={"fraud": 0.99}, **QUIET)
    [decision] = both(policy, [{"label": label, "confidence": 1.0}])
    assert asks(decision)
    assert [(r.rule, r.field) for r in decision.reasons] == [("unknown", "prediction.label")]
    assert told(decision)[0].startswith("Unknown label")
    assert decision.hard
    assert decision.priority is Priority.HIGH
    assert not asks(both(Policy(0.5, **QUIET), [{"label": label, "confidence": 1.0}])[0])


def test_an_absent_label_is_as_unknown_as_an_empty_one():
    policy = Policy(0.5, label_thresholds={"fraud": 0.99}, **QUIET)
    decisions = [*decide(policy, [{"confidence": 1.0}]), *decide_frame(policy, pd.DataFrame({"confidence": [1.0]}))]
    assert [told(decision) for decision in decisions] == [["Unknown label"]] * 2


@given(
    st.dictionaries(st.sampled_from([0, 1, 2, "a", ""]), st.sampled_from([0, 0.5, 1]), max_size=4),
    st.lists(
        st.tuples(scalars | st.sampled_from([0, 1, 0.0, 1.0, 2.0, "a", ""]), st.sampled_from([0.25, 0.5, 0.75])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 0.5, 1]),
)
@settings(max_examples=150)
def test_what_is_approved_has_reached_the_threshold_of_its_label(bounds, said, general):
    policy = Policy(general, label_thresholds=bounds, **QUIET)
    decisions = both(policy, [{"label": label, "confidence": c} for label, c in said])
    for (label, confidence), decision in zip(said, decisions, strict=True):
        if not asks(decision):
            own = [b for key, b in bounds.items() if not isinstance(label, bool) and key == label]
            assert confidence >= (own[0] if own else general)


def test_a_hundred_labels_have_a_hundred_thresholds():
    labels = [f"label {i}" for i in range(100)]
    policy = Policy(0.5, label_thresholds={label: 0.5 + i / 1000 for i, label in enumerate(labels)}, **QUIET)
    decisions = both(policy, [{"label": label, "confidence": 0.4} for label in labels])
    assert [d.reasons[0].bound for d in decisions] == list(policy.label_thresholds.values())


# -- flags and fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [flag.flag for flag in FLAGS])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (True, "fires"),
        (np.bool_(True), "fires"),
        (1, "fires"),
        (1.0, "fires"),
        (np.int8(1), "fires"),
        (False, None),
        (np.bool_(False), None),
        (0, None),
        (0.0, None),
        (-0.0, None),
        (..., None),
        (None, "unread"),
        (pd.NA, "unread"),
        ("yes", "unread"),
        ("true", "unread"),
        ("false", "unread"),
        ("0", "unread"),
        ("", "unread"),
        (float("nan"), "unread"),
        (2, "unread"),
        (-float("inf"), "unread"),
        (np.float32("nan"), "unread"),
        (np.timedelta64(1), "unread"),
        (np.timedelta64(0), "unread"),
        (np.str_("False"), "unread"),
        (np.array(True), "unread"),
        ([], "unread"),
        ({}, "unread"),
        (10**400, "unread"),
        (np.array([False, False]), "unread"),
        (Decimal(0), "unread"),
    ],
    ids=repr,
)
def test_a_flag_is_true_or_false_or_asks(flag, value, says):
    prediction = {"confidence": 0.99} | ({} if value is ... else {flag: value})
    [decision] = both(Policy(0.5, **QUIET), [prediction])
    words = {one.flag: one.says for one in FLAGS}[flag]
    expected = {"fires": words, "unread": f"{flag} is neither true nor false: ", None: None}[says]
    assert (decision.status is Status.AUTO_APPROVED) == (says is None)
    if says:
        assert decision.hard
        assert [reason.rule for reason in decision.reasons] == [flag]
        assert told(decision)[0].startswith(expected)


@pytest.mark.parametrize(
    ("column", "asked"),
    [
        (pd.Series([True, False]), [1, 0]),
        (pd.Series([True, False, None], dtype="boolean"), [1, 0, 1]),
        (pd.Series([1, 0, 2]), [1, 0, 1]),
        (pd.Series([1.0, 0.0, float("nan")]), [1, 0, 1]),
        (pd.Series(["True", "False"]), [1, 1]),
        (pd.Series([1, 0, None], dtype="Int64"), [1, 0, 1]),
        (pd.Series([True, False, None, "yes"], dtype="object"), [1, 0, 1, 1]),
    ],
    ids=["bool", "boolean", "int", "float", "str", "Int64", "object"],
)
def test_a_flag_of_a_column_is_read_the_same_way(column, asked):
    predictions = pd.DataFrame({"confidence": 0.99, "regulated": column})
    assert [asks(d) for d in decide_frame(Policy(0.5, **QUIET), predictions)] == list(map(bool, asked))


def test_a_flag_that_is_absent_is_not_an_empty_one():
    predictions = [{"regulated": False}, {}, {"regulated": None}]
    decisions = decide(Policy(0.5, **QUIET), [{"confidence": 0.99} | one for one in predictions])
    assert [asks(d) for d in decisions] == [False, False, True]
    assert told(decisions[2]) == ["regulated is neither true nor false: None"]


@given(st.lists(scalars | st.sampled_from([0, 1, 0.0, True, False]), min_size=1, max_size=6))
@settings(max_examples=150)
def test_only_a_flag_that_says_no_lets_pass(values):
    decisions = both(Policy(0.5, **QUIET), [{"confidence": 0.99, "irreversible": value} for value in values])
    said_no = [isinstance(value, (bool, int, float)) and value == 0 for value in values]
    assert [not asks(d) for d in decisions] == said_no


def test_the_words_of_the_contract():
    texts = {flag.flag: flag.says for flag in FLAGS}
    assert texts["is_anomalous"] == "Anomalous input detected"
    assert texts["high_value_transaction"] == "High-value transaction requires approval"
    assert {"irreversible", "regulated"} < set(texts)


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (1000, False),
        (1000.5, True),
        (999, False),
        (np.int64(5000), True),
        (np.float32(1e9), True),
        (-5, False),
        (..., True),
        (None, True),
        (float("nan"), True),
        (float("inf"), True),
        (-float("inf"), True),
        (np.float32("-inf"), True),
        (np.longdouble("-1e4000"), True),
        (pd.NA, True),
        ("5", True),
        (np.str_("5"), True),
        (True, True),
        (np.bool_(False), True),
        (Decimal(1), True),
        ([1], True),
        (np.array(5), True),
        (np.timedelta64(5), True),
        (1j, True),
        (10**400, True),
        (-(10**400), True),
        (-(10**299), False),
        (np.int8(-5), False),
        (np.float16(5), False),
    ],
    ids=repr,
)
def test_a_field_above_its_bound_or_unreadable_asks(value, asked):
    rule = FieldAbove(field="amount", bound=1000, expertise="credit")
    [decision] = both(
        Policy(0.5, rules=[rule], **QUIET), [{"confidence": 1}], [{} if value is ... else {"amount": value}]
    )
    assert asks(decision) == asked
    if asked:
        assert decision.reasons[0].field == "input.amount"
        assert decision.expertise == "credit"
        assert decision.reasons[0].bound == 1000
        assert decision.hard


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, float("nan"), -float("inf"), float("inf"), 2000]),
        pd.Series([1.0, float("nan"), -float("inf"), float("inf"), 2000], dtype="float32"),
        pd.Series([1.0, None, -float("inf"), float("inf"), 2000], dtype="Float64"),
        pd.Series([1, None, "1", Decimal(1), 2000], dtype="object"),
        pd.Series([1, None, None, None, 2000], dtype="Int64"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_field_of_any_column_asks_unless_it_is_a_small_number(column):
    policy = Policy(0.5, rules=[FieldAbove(field="x", bound=1000)], **QUIET)
    decisions = decide_frame(policy, pd.DataFrame({"confidence": [1.0] * 5}), pd.DataFrame({"x": column}))
    assert [asks(d) for d in decisions] == [False, True, True, True, True]
    assert all(told(d)[0].startswith("x is missing or no finite number") for d in decisions[1:4])


@given(st.lists(floats | scalars | st.integers(2**53 - 3, 2**53 + 3), min_size=1, max_size=6), st.booleans())
@settings(max_examples=300)
def test_what_a_bound_lets_pass_is_a_finite_number_up_to_it(values, large):
    bound = 2**53 if large else 3
    policy = Policy(0.5, rules=[FieldAbove(field="x", bound=bound)], **QUIET)
    for value, decision in zip(values, both(policy, *inputs_of(values)), strict=True):
        assert asks(decision) or (np.isfinite(float(value)) and value <= bound and not isinstance(value, bool))


def test_a_field_above_shows_the_value_as_it_is_stored():
    policy = Policy(0.5, rules=[FieldAbove(field="amount", bound=10_000.0)], **QUIET)
    frame = pd.DataFrame({"amount": [12_000]})
    one = decide(policy, [{"confidence": 1}], [{"amount": 12_000}])[0]
    two = decide_frame(policy, pd.DataFrame({"confidence": [1.0]}), frame)[0]
    three = decide_frame(
        policy, pd.DataFrame({"confidence": [1.0, 1.0]}), pd.DataFrame({"amount": pd.array([12_000, None])})
    )[0]
    assert told(one) == told(two) == told(three) == ["amount 12000 > 10000"]


@pytest.mark.parametrize("field", ["prediction.amount", "input.amount", "amount", "confidence"])
def test_a_field_can_stand_on_either_side(field):
    rule = FieldAbove(field=field, bound=0.5)
    [decision] = decide(
        Policy(0.0, rules=[rule], **QUIET), [{"confidence": 0.7, "amount": 1}], [{"amount": 2, "confidence": 0.1}]
    )
    place = {"amount": "input.amount"}.get(field, field)
    assert [(r.field, r.value) for r in decision.reasons] == [
        (place, {"prediction.amount": 1, "confidence": 0.7}.get(field, 2))
    ]


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), "1000", None, True, Decimal(1), 10**400])
def test_a_bound_is_a_finite_number(bound):
    with pytest.raises(BadInput, match="bound of amount"):
        FieldAbove(field="amount", bound=bound)


def test_two_close_bounds_are_two_rules():
    assert Policy(rules=[FieldAbove(field="x", bound=1_000_000.1), FieldAbove(field="x", bound=1_000_000.2)])


# -- outliers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forest():
    rng = np.random.default_rng(0)
    return IsolationForest(n_estimators=20, random_state=0).fit(
        pd.DataFrame(rng.normal(size=(300, 2)), columns=["x", "y"])
    )


def test_an_outlier_asks_and_so_does_what_cannot_be_scored(forest):
    policy = Policy(0.5, rules=[Outlier(detector=forest)], **QUIET)
    inputs = [
        {"x": 0.1, "y": 0},
        {"x": 8.0, "y": -8.0},
        {"x": 0.1},
        {"x": "0", "y": 0},
        {"x": float("nan"), "y": 0},
        {"x": 1e39, "y": 0},
        {"x": float("inf"), "y": 0},
        {"x": True, "y": 0},
    ]
    decisions = decide(policy, [{"confidence": 0.9}] * len(inputs), inputs)
    assert [d.status is Status.AUTO_APPROVED for d in decisions] == [True] + [False] * 7
    assert decisions[1].reasons[0].value == forest.decision_function(pd.DataFrame([{"x": 8.0, "y": -8.0}]))[0]
    assert decisions[1].reasons[0].field == "score.outlier"
    assert {tuple(told(d)) for d in decisions[2:]} == {("outlier cannot judge this input",)}


def test_the_order_of_the_frame_does_not_matter_to_a_detector(forest):
    policy = Policy(0.5, rules=[Outlier(detector=forest)], **QUIET)
    frame = pd.DataFrame({"y": [0.0, 0.0], "other": ["a", "b"], "x": [0.1, 9.0]})
    assert [
        d.status is Status.AUTO_APPROVED for d in decide_frame(policy, pd.DataFrame({"confidence": [1, 1]}), frame)
    ] == [True, False]


def test_the_fields_may_have_other_names_than_the_columns(forest):
    rule = Outlier(detector=forest, fields=("prediction.a", "b"), name="shape")
    [decision] = decide(Policy(0.5, rules=[rule], **QUIET), [{"confidence": 1, "a": 0.1}], [{"b": 0.0}])
    assert decision.status is Status.AUTO_APPROVED


class Detector:
    """A detector whose answer is set."""

    def __init__(self, answer):
        self.answer = answer

    def decision_function(self, matrix):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer", [ValueError("no"), np.zeros((2, 2)), np.zeros(1), 3.0, None, "ab", [float("nan")] * 2], ids=repr
)
def test_a_detector_that_fails_has_judged_nothing(answer):
    rule = Outlier(detector=Detector(answer), fields=("x",))
    decisions = decide(Policy(0.5, rules=[rule], **QUIET), [{"confidence": 1}] * 2, [{"x": 1}] * 2)
    assert [told(d) for d in decisions] == [["outlier cannot judge this input"]] * 2


@pytest.mark.parametrize(
    ("scores", "asked"),
    [
        ([0.0, 0.5], [0, 0]),
        ([-0.1, 0.5], [1, 0]),
        ([float("nan"), 0.5], [1, 0]),
        ([float("inf"), 0.5], [1, 0]),
        ([-float("inf"), 0.5], [1, 0]),
        (pd.array([None, 0.5], dtype="Float64"), [1, 0]),
    ],
    ids=repr,
)
def test_a_score_that_is_no_number_asks(scores, asked):
    policy = Policy(0.5, rules=[Outlier(detector=Detector(scores), fields=("x",))], **QUIET)
    assert [asks(d) for d in decide(policy, [{"confidence": 1}] * 2, [{"x": 1}] * 2)] == list(map(bool, asked))


class Masking(Detector):
    """A detector that masks its first score."""

    def decision_function(self, matrix):
        return np.ma.masked_array(self.answer, mask=[True, False])


def test_a_masked_score_asks():
    policy = Policy(0.5, rules=[Outlier(detector=Masking([0.5, 0.5]), fields=("x",))], **QUIET)
    assert [asks(d) for d in decide(policy, *inputs_of([1, 1]))] == [True, False]


@given(st.lists(floats | scalars | st.floats(-1, 1), min_size=1, max_size=6))
@settings(max_examples=100)
def test_a_detector_lets_pass_nothing_but_numbers(forest, values):
    policy = Policy(0.5, rules=[Outlier(detector=forest, fields=("x", "x"))], **QUIET)
    for value, decision in zip(values, both(policy, *inputs_of(values)), strict=True):
        assert asks(decision) or (isinstance(value, (int, float)) and np.isfinite(float(value)))


@pytest.mark.parametrize(
    "options",
    [
        {"detector": object(), "fields": ("x",)},
        {"detector": Detector(0)},
        {"detector": Detector(0), "fields": "amount"},
        {"detector": IsolationForest()},
        {"detector": Detector(0), "fields": ("x",), "name": ""},
    ],
    ids=["no detector", "no fields", "one text", "not fitted", "no name"],
)
def test_what_is_no_detector_is_refused(options):
    with pytest.raises(BadInput):
        Outlier(**options)


def test_a_detector_of_another_width_is_refused(forest):
    with pytest.raises(BadInput, match="order of its columns"):
        Outlier(detector=forest, fields=("x",))


# -- predicates --------------------------------------------------------------------------------------------------------


def predicate(function, **options):
    return Policy(0.5, rules=[Predicate(name="odd", function=function, **options)], **QUIET)


def judge(function, values):
    """Return the reasons why a predicate about x asks, for each value."""
    return [told(decision) for decision in both(predicate(function), *inputs_of(values))]


def nested(depth):
    value = [1.0]
    for _ in range(depth):
        value = [value]
    return value


LOST = [None, pd.NA, pd.NaT, float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.longdouble("1e4000")]
LOST += [np.datetime64("NaT"), complex("nan"), Decimal("NaN"), np.array([1, np.nan]), [1.0, float("nan")]]
LOST += [{"a": [float("inf")]}, nested(100)]


@pytest.mark.parametrize("value", LOST, ids=repr)
@pytest.mark.parametrize("function", [lambda b: b["x"] > 1000, lambda b: b["x"] < 0, lambda b: [False] * b.n])
def test_a_predicate_cannot_judge_what_is_unknown(value, function):
    def reading(batch):
        assert "x" in batch
        return function(batch)

    assert judge(reading, [value]) == [["odd cannot judge this input: x is unknown"]]


def test_a_predicate_names_the_unknown_field_and_judges_the_other_rows():
    policy = predicate(lambda b: b["x"] + b["prediction.y"] > 1000, expertise="credit")
    inputs = [{"x": 1}, {"x": None}, {"x": 1}, {"x": None}, {"x": 2000}]
    predictions = [{"confidence": 1, "y": y} for y in (1, 1, float("nan"), None, 1)]
    decisions = both(policy, predictions, inputs)
    unknown = "odd cannot judge this input: {} is unknown".format
    assert [told(d) for d in decisions] == [
        [], [unknown("x")], [unknown("prediction.y")], [unknown("x")], ["odd"]
    ]  # fmt: skip
    assert [[r.field for r in d.reasons] for d in decisions[:4]] == [[], ["input.x"], ["prediction.y"], ["input.x"]]
    assert all(d.hard and d.expertise == "credit" and d.priority is Priority.HIGH for d in decisions[1:])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, None, 2000]),
        pd.Series([1, None, 2000], dtype="Int64"),
        pd.Series([1, None, 2000], dtype="object"),
        pd.Series([1, -float("inf"), 2000], dtype="float32"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_gap_in_any_column_asks_and_the_other_rows_are_judged(column):
    policy = predicate(lambda b: b["x"] > 1000)
    decisions = decide_frame(policy, pd.DataFrame({"confidence": [1.0] * 3}), pd.DataFrame({"x": column}))
    assert [told(d) for d in decisions] == [[], ["odd cannot judge this input: x is unknown"], ["odd"]]


@pytest.mark.parametrize(
    "read",
    [
        lambda b: b["y"] > 1,
        lambda b: b.get("y") is None,
        lambda b: "y" not in b,
        lambda b: b.numbers("y") > 1,
        lambda b: b["input.y"] > 1,
        lambda b: b.get("y", float("nan")) > 1,
    ],
)
def test_an_absent_field_is_unknown_however_it_is_read(read):
    def function(batch):
        return np.full(batch.n, False) & read(batch)

    inputs = [{"x": 1}, {"x": 2, "y": 0}]
    confident = [{"confidence": 1}] * 2
    whole = decide(predicate(function), confident, inputs)
    framed = decide_frame(predicate(function), pd.DataFrame(confident), pd.DataFrame(inputs))
    alone = [decide(predicate(function), confident[:1], [row])[0] for row in inputs]
    for decisions in (whole, framed, alone):
        assert [len(d.reasons) for d in decisions] == [1, 0]
        assert told(decisions[0])[0].endswith("y is unknown")


def test_a_default_stands_where_there_is_no_value():
    values = [None, float("nan"), pd.NA, 5, 0.5, "text", float("inf")]
    said = judge(lambda b: [v == "none" or v == 5 for v in b.get("x", "none")], values)
    assert [len(one) for one in said] == [1, 1, 1, 1, 0, 0, 1]
    assert said[0] == ["odd"]
    assert said[-1] == ["odd cannot judge this input: x is unknown"]
    assert judge(lambda b: b.get("x", 0) > 3, [None, float("nan"), 5, 1]) == [[], [], ["odd"], []]
    assert decide(predicate(lambda b: b.get("x", 0) > 3), [{"confidence": 1}])[0].status is Status.AUTO_APPROVED


MEASURES = [lambda x: x, lambda x: -x, lambda x: x / x, lambda x: 1 / x, np.log, np.sqrt, lambda x: x * 4]


@given(st.lists(floats | scalars | st.integers(-9, 9), min_size=1, max_size=7), st.sampled_from(MEASURES))
@settings(max_examples=300)
def test_a_predicate_lets_pass_only_what_it_could_judge(values, measure):
    with np.errstate(divide="ignore", over="ignore"):
        decisions = both(predicate(lambda b: measure(b["x"]) > 3), *inputs_of(values))
    for value, decision in zip(values, decisions, strict=True):
        if not asks(decision):
            assert isinstance(value, (int, float))
            with np.errstate(all="ignore"):
                assert measure(np.float64(value)) <= 3


def test_numbers_and_single_rows_are_read_as_carefully():
    failed = ["odd cannot judge this input"]
    lost = ["odd cannot judge this input: x is unknown"]
    values = [1, "5", 5, float("nan")]
    assert judge(lambda b: b.numbers("x") > 3, values) == [[], lost, ["odd"], lost]
    assert judge(lambda b: [row["x"][0] > 3 for row in b.rows()], values) == [[], failed, ["odd"], failed]


def test_small_integers_of_a_frame_do_not_wrap():
    frame = pd.DataFrame({"x": pd.Series([100, 1], dtype="int8"), "y": pd.Series([1, 2], dtype="uint8")})
    frame["z"] = [2**62, 1]
    confident = pd.DataFrame({"confidence": [1.0, 1.0]})
    for function in (
        lambda b: b["x"] * 2 > 150,
        lambda b: b["y"] - 2 < 0,
        lambda b: b["z"] * 4 > 10,
        lambda b: b["x"] * 2**40 > 2**41,
    ):
        assert [asks(d) for d in decide_frame(predicate(function), confident, frame)] == [True, False]
        assert [asks(d) for d in decide(predicate(function), [{"confidence": 1}] * 2, frame.to_dict("records"))] == [
            True,
            False,
        ]


@pytest.mark.parametrize(
    ("values", "dtypes"),
    [
        ([1, 2], [np.int64]),
        ([np.int8(1), 2], [np.int64]),
        ([1.5, np.float32(2)], [np.float64]),
        ([True, np.bool_(False)], [np.bool_]),
        (["a", "b"], [object]),
        ([1, 2.5, True], [np.bool_, np.int64, np.float64]),
        ([1, "b"], [np.int64, object]),
        ([2**31, 1], [np.int64, object]),
        ([2**64, 1], [np.int64, object]),
    ],
    ids=repr,
)
def test_a_function_gets_each_value_in_a_column_of_its_type(values, dtypes):
    def seen(inputs):
        columns = []

        def function(batch):
            columns.append(batch["x"])
            return np.full(batch.n, False)

        decide_frame(predicate(function), pd.DataFrame({"confidence": np.ones(len(inputs))}), inputs)
        return columns

    for column in (pd.Series(values), pd.Series(values, dtype=object)):
        columns = seen(column.to_frame("x"))
        assert [one.dtype for one in columns] == dtypes
        assert sorted(str(value) for one in columns for value in one) == sorted(map(str, column))


def test_a_predicate_that_raises_sends_everything_to_a_person():
    decisions = decide(predicate(lambda batch: 1 / 0), [{"confidence": 1}] * 2)
    assert [told(d) for d in decisions] == [["odd cannot judge this input"]] * 2
    assert all(d.hard for d in decisions)


def test_one_row_that_a_predicate_fails_on_does_not_speak_for_the_others():
    risk = {"de": False, "fr": True}
    values = ["de", "fr", "xx", "de", 5, "fr"]
    failed = ["odd cannot judge this input"]
    assert judge(lambda b: [risk[v] for v in b["x"]], values) == [[], ["odd"], failed, [], failed, ["odd"]]
    assert judge(lambda b: b["x"] > 3, [1, "1", 5, [1], b"", 2]) == [[], failed, ["odd"], failed, failed, []]


def test_what_comes_out_as_no_number_is_no_answer():
    values = [{"debt": 0, "income": 0}, {"debt": 1, "income": 4}, {"debt": 4, "income": 1}]
    for convert in (int, float, np.float64):
        inputs = [{k: convert(v) for k, v in row.items()} for row in values]
        decisions = both(predicate(lambda b: b["debt"] / b["income"] > 0.5), [{"confidence": 1}] * 3, inputs)
        assert [told(d) for d in decisions] == [["odd cannot judge this input"], [], ["odd"]]


def test_a_function_that_always_fails_is_called_a_bounded_number_of_times():
    calls = []

    def function(batch):
        calls.append(batch.n)
        raise RuntimeError("no")

    n = 50_000
    batch = Batch.from_frames(pd.DataFrame(index=range(n)), pd.DataFrame({"confidence": np.ones(n)}))
    found = predicate(function).decide(batch, task_ids=id_pairs(ids(n), n), now=NOW)
    assert not found.approved.any()
    assert len(calls) <= 10_000


@pytest.mark.parametrize("answer", [True, [True], [[True, False]], [True, False, True], [], None, {}], ids=repr)
def test_a_predicate_of_another_shape_is_refused(answer):
    with pytest.raises(BadInput, match=r"predicate odd.*shape \(2,\)"):
        decide(predicate(lambda batch: answer), [{"confidence": 1}] * 2)


@pytest.mark.parametrize("answer", ["no", "", b"", 0j, np.datetime64("2026-01-01")], ids=repr)
def test_a_predicate_of_another_type_is_refused(answer):
    with pytest.raises(BadInput, match=r"predicate odd.*return one boolean a row"):
        decide(predicate(lambda batch: [answer] * batch.n), [{"confidence": 1}] * 2)
    with pytest.raises(BadInput, match="predicate odd"):
        decide_frame(predicate(lambda batch: [answer] * batch.n), pd.DataFrame({"confidence": [1]}))


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ([True, False], [1, 0]),
        (np.array([1, 0]), [1, 0]),
        ([None, False], [1, 0]),
        ([float("nan"), 0.0], [1, 0]),
        ([0.5, 0.0], [1, 0]),
        ([pd.NA, False], [1, 0]),
        ([Decimal(0), False], [1, 0]),
        (pd.array([True, None], dtype="boolean"), [1, 1]),
        (pd.Series([False, False], index=[5, 6]), [0, 0]),
        (np.array(["no", False], dtype=object), [1, 0]),
    ],
    ids=repr,
)
def test_a_predicate_asks_unless_it_says_no(answer, asked):
    decisions = decide(predicate(lambda batch: answer), [{"confidence": 1}] * 2)
    assert [asks(d) for d in decisions] == list(map(bool, asked))


@pytest.mark.parametrize("kind", [bool, float])
def test_a_masked_answer_asks(kind):
    policy = predicate(lambda batch: np.ma.masked_array(np.zeros(batch.n, kind), mask=np.arange(batch.n) == 1))
    assert [asks(d) for d in decide(policy, [{"confidence": 1}] * 3)] == [False, True, False]


def test_a_predicate_sees_both_sides_as_columns():
    seen = {}

    def function(batch):
        seen.update(batch)
        assert "amount" in batch
        assert batch.get("nowhere", "nothing").tolist() == ["nothing"] * batch.n
        return batch["prediction.label"] == batch["who"]

    rule = Predicate(name="self", function=function, says="{value} judges itself", field="who")
    frame = pd.DataFrame({"who": ["ann", "bob"], "amount": [1, 2]})
    decisions = decide_frame(
        Policy(0.5, rules=[rule], **QUIET), pd.DataFrame({"label": ["ann", "x"], "confidence": [1, 1]}), frame
    )
    assert [told(d) for d in decisions] == [["ann judges itself"], []]
    assert decisions[0].reasons[0].field == "input.who"
    assert set(seen) == {"input.who", "input.amount", "prediction.label", "prediction.confidence"}


def test_what_a_function_does_to_a_column_stays_its_own():
    def halve(batch):
        batch["x"][:] = batch["x"] // 2
        return np.full(batch.n, False)

    rules = [Predicate(name="halves", function=halve), FieldAbove(field="x", bound=10)]
    for decisions in (
        decide(Policy(0.5, rules=rules, **QUIET), *inputs_of([12])),
        decide_frame(Policy(0.5, rules=rules, **QUIET), pd.DataFrame({"confidence": [1]}), pd.DataFrame({"x": [12]})),
    ):
        assert told(decisions[0]) == ["x 12 > 10"]


# -- what a decision says ----------------------------------------------------------------------------------------------


def test_all_reasons_are_kept_strongest_first_with_value_and_bound(forest):
    rules = [FieldAbove(field="x", bound=5), Outlier(detector=forest), Flag(flag="mine", says="Mine", strength=100)]
    prediction = {
        "confidence": 0.3,
        "is_anomalous": True,
        "irreversible": 1,
        "regulated": "?",
        "high_value_transaction": True,
        "mine": True,
    }
    [decision] = decide(Policy(0.85, rules=rules, **QUIET), [prediction], [{"x": 9, "y": 9.5}])
    found = [(r.rule, r.value, r.bound) for r in decision.reasons]
    score = found[6][1]
    assert found == [
        ("mine", True, None),
        ("irreversible", 1, None),
        ("regulated", "?", None),
        ("high_value_transaction", True, None),
        ("is_anomalous", True, None),
        ("x above 5", 9, 5),
        ("outlier", score, 0.0),
        ("confidence", 0.3, 0.85),
    ]
    assert score < 0
    assert told(decision)[-1] == "Low confidence: 0.3"
    assert told(decision)[5] == "x 9 > 5"
    assert [r.hard for r in decision.reasons] == [True] * 7 + [False]


@pytest.mark.parametrize(
    ("confidence", "flag", "priority", "hard"),
    [
        (0.49, False, "high", False),
        (0.5, False, "medium", False),
        (0.69, False, "medium", False),
        (0.7, False, "low", False),
        (0.99, False, "low", False),
        (0.99, True, "high", True),
        (None, False, "high", True),
        (0.6, True, "high", True),
    ],
)
def test_priority_and_hard(confidence, flag, priority, hard):
    [decision] = decide(Policy(1.0, **QUIET), [{"confidence": confidence, "regulated": flag}])
    assert (decision.priority, decision.hard) == (priority, hard)


def test_the_deadline_counts_from_now():
    decisions = decide(Policy(0.5, deadline=timedelta(hours=4), **QUIET), [{"confidence": 0.1}])
    assert decisions[0].deadline == NOW + timedelta(hours=4)
    assert decide(Policy(0.5, **QUIET), [{"confidence": 0.1}])[0].deadline is None


def test_an_empty_batch_is_decided():
    assert decide(Policy(rules=[FieldAbove(field="x", bound=1)]), []) == []
    assert decide_frame(Policy(), pd.DataFrame({"confidence": []})) == []


@given(st.lists(st.tuples(floats | scalars, scalars, scalars), min_size=1, max_size=6), st.booleans())
@settings(max_examples=150)
def test_one_row_is_decided_as_in_the_batch(rows, audit):
    rules = [
        FieldAbove(field="amount", bound=3),
        Predicate(name="odd", function=lambda b: [v == "x" for v in b["amount"]]),
        Predicate(name="ratio", function=lambda b: b["amount"] / b["amount"] > 3),
        Predicate(name="log", function=lambda b: np.sqrt(b.get("amount", 1)) < 1),
    ]
    policy = Policy(0.6, rules=rules, audit_rate=0.5 if audit else 0, label_thresholds={1: 0.9, "x": 0.8})
    predictions = [{"confidence": c, "regulated": f, "model": f, "label": a} for c, f, a in rows]
    inputs = [{"amount": a} for *_, a in rows]
    alone = both(policy, predictions, inputs)
    whole = policy.decide(Batch.from_rows(inputs, predictions), task_ids=ids(len(rows)), now=NOW)
    assert list(map(repr, whole)) == list(map(repr, alone))


# -- audits ------------------------------------------------------------------------------------------------------------


def uniform(n, seed=0, first=0):
    return draws(id_pairs(ids(n, first), n), seed)


def test_audit_draws_are_uniform():
    for seed in (0, 1, -7, 2**70):
        found = uniform(100_000, seed)
        assert found.min() >= 0
        assert found.max() < 1
        assert stats.kstest(found, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02


def test_a_draw_is_keyed_by_seed_and_task_id_alone():
    policy = Policy(0.5, audit_rate=0.5, seed=3)
    one = policy.decide(Batch.from_rows([{}] * 50, [{"confidence": 0.9}] * 50), task_ids=ids(50), now=NOW)
    two = policy.decide(
        Batch.from_frames(pd.DataFrame({"x": range(50)}), pd.DataFrame({"confidence": [0.6] * 50})),
        task_ids=id_pairs(ids(50), 50),
        now=NOW + timedelta(1),
    )
    other = replace(policy, seed=4).decide(
        Batch.from_rows([{}] * 50, [{"confidence": 0.9}] * 50), task_ids=ids(50), now=NOW
    )
    assert one.audit_uniform.tolist() == two.audit_uniform.tolist()
    assert one.audit.tolist() == two.audit.tolist() == (one.audit_uniform < 0.5).tolist()
    assert not set(one.audit_uniform) & set(other.audit_uniform)
    alone = [decide_at(policy, task_id).audit_uniform for task_id in ids(50)]
    assert alone == one.audit_uniform.tolist()


def decide_at(policy, task_id):
    return policy.decide(Batch.from_rows([{}], [{"confidence": 0.9}]), task_ids=[task_id], now=NOW)[0]


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.5, 1.0])
def test_the_audit_rate_is_kept(rate):
    n = 100_000
    batch = Batch.from_frames(pd.DataFrame(index=range(n)), pd.DataFrame({"confidence": np.full(n, 0.9)}))
    found = Policy(0.5, audit_rate=rate, second_audit=0.1).decide(batch, task_ids=id_pairs(ids(n), n), now=NOW)
    assert abs(found.audit.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / n)
    assert found.approved.all()
    assert set(found.audit_probability) == set(found.review_probability) == {rate}
    twice = found.reviews_required == 2
    assert not (twice & ~found.audit).any()
    drawn = found.audit.sum()
    assert abs(twice.sum() - 0.1 * drawn) <= 4 * np.sqrt(0.09 * drawn)


def test_the_second_draw_is_independent_of_the_first():
    first, second = uniform(100_000, 0), uniform(100_000, 1 << 63)
    assert abs(stats.spearmanr(first, second).statistic) < 0.015
    assert abs((second[first < 0.02] < 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / (first < 0.02).sum())


def test_an_audit_says_its_probability_and_never_adds_to_a_reason():
    policy = Policy(0.5, audit_rate=1.0)
    audited, asked = decide(policy, [{"confidence": 0.9}, {"confidence": 0.1}])
    assert told(audited) == ["Random audit (p=1)"]
    assert (audited.status, audited.audit, audited.audit_probability, audited.review_probability) == (
        "auto_approved",
        True,
        1.0,
        1.0,
    )
    assert told(asked) == ["Low confidence: 0.1"]
    assert (asked.audit, asked.audit_probability, asked.review_probability, asked.reviews_required) == (
        False,
        0.0,
        1.0,
        1,
    )
    assert not audited.hard


def test_a_blocking_audit_waits_for_its_person():
    [decision] = decide(Policy(0.5, audit_rate=1.0, audit_blocks=True), [{"confidence": 0.9}])
    assert decision.status is Status.PENDING
    assert decision.audit


@pytest.mark.parametrize(
    "wrong", [["a"], ["1" * 40], [5], [None], ids(2), [], np.zeros((2, 2), dtype=np.uint64)], ids=repr
)
def test_each_row_needs_its_task_id(wrong):
    with pytest.raises(BadInput, match="task_ids"):
        Policy().decide(Batch.from_rows([{}], [{"confidence": 1}]), task_ids=wrong, now=NOW)


# -- certificates ------------------------------------------------------------------------------------------------------

VALID = Certificate(
    threshold=0.9, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v7"
)
NONE = replace(VALID, threshold=None, coverage=0.0, reason_if_none="85 more audits needed", id="")
REVOKED = replace(VALID, revoked_at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("certificate", "prediction", "reasons"),
    [
        (VALID, {"model": "v7", "confidence": 0.9}, []),
        (VALID, {"model": "v7", "confidence": 0.89}, ["Low confidence: 0.89"]),
        (VALID, {"model": "v8", "confidence": 0.99}, ["No valid certificate for model v8"]),
        (VALID, {"model": "v8", "confidence": 0.89}, ["No valid certificate for model v8", "Low confidence: 0.89"]),
        (VALID, {"confidence": 0.99}, ["No valid certificate for model None"]),
        (VALID, {"model": 7, "confidence": 0.99}, ["No valid certificate for model 7"]),
        (REVOKED, {"model": "v7", "confidence": 0.99}, ["No valid certificate for model v7"]),
        (NONE, {"model": "v7", "confidence": 0.99}, ["No threshold qualifies: 85 more audits needed"]),
        (NONE, {"model": "v8", "confidence": 0.99}, ["No threshold qualifies: 85 more audits needed"]),
        (replace(VALID, model=None), {"model": "v8", "confidence": 0.95}, []),
        (replace(VALID, model=None), {"confidence": 0.95}, []),
        (replace(REVOKED, model=None), {"model": "v8", "confidence": 0.95}, ["No valid certificate for model v8"]),
    ],
)
def test_a_certificate_holds_for_its_own_model(certificate, prediction, reasons):
    policy = Policy(certificate, **QUIET)
    [decision] = decide(policy, [prediction])
    assert told(decision) == reasons
    assert (decision.status is Status.AUTO_APPROVED) == (not reasons)
    assert not decision.hard
    [framed] = decide_frame(policy, pd.DataFrame([prediction]))
    assert told(framed) == reasons


def test_an_unknown_confidence_beats_a_certificate():
    for certificate in (VALID, NONE, REVOKED):
        [decision] = decide(Policy(certificate, **QUIET), [{"model": "v7"}])
        assert decision.reasons[0].rule == "unknown"
        assert decision.hard


# -- what a policy may hold --------------------------------------------------------------------------------------------

OUT_OF_RANGE = [-0.1, 1.1, float("nan"), float("inf"), "0.5", None, True, Decimal("0.5"), [0.5]]


@pytest.mark.parametrize("what", ["confidence_threshold", "audit_rate", "second_audit"])
@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=repr)
def test_a_share_is_a_number_from_zero_to_one(what, value):
    with pytest.raises(BadInput, match=what):
        Policy(**{what: value})


@pytest.mark.parametrize(
    "options",
    [
        {"label_thresholds": {"a": 1.1}},
        {"label_thresholds": {"a": "0.5"}},
        {"label_thresholds": {("a",): 0.5}},
        {"label_thresholds": {None: 0.5}},
        {"label_thresholds": {float("nan"): 0.5}},
        {"label_thresholds": {float("inf"): 0.5}},
        {"label_thresholds": {np.datetime64("2026-01-01"): 0.5}},
        {"deadline": timedelta(0)},
        {"deadline": -timedelta(1)},
        {"deadline": 60},
        {"on_deadline": "approve"},
        {"consensus": "loudest"},
        {"escalation": ("",)},
        {"escalation": (5,)},
        {"seed": "a"},
        {"seed": 0.5},
        {"seed": True},
        {"rules": ("amount",)},
        {"rules": FieldAbove(field="x", bound=1)},
        {"escalation": "law"},
        {"rules": (Flag,)},
        {"rules": (FieldAbove(field="x", bound=1), FieldAbove(field="x", bound=1.0))},
        {"rules": (Flag(flag="regulated", says="?"),)},
        {"rules": (Predicate(name="confidence", function=len),)},
    ],
    ids=repr,
)
def test_what_a_policy_cannot_hold_is_refused(options):
    with pytest.raises(BadInput):
        Policy(**options)


def test_a_policy_may_hold_many_rules():
    policy = Policy(0.5, rules=[FieldAbove(field="x", bound=i) for i in range(200)], **QUIET)
    decisions = both(policy, *inputs_of([*range(0, 200, 9), None, 60.5]))
    assert [len(d.reasons) for d in decisions] == [*range(0, 200, 9), 200, 61]


def test_findings_are_told_apart_however_many_there_are():
    names = [f"x{i}" for i in range(150)]
    policy = Policy(0.5, rules=[FieldAbove(field=name, bound=0) for name in names], **QUIET)
    inputs = pd.DataFrame(np.vstack([np.eye(150), np.eye(150)]), columns=names)
    batch = Batch.from_frames(inputs, pd.DataFrame({"confidence": np.ones(300)}))
    codes, sets = policy.decide(batch, task_ids=ids(300), now=NOW).combinations()
    assert codes.tolist() == [*range(150), *range(150)]
    assert [[finding.rule for finding in found] for found in sets] == [[f"{name} above 0"] for name in names]


def test_a_policy_does_not_change_with_what_it_was_made_of():
    bounds, rules = {"a": 0.9}, [FieldAbove(field="x", bound=1)]
    policy = Policy(label_thresholds=bounds, rules=rules)
    bounds["a"] = 0.1
    rules.clear()
    assert policy.label_thresholds == {"a": 0.9}
    assert len(policy.rules) == 1


@dataclass(frozen=True)
class Custom:
    """A rule of a user's own."""

    bound: int = 1
    name: str = "custom"
    answer: object = None

    def check(self, batch):
        fired = np.array([v == self.bound for v in batch.get("x", [None] * batch.n)], dtype=bool)
        return [Finding(rule=self.name, says="Custom", fired=fired if self.answer is None else self.answer)]

    def to_dict(self):
        return {"kind": "custom", "name": self.name, "bound": self.bound}


@pytest.mark.parametrize(
    "answer",
    [
        np.array([True]),
        np.array([1, 0]),
        np.array([[True], [False]]),
        [1],
        "yes",
        [True, False],
        pd.Series([True, False]),
        np.ma.masked_array([False, False], mask=[True, False]),
    ],
    ids=repr,
)
def test_a_finding_is_one_boolean_a_row(answer):
    with pytest.raises(BadInput, match="rule custom"):
        decide(Policy(rules=[Custom(answer=answer)]), [{"confidence": 1}] * 2)


# -- stored and read back ----------------------------------------------------------------------------------------------

LIMIT = 5


def small_hours(batch):
    return batch["hour"] < LIMIT


def full(forest):
    rules = [
        FieldAbove(field="amount", bound=1000.5, expertise="credit"),
        Outlier(detector=forest, expertise="fraud"),
        Predicate(name="night", function=small_hours, field="hour", says="Night: {value}"),
        Flag(flag="vip", says="Vip", strength=45),
    ]
    return Policy(
        VALID,
        rules=rules,
        audit_rate=0.3,
        audit_blocks=True,
        second_audit=0.5,
        deadline=timedelta(hours=1, microseconds=1),
        on_deadline="deny",
        escalation=("a", "b"),
        consensus="unanimous",
        seed=11,
        label_thresholds={"x": 0.99, 3: 0.9, True: 0.5, 2.5: 1},
    )


def using(forest):
    return {"outlier": forest, "night": small_hours}


@pytest.mark.parametrize("through", ["json", "toml"])
@pytest.mark.parametrize("threshold", [VALID, NONE, REVOKED, 0.7], ids=["valid", "none", "revoked", "fixed"])
def test_a_policy_read_back_decides_the_same(forest, through, threshold):
    policy = replace(full(forest), confidence_threshold=threshold)
    stored = policy.to_dict()
    again = json.loads(json.dumps(stored)) if through == "json" else tomllib.loads(tomli_w.dumps(stored))
    read = Policy.from_dict(again, using(pickle.loads(pickle.dumps(forest))))
    assert read.fingerprint == policy.fingerprint
    rng = np.random.default_rng(1)
    n = 200
    inputs = pd.DataFrame({"x": rng.normal(size=n) * 2, "y": rng.normal(size=n), "hour": rng.integers(0, 24, n)})
    inputs["amount"] = rng.exponential(700, n)
    predictions = pd.DataFrame(
        {
            "label": rng.choice(["x", "y"], n),
            "model": "v7",
            "confidence": rng.uniform(size=n),
            "vip": rng.random(n) < 0.1,
        }
    )
    assert repr(decide_frame(read, predictions, inputs)) == repr(decide_frame(policy, predictions, inputs))


def test_a_detector_from_a_file_is_the_same_detector(forest):
    assert content_hash(pickle.loads(pickle.dumps(forest))) == content_hash(forest)
    forest.decision_function(pd.DataFrame({"x": [0.0], "y": [0.0]}))
    assert content_hash(pickle.loads(pickle.dumps(forest))) == content_hash(forest)


@pytest.mark.parametrize("missing", ["outlier", "night"])
def test_a_missing_object_is_an_unknown_rule(forest, missing):
    objects = using(forest)
    objects.pop(missing)
    with pytest.raises(UnknownRule, match=missing):
        Policy.from_dict(full(forest).to_dict(), objects)
    with pytest.raises(UnknownRule):
        Policy.from_dict(full(forest).to_dict())


@pytest.mark.parametrize("changed", ["outlier", "night"])
def test_a_changed_object_is_refused(forest, changed, monkeypatch):
    stored = full(forest).to_dict()
    rng = np.random.default_rng(0)
    other = IsolationForest(n_estimators=20, random_state=1).fit(
        pd.DataFrame(rng.normal(size=(300, 2)), columns=["x", "y"])
    )
    replaced = {"outlier": other, "night": lambda batch: batch["hour"] < 7}[changed]
    with pytest.raises(RuleChanged, match=changed):
        Policy.from_dict(stored, using(forest) | {changed: replaced})
    monkeypatch.setitem(globals(), "LIMIT", 6)
    with pytest.raises(RuleChanged, match="night"):
        Policy.from_dict(stored, using(forest))


def within(limit, function=None):
    return lambda batch: batch["x"] < limit


# fmt: off
PAIR = (lambda batch: batch["x"] < 1, lambda batch: batch["x"] < 2)
# fmt: on


def test_functions_that_do_other_things_have_other_hashes():
    def defaults(limit):
        def function(batch, limit=limit):
            return batch["x"] < limit

        return function

    def helped(helper):
        return lambda batch: helper(batch)

    different = [
        small_hours,
        within(1),
        within(2),
        defaults(1),
        defaults(2),
        *PAIR,
        helped(PAIR[0]),
        helped(PAIR[1]),
        np.isnan,
    ]
    assert len({content_hash(function) for function in different}) == len(different)
    assert content_hash(within(1)) == content_hash(within(1))
    assert content_hash(eval("lambda batch: batch['x'] > 1")) != content_hash(eval("lambda batch: batch['x'] > 2"))


def test_a_function_that_cannot_be_told_from_a_changed_one_is_refused():
    lock = (value for value in ())
    with pytest.raises(BadInput, match="cannot be told"):
        _ = Policy(rules=[Predicate(name="odd", function=lambda batch: lock)]).fingerprint


def test_a_rule_of_a_users_own_is_handed_in_by_name():
    policy = Policy(rules=[Custom()])
    assert Policy.from_dict(policy.to_dict(), {"custom": Custom()}).fingerprint == policy.fingerprint
    with pytest.raises(UnknownRule):
        Policy.from_dict(policy.to_dict())
    with pytest.raises(RuleChanged):
        Policy.from_dict(policy.to_dict(), {"custom": Custom(bound=2)})


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"rules": [{"kind": "flag", "surprise": 1}]},
        {"rules": [{"kind": "field_above"}]},
        {"rules": ["x"]},
        {"rules": [{"kind": "field_above", "field": "x", "bound": "much"}]},
        {"confidence_threshold": "0.5"},
        {"confidence_threshold": {"kind": "fixed"}},
        {"audit_rate": 2},
    ],
    ids=repr,
)
def test_a_dict_that_is_no_policy_is_an_error_of_the_tree(change):
    with pytest.raises(BadInput):
        Policy.from_dict(Policy().to_dict() | change)


@pytest.mark.parametrize("rule", [{}, {"kind": "shell", "name": "x"}, {"kind": "outlier"}], ids=repr)
def test_a_kind_that_nobody_knows_is_an_unknown_rule(rule):
    with pytest.raises(UnknownRule):
        Policy.from_dict(Policy().to_dict() | {"rules": [rule]})


def test_the_fingerprint_changes_with_each_field(forest):
    policy = full(forest)
    changes = {
        "confidence_threshold": 0.9,
        "rules": policy.rules[1:],
        "audit_rate": 0.31,
        "audit_blocks": False,
        "second_audit": 0.51,
        "deadline": timedelta(hours=1),
        "on_deadline": "hold",
        "escalation": ("b", "a"),
        "consensus": "majority",
        "seed": 12,
        "label_thresholds": {"x": 0.98},
    }
    assert set(changes) == set(policy.__dataclass_fields__)
    found = [policy.fingerprint] + [replace(policy, **{name: value}).fingerprint for name, value in changes.items()]
    found += [replace(policy, confidence_threshold=certificate).fingerprint for certificate in (NONE, REVOKED)]
    found += [Policy().fingerprint, Policy(0.86).fingerprint]
    assert len(set(found)) == len(found)


def test_equal_policies_have_equal_fingerprints():
    assert (
        Policy(1, rules=[FieldAbove(field="x", bound=1000)]).fingerprint
        == Policy(1.0, rules=(FieldAbove(field="x", bound=1e3),)).fingerprint
    )
    assert (
        Policy(label_thresholds={"a": 0.9, "b": 1}).fingerprint
        == Policy(label_thresholds={"b": 1.0, "a": 0.9}).fingerprint
    )
    assert (
        Policy(label_thresholds={1: 0.9, 2**60: 0.8, "a": 0.7}).fingerprint
        == Policy(label_thresholds={np.str_("a"): 0.7, np.int64(2**60): 0.8, np.float32(1): 0.9}).fingerprint
    )
    assert Policy(label_thresholds={1: 0.9}).fingerprint != Policy(label_thresholds={True: 0.9}).fingerprint


# -- every rule --------------------------------------------------------------------------------------------------------


def mixed():
    inputs = [
        {"x": 1, "y": 2.0, "hour": 3},
        {"x": "1", "hour": 12},
        {"x": None, "y": float("nan"), "hour": 1},
        {"x": 9.0, "y": 9, "hour": 9},
    ]
    predictions = [{"regulated": True}, {"regulated": "yes"}, {}, {"regulated": float("nan"), "confidence": 0.3}]
    return Batch.from_rows(inputs, predictions), Batch.from_frames(pd.DataFrame(inputs), pd.DataFrame(predictions))


def test_every_kind_of_rule_keeps_the_contract(forest):
    rules = [
        *FLAGS,
        FieldAbove(field="x", bound=0.5),
        FieldAbove(field="confidence", bound=0.5),
        Outlier(detector=forest),
        Custom(),
    ]
    rules += [
        Predicate(name="night", function=small_hours, field="hour"),
        Predicate(name="broken", function=lambda batch: 1 / 0),
    ]
    for rule in rules:
        for batch in mixed():
            check_rule(rule, batch)


@pytest.mark.parametrize(
    "rule",
    [
        Predicate(name="mean", function=lambda batch: batch["hour"] > np.mean(batch["hour"])),
        Custom(answer=np.array([True])),
        Custom(answer=np.array([1, 0, 0, 0])),
        Custom(name="unstorable", bound={1, 2}),
    ],
    ids=["looks at the others", "shape", "type", "not storable"],
)
def test_a_rule_that_breaks_the_contract_is_found(rule):
    with pytest.raises(BadInput):
        check_rule(rule, mixed()[0])


def test_inputs_and_predictions_are_as_many():
    with pytest.raises(BadInput, match="2 inputs"):
        Batch.from_rows([{}, {}], [{}])
    with pytest.raises(BadInput, match="2 inputs"):
        Batch.from_frames(pd.DataFrame(index=range(2)), pd.DataFrame(index=range(1)))
    with pytest.raises(BadInput, match="no row has it"):
        Batch.from_rows([{"a": 1}], [{}])["b"]


@pytest.mark.parametrize("uniform", [[0.5], [0.5, 0.5, 0.5], [[0.5, 0.5]], 0.5])
def test_draws_for_other_rows_are_refused_by_name(uniform):
    batch = Batch.from_rows([{}] * 2, [{"confidence": 0.9}] * 2)
    with pytest.raises(BadInput, match=r"uniform .* there are 2 rows; pass a draw for each"):
        Policy(0.5).decide(batch, task_ids=ids(2), now=NOW, uniform=uniform)
