"""The loop that closes with samples alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression

from hitl_nb.errors import BadInput
from hitl_nb.loop import ActiveLearningPipeline

DIGITS, NUMBERS = load_digits(return_X_y=True)
CANCER, BENIGN = load_breast_cancer(return_X_y=True)


def test_the_five_hundredth_sample_retrains_and_the_one_before_does_not():
    pipeline = ActiveLearningPipeline()
    for image, number in zip(DIGITS[:499, ::2], NUMBERS[:499], strict=True):
        assert not pipeline.add_reviewed_sample(image, number, 0.49)
    assert (pipeline.model, pipeline.retrain_count) == (None, 0)
    assert pipeline.add_reviewed_sample(DIGITS[499, ::2], NUMBERS[499], 0.99)
    assert pipeline.retrain_count == 1
    assert pipeline.weights.tolist() == [2.0] * 499 + [1.0]
    answers = pipeline.learner.predict(DIGITS[500:, ::2])
    assert (answers["label"].to_numpy() == NUMBERS[500:]).mean() > 0.75


def test_it_retrains_each_time_that_many_are_new():
    pipeline = ActiveLearningPipeline(20, estimator=LogisticRegression(max_iter=5000))
    fits = [
        pipeline.add_reviewed_sample(dict(enumerate(row)), int(y), 0.5)
        for row, y in zip(CANCER[:65], BENIGN, strict=False)
    ]
    assert np.flatnonzero(fits).tolist() == [19, 39, 59]
    assert pipeline.learner.champion.version == "v3"
    assert pipeline.learner.champion.n_rows == 60


@pytest.mark.parametrize("confidence", [None, math.nan])
def test_an_unknown_confidence_weighs_like_one_half(confidence):
    pipeline = ActiveLearningPipeline()
    pipeline.add_reviewed_sample({"x": 1.0}, "a", confidence)
    assert pipeline.weights.tolist() == [1 / 0.51]


@pytest.mark.parametrize(
    ("features", "truth", "confidence"),
    [
        ([1.0, 2.0], "a", 0.5),
        ({"y": 1.0}, "a", 0.5),
        ("1.0", "a", 0.5),
        ([[1.0]], "a", 0.5),
        ({"x": 1.0}, None, 0.5),
        ({"x": 1.0}, 3, 0.5),
        ({"x": 1.0}, "a", 1.5),
        ({"x": 1.0}, "a", "high"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused_and_not_stored(features, truth, confidence):
    pipeline = ActiveLearningPipeline()
    pipeline.add_reviewed_sample({"x": 1.0}, "a", 0.5)
    with pytest.raises(BadInput):
        pipeline.add_reviewed_sample(features, truth, confidence)
    assert len(pipeline.weights) == 1


def test_a_refit_that_fails_keeps_sample_and_model_and_is_tried_again():
    class Brittle(ClassifierMixin, BaseEstimator):
        def fit(self, X, y, sample_weight=None):
            if len(np.unique(y)) < 2:
                raise ValueError("one class only")
            self.classes_ = np.unique(y)
            return self

        def predict(self, X):
            return np.full(len(X), self.classes_[0])

        def predict_proba(self, X):
            return np.full((len(X), 2), 0.5)

    pipeline = ActiveLearningPipeline(2, estimator=Brittle())
    pipeline.add_reviewed_sample([1.0], "a", 0.5)
    with pytest.warns(UserWarning, match="one class only"):
        assert not pipeline.add_reviewed_sample([2.0], "a", 0.5)
    assert (len(pipeline.weights), pipeline.model) == (2, None)
    assert pipeline.last_error is not None
    assert pipeline.add_reviewed_sample([3.0], "b", 0.5)
    assert (pipeline.last_error, pipeline.retrain_count) == (None, 1)
