"""The smallest loop: samples one by one, without queue or holdout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hitl_nb.errors import BadInput, FitFailed
from hitl_nb.learner import Learner


def default_estimator() -> Any:
    """Return the classifier of those who name none: standardised features, logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def feature_row(features: Mapping[str, Any] | Sequence[float] | NDArray[Any]) -> dict[str, Any]:
    """Return one sample's features by name; in a sequence they are called f0, f1 and so on.

    >>> feature_row([1.5, 2])
    {'f0': 1.5, 'f1': 2}
    """
    if isinstance(features, Mapping):
        return dict(features)
    if isinstance(features, (str, bytes)) or np.ndim(features) != 1:
        raise BadInput(name="features", value=features, remedy="must be a dict, or a flat sequence of numbers")
    return {f"f{i}": value for i, value in enumerate(features)}


class ActiveLearningPipeline:
    """The smallest loop: hand in reviewed samples one by one, a model is refitted each `min_samples_for_retrain`.

    It stands on a `Learner` (attribute `learner`) without queue or holdout, so a refitted model is in use at once,
    unproven; to promote on proof take `Learner.compare`.

    Parameters
    ----------
    min_samples_for_retrain : samples since the last fit that start the next one
    estimator : scikit-learn classifier or pipeline; default `default_estimator`
    options : passed on to `Learner` (strategy, weighting, features, seed)

    Examples
    --------
    >>> pipeline = ActiveLearningPipeline(min_samples_for_retrain=4)
    >>> [pipeline.add_reviewed_sample([x], x > 2, confidence=0.49) for x in (1.0, 2.0, 3.0, 4.0)]
    [False, False, False, True]
    >>> pipeline.learner.predict([[0.0], [9.0]])["label"].tolist(), pipeline.weights.tolist(), pipeline.retrain_count
    ([False, True], [2.0, 2.0, 2.0, 2.0], 1)
    """

    def __init__(self, min_samples_for_retrain: int = 500, estimator: Any = None, **options: Any) -> None:
        chosen = default_estimator() if estimator is None else estimator
        self.learner = Learner(chosen, min_samples=min_samples_for_retrain, **options)
        #: how often the model was refitted
        self.retrain_count = 0
        #: why the last refit failed; None when it did not
        self.last_error: FitFailed | None = None

    def add_reviewed_sample(
        self, features: Mapping[str, Any] | Sequence[float] | NDArray[Any], ground_truth: Any, confidence: float | None
    ) -> bool:
        """Store a sample with raw weight ``1 / (confidence + 0.01)`` and refit when enough are new.

        A refit that fails keeps the sample and the old model, warns, and is tried again with the next sample.

        Parameters
        ----------
        ground_truth : the label a person gave
        confidence : the model's confidence before, 0..1; None or NaN if unknown, which weighs like 0.5

        Returns
        -------
        whether the model was refitted

        Raises
        ------
        BadInput : other features than before, no label, no confidence between 0 and 1; nothing was stored
        """
        row = feature_row(features) | {"task_id": f"sample-{len(self.learner.buffer.rows):09d}", "label": ground_truth}
        row |= {"confidence": confidence, "source": "human_review", "outcome": "correct"}
        self.learner.add(pd.DataFrame([row]))
        if not self.learner.ready:
            return False
        try:
            self.learner.promote(self.learner.fit())
        except FitFailed as error:
            self.last_error = error
            warnings.warn(str(error), stacklevel=2)
            return False
        self.retrain_count, self.last_error = self.retrain_count + 1, None
        return True

    @property
    def model(self) -> Any:
        """The fitted estimator in use; None before the first fit."""
        return self.learner.champion.model if self.learner.champion else None

    @property
    def weights(self) -> NDArray[np.float64]:
        """Raw weights of all samples, in the order they came."""
        return self.learner.buffer.rows["weight"].to_numpy(dtype=np.float64)
