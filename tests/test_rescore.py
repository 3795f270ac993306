"""After a promotion what waits is scored anew: order, reasons and routes, and nobody's work is touched."""

import threading

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


def promoted(loop, estimator=None):
    loop.retrain(force=True)
    tasks = sent(loop)
    loop.learner.estimator = estimator or Thoughtful()
    return tasks, lambda: loop.retrain(force=True)


def test_a_promotion_scores_open_tasks_anew_and_says_so(loop):
    tasks, retrain = promoted(loop)
    report = retrain()
    assert report.promoted
    now = [loop.queue.get(task_id) for task_id in tasks]
    assert [task.ai_prediction["label"] for task in now] == ["low", "low", "high", "high"]
    assert [task.model for task in now] == ["v2"] * 4
    assert [task.priority for task in now] == ["low", "medium", "low", "high"]
    assert [task.expertise for task in now] == [None, None, None, "law"]
    found = report.rescored
    assert (found.tasks, found.passing, found.left, found.rerouted) == (4, 2, 0, 0)
    assert str(report).endswith(str(found))  # the line that the panel shows
    assert "4 open tasks scored anew by v2" in repr(report)
    assert loop.queue.events()[-1]["body"] == {
        "model": "v2", "tasks": 4, "moved": found.moved, "rerouted": 0, "passing": 2, "left": 0,
    }  # fmt: skip
    assert loop.queue.verify() == []


def test_the_panel_says_what_was_scored_anew_and_keeps_what_it_holds(loop):
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
    assert f"{16 - len(held)} open tasks scored anew by v2" in panel.view.retrain.text
    assert {loop.queue.get(task_id).model for task_id in held} == {"v1"}
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
    assert (reports[0].rescored.tasks, reports[0].rescored.left) == (2, 2)
    kept = [task for task in map(loop.queue.get, tasks) if task.model == "v1"]
    assert sorted(task.status for task in kept) == ["claimed", "reviewed"]
    assert loop.queue.verify() == []


def test_tasks_of_other_models_and_without_a_policy_stay(loop):
    asked = {"input_data": {"amount": 1.0}, "ai_prediction": {"label": "low"}, "confidence": 0.5, "reason": "unsure"}
    other = loop.queue.submit(**asked, model="gpt").task_id
    loop.policy = None
    tasks, retrain = promoted(loop)
    assert retrain().rescored is None
    assert {loop.queue.get(task_id).model for task_id in tasks} == {"v1"}
    assert loop.rescore(POLICY).tasks == 4
    assert loop.queue.get(other).model == "gpt"


def test_an_input_that_the_model_cannot_judge_keeps_its_score(loop):
    loop.retrain(force=True)
    frame = pd.DataFrame({"amount": [1.0, np.nan]})
    answers = [{"label": "low", "confidence": 0.6, "model": "v1"}] * 2
    tasks = Orchestrator(queue=loop.queue, policy=POLICY).process_frame(frame, answers)["task_id"]
    loop.learner.estimator = LogisticRegression()
    found = loop.retrain(force=True).rescored
    assert (found.tasks, found.left) == (1, 1)
    assert [loop.queue.get(task_id).model for task_id in tasks] == ["v2", "v1"]


def test_a_promotion_stands_although_what_waits_cannot_be_scored(loop):
    def broken():
        raise ValueError("no features")

    _, retrain = promoted(loop, Thoughtful([broken]))
    report = retrain()
    assert report.promoted
    assert "open tasks keep their scores (ValueError: no features)" in str(report)


def test_a_rollback_scores_what_waits_by_the_model_that_is_in_use_again(loop):
    tasks, retrain = promoted(loop)
    retrain()
    loop.rollback()
    assert {loop.queue.get(task_id).model for task_id in tasks} == {"v1"}
    assert [event["move"] for event in loop.queue.events() if event["task_id"] is None][-2:] == ["rollback", "rescore"]
