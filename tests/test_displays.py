"""What the lab shows: a band that holds at all thresholds at once, and plots of what was read."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta
from sklearn.metrics import brier_score_loss

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence.calibration import calibration
from hitl_nb.lab import ConfidenceDisplay, ReliabilityDisplay, RiskCoverageDisplay, risk_coverage


@pytest.fixture(autouse=True)
def _plots():
    mpl.use("Agg")
    yield
    plt.close("all")


SURE = beta(8, 0.8)


def true_risk(threshold):
    """Return the risk above a threshold where confidences are calibrated, by numeric integration."""
    return quad(lambda s: (1 - s) * SURE.pdf(s), threshold, 1)[0] / SURE.sf(threshold)


GRID = np.linspace(0, 0.9999, 400)
RISK = np.array([true_risk(t) for t in GRID])


@pytest.mark.parametrize("audited", [False, True])
def test_the_band_holds_at_all_thresholds_at_once(audited):
    rng, missed, streams = np.random.default_rng(5), 0, 200
    for seed in range(streams):
        sure = rng.beta(8, 0.8, 2000)
        wrong = (rng.random(2000) > sure).astype(float)
        probability = np.where(audited & (sure >= 0.85), 0.2, 1.0)
        wrong[rng.random(2000) >= probability] = np.nan
        columns = {"confidence": sure, "wrong": wrong, "review_probability": probability}
        shown = RiskCoverageDisplay.from_history(columns, seed=seed, level=0.9).frame
        risk = np.interp(shown["threshold"], GRID, RISK)
        missed += ((risk < shown["low"] - 1e-6) | (risk > shown["high"] + 1e-6)).any()
    assert missed / streams <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / streams)


def test_coverage_counts_all_rows_and_ties_go_together():
    shown = RiskCoverageDisplay.from_history({
        "confidence": [0.9] * 50 + [0.5] * 50, "wrong": [0] * 50 + [1] * 25 + [None] * 25,
        "review_probability": [1.0] * 100,
    }).frame  # fmt: skip
    assert shown[["threshold", "coverage", "risk", "n"]].values.tolist() == [[0.9, 0.5, 0, 50], [0.5, 1.0, 1 / 3, 75]]


def test_a_curve_says_a_sentence_and_draws_itself():
    rng = np.random.default_rng(1)
    sure = rng.random(500)
    shown = RiskCoverageDisplay.from_history({"confidence": sure, "wrong": rng.random(500) > sure})
    assert "500 judged" in str(shown)
    assert "<table" in shown._repr_html_()
    ax = shown.plot(target=0.1)
    assert ax.get_xlabel() == "decided without a person (%)"
    assert shown.plot(ax) is ax
    with pytest.raises(BadInput, match="target"):
        shown.plot(target=2)


def test_the_curve_is_one_call():
    columns = {"confidence": np.linspace(0, 1, 300), "wrong": [False] * 300}
    shown = risk_coverage(columns, level=0.9)
    assert shown.frame.equals(RiskCoverageDisplay.from_history(columns, level=0.9).frame)


def test_too_little_is_no_curve():
    with pytest.raises(EvidenceError, match="1 judged rows are too few"):
        RiskCoverageDisplay.from_history({"confidence": [0.5], "wrong": [True]})
    with pytest.raises(BadInput, match="level"):
        RiskCoverageDisplay.from_history({"confidence": [0.5] * 9, "wrong": [True] * 9}, level=1.0)


def test_confidences_are_shown_by_outcome_and_group():
    columns = {
        "confidence": [0.2, 0.9, None], "wrong": [1, 0, None], "group": ["<b>", None, "a\u202eb"],
        "review_probability": [1.0] * 3,
    }  # fmt: skip
    shown = ConfidenceDisplay.from_history(columns, by="group")
    assert shown.frame["outcome"].tolist() == ["wrong", "right", "not judged"]
    assert shown.frame["group"].tolist()[2] == "a⟨U+202E⟩b"
    assert sum(patch.get_height() for patch in shown.plot().patches) == 2
    alone = shown.plot(group="<b>")
    assert (sum(patch.get_height() for patch in alone.patches), alone.get_title()) == (
        1,
        "How sure the model was: <b>",
    )
    with pytest.raises(BadInput, match="group"):
        shown.plot(group="c")
    with pytest.raises(BadInput, match="columns are confidence, wrong"):
        ConfidenceDisplay.from_history(columns, by="team")


# -- calibration -------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_brier_score_add_up_where_a_bin_holds_one_confidence():
    rng = np.random.default_rng(2)
    sure = rng.choice([0.5, 0.7, 0.95], 3000)
    right = rng.random(3000) < sure**2
    found = calibration(sure, right, bins=30)
    assert found.reliability - found.resolution + found.uncertainty == pytest.approx(found.brier)
    assert found.ece == pytest.approx(np.mean([c - c**2 for c in (0.5, 0.7, 0.95)]), abs=0.02)
    assert found.brier == pytest.approx(brier_score_loss(right, sure))


def test_calibrated_confidences_are_hardly_off_and_others_are():
    rng = np.random.default_rng(3)
    sure = SURE.rvs(20_000, random_state=rng)
    good, bad = (calibration(sure, rng.random(20_000) < sure**power) for power in (1, 2))
    assert good.ece < 0.01 < 0.05 < bad.ece
    assert good.ks < 0.01 < 0.05 < bad.ks


def test_reliability_is_measured_on_evidence_and_its_intervals_hold():
    rng, held = np.random.default_rng(4), []
    for seed in range(60):
        sure = SURE.rvs(1000, random_state=rng)
        columns = {"confidence": sure, "wrong": rng.random(1000) > sure}
        shown = ReliabilityDisplay.from_history(columns, seed=seed).frame
        held += ((shown["low"] <= shown["confidence"]) & (shown["confidence"] <= shown["high"])).tolist()
    assert np.mean(held) > 0.93
    display = ReliabilityDisplay.from_history(columns)
    assert "n = 1,000" in str(display)
    assert "<table" in display._repr_html_()
    assert display.plot().get_ylabel() == "right (%)"


@pytest.mark.parametrize(
    ("confidence", "right"), [([0.5], [1, 0]), ([1.5], [1]), ([0.5], [2]), ([float("nan")], [1]), ([[0.5]], [[1]])]
)
def test_figures_that_cannot_be_measured_are_refused(confidence, right):
    with pytest.raises(BadInput):
        calibration(confidence, right)


def test_no_case_is_no_figure():
    with pytest.raises(EvidenceError, match="no judged case"):
        calibration([], [])
    with pytest.raises(BadInput, match="bins"):
        ReliabilityDisplay.from_history({"confidence": [0.5] * 9, "wrong": [True] * 9}, bins=0)
