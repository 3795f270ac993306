"""What a queue says of itself in numbers and frames: counts, history, training rows, annotations, exports."""

import csv
import json
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from conftest import START

from hitl_nb import Orchestrator, Policy, Reviewer
from hitl_nb.errors import BadInput, IllegalMove
from hitl_nb.evidence import corrected_risk, held_draw
from hitl_nb.task import OPEN

JUDGE = Reviewer(id="eve", roles=("reviewer", "adjudicator"))
OTHER = {"label": "other"}


def ids(tasks):
    return [task.task_id for task in tasks]


def none_for_na(values):
    return [None if pd.isna(value) else value for value in values]


@pytest.fixture
def audit(queue):
    """Let chance draw some auto-approved tasks, all of them unless told otherwise, and return their ids."""

    def draw(n=1, **policy):
        options = {"audit_rate": 1.0, "second_audit": 1.0} | policy
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.5, **options))
        results = [orchestrator.process({"i": i}, {"label": "spam", "confidence": 0.9}) for i in range(n)]
        return [found["task_id"] for found in results]

    return draw


@pytest.fixture
def evidence(queue):
    """Return audits judged, of these wrong, judged twice, of these split; and what the history says of each task."""

    def found():
        stats, history = queue.stats(), queue.history()
        wrong = history["wrong"]
        assert (int(wrong.notna().sum()), int(wrong.sum())) == (stats.audited, stats.disagreed)
        return (stats.audited, stats.disagreed, stats.judged_twice, stats.differed), none_for_na(wrong)

    return found


# -- audits: their first standing judgement is the evidence


def test_a_dispute_and_its_end_leave_the_evidence_of_an_audit_as_it_was(queue, audit, evidence):
    agreed, disputed = audit(2)
    queue.resolve(agreed, "ann", "approve")
    queue.resolve(agreed, "ben", "approve")
    assert evidence() == ((1, 0, 1, 0), [False, None])
    queue.resolve(disputed, "ann", "correct", OTHER)
    assert evidence() == ((2, 1, 1, 0), [False, True])  # half answered
    queue.resolve(disputed, "ben", "approve")
    assert queue.get(disputed).status == "disputed"
    assert evidence() == ((2, 1, 2, 1), [False, True])
    queue.resolve(disputed, JUDGE, "approve")
    assert queue.stats().outcome == {"approve": 2}
    assert evidence() == ((2, 1, 2, 1), [False, True])


def test_an_objection_leaves_the_evidence_of_an_audit_as_it_was(queue, audit, evidence):
    [task_id] = audit(second_audit=0)
    queue.resolve(task_id, "ann", "correct", OTHER)
    for act in (lambda: queue.object(task_id, "bob", "no"), lambda: queue.resolve(task_id, JUDGE, "approve")):
        act()
        assert evidence() == ((1, 1, 0, 0), [True])  # who settles a dispute is no second independent reviewer
    assert queue.history()["outcome"].tolist() == ["approve"]


def test_an_answer_taken_back_is_no_evidence(queue, audit, evidence):
    [task_id] = audit()
    queue.resolve(task_id, "ann", "reject")
    queue.undo(task_id, "ann")
    assert evidence() == ((0, 0, 0, 0), [None])
    queue.resolve(task_id, "ben", "approve")
    queue.resolve(task_id, "ann", "reject")
    assert evidence() == ((1, 0, 1, 1), [False])
    queue.undo(task_id, "ben")
    assert evidence() == ((1, 1, 0, 0), [True])


@pytest.mark.parametrize("end", ["withdraw", "expire", "forget"])
def test_an_audit_judged_once_stays_evidence_when_no_second_answer_comes(queue, clock, end, evidence):
    policy = Policy(0.5, audit_rate=1.0, second_audit=1.0, deadline=timedelta(hours=1), on_deadline="deny")
    orchestrator = Orchestrator(queue=queue, policy=policy)
    task_id = orchestrator.process({}, {"label": "spam", "confidence": 0.9}, subject="s")["task_id"]
    queue.resolve(task_id, "ann", "reject")
    if end == "withdraw":
        queue.withdraw(task_id)
    elif end == "forget":
        queue.forget("s")
    else:
        clock.forward(hours=2)
        queue.tick()
    assert queue.get(task_id).status in ("withdrawn", "expired")
    assert evidence() == ((1, 1, 0, 0), [True])


def test_two_who_correct_to_different_labels_agree_that_the_model_was_wrong(queue, audit):
    for i, task_id in enumerate(audit(40)):
        for who in ("ann", "ben"):
            said = ("approve",) if i else ("correct", {"label": who})
            queue.resolve(task_id, who, *said)
    stats = queue.stats()
    assert (stats.audited, stats.disagreed, stats.judged_twice, stats.differed) == (40, 1, 40, 0)
    risk = corrected_risk(stats.disagreed, stats.audited, stats.differed, stats.judged_twice)
    assert risk.estimate == pytest.approx(1 / 40)  # no reviewer erred, so nothing is taken off


# -- counts


def test_counts_add_up(queue, ask):
    first, *_ = [ask(priority="high", expertise="law"), ask(), ask(), ask(priority="low")]
    for task, outcome in zip(queue.pending(limit=4)[1:3], ("approve", "reject"), strict=True):
        queue.resolve(task.task_id, "ann", outcome)
    queue.claim("bob")
    stats = queue.stats()
    assert stats.status == {"pending_review": 1, "claimed": 1, "reviewed": 2}
    assert stats.outcome == {"approve": 1, "reject": 1}
    assert stats.open_by_priority == {"high": 1, "low": 1}
    assert stats.open_by_expertise == {"law": 1, None: 1}
    assert (stats.reviewers, stats.total, stats.automatic_share) == ({"ann": 2}, 4, 0)
    assert queue.get(first.task_id).status == "pending_review"


def test_automatic_is_what_the_caller_was_told_at_once(queue, audit, ask):
    audit(3)
    audit(2, audit_rate=0)
    assert (queue.stats().automatic, queue.stats().automatic_share) == (5, 1)
    audit(4, audit_blocks=True)
    ask(audit=True)
    stats = queue.stats()
    assert (stats.automatic, stats.total, stats.automatic_share) == (5, 10, 0.5)
    assert stats.audits == 7  # chance drew those that blocked too, but not the one that a caller chose


def test_a_case_that_a_caller_chose_is_no_random_audit(queue, ask):
    task = ask(audit=True)
    queue.resolve(task.task_id, "ann", "correct", OTHER)
    stats = queue.stats()
    assert (stats.audits, stats.audited, stats.disagreed) == (0, 0, 0)
    assert queue.training_frame()["source"].tolist() == ["human_review"]
    assert queue.history()["wrong"].tolist() == [True]


def test_a_random_audit_is_not_replaced_by_a_chosen_case(queue, audit, ask):
    [task_id] = audit(audit_blocks=True)
    queue.claim("ann")
    before = queue.events(), queue.get(task_id), queue.verify()
    with pytest.raises(IllegalMove, match=r"withdraw\(\) it and submit the other case anew"):
        queue.replace(task_id, {"i": 7}, {"label": "ham", "confidence": 0.9})
    assert (queue.events(), queue.get(task_id), queue.verify()) == before
    queue.replace(ask(audit=True).task_id, {"i": 7}, {"label": "ham"})
    [asked] = audit(1, audit_rate=0, rules=())
    with pytest.raises(IllegalMove, match="only open tasks"):
        queue.replace(asked, {}, {})


# -- history

HISTORY = [
    "task_id", "at_time", "confidence", "prediction", "label", "wrong", "review_probability", "outcome", "reviewer",
    "group", "value", "model", "policy", "status", "priority", "expertise", "deadline", "reasons", "hard",
    "is_anomalous", "high_value_transaction", "irreversible", "regulated", "audit_uniform", "audit_probability",
    "claimed_at", "reviewed_at",
]  # fmt: skip


def test_the_history_has_a_line_for_each_decision(queue, ask, clock):
    approve, correct, reject, waiting = (ask(group="north", value=2) for _ in range(4))
    queue.resolve(approve.task_id, "ann", "approve")
    queue.resolve(correct.task_id, "ann", "correct", {"label": "ham"})
    queue.resolve(reject.task_id, "ann", "reject")
    frame = queue.history()
    assert list(frame.columns) == HISTORY
    assert list(frame["task_id"]) == ids([approve, correct, reject, waiting])
    assert list(frame["prediction"]) == ["spam"] * 4
    assert none_for_na(frame["label"]) == ["spam", "ham", None, None]
    assert none_for_na(frame["wrong"]) == [False, True, True, None]
    assert none_for_na(frame["outcome"]) == ["approve", "correct", "reject", None]
    assert list(frame["reasons"]) == [("submit",)] * 4
    assert set(frame["review_probability"]) == {1.0}
    assert frame["at_time"][0] == frame["reviewed_at"][0] == pd.Timestamp(clock.aware)
    assert str(frame["reviewed_at"].dt.tz) == "UTC"
    assert list(queue.history(inputs=True)["input.text"]) == ["hm"] * 4


ANSWER = ["label", "outcome", "reviewer", "reviewed_at"]


def test_a_disputed_answer_is_unknown_in_the_history(queue, ask, clock):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    assert queue.history()[[*ANSWER, "wrong"]].notna().all(axis=None)
    queue.object(task.task_id, "bob", "no")
    assert queue.history()[[*ANSWER, "wrong"]].isna().all(axis=None)
    clock.forward(hours=1)
    queue.resolve(task.task_id, JUDGE, "reject")
    [line] = queue.history().to_dict("records")
    assert (line["wrong"], line["outcome"], line["reviewer"]) == (True, "reject", "eve")
    assert line["reviewed_at"] == pd.Timestamp(clock.aware)


def test_of_a_disputed_audit_the_history_tells_the_evidence_and_no_answer(queue, audit):
    [task_id] = audit(second_audit=0)
    queue.resolve(task_id, "ann", "reject")
    queue.object(task_id, "bob", "no")
    frame = queue.history()
    assert frame["wrong"].tolist() == [True]
    assert frame[ANSWER].isna().all(axis=None)


STORED = {
    "whole": ([2.0, 3.0, None], "float64"),
    "gap": ([1, None, 2**53 + 1], "Int64"),
    "mixed_numbers": ([1, 2.5, None], "float64"),
    "odd": ([float("inf"), float("nan"), -0.0], "float64"),
    "long": ([2**70, 1, None], "object"),
    "beyond": ([2**63, 1, None], "object"),
    "inexact": ([2**53 + 1, 0.5, None], "object"),
    "truth": ([True, None, False], "boolean"),
    "text": (["2.0", None, ""], "string"),
    "mixed": ([1, "1", True], "object"),
    "nothing": ([None, None, None], "object"),
}


def test_input_fields_come_back_in_the_type_in_which_they_were_stored(queue, ask):
    for i in (0, 1, 2, 0):
        ask(input_data={name: values[i] for name, (values, _) in STORED.items()} | {"nested": [i]}, subject=f"s{i}")
    ask(input_data={"late": 1.0}, subject="s2")
    erased = ask(input_data={"late": "x", "whole": "x"}, subject="gone")
    queue.forget("gone")
    frame = queue.history(inputs=True)
    assert frame[frame["task_id"] == erased.task_id].filter(like="input.").isna().all(axis=None)
    assert "input.nested" not in frame.columns
    for name, (values, kind) in {**STORED, "late": ([None] * 3, "float64")}.items():
        found = frame[f"input.{name}"]
        assert str(found.dtype) == kind, name
        for value, stored in zip(found.tolist(), values, strict=False):
            assert value == stored if stored is not None and stored == stored else pd.isna(value), name
    assert frame["input.late"][4] == 1.0


def test_an_empty_queue_has_empty_frames(queue):
    assert list(queue.history().columns) == HISTORY
    assert queue.history(inputs=True).empty
    assert list(queue.training_frame().columns) == ["task_id", "label", "confidence", "weight", "source", "outcome"]
    assert list(queue.training_frames()[1].columns) == ["task_id", "source", "audit_rate"]
    assert list(queue.annotations().columns) == ["task", "worker", "label"]
    assert queue.stats().automatic_share is None
    assert queue.estimated_wait() is None


def test_training_rows_stand_as_they_stood(queue, clock):
    def ask(**fields):
        return queue.submit(input_data=fields, ai_prediction={"label": "spam"}, confidence=0.49, reason="r")

    first, second = ask(a=1, b="x", skip=[1]), ask(a=2)
    queue.resolve(first.task_id, "ann", "approve")
    then = clock.aware
    clock.forward(hours=1)
    queue.undo(first.task_id, "ann")
    queue.resolve(first.task_id, "ann", "correct", {"label": "ham"})
    queue.resolve(second.task_id, "ann", "reject")
    frame = queue.training_frame(as_of=then)
    assert list(frame.columns) == ["task_id", "a", "b", "label", "confidence", "weight", "source", "outcome"]
    assert frame.to_dict("records") == [
        {"task_id": first.task_id, "a": 1, "b": "x", "label": "spam", "confidence": 0.49, "weight": 2.0,
         "source": "human_review", "outcome": "approve"}
    ]  # fmt: skip
    now = queue.training_frame()
    assert now["label"][0] == "ham"
    assert list(now["outcome"]) == ["correct", "reject"]
    with pytest.raises(BadInput):
        queue.training_frame(as_of=datetime(2026, 1, 1))


def test_training_rows_name_the_audit_rate_of_the_policy_that_decided_about_them(queue, ask):
    for rate in (1.0, 0.3, 0.0):
        process = Orchestrator(queue=queue, policy=Policy(0.7, audit_rate=rate, second_audit=0)).process
        process({"rate": rate}, {"label": "spam", "confidence": 0.5})
    by_hand = ask(input_data={"audit_rate": 0.5})
    for task in queue.pending():
        queue.resolve(task.task_id, "ann", "approve")
    frame = queue.training_frame().set_index("task_id")
    decided = frame.drop(index=by_hand.task_id)
    assert decided["audit_rate"].tolist() == decided["rate"].tolist() == [1.0, 0.3, 0.0]
    assert frame.loc[by_hand.task_id, "input.audit_rate"] == 0.5
    assert pd.isna(frame.loc[by_hand.task_id, "audit_rate"])


def test_what_models_are_compared_on_once_it_is_answered_comes_with_the_training_rows(queue, ask, clock):
    process = Orchestrator(queue=queue, policy=Policy(0.7, audit_rate=1.0, second_audit=0)).process
    names = ["waits", "answered", "withdrawn", "disputed", "gone"]
    said = {name: process({"name": name}, {"label": "spam", "confidence": 0.5}, subject=name) for name in names}
    ids = {name: told["task_id"] for name, told in said.items()}
    strict = Policy(0.7, audit_rate=1.0, second_audit=0, deadline=timedelta(hours=1), on_deadline="deny")
    Orchestrator(queue=queue, policy=strict).process({"name": "denied"}, {"label": "spam", "confidence": 0.5})
    clock.forward(hours=2)
    queue.tick()
    process({"name": "passes"}, {"label": "spam", "confidence": 0.9})
    for name in ("answered", "disputed"):
        queue.resolve(ids[name], "ann", "approve")
    queue.object(ids["disputed"], "ben", "no")
    queue.withdraw(ids["withdrawn"])
    queue.forget("gone")
    ask()
    Orchestrator(queue=queue, policy=Policy(0.7, audit_rate=0)).process({"name": "x"}, {"confidence": 0.5})
    rows, waiting = queue.training_frames()
    assert rows["task_id"].tolist() == [ids["answered"]]
    assert list(waiting.columns) == ["name", "task_id", "source", "audit_rate"]
    assert sorted(waiting["name"]) == ["denied", "disputed", "passes", "waits", "withdrawn"]
    assert dict(zip(waiting["name"], waiting["source"], strict=True))["passes"] == "audit"
    assert set(waiting["source"]) == {"audit", "human_review"}
    assert set(waiting["audit_rate"]) == {1.0}


def test_of_what_waits_a_share_as_large_as_that_of_the_audits_is_held(queue):
    inputs = pd.DataFrame({"x": range(400)})
    answers = [{"label": "spam", "confidence": 0.5}] * 400
    Orchestrator(queue=queue, policy=Policy(0.7, audit_rate=0.1)).process_frame(inputs, answers)
    held = queue.training_frames()[1]
    assert held["task_id"].tolist() == [task for task in held["task_id"] if held_draw([task])[0] < 0.1]
    assert 20 < len(held) < 65


def test_an_input_field_called_like_a_column_of_the_training_frame_is_kept(queue, ask):
    fields = dict.fromkeys(["task_id", "label", "confidence", "weight", "source", "outcome"], "mine")
    task = ask(input_data={**fields, "input.label": "theirs", "labels": "plain", "x.label": "too"})
    queue.resolve(task.task_id, "ann", "approve")
    [line] = queue.training_frame().to_dict("records")
    assert (line["task_id"], line["label"], line["outcome"]) == (task.task_id, "spam", "approve")
    assert {name: line[f"input.{name}"] for name in fields} == fields
    assert (line["input.input.label"], line["labels"], line["x.label"]) == ("theirs", "plain", "too")
    assert len(line) == 15


def test_annotations_have_a_line_for_each_answer_that_stands(queue, ask):
    task = ask(reviews_required=3)
    queue.resolve(task.task_id, "ann", "approve")
    queue.resolve(task.task_id, "ben", "correct", {"label": "ham"})
    queue.resolve(task.task_id, "eve", "reject")
    frame = queue.annotations()
    assert list(frame.columns) == ["task", "worker", "label"]
    assert frame.to_numpy().tolist() == [
        [task.task_id, "ann", "spam"],
        [task.task_id, "ben", "ham"],
        [task.task_id, "eve", "rejected"],
    ]


# -- exports


def read_back(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False)
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return pd.DataFrame([json.loads(line, parse_constant=pytest.fail) for line in lines])


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_an_export_reads_back(queue, ask, tmp_path, ending):
    tasks = [ask(input_data={"text": 'a,"b"\nö'}), ask()]
    queue.resolve(tasks[0].task_id, "ann", "correct", {"label": "hä"})
    path = tmp_path / f"out.{ending}"
    assert queue.export(path, inputs=True) == 2
    frame = read_back(path)
    assert list(frame.columns) == [*HISTORY, "input.text"]
    assert list(frame["task_id"]) == ids(tasks)
    labels = list(frame["label"])
    assert labels[0] == ("hä" if ending == "jsonl" else '"hä"')
    assert labels[1] == "" if ending == "csv" else pd.isna(labels[1])
    assert frame["input.text"][0] == 'a,"b"\nö'
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("out") or p.name.endswith(".part")] == [path.name]


@pytest.mark.parametrize("path", ["out.xlsx", "nowhere/out.csv"])
def test_an_export_to_nowhere_is_refused(queue, tmp_path, path):
    with pytest.raises(BadInput):
        queue.export(tmp_path / path)


RUNS = [
    "=1+1", "=HYPERLINK(\"x\")", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=", "-", "-inf", "+49 30 123",
    "-1\n", "1\r=1+1", "\uff1d1+1", "=1,\"2\"",
]  # fmt: skip
RESTS = ["-1", "+1.5", "-.5e-3", "-7.", "'=1", " =1", "a=1", "1+1", "", '"', "a\r\nb", "2026-01-05"]


def test_a_csv_holds_no_formulas(queue, ask, tmp_path):
    texts = RUNS + RESTS
    for text in texts:
        ask(input_data={"text": text, "mixed": text if text else 7, "number": -1.5}, reason="r", group=text or None)
    queue.resolve(queue.pending()[0].task_id, "=cmd", "approve")
    queue.export(tmp_path / "out.csv", inputs=True)
    frame = read_back(tmp_path / "out.csv")
    safe = [text if text in RESTS or text.startswith("1") else f"'{text}" for text in texts]
    assert frame["input.text"].tolist() == safe
    assert frame["group"].tolist() == safe
    assert frame["input.mixed"].tolist() == [json.dumps(text, ensure_ascii=False) if text else "7" for text in texts]
    assert set(frame["reviewer"]) == {"'=cmd", ""}
    assert set(frame["input.number"]) == {-1.5}
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert {len(line) for line in lines} == {len(frame.columns)}
    signed = {cell for line in lines for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))}
    assert signed == {"-1", "+1.5", "-.5e-3", "-7.", "-1.5"}


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_other_exports_keep_every_text_and_number_as_it_is(queue, ask, tmp_path, ending, clock):
    clock.forward(microseconds=123456)
    numbers = np.random.default_rng(0).lognormal(0, 30, len(RUNS)).tolist()
    for text, number in zip(RUNS, numbers, strict=True):
        ask(input_data={"text": text, "number": number}, confidence=0.1 + 0.2, value=number, group=text)
    path = tmp_path / f"out.{ending}"
    queue.export(path, inputs=True)
    frame = read_back(path)
    for column, stored in (("group", RUNS), ("input.text", RUNS), ("value", numbers), ("input.number", numbers)):
        assert frame[column].tolist() == stored
    assert set(frame["confidence"]) == {0.1 + 0.2}
    assert set(pd.to_datetime(frame["at_time"])) == {pd.Timestamp(clock.aware)}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_labels_and_inputs_of_every_kind_can_be_exported(queue, ask, tmp_path, ending):
    labels = [b"\x00", np.arange(2), float("nan"), float("-inf"), 2**70, -1, True, ["=1"], {"$x": 1}, None, START]
    for label in labels:
        field = label if isinstance(label, (float, int, str)) else "text"
        ask(ai_prediction={"label": label}, input_data={"field": field})
    path = tmp_path / f"out.{ending}"
    assert queue.export(path, inputs=True) == len(labels)
    frame = read_back(path)
    assert len(frame) == len(labels)
    found = {str(v) if ending == "jsonl" else v for v in frame["prediction"]}
    assert found >= ({"-1", "True", "['=1']", "{'$bytes': 'AA=='}"} if ending == "jsonl" else {"-1", "true", '["=1"]'})


# -- at the same time


def write_until(stop, queue, name, failures):
    """Submit, claim, answer and object until told to stop."""
    who = Reviewer(id=name, roles=("reviewer", "adjudicator"))
    policy = Policy(0.5, audit_rate=0.5, second_audit=0.5)
    orchestrator, i = Orchestrator(queue=queue, policy=policy), 0
    try:
        while not stop.is_set():
            i += 1
            orchestrator.process({"i": i}, {"label": "spam", "confidence": 0.4 + 0.1 * (i % 5)})
            for task in queue.claim(who, n=2):
                queue.resolve(task.task_id, who, "approve" if i % 3 else "reject")
                if i % 4 == 0 and queue.get(task.task_id).status == "reviewed":
                    with suppress(IllegalMove):  # the other of its two reviewers was faster
                        queue.object(task.task_id, who, "hm")
    except BaseException as error:
        failures.append(error)
        raise


def check_counts(stats):
    assert sum(stats.status.values()) == stats.total
    assert sum(stats.outcome.values()) == stats.status.get("reviewed", 0)
    waiting = sum(stats.status.get(status, 0) for status in OPEN)
    assert sum(stats.open_by_priority.values()) == sum(stats.open_by_expertise.values()) == waiting
    assert stats.differed <= stats.judged_twice <= stats.audited <= stats.audits <= stats.automatic <= stats.total
    assert stats.disagreed <= stats.audited
    assert stats.audited <= sum(stats.reviewers.values())
    assert stats.automatic - stats.audits == stats.status.get("auto_approved", 0)


def check_history(frame):
    answered = frame["status"] == "reviewed"
    assert frame["task_id"].is_unique
    for column in ("outcome", "reviewer", "reviewed_at"):
        assert (frame[column].notna() == answered).all()
    drawn = (frame["audit_probability"] > 0) & (frame["status"] != "auto_approved")
    assert (frame["wrong"].notna() | ~answered).all()
    assert (frame["wrong"].notna() & ~answered & ~drawn).sum() == 0


def test_readers_see_one_moment_while_three_threads_write(queue):
    stop, failures, last = threading.Event(), [], 0
    names = ("ann", "ben", "eve")
    writers = [threading.Thread(target=write_until, args=(stop, queue, name, failures)) for name in names]
    for writer in writers:
        writer.start()
    try:
        while not queue.stats().total and not failures:
            time.sleep(0.01)
        for _ in range(8):
            assert queue.verify() == []
            stats, frame = queue.stats(), queue.history(inputs=True)
            check_counts(stats)
            check_history(frame)
            assert last <= stats.total <= len(frame)
            last = len(frame)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert failures == []
    assert queue.stats().total == len(queue.history()) >= last > 0
    assert queue.verify() == []
