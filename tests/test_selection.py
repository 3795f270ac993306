"""Which rows are asked: the same ones in any order, in any parts, on any processor; and how likely each was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from functools import partial
from types import SimpleNamespace

import duckdb
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modAL.batch import ranked_batch as modal_ranked_batch
from modAL.disagreement import KL_max_disagreement, consensus_entropy, vote_entropy
from modAL.uncertainty import classifier_margin, margin_sampling
from scipy.sparse import csr_matrix
from skactiveml.pool import CoreSet, DiscriminativeAL, Falcun, QueryByCommittee, UncertaintySampling
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hitl_nb.errors import BadInput, LearnerError
from hitl_nb.learner import (
    GIVEN,
    STRATEGIES,
    Exploring,
    Learner,
    Stochastic,
    check_strategy,
    from_activeml,
    pool,
    score_pool,
    select,
)
from hitl_nb.learner.committee import votes_of
from hitl_nb.learner.strategy import margin_odds, margin_subset

DIGITS, NUMBERS = load_digits(return_X_y=True)
CANCER, BENIGN = load_breast_cancer(return_X_y=True)
COLUMNS = [f"x{i}" for i in range(30)]
#: see the whole pool at once
WHOLE = ("ranked_batch", "uncertainty_batch_sampling")


def table(rows, start=0):
    frame = pd.DataFrame(CANCER[rows], columns=COLUMNS)
    return frame.assign(task_id=[f"t{start + i:04d}" for i in range(len(frame))])


class Stand(ClassifierMixin, BaseEstimator):
    """A model whose answer for row i, numbered by its only feature, is given."""

    classes_ = np.array([0, 1])

    def __init__(self, answers=None):
        self.answers = answers

    def fit(self, X, y):
        raise NotImplementedError

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        return np.asarray(self.answers)[np.asarray(X)[:, 0].astype(int)]


def started(strategy="margin", estimator=None, **options):
    """Return a learner whose champion is fitted to the first 100 rows, none of them held out."""
    estimator = RandomForestClassifier(10, min_samples_leaf=3) if estimator is None else estimator
    learner = Learner(estimator, strategy, holdout=0, **options)
    learner.add(table(slice(100)).assign(label=BENIGN[:100], source="initial"))
    learner.promote(learner.fit(force=True))
    return learner


POOL = table(slice(100, 400), start=100)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pool, "ROWS", 64)
    monkeypatch.setattr(pool, "VOTED_ROWS", 64)


# -- strategies --------------------------------------------------------------------------------------------------------


def test_margins_are_modals_to_the_last_bit():
    p = np.random.default_rng(0).dirichlet(np.ones(7), size=500)
    model = SimpleNamespace(predict_proba=lambda matrix: matrix)
    assert np.array_equal(score_pool(STRATEGIES["margin"], p, None), 1 - classifier_margin(model, p))


@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_ranked_batch_picks_what_modal_picks(form):
    rng = np.random.default_rng(1)
    X, labelled, p = rng.normal(size=(300, 5)), rng.normal(size=(40, 5)), rng.dirichlet(np.ones(3), size=300)
    X[10:20] = X[:10]  # twins
    classifier = SimpleNamespace(on_transformed=False, X_training=labelled)
    wanted, _ = modal_ranked_batch(classifier, X, 1 - p.max(axis=1), 25, "euclidean", None)
    scores = score_pool(STRATEGIES["ranked_batch"], p, rng, X=form(X), labelled=form(labelled), n=25)
    assert select(scores, 25).tolist() == wanted.tolist()


def test_ranked_batch_asks_no_twin_before_others():
    p, X = np.full((6, 2), 0.5), np.array([[0.0], [0.0], [0.0], [9.0], [9.0], [18.0]])
    scores = score_pool(STRATEGIES["ranked_batch"], p, None, X=X, labelled=np.empty((0, 1)), n=9)
    assert select(scores, 6).tolist() == [0, 5, 3, 1, 2, 4]


COMMITTEES = [
    RandomForestClassifier(7, max_depth=3, random_state=0),
    BaggingClassifier(GaussianNB(), 7, max_features=0.5, random_state=0),
    VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression(max_iter=5000))], voting="soft"),
]


@pytest.mark.parametrize("committee", COMMITTEES, ids=lambda committee: type(committee).__name__)
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("vote_entropy_sampling", vote_entropy),
        ("consensus_entropy_sampling", consensus_entropy),
        ("max_disagreement_sampling", KL_max_disagreement),
    ],
)
def test_a_committee_disagrees_as_much_as_modals(committee, name, theirs):
    committee.fit(DIGITS[:300], NUMBERS[:300])
    votes = votes_of(committee, DIGITS[300:400])

    class Modals(list):
        classes_ = committee.classes_

        def vote(self, X):
            return votes.argmax(axis=2)

        def vote_proba(self, X):
            return votes

        def predict_proba(self, X):
            return votes.mean(axis=1)

    found = score_pool(STRATEGIES[name], votes.mean(axis=1), None, votes=votes)
    assert np.allclose(found, theirs(Modals(range(votes.shape[1])), DIGITS[300:400]), atol=1e-6)
    assert np.allclose(committee.predict_proba(DIGITS[300:400]), votes.mean(axis=1))


def test_members_that_never_saw_a_label_give_it_no_vote():
    neighbours = KNeighborsClassifier(1)
    bagging = BaggingClassifier(neighbours, 5, max_samples=4, random_state=0).fit(DIGITS[:60], NUMBERS[:60])
    votes = votes_of(bagging, DIGITS[60:70])
    assert len(bagging.estimators_[0].classes_) < 10
    assert np.allclose(votes.mean(axis=1), bagging.predict_proba(DIGITS[60:70]))


def test_a_model_that_is_no_committee_is_refused_by_its_name():
    with pytest.raises(BadInput, match=r"GaussianNB.*no committee"):
        started("committee_disagreement", GaussianNB()).select(POOL, 5)


def test_modals_own_functions_are_taken_by_their_name():
    assert Learner(LogisticRegression(), margin_sampling).strategy == "margin_sampling"


def test_a_strategy_can_ask_for_all_that_there_is():
    seen = {}

    def curious(probabilities, rng, X, votes, n, labelled, labels, model):
        seen.update(X=X.shape, votes=votes.shape, n=n, labelled=labelled.shape, labels=len(labels), model=model)
        return np.ones(len(probabilities))

    check_strategy(curious)
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(10))
    learner = started(curious, forest)
    assert learner.select(POOL, 3).tolist() == [0, 1, 2]
    assert seen.pop("model") is learner.champion.model
    assert seen == {"X": (300, 30), "votes": (300, 10, 2), "n": 3, "labelled": (100, 30), "labels": 100}
    assert set(GIVEN) == {*seen, "model"}


@pytest.mark.parametrize("odd", [lambda p, rng, temperature: p[:, 0], lambda p, rng, *, budget: p[:, 0]])
def test_a_strategy_that_asks_for_something_else_is_refused_at_once(odd):
    with pytest.raises(BadInput, match="a strategy can name X, votes"):
        Learner(LogisticRegression(), odd)


def test_a_score_that_hangs_on_other_rows_is_named_and_may_be_if_it_sees_them_all():
    with pytest.raises(LearnerError, match="hang on other rows"):
        check_strategy(lambda p, rng: p[:, 0] - p[:, 0].mean())
    check_strategy(lambda p, rng, n: p[:, 0] - p[:, 0].mean())


def test_what_a_strategy_names_and_is_not_given_is_an_error():
    with pytest.raises(BadInput, match="hand them to score_pool"):
        score_pool(STRATEGIES["ranked_batch"], np.full((3, 2), 0.5), None, n=1)


def test_texts_in_a_pipeline_can_be_a_ranked_batch_and_without_one_are_refused():
    words = ["spam money now", "meeting at noon", "money money money", "lunch at noon", "spam spam"]
    rows = pd.DataFrame({"text": words, "task_id": list("abcde"), "label": [1, 0, 1, 0, 1], "source": "initial"})
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    learner = Learner(model, "ranked_batch", features=lambda frame: frame["text"], holdout=0)
    learner.add(rows)
    learner.promote(learner.fit(force=True))
    asked = pd.DataFrame({"text": ["noon noon", "noon noon", "cash"], "task_id": list("xyz")})
    assert set(learner.batch(asked, 2)["task_id"]) == {"x", "z"}  # not the twin
    gaps = started("ranked_batch", RandomForestClassifier(5), features=["x0", "x1"])
    with pytest.raises(BadInput, match="impute in a pipeline"):
        gaps.select(POOL.assign(x0=np.nan), 2)


# -- scikit-activeml ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [Falcun(), CoreSet(), UncertaintySampling(), QueryByCommittee()])
def test_a_strategy_of_scikit_activeml_is_one_of_ours(query):
    strategy = from_activeml(query)
    check_strategy(strategy)
    learner = started(strategy)
    chosen = learner.select(POOL, 8)
    assert len(set(chosen)) == 8
    assert np.array_equal(chosen, learner.select(POOL, 8))
    mixed = POOL.sample(frac=1, random_state=0)
    assert mixed["task_id"].iloc[learner.select(mixed, 8)].tolist() == POOL["task_id"].iloc[chosen].tolist()


def test_scikit_activeml_judges_by_the_champion_itself():
    strategy = from_activeml(UncertaintySampling(method="margin_sampling"))
    learner = started(strategy)
    elsewhere = Learner(learner.champion.model, strategy, features=COLUMNS)  # no rows that it was fitted to
    p = learner.champion.model.predict_proba(POOL[COLUMNS])
    for one in (learner, elsewhere):
        assert np.ptp(p[one.select(POOL, 1)]) == np.ptp(p, axis=1).min()


def test_what_scikit_activeml_needs_and_is_not_known_here_is_refused():
    with pytest.raises(BadInput, match="needs discriminator"):
        from_activeml(DiscriminativeAL())


# -- chance ------------------------------------------------------------------------------------------------------------


def test_a_draw_is_in_proportion_to_the_scores_and_says_so():
    strategy = Stochastic(by=lambda p, rng: p[:, 0])
    model = Stand([[0.1, 0.9], [0.3, 0.7], [0.6, 0.4]])
    drawn = [Learner(model, strategy, seed=seed).batch([[0.0], [1.0], [2.0]], 2) for seed in range(300)]
    first = np.bincount([batch["position"][0] for batch in drawn]) / 300
    assert first == pytest.approx([0.1, 0.3, 0.6], abs=4 * 0.0283)  # 0.0283: standard error at 0.6
    one = next(batch for batch in drawn if batch["position"].tolist() == [2, 0])
    assert one["draw_probability"].tolist() == pytest.approx([0.6, 0.1 / 0.4])
    assert one["left"].tolist() == [3, 2]


def test_weights_of_one_by_the_review_probability_are_unbiased_where_the_plain_mean_is_not(monkeypatch):
    monkeypatch.setattr(pool, "ROWS", 100)
    rng = np.random.default_rng(5)
    p = rng.beta(5, 1, size=200)
    wrong = rng.random(200) > p  # the less sure, the more often wrong
    rows, model = np.arange(200.0)[:, None], Stand(np.c_[p, 1 - p])
    plain, weighted, lure, learner = [], [], [], Learner(model, "stochastic_margin")
    for learner.seed in range(1000):
        batch = learner.batch(rows, 40)
        loss, m = wrong[batch["position"]], np.arange(1, 41)
        plain.append(loss.mean())
        weighted.append((loss / batch["review_probability"]).sum() / 200)
        v = 1 + (200 - 40) / (200 - m) * (1 / (batch["left"] * batch["draw_probability"]) - 1)  # Farquhar 2021
        lure.append((v * loss).mean())
    errors = [(np.mean(found) - wrong.mean()) / (np.std(found) / 1000**0.5) for found in (weighted, lure, plain)]
    assert max(map(abs, errors[:2])) < 3, errors
    assert errors[2] > 10, errors


def test_a_pool_that_comes_whole_comes_surely():
    batch = Learner(Stand([[0.5, 0.5], [np.nan, np.nan], [0.9, 0.1]]), "stochastic_margin").batch([[0], [1], [2]], 9)
    assert batch["position"].tolist()[0] == 1
    assert batch["review_probability"].tolist()[1:] == [1.0, 1.0]
    assert batch["draw_probability"].tolist()[2] == 1.0
    assert batch["left"].tolist() == [2, 2, 1]


def test_a_choice_without_chance_has_no_probability():
    batch = started().batch(POOL, 4)
    assert batch[["draw_probability", "review_probability"]].isna().all(axis=None)
    assert batch["score"].is_monotonic_decreasing


def test_at_random_each_row_is_as_likely_as_any_other():
    batch = Learner(LogisticRegression()).batch(CANCER[:10, :0], 4)  # no champion yet
    assert batch["draw_probability"].tolist() == pytest.approx([1 / 10, 1 / 9, 1 / 8, 1 / 7])
    assert len(set(batch["position"])) == 4


def test_a_random_subset_is_asked_first_and_the_others_when_it_has_run_out():
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=1000)
    scores = score_pool(margin_subset, p, np.random.default_rng(1))
    inside = scores >= 0
    assert 60 < inside.sum() < 140  # 100 expected, standard deviation 9.5
    assert inside[select(scores, inside.sum())].all()
    assert np.allclose(scores % 2, score_pool(STRATEGIES["margin"], p, None))
    more = score_pool(partial(margin_subset, share=1.0), p, np.random.default_rng(1))
    assert (more >= 0).all()


def test_few_labels_let_a_class_come_of_which_the_model_knows_nothing():
    strange = np.arange(1000) < 150
    p = np.where(strange, 0.99, 0.6)  # it takes them for something else, and is sure of it
    X, model = np.arange(1000.0)[:, None], Stand(np.c_[p, 1 - p])
    assert not strange[Learner(model, "margin").select(X, 20)].any()
    found = {
        labels: np.mean([
            strange[Learner(model, Exploring().at(labels, 2), seed=seed).select(X, 20)].any() for seed in range(30)
        ])
        for labels in (4, 20, 60, 400)
    }  # fmt: skip
    assert found[4] > 0.5  # weights 4 ** 0.2 and 0.02 ** 0.2: 6 % of the draws, so 70 % of the batches
    assert found[4] >= found[20] >= found[60]
    assert found[400] == 0


def test_the_power_grows_with_the_labels_of_each_known_class_and_ends():
    assert [Exploring().at(n, 2).power for n in (10, 20, 200, 10**9)] == [0.5, 1.0, 10.0, 32.0]
    assert Exploring(each=5).at(20, 4) == Stochastic(by=margin_odds, power=1.0)


def test_by_default_a_learner_explores_by_the_rows_that_its_champion_was_fitted_to_and_says_the_chances():
    learner = started("exploring_margin")
    assert Learner(LogisticRegression()).strategy == "exploring_margin"
    same = started(Stochastic(by=margin_odds, power=100 / 2 / 10))
    batch = learner.batch(POOL, 8)
    assert batch["review_probability"].between(0, 1, inclusive="right").all()
    pd.testing.assert_frame_equal(batch, same.batch(POOL, 8))
    for one in (learner, same):  # what has come since did not make the champion
        one.add(POOL.assign(label=BENIGN[100:400], source="human_review", outcome="approve"))
    more = table(slice(400, 500), start=400)
    pd.testing.assert_frame_equal(learner.batch(more, 8), same.batch(more, 8))


def test_a_champion_from_elsewhere_is_asked_by_margin_alone():
    elsewhere = started().champion.model
    one, other = (Learner(elsewhere, name, features=COLUMNS).batch(POOL, 8) for name in ("exploring_margin", "margin"))
    pd.testing.assert_frame_equal(one, other)


def test_no_odds_are_too_large_for_a_draw():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.5 + 1e-12, 0.5 - 1e-12], [0.9, 0.1]])
    batch = Learner(Stand(p), Exploring().at(10**9, 2)).batch(np.arange(4.0)[:, None], 3)
    assert np.isfinite(batch["score"]).all()
    assert batch["position"].tolist()[2] == 3
    assert batch["draw_probability"].tolist() == pytest.approx([0.5, 1.0, 1.0])


@pytest.mark.parametrize("each", [0, -1, float("nan")])
def test_labels_of_no_sense_for_exploring_are_refused(each):
    with pytest.raises(BadInput):
        Exploring(each=each)


@pytest.mark.parametrize("wrong", [{"power": -1}, {"floor": 0}, {"power": float("nan")}])
def test_a_draw_of_no_sense_is_refused(wrong):
    with pytest.raises(BadInput):
        Stochastic(**wrong)


# -- pools -------------------------------------------------------------------------------------------------------------


def in_parts(frame, path):
    """Return the same rows in each form that a pool can have; functions, because most can be read once."""
    pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=70)
    arrow = pa.Table.from_pandas(frame)
    relation = duckdb.connect().from_arrow(arrow)
    return {
        "frame": lambda: frame,
        "frames": lambda: (frame.iloc[i : i + 70] for i in range(0, len(frame), 70)),
        "Parquet": lambda: str(path),
        "Parquet, opened": lambda: pq.ParquetFile(path),
        "Arrow table": lambda: arrow,
        "Arrow batches": lambda: iter(arrow.to_batches(max_chunksize=70)),
        "DuckDB": lambda: relation,
    }


@pytest.mark.parametrize("strategy", ["margin", "entropy", "committee_disagreement"])
def test_the_same_rows_are_the_same_batch_in_any_form(strategy, tmp_path, small_blocks):
    learner = started(strategy)
    forms = in_parts(POOL, tmp_path / "pool.parquet")
    batches = {name: learner.batch(form(), 12) for name, form in forms.items()}
    for name, batch in batches.items():
        pd.testing.assert_frame_equal(batch, batches["frame"], obj=name, check_dtype=False)
    arrays = POOL[COLUMNS].to_numpy()
    there = learner.select(POOL.drop(columns="task_id"), 12).tolist()
    for form in (arrays, csr_matrix(arrays), iter([arrays[:100], csr_matrix(arrays[100:])]), arrays.tolist()):
        assert learner.select(form, 12).tolist() == there


@pytest.mark.parametrize("strategy", [*STRATEGIES])
def test_any_order_of_the_rows_gives_the_same_batch(strategy, small_blocks):
    learner, mixed = started(strategy), POOL.sample(frac=1, random_state=1)
    here, there = learner.batch(POOL, 12), learner.batch(mixed, 12)
    assert here["task_id"].tolist() == there["task_id"].tolist()
    assert mixed["task_id"].iloc[there["position"]].tolist() == there["task_id"].tolist()


def test_a_wide_sparse_pool_is_judged_as_it_is_by_a_model_from_elsewhere():
    X = csr_matrix((np.ones(500), (np.arange(500), np.arange(500) * 400)), shape=(500, 200_000))
    model = LogisticRegression().fit(X, np.arange(500) % 2)
    assert len(Learner(model).select(X, 7)) == 7


def test_of_parts_only_the_best_rows_stay_in_memory():
    learner = Learner(LogisticRegression().fit(np.eye(10), np.arange(10) % 2))
    parts = (np.random.default_rng(i).normal(size=(20_000, 10)) for i in range(50))
    tracemalloc.start()
    batch = learner.batch(parts, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch["position"].max() > 500_000
    assert peak < 20e6  # 80 MB went through


@pytest.mark.parametrize("strategy", WHOLE)
def test_a_strategy_that_compares_all_rows_refuses_parts(strategy):
    with pytest.raises(BadInput, match="compares all rows"):
        started(strategy).select(iter([POOL.head(5), POOL.tail(5)]), 3)
    assert len(started(strategy).select(iter([POOL]), 3)) == 3


def test_ids_of_a_pool_in_parts_are_a_column():
    learner, parts = started(), [POOL.head(5).assign(mine=range(5)), POOL.tail(5).assign(mine=range(10, 15))]
    assert set(learner.batch(iter(parts), 10, ids="mine")["task_id"]) == {*range(5), *range(10, 15)}
    with pytest.raises(BadInput, match="name the column"):
        learner.batch(iter(parts), 10, ids=list("abcde"))
    with pytest.raises(BadInput, match="no column of the pool"):
        learner.batch(iter(parts), 10, ids="theirs")


def test_rows_that_cannot_be_judged_come_first_from_wherever_they_are(small_blocks):
    learner = started(estimator=make_pipeline(StandardScaler(), LogisticRegression()))
    rows = POOL.copy()
    rows.loc[[5, 290, 150], "x7"] = [np.nan, np.inf, np.nan]
    for strategy in STRATEGIES:
        if "committee" in strategy or strategy.startswith(("vote", "consensus", "max")):
            continue
        asked = Learner(learner.champion.model, strategy, features=COLUMNS).batch(rows, 4)
        assert asked["position"].tolist()[:3] == [5, 150, 290], strategy
        assert asked["score"].isna().tolist() == [True, True, True, False]


def test_rows_held_out_come_from_no_part(small_blocks):
    learner = started()
    learner.add(POOL.iloc[::2].assign(label=BENIGN[100:400:2], source="audit", outcome="approve"))
    parts = (POOL.iloc[i : i + 70] for i in range(0, 300, 70))
    assert sorted(learner.select(parts, 1000)) == list(range(1, 300, 2))


@pytest.mark.parametrize("empty", [POOL.head(0), np.empty((0, 30)), [], iter([]), iter([POOL.head(0)])])
@pytest.mark.parametrize("strategy", ["margin", "random", "ranked_batch"])
def test_nothing_to_ask_is_nothing(empty, strategy):
    batch = started(strategy).batch(empty, 3)
    assert len(batch) == 0
    assert list(batch) == ["position", "task_id", "score", "left", "draw_probability", "review_probability"]


@pytest.mark.parametrize("odd", [7, np.ones(30), iter([[1.0, 2.0]]), {"x0": [1.0]}, np.ones((2, 3)), np.float64(1)])
def test_what_is_no_pool_is_refused(odd):
    with pytest.raises(BadInput, match="pool"):
        started().select(odd, 2)


def test_twins_are_asked_by_their_ids():
    rows = pd.concat([POOL.head(1)] * 5, ignore_index=True).assign(task_id=list("ecadb"))
    assert started().batch(rows, 3)["task_id"].tolist() == ["a", "b", "c"]
    assert set(started("ranked_batch").batch(rows, 5)["task_id"]) == set("abcde")


def test_noise_in_the_last_digits_decides_nothing():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 10, size=500) / 7
    noisy = scores * (1 + rng.normal(size=500) * 1e-15)
    assert not np.array_equal(scores, noisy)
    assert np.array_equal(select(scores, 60), select(noisy, 60))


# -- side by side ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["stochastic_margin", "committee_disagreement", "ranked_batch"])
def test_threads_and_processes_give_the_same_batch(strategy, small_blocks):
    learner = started(strategy)
    alone = learner.batch(POOL, 20)
    with joblib.parallel_config(backend="threading", n_jobs=3):
        pd.testing.assert_frame_equal(learner.batch(POOL, 20), alone)


def test_a_dask_cluster_gives_the_same_batch(small_blocks):
    from distributed import Client, LocalCluster

    learner = started("stochastic_margin")
    alone = learner.batch(POOL, 20)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        spread = learner.batch(POOL, 20)
        worked = client.run(lambda: sorted(name for name in sys.modules if name == "hitl_nb.learner.pool"))
    pd.testing.assert_frame_equal(spread, alone)
    assert list(worked.values()) == [["hitl_nb.learner.pool"]]  # the worker, which is a process of its own, did it


def batches():
    """Return a hundred rows by each of some models and strategies."""
    X, y = DIGITS / 16, NUMBERS
    models = LogisticRegression(max_iter=300).fit(X[:300], y[:300]), KNeighborsClassifier(5).fit(X[:300], y[:300])
    names = "margin", "entropy", "margin_inverse_confidence", "stochastic_margin", "ranked_batch"
    return [Learner(m, s).select(X[300:], 100).tolist() for m in models for s in names]


def test_the_same_batch_comes_on_any_processor_and_number_of_threads():
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    fast = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
    assert fast
    with threadpool_limits(1):
        alone = batches()
    with threadpool_limits(4):
        assert batches() == alone
    command = [sys.executable, "-c", "import json, test_selection; print(json.dumps(test_selection.batches()))"]
    slow = {**os.environ, "NPY_DISABLE_CPU_FEATURES": fast, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run(command, env=slow, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone
