"""One by one or a frame at once: the same bytes are stored."""

import dataclasses
import itertools
import json

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from strategies import floats, frames, odd_texts, scalars, texts

import hitl_nb.queue.frame
import hitl_nb.queue.row
from hitl_nb import FieldAbove, Orchestrator, Outlier, Policy, Predicate, open_queue
from hitl_nb.errors import HitlError
from hitl_nb.payload import canonical
from hitl_nb.queue.frame import frame_texts
from hitl_nb.queue.row import COLUMNS

#: what differs between two runs: ids, times and draws
OWN = {"task_id", "created_at", "audit_uniform", "seq"}
CHUNKS = st.sampled_from([1, 2, 3, hitl_nb.queue.frame.CHUNK])


def stored(queue, since=0):
    """Return payloads, first events and task lines since a place in the log, in the order in which they came."""

    def work(tx):
        found = []
        for event in tx.events("events_since", since=since, limit=100, move=None):
            if event.move == "submit":
                columns = {c: repr(getattr(tx.task(event.task_id), c)) for c in COLUMNS if c not in OWN}
                payload = sorted(row[1:] for row in tx.rows("get_payloads", task_ids=[event.task_id]))
                facts = (event.actor, event.attempt, repr(event.confidence), repr(event.value), event.body)
                found.append({"payload": payload, "event": facts, "task": columns})
        return found

    return queue.store.read(work)


@pytest.fixture(scope="module")
def queues():
    with open_queue(":memory:") as one, open_queue(":memory:") as two:
        yield one, two


@pytest.fixture(scope="module")
def agree(queues):
    """Check that both ways store the same, or refuse for the same cause and store nothing."""

    def check(policy, inputs, predictions, roles=None):
        found = [outcome(*way, policy, inputs, predictions, roles or {}) for way in zip(WAYS, queues, strict=True)]
        (one, refusal), (two, refused) = found
        assert refusal is refused
        assert refused is None or two == []
        if refused is None:
            assert len(one) == len(two) == len(inputs)
            for a, b in zip(one, two, strict=True):
                assert a["payload"] == b["payload"]
                assert a["event"] == b["event"]
                assert a["task"] == b["task"]

    return check


def outcome(way, queue, policy, inputs, predictions, roles):
    """Return what one way stored, and the kind of error that it raised."""
    before = queue.store.read(lambda tx: tx.rows("last_seq"))[0][0]
    refusal = None
    try:
        way(Orchestrator(queue=queue, policy=policy), inputs, predictions, roles)
    except HitlError as error:
        refusal = type(error)
    return stored(queue, before), refusal


def one_by_one(orchestrator, inputs, predictions, roles):
    rows = [frame.to_dict("records") if len(frame.columns) else [{}] * len(frame) for frame in (inputs, predictions)]
    for given_input, prediction in zip(*rows, strict=True):
        values = {what: given_input[column] for what, column in roles.items()}
        orchestrator.process(given_input, prediction, **values)


def at_once(orchestrator, inputs, predictions, roles):
    orchestrator.process_frame(inputs, predictions, **roles)


WAYS = (one_by_one, at_once)

predictions_of = st.sampled_from(
    ["label", "confidence", "model", "is_anomalous", "regulated", "irreversible", "probabilities", "$model", 'say "x"']
)
slow = settings(max_examples=15, suppress_health_check=list(HealthCheck))
many = settings(max_examples=250, suppress_health_check=list(HealthCheck))


@slow
@given(st.integers(1, 4).flatmap(lambda n: st.tuples(frames(n), frames(n, predictions_of))), CHUNKS)
def test_any_frame_is_stored_as_its_rows_are(agree, sides, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hitl_nb.queue.frame, "CHUNK", chunk)
        agree(Policy(0.5, audit_rate=0), *sides)


@pytest.fixture(scope="module")
def writer():
    with duckdb.connect() as connection:
        yield connection


def same_texts(writer, frame):
    """Check the texts alone, without a queue."""
    rows = frame.to_dict("records") if len(frame.columns) else [{}] * len(frame)
    try:
        expected = [canonical(row, "input") for row in rows]
    except HitlError as error:
        with pytest.raises(type(error)):
            frame_texts(writer, "input", frame)
    else:
        assert frame_texts(writer, "input", frame).to_pylist() == expected


@many
@given(st.integers(1, 4).flatmap(frames))
def test_any_frame_has_the_texts_of_its_rows(writer, frame):
    same_texts(writer, frame)


@many
@given(st.lists(floats, min_size=1, max_size=30), st.sampled_from(["float64", "Float64", "object"]))
def test_floats_have_the_same_bytes(writer, values, dtype):
    same_texts(writer, pd.DataFrame({"x": pd.Series(values, dtype=dtype)}))


@many
@given(st.lists(texts | odd_texts, min_size=1, max_size=10), st.sampled_from(["str", "object", "string", "category"]))
@example(["".join(map(chr, range(1, 256)))], "str")
@example([chr(i) for i in range(1, 256)], "str")
@example(["\ufffe\uffff\U0010ffff\u2028\u2029\x7f\x85"], "object")
def test_texts_have_the_same_bytes(writer, values, dtype):
    same_texts(writer, pd.DataFrame({"x": pd.Series(values, dtype=dtype), '"': values}))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_the_ends_of_every_integer_have_the_same_bytes(agree, dtype):
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
@pytest.mark.parametrize("names", [["x", "label", "regulated"], ["confidence"], ["model"]], ids=" ".join)
def test_every_kind_of_column_has_the_same_bytes_or_the_same_refusal(agree, names, column):
    inputs, predictions = pd.DataFrame({"a": [1, 2, 3]}), pd.DataFrame({"confidence": [0.9, 0.8, 0.1]})
    for name in names:
        (inputs if name == "x" else predictions)[name] = column
    agree(Policy(0.5, audit_rate=0, label_thresholds={"a": 0.95, 1: 0.95}), inputs, predictions)


def test_columns_in_any_order_and_none_at_all(agree):
    empty = pd.DataFrame(index=range(2))
    agree(Policy(0.5, audit_rate=0), empty, empty)
    agree(Policy(0.5, audit_rate=0), pd.DataFrame({"b": [1], "a": [2], "$": [3], "é": [4], "A": [5]}), empty.iloc[:1])


def test_a_thousand_columns(agree):
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


examples = itertools.count()


def unique_names(data, n):
    """Return keys that no other example has."""
    words = st.text('ab"\\\x01é', max_size=5)
    return [f"{next(examples)}{word}" for word in data.draw(st.lists(words, min_size=n, max_size=n))]


numbers = st.floats(-6, 6) | st.sampled_from([float("nan"), float("inf"), 1e39])


@slow
@given(st.data(), st.integers(1, 5), CHUNKS)
def test_rules_scores_and_roles_are_stored_the_same(agree, policy, data, n, chunk):
    def column(elements):
        return data.draw(st.lists(elements, min_size=n, max_size=n))

    inputs = pd.DataFrame({"x": column(numbers), "y": column(numbers), "amount": column(numbers | st.none())})
    inputs["who"] = pd.Series(column(st.sampled_from(["a", "b", 'c"', "é", "\x01"])), dtype="object")
    inputs["cost"] = column(st.floats(-1e9, 1e9))
    inputs["id"] = unique_names(data, n)
    predictions = pd.DataFrame({"confidence": column(floats), "label": column(st.sampled_from(["x", "y"]))})
    predictions["model"] = pd.Series(column(st.sampled_from(["v7", "v8", None, 7, "", "é"])), dtype="object")
    predictions["regulated"] = pd.Series(column(scalars), dtype="object")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hitl_nb.queue.frame, "CHUNK", chunk)
        agree(policy, inputs, predictions, {"key": "id", "subject": "who", "group": "who", "value": "cost"})


@pytest.mark.parametrize("options", [{}, {"audit_blocks": True}, {"second_audit": 1.0}], ids=repr)
def test_audits_are_stored_the_same(agree, options):
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
    assert (1, "input", '{"x":-0.0}') in found["payload"]
    assert set(found["task"]) == set(COLUMNS) - OWN
    assert json.loads(found["event"][-1])["set"]["status"] == "auto_approved"
    assert {field.name for field in dataclasses.fields(hitl_nb.queue.row.TaskRow)} > OWN
