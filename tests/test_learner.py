"""The learner on real data: what is asked, what trains, what is held out, what a failure leaves."""

from __future__ import annotations

import enum
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from hitl_nb.errors import BadInput, FitFailed, LearnerError, NotEnoughSamples
from hitl_nb.learner import (
    STRATEGIES,
    WEIGHTINGS,
    Learner,
    check_strategy,
    check_weighting,
    effective_size,
    fit_weights,
    lure,
    on_rows,
    score_pool,
    select,
)
from hitl_nb.learner.weighting import fit_weighted

RNG = np.random.default_rng(0)
CANCER, BENIGN = load_breast_cancer(return_X_y=True)
DIGITS, NUMBERS = load_digits(return_X_y=True)


def table(X, y, source="human_review", outcome="approve", confidence=0.5, start=0, **more):
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(np.shape(X)[1])])
    ids = [f"t{start + i:05d}" for i in range(len(frame))]
    rest = {"label": y, "confidence": confidence, "source": source, "outcome": outcome}
    return frame.assign(task_id=ids, **rest, **more)


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def cancer_learner(**options):
    learner = Learner(logistic(), **{"min_samples": 100, **options})
    learner.add(table(CANCER[:200], BENIGN[:200], source="initial", outcome=None))
    learner.add(table(CANCER[200:320], BENIGN[200:320], start=200))
    return learner


class Moody(ClassifierMixin, BaseEstimator):
    """Fits until told not to; takes weights and keeps them."""

    broken = False

    def fit(self, X, y, sample_weight=None):
        if Moody.broken:
            raise RuntimeError("out of memory")
        self.classes_, self.weights_, self.ids_ = np.unique(y), sample_weight, list(np.asarray(X)[:, 0])
        return self

    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture
def moody():
    Moody.broken = False
    yield Moody()
    Moody.broken = False


# -- strategies and weightings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_the_rules(name):
    check_strategy(STRATEGIES[name])


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_every_weighting_keeps_the_rules(name):
    check_weighting(WEIGHTINGS[name])


@pytest.mark.parametrize(
    "broken",
    [
        lambda p, rng: p,
        lambda p, rng: p.max(axis=1)[:1],
        lambda p, rng: np.log(p.min(axis=1) * 0),
        lambda p, rng: np.random.random(len(p)),
        lambda p, rng: np.arange(len(p)),
        lambda p, rng: p.sort(axis=1) or p[:, 0],
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_strategy_that_breaks_a_rule_is_named(broken):
    with pytest.raises(LearnerError, match="breaks a rule"):
        check_strategy(broken)


@pytest.mark.parametrize("broken", [lambda c: c[:1], lambda c: c, lambda c: np.zeros(len(c)), lambda c: c * 0 - 1])
def test_a_weighting_that_breaks_a_rule_is_named(broken):
    with pytest.raises(LearnerError, match="breaks a rule"):
        check_weighting(broken)


@pytest.mark.parametrize(
    "broken",
    [lambda r: np.ones(3), lambda r: r["label"].map({"a": -1.0}), lambda r: r.pop("label").map(len), lambda r: r["x"]],
)
def test_a_weighting_of_rows_that_breaks_a_rule_is_named(broken):
    with pytest.raises((LearnerError, KeyError), match=r"breaks a rule|x"):
        check_weighting(on_rows(broken))


def test_weightings_of_rows_reach_the_fit(moody):
    rows = table([[1.0], [2.0], [3.0], [4.0]], [0, 0, 0, 1], confidence=[0.9, 0.5, 0.5, 0.5])
    rows = rows.assign(
        outcome=["correct", "approve", "correct", "approve"], review_probability=[0.5, 1.0, np.nan, 0.25]
    )
    for weighting, raw in [
        ("correction_boost", [2.8, 1, 2, 1]),  # 1 + 2 x 0.9; approved: 1; 1 + 2 x 0.5
        ("class_balanced", [2 / 3, 2 / 3, 2 / 3, 2]),  # 4 / (2 x 3), 4 / (2 x 1)
        ("inverse_propensity", [2, 1, 1, 4]),
        (lure(10), 1 + 6 / np.array([9, 8, 7, 6]) * np.array([2 / 10 - 1, 1 / 9 - 1, 0, 4 / 7 - 1])),
        (on_rows(lambda found: found["x0"] * 1.0), [1, 2, 3, 4]),
    ]:
        learner = Learner(moody, weighting=weighting, min_samples=1, holdout=0.0)
        learner.add(rows)
        fitted = learner.fit()
        assert fitted.model.weights_ == pytest.approx(np.array(raw) / np.mean(raw))
        assert fitted.effective_size == pytest.approx(np.sum(raw) ** 2 / np.sum(np.square(raw)))


@pytest.mark.parametrize("odd", [0.0, -0.1, 1.1, "often"])
def test_an_impossible_probability_is_refused_by_its_task(moody, odd):
    with pytest.raises(BadInput, match=r"review_probability.*task r0|task"):
        Learner(moody).add(table([[1.0]], [0]).assign(review_probability=[odd]))


def test_a_probability_comes_back_with_its_row_and_makes_it_no_other_row(moody):
    learner = Learner(moody)
    assert "review_probability" not in learner.buffer.frame()
    rows = table([[1.0]], [0])
    learner.add(rows.assign(review_probability=0.02))
    assert learner.buffer.frame()["review_probability"].tolist() == [0.02]
    assert learner.add(rows) == 0


WITHIN = {
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
    "calibrated pipeline": CalibratedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression()), cv=2),
    "pipeline of calibrated": make_pipeline(StandardScaler(), CalibratedClassifierCV(LogisticRegression(), cv=2)),
    "search": GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("estimator", WITHIN.values(), ids=WITHIN)
def test_weights_reach_the_classifier_inside(estimator):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 2)), np.arange(80) % 2
    whole = clone(estimator).fit(X, y).predict_proba(X)
    heavy = fit_weighted(clone(estimator), X, y, np.where(y == 1, 50.0, 1.0)).predict_proba(X)
    assert np.abs(whole[:, 1].mean() - 0.5) < 0.05
    assert heavy[:, 1].mean() > 0.9  # the fifty times heavier class


def test_margin_inverse_confidence_by_hand_and_not_the_order_of_least_confident():
    p = np.array([[0.60, 0.40, 0.00], [0.58, 0.21, 0.21], [0.90, 0.05, 0.05]])
    # (1 - 0.20) / 0.61, (1 - 0.37) / 0.59, (1 - 0.85) / 0.91
    scores = STRATEGIES["margin_inverse_confidence"](p, RNG)
    assert scores == pytest.approx([0.80 / 0.61, 0.63 / 0.59, 0.15 / 0.91])
    assert select(scores, 3).tolist() == [0, 1, 2]
    assert select(STRATEGIES["least_confident"](p, RNG), 3).tolist() == [1, 0, 2]


def test_times_the_least_confident_score_it_would_order_like_least_confident():
    p = RNG.dirichlet(np.ones(5), size=400)
    least = STRATEGIES["least_confident"](p, RNG)
    assert np.array_equal(select(least / (p.max(axis=1) + 0.01), 400), select(least, 400))


@given(st.lists(st.sampled_from([0.1, 0.5, 0.5, math.nan]), min_size=1, max_size=30), st.randoms())
def test_the_same_batch_comes_whatever_the_order_of_the_rows(scores, shuffler):
    ids = np.array([f"id{i}" for i in range(len(scores))])
    order = list(range(len(scores)))
    shuffler.shuffle(order)
    here, there = select(scores, 5, ids), select(np.array(scores)[order], 5, ids[order])
    assert ids[here].tolist() == ids[order][there].tolist()
    assert len(here) == min(5, len(scores))


def test_integer_ids_are_ordered_as_numbers():
    assert select([1.0, 1.0, 1.0], 2, [10, 9, 100]).tolist() == [1, 0]


def test_rows_that_cannot_be_judged_come_first():
    p = np.array([[0.5, 0.5], [math.nan, math.nan], [0.9, 0.1], [math.inf, 0.0]])
    given = {"X": np.eye(4), "labelled": np.eye(4)[:1], "n": 3, "votes": np.full((4, 2, 2), 0.5), "labels": [0, 1]}
    for strategy in STRATEGIES.values():
        assert set(select(score_pool(strategy, p, RNG, **given), 2).tolist()) == {1, 3}


@pytest.mark.parametrize("n", [-1, 1.5, True])
def test_a_batch_size_that_is_none_is_refused(n):
    with pytest.raises(BadInput):
        select([1.0], n)


def test_selecting_from_nothing_is_nothing():
    assert select([], 3).tolist() == []
    assert score_pool(STRATEGIES["margin"], np.empty((0, 3)), RNG).tolist() == []


def test_fit_weights_are_capped_and_of_mean_one():
    assert fit_weights([2.0, 100.0]).tolist() == [2 / 6, 10 / 6]  # capped 2 and 10, mean 6
    assert effective_size(fit_weights([2.0, 100.0])) == pytest.approx(12**2 / (4 + 100))


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50))
def test_weights_of_a_fit_have_mean_one_and_carry_no_more_than_their_rows(raw):
    weights = fit_weights(raw)
    assert weights.mean() == pytest.approx(1)
    assert 1 - 1e-9 <= effective_size(weights) <= len(raw) + 1e-9


@pytest.mark.parametrize("raw", [[-1.0], [math.nan], [math.inf], [0.0, 0.0]])
def test_weights_no_fit_can_use_are_refused(raw):
    with pytest.raises(BadInput):
        fit_weights(raw)


# -- what is stored ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"label": [None, 1]}, "t00000"),
        ({"label": [0, "one"]}, "mix text and numbers"),
        ({"weight": [1.0, -2.0]}, "-2.0"),
        ({"weight": [1.0, math.nan]}, "nan"),
        ({"confidence": [0.5, 1.5]}, "1.5"),
        ({"confidence": [0.5, "high"]}, "high"),
        ({"outcome": ["approve", "maybe"]}, "maybe"),
        ({"outcome": ["approve", None]}, "must be one of approve, reject, correct"),
        ({"source": ["human_review", "rumour"]}, "rumour"),
        ({"task_id": ["a", None]}, "task_id"),
    ],
)
def test_bad_input_is_refused_by_value_and_nothing_is_stored(change, shown):
    learner = Learner(logistic())
    learner.add(table([[9.0]], [1], start=77))
    with pytest.raises(BadInput, match=shown):
        learner.add(table([[1.0], [2.0]], [0, 1]).assign(**change))
    assert learner.buffer.frame()["task_id"].tolist() == ["t00077"]


@pytest.mark.parametrize("missing", ["task_id", "label", "source", "outcome"])
def test_a_missing_column_is_named(missing):
    with pytest.raises(BadInput, match=missing):
        Learner(logistic()).add(table([[1.0]], [0]).drop(columns=missing))


def test_other_feature_columns_later_are_named():
    learner = Learner(logistic())
    learner.add(table([[1.0, 2.0]], [0]))
    with pytest.raises(BadInput, match=r"missing: x1.*new: age"):
        learner.add(table([[1.0, 2.0]], [0]).rename(columns={"x1": "age"}))
    with pytest.raises(BadInput, match="x1"):
        learner.buffer.inputs(pd.DataFrame({"x0": [1.0]}))


def test_a_frame_that_is_none_and_features_that_describe_the_label_are_refused():
    with pytest.raises(BadInput, match="DataFrame"):
        Learner(logistic()).add([{"task_id": "a"}])
    with pytest.raises(BadInput, match="confidence"):
        Learner(logistic(), features=["confidence"])


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "best"},
        {"weighting": "loud"},
        {"rejects": "keep"},
        {"holdout": 0.7},
        {"held_reviews": 1.1},
        {"min_samples": 0},
    ],
)
def test_options_that_are_none_are_refused(options):
    with pytest.raises(BadInput):
        Learner(logistic(), **options)


def test_an_estimator_without_probabilities_is_refused_with_a_remedy():
    with pytest.raises(BadInput, match="CalibratedClassifierCV"):
        Learner(Perceptron())


def test_adding_again_changes_nothing_and_a_later_row_replaces():
    learner = Learner(logistic(), min_samples=1)
    rows = table(CANCER[:50], BENIGN[:50])
    assert learner.add(rows) == 50
    assert learner.add(rows.sample(frac=1, random_state=0)) == 0
    assert learner.add(rows[rows.columns[::-1]].astype({"x0": object})) == 0
    assert learner.add(rows.head(3).assign(label=[7, *rows["label"][1:3]])) == 1
    assert learner.add(rows.tail(3).assign(weight=[9.0, 1 / 0.51, 1 / 0.51])) == 1
    assert learner.buffer.frame().set_index("task_id").loc["t00000", "label"] == 7
    assert learner.counted == 50
    more = pd.concat([rows[10:15], table(CANCER[50:52], BENIGN[50:52], start=50)])
    assert learner.add(more) == 2


def test_a_gap_is_the_same_however_it_is_written():
    learner = Learner(logistic())
    rows = table([[1.0], [2.0]], ["a", "b"]).assign(town=["Ulm", None], age=[3.0, math.nan])
    assert learner.add(rows) == 2
    again = rows.assign(town=pd.Series(["Ulm", None], dtype=object), age=pd.array([3, None], dtype="Int64"))
    assert learner.add(again) == 0
    assert learner.add(again.head(1).assign(town=None)) == 1


def test_a_number_is_the_same_whatever_stands_beside_it():
    learner = Learner(logistic())
    learner.add(table([[1.0]], ["a"]))
    beside = pd.concat([table([[1]], ["a"]), table([["far"]], ["b"], start=1), table([[10**400]], ["b"], start=2)])
    assert learner.add(beside) == 2
    assert learner.add(beside) == 0


@pytest.mark.parametrize("label", [["a", "b"], {"a": 1}, math.inf, 2**70, 1e300])
def test_a_label_that_no_model_can_learn_is_refused_with_its_task(label):
    for rejects in ("drop", "label"):
        learner = Learner(logistic(), rejects=rejects)
        with pytest.raises(BadInput, match="task t00001"):
            learner.add(table([[1.0], [2.0]], pd.Series([0, label], dtype=object)))


def test_one_one_point_nought_and_true_are_one_label_and_text_is_another_kind():
    learner = Learner(logistic(), min_samples=1)
    learner.add(table([[1.0], [1.1], [1.2], [0.0]], pd.Series([1, 1.0, True, 0], dtype=object)))
    assert learner.fit().model.classes_.tolist() == [0, 1]
    with pytest.raises(BadInput, match=r"'1': labels mix text and numbers.*t00009"):
        learner.add(table([[1.0]], ["1"], start=9))


@pytest.mark.parametrize("confidence", ["0.5", True])
def test_text_and_truth_are_no_confidence(confidence):
    with pytest.raises(BadInput, match="task t00000"):
        Learner(logistic()).add(table([[1.0]], [0], confidence=confidence))


def test_sync_lets_go_of_what_an_earlier_one_brought_and_of_nothing_else():
    learner = Learner(logistic())
    learner.add(table([[1.0]], [0], source="initial"))
    assert learner.sync(table([[2.0], [3.0]], [0, 1], start=1)) == 2
    assert learner.sync(table([[3.0], [4.0]], [1, 1], start=2)) == 2  # one gone, one new
    assert learner.sync(table([[3.0], [4.0]], [1, 0], start=2)) == 1
    assert learner.buffer.frame()["x0"].tolist() == [1.0, 3.0, 4.0]
    assert learner.sync(pd.DataFrame({"task_id": [], "label": [], "source": []})) == 2
    assert learner.buffer.frame()["x0"].tolist() == [1.0]


def test_of_two_rows_for_one_task_in_a_frame_the_later_one_stays():
    learner = Learner(logistic())
    assert learner.add(pd.concat([table([[1.0]], [0]), table([[1.0]], [1])])) == 1
    assert learner.buffer.frame()["label"].tolist() == [1]


def test_the_buffer_has_the_form_of_a_training_frame_and_keeps_raw_weights():
    class Outcome(enum.Enum):
        CORRECT = "correct"

    learner = Learner(logistic())
    learner.add(table([[1.0], [2.0], [3.0]], [0, 1, 1], confidence=[0.99, 0.49, math.nan], outcome=Outcome.CORRECT))
    frame = learner.buffer.frame()
    assert list(frame) == ["task_id", "x0", "label", "confidence", "weight", "source", "outcome"]
    assert frame["weight"].tolist() == [1.0, 2.0, 1 / 0.51]
    assert set(frame["outcome"]) == {"correct"}


# -- what trains -------------------------------------------------------------------------------------------------------


def outcomes(**options):
    learner = Learner(Moody(), min_samples=1, holdout=0.0, **options)
    kinds = [("approve", 0), ("correct", 1), ("reject", None), ("reject", 1)]
    learner.add(table([[float(i)] for i in range(4)], [label for _, label in kinds], outcome=[o for o, _ in kinds]))
    return learner, learner.fit(force=True)


def test_rejects_do_not_train_unless_they_are_a_label(moody):
    learner, challenger = outcomes()
    assert (learner.counted, challenger.n_rows, challenger.model.classes_.tolist()) == (0, 2, [0, 1])
    learner, challenger = outcomes(rejects="label")
    assert (challenger.n_rows, challenger.model.classes_.tolist()) == (4, ["0", "1", "rejected"])


def test_a_weight_reaches_the_fit_beside_its_row(moody):
    learner = Learner(moody, min_samples=1, holdout=0.0)
    learner.add(table([[1.0], [2.0]], [0, 1], confidence=[0.49, 0.24]))
    learner.add(table([[3.0]], [1], confidence=0.0, start=9))
    fitted = learner.fit().model
    assert fitted.ids_ == [1.0, 2.0, 3.0]
    assert fitted.weights_ == pytest.approx(np.array([2.0, 4.0, 10.0]) / (16 / 3))  # raw 2, 4, 100 capped at 10; mean 1


def test_given_weights_are_kept_and_other_weightings_look_at_confidence_only(moody):
    rows = table([[1.0], [2.0]], [0, 1], confidence=0.5, weight=[1.0, 3.0])
    for weighting, expected in [
        ("inverse_confidence", [0.5, 1.5]),
        ("ones", [1.0, 1.0]),
        (lambda c: c * 4, [1.0, 1.0]),
    ]:
        learner = Learner(moody, weighting=weighting, min_samples=1)
        learner.add(rows)
        assert learner.fit().model.weights_.tolist() == expected
        assert learner.buffer.frame()["weight"].tolist() == [1.0, 3.0]


def test_min_samples_counts_what_people_reviewed_and_would_train_since_the_last_fit(moody):
    learner = Learner(moody, min_samples=3)
    learner.add(table([[1.0], [2.0]], [0, 1], source="initial"))
    learner.add(table([[3.0]], [1], source="audit", start=10))
    learner.add(table([[4.0]], [1], outcome="reject", start=20))
    assert learner.counted == 0
    learner.add(table([[5.0], [6.0]], [0, 1], start=30))
    with pytest.raises(NotEnoughSamples, match="2 reviewed samples, 3 needed to retrain; review 1 more"):
        learner.fit()
    learner.add(table([[7.0]], [0], source="adjudication", start=40))
    assert learner.ready
    learner.fit()
    assert learner.counted == 0
    learner.add(learner.buffer.frame())
    assert learner.counted == 0
    learner.add(table([[5.0]], [1], start=30))  # corrected since
    assert learner.counted == 1


def test_a_fit_that_fails_leaves_everything_as_it_was(moody):
    learner = Learner(moody, min_samples=1)
    learner.add(table(DIGITS[:300, :3], NUMBERS[:300], source="initial", outcome=None))
    learner.add(table(DIGITS[300:340, :3], NUMBERS[300:340], start=300))
    Moody.broken = True
    before = (learner.champion, learner.counted, learner.looks, learner.buffer.rows, learner._held, learner._drawn)
    with pytest.raises(FitFailed, match="out of memory"):
        learner.fit()
    after = (learner.champion, learner.counted, learner.looks, learner.buffer.rows, learner._held, learner._drawn)
    assert all(a is b or a == b for a, b in zip(before, after, strict=True) if not isinstance(a, pd.DataFrame))
    assert before[3] is after[3]
    Moody.broken = False
    assert learner.fit().version == "v1"


def test_no_rows_at_all_is_not_enough_even_by_force():
    with pytest.raises(NotEnoughSamples):
        Learner(logistic()).fit(force=True)


def test_a_missing_weight_parameter_means_resampling_with_a_warning():
    learner = Learner(KNeighborsClassifier(1), min_samples=1)
    learner.add(table(CANCER[:60], BENIGN[:60], confidence=RNG.random(60)))
    with pytest.warns(UserWarning, match="resampled"):
        assert learner.fit().n_rows == 60


def test_the_same_rows_make_the_same_model_in_any_order():
    made = []
    for rows in (table(CANCER[:100], BENIGN[:100]), table(CANCER[:100], BENIGN[:100]).iloc[::-1]):
        learner = Learner(RandomForestClassifier(5), min_samples=1)
        learner.add(rows)
        made.append(learner.fit())
    assert made[0].data_hash == made[1].data_hash
    assert made[0].model.random_state == 0
    assert np.array_equal(*(one.model.predict_proba(learner.buffer.inputs(table(CANCER, BENIGN))) for one in made))
    learner.add(table(CANCER[:1], 1 - BENIGN[:1]))
    assert learner.fit(force=True).data_hash != made[0].data_hash


def test_one_class_alone_is_learned_or_refused_as_the_estimator_likes():
    learner = Learner(RandomForestClassifier(3), min_samples=1)
    learner.add(table([[1.0], [2.0]], ["a", "a"]))
    learner.promote(learner.fit())
    assert learner.predict([[5.0]])[["label", "confidence"]].to_numpy().tolist() == [["a", 1.0]]
    assert learner.select([[5.0], [6.0]], 5).tolist() == [0, 1]
    learner.estimator = LogisticRegression()
    with pytest.raises(FitFailed, match="one class"):
        learner.fit(force=True)


def test_an_estimator_whose_probabilities_fail_is_a_failed_fit():
    class Shy(Moody):
        def predict_proba(self, X):
            raise NotImplementedError("no probabilities here")

    learner = Learner(Shy(), min_samples=1)
    learner.add(table([[1.0], [2.0]], [0, 1]))
    with pytest.raises(FitFailed, match="no probabilities here"):
        learner.fit()
    assert learner.counted == 2


def test_a_weighting_of_ones_own_is_used_whatever_its_name(moody):
    def inverse_confidence(confidence):
        return np.arange(1.0, len(confidence) + 1)

    learner = Learner(moody, weighting=inverse_confidence, min_samples=1)
    learner.add(table([[1.0], [2.0], [3.0]], [0, 1, 1]))
    assert learner.fit().model.weights_.tolist() == [0.5, 1.0, 1.5]


# -- the holdout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initial", "held"),
    [(2000, 400), (1000, 200), (500, 200), (300, 150), (1, 0)],  # 20 %; at least 200; never more than half
)
def test_the_holdout_is_a_fifth_at_least_two_hundred_never_over_half(moody, initial, held):
    learner = Learner(moody)
    learner.add(table(RNG.random((initial, 1)), np.arange(initial) % 2, source="initial", outcome=None))
    assert learner.fit(force=True).n_rows == initial - held
    assert len(learner.holdout_rows) == held


def test_held_out_rows_and_audits_never_train_and_the_draw_stays(moody):
    learner = Learner(moody, min_samples=1)
    learner.add(table(np.arange(400.0)[:, None], np.arange(400) % 2, source="initial", outcome=None))
    audits = table(np.arange(1000.0, 1050)[:, None], np.arange(50) % 2, source="audit", start=1000, audit_rate=0.02)
    learner.add(audits)
    first = learner.fit(force=True)
    held = set(learner.holdout_rows["x0"])
    assert len(held) == 250
    assert held.isdisjoint(first.model.ids_)
    learner.add(table(np.arange(2000.0, 2400)[:, None], np.arange(400) % 2, source="initial", outcome=None, start=2000))
    a_held_one = learner.holdout_rows.head(1).reset_index().assign(source="human_review", outcome="correct")
    learner.add(a_held_one)
    second = learner.fit(force=True)
    assert set(learner.holdout_rows["x0"]) == held
    assert held.isdisjoint(second.model.ids_)
    assert (first.version, second.version, second.n_rows) == ("v1", "v2", 200 + 400)


def test_a_row_that_was_trained_on_never_joins_the_holdout(moody):
    learner = Learner(moody, min_samples=1)
    learner.add(table([[1.0], [2.0]], [0, 1]))
    learner.fit()
    learner.add(table([[1.0], [2.0]], [0, 1], source="audit"))
    learner.add(table([[3.0], [4.0]], [0, 1], start=5))
    assert len(learner.holdout_rows) == 0
    assert learner.fit(force=True).model.ids_ == [3.0, 4.0]  # but an audit does not train either


def test_a_row_that_becomes_an_audit_during_a_fit_does_not_join_the_holdout(moody):
    learner = Learner(moody, min_samples=1)
    learner.add(table([[1.0], [2.0]], [0, 1]))
    learner.fit(progress=lambda line: learner.add(table([[1.0]], [0], source="audit")))
    assert len(learner.holdout_rows) == 0


def test_of_the_reviews_the_share_of_the_audits_is_held_back_the_same_after_a_restart_with_any_seed():
    reviews = table(np.arange(4000.0)[:, None], np.arange(4000) % 2, audit_rate=0.05)
    first = Learner(logistic(), min_samples=1)
    first.add(reviews)
    made = first.fit()
    held = set(first.holdout_rows.index)
    assert len(held) == pytest.approx(4000 * 0.05, abs=3 * (4000 * 0.05 * 0.95) ** 0.5)
    assert held.isdisjoint(made.trained)
    assert len(held) + len(made.trained) == 4000
    second = Learner(logistic(), min_samples=1, seed=5)
    second.resume(made, [])
    second.add(reviews.iloc[::-1])
    assert set(second.holdout_rows.index) == held


@pytest.mark.parametrize("rate", [None, 0.0])
def test_without_an_audit_rate_audits_are_no_evidence_and_all_reviews_train(rate):
    learner = Learner(logistic())
    learner.add(table(np.zeros((50, 1)), [0, 1] * 25, source="audit", audit_rate=rate))
    learner.add(table(np.zeros((50, 1)), [0, 1] * 25, start=50, audit_rate=rate))
    assert (len(learner.holdout_rows), learner.counted) == (0, 50)


@pytest.mark.parametrize("source", ["audit", "human_review"])
def test_where_audit_rates_change_each_row_counts_with_the_chance_of_the_least(source):
    learner = Learner(logistic())
    n = {0.2: 2000, 0.05: 8000} if source == "human_review" else {0.2: 2000, 0.05: 500}
    for start, (rate, rows) in zip((0, 2000), n.items(), strict=True):
        learner.add(table(np.zeros((rows, 1)), [0, 1] * (rows // 2), source, start=start, audit_rate=rate))
    early = learner.holdout_rows.index < "t02000"
    chance = 0.05 if source == "human_review" else 0.05 / 0.2
    assert early.sum() == pytest.approx(2000 * chance, abs=3 * (2000 * chance) ** 0.5)
    assert (~early).sum() == pytest.approx(n[0.05] * 0.05 if source == "human_review" else 500, abs=60)


def test_more_audits_than_the_share_of_the_holdout_take_no_more_than_that_from_the_fit():
    learner = Learner(logistic(), held_reviews=0.1)
    learner.add(table(np.zeros((1000, 1)), [0, 1] * 500, audit_rate=1.0))
    learner.add(table(np.zeros((1000, 1)), [0, 1] * 500, "audit", start=1000, audit_rate=1.0))
    assert learner.counted == pytest.approx(900, abs=30)
    assert len(learner.holdout_rows) == pytest.approx(200, abs=42)


def test_where_no_reviews_may_be_held_back_audits_are_no_evidence_either():
    learner = Learner(logistic(), held_reviews=0)
    learner.add(table(np.zeros((100, 1)), [0, 1] * 50, audit_rate=0.5))
    learner.add(table(np.zeros((100, 1)), [0, 1] * 50, "audit", start=100, audit_rate=0.5))
    assert (learner.counted, len(learner.holdout_rows)) == (100, 0)


def test_an_audit_rate_that_is_known_only_later_counts_from_then_on():
    learner, reviews = Learner(logistic()), table(np.zeros((400, 1)), [0, 1] * 200)
    assert learner.sync(reviews) == learner.counted == 400
    assert learner.sync(reviews.assign(audit_rate=0.1)) == 0
    assert 0 < len(learner.holdout_rows) == 400 - learner.counted
    assert "audit_rate" in learner.buffer.frame()


@pytest.mark.parametrize("rate", [-0.1, 1.1, "often"])
def test_an_audit_rate_outside_0_to_1_is_refused_by_task(rate):
    with pytest.raises(BadInput, match=r"audit_rate.*t00000"):
        Learner(logistic()).add(table([[0.0]], [0], audit_rate=rate))


def test_the_draw_hangs_on_seed_and_ids_not_on_the_order_of_rows():
    def held(seed, rows):
        learner = Learner(logistic(), seed=seed)
        learner.add(rows)
        return set(learner.holdout_rows.index)

    rows = table(CANCER, BENIGN, source="initial")
    assert held(1, rows) == held(1, rows.iloc[::-1])
    assert held(1, rows) != held(2, rows)


# -- champion and challenger -------------------------------------------------------------------------------------------


def test_compare_counts_its_looks_and_promote_and_rollback_move_the_champion():
    learner = cancer_learner()
    with pytest.raises(LearnerError, match="promote the first"):
        learner.compare(learner.fit())
    first = learner.fit(force=True)
    learner.promote(first)
    learner.add(table(CANCER[320:450], BENIGN[320:450], start=320))
    second = learner.fit()
    result = learner.compare(second)
    truth = learner.holdout_rows["label"].to_numpy(int)
    wrong = [side.model.predict(learner.buffer.inputs(learner.holdout_rows)) != truth for side in (first, second)]
    assert result.difference == pytest.approx(wrong[1].mean() - wrong[0].mean())
    assert (learner.looks, result.n, learner.champion) == (1, 100, first)
    learner.promote(second)
    assert learner.rollback() is first
    with pytest.raises(LearnerError, match="no earlier"):
        learner.rollback()


def test_each_look_asks_for_more_and_names_each_class():
    learner = cancer_learner()
    learner.promote(learner.fit(force=True))
    again = learner.fit(force=True)
    first, second = learner.compare(again), learner.compare(again)
    assert (first.level, second.level) == (0.975, pytest.approx(1 - 0.05 / 6))
    assert second.high > first.high
    assert second.labels_needed > first.labels_needed > 0
    assert sorted(one.label for one in second.classes) == sorted(set(map(str, learner.holdout_rows["label"])))


def test_without_a_holdout_the_verdict_is_undecided(moody):
    learner = Learner(moody, min_samples=1)
    learner.add(table([[1.0], [2.0]], [0, 1]))
    learner.promote(learner.fit())
    assert learner.compare(learner.fit(force=True)).verdict == "undecided"


def test_without_a_holdout_no_model_is_asked():
    learner = Learner(LogisticRegression(), features=lambda frame: csr_matrix(frame.to_numpy()), min_samples=1)
    learner.add(table([[1.0], [2.0]], [0, 1]))
    learner.promote(learner.fit())
    assert learner.compare(learner.fit(force=True)).n == 0


def test_a_fitted_estimator_is_the_champion_from_the_start():
    model = logistic().fit(CANCER, BENIGN)
    learner = Learner(model, min_samples=1)
    learner.add(table(CANCER[:50], BENIGN[:50]))
    assert (learner.champion.version, learner.champion.model) == ("v1", model)
    assert learner.fit().version == "v2"


def test_a_label_seen_first_in_an_answer_counts_against_the_champion_and_is_learned():
    learner = cancer_learner()
    learner.promote(learner.fit())
    held = (
        learner.holdout_rows.head(10).reset_index().assign(label=2, source="audit", outcome="correct", audit_rate=0.02)
    )
    learner.add(held)
    learner.add(table(CANCER[320:450], np.full(130, 2), start=320))
    second = learner.fit()
    assert second.model.classes_.tolist() == [0, 1, 2]
    result = learner.compare(second)
    assert result.only_champion_wrong + result.only_challenger_wrong > 0
    assert result.n == 100


def test_a_champion_of_numbers_is_compared_on_text_labels_as_equal():
    champion = LogisticRegression().fit(pd.DataFrame({"x0": [0.0, 1.0]}), [0, 1])
    learner = Learner(champion, rejects="label", min_samples=1)
    learner.add(table([[0.0], [1.0]] * 50, [0, 1] * 50))
    learner.add(table([[0.0], [1.0]], [0, 1], source="audit", start=200, audit_rate=0.02))
    result = learner.compare(learner.fit())
    assert (result.n, result.difference) == (2, 0)


def test_a_reject_among_the_audits_has_no_label_and_is_not_compared_on(moody):
    learner = Learner(moody)
    learner.add(table([[1.0], [2.0]], [0, None], source="audit", outcome=["approve", "reject"], audit_rate=0.02))
    assert len(learner.holdout_rows) == 1


# -- asking and answering ----------------------------------------------------------------------------------------------


def test_select_asks_where_the_champion_doubts_and_never_what_is_held_out():
    learner = cancer_learner()
    learner.promote(learner.fit())
    pool = table(CANCER[320:], BENIGN[320:], start=320)
    p = learner.champion.model.predict_proba(learner.buffer.inputs(pool)).max(axis=1)
    assert learner.select(pool, 5).tolist() == np.argsort(p, kind="stable")[:5].tolist()
    learner.add(pool.head(40).assign(source="audit"))
    assert set(learner.select(pool, 1000)) == set(range(40, len(pool)))
    unnamed = pool.drop(columns="task_id")
    assert len(learner.select(unnamed, 1000)) == len(pool)
    assert learner.select(unnamed[learner.buffer.columns].to_numpy(), 5).tolist() == learner.select(unnamed, 5).tolist()


def test_the_same_pool_gives_the_same_batch_in_any_order():
    learner = Learner(KNeighborsClassifier(3), weighting="ones", min_samples=1)  # 3 neighbours: many equal scores
    learner.add(table(DIGITS[:300], NUMBERS[:300]))
    learner.promote(learner.fit())
    pool = table(DIGITS[300:900], NUMBERS[300:900], start=300)
    mixed = pool.sample(frac=1, random_state=1)
    one, other = (list(rows["task_id"].iloc[learner.select(rows, 20)]) for rows in (pool, mixed))
    assert one == other


def test_ids_that_do_not_fit_the_pool_are_refused():
    learner = cancer_learner()
    learner.promote(learner.fit())
    for ids in (["a"], list("abcd")):
        with pytest.raises(BadInput, match="one id for each of the 3 rows"):
            learner.select(CANCER[:3], 3, ids=ids)


def test_a_fitted_estimator_answers_before_any_row_came_and_no_rows_are_no_answers():
    pool = pd.DataFrame(CANCER[:5], columns=[f"x{i}" for i in range(30)])
    learner = Learner(logistic().fit(pool.assign(x0=range(5)), [0, 1, 0, 1, 0]))
    assert len(learner.predict(pool)) == 5
    assert list(learner.predict(pool.head(0))) == ["label", "confidence", "model"]
    assert sorted(learner.select(pool, 9)) == [0, 1, 2, 3, 4]


def test_without_a_champion_select_is_random_by_seed():
    pool = table(CANCER, BENIGN)
    batches = [Learner(logistic(), seed=seed).select(pool, 10).tolist() for seed in (1, 1, 2)]
    assert batches[0] == batches[1] != batches[2]


def test_a_gap_that_the_model_refuses_goes_to_a_person():
    learner = cancer_learner()
    learner.promote(learner.fit())
    rows = table(CANCER[:4], BENIGN[:4])
    rows.loc[2, "x3"] = math.nan
    answers = learner.predict(rows)
    assert answers["confidence"].isna().tolist() == [False, False, True, False]
    assert answers["label"].isna().tolist() == [False, False, True, False]
    assert learner.select(rows, 1, ids=list("dcba")).tolist() == [2]


def test_predict_gives_label_confidence_and_model_by_the_index_of_the_frame():
    learner = cancer_learner()
    with pytest.raises(LearnerError, match="no model in use"):
        learner.predict(table(CANCER[:2], BENIGN[:2]))
    learner.promote(learner.fit())
    rows = table(CANCER[320:], BENIGN[320:]).set_index("task_id")
    answers = learner.predict(rows, probabilities=True)
    assert list(answers) == ["label", "confidence", "model", "probabilities"]
    assert answers.index.equals(rows.index)
    assert (answers["label"].to_numpy() == BENIGN[320:]).mean() > 0.9
    assert all(max(p.values()) == c for p, c in zip(answers["probabilities"], answers["confidence"], strict=True))
    assert set(answers["model"]) == {"v1"}


# -- features ----------------------------------------------------------------------------------------------------------


def mixed_rows():
    frame = table(CANCER[:200, :2], np.where(BENIGN[:200], "benign", "malignant"))
    return frame.assign(town=np.where(RNG.random(200) < 0.5, "A", "B"), tags=[["t"]] * 200)


def test_by_default_every_scalar_column_is_a_feature_in_stored_order():
    encode = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    learner = Learner(make_pipeline(encode, HistGradientBoostingClassifier(max_iter=5)), min_samples=1)
    learner.add(mixed_rows())
    assert learner.buffer.columns == ["x0", "x1", "town"]
    learner.add(mixed_rows()[["town", "x1", "x0", "label", "task_id", "source", "outcome"]])
    assert learner.buffer.columns == ["x0", "x1", "town"]
    assert learner.fit().model.classes_.tolist() == ["benign", "malignant"]


@pytest.mark.parametrize("name", ["hash", "index", "version", "label "])
def test_a_field_may_have_any_name_that_no_fact_has(name):
    learner = Learner(logistic(), min_samples=1)
    learner.add(table(CANCER[:40, :1], BENIGN[:40]).rename(columns={"x0": name}))
    assert learner.buffer.frame()[name].tolist() == CANCER[:40, 0].tolist()
    assert learner.add(learner.buffer.frame()) == 0
    assert learner.fit().model.feature_names_in_.tolist() == [name]


def test_a_name_that_stands_twice_is_refused():
    rows = table([[1.0, 2.0]], [0]).rename(columns={"x1": "x0"})
    with pytest.raises(BadInput, match=r"\['x0'\]: these names stand twice"):
        Learner(logistic()).add(rows)


def test_features_may_be_columns_or_a_function():
    by_name = Learner(logistic(), features=["x1"], min_samples=1)
    by_function = Learner(logistic(), features=lambda frame: frame[["x1"]].to_numpy() ** 2, min_samples=1)
    for learner, n in [(by_name, 1), (by_function, 1)]:
        learner.add(mixed_rows())
        assert learner.fit().model.n_features_in_ == n
    assert by_name.buffer.columns == ["x1"]


def test_progress_is_told_and_a_learner_can_be_shown():
    lines = []
    learner = cancer_learner()
    learner.fit(progress=lines.append)
    assert "fitting Pipeline to 220 rows" in lines[0]
    assert "champion=None, 0 of 100 reviewed" in repr(learner)
