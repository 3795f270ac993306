"""Answers of a real queue reach a real learner; promotion needs proof."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.errors import FitFailed, NotEnoughSamples
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.loop import ActiveLearningPipeline, Loop


@pytest.fixture
def cancer():
    found = load_breast_cancer(as_frame=True)
    frame = found.frame.rename(columns={"target": "label"}).sample(frac=1, random_state=0).reset_index(drop=True)
    return frame.assign(label=frame["label"].map({0: "malignant", 1: "benign"}))


def scaled():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def reviewed_by_truth(queue, rows, learner, policy):
    """Route rows with the learner's answers and let a reviewer without errors answer all that waits."""
    inputs = rows.drop(columns="label")
    decided = Orchestrator(queue=queue, policy=policy).process_frame(inputs, learner.predict(inputs))
    truth = dict(zip(decided["task_id"], rows["label"], strict=True))
    for task in queue.pending(limit=10_000):
        right = task.ai_prediction["label"] == truth[task.task_id]
        queue.resolve(task.task_id, "ann", *(("approve",) if right else ("correct", {"label": truth[task.task_id]})))
    return decided


def started(cancer, estimator, folder=None, **options):
    learner = Learner(estimator, min_samples=20, **options)
    learner.add(cancer[:250].assign(task_id=[f"i{i}" for i in range(250)], source="initial"))
    loop = Loop(open_queue(":memory:"), learner, models=ModelStore(folder) if folder else None)
    loop.retrain(force=True)
    return loop


def test_answers_become_training_rows_with_their_raw_weight(cancer):
    loop = started(cancer, scaled())
    reviewed_by_truth(loop.queue, cancer[250:300], loop.learner, Policy(1.0, audit_rate=0))
    assert loop.refresh() == 50
    assert loop.refresh() == 0
    rows = loop.learner.buffer.rows
    rows = rows[rows["source"] == "human_review"]
    assert len(rows) == 50
    np.testing.assert_allclose(rows["weight"], 1 / (rows["confidence"] + 0.01))
    assert rows["label"].tolist() == cancer["label"][250:300].tolist()


def test_audits_join_the_holdout_and_never_train(cancer):
    loop = started(cancer, scaled())
    held = len(loop.learner.holdout_rows)
    decided = reviewed_by_truth(loop.queue, cancer[250:350], loop.learner, Policy(0.6, audit_rate=1.0, second_audit=0))
    loop.refresh()
    audits = int((decided["status"] == "auto_approved").sum())
    assert audits > 50
    assert len(loop.learner.holdout_rows) == held + audits
    assert loop.learner.counted == 100 - audits


def test_too_few_answers_do_not_retrain(cancer):
    loop = started(cancer, scaled())
    reviewed_by_truth(loop.queue, cancer[250:269], loop.learner, Policy(1.0, audit_rate=0))
    loop.refresh()
    with pytest.raises(NotEnoughSamples, match="19 reviewed samples, 20 needed to retrain; review 1 more"):
        loop.retrain()


def test_a_worse_challenger_is_refused_and_the_champion_stays(cancer, tmp_path):
    loop = started(cancer, scaled(), tmp_path / "models")
    reviewed_by_truth(loop.queue, cancer[250:300], loop.learner, Policy(1.0, audit_rate=0))
    loop.refresh()
    loop.learner.estimator = DummyClassifier(strategy="constant", constant="malignant")
    report = loop.retrain()
    assert report.comparison.verdict == "refuse"
    assert not report.promoted
    assert loop.learner.champion.version == "v1"
    assert loop.models.latest().version == "v1"
    assert [record.version for record in loop.models.records()] == ["v1", "v2"]


def test_a_better_challenger_is_promoted_stored_and_logged(cancer, tmp_path):
    loop = started(cancer, DummyClassifier(strategy="constant", constant="malignant"), tmp_path / "models")
    for i, row in cancer[250:300].iterrows():
        inputs = row.drop("label").to_dict()
        task = loop.queue.submit(input_data=inputs, ai_prediction={"label": "malignant"}, confidence=0.5, reason=f"{i}")
        right = row["label"] == "malignant"
        loop.queue.resolve(task.task_id, "ann", *(("approve",) if right else ("correct", {"label": row["label"]})))
    loop.refresh()
    loop.learner.estimator = scaled()
    report = loop.retrain()
    assert report.promoted
    assert "promote" in str(report)
    assert loop.models.load().version == loop.models.latest().version == "v2"
    [event] = [e for e in loop.queue.events() if e["move"] == "retrain" and e["body"]["model"] == "v2"]
    assert event["body"]["promoted"] is True


def test_a_failing_fit_changes_nothing(cancer):
    loop = started(cancer, scaled())
    reviewed_by_truth(loop.queue, cancer[250:300], loop.learner, Policy(1.0, audit_rate=0))
    loop.refresh()
    loop.learner.estimator = LogisticRegression(C=-1.0)
    events = len(loop.queue.events())
    with pytest.raises(FitFailed):
        loop.retrain()
    assert loop.learner.champion.version == "v1"
    assert loop.learner.counted == 50
    assert len(loop.queue.events()) == events


def test_the_pipeline_retrains_at_500_samples_and_not_before():
    pipeline = ActiveLearningPipeline(min_samples_for_retrain=500)
    rng = np.random.default_rng(0)
    done = [pipeline.add_reviewed_sample([x], bool(x > 0), 0.49) for x in rng.normal(size=500)]
    assert done.index(True) == 499
    assert pipeline.retrain_count == 1
    assert pipeline.weights.tolist() == [2.0] * 500  # 1 / (0.49 + 0.01)
    assert pipeline.learner.predict(pd.DataFrame({"f0": [-3.0, 3.0]}))["label"].tolist() == [False, True]


def test_a_disputed_audit_stays_an_audit_and_never_trains(cancer):
    loop = started(cancer, scaled())
    policy = Policy(0.5, audit_rate=1.0, second_audit=1.0)
    inputs = cancer[250:251].drop(columns="label")
    [task_id] = Orchestrator(queue=loop.queue, policy=policy).process_frame(inputs, loop.learner.predict(inputs))[
        "task_id"
    ]
    loop.queue.resolve(task_id, "ann", "approve")
    loop.queue.resolve(task_id, "ben", "correct", {"label": "other"})
    loop.queue.resolve(task_id, Reviewer(id="eve", roles=("reviewer", "adjudicator")), "approve")
    loop.refresh()
    assert loop.queue.training_frame()["source"].tolist() == ["audit"]
    assert loop.learner.counted == 0
