"""One by one or a frame at once: the same bytes are stored."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from strategies_policy import floats, frames, odd_texts, scalars, texts

import hitl_nb.queue.frame
import hitl_nb.queue.row
from hitl_nb import FieldAbove, Orchestrator, Outlier, Policy, Predicate, open_queue
from hitl_nb.errors import HitlError
from hitl_nb.queue.row import COLUMNS

#: what differs between two runs: ids, times and draws
OWN = {"task_id", "created_at", "audit_uniform"}
CHUNKS = st.sampled_from([1, 2, 3, hitl_nb.queue.frame.CHUNK])


def stored(queue):
    """Return payloads, first events and task lines, task by task in the order in which they came."""

    def work(tx):
        tasks = tx.tasks("all_tasks")
        found = []
        for row in tasks:
            columns = {c: repr(getattr(row, c)) for c in COLUMNS if c not in OWN}
            payload = sorted(
                (kind, version, text) for version, kind, text in tx.rows("get_payload", task_id=row.task_id)
            )
            first = tx.events("events_of", task_id=row.task_id)[0]
            event = (first.move, first.actor, first.attempt, repr(first.confidence), repr(first.value), first.body)
            found.append({"payload": payload, "event": event, "task": columns})
        return found

    return queue.store.read(work)


def both(policy, inputs, predictions, roles=None):
    """Return what is stored one by one, and at once; an error in place of it."""
    roles = roles or {}
    found = []
    for way in (one_by_one, at_once):
        with open_queue(":memory:") as queue:
            try:
                way(Orchestrator(queue=queue, policy=policy), inputs, predictions, roles)
            except HitlError as error:
                found.append(type(error))
            else:
                found.append(stored(queue))
    return found


def one_by_one(orchestrator, inputs, predictions, roles):
    rows = [frame.to_dict("records") if len(frame.columns) else [{}] * len(frame) for frame in (inputs, predictions)]
    for given_input, prediction in zip(*rows, strict=True):
        values = {what: given_input[column] for what, column in roles.items()}
        orchestrator.process(given_input, prediction, **values)


def at_once(orchestrator, inputs, predictions, roles):
    orchestrator.process_frame(inputs, predictions, **roles)


def agree(policy, inputs, predictions, roles=None):
    one, two = both(policy, inputs, predictions, roles)
    assert type(one) is type(two), (one, two)
    if isinstance(one, type):
        assert one is two
        return
    assert len(one) == len(two) == len(inputs)
    for a, b in zip(one, two, strict=True):
        assert a["payload"] == b["payload"]
        assert a["event"] == b["event"]
        assert a["task"] == b["task"]


predictions_of = st.sampled_from(
    ["label", "confidence", "model", "is_anomalous", "regulated", "irreversible", "probabilities", "$model", 'say "x"']
)
slow = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@slow
@given(st.integers(1, 4).flatmap(lambda n: st.tuples(frames(n), frames(n, predictions_of))), CHUNKS)
def test_any_frame_is_stored_as_its_rows_are(sides, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hitl_nb.queue.frame, "CHUNK", chunk)
        agree(Policy(0.5, audit_rate=0), *sides)


@slow
@given(st.lists(floats, min_size=1, max_size=30), st.sampled_from(["float64", "Float64", "object"]))
def test_floats_have_the_same_bytes(values, dtype):
    inputs = pd.DataFrame({"x": pd.Series(values, dtype=dtype)})
    agree(Policy(0.5, audit_rate=0), inputs, pd.DataFrame({"confidence": pd.Series(values, dtype="float64")}))


@slow
@given(st.lists(texts | odd_texts, min_size=1, max_size=10), st.sampled_from(["str", "object", "string", "category"]))
@example(["".join(map(chr, range(1, 256)))], "str")
@example(["\ufffe\uffff\U0010ffff\u2028\u2029\x7f\x85"], "object")
def test_texts_have_the_same_bytes(values, dtype):
    inputs = pd.DataFrame({"x": pd.Series(values, dtype=dtype)})
    agree(Policy(0.5, audit_rate=0), inputs, pd.DataFrame({"confidence": 0.9, "label": values}))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_the_ends_of_every_integer_have_the_same_bytes(dtype):
    ends = np.iinfo(dtype)
    inputs = pd.DataFrame({"x": pd.Series([ends.min, 0, ends.max], dtype=dtype)})
    agree(Policy(0.5, audit_rate=0), inputs, pd.DataFrame({"confidence": [0.1, 0.5, 0.9]}))


COLUMNS_OF = {
    "float16": pd.Series([0.1, -0.0, np.inf], dtype="float16"),
    "longdouble": pd.Series([0.1, -0.0, np.inf], dtype="longdouble"),
    "bytes": pd.Series([b"", b"\x00", b"ab"]),
    "dates": pd.Series(pd.to_datetime(["1700-01-01", "2026-01-01T00:00:00.000000001", None], format="ISO8601")),
    "arrays": pd.Series([np.arange(2), np.zeros((0, 2)), np.array(1, dtype=">i2")]),
    "nested": pd.Series([{"$float": 1}, [{"a": {"$x": None}}], {"b": float("nan")}]),
    "mixed": pd.Series([1, "1", True], dtype=object),
    "nothing": pd.Series([None, None, None], dtype=object),
    "strings and nothing": pd.Series(["a", None, float("nan")], dtype=object),
    "pyarrow": pd.Series([1, None, 3], dtype="int64[pyarrow]"),
    "pyarrow text": pd.Series(["a", None, '"'], dtype="string[pyarrow]"),
    "sparse": pd.Series([1.0, 0.0, np.nan], dtype="Sparse[float64]"),
    "large Int64": pd.Series([2**63 - 1, None, -(2**63)], dtype="Int64"),
    "UInt64": pd.Series([2**64 - 1, None, 0], dtype="UInt64"),
    "complex": pd.Series([1j, 2, 3]),
    "timedelta": pd.Series(pd.to_timedelta([1, 2, 3])),
    "period": pd.Series(pd.period_range("2026-01", periods=3, freq="M")),
    "interval": pd.Series(pd.interval_range(0, 3)),
    "sets": pd.Series([{1}, {2}, {3}]),
    "NUL": pd.Series(["a", "b\0", "c"]),
    "surrogate": pd.Series(["a", "\ud83d", "c"], dtype=object),
    "model as a dict": pd.Series([{"name": "v7"}, None, "v7"]),
    "huge": pd.Series([10**299, 10**400, 1], dtype=object),
}


@pytest.mark.parametrize("column", COLUMNS_OF.values(), ids=COLUMNS_OF)
@pytest.mark.parametrize("name", ["x", "label", "confidence", "model", "regulated"])
def test_every_kind_of_column_has_the_same_bytes_or_the_same_refusal(name, column):
    inputs, predictions = pd.DataFrame({"a": [1, 2, 3]}), pd.DataFrame({"confidence": [0.9, 0.8, 0.1]})
    (inputs if name == "x" else predictions)[name] = column
    agree(Policy(0.5, audit_rate=0, label_thresholds={"a": 0.95, 1: 0.95}), inputs, predictions)


def test_columns_in_any_order_and_none_at_all():
    empty = pd.DataFrame(index=range(2))
    agree(Policy(0.5, audit_rate=0), empty, empty)
    agree(Policy(0.5, audit_rate=0), pd.DataFrame({"b": [1], "a": [2], "$": [3], "é": [4], "A": [5]}), empty.iloc[:1])


def test_a_thousand_columns():
    rng = np.random.default_rng(0)
    inputs = pd.DataFrame(rng.normal(size=(2, 1000)), columns=[f"f{i}" for i in range(1000)])
    agree(Policy(0.5, audit_rate=0), inputs, pd.DataFrame({"confidence": [0.9, 0.1]}))


@pytest.fixture(scope="module")
def policy():
    rng = np.random.default_rng(0)
    forest = IsolationForest(n_estimators=10, random_state=0).fit(rng.normal(size=(100, 2)))
    rules = [
        Outlier(detector=forest, fields=("x", "y"), expertise="fraud"),
        FieldAbove(field="amount", bound=10),
        Predicate(name="odd", function=lambda b: [v == "a" for v in b["who"]], field="who", says="Odd: {value}"),
    ]
    return Policy(0.5, rules=rules, audit_rate=0, label_thresholds={"x": 0.9, 1: 0.7})


numbers = st.floats(-6, 6) | st.sampled_from([float("nan"), float("inf"), 1e39])


@settings(slow, max_examples=60)
@given(st.data(), st.integers(1, 5), CHUNKS)
def test_rules_scores_and_roles_are_stored_the_same(policy, data, n, chunk):
    def column(elements):
        return data.draw(st.lists(elements, min_size=n, max_size=n))

    inputs = pd.DataFrame({"x": column(numbers), "y": column(numbers), "amount": column(numbers | st.none())})
    inputs["who"] = pd.Series(column(st.sampled_from(["a", "b", 'c"', "é", "\x01"])), dtype="object")
    inputs["cost"] = column(st.floats(-1e9, 1e9))
    inputs["id"] = data.draw(
        st.lists(st.text('ab"\\\x01é', min_size=1, max_size=5), min_size=n, max_size=n, unique=True)
    )
    predictions = pd.DataFrame({"confidence": column(floats), "label": column(st.sampled_from(["x", "y"]))})
    predictions["model"] = pd.Series(column(st.sampled_from(["v7", "v8", None, 7, "", "é"])), dtype="object")
    predictions["regulated"] = pd.Series(column(scalars), dtype="object")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hitl_nb.queue.frame, "CHUNK", chunk)
        agree(policy, inputs, predictions, {"key": "id", "subject": "who", "group": "who", "value": "cost"})


@pytest.mark.parametrize("options", [{}, {"audit_blocks": True}, {"second_audit": 1.0}], ids=repr)
def test_audits_are_stored_the_same(options):
    inputs = pd.DataFrame({"x": range(6)})
    agree(
        Policy(0.5, audit_rate=1.0, **{"second_audit": 0} | options),
        inputs,
        pd.DataFrame({"confidence": np.linspace(0, 1, 6)}),
    )


def test_what_is_stored_is_compared_to_the_bit():
    with open_queue(":memory:") as queue:
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.5, audit_rate=0))
        orchestrator.process({"x": -0.0}, {"confidence": 0.9})
        [found] = stored(queue)
    assert ("input", 1, '{"x":-0.0}') in found["payload"]
    assert set(found["task"]) == set(COLUMNS) - OWN
    assert json.loads(found["event"][-1])["set"]["status"] == "auto_approved"
    assert {field.name for field in dataclasses.fields(hitl_nb.queue.row.TaskRow)} > OWN
