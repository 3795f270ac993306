"""After a promotion what waits is ordered anew: order, reasons and routes, and nobody's work is touched."""

import threading

import duckdb
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from hitl_nb import FieldAbove, Orchestrator, Policy, open_queue
from hitl_nb.learner import Learner
from hitl_nb.loop import Loop
from hitl_nb.panel import ReviewPanel
from hitl_nb.queue.row import TaskRow, dump_reasons
from hitl_nb.task import Reason

POLICY = Policy(0.85, rules=(FieldAbove(field="amount", bound=50, expertise="law"),), audit_rate=0)
#: amounts: the model in use is unsure of all of them; a better one is sure of the ends
AMOUNTS = [1.0, 5.0, 9.0, 60.0]


class Thoughtful(ClassifierMixin, BaseEstimator):
    """Sure of small and of large amounts; calls somebody before it answers for the first time after it was fitted."""

    def __init__(self, called=None):
        self.called = called

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        amounts = np.asarray(X, dtype=float)[:, 0]
        if self.called and not np.isnan(amounts).any() and len(amounts) == len(AMOUNTS):
            self.called[0]()
        high = np.where(amounts > 5, 0.98, np.where(amounts < 5, 0.02, 0.45))
        return np.stack([high, 1 - high], axis=1)


@pytest.fixture
def loop():
    """Return a loop whose first model always says the same, and 200 rows on which it is often wrong."""
    x = np.linspace(0, 10, 200)
    initial = {"task_id": [f"i{i}" for i in range(200)], "amount": x, "label": np.where(x > 5, "high", "low")}
    learner = Learner(DummyClassifier(strategy="prior"), min_samples=1, holdout=0.5)
    learner.add(pd.DataFrame(initial | {"source": "initial"}))
    with open_queue(":memory:") as queue:
        yield Loop(queue, learner, policy=POLICY)


def sent(loop):
    """Let the model in use judge the amounts; returns the tasks."""
    inputs = pd.DataFrame({"amount": AMOUNTS})
    return Orchestrator(queue=loop.queue, policy=POLICY).process_frame(inputs, loop.learner.predict(inputs))["task_id"]


def placed_by(task):
    """Return the reason that says which model gave a task its place since; None: none did."""
    return next((reason for reason in task.reasons if reason.rule == "reordered"), None)


def anew(queue, task_ids):
    return [placed_by(queue.get(task_id)) for task_id in task_ids]


def promoted(loop, estimator=None):
    loop.retrain(force=True)
    tasks = sent(loop)
    loop.learner.estimator = estimator or Thoughtful()
    return tasks, lambda: loop.retrain(force=True)


def test_a_promotion_orders_open_tasks_anew_and_says_so(loop):
    tasks, retrain = promoted(loop)
    report = retrain()
    assert report.promoted
    now = [loop.queue.get(task_id) for task_id in tasks]
    assert [task.ai_prediction["label"] for task in now] == ["high"] * 4
    assert [task.model for task in now] == ["v1"] * 4
    assert [task.reasons[-1].text.removeprefix("Model v2 in use now: ") for task in now] == [
        "confidence 0.98, would pass", "confidence 0.55", "confidence 0.98, would pass", "confidence 0.98",
    ]  # fmt: skip
    assert [task.priority for task in now] == ["low", "medium", "low", "high"]
    assert [task.expertise for task in now] == [None, None, None, "law"]
    found = report.reordered
    assert (found.tasks, found.passing, found.left, found.rerouted) == (4, 2, 0, 0)
    assert str(report).endswith(str(found))  # the line that the panel shows
    assert "4 open tasks ordered anew by v2" in repr(report)
    assert loop.queue.events()[-1]["body"] == {
        "model": "v2", "tasks": 4, "moved": found.moved, "rerouted": 0, "passing": 2, "left": 0, "odd": 0,
        "failed": None,
    }  # fmt: skip
    assert loop.queue.verify() == []


def test_the_panel_says_what_was_ordered_anew_and_keeps_what_it_holds(loop):
    promoted(loop)
    for _ in range(3):
        sent(loop)
    panel = ReviewPanel(loop.queue, reviewer="ann", labels=["low", "high"], loop=loop)
    held = [task.task_id for task in loop.queue.pending() if task.holder]
    loop.learner.min_samples = 1
    answered = {
        "task_id": ["more"],
        "amount": [3.0],
        "label": ["low"],
        "source": ["human_review"],
        "outcome": "approve",
    }
    loop.learner.add(pd.DataFrame(answered))
    panel.controller.start_retrain().join()
    assert f"{16 - len(held)} open tasks ordered anew by v2" in panel.view.retrain.text
    assert not any(anew(loop.queue, held))
    assert 0 < len(held) < 16
    panel.finish()


def test_what_somebody_claims_or_answers_while_the_model_judges_stays_as_it_is(loop):
    calls = []
    tasks, retrain = promoted(loop, Thoughtful(calls))

    def meanwhile():
        loop.queue.resolve(tasks[0], "ann", "approve")
        loop.queue.claim("ben", n=1)
        calls[0] = lambda: None

    calls.append(meanwhile)
    thread = threading.Thread(target=lambda: reports.append(retrain()))
    reports = []
    thread.start()
    thread.join()
    assert (reports[0].reordered.tasks, reports[0].reordered.left) == (2, 2)
    kept = [task for task in map(loop.queue.get, tasks) if not placed_by(task)]
    assert sorted(task.status for task in kept) == ["claimed", "reviewed"]
    assert loop.queue.verify() == []


def test_tasks_of_other_models_and_without_a_policy_stay(loop):
    asked = {"input_data": {"amount": 1.0}, "ai_prediction": {"label": "low"}, "confidence": 0.5, "reason": "unsure"}
    other = loop.queue.submit(**asked, model="gpt").task_id
    loop.policy = None
    tasks, retrain = promoted(loop)
    assert retrain().reordered is None
    assert not any(anew(loop.queue, tasks))
    assert loop.reorder(POLICY).tasks == 4
    assert not any(anew(loop.queue, [other]))


def test_an_input_that_the_model_cannot_judge_keeps_its_place(loop):
    loop.retrain(force=True)
    frame = pd.DataFrame({"amount": [1.0, np.nan]})
    answers = [{"label": "low", "confidence": 0.6, "model": "v1"}] * 2
    tasks = Orchestrator(queue=loop.queue, policy=POLICY).process_frame(frame, answers)["task_id"]
    loop.learner.estimator = LogisticRegression()
    found = loop.retrain(force=True).reordered
    assert (found.tasks, found.left, found.odd) == (1, 1, 1)
    assert [bool(one) for one in anew(loop.queue, tasks)] == [True, False]


def test_one_odd_value_keeps_no_other_task_from_its_place(loop):
    loop.retrain(force=True)
    frame = pd.DataFrame({"amount": [1.0, "n/a", 9.0, 2.0, 3.0]})
    answers = [{"label": "low", "confidence": 0.6, "model": "v1"}] * 5
    tasks = Orchestrator(queue=loop.queue, policy=POLICY).process_frame(frame, answers)["task_id"]
    loop.learner.estimator = LogisticRegression()
    found = loop.retrain(force=True).reordered
    assert [bool(one) for one in anew(loop.queue, tasks)] == [True, False, True, True, True]
    assert str(found).endswith("; 1 stay as they are, 1 of them since it cannot judge them")


def test_a_task_without_the_fields_that_the_model_reads_is_another_models(loop):
    loop.retrain(force=True)
    made = Orchestrator(queue=loop.queue, policy=POLICY)
    other = made.process({"image": "a.png"}, {"label": "cat", "confidence": 0.6, "model": "v1"})["task_id"]
    loop.learner.estimator = Thoughtful()
    assert loop.retrain(force=True).reordered.left == 1
    assert not any(anew(loop.queue, [other]))


def test_all_that_waits_is_ordered_page_by_page_and_the_clock_is_asked_once_a_page(loop, monkeypatch):
    monkeypatch.setattr("hitl_nb.loop.reorder.PAGE", 3)
    _, retrain = promoted(loop)
    for _ in range(3):
        sent(loop)
    pages, now = [], type(loop.queue).now.fget
    pending = loop.queue.pending
    monkeypatch.setattr(loop.queue, "pending", lambda **more: pages.append(len(pending(**more))) or pending(**more))
    asked = []
    monkeypatch.setattr(type(loop.queue), "now", property(lambda queue: asked.append(1) or now(queue)))
    assert retrain().reordered.tasks == 16
    assert pages == [3, 3, 3, 3, 3, 1, 0]
    assert len(asked) < 16


def test_what_was_ordered_before_it_failed_is_told_and_logged(loop, monkeypatch):
    monkeypatch.setattr("hitl_nb.loop.reorder.PAGE", 3)
    tasks, retrain = promoted(loop)
    reorder, calls = loop.queue.reorder, []

    def full(*given):
        calls.append(given)
        if len(calls) == 2:
            raise OSError("disk full")
        return reorder(*given)

    monkeypatch.setattr(loop.queue, "reorder", full)
    found = retrain().reordered
    assert (found.tasks, found.failed) == (3, "OSError: disk full")
    assert str(found).endswith("; then other open tasks keep their order (OSError: disk full)")
    assert [bool(one) for one in anew(loop.queue, tasks)] == [True, True, True, False]
    assert loop.queue.events(move="reorder")[-1]["body"]["tasks"] == 3


def test_a_promotion_stands_although_what_waits_cannot_be_judged(loop):
    def broken():
        raise RuntimeError("no features")

    _, retrain = promoted(loop, Thoughtful([broken]))
    report = retrain()
    assert report.promoted
    assert "open tasks keep their order (RuntimeError: no features)" in str(report)


def test_a_rollback_orders_what_waits_by_the_model_that_is_in_use_again(loop):
    tasks, retrain = promoted(loop)
    retrain()
    assert {one.bound for one in anew(loop.queue, tasks)} == {"v2"}
    loop.rollback()
    assert {one.bound for one in anew(loop.queue, tasks)} == {"v1"}
    assert [event["move"] for event in loop.queue.events() if event["task_id"] is None][-2:] == ["rollback", "reorder"]


def test_the_log_of_an_early_file_that_calls_it_otherwise_is_read_alike(tmp_path):
    path = tmp_path / "q.duckdb"
    with open_queue(path) as queue:
        task_id = Orchestrator(queue=queue, policy=POLICY).process({"amount": 60}, {"confidence": 0.6})["task_id"]
        reason = Reason(rule="rescored", says="Model {bound} in use now", bound="v2", hard=True)
        task = queue.get(task_id)
        row = {"status": "pending_review", "created_at": task.created_at, "reasons": dump_reasons([reason])}
        queue.reorder([TaskRow(task_id=task_id, **row)], POLICY.fingerprint, POLICY.to_dict())
    with duckdb.connect(path) as raw:
        raw.execute("UPDATE event SET move = 'rescore' WHERE move = 'reorder'")
    with open_queue(path) as queue:
        assert queue.verify() == []
        assert "ordered it anew by a later model" in queue.explain(task_id)
        queue.reorder([TaskRow(task_id=task_id, **row)], POLICY.fingerprint, POLICY.to_dict())
        assert [one.rule for one in queue.get(task_id).reasons].count("rescored") == 1
