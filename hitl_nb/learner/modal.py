"""modAL, the active-learning library, made to work on current scikit-learn; the only module that imports it.

modAL 0.4.2.1 calls scikit-learn with an argument that 1.8 took away, changes itself before it fits, and forgets sample
weights. `WeightedActiveLearner` mends that by overriding `fit` and `teach`; nothing is patched globally. The scores
below are modAL's own functions, fed with probabilities that are there already.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from modAL.models import ActiveLearner
from modAL.uncertainty import classifier_entropy, classifier_uncertainty, uncertainty_sampling
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import check_X_y

from hitl_nb.errors import BadInput
from hitl_nb.learner.weighting import fit_weighted, rows_at

Floats = NDArray[np.float64]


class _Judged:
    """Stands where modAL expects a classifier; its probabilities are the argument."""

    def predict_proba(self, probabilities: Floats) -> Floats:
        return probabilities


def least_confident_uncertainty(probabilities: Floats, classifier: Any = None) -> Floats:
    """Return modAL's ``classifier_uncertainty``, 1 - p1; with a `classifier` the first argument is its input X.

    >>> least_confident_uncertainty(np.array([[0.5, 0.3, 0.2]])).tolist()
    [0.5]
    """
    return np.asarray(classifier_uncertainty(_Judged() if classifier is None else classifier, probabilities))


def entropy(probabilities: Floats, classifier: Any = None) -> Floats:
    """Return modAL's ``classifier_entropy`` in nats: large where many labels compete.

    >>> entropy(np.array([[0.5, 0.5]])).round(4).tolist()  # ln 2
    [0.6931]
    """
    return np.asarray(classifier_entropy(_Judged() if classifier is None else classifier, probabilities))


def _stack(first: Any, second: Any) -> Any:
    """Put rows under rows, of one kind and width."""
    if hasattr(first, "tocsr"):
        from scipy.sparse import vstack

        return vstack([first, second], format="csr")
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat([first, second], ignore_index=True)
    return np.concatenate([np.asarray(first), np.asarray(second)])


class WeightedActiveLearner(ActiveLearner):  # type: ignore[misc]  # modAL has no types
    """modAL's ``ActiveLearner`` on scikit-learn 1.7 to 1.9, with one sample weight per labelled row.

    ``fit`` and ``teach`` fit a clone and take it over only when it worked: after an exception estimator, rows and
    weights are as before. Use the indices that ``query`` returns, not its instances (modAL mixes rows and columns of
    DataFrames).

    Parameters
    ----------
    estimator, query_strategy, X_training, y_training, bootstrap_init, on_transformed : as in modAL
    sample_weight : array (n,), raw weights of the rows in `X_training`; without it each row weighs 1
    force_all_finite : refuse NaN and infinity in X; False leaves them to the estimator
    seed : seed of bootstraps and of the resampling for estimators that take no weights

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> learner = WeightedActiveLearner(LogisticRegression())
    >>> learner.teach([[0.0], [1.0]], ["no", "yes"])
    >>> learner.teach([[3.0]], ["yes"], sample_weight=[2.0])
    >>> learner
    WeightedActiveLearner(LogisticRegression(), rows=3)
    >>> learner.sample_weight.tolist()
    [1.0, 1.0, 2.0]
    """

    def __init__(
        self, estimator: Any, query_strategy: Any = uncertainty_sampling, X_training: Any = None,
        y_training: Any = None, bootstrap_init: bool = False, on_transformed: bool = False, *,
        sample_weight: ArrayLike | None = None, force_all_finite: bool = True, seed: int = 0, **fit_kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(estimator, query_strategy, on_transformed=on_transformed)
        self.estimator: Any = estimator
        self.bootstrap_init, self.force_all_finite, self.seed = bootstrap_init, force_all_finite, seed
        #: raw weight of each training row
        self.sample_weight: Floats | None = None
        if X_training is not None:
            self.fit(X_training, y_training, bootstrap_init, sample_weight=sample_weight, **fit_kwargs)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        rows = 0 if self.sample_weight is None else len(self.sample_weight)
        return f"{type(self).__name__}({self.estimator!r}, rows={rows})"[:N_CHAR_MAX]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        return {"text/plain": repr(self)}

    def _repr_html_(self) -> None:
        """Show text: scikit-learn's diagram would ask for parameters that modAL does not keep."""

    def _checked(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> tuple[Any, Any, Floats]:
        check = {"ensure_2d": False, "allow_nd": True, "multi_output": True, "dtype": None}
        check_X_y(X, y, accept_sparse=True, ensure_all_finite=self.force_all_finite, **check)
        weights = np.ones(len(y)) if sample_weight is None else np.array(sample_weight, dtype=np.float64)
        if weights.shape != (len(y),) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise BadInput(name="sample_weight", value=weights.tolist(), remedy="needs one weight of 0 or more per row")
        return X, y, weights

    def _with_known(self, X: Any, y: Any, weights: Floats) -> tuple[Any, Any, Floats]:
        if self.X_training is None or self.sample_weight is None:
            return X, y, weights
        return _stack(self.X_training, X), _stack(self.y_training, y), np.concatenate([self.sample_weight, weights])

    def _fit_rows(self, estimator: Any, rows: tuple[Any, Any, Floats], bootstrap: bool, **fit_kwargs: Any) -> Any:
        X, y, weights = rows
        if bootstrap:
            drawn = np.random.default_rng(self.seed).integers(0, len(weights), len(weights))
            X, y, weights = rows_at(X, drawn), rows_at(y, drawn), weights[drawn]
        return fit_weighted(estimator, X, y, weights, seed=self.seed, **fit_kwargs)

    def fit(
        self, X: Any, y: Any, bootstrap: bool = False, *, sample_weight: ArrayLike | None = None, **fit_kwargs: Any
    ) -> WeightedActiveLearner:
        """Fit to these rows and forget all others; `sample_weight` (n,) has one weight per row of `X`."""
        rows = self._checked(X, y, sample_weight)
        fitted = self._fit_rows(clone(self.estimator), rows, bootstrap, **fit_kwargs)
        self.estimator, (self.X_training, self.y_training, self.sample_weight) = fitted, rows
        return self

    def teach(
        self, X: Any, y: Any, bootstrap: bool = False, only_new: bool = False, *,
        sample_weight: ArrayLike | None = None, **fit_kwargs: Any,
    ) -> None:  # fmt: skip
        """Add rows with their weights and fit to all; `only_new` fits the estimator further on these rows alone."""
        new = self._checked(X, y, sample_weight)
        if only_new:
            self.estimator = self._fit_rows(copy.deepcopy(self.estimator), new, bootstrap, **fit_kwargs)
        else:
            self.fit(*(known := self._with_known(*new))[:2], bootstrap, sample_weight=known[2], **fit_kwargs)
