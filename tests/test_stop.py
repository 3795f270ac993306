"""Advice about when to stop asking."""

import numpy as np
import pytest

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.learner import forecast, reasons_to_stop

SIZES = np.array([100, 150, 225, 340, 500])


def held(shape, runs=300):
    """Return how often the interval holds the labels that an error of 4 % takes, where errors follow `shape`."""
    rng, truth = np.random.default_rng(3), next(n for n in range(100, 10**6) if shape(n) <= 0.04)
    found = [forecast(SIZES, rng.binomial(1000, shape(SIZES)), [1000] * 5, 0.04, seed=run) for run in range(runs)]
    return np.mean([one.low <= truth <= one.high for one in found])


def test_an_interval_holds_the_labels_that_were_needed_where_errors_follow_the_law():
    assert 0.85 <= held(lambda n: 3 * n**-0.6) <= 0.95


def test_it_does_not_where_the_curve_bends_as_its_docstring_says():
    assert held(lambda n: 0.0395 + 30 * n**-1.4) < 0.5


def test_errors_that_do_not_fall_have_no_number():
    found = forecast([100, 200, 400], [50, 50, 60], [500] * 3, 0.01)
    assert (found.labels, found.high) == (np.inf, np.inf)
    assert found.gain <= 0
    assert "no number" in str(found)


def test_fewer_cases_make_a_wider_interval():
    few, many = (forecast(SIZES, SIZES[::-1] * k // 10, [500 * k] * 5, 0.02) for k in (1, 10))
    assert few.low < many.low < many.high < few.high


@pytest.mark.parametrize(
    ("labels", "wrong", "of"), [([1, 2], [1], [2, 2]), ([0, 1, 2], [1] * 3, [2] * 3), ([1, 2, 3], [3] * 3, [2] * 3)]
)
def test_impossible_counts_are_refused(labels, wrong, of):
    with pytest.raises(BadInput):
        forecast(labels, wrong, of, 0.1)


def test_two_sizes_are_no_curve():
    with pytest.raises(EvidenceError, match="models of three"):
        forecast([100, 100, 200], [5, 5, 4], [50] * 3, 0.01)


def answers(changes, n=1000):
    """Return what five models say of the same rows, where so many answers change from one to the next."""
    rng, now, found = np.random.default_rng(0), np.arange(n) % 2, []
    for _ in range(5):
        found.append(now.copy())
        now[rng.choice(n, changes, replace=False)] ^= 1
    return found


@pytest.mark.parametrize(("changes", "stops"), [(0, True), (4, True), (20, False)])  # kappa 1, 0.992, 0.96
def test_models_that_agree_speak_for_an_end(changes, stops):
    assert bool(reasons_to_stop(answers(changes))) is stops
    assert reasons_to_stop(answers(changes)[:3]) == ()  # too few models to say


def test_gain_and_budget_speak_for_an_end_only_where_they_are_reached():
    assert reasons_to_stop([], gain=0.006, reviewed=499, budget=500) == ()
    assert len(reasons_to_stop([], gain=0.004, reviewed=500, budget=500)) == 2
