"""Policy meets queue: what callers are told, and what is stored."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from hitl_nb import FieldAbove, Orchestrator, Policy, Predicate, open_queue
from hitl_nb.errors import BadInput, HitlError, KeyConflict, WaitTimeout
from hitl_nb.task import Reason

COLUMNS = ["status", "task_id", "label", "confidence", "reason", "reasons", "priority", "expertise", "deadline"]
COLUMNS += ["audit_probability"]


@pytest.fixture
def queue():
    with open_queue(":memory:") as found:
        yield found


@pytest.fixture
def orchestrator(queue):
    return Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))


def frames(n=3, **columns):
    inputs = pd.DataFrame({"amount": np.arange(n, dtype=float), **columns})
    return inputs, pd.DataFrame({"label": ["ok"] * n, "confidence": np.linspace(0.5, 0.9, n)})


# -- the seed ----------------------------------------------------------------------------------------------------------


def test_the_calls_of_the_seed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    orchestrator = Orchestrator(confidence_threshold=0.85)
    with orchestrator.queue:
        ai_result = {"label": "refund", "confidence": 0.93}
        found = orchestrator.process({"text": "hello"}, ai_result)
        assert {key: found[key] for key in ("status", "prediction", "confidence")} == {
            "status": "auto_approved",
            "prediction": ai_result,
            "confidence": 0.93,
        }
        found = orchestrator.process({"text": "hello"}, {"label": "refund", "confidence": 0.62})
        assert set(found) == {"status", "task_id", "estimated_wait_minutes", "reason", "reasons"}
        assert found["status"] == "pending_review"
        assert found["reason"] == "Low confidence: 0.62"
        assert orchestrator.queue.get(found["task_id"]).reason == "Low confidence: 0.62"


@pytest.mark.parametrize(
    ("ai_result", "reason"),
    [
        ({"is_anomalous": True}, "Anomalous input detected"),
        ({"high_value_transaction": True}, "High-value transaction requires approval"),
        ({"irreversible": True}, "Irreversible action requires approval"),
        ({"regulated": True}, "Regulated decision requires approval"),
        ({"confidence": 0.62}, "Low confidence: 0.62"),
        ({"confidence": 0.62, "is_anomalous": True}, "Anomalous input detected"),
        ({"confidence": "0.99"}, "Unknown confidence: 0.99"),
        ({"confidence": None}, "Unknown confidence"),
    ],
)
def test_the_reasons_of_the_seed(orchestrator, ai_result, reason):
    found = orchestrator.process({}, {"confidence": 0.99} | ai_result)
    assert (found["status"], found["reason"]) == ("pending_review", reason)
    task = orchestrator.queue.get(found["task_id"])
    assert task.reason == reason
    assert [one.as_dict() for one in task.reasons] == found["reasons"]


@pytest.mark.parametrize("whole", [False, True], ids=["one", "frame"])
def test_the_history_knows_hard_reasons_and_probabilities(orchestrator, whole):
    results = [{"confidence": 0.9}, {"confidence": 0.2}, {"confidence": 0.2, "regulated": True}, {"confidence": None}]
    if whole:
        results = [one | {"regulated": one.get("regulated", False)} for one in results]
        orchestrator.process_frame(pd.DataFrame(index=range(4)), results)
    else:
        for result in results:
            orchestrator.process({}, result)
    history = orchestrator.queue.history()
    assert history["hard"].tolist() == [False, False, True, True]
    assert history["review_probability"].tolist() == [0, 1, 1, 1]
    assert history["audit_probability"].tolist() == [0, 0, 0, 0]
    assert history["priority"].astype(str).tolist() == ["low", "high", "high", "high"]
    assert set(history["policy"]) == {orchestrator.policy.fingerprint}


def test_a_missing_confidence_is_told(orchestrator):
    assert orchestrator.process({}, {"label": "x"})["reason"] == "Unknown confidence"


def test_without_a_queue_a_file_is_opened_and_that_is_said_once(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    first, second = Orchestrator(), Orchestrator(0.9)
    assert first.queue is second.queue
    first.process({}, {})
    first.queue.close()
    assert (tmp_path / "reviews.duckdb").is_file()
    said = capsys.readouterr().out
    assert said.count("reviews.duckdb") == 1
    assert "open_queue(path)" in said


@pytest.mark.parametrize(
    "options",
    [
        {"confidence_threshold": 0.5, "policy": Policy()},
        {"confidence_threshold": "0.5"},
        {"confidence_threshold": 1.5},
        {"confidence_threshold": True},
        {"policy": {"confidence_threshold": 0.5}},
        {"queue": "reviews.duckdb"},
    ],
    ids=repr,
)
def test_what_makes_no_orchestrator_is_refused(options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput):
        Orchestrator(**options)
    assert list(tmp_path.iterdir()) == []


# -- audits ------------------------------------------------------------------------------------------------------------


def test_an_audit_is_invisible_to_the_caller_and_stands_in_the_queue(queue):
    orchestrator = Orchestrator(
        queue=queue, policy=Policy(0.85, audit_rate=1.0, second_audit=1.0, deadline=timedelta(hours=1))
    )
    found = orchestrator.process({}, {"label": "x", "confidence": 0.93})
    assert (found["status"], found["prediction"]) == ("auto_approved", {"label": "x", "confidence": 0.93})
    assert "reason" not in found
    [task] = queue.pending()
    assert (task.task_id, task.reason, task.audit, task.status) == (
        found["task_id"],
        "Random audit (p=1)",
        True,
        "pending_review",
    )
    assert task.deadline is not None
    assert queue.stats().audits == 1


def test_the_audit_of_two_percent_says_so(queue):
    orchestrator = Orchestrator(queue=queue)
    inputs, predictions = pd.DataFrame({"x": range(1000)}), pd.DataFrame({"confidence": np.full(1000, 0.9)})
    found = orchestrator.process_frame(inputs, predictions)
    assert set(found["status"]) == {"auto_approved"}
    assert set(found["audit_probability"]) == {0.02}
    assert found["reason"].isna().all()
    tasks = queue.pending(limit=1000)
    assert {task.reason for task in tasks} == {"Random audit (p=0.02)"}
    assert 2 <= len(tasks) <= 60


@pytest.mark.parametrize("whole", [False, True], ids=["one", "frame"])
def test_a_blocking_audit_makes_its_caller_wait(queue, whole):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=1.0, audit_blocks=True))
    if whole:
        [found] = orchestrator.process_frame(*frames(1)).to_dict("records")
        inputs, predictions = frames(1)
        predictions["confidence"] = 0.93
        [found] = orchestrator.process_frame(inputs, predictions).to_dict("records")
    else:
        found = orchestrator.process({}, {"confidence": 0.93})
    assert (found["status"], found["reason"]) == ("pending_review", "Random audit (p=1)")
    assert queue.get(found["task_id"]).audit


# -- wait --------------------------------------------------------------------------------------------------------------


def test_the_estimated_wait_is_none_until_three_answers_tell_the_rate():
    now = [datetime(2026, 1, 1)]
    with open_queue(":memory:", clock=lambda: now[0]) as queue:
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
        for _ in range(3):
            found = orchestrator.process({}, {"confidence": 0.1})
            assert found["estimated_wait_minutes"] is None
            now[0] += timedelta(minutes=1)
            queue.resolve(found["task_id"], "ann", "approve")
        waits = [orchestrator.process({}, {"confidence": 0.1})["estimated_wait_minutes"] for _ in range(3)]
        assert waits == pytest.approx([1.0, 2.0, 3.0])  # one answer a minute, and those before it


def test_a_waiting_coroutine_times_out_and_is_answered(orchestrator):
    task_id = orchestrator.process({}, {"confidence": 0.1})["task_id"]

    async def run():
        with pytest.raises(WaitTimeout):
            await asyncio.wait_for(orchestrator.wait_async(task_id, timeout=0.05), 20)
        answer = asyncio.create_task(orchestrator.wait_async(task_id, timeout=20))
        await asyncio.sleep(0.05)
        threading.Thread(target=orchestrator.queue.resolve, args=(task_id, "ann", "approve")).start()
        return await answer

    assert asyncio.run(run()).reviewer == "ann"


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.3, 0.95])
@pytest.mark.parametrize("audit_rate", [0.0, 1.0])
def test_the_same_key_is_decided_once(queue, confidence, audit_rate):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=audit_rate))
    first = orchestrator.process({"x": 1}, {"confidence": confidence}, key="order 7")
    stricter = Orchestrator(queue=queue, policy=Policy(1.0, audit_rate=0))
    assert stricter.process({"x": 1}, {"confidence": confidence}, key="order 7") == first
    inputs = pd.DataFrame({"x": [1]}, index=["row"])
    assert queue.stats().total == 1
    again = stricter.process_frame(
        inputs.assign(id="order 7"), pd.DataFrame({"confidence": [confidence]}, index=["row"]), key=None
    )
    assert again.loc["row", "task_id"] != first["task_id"]


def test_the_same_key_again_in_a_frame(queue):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
    inputs, predictions = frames(4, id=["a", "b", "c", "d"])
    first = orchestrator.process_frame(inputs.iloc[:2], predictions.iloc[:2], key="id")
    second = Orchestrator(queue=queue, policy=Policy(0.1, audit_rate=0)).process_frame(inputs, predictions, key="id")
    told = ["status", "task_id", "reason", "priority"]
    assert second.iloc[:2][told].astype(object).equals(first[told].astype(object))
    assert second["status"].tolist() == ["pending_review"] * 2 + ["auto_approved"] * 2
    assert queue.stats().total == 4
    one = orchestrator.process(inputs.iloc[3].to_dict(), predictions.iloc[3].to_dict(), key="d")
    assert one["task_id"] == second.loc[3, "task_id"]
    assert one["status"] == "auto_approved"


def test_keys_that_fall_on_one_number_stay_apart(orchestrator, queue, monkeypatch):
    monkeypatch.setattr("hitl_nb.orchestrator.frame.key_hash", lambda key: 7)
    inputs, predictions = frames(4)
    first = orchestrator.process_frame(inputs[:2], predictions[:2], key=["a", "b"])
    again = orchestrator.process_frame(inputs, predictions, key=["a", "b", "c", "d"])
    assert again["task_id"][:2].tolist() == first["task_id"].tolist()
    assert queue.stats().total == again["task_id"].nunique() == 4
    with pytest.raises(KeyConflict) as conflict:
        orchestrator.process_frame(inputs, predictions, key=["e", "f", "c", "a"])
    assert conflict.value.key == "a"
    assert queue.stats().total == 4


def test_a_key_with_other_content_is_refused(orchestrator):
    orchestrator.process({"x": 1}, {"confidence": 0.1}, key="k")
    for inputs, prediction in (({"x": 2}, {"confidence": 0.1}), ({"x": 1}, {"confidence": 0.2})):
        with pytest.raises(KeyConflict):
            orchestrator.process(inputs, prediction, key="k")
        with pytest.raises(KeyConflict):
            orchestrator.process_frame(pd.DataFrame([inputs | {"id": "k"}]), [prediction], key="id")
    assert orchestrator.queue.stats().total == 1


# -- frames ------------------------------------------------------------------------------------------------------------


def test_a_frame_of_decisions_has_the_index_and_the_columns(orchestrator):
    inputs, predictions = frames(5)
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1), ("b", 1), ("c", 9)], names=["site", "row"])
    found = orchestrator.process_frame(inputs.set_axis(index), predictions.set_axis(index))
    assert list(found.columns) == COLUMNS
    assert found.index.equals(index)
    assert found["status"].tolist() == ["pending_review"] * 4 + ["auto_approved"]
    assert found["reason"].tolist()[:4] == [
        "Low confidence: 0.5",
        "Low confidence: 0.6",
        "Low confidence: 0.7",
        "Low confidence: 0.8",
    ]
    assert found["reason"].isna().tolist() == [False] * 4 + [True]
    assert found["priority"].tolist() == ["medium", "medium", "low", "low", "low"]
    assert found["reasons"].iloc[0] == (
        Reason(rule="confidence", says="Low confidence: {value}", value=0.5, bound=0.85, field="confidence"),
    )
    assert found["reasons"].iloc[4] == ()
    assert found["confidence"].tolist() == predictions["confidence"].tolist()
    assert found["label"].tolist() == ["ok"] * 5
    assert found["deadline"].isna().all()
    assert found["task_id"].is_unique
    assert [task.task_id for task in orchestrator.queue.pending()] == found["task_id"].tolist()[:4]


def test_a_frame_tells_what_its_rows_would_be_told(queue):
    rules = [
        FieldAbove(field="amount", bound=1000, expertise="credit"),
        Predicate(name="odd", function=lambda b: b["amount"] < 0),
    ]
    policy = Policy(0.85, rules=rules, audit_rate=0, deadline=timedelta(hours=2))
    orchestrator = Orchestrator(queue=queue, policy=policy)
    inputs = pd.DataFrame({"amount": [5, 12_000, -3, 1001]})
    predictions = pd.DataFrame({"label": list("abcd"), "confidence": [0.9, 0.3, 0.9, 0.99]})
    found = orchestrator.process_frame(inputs, predictions)
    for i, row in enumerate(found.itertuples()):
        told = orchestrator.process(inputs.to_dict("records")[i], predictions.to_dict("records")[i])
        assert row.status == told["status"]
        if row.status == "pending_review":
            task = queue.get(row.task_id)
            assert row.reason == told["reason"] == task.reason
            assert [reason.as_dict() for reason in row.reasons] == told["reasons"]
            assert row.reasons == task.reasons
            assert row.deadline == task.deadline
            assert row.deadline.tzinfo is not None
            assert row.priority == task.priority
            assert task.expertise == (None if pd.isna(row.expertise) else row.expertise)
    assert found["expertise"].isna().tolist() == [True, False, True, False]
    assert found["deadline"].isna().tolist() == [True, False, False, False]


def test_predictions_may_be_a_list_of_dicts(orchestrator):
    inputs = pd.DataFrame({"x": [1, 2]}, index=["a", "b"])
    found = orchestrator.process_frame(
        inputs, [{"label": "p", "confidence": 0.9}, {"label": "q", "confidence": 0.2}], progress=True
    )
    assert found["label"].to_dict() == {"a": "p", "b": "q"}


def test_an_empty_frame_is_decided(orchestrator):
    found = orchestrator.process_frame(pd.DataFrame({"x": []}), pd.DataFrame({"confidence": []}))
    assert list(found.columns) == COLUMNS
    assert len(found) == orchestrator.queue.stats().total == 0


def test_a_slice_of_a_frame_keeps_its_rows(orchestrator):
    inputs, predictions = frames(10)
    found = orchestrator.process_frame(inputs[3:8:2], predictions[3:8:2])
    assert found.index.tolist() == [3, 5, 7]
    tasks = [orchestrator.queue.get(task_id) for task_id in found["task_id"]]
    assert [task.input_data["amount"] for task in tasks] == [3.0, 5.0, 7.0]


def test_the_inputs_are_left_as_they_were(orchestrator):
    inputs, predictions = frames(3, id=["a", "b", "c"])
    copies = inputs.copy(), predictions.copy()
    orchestrator.process_frame(inputs, predictions, key="id", subject="id")
    assert inputs.equals(copies[0])
    assert predictions.equals(copies[1])


# -- bad input ---------------------------------------------------------------------------------------------------------

GOOD = {"input_data": {"x": 1}, "ai_result": {"confidence": 0.9}}


@pytest.mark.parametrize(
    "change",
    [
        {"input_data": None},
        {"input_data": [1]},
        {"input_data": "text"},
        {"input_data": {1: 2}},
        {"input_data": {"a": {1, 2}}},
        {"input_data": {"a\0": 1}},
        {"input_data": {"a": "\ud83d"}},
        {"input_data": {"a": object()}},
        {"input_data": {"a": "x" * 10_000_000}},
        {"ai_result": None},
        {"ai_result": 0.9},
        {"ai_result": {"confidence": 10**400}},
        {"ai_result": {"model": "m\0"}},
        {"ai_result": {"model": "m" * 201}},
        {"key": ""},
        {"key": 7},
        {"key": "k" * 201},
        {"key": "k\0"},
        {"subject": 7},
        {"subject": "  "},
        {"group": 1.5},
        {"group": "\ud83d"},
        {"value": "much"},
        {"value": True},
        {"value": float("nan")},
        {"value": float("inf")},
    ],
    ids=lambda change: repr(change)[:40],  # without the address of an object
)
def test_a_bad_input_is_refused_and_nothing_is_written(orchestrator, change):
    orchestrator.process({}, {})
    last = orchestrator.queue.events(limit=100)[-1]["seq"]
    with pytest.raises(BadInput) as caught:
        orchestrator.process(**GOOD | change)
    assert len(str(caught.value)) < 1000
    assert orchestrator.queue.stats().total == 1
    assert orchestrator.queue.events(limit=100)[-1]["seq"] == last
    assert orchestrator.process(**GOOD)["status"] == "auto_approved"


def bad_frames():
    inputs, predictions = frames(3)
    double = pd.DataFrame([[1, 2]] * 3, columns=["a", "a"])
    yield "inputs are a list", [{"a": 1}], predictions[:1], {}
    yield "inputs are a series", inputs["amount"], predictions, {}
    yield "predictions are a text", inputs, "abc", {}
    yield "predictions are None", inputs, None, {}
    yield "predictions are numbers", inputs, [0.1, 0.2, 0.3], {}
    yield "predictions hold a None", inputs, [{"confidence": 1}, None, {"confidence": 1}], {}
    yield "predictions are an array", inputs, np.zeros((3, 2)), {}
    yield "too few predictions", inputs, predictions[:2], {}
    yield "too many dicts", inputs, [{"confidence": 1}] * 4, {}
    yield "another index", inputs, predictions.set_axis([5, 6, 7]), {}
    yield "another order", inputs, predictions[::-1], {}
    yield "a column twice", double, predictions, {}
    yield "a prediction twice", inputs, double, {}
    yield "integer columns", pd.DataFrame([[1, 2]] * 3), predictions, {}
    yield "integer keys in dicts", inputs, [{1: 2}] * 3, {}
    yield "column levels", pd.DataFrame([[1]] * 3, columns=pd.MultiIndex.from_tuples([("a", "b")])), predictions, {}
    for role in ("key", "subject", "group", "value"):
        yield f"no column for {role}", inputs, predictions, {role: "nowhere"}
    yield "value is text", inputs.assign(v=["a"] * 3), predictions, {"value": "v"}
    yield "value is bool", inputs.assign(v=[True] * 3), predictions, {"value": "v"}
    yield "value is infinite", inputs.assign(v=float("inf")), predictions, {"value": "v"}
    yield "keys twice", inputs.assign(k=["a", "b", "a"]), predictions, {"key": "k"}
    yield "empty key", inputs.assign(k=["a", "", "b"]), predictions, {"key": "k"}
    yield "missing key", inputs.assign(k=["a", None, "b"]), predictions, {"key": "k"}
    yield "long subject", inputs.assign(k=["a", "s" * 201, "b"]), predictions, {"subject": "k"}
    yield "subject is a number", inputs.assign(k=[1, 2, 3]), predictions, {"subject": "k"}
    yield "group with NUL", inputs.assign(k=["a", "b\0", "c"]), predictions, {"group": "k"}
    yield "NUL in a text", inputs.assign(k=["a", "b\0", "c"]), predictions, {}
    yield "surrogate in a text", inputs.assign(k=pd.Series(["a", "\ud83d", "c"], dtype=object)), predictions, {}
    yield "surrogate in a name", inputs.set_axis(pd.Index(["\ud83d"], dtype=object), axis=1), predictions, {}
    yield "NUL in a name", inputs.rename(columns={"amount": "a\0"}), predictions, {}
    yield "an object", inputs.assign(k=[object()] * 3), predictions, {}
    yield "a set", inputs.assign(k=[{1}] * 3), predictions, {}
    yield "timedelta", inputs.assign(k=pd.to_timedelta([1, 2, 3])), predictions, {}
    yield "ten megabytes", inputs.assign(k=["", "x" * 10_000_000, ""]), predictions, {}
    yield "ten megabytes of escapes", inputs.assign(k=["", '"' * 5_000_000, ""]), predictions, {}
    yield (
        "forty megabytes in all",
        inputs.assign(**{f"k{i}": "x" * 7_000_000 for i in range(6)})[:1],
        predictions[:1],
        {},
    )
    yield "a long model", inputs, predictions.assign(model=["m", "m" * 201, "m"]), {}


BAD = list(bad_frames())


@pytest.mark.parametrize(("inputs", "predictions", "roles"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_frame_is_refused_and_nothing_is_written(orchestrator, inputs, predictions, roles):
    orchestrator.process({}, {})
    last = orchestrator.queue.events(limit=100)[-1]["seq"]
    with pytest.raises(BadInput) as caught:
        orchestrator.process_frame(inputs, predictions, **roles)
    assert len(str(caught.value)) < 1000
    assert orchestrator.queue.stats().total == 1
    assert orchestrator.queue.events(limit=100)[-1]["seq"] == last
    assert len(orchestrator.process_frame(*frames(2))) == 2
    assert orchestrator.queue.verify() == []


HOSTILE = [
    "'; DROP TABLE task; --",
    '"; DELETE FROM event',
    "$1",
    ":name",
    "{value}",
    "%s",
    "<script>alert(1)</script>",
    "../../etc",
    "\\u0000",
    "\x1b[31m",
    "NULL",
    "é\u202e😀",
    "\n\r\t",
    "$w0",
    "{}".format("{0.__class__}"),
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("whole", [False, True], ids=["one", "frame"])
def test_hostile_text_survives_as_text(orchestrator, text, whole):
    name = text if text.strip() else f"x{text}"
    inputs, result = {text: text, "who": name}, {"label": text, "confidence": text, "model": name, text: text}
    if whole:
        roles = dict.fromkeys(("key", "subject", "group"), "who")
        found = orchestrator.process_frame(pd.DataFrame([inputs]), pd.DataFrame([result]), **roles)
        task_id = found.loc[0, "task_id"]
    else:
        task_id = orchestrator.process(inputs, result, key=name, subject=name, group=name)["task_id"]
    task = orchestrator.queue.get(task_id)
    assert task.input_data == inputs
    assert task.ai_prediction == result
    assert task.model == name
    assert task.reason == f"Unknown confidence: {text}"
    assert text in orchestrator.queue.explain(task_id) or ascii(text) != repr(text)
    assert orchestrator.queue.history()["group"].tolist() == [name]
    assert orchestrator.queue.verify() == []
    assert orchestrator.queue.forget(name)


def test_every_error_is_one_of_the_tree(orchestrator):
    for call in (
        lambda: orchestrator.wait("no such task"),
        lambda: orchestrator.process(5, 5),
        lambda: orchestrator.process_frame(5, 5),
    ):
        with pytest.raises(HitlError):
            call()


def test_times_are_utc(orchestrator):
    task = orchestrator.queue.get(orchestrator.process({}, {})["task_id"])
    assert abs(task.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_roles_may_be_values_that_are_no_input(orchestrator):
    frame, answers = pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"confidence": [0.1, 0.2]})
    first = orchestrator.process_frame(frame, answers, key=["a", "b"], group=["g", None])
    again = orchestrator.process_frame(frame, answers, key=["a", "b"])
    assert again["task_id"].tolist() == first["task_id"].tolist()
    assert orchestrator.queue.get(first["task_id"][0]).input_data == {"x": 1}
    with pytest.raises(BadInput, match="one for each of the 2 rows"):
        orchestrator.process_frame(frame, answers, key=["c"])
