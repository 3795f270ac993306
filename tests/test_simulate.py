"""Simulated loops: a winner is named only where that is proven, what is finished is not run again, nothing leaks."""

import json

import joblib
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct, t
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from hitl_nb.errors import BadInput, FitFailed
from hitl_nb.lab import Certified, Fixed, Simulation, simulate
from hitl_nb.learner import STRATEGIES, Learner
from hitl_nb.shipped import load_spam

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
SMALL = {"estimator": GaussianNB(), "initial": 20, "batch": 20, "budget": 40, "seeds": 2, "progress": False}
LINEAR = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def alike(probabilities, rng):
    """Ask what margin asks, under another name."""
    return STRATEGIES["margin"](probabilities, rng)


def other_random(probabilities, rng):
    """Ask anything, but not what random asks."""
    return rng.random(2 * len(probabilities))[len(probabilities) :]


# -- verdicts ----------------------------------------------------------------------------------------------------------


def simulated(accuracy, labels=(10, 20), automatic=0.0, missed=0.0, rules=("a",), error_cost=20.0, level=0.95):
    """Return curves of the shape (worlds, arms, seeds, steps) as a simulation."""
    lines = [
        {"strategy": f"s{arm}", "weighting": "ones", "rule": rule, "reviewer_error": world, "seed": seed,
         "labels": labels[step], "accuracy": found, "threshold": 0.5, "automatic": automatic, "missed": missed}
        for (world, arm, seed, step), found in np.ndenumerate(np.asarray(accuracy, dtype=float)) for rule in rules
    ]  # fmt: skip
    return Simulation(frame=pd.DataFrame(lines), error_cost=error_cost, level=level)


def streams(worlds, leads, seeds=10, spread=0.01):
    """Return a simulation with its own arms in each world: noise that seeds share, and noise of each arm."""
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 0.03, (worlds, 1, seeds, 1)), rng.normal(0, spread, (worlds, len(leads), seeds, 1))
    return simulated(np.repeat(0.8 + np.reshape(leads, (1, -1, 1, 1)) + shared + own, 2, axis=3))


@pytest.mark.parametrize(
    ("arms", "worlds"), [(2, 150), (4, 80), *(pytest.param(k, 1000, marks=pytest.mark.nightly) for k in (2, 3, 6))]
)
def test_of_equal_arms_a_winner_is_named_no_more_often_than_promised(arms, worlds):
    named = [one.winner is not None for one in streams(worlds, [0.0] * arms).verdicts()]
    assert np.mean(named) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)


def test_the_best_against_the_worst_at_the_level_of_one_comparison_names_equal_arms_too_often():
    loops, named = streams(150, [0.0] * 6).loops, []
    for _, rows in loops.pivot(index=["reviewer_error", "seed"], columns="strategy", values="area").groupby(level=0):
        gap = rows[rows.mean().idxmax()] - rows[rows.mean().idxmin()]
        named.append(gap.mean() > t.isf(0.025, 9) * gap.std() / np.sqrt(10))
    assert np.mean(named) > 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_the_interval_is_the_paired_one_at_an_equal_part_of_the_level_for_each_arm():
    loops = streams(1, [0.0, 0.01, 0.02])
    [one], wide = loops.verdicts(), loops.loops.pivot(index="seed", columns="strategy", values="area")
    gap = wide["s2"] - wide["s1"]
    half = t.isf(0.05 / 3, 9) * gap.std() / np.sqrt(10)
    assert (one.best, one.rival) == ("s2, ones", "s1, ones")
    assert [one.lead, one.low, one.high] == pytest.approx([gap.mean(), gap.mean() - half, gap.mean() + half])
    assert loops.summary().set_index("strategy").loc["s1", ["behind", "low", "high"]].tolist() == pytest.approx(
        [one.lead, one.low, one.high]
    )


def test_a_clear_lead_is_named_and_a_wrong_arm_never_is():
    found = [one.winner for one in streams(50, [0.0, 0.03, 0.0]).verdicts()]
    assert found.count("s1, ones") > 47
    assert set(found) <= {None, "s1, ones"}


def test_the_seeds_that_are_missing_are_about_those_that_show_the_lead_four_times_in_five():
    lead, spread = 0.01, 0.01
    verdicts = streams(100, [0.0, lead], spread=spread).verdicts()
    said = [one.seeds + (one.seeds_missing or 2000) for one in verdicts if one.winner is None and one.best[:2] == "s1"]
    power = [nct.sf(t.isf(0.025, n - 1), n - 1, lead / (spread * np.sqrt(2)) * np.sqrt(n)) for n in range(2, 100)]
    right = 2 + int(np.argmax(np.array(power) > 0.8))
    assert right / 2 < np.median(said) < 4 * right  # what is refused looks smaller than it is
    assert "more seeds would tell" in str(next(one for one in verdicts if one.winner is None))


def test_fewer_than_ten_seeds_name_no_winner():
    for seeds, named in ((9, None), (10, "s1, ones")):
        [one] = streams(1, [0.0, 0.3], seeds=seeds).verdicts()
        assert (one.winner, one.seeds) == (named, seeds)
        assert one.low > 0
    assert streams(1, [0.0, 0.3], seeds=9).verdicts()[0].seeds_missing == 1


def test_the_area_is_the_mean_height_of_the_curve():
    curve = [[[[0.5, 0.7, 0.9]] * 2]]
    found = simulated(curve, labels=(10, 20, 40)).loops
    assert found["area"].tolist() == pytest.approx([(0.6 * 10 + 0.8 * 20) / 30] * 2)


def test_a_cost_counts_reviews_and_errors_and_alone_hangs_on_the_rule():
    found = simulated(np.full((1, 2, 10, 2), 0.9), automatic=0.8, missed=0.01, rules=("a", "b"))
    assert found.loops["cost"].unique().tolist() == pytest.approx([1000 * (0.2 + 20 * 0.01)])
    assert (found.verdicts("area")[0].best, found.verdicts("cost")[0].best) == ("s0, ones", "s0, ones, a")
    found.frame.loc[found.frame["rule"] == "a", "missed"] = 0.02
    assert found.verdicts("cost")[0].best == "s0, ones, b"
    assert (found.verdicts("cost")[0].rival, found.verdicts("cost")[0].lead) == ("s1, ones, b", 0)
    assert found.verdicts("area")[0].winner is None
    behind = found.summary("cost").set_index(["strategy", "rule"])["behind"]
    assert behind.to_dict() == pytest.approx(
        {("s0", "a"): 200, ("s0", "b"): np.nan, ("s1", "a"): 200, ("s1", "b"): 0}, nan_ok=True
    )


def test_a_measure_that_is_none_is_refused():
    with pytest.raises(BadInput, match="measure = 'speed': is none of area, accuracy, cost"):
        streams(1, [0, 0]).verdicts("speed")


# -- loops -------------------------------------------------------------------------------------------------------------


class Spy(GaussianNB):
    """Counts fits, keeps which rows it saw with which label, and fails when it is told to."""

    fits, most, trained, asked = 0, np.inf, [], []

    def fit(self, X, y, sample_weight=None):
        type(self).fits += 1
        if self.fits > self.most:
            raise RuntimeError("out of memory")
        type(self).trained.append(dict(zip(X["row"], y, strict=True)))
        return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        type(self).asked.append(frozenset(X["row"]))
        return super().predict_proba(X)


@pytest.fixture
def spy():
    Spy.fits, Spy.most, Spy.trained, Spy.asked = 0, np.inf, [], []
    return {**SMALL, "estimator": Spy()}, X.iloc[:, :5].assign(row=np.arange(len(X)))


def test_no_row_that_measures_or_is_audited_is_trained_on_and_all_arms_have_the_same(spy):
    options, rows = spy
    simulate(rows, Y, **{**options, "seeds": [3, 4]}, strategies=["margin", "entropy"], test=0.3, audits=0.2)
    loops = [Spy.trained[i : i + 3] for i in range(0, len(Spy.trained), 3)]
    assert [len(fit) for fit in loops[0]] == [20, 40, 60]
    assert [set(loop[0]) for loop in loops[:2]] == [set(loop[0]) for loop in loops[2:]]
    assert set(loops[0][0]) != set(loops[1][0])
    for seed in (0, 1):
        ever = set().union(*(loop[-1] for loop in loops[seed::2]))
        measured = [rows for rows in Spy.asked if len(rows) in (round(0.3 * len(Y)), round(0.2 * len(Y)))]
        mine = [rows for rows in set(measured) if not rows & ever]
        assert len(mine) >= 2


def test_reviewers_err_as_often_as_they_are_told_to_and_first_labels_are_true(spy):
    options, rows = spy
    truth, wrong = dict(enumerate(Y)), {}
    simulate(rows, Y, **options, strategies=["random"], reviewer_error=[0.0, 0.1, 0.3], test=0.1, audits=0.1)
    for error, loop in zip((0.0, 0.1, 0.3), (Spy.trained[i : i + 3] for i in (0, 6, 12)), strict=True):
        assert all(truth[row] == label for row, label in loop[0].items())
        wrong[error] = {row for row, label in loop[-1].items() if truth[row] != label}
    assert wrong[0.0] == set()
    assert wrong[0.1] <= wrong[0.3]
    assert 0 < len(wrong[0.1]) < len(wrong[0.3]) < 25


def test_finished_loops_are_not_run_again_and_come_out_the_same(spy, tmp_path):
    options, rows = spy
    whole = simulate(rows, Y, **options).frame
    assert Spy.fits == 12
    Spy.most = Spy.fits + 7
    with pytest.raises(FitFailed, match="out of memory"):
        simulate(rows, Y, **options, folder=tmp_path / "kept")
    Spy.fits, Spy.most = 0, np.inf
    assert simulate(rows, Y, **options, folder=tmp_path / "kept").frame.equals(whole)
    assert Spy.fits == 6  # two loops were finished
    assert simulate(rows, Y, **{**options, "seeds": np.arange(2)}, folder=tmp_path / "kept").frame.equals(whole)
    assert simulate(rows, Y, **{**options, "seeds": 3}, folder=tmp_path / "kept").frame["seed"].nunique() == 3
    assert Spy.fits == 12
    kept = sorted((tmp_path / "kept").iterdir())
    assert {path.suffix for path in kept} == {".json"}
    assert all(json.loads(path.read_text()) for path in kept)
    kept[0].write_text(kept[0].read_text()[:-40])
    simulate(rows, Y, **{**options, "seeds": 3}, folder=tmp_path / "kept")
    assert Spy.fits == 15


def test_another_label_setting_or_function_is_another_simulation(spy, tmp_path):
    options, rows = spy
    options = {**options, "strategies": ["margin"], "folder": tmp_path}
    simulate(rows, Y, **options)
    assert Spy.fits == 6
    turned = Y.copy()
    turned.iloc[-1] = 1 - turned.iloc[-1]

    def mine(confidence):
        return 2.0 - np.nan_to_num(confidence, nan=0.5)

    def yours(confidence):
        return 3.0 - np.nan_to_num(confidence, nan=0.5)

    yours.__name__ = "mine"
    for others in (
        {"y": turned}, {"X": rows.assign(row=rows["row"] + 1)}, {"estimator": Spy(var_smoothing=1e-6)}, {"batch": 10},
        {"rules": {"0.9": Fixed(threshold=0.9)}}, {"reviewer_error": [0.2]}, {"weightings": [mine]},
        {"weightings": [yours]}, {"seeds": [7, 8]},
    ):  # fmt: skip
        before = Spy.fits
        simulate(**{"X": rows, "y": Y, **options, **others})
        assert Spy.fits >= before + 6
        before = Spy.fits
        simulate(**{"X": rows, "y": Y, **options, **others})
        assert Spy.fits == before


def test_figures_do_not_depend_on_how_the_work_is_spread():
    options = {**SMALL, "estimator": LINEAR, "strategies": ["margin"], "rules": {"5 %": Certified(target_risk=0.05)}}
    alone = simulate(X, Y, **options).frame
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert simulate(X, Y, **options).frame.equals(alone)
    assert simulate(X, Y, **options, n_jobs=2).frame.equals(alone)


def test_a_parallel_configuration_from_outside_reaches_it():
    class Counted(joblib.parallel.ThreadingBackend):
        jobs = 0

        def submit(self, func, callback=None):
            Counted.jobs += 1
            return super().submit(func, callback)

    joblib.register_parallel_backend("counted", Counted)
    with joblib.parallel_config(backend="counted", n_jobs=2):
        simulate(X, Y, **SMALL, strategies=["margin"])
    assert Counted.jobs >= 1


def test_a_rule_that_lets_all_through_misses_every_error_and_one_that_finds_nothing_misses_none():
    rules = {"all": Fixed(threshold=0.0), "none": Certified(target_risk=0.001)}
    found = simulate(X, Y, **SMALL, strategies=["margin"], rules=rules).frame.set_index("rule")
    everything, nothing = found.loc["all"], found.loc["none"]
    assert (everything["automatic"] == 1).all()
    assert everything["missed"].tolist() == pytest.approx((1 - everything["accuracy"]).tolist())
    assert nothing["threshold"].isna().all()
    assert not nothing[["automatic", "missed"]].any(axis=None)


def test_two_arms_that_do_the_same_are_no_winner_and_no_seeds_would_tell():
    frame = load_spam().sample(1000, random_state=0)
    found = simulate(
        np.log1p(frame.drop(columns="label")), frame["label"], **{**SMALL, "seeds": 10, "budget": 20},
        strategies=["margin", alike],
    )  # fmt: skip
    for measure in ("area", "accuracy", "cost"):
        [one] = found.verdicts(measure)
        assert (one.winner, one.lead, one.low, one.high, one.seeds_missing) == (None, 0, 0, 0, None)
    assert "they may well be equal" in str(found)


def digits(**options):
    found = load_digits()
    return simulate(
        found.data[:900, 8:56] / 16, found.target[:900], estimator=LogisticRegression(max_iter=300), initial=100,
        audits=0.05, progress=False, strategies=["margin", "random"], **options,
    )  # fmt: skip


def test_margin_learns_digits_faster_than_chance():
    [one] = digits(batch=50, budget=100).verdicts()
    assert one.winner == "margin, ones"
    assert str(one).startswith("best by area where reviewers err in 0%: margin, ones, +")


@pytest.mark.nightly
def test_wrong_labels_cost_accuracy_and_margin_leads_with_them_too():
    found = digits(batch=50, budget=100, reviewer_error=[0.0, 0.3])
    right = found.summary("accuracy").groupby("reviewer_error")["accuracy"]
    assert right.max()[0.3] < right.min()[0.0]
    assert [one.winner for one in found.verdicts()] == ["margin, ones"] * 2


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_of_two_ways_to_ask_anything_a_winner_is_named_no_more_often_than_promised():
    named = []
    for first in range(0, 400, 10):
        found = simulate(
            X.iloc[:, :6], Y, **{**SMALL, "seeds": range(first, first + 10), "batch": 40},
            strategies=["random", other_random],
        )  # fmt: skip
        named.append(found.verdicts()[0].winner is not None)
    assert np.mean(named) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(named))


def test_it_says_a_sentence_shows_a_table_and_draws_curves():
    mpl.use("Agg")
    rules = {"0.85": Fixed(threshold=0.85), "<b>": Certified(target_risk=0.001)}
    found = simulate(X, Y, **SMALL, strategies=["margin"], rules=rules, reviewer_error=[0.0, 0.1])
    assert "right after 60 labels" in str(found)
    assert "2 loops an arm, to 60 labels" in repr(found)
    assert "nan" not in repr(found)
    assert "&lt;b&gt;" in found._repr_html_()
    ax = found.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["margin, ones"]
    assert found.plot(ax, reviewer_error=0.1) is ax
    with pytest.raises(BadInput, match=r"reviewer_error = 0\.2: is none of 0\.0, 0\.1"):
        found.plot(reviewer_error=0.2)


def test_pipelines_frames_with_text_labels_and_arrays_run():
    words = np.where(Y == 1, "benign", "malignant")
    model = make_pipeline(FunctionTransformer(np.log1p), GaussianNB())
    frames = [
        simulate(some, labels, **{**SMALL, "estimator": model}, strategies=["margin"]).frame
        for some, labels in ((X, words), (X.to_numpy(), list(words)), (X.set_index(X.index + 5), pd.Series(words)))
    ]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": Y[:-1]}, "y = .*one known label for each row of X"),
        ({"y": Y.astype(float).mask(Y.index == 3)}, "y = .*known label"),
        ({"y": np.zeros(len(X))}, "y = 1: a model needs two labels"),
        ({"X": X[["mean area"]].rename(columns={"mean area": "label"})}, "'label'.*rename"),
        ({"X": X["mean area"]}, "shape"),
        ({"initial": 1}, "initial = 1: must be 2 or more"),
        ({"budget": 0}, "labels = .20,.: nothing is asked for"),
        ({"batch": 0}, "batch and budget must be 1 or more"),
        ({"batch": 2.5}, "batch = 2.5"),
        ({"budget": 500}, "budget = 805: labels, audits and test rows; there are 569"),
        ({"seeds": 1}, "seeds = 1: needs 2"),
        ({"seeds": [0.5, 1]}, "seeds = 0.5"),
        ({"strategies": ["margin", "margin"]}, "stands there twice"),
        ({"strategies": ["best"]}, "strategy = 'best'"),
        ({"weightings": ["heavy"]}, "weighting = 'heavy'"),
        ({"reviewer_error": [2]}, "reviewer_error = 2"),
        ({"level": 1}, "level = 1"),
        ({"error_cost": -1}, "error_cost = -1"),
        ({"test": 1.5}, "test = 1.5"),
    ],
)
def test_what_cannot_be_simulated_is_named(options, message):
    with pytest.raises(BadInput, match=message):
        simulate(**{"X": X, "y": Y, **SMALL, **options})


def test_by_default_what_a_loop_asks_is_compared_with_chance():
    found = simulate(X, Y, **SMALL).frame
    assert set(found["strategy"]) == {Learner(GaussianNB()).strategy, "random"}
