"""Simulated worlds in which the true risk of every threshold is known by numeric integration."""

import numpy as np
import pandas as pd
from scipy.stats import beta

from hitl_nb import Policy
from hitl_nb.policy.batch import Batch

#: how sure the model is, in every world
SURE = beta(8, 0.8)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _logit(s):
    return np.log(s / (1 - s))


#: chance of being right, by confidence
RIGHT = {
    "calibrated": lambda s: s,
    "overconfident": lambda s: _sigmoid(0.6 * _logit(s) + 0.1),
    "wrong at the top": lambda s: np.where(s > 0.985, 0.91, _sigmoid(_logit(s) + 0.9)),
    "mixed": lambda s: np.where(s > 0.97, 0.90, np.where(s >= 0.85, 0.945, 0.985)),
    # above a target of 0.05 by a millionth at every threshold, so that each threshold breaks the promise
    "at the target": lambda s: np.full_like(s, 1 - 0.05000005),
}
_EDGES = np.unique(np.r_[np.linspace(1e-9, 0.9, 4001), 1 - np.geomspace(0.1, 1e-9, 20001), 0.97, 0.985, 0.85])
#: confidences at which the world is integrated
INSIDE = np.clip((_EDGES[1:] + _EDGES[:-1]) / 2, 1e-12, 1 - 1e-12)
_MASS = np.diff(SURE.cdf(_EDGES))


class World:
    """Streams of confidences and errors, and the truth about thresholds."""

    def __init__(self, name):
        self.right = RIGHT[name]
        above = _MASS[::-1].cumsum()[::-1]
        self._coverage = above
        self._risk = ((1 - self.right(INSIDE)) * _MASS)[::-1].cumsum()[::-1] / above

    def draw(self, rng, streams, n):
        """Return confidences, the highest first, and errors, each of shape (streams, n)."""
        sure = np.clip(-np.sort(-SURE.rvs((streams, n), random_state=rng), axis=1), 1e-12, 1 - 1e-12)
        return sure, rng.random((streams, n)) > self.right(sure)

    def risk(self, threshold):
        return np.interp(threshold, _EDGES[:-1], self._risk)

    def coverage(self, threshold):
        return np.interp(threshold, _EDGES[:-1], self._coverage)

    def where(self, passes):
        """Return the share and the risk of what passes; ``passes`` tells it at each of `INSIDE`."""
        mass = _MASS * passes
        return mass.sum() / _MASS.sum(), ((1 - self.right(INSIDE)) * mass).sum() / max(mass.sum(), 1e-300)

    def oracle(self, target):
        """Return the largest share that can be automated at a risk."""
        fine = self._risk <= target
        return self._coverage[fine].max() if fine.any() else 0.0


def logged(world, rng, n, audit_rate, threshold=0.85):
    """Return rows as a policy decides about them and people judge them, in the form of a queue's history."""
    sure, wrong = (one[0] for one in world.draw(rng, 1, n))
    ids = rng.integers(0, 2**63, (n, 2)).astype(np.uint64)
    batch = Batch.from_frames(pd.DataFrame(index=range(n)), pd.DataFrame({"confidence": sure}))
    decided = Policy(threshold, audit_rate=audit_rate).decide(batch, task_ids=ids, now=pd.Timestamp("2026-01-05"))
    judged = ~decided.approved | decided.audit
    return {
        "confidence": sure, "wrong": np.where(judged, wrong, np.nan), "hard": decided.hard,
        "review_probability": decided.review_probability,
    }  # fmt: skip
