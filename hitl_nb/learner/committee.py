"""Committees: models that were fitted apart, and how far they disagree.

Votes are the probabilities of each member, an array (rows, members, labels). A member is what scikit-learn's forests,
``BaggingClassifier`` and ``VotingClassifier`` keep in ``estimators_``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr

from hitl_nb.errors import BadInput

Floats = NDArray[np.float64]


def split(model: Any) -> tuple[Any, Any]:
    """Return the steps of a pipeline before its last one (None where there are none), and the last one."""
    steps = getattr(model, "steps", None)
    return (model[:-1] if len(steps) > 1 else None, model[-1]) if steps else (None, model)


def members(model: Any) -> list[tuple[Any, Any]]:
    """Return each member of a committee, with the columns that it works on."""
    from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier, VotingClassifier

    last = split(model)[1]
    found = getattr(last, "estimators_", [])
    committee = isinstance(last, RandomForestClassifier | ExtraTreesClassifier | BaggingClassifier | VotingClassifier)
    if not committee or not all(hasattr(member, "predict_proba") for member in found):
        remedy = "is no committee whose members give probabilities; take a forest, bagging or voting"
        raise BadInput(name="estimator", value=type(last).__name__, remedy=remedy)
    columns = getattr(last, "estimators_features_", [slice(None)] * len(found))
    return list(zip(found, columns, strict=True))


def votes_of(model: Any, x: Any) -> Floats:
    """Return the votes (rows, members, labels); `x` is what the last step of the model takes.

    >>> from sklearn.ensemble import RandomForestClassifier
    >>> forest = RandomForestClassifier(5, random_state=0).fit([[0], [1], [2]], ["a", "b", "c"])
    >>> votes_of(forest, np.array([[0.0], [2.0]])).shape
    (2, 5, 3)
    """
    sides = members(model)
    votes = np.zeros((x.shape[0], len(sides), len(split(model)[1].classes_)))
    for i, (member, columns) in enumerate(sides):
        rows = x if hasattr(member, "feature_names_in_") or not hasattr(x, "iloc") else x.to_numpy()
        rows = rows if isinstance(columns, slice) else rows[:, columns]
        votes[:, i, member.classes_.astype(int)] = member.predict_proba(rows)
    return votes


def disagreement(probabilities: Floats, rng: np.random.Generator, *, votes: Floats) -> Floats:
    """Ask where sure members differ: mean divergence from their mean, in nats (McCallum and Nigam 1998; BALD 2011).

    >>> sure, unsure = [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]
    >>> disagreement(np.full((2, 2), 0.5), np.random.default_rng(0), votes=np.array([sure, unsure])).round(4).tolist()
    [0.6931, 0.0]
    """
    return np.asarray(entr(votes.mean(axis=1)).sum(axis=-1) - entr(votes).sum(axis=-1).mean(axis=1))


def vote_entropy(probabilities: Floats, rng: np.random.Generator, *, votes: Floats) -> Floats:
    """Ask where the labels that members would give differ: entropy of their counts (Dagan and Engelson 1995)."""
    said = votes.argmax(axis=2)[..., None] == np.arange(votes.shape[2])
    return np.asarray(entr(said.mean(axis=1)).sum(axis=1))


def consensus_entropy(probabilities: Floats, rng: np.random.Generator, *, votes: Floats) -> Floats:
    """Ask where the members together are unsure: entropy of their mean."""
    return np.asarray(entr(votes.mean(axis=1)).sum(axis=1))


def max_disagreement(probabilities: Floats, rng: np.random.Generator, *, votes: Floats) -> Floats:
    """Ask where one member stands alone: its divergence from the mean of all, the largest of them."""
    return np.asarray(rel_entr(votes, votes.mean(axis=1, keepdims=True)).sum(axis=2).max(axis=1))
