"""What the lab shows: a band that holds at all thresholds at once, and plots of what was read."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.lab import ConfidenceDisplay, RiskCoverageDisplay


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
    with pytest.raises(BadInput, match="columns are confidence, wrong"):
        ConfidenceDisplay.from_history(columns, by="team")
