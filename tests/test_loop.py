"""Answers of a real queue reach a real learner and leave it again; promotion needs proof; a restart goes on."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.errors import (
    BadInput,
    FitFailed,
    LearnerError,
    ModelNotFound,
    NotEnoughSamples,
    RetrainRunning,
    UntrustedModel,
)
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


def test_audits_and_the_same_share_of_the_reviews_join_the_holdout_and_never_train(cancer):
    loop = started(cancer, scaled())
    before = set(loop.learner.holdout_rows.index)
    decided = reviewed_by_truth(loop.queue, cancer[250:], loop.learner, Policy(0.99, audit_rate=0.2, second_audit=0))
    loop.refresh()
    asked = set(decided["task_id"][decided["status"] == "pending_review"])
    audits = set(loop.queue.history().query("audit_uniform < audit_probability")["task_id"].astype(str))
    joined = set(loop.learner.holdout_rows.index) - before
    assert len(audits) > 5
    assert joined - asked == audits
    assert 0 < len(joined & asked) < len(asked) / 2  # a fifth of about 100
    assert loop.learner.counted == len(asked - joined)
    assert joined.isdisjoint(loop.learner.fit(force=True).trained)


def test_reviews_of_a_policy_that_audits_nothing_all_train(cancer):
    loop = started(cancer, scaled())
    before = len(loop.learner.holdout_rows)
    decided = reviewed_by_truth(loop.queue, cancer[250:], loop.learner, Policy(0.9, audit_rate=0))
    loop.refresh()
    assert len(loop.learner.holdout_rows) == before
    assert loop.learner.counted == (decided["status"] == "pending_review").sum() > 0


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


@pytest.mark.parametrize("stored", [False, True])
def test_one_call_puts_the_model_before_in_use_again_also_after_a_restart(cancer, tmp_path, stored):
    loop = started(cancer, DummyClassifier(), tmp_path if stored else None)
    loop.learner.estimator = scaled()
    assert loop.retrain(force=True).promoted
    if stored:
        loop = Loop(loop.queue, Learner(scaled(), min_samples=20), models=ModelStore(tmp_path))
    assert loop.learner.champion.version == "v2"
    assert loop.rollback().version == "v1"
    assert loop.learner.predict(cancer.drop(columns="label"))["label"].nunique() == 1  # the dummy's answer
    assert loop.queue.events()[-1]["body"] == {"model": "v1"}
    with pytest.raises(LearnerError, match="no earlier"):
        loop.rollback()
    if stored:
        assert ModelStore(tmp_path).latest().version == "v1"


def test_audits_that_wait_speak_against_a_promotion_until_they_are_answered(cancer):
    loop = started(cancer, DummyClassifier(strategy="constant", constant="malignant"), held_reviews=1.0)
    rows, policy = cancer[250:450], Policy(0.5, audit_rate=1.0, second_audit=0)
    inputs = rows.drop(columns="label")
    ids = Orchestrator(queue=loop.queue, policy=policy).process_frame(inputs, loop.learner.predict(inputs))["task_id"]
    loop.refresh()
    loop.learner.estimator = scaled()
    report = loop.retrain(force=True)
    found = report.comparison
    assert (found.unanswered, report.promoted) == (200, False)
    assert 50 < found.differ < 200
    assert f"200 cases of this draw have no answer: the two differ on {found.differ}" in repr(report)
    for task_id, label in zip(ids, rows["label"], strict=True):
        loop.queue.resolve(task_id, "ann", "correct", {"label": label})
    loop.refresh()
    report = loop.retrain(force=True)
    assert (report.comparison.unanswered, report.promoted) == (0, True)


def test_what_waits_and_no_model_can_judge_stops_no_comparison(cancer):
    loop = started(cancer, DummyClassifier(strategy="constant", constant="malignant"))
    loop.learner.estimator = scaled()
    assert loop.retrain(force=True).promoted
    route = Orchestrator(queue=loop.queue, policy=Policy(0.5, audit_rate=1.0)).process
    inputs = cancer[250:280].drop(columns="label").astype(object).reset_index(drop=True)
    inputs.loc[7, "mean area"] = "n/a"
    for odd in ({"image": "a.png"}, *inputs.to_dict("records")):
        route(odd, {"label": "malignant", "confidence": 0.9})
    loop.learner.held_reviews = 1.0
    loop.refresh()
    found = loop.retrain(force=True).comparison
    assert (found.unanswered, found.differ, found.difference) == (31, 0, 0)


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


# -- answers that no longer stand --------------------------------------------------------------------------------------


@pytest.fixture
def loop():
    with open_queue(":memory:") as queue:
        yield Loop(queue, Learner(LogisticRegression(), min_samples=2))


def answered(loop, x, outcome="approve", label="a", **more):
    """Ask about one number and answer it; returns the task id."""
    asked = {"input_data": {"x": float(x)}, "ai_prediction": {"label": label}, "confidence": 0.5, "reason": "unsure"}
    task_id = loop.queue.submit(**asked | more).task_id
    loop.queue.resolve(task_id, "ann", outcome)
    return task_id


def audited(loop, inputs, **more):
    """Let a policy draw an audit of inputs that it passes, and approve it."""
    route = Orchestrator(queue=loop.queue, policy=Policy(0.5, audit_rate=0.2, second_audit=0)).process
    while not (waiting := loop.queue.pending()):
        route(inputs, {"label": "a", "confidence": 0.9}, **more)
    loop.queue.resolve(waiting[0].task_id, "ann", "approve")


def ids(loop):
    return loop.learner.buffer.frame()["task_id"].tolist()


TAKEN_BACK = {
    "undone": lambda queue, task_id: queue.undo(task_id, "ann"),
    "disputed": lambda queue, task_id: queue.object(task_id, "ben", "I doubt it"),
    "erased": lambda queue, task_id: queue.forget("bob"),
}


@pytest.mark.parametrize("take_back", TAKEN_BACK.values(), ids=TAKEN_BACK)
@pytest.mark.parametrize("others", [0, 1])
def test_an_answer_that_no_longer_stands_leaves_the_learner(loop, take_back, others):
    kept = [answered(loop, i) for i in range(others)]
    gone = answered(loop, 5, subject="bob")
    assert loop.refresh() == others + 1
    take_back(loop.queue, gone)
    assert loop.refresh() == 1
    assert ids(loop) == kept
    assert loop.learner.counted == others
    assert loop.refresh() == 0


def test_what_a_user_added_by_hand_stays_whatever_the_queue_says(loop):
    rows = {"x": [1.0, 2.0], "label": ["a", "b"], "source": ["initial", "human_review"], "outcome": "approve"}
    loop.learner.add(pd.DataFrame(rows | {"task_id": ["first", "by hand"]}))
    task_id = answered(loop, 3)
    loop.refresh()
    loop.queue.undo(task_id, "ann")
    loop.refresh()
    assert ids(loop) == ["first", "by hand"]


def test_an_answer_given_anew_takes_the_place_of_the_first(loop):
    task_id = answered(loop, 3)
    loop.refresh()
    loop.queue.undo(task_id, "ann")
    loop.queue.replace(task_id, {"x": 4.0}, {"label": "b"})
    loop.queue.resolve(task_id, "ann", "approve")
    assert loop.refresh() == 1
    assert loop.learner.buffer.frame()[["x", "label"]].to_numpy().tolist() == [[4.0, "b"]]


def test_an_erased_audit_leaves_the_holdout(loop):
    for subject in ("bob", "eve"):
        audited(loop, {"x": 1.0}, subject=subject)
    loop.refresh()
    assert len(loop.learner.holdout_rows) == 2
    loop.queue.forget("bob")
    loop.refresh()
    assert len(loop.learner.holdout_rows) == 1


def test_what_goes_is_gone_even_if_a_new_answer_is_refused(loop):
    gone, kept = answered(loop, 1, subject="bob"), answered(loop, 2)
    loop.refresh()
    loop.queue.forget("bob")
    odd = answered(loop, 3, label=["a", "b"])
    with pytest.raises(BadInput, match=odd):
        loop.refresh()
    assert ids(loop) == [kept]
    assert gone not in ids(loop)


def test_a_field_that_only_a_withdrawn_answer_had_blocks_nothing(loop):
    kept, gone = answered(loop, 1), answered(loop, 2, input_data={"x": 2.0, "town": "Ulm"})
    loop.refresh()
    loop.queue.undo(gone, "ann")
    assert loop.refresh() == 1
    assert ids(loop) == [kept]


def test_the_report_says_what_a_model_learned_that_no_longer_stands(loop):
    low, high = (answered(loop, x, label=label, subject=label) for x, label in ((1, "low"), (9, "high")))
    loop.refresh()
    assert loop.retrain().outdated == ()
    loop.queue.forget("low")
    answered(loop, 2, label="low")
    loop.refresh()
    report = loop.retrain(force=True)
    assert (report.promoted, report.outdated) == (False, (low,))
    assert "the model in use learned from 1 rows that no longer stand" in str(report)
    assert next(iter(report.challenger.trained)) == high
    loop.learner.promote(report.challenger)
    assert loop.learner.outdated == []


# -- a restart ---------------------------------------------------------------------------------------------------------

FIRST_RUN = """
import json, sys
import numpy as np, pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.loop import Loop

queue = open_queue(sys.argv[1])
learner = Learner(LogisticRegression(), min_samples=10)
x = np.arange(100.0)
learner.add(pd.DataFrame({"task_id": [f"i{i}" for i in range(100)], "x": x, "label": x > 50, "source": "initial"}))
loop = Loop(queue, learner, models=ModelStore(sys.argv[2]))
loop.retrain(force=True)
route = Orchestrator(queue=queue, policy=Policy(0.7, audit_rate=0)).process
for i in range(11):
    route({"x": 8.0 * i}, {"label": 8 * i > 50, "confidence": 0.5})
route = Orchestrator(queue=queue, policy=Policy(0.7, audit_rate=0.2, second_audit=0)).process
while len(queue.pending()) < 12:
    route({"x": 88.0}, {"label": True, "confidence": 0.9})
for task in queue.pending():
    queue.resolve(task.task_id, "ann", "approve")
loop.refresh()
learner.estimator = DummyClassifier(strategy="constant", constant=False)
report = loop.retrain()
assert report.comparison.verdict == "refuse", report
held = learner.holdout_rows.index.tolist()
assert len(held) == 50 + 1 and len(report.challenger.trained) == 50 + 11
p = learner.predict([[50.5]]).values.tolist()
print(json.dumps({"held": held, "trained": list(report.challenger.trained), "p": p}))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Run a loop in a process of its own: v1 is in use, v2 was refused; returns its folder and what it knew."""
    folder = tmp_path_factory.mktemp("ended")
    command = [sys.executable, "-c", FIRST_RUN, folder / "reviews.duckdb", folder / "models"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture
def folder(ended, tmp_path):
    yield shutil.copytree(ended[0], tmp_path / "copy")
    open_queue(tmp_path / "copy" / "reviews.duckdb").close()


def resumed(folder, first=0, last=100, **options):
    learner = Learner(LogisticRegression(), **{"min_samples": 10} | options)
    if last > first:
        x = np.arange(float(first), last)
        names = [f"i{i}" for i in range(first, last)]
        learner.add(pd.DataFrame({"task_id": names, "x": x, "label": x > 50, "source": "initial"}))
    loop = Loop(open_queue(folder / "reviews.duckdb"), learner, models=ModelStore(folder / "models"))
    loop.refresh()
    return loop


def test_a_new_process_goes_on_where_the_last_one_ended(ended, folder):
    loop = resumed(folder)
    assert loop.learner.champion.version == "v1"  # v2 was refused
    assert (loop.learner.looks, loop.learner.counted, loop.learner.outdated) == (1, 0, [])
    assert sorted(loop.learner.holdout_rows.index) == sorted(ended[1]["held"])
    assert loop.learner.predict([[50.5]]).to_numpy().tolist() == ended[1]["p"]
    with pytest.raises(NotEnoughSamples):
        loop.retrain()
    report = loop.retrain(force=True)
    assert (report.challenger.version, report.looks) == ("v3", 2)
    assert sorted(report.challenger.trained) == sorted(ended[1]["trained"])
    assert [record.looks for record in loop.models.records()] == [0, 1, 2]


def test_after_a_restart_held_rows_still_never_train_and_trained_ones_never_measure(ended, folder):
    other_draw = {"seed": 5, "holdout": 0.5}
    loop = resumed(folder, -300, 100, **other_draw)
    held, trained = set(ended[1]["held"]), set(ended[1]["trained"])
    assert held.isdisjoint(loop.retrain(force=True).challenger.trained)
    assert set(loop.learner.holdout_rows.index) == held
    again = loop.learner.buffer.frame()
    loop.learner.add(again[again["task_id"].isin(trained)].assign(source="audit", outcome="approve"))
    assert set(loop.learner.holdout_rows.index) == held


def test_after_a_restart_the_model_in_use_answers_before_any_row_came(ended, folder):
    learner = Learner(LogisticRegression())
    with open_queue(":memory:") as queue:
        Loop(queue, learner, models=ModelStore(folder / "models"))
    assert learner.predict(pd.DataFrame({"note": ["?"], "x": [50.5]})).to_numpy().tolist() == ended[1]["p"]


def test_a_refused_challenger_is_no_champion_even_if_nothing_is_in_use(folder):
    (folder / "models" / "in-use").unlink()
    loop = resumed(folder)
    assert loop.learner.champion is None
    assert loop.retrain(force=True).challenger.version == "v3"


def test_what_is_no_queue_or_no_learner_is_refused_with_the_remedy():
    with pytest.raises(BadInput, match=r"pass open_queue\(path\)"):
        Loop("reviews.duckdb", Learner(LogisticRegression()))
    with pytest.raises(BadInput, match=r"'LogisticRegression': pass Learner\(estimator\)"):
        Loop(open_queue(":memory:"), LogisticRegression())


def test_a_learner_of_other_features_is_refused(folder):
    with pytest.raises(BadInput, match="v1 works on"):
        Loop(
            open_queue(":memory:"), Learner(LogisticRegression(), features=["y"]), models=ModelStore(folder / "models")
        )


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("notes.json", "buy milk", UntrustedModel),
        ("my notes.json", "[1]", UntrustedModel),
        ("v3.json", "[" * 100_000, UntrustedModel),
        ("v3.json", b"\xff", UntrustedModel),
        ("v1.json", {"n_rows": "many"}, UntrustedModel),
        ("v1.json", {"run": "me"}, UntrustedModel),
        ("v1.skops", "", UntrustedModel),
        ("in-use", '{"v1": 1}', UntrustedModel),
        ("in-use", '["v9"]', ModelNotFound),
        ("in-use", '["../v1"]', BadInput),
    ],
)
def test_a_damaged_or_foreign_file_among_the_models_is_named(folder, name, content, error):
    path = folder / "models" / name
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    shown = {"v1.skops": "model 'v1'", "in-use": r"in-use|v9|\.\./v1"}.get(name, name)
    with pytest.raises(error, match=shown):
        resumed(folder)


def test_a_folder_in_the_place_of_a_record_is_named(folder):
    (folder / "models" / "v7.json").mkdir()
    with pytest.raises(UntrustedModel, match=r"v7\.json"):
        resumed(folder)


# -- a retrain in a thread ---------------------------------------------------------------------------------------------


class Waiting(LogisticRegression):
    """Waits inside `fit` until it may go on; then works, or fails."""

    def fit(self, X, y, sample_weight=None):
        Waiting.began.set()
        assert Waiting.go_on.wait(60)
        if Waiting.broken:
            raise MemoryError("out of memory")
        return super().fit(X, y, sample_weight)


@pytest.fixture
def waiting(loop):
    """A loop with a champion, two new answers, and an estimator that waits."""
    for i in range(6):
        answered(loop, i, label="ab"[i % 2])
    loop.refresh()
    loop.retrain()
    Waiting.began, Waiting.go_on, Waiting.broken = threading.Event(), threading.Event(), False
    loop.learner.estimator = Waiting()
    for i in range(2):
        answered(loop, 7 + i, label="ab"[i % 2])
    loop.refresh()
    yield loop
    Waiting.go_on.set()


def in_thread(loop, found):
    def run():
        try:
            found["report"] = loop.retrain(found.setdefault("stages", []).append)
        except Exception as error:
            found["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    assert Waiting.began.wait(60)
    return thread


def test_answers_come_in_during_a_retrain_and_wait_for_the_next(waiting):
    found = {}
    thread = in_thread(waiting, found)
    later = [answered(waiting, 20 + i) for i in range(3)]
    assert waiting.refresh() == 3
    assert waiting.learner.predict([[1.0]])["model"].tolist() == ["v1"]
    Waiting.go_on.set()
    thread.join(60)
    report = found["report"]
    assert report.challenger.n_rows == 8
    assert set(later).isdisjoint(report.challenger.trained)
    assert waiting.learner.counted == 3
    stages = ["fitting Waiting to 8 rows", "fitted; ", "comparing with v1 on 0 rows"]
    assert [line[: len(stage)] for line, stage in zip(found["stages"], stages, strict=True)] == stages


def test_an_answer_undone_during_a_retrain_is_named_in_its_report(waiting):
    waiting.margin, found = 0.5, {}
    thread = in_thread(waiting, found)
    gone = ids(waiting)[0]
    waiting.queue.undo(gone, "ann")
    waiting.refresh()
    Waiting.go_on.set()
    thread.join(60)
    assert found["report"].outdated == (gone,)


def test_a_second_retrain_at_once_is_refused(waiting):
    found = {}
    thread = in_thread(waiting, found)
    with pytest.raises(LearnerError, match="running already"):
        waiting.retrain(force=True)
    Waiting.go_on.set()
    thread.join(60)
    assert found["report"].challenger.version == "v2"
    assert waiting.retrain(force=True).challenger.version == "v3"


def known(loop):
    learner = loop.learner
    return learner.champion, learner.counted, learner.looks, learner.buffer.frame().to_csv(), len(loop.queue.events())


def test_a_retrain_that_fails_in_its_thread_changes_nothing(waiting):
    before, found = known(waiting), {}
    Waiting.broken = True
    thread = in_thread(waiting, found)
    Waiting.go_on.set()
    thread.join(60)
    assert isinstance(found["error"], FitFailed)
    assert known(waiting) == before
    Waiting.broken = False
    assert waiting.retrain().challenger.version == "v2"


def test_a_retrain_that_fails_after_the_fit_changes_nothing(cancer, tmp_path):
    loop = started(cancer, scaled(), tmp_path / "models")
    reviewed_by_truth(loop.queue, cancer[250:300], loop.learner, Policy(1.0, audit_rate=0))
    loop.refresh()
    before = known(loop)

    def stop(line):
        if line.startswith("comparing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.retrain(stop)
    assert known(loop) == before
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(OSError, match="No such file"):
        loop.retrain()
    assert known(loop)[:2] == before[:2]
    loop.models = ModelStore(tmp_path / "models")
    assert loop.retrain().challenger.n_rows == 125 + 50


def test_a_holdout_that_a_model_cannot_judge_is_an_error_of_the_tree_and_changes_nothing(loop):
    encode = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    loop.learner.estimator = make_pipeline(encode, LogisticRegression())
    for i in range(4):
        answered(loop, i, label="ab"[i % 2], input_data={"x": float(i), "town": "Ulm"})
    loop.refresh()
    loop.retrain()
    audited(loop, {"x": 9.0, "town": "Bonn"})
    for i in range(2):
        answered(loop, i, label="ab"[i % 2], input_data={"x": float(i), "town": "Ulm"})
    loop.refresh()
    before = known(loop)
    with pytest.raises(LearnerError, match=r"could not be judged.*unknown categories"):
        loop.retrain()
    assert known(loop) == before


# -- several loops on one folder ---------------------------------------------------------------------------------------


def numbers(n=200):
    x = np.arange(float(n)) - n / 2
    return pd.DataFrame({"task_id": [f"i{i}" for i in range(n)], "x": x, "label": x > 0, "source": "initial"})


def on_folder(queue, folder, margin=0.5):
    learner = Learner(LogisticRegression(), min_samples=1)
    learner.add(numbers())
    return Loop(queue, learner, models=ModelStore(folder), margin=margin)


def test_a_loop_goes_on_where_another_on_the_same_folder_ended(tmp_path):
    with open_queue(":memory:") as queue:
        first = on_folder(queue, tmp_path)
        first.retrain(force=True)
        other = on_folder(queue, tmp_path)
        assert other.retrain(force=True).challenger.version == "v2"
        report = first.retrain(force=True)
        assert (report.before, report.challenger.version, report.looks) == ("v2", "v3", 2)
        assert [one.looks for one in first.models.records()] == [0, 1, 2]
        assert other.rollback().version == "v2"
        assert first.retrain(force=True).before == "v2"
        with ModelStore(tmp_path).lock():  # as another process would
            for call in (first.retrain, first.rollback):
                with pytest.raises(RetrainRunning, match="running already in"):
                    call()


def test_a_model_in_use_that_the_folder_knows_not_stays_until_the_folder_has_another(tmp_path):
    with open_queue(":memory:") as queue:
        loop = on_folder(queue, tmp_path)
        loop.retrain(force=True)
        loop.learner.promote(loop.learner.fit(force=True))  # by hand, past the loop
        assert loop.retrain(force=True).before == "v2"


def test_looks_are_kept_also_where_their_models_could_not_be_saved(tmp_path, monkeypatch):
    with open_queue(":memory:") as queue:
        loop = on_folder(queue, tmp_path, margin=0.0001)
        loop.retrain(force=True)

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(loop.models, "save", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                loop.retrain(force=True)
        assert on_folder(queue, tmp_path).learner.looks == 3


def test_no_look_is_spent_where_no_row_is_held_out(loop, tmp_path):
    loop.models = ModelStore(tmp_path)
    for i in range(6):
        answered(loop, i, label="ab"[i % 2])
    loop.refresh()
    for _ in range(3):
        report = loop.retrain(force=True)
    assert (report.comparison.n, loop.learner.looks, loop.models.looks) == (0, 0, 0)


def test_no_model_is_in_use_before_the_log_knows_of_it(tmp_path, monkeypatch):
    with open_queue(":memory:") as queue:
        loop = on_folder(queue, tmp_path)
        asked = {"input_data": {"x": 1.5}, "ai_prediction": {"label": True}, "confidence": 0.5, "reason": "unsure"}
        queue.resolve(queue.submit(**asked, subject="bob").task_id, "ann", "approve")
        loop.refresh()
        use = loop.models.use

        def ended(version):
            use(version)
            raise KeyboardInterrupt

        monkeypatch.setattr(loop.models, "use", ended)
        with pytest.raises(KeyboardInterrupt):
            loop.retrain(force=True)
        assert loop.models.latest().version == "v1"
        assert f"v1 in {tmp_path}" in str(queue.forget("bob"))


def test_nothing_is_rolled_back_while_a_retrain_runs(waiting):
    found = {}
    thread = in_thread(waiting, found)
    with pytest.raises(LearnerError, match="running already"):
        waiting.rollback()
    Waiting.go_on.set()
    thread.join(60)
    assert found["report"].before == waiting.learner.champion.version == "v1"


def test_a_rollback_stands_though_open_tasks_could_not_be_scored(tmp_path):
    with open_queue(":memory:") as queue:
        loop = on_folder(queue, tmp_path)
        for _ in range(2):
            loop.retrain(force=True)

        def broken(policy=None):
            raise ValueError("odd")

        loop.reorder = broken
        with pytest.warns(UserWarning, match=r"open tasks keep their order \(ValueError: odd\)"):
            assert loop.rollback().version == "v1"
        assert loop.learner.champion.version == loop.models.latest().version == "v1"
