"""What models are compared on speaks for all traffic, also where people see one side of a threshold only."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from hitl_nb.learner import Challenger, Learner

#: share of the traffic that is asked about, and how often the champion errs there and elsewhere
ASKED, ERRS = 0.2, (0.2, 0.03)


class Says(ClassifierMixin, BaseEstimator):
    """Answers what a column of its input says: 1 is wrong, since every label is 0."""

    def __init__(self, column):
        self.column, self.classes_ = column, np.array([0, 1])

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.eye(2)[X[self.column].to_numpy(int)]


def drawn(rng, n, worse, run, **facts):
    """Return rows on which the challenger errs more often than the champion, all of it where a person is asked."""
    asked = rng.random(n) < ASKED
    errs = np.where(asked, *ERRS)
    old, new = rng.random(n) < errs, rng.random(n) < errs + asked * worse / ASKED
    ids = [f"{run}-{facts['source']}-{i}" for i in range(n)]
    return pd.DataFrame({"task_id": ids, "old": old, "new": new, "label": 0, "outcome": "approve", **facts}), asked


def traffic(rng, audits, rate, worse, run):
    """Return the answers of people to so much traffic that about so many of its automatic answers are audited."""
    n = round(audits / (1 - ASKED) / rate)
    rows, asked = drawn(rng, n, worse, run, source=f"human_review {rate}", audit_rate=rate)
    audited = ~asked & (rng.random(n) < rate)
    return rows.assign(source=np.where(asked, "human_review", "audit"))[asked | audited]


def promoted(audits, worse, runs, rates=(0.2,), rule=lambda rows: rows, late=None):
    """Return how often a challenger is promoted on 200 rows of the initial labels and on what came after.

    `late` says how likely a row is not answered yet; what is not is handed in with its features alone.
    """
    won = 0
    for run in range(runs):
        rng = np.random.default_rng((run, audits))
        learner = Learner(Says("old"))
        learner.champion = Challenger(model=Says("old"), version="v1")
        learner.add(drawn(rng, 400, worse, run, source="initial")[0])
        if audits:
            rows = pd.concat([rule(traffic(rng, audits / len(rates), rate, worse, run)) for rate in rates])
            waits = rng.random(len(rows)) < late(rows) if late else np.zeros(len(rows), dtype=bool)
            answered = rows.assign(source=rows["source"].str.split().str[0])
            learner.sync(answered[~waits], answered[waits].drop(columns=["label", "outcome"]))
        won += learner.compare(Challenger(model=Says("new"), version="v2")).verdict == "promote"
    return won / runs


def limit(runs):
    """One in twenty, and three standard errors."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def audits_alone(rows):
    """Leave the reviews to the fit, as if what audits show were true of all traffic."""
    return rows.assign(audit_rate=rows["audit_rate"].where(rows["source"] == "audit"))


def test_a_challenger_worse_where_people_are_asked_is_promoted_in_at_most_one_in_twenty():
    assert promoted(2000, 0.05, runs=30) <= limit(30)


def test_audits_alone_would_promote_it():
    assert promoted(2000, 0.05, runs=30, rule=audits_alone) > 2 * limit(30)


def test_an_equal_challenger_is_promoted_on_the_same_rows():
    assert promoted(2000, 0.0, runs=30) > 0.6


def broken_late(rows):
    """Most of what the challenger alone gets wrong is hard, and waits."""
    return np.where(rows["new"] & ~rows["old"], 0.8, 0.02)


def test_answers_that_come_late_where_the_challenger_errs_let_none_through():
    assert promoted(2000, 0.05, runs=30, late=broken_late) <= limit(30)


def test_without_what_waits_they_would(monkeypatch):
    sync = Learner.sync
    monkeypatch.setattr(Learner, "sync", lambda learner, rows, unanswered: sync(learner, rows))
    assert promoted(2000, 0.05, runs=30, late=broken_late) > 2 * limit(30)


def test_an_equal_challenger_is_promoted_although_some_answers_wait():
    assert promoted(2000, 0.0, runs=30, late=lambda rows: np.full(len(rows), 0.05)) > 0.5


@pytest.mark.nightly
@pytest.mark.parametrize("worse", [0.02, 0.05])
@pytest.mark.parametrize("rates", [(0.2,), (0.05, 0.5)])
def test_the_promise_holds_however_late_the_answers(worse, rates):
    assert promoted(2000, worse, 400, rates, late=broken_late) <= limit(400)


@pytest.mark.nightly
@pytest.mark.parametrize("audits", [0, 500, 2000])
@pytest.mark.parametrize("worse", [0.02, 0.05])
@pytest.mark.parametrize("rates", [(0.2,), (0.05, 0.5)])
def test_the_promise_holds_at_every_size_and_where_rates_change(audits, worse, rates):
    assert promoted(audits, worse, 400, rates) <= limit(400)
