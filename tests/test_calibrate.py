"""Calibration: maps with known values, rows that no promise sees twice, and a promise that holds afterwards."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from worlds import INSIDE, RIGHT, World, logged

from hitl_nb import Policy
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence.calibration import calibration
from hitl_nb.lab import Certified, calibrate, choose_threshold, read
from hitl_nb.lab.calibrate import METHODS, bins, isotonic, temperature, venn_abers
from hitl_nb.policy.batch import Batch

TARGET, DELTA = 0.05, 0.1
NIGHTLY = pytest.mark.nightly


@pytest.fixture(autouse=True)
def _plots():
    mpl.use("Agg")
    yield
    plt.close("all")


def rows(n=2000, seed=0, right=lambda s: s**2):
    rng = np.random.default_rng(seed)
    sure = rng.beta(8, 0.8, n)
    return pd.DataFrame({"confidence": sure, "wrong": rng.random(n) > right(sure)})


# -- the maps ----------------------------------------------------------------------------------------------------------


def test_temperature_finds_the_number_by_which_log_odds_were_multiplied():
    rng = np.random.default_rng(1)
    true = rng.beta(8, 0.8, 40_000).clip(1e-6, 1 - 1e-6)
    found = temperature(expit(2 * logit(true)), rng.random(len(true)) < true)
    assert found(expit(np.array([0.0, 2.0, 4.0]))) == pytest.approx(expit(np.array([0.0, 1.0, 2.0])), abs=0.01)
    assert np.isfinite(found(np.array([0.0, 1.0]))).all()


def test_isotonic_steps_are_those_of_scikit_learn():
    frame = rows()
    found = isotonic(frame["confidence"].to_numpy(), ~frame["wrong"].to_numpy())
    theirs = IsotonicRegression(out_of_bounds="clip").fit(frame["confidence"], ~frame["wrong"])
    grid = np.linspace(0, 1, 101)
    assert found(grid).tolist() == theirs.predict(grid).tolist()


def test_venn_abers_joins_two_fits():
    """Wrong at 0.1 and 0.35, right at 0.4 and 0.8: before all that is right a new one is 0 or 1/2, and so on."""
    found = venn_abers(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, True, False, True]))
    assert found(np.array([0.2, 0.5, 0.9])) == pytest.approx([1 / 3, 2 / 3, 3 / 4])  # (0, 1/2), (1/2, 1), (2/3, 1)
    # at a known score the new one stands beside the old one: (0, 1/2) at 0.35, (1/2, 1) at 0.4
    assert found(np.array([0.35, 0.4])) == pytest.approx([1 / 3, 2 / 3])


def test_venn_abers_is_what_two_fits_of_scikit_learn_give():
    rng = np.random.default_rng(2)
    sure = rng.choice(np.linspace(0.5, 1, 21), 120)
    right, new = rng.random(120) < sure, np.r_[0.2, np.linspace(0.51, 0.99, 9), 0.55, 1.0]
    ends = []
    for outcome in (0, 1):
        each = [IsotonicRegression().fit(np.r_[sure, s], np.r_[right, outcome]).predict([s])[0] for s in new]
        ends.append(np.array(each))
    assert venn_abers(sure, right)(new) == pytest.approx(ends[1] / (1 - ends[0] + ends[1]))


def test_bins_are_joined_by_lines_that_may_fall():
    sure, right = np.linspace(0.01, 1, 100), np.r_[np.arange(50) % 10 > 0, np.arange(50) % 10 > 2]
    found = bins(sure, right)  # 45 of 50 and 35 of 50 are right: (45.5 / 51, 35.5 / 51)
    assert found(sure[[24, 25, 74, 75]]) == pytest.approx([45.5 / 51, 45.5 / 51, 35.5 / 51, 35.5 / 51], abs=0.003)
    assert found(np.array([0.5])) == pytest.approx([81 / 102], abs=0.003)  # in the middle of both
    assert np.diff(found(np.array([0.8, 0.9, 1.0]))).min() > 0  # no ties, where the line is level


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_confidences_are_closer_to_what_is_right(method):
    found = calibrate(rows(4000, right=lambda s: expit(0.5 * logit(s.clip(1e-9, 1 - 1e-9)))), method)
    assert found.after.ece < 0.6 * found.before.ece
    assert found.after.brier < found.before.brier
    grid = np.linspace(0, 1, 201)
    assert (np.diff(found(grid)) >= -1e-12).all() or method == "bins"
    assert np.isnan(found([np.nan, 0.5])).tolist() == [True, False]


# -- what is left for a promise ----------------------------------------------------------------------------------------


def test_rows_that_were_fitted_to_are_not_among_those_that_are_left():
    frame = rows(1000).assign(task_id=[f"t{i}" for i in range(1000)])
    seen = []

    def spy(sure, right):
        seen.extend(sure.tolist())
        return lambda confidence: confidence

    found = calibrate(frame, spy, share=0.3)
    left = found.history.frame["confidence"].tolist()
    assert set(seen).isdisjoint(left)
    assert len(seen) + len(left) == 1000
    assert len(seen) == found.fitted == pytest.approx(300, abs=50)
    assert found.method == "spy"


def test_initial_labels_leave_the_whole_history():
    found = calibrate(rows(500, seed=1), "isotonic", initial=rows(800, seed=2))
    assert (found.fitted, len(found.history)) == (800, 500)
    assert found.history.confidence.tolist() == found(rows(500, seed=1)["confidence"]).tolist()


def test_calibrated_answers_are_those_of_another_model():
    found = calibrate(rows(4000).assign(model="v7"), "isotonic")
    promise = choose_threshold(found.history, 0.2, 0.9)
    assert promise.model == found.version("v7") == f"v7+{found.name}"
    assert found.name.startswith("isotonic@")
    said = [{"confidence": 1.0, "model": promise.model}, {"confidence": 1.0, "model": "v7"}]
    ids = np.arange(4, dtype=np.uint64).reshape(2, 2)
    decided = Policy(promise, audit_rate=0).decide(
        Batch.from_rows([{}, {}], said), task_ids=ids, now=pd.Timestamp("2026-01-05")
    )
    assert decided.approved.tolist() == [True, False]


def test_what_is_left_of_audited_rows_keeps_its_probabilities():
    frame = rows(4000)
    probability = np.where(frame["confidence"] < 0.85, 1.0, 0.2)
    judged = np.random.default_rng(3).random(4000) < probability
    frame = frame.astype({"wrong": "boolean"}).assign(review_probability=probability)
    frame.loc[~judged, "wrong"] = pd.NA
    found = calibrate(frame, "isotonic")
    assert set(found.history.probability) == {0.2, 1.0}
    assert found.history.judged.mean() == pytest.approx(judged.mean(), abs=0.03)
    assert choose_threshold(found.history, 0.2, 0.9).threshold is not None


def again_and_again(name, method, streams, n=1000):
    """Return how often a promise on calibrated confidences broke, and the mean share automated."""
    world, rng, broken, automatic = World(name), np.random.default_rng(4), 0, 0.0
    for seed in range(streams):
        sure, wrong = (one[0] for one in world.draw(rng, 1, n))
        try:
            step = calibrate({"confidence": sure, "wrong": wrong}, method, share=0.3, seed=seed)
        except EvidenceError:  # no error among few rows: nothing is automated
            continue
        found = choose_threshold(step.history, TARGET, 1 - DELTA, start=0, seed=seed).threshold
        if found is not None:
            share, risk = world.where(step(INSIDE) >= found)
            broken, automatic = broken + (risk > TARGET), automatic + share
    return broken / streams, automatic / streams


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize(
    ("method", "n", "streams"),
    [
        ("temperature", 1000, 40),
        ("isotonic", 1000, 40),
        ("bins", 1000, 80),
        *(pytest.param("bins", n, 1000, marks=NIGHTLY) for n in (300, 1000, 3000)),
        pytest.param("venn_abers", 1000, 200, marks=NIGHTLY),
    ],
)
def test_a_promise_on_calibrated_confidences_holds(name, method, n, streams):
    broken, automatic = again_and_again(name, method, streams, n)
    print(f"| {n} | {name} | {method} | {automatic:.3f}, {broken:.1%} |")
    assert broken <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / streams)
    if method == "bins" and n == 1000:
        assert automatic > {"calibrated": 0.45, "wrong at the top": 0.33, "mixed": 0.15}.get(name, 0)


@pytest.mark.parametrize("name", ["wrong at the top", "at the target"])
def test_a_promise_on_calibrated_confidences_holds_on_what_a_policy_logged(name):
    world, rng, broken, automatic, streams = World(name), np.random.default_rng(6), 0, 0.0, 60
    for seed in range(streams):
        try:
            step = calibrate(logged(world, rng, 20_000, 0.05), "bins", share=0.3, seed=seed)
        except EvidenceError:
            continue
        found = choose_threshold(step.history, TARGET, 1 - DELTA, start=0, seed=seed).threshold
        if found is not None:
            share, risk = world.where(step(INSIDE) >= found)
            broken, automatic = broken + (risk > TARGET), automatic + share
    print(f"| 5% audits | {name} | bins | {automatic / streams:.3f}, {broken / streams:.1%} |")
    assert broken / streams <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / streams)
    assert automatic / streams > 0.3 or name == "at the target"


def test_a_calibration_fitted_to_the_rows_that_certify_breaks_the_promise():
    """The same bins and the same tests, but on rows that shaped the map."""
    world, rng, broken, streams = World("at the target"), np.random.default_rng(5), 0, 100
    for _ in range(streams):
        sure, wrong = (one[0] for one in world.draw(rng, 1, 1000))
        map_ = bins(sure, ~wrong)
        found = choose_threshold({"confidence": map_(sure), "wrong": wrong}, TARGET, 1 - DELTA, start=0).threshold
        broken += found is not None
    assert broken / streams > DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / streams)


# -- what is shown, what is refused ------------------------------------------------------------------------------------


def test_before_and_after_are_shown_and_drawn():
    found = calibrate(rows(), "temperature")
    assert f"off by {found.after.ece:.1%}, before by {found.before.ece:.1%}" in str(found)
    assert "<table" in found._repr_html_()
    left = found.raw.evidence()  # measured on what it was not fitted to
    assert found.before == calibration(left.confidence, ~left.wrong)
    assert found.after == calibration(found(left.confidence), ~left.wrong)
    labels = found.plot().get_legend_handles_labels()[1]
    assert sorted(labels) == ["after", "as sure as right", "before"]


@pytest.mark.parametrize("wrong", [0, 1])
def test_one_class_is_nothing_to_calibrate_on(wrong):
    frame = pd.DataFrame({"confidence": [0.9, 0.8] * 50, "wrong": [wrong] * 100})
    with pytest.raises(EvidenceError, match="both right and wrong ones are needed"):
        calibrate(frame)


def test_methods_and_shares_that_cannot_be_are_refused():
    with pytest.raises(BadInput, match="method = 'platt': is none of temperature, isotonic, venn_abers"):
        calibrate(rows(), "platt")
    with pytest.raises(BadInput, match="share"):
        calibrate(rows(), share=1)
    with pytest.raises(BadInput, match=r"confidence = 1\.5"):
        calibrate(rows())([0.5, 1.5])


def test_ties_everywhere_are_one_step():
    frame = pd.DataFrame({"confidence": [0.9] * 400, "wrong": [True] + [False] * 399})
    frame = frame.sample(frac=1, random_state=0)
    for method in METHODS:
        found = calibrate(frame, method, share=0.5, seed=1)
        assert len(set(found.history.confidence)) == 1
        assert Certified(target_risk=0.05).fit(read(found.history)).coverage == 1


def test_two_fits_are_two_models_and_a_model_without_a_name_is_not_any():
    one, same, other = (calibrate(rows(4000), "isotonic", seed=seed) for seed in (0, 0, 1))
    assert one.version("v7") == same.version("v7") != other.version("v7")
    promise = choose_threshold(one.history, 0.2, 0.9)
    assert promise.model == one.version() == f"?+{one.name}"
    unnamed = calibrate(rows(4000).assign(model=None), "isotonic")
    assert choose_threshold(unnamed.history, 0.2, 0.9).model == promise.model
    ids = np.arange(4, dtype=np.uint64).reshape(2, 2)
    said = [{"confidence": 1.0}, {"confidence": 1.0, "model": promise.model}]
    decided = Policy(promise, audit_rate=0).decide(
        Batch.from_rows([{}, {}], said), task_ids=ids, now=pd.Timestamp("2026-01-05")
    )
    assert decided.approved.tolist() == [False, True]


def test_models_that_are_calibrated_together_are_named():
    found = calibrate(rows(4000).assign(model=["v1", "v2"] * 2000), "isotonic")
    assert "answers of 2 models are taken together" in found._repr_html_()
