"""Query strategies of scikit-activeml, made to work on the champion; needs the extra ``activeml``."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from hitl_nb.errors import BadInput
from hitl_nb.learner.batch import picked
from hitl_nb.learner.committee import members, split
from hitl_nb.learner.strategy import Strategy

#: what a scikit-activeml query may ask for without a default
KNOWN = ("X", "y", "clf", "ensemble", "estimator")


class _Fitted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A model that is fitted already, with label numbers for labels; to fit it again changes nothing."""

    def __init__(self, model: Any, columns: Any) -> None:
        self.model, self.columns = model, columns
        self.classes_ = np.arange(len(model.classes_))

    def __sklearn_clone__(self) -> _Fitted:
        return self

    def fit(self, X: Any, y: Any) -> _Fitted:
        return self

    def predict_proba(self, X: Any) -> Any:
        names = getattr(self.model, "feature_names_in_", None)
        return self.model.predict_proba(X[:, self.columns] if names is None else pd.DataFrame(X, columns=names))

    def predict(self, X: Any) -> NDArray[np.intp]:
        return np.asarray(self.predict_proba(X).argmax(axis=1))


def from_activeml(query: Any) -> Strategy:
    """Return a scikit-activeml pool strategy for one annotator as one of ours.

    It is asked for the whole batch at once, with the rows that the champion was fitted to as the labelled ones. What it
    takes for a classifier (``clf``) is the champion itself, for an ``ensemble`` the members of its committee.

    Raises
    ------
    BadInput : it needs an argument that is not known here, such as a discriminator

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skactiveml.pool import Falcun
    >>> from hitl_nb.learner import Learner
    >>> learner = Learner(LogisticRegression().fit([[0.0], [9.0]], ["no", "yes"]), strategy=from_activeml(Falcun()))
    >>> learner.select([[1.0], [4.5], [8.0]], 1).tolist()
    [1]
    """
    takes = inspect.signature(query.query).parameters
    if odd := [name for name, its in takes.items() if name not in KNOWN and its.default is its.empty]:
        remedy = f"needs {', '.join(odd)}, which only you know; write a strategy (probabilities, rng) of your own"
        raise BadInput(name="strategy", value=type(query).__name__, remedy=remedy)

    def strategy(
        probabilities: Any, rng: np.random.Generator, *, X: Any, n: int, labelled: Any, labels: Any, model: Any
    ) -> Any:
        from skactiveml.classifier import SklearnClassifier

        if probabilities.shape[1] < 2:
            return rng.random(len(probabilities))
        last = split(model)[1]
        classes, n, seed = list(range(len(last.classes_))), min(n, X.shape[0]), int(rng.integers(2**31))

        def judge(model: Any, columns: Any = slice(None)) -> Any:
            clf = SklearnClassifier(_Fitted(model, columns), classes=classes, missing_label=np.nan, random_state=seed)
            return clf.fit(np.repeat(np.asarray(X)[:1], len(classes), axis=0), classes)  # only tells it the labels

        known = np.isin(labels, last.classes_)
        rows = np.concatenate([np.asarray(X), np.asarray(labelled)[known]])
        y = np.full(len(rows), np.nan)
        y[X.shape[0] :] = np.searchsorted(last.classes_, labels[known])
        more: dict[str, Any] = {name: judge(last) for name in ("clf", "estimator") if name in takes}
        if "ensemble" in takes:
            more["ensemble"] = [judge(*side) for side in members(model)]
        more |= {f"fit_{name}": False for name in more}
        fresh = clone(query).set_params(missing_label=np.nan, random_state=seed)
        return picked(fresh.query(rows, y, candidates=np.arange(X.shape[0]), batch_size=n, **more), X.shape[0])

    strategy.__name__ = type(query).__name__
    return strategy
