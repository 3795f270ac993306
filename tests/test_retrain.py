"""What a retrain can do beside a plain fit: temperatures, warm starts, cold starts, odd classes; and what it tells."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hitl_nb import open_queue
from hitl_nb.errors import BadInput, FitFailed, ModelNotFound
from hitl_nb.evidence.calibration import calibration
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.learner.challenger import calibrated
from hitl_nb.loop import Loop, take_up

DIGITS, NUMBERS = load_digits(return_X_y=True)
#: a temperature came with scikit-learn 1.8
SKLEARN = tuple(map(int, sklearn.__version__.split(".")[:2]))
tempered = pytest.mark.skipif(SKLEARN < (1, 8), reason="scikit-learn 1.8 brought temperatures")


def rows(X, y, start=0, source="initial", **more):
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(np.shape(X)[1])])
    ids = [f"t{start + i:05d}" for i in range(len(frame))]
    return frame.assign(task_id=ids, label=list(y), source=source, outcome="approve", **more)


def digits(estimator=None, **options):
    learner = Learner(LogisticRegression(max_iter=2000) if estimator is None else estimator, min_samples=1, **options)
    learner.add(rows(DIGITS[:600], NUMBERS[:600]))
    return learner


# -- confidences -------------------------------------------------------------------------------------------------------


def off(model, n=1000):
    found = model.predict_proba(pd.DataFrame(DIGITS[-n:], columns=[f"x{i}" for i in range(64)]))
    return calibration(found.max(axis=1), model.classes_[found.argmax(axis=1)] == NUMBERS[-n:]).ece


@tempered
def test_a_temperature_brings_confidences_in_line_and_changes_no_answer(tmp_path):
    forest = RandomForestClassifier(30, random_state=0)  # far too modest
    plain, better = (digits(forest, calibrate=one).fit(force=True) for one in (False, True))
    frame = pd.DataFrame(DIGITS[600:], columns=[f"x{i}" for i in range(64)])
    assert (plain.model.predict(frame) == better.model.predict(frame)).all()
    assert off(better.model) < off(plain.model) / 2
    store = ModelStore(tmp_path)
    store.save(better, created_at="2026-01-01")
    loaded = store.load("v1").model
    np.testing.assert_array_equal(loaded.predict_proba(frame), better.model.predict_proba(frame))


@tempered
def test_a_temperature_needs_every_class_among_random_rows():
    learner = digits(calibrate=True)
    learner.add(rows([np.full(64, 99.0)] * 3, [10] * 3, start=9000, source="human_review"))  # a class nobody held out
    model = learner.fit(force=True).model
    assert isinstance(model, LogisticRegression)
    assert 10 in model.classes_


@tempered
def test_a_loop_taken_up_fits_anew_what_is_inside_a_temperature(tmp_path):
    with open_queue(":memory:") as queue:
        loop = Loop(
            queue, digits(LogisticRegression(C=0.5, max_iter=2000), calibrate=True), models=ModelStore(tmp_path)
        )
        loop.retrain(force=True)
        again = take_up(queue, tmp_path).learner
        assert (type(again.estimator), again.estimator.C, again.calibrate) == (LogisticRegression, 0.5, True)
        assert not hasattr(again.estimator, "classes_")


@tempered
def test_a_model_whose_answers_a_temperature_would_change_keeps_its_confidences():
    rng = np.random.default_rng(0)
    X, y = DIGITS + rng.normal(size=DIGITS.shape) * 6, NUMBERS
    model = SGDClassifier(loss="modified_huber", random_state=0).fit(
        X[:600], y[:600]
    )  # many scores give the same share
    found = calibrated(model, X[600:900], y[600:900])
    assert (found.predict_proba(X[900:]).argmax(1) == model.predict_proba(X[900:]).argmax(1)).all()


# -- where a fit begins ------------------------------------------------------------------------------------------------


def iterations(model):
    return int(model[-1].n_iter_.max())


def test_a_warm_start_goes_on_from_the_model_in_use():
    made = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    cold, warm = digits(made), digits(made, warm=True)
    for learner in (cold, warm):
        learner.promote(learner.fit(force=True))
        learner.add(rows(DIGITS[600:610], NUMBERS[600:610], start=600, source="human_review"))
    before = warm.champion.model[-1].coef_.copy()
    second, first = warm.fit(force=True).model, cold.fit(force=True).model
    assert iterations(second) < iterations(first) / 2
    assert (warm.champion.model[-1].coef_ == before).all()


def test_a_new_class_in_corrections_is_learned_also_by_a_warm_start():
    learner = digits(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), warm=True)
    learner.promote(learner.fit(force=True))
    learner.add(rows([np.full(64, 16.0)] * 5, [77] * 5, start=9000, source="human_review"))
    model = learner.fit().model
    assert 77 in model.classes_
    found = learner.compare(learner.fit(force=True))
    assert found.n == len(learner.holdout_rows)
    assert "77" not in [one.label for one in found.classes]  # nobody held one out: nothing is said of it


@pytest.mark.parametrize("estimator", [GaussianNB(), RandomForestClassifier()])
def test_what_has_no_warm_start_is_refused(estimator):
    with pytest.raises(BadInput, match="warm"):
        Learner(estimator, warm=True)


# -- cold starts, and few of a kind ------------------------------------------------------------------------------------


def test_without_labels_the_first_questions_are_random_and_the_first_answers_make_a_model():
    learner = Learner(LogisticRegression(max_iter=2000), min_samples=20)
    pool = pd.DataFrame(DIGITS, columns=[f"x{i}" for i in range(64)])
    asked = learner.select(pool, 60)
    assert len(set(asked)) == 60
    learner.add(rows(DIGITS[asked], NUMBERS[asked], source="human_review"))
    learner.promote(learner.fit())
    assert (learner.predict(pool)["label"].to_numpy() == NUMBERS).mean() > 0.6


def test_a_single_class_is_no_model_yet_and_changes_nothing():
    learner = Learner(LogisticRegression(), min_samples=1)
    learner.add(rows([[1.0], [2.0]], ["a", "a"], source="human_review"))
    with pytest.raises(FitFailed, match="class"):
        learner.fit()
    assert (learner.champion, learner.counted) == (None, 2)
    learner.add(rows([[9.0]], ["b"], start=5, source="human_review"))
    learner.promote(learner.fit())
    assert learner.predict([[0.0], [10.0]])["label"].tolist() == ["a", "b"]


def test_one_in_a_thousand_is_found_with_balanced_weights_and_named_as_unproven():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(6000) % 1000 < 2, "rare", "common")
    X = rng.normal(size=(6000, 3)) + 3 * (y == "rare")[:, None]
    learners = [Learner(LogisticRegression(), weighting=one, min_samples=1) for one in ("ones", "class_balanced")]
    for learner in learners:
        learner.add(rows(X[:5000], y[:5000]))
        learner.promote(learner.fit(force=True))
    found = [
        (learner.champion.model.predict(pd.DataFrame(X, columns=["x0", "x1", "x2"])) == "rare") for learner in learners
    ]
    few, many = (one[y == "rare"].mean() for one in found)
    assert many >= max(few, 0.9)
    comparison = learners[1].compare(learners[1].fit(force=True))
    assert {one.label: one.state for one in comparison.classes}["rare"] == "few"


def test_text_is_learned_through_a_pipeline():
    words = CountVectorizer()
    estimator = make_pipeline(words, LogisticRegression())
    with open_queue(":memory:") as queue:
        loop = Loop(queue, Learner(estimator, features=lambda frame: frame["text"], min_samples=4))
        for text, label in [
            ("win a prize", "spam"),
            ("prize inside", "spam"),
            ("see you", "ham"),
            ("lunch with you", "ham"),
        ]:
            task = queue.submit(
                input_data={"text": text}, ai_prediction={"label": label}, confidence=0.5, reason="first"
            )
            queue.resolve(task.task_id, "ann", "approve")
        loop.refresh()
        assert loop.retrain().promoted
        said = loop.learner.predict(pd.DataFrame({"text": ["a prize", "you"]}))
        assert said["label"].tolist() == ["spam", "ham"]


# -- what it tells -----------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(tmp_path):
    with open_queue(":memory:") as queue:
        loop = Loop(queue, digits(), models=ModelStore(tmp_path))
        loop.retrain(force=True)
        loop.learner.add(rows(DIGITS[600:900], NUMBERS[600:900], start=600, source="human_review"))
        yield loop, loop.retrain(force=True)


def test_a_report_is_a_frame_and_a_plot(compared):
    _, report = compared
    frame = report.frame
    assert sorted(frame["class"]) == [*map(str, range(10)), "all"]
    assert frame["n"].iloc[0] == frame["n"].iloc[1:].sum() == report.comparison.n
    assert frame["state"].iloc[0] == report.comparison.verdict
    ax = report.plot()
    assert ax.get_title() == "v2 against v1"
    assert ax.get_yticklabels()[0].get_text() == f"all ({report.comparison.n})"
    assert "their weights let them count like" in repr(report)


def test_two_stored_models_are_told_apart_by_what_differs(compared):
    loop, _ = compared
    found = loop.models.diff("v1", "v2")
    assert found.loc["n_rows"].tolist() == [400, 700]
    assert found.loc["rows of its own"].tolist() == [0, 300]
    assert found.loc["reviewed_rows"].tolist() == [0, 300]
    assert found.loc["looks"].tolist() == [0, 1]
    assert "strategy" not in found.index
    with pytest.raises(ModelNotFound):
        loop.models.diff("v1", "v9")
