"""modAL on current scikit-learn: teach() is really called, weights survive, a failure changes nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from modAL.models import ActiveLearner
from modAL.uncertainty import margin_sampling
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import hitl_nb.learner
from hitl_nb.errors import BadInput
from hitl_nb.learner import modal
from hitl_nb.learner.modal import WeightedActiveLearner
from hitl_nb.learner.weighting import fit_weighted, weight_parameters

X, Y = load_iris(return_X_y=True)
SOME = np.arange(0, 150, 5)


class Brittle(ClassifierMixin, BaseEstimator):
    """An estimator that breaks on label 2."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = len(y)
        if 2 in y:
            raise RuntimeError("no twos")
        return self


class Recorder(ClassifierMixin, BaseEstimator):
    """An estimator that keeps what it was given."""

    def fit(self, X, y, sample_weight=None):
        self.rows_, self.weights_ = X[:, 0], sample_weight
        return self


def state(learner):
    return learner.estimator, learner.X_training, learner.y_training, learner.sample_weight


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=500),
        RandomForestClassifier(10, random_state=0),
        make_pipeline(StandardScaler(), GaussianNB()),
    ],
)
def test_teach_really_teaches(estimator):
    learner = WeightedActiveLearner(estimator, margin_sampling, X[SOME], Y[SOME])
    before = learner.score(X, Y)
    for _ in range(5):
        chosen, _ = learner.query(X, n_instances=4)
        learner.teach(X[chosen], Y[chosen])
    assert learner.X_training.shape == (len(SOME) + 20, 4)
    assert learner.score(X, Y) >= min(before, 0.93)


def test_modal_alone_breaks_or_works_but_ours_always_works():
    digits, labels = load_digits(return_X_y=True)
    learner = WeightedActiveLearner(LogisticRegression(max_iter=2000))
    learner.teach(digits[:200], labels[:200])
    learner.teach(digits[200:400], labels[200:400])
    assert learner.score(digits[400:], labels[400:]) > 0.85
    assert isinstance(learner, ActiveLearner)


def test_a_weight_stays_with_its_row():
    learner = WeightedActiveLearner(
        LogisticRegression(), X_training=X[:60], y_training=Y[:60], sample_weight=np.arange(60) + 1
    )
    learner.teach(X[60:62], Y[60:62], sample_weight=[70.0, 80.0])
    learner.teach(X[62:63], Y[62:63])
    assert learner.sample_weight.tolist() == [*range(1, 61), 70.0, 80.0, 1.0]
    same = LogisticRegression().fit(X[:63], Y[:63], sample_weight=learner.sample_weight)
    assert np.array_equal(same.coef_, learner.estimator.coef_)


@pytest.mark.parametrize("call", ["fit", "teach"])
def test_a_fit_that_raises_changes_nothing(call):
    learner = WeightedActiveLearner(Brittle(), X_training=X[:80], y_training=Y[:80])
    before = state(learner)
    with pytest.raises(RuntimeError, match="no twos"):
        getattr(learner, call)(X[100:110], Y[100:110])
    assert all(a is b for a, b in zip(state(learner), before, strict=True))
    assert learner.estimator.seen_ == 80


def test_only_new_goes_on_from_a_copy():
    learner = WeightedActiveLearner(Brittle(), X_training=X[:80], y_training=Y[:80])
    with pytest.raises(RuntimeError):
        learner.teach(X[100:110], Y[100:110], only_new=True)
    assert learner.estimator.seen_ == 80
    learner.teach(X[:7], Y[:7], only_new=True)
    assert (learner.estimator.seen_, len(learner.y_training)) == (7, 80)


def test_a_bootstrap_takes_the_weights_along_and_is_seeded():
    def fitted(seed, weights):
        learner = WeightedActiveLearner(LogisticRegression(), seed=seed)
        learner.fit(X, Y, bootstrap=True, sample_weight=weights)
        return learner.estimator.coef_

    one_class = np.where(Y == 0, 0.0, 1.0)
    assert np.array_equal(fitted(1, one_class), fitted(1, one_class))
    assert not np.array_equal(fitted(1, one_class), fitted(2, one_class))
    numbered = np.arange(50.0)
    learner = WeightedActiveLearner(Recorder()).fit(
        numbered[:, None], numbered > 9, bootstrap=True, sample_weight=numbered
    )
    assert learner.estimator.rows_.tolist() == learner.estimator.weights_.tolist()
    assert len(set(learner.estimator.rows_)) < 50


@pytest.mark.parametrize("kind", ["frame", "sparse", "list"])
def test_rows_may_come_as_frames_sparse_matrices_and_lists(kind):
    make = {"frame": lambda a: pd.DataFrame(a, columns=[3, 2, 1, 0]), "sparse": csr_matrix, "list": np.ndarray.tolist}[
        kind
    ]
    learner = WeightedActiveLearner(LogisticRegression(max_iter=500))
    learner.teach(make(X[:100]), Y[:100])
    learner.teach(make(X[100:]), Y[100:], bootstrap=True)
    assert learner.predict(make(X)).shape == (150,)


def test_a_learner_can_be_the_last_line_of_a_cell():
    empty, taught = WeightedActiveLearner(GaussianNB()), WeightedActiveLearner(GaussianNB(), X_training=X, y_training=Y)
    assert repr(empty) == "WeightedActiveLearner(GaussianNB(), rows=0)"
    assert taught._repr_mimebundle_() == {"text/plain": "WeightedActiveLearner(GaussianNB(), rows=150)"}
    assert taught._repr_html_() is None


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_weights_that_do_not_fit_the_rows_are_refused(weights):
    learner = WeightedActiveLearner(GaussianNB())
    with pytest.raises(BadInput, match="one weight"):
        learner.teach([[0.0], [1.0]], [0, 1], sample_weight=weights)
    assert learner.X_training is None


def test_nan_is_refused_unless_it_is_left_to_the_estimator():
    rows = [[0.0], [np.nan]]
    with pytest.raises(ValueError, match="NaN"):
        WeightedActiveLearner(Brittle()).fit(rows, [0, 1])
    assert WeightedActiveLearner(Brittle(), force_all_finite=False).fit(rows, [0, 1]).estimator.seen_ == 2


def test_estimators_without_weights_get_rows_in_proportion():
    assert weight_parameters(make_pipeline(StandardScaler(), KNeighborsClassifier())) == ()
    weights = np.where(Y == 0, 0.0, 1.0)
    with pytest.warns(UserWarning, match="resampled"):
        fitted = fit_weighted(KNeighborsClassifier(), X, Y, weights)
    assert fitted.classes_.tolist() == [1, 2]  # rows of weight 0 are never drawn


def test_the_scores_are_modals_own():
    p = LogisticRegression(max_iter=500).fit(X, Y)
    table, matrix = [modal.entropy, modal.least_confident_uncertainty], p.predict_proba(X)
    for score in table:
        assert np.array_equal(score(matrix), score(X, p))
    assert np.allclose(modal.entropy(matrix), -(matrix * np.log(matrix)).sum(axis=1))


def test_only_modal_py_imports_modal_and_nothing_imports_skorch():
    folder = Path(hitl_nb.learner.__file__).parents[1]
    for path in folder.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        assert path.name == "modal.py" or not any(name.split(".")[0] == "modAL" for name in names)
    code = "import hitl_nb.learner, sys; raise SystemExit(bool({'skorch', 'modAL.expected_error'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
