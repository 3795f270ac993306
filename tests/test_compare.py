"""Policies side by side: intervals of their differences hold, and the winner of a search is judged on unseen rows."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import World

from hitl_nb import FieldAbove, Policy
from hitl_nb.errors import BadInput
from hitl_nb.evidence import Certificate, clopper_pearson, share_difference
from hitl_nb.lab import Prices, check_policy, compare, replay, search
from hitl_nb.lab.compare import _front

mpl.use("Agg")
NIGHTLY = pytest.mark.nightly


def rows(n, rng, world="calibrated", audit_rate=1.0, threshold=0.0):
    sure, wrong = (one[0] for one in World(world).draw(rng, 1, n))
    chance = np.where(sure < threshold, 1.0, audit_rate)
    judged = rng.random(n) < chance
    return {"confidence": sure, "wrong": np.where(judged, wrong, np.nan), "review_probability": chance}


# -- differences -------------------------------------------------------------------------------------------------------


def test_a_policy_differs_from_itself_by_nothing():
    found = compare({"a": Policy(0.9), "b": Policy(0.9, audit_rate=0.5)}, rows(400, np.random.default_rng(0))).frame
    assert found.loc["b", ["risk_more", "risk_more_low", "risk_more_high", "coverage_more"]].tolist() == [0, 0, 0, 0]
    assert found["front"].all()


def test_each_part_that_differs_gets_its_share_of_the_doubt():
    given = {"confidence": [0.9] * 50 + [0.8] * 50, "wrong": [True] * 5 + [False] * 45 + [True] * 10 + [False] * 40}
    found = compare({"strict": Policy(0.85), "lax": Policy(0.75)}, given, level=0.9).frame.loc["lax"]
    both, more = clopper_pearson(5, 50, 0.95), clopper_pearson(10, 50, 0.95)
    assert found["risk_more"] == pytest.approx(15 / 100 - 5 / 50)
    assert found["risk_more_low"] == pytest.approx(0.5 * more.low - 0.5 * both.high)
    assert found["risk_more_high"] == pytest.approx(0.5 * more.high - 0.5 * both.low)
    assert found["coverage_more"] == 0.5


@pytest.mark.parametrize("streams", [100, pytest.param(1000, marks=NIGHTLY)])
@pytest.mark.parametrize("audit_rate", [1.0, 0.3])
def test_intervals_of_differences_cover_the_truth(audit_rate, streams):
    world, rng, covered = World("mixed"), np.random.default_rng(1), np.zeros(2)
    risk = float(world.risk(0.8) - world.risk(0.95))
    share = float(world.coverage(0.8) - world.coverage(0.95))
    for seed in range(streams):
        given = rows(1500, rng, "mixed", audit_rate, 0.9)
        one = compare({"a": Policy(0.95), "b": Policy(0.8)}, given, level=0.9, seed=seed).frame.loc["b"]
        covered += (
            one["risk_more_low"] <= risk <= one["risk_more_high"],
            one["coverage_more_low"] <= share <= one["coverage_more_high"],
        )
    assert (covered / streams >= 0.9 - 3 * np.sqrt(0.09 / streams)).all()


def test_what_only_one_lets_through_and_nobody_could_judge_leaves_the_difference_unsaid():
    given = {"confidence": [0.9] * 9 + [0.7], "wrong": [False] * 9 + [None], "review_probability": [1.0] * 9 + [0.0]}
    found = compare({"a": Policy(0.8), "b": Policy(0.6), "c": Policy(1.0)}, given).frame
    assert found["risk"].notna().tolist() == [True, False, False]
    assert found["risk_more"].isna().tolist() == [False, True, True]
    assert found["front"].tolist() == [True, False, False]


@pytest.mark.parametrize(("p", "q", "both"), [(0.1, 0.1, 0.02), (0.3, 0.2, 0.4), (0.01, 0.02, 0.5)])
def test_the_interval_of_a_paired_difference_covers_it(p, q, both):
    rng, n, streams = np.random.default_rng(2), 150, 1500
    counts = rng.multinomial(n, [p, q, both, 1 - p - q - both], size=streams)
    ends = [share_difference(int(a), int(b), n, 0.9) for a, b in counts[:, :2]]
    covered = np.mean([one.low <= q - p <= one.high for one in ends])
    assert 0.9 - 0.03 <= covered <= 0.99  # the score interval is near its level, not far above it


def test_a_paired_difference_is_antisymmetric_and_checked():
    one, other = share_difference(3, 8, 100), share_difference(8, 3, 100)
    assert (one.low, one.high, one.estimate) == pytest.approx((-other.high, -other.low, -other.estimate))
    assert (share_difference(0, 0, 0).low, share_difference(0, 0, 0).high) == (-1, 1)
    with pytest.raises(BadInput, match="at least 11"):
        share_difference(3, 8, 10)


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 4))), min_size=1, max_size=12))
def test_the_front_holds_what_nothing_beats(points):
    frame = pd.DataFrame(points, columns=["coverage", "risk"], dtype=np.float64)

    def beats(a, b):
        return a[1] is not None and a[0] >= b[0] and a[1] <= b[1] and a != b

    assert _front(frame).tolist() == [b[1] is not None and not any(beats(a, b) for a in points) for b in points]


def test_a_comparison_says_a_sentence_shows_a_table_and_draws_itself():
    named = {f"<b>$x_{i}$": Policy(i / 30) for i in range(30)}
    found = compare(named, rows(600, np.random.default_rng(3)))
    assert str(found).startswith("30 policies on 600 rows; on the front: <b>$x_")
    assert "10 more are in .frame" in found._table().notes
    assert "<b>" not in found._repr_html_()
    ax = found.plot()
    assert ax.get_title() == "What policies automate, and how often that is wrong"
    ax.figure.savefig("/dev/null", format="png")  # a name is no formula
    assert len(compare([Policy(0.9), Policy(0.8)], rows(50, np.random.default_rng(3))).frame) == 2
    for wrong in ([], {}, {"a": 0.9}, [0.9]):
        with pytest.raises(BadInput, match="policies"):
            compare(wrong, rows(50, np.random.default_rng(3)))


# -- search ------------------------------------------------------------------------------------------------------------


def test_a_search_tries_what_it_is_told_and_its_winner_is_replayed_on_the_other_rows():
    given = rows(2000, np.random.default_rng(4))
    base = Policy(0.5, (FieldAbove(field="x", bound=1),), seed=9)
    given["input.x"] = [0] * 2000
    found = search(given, base, max_risk=0.06, thresholds=[0.8, 0.9, 0.95], audit_rates=[0.1, 0.5])
    assert len(found.frame) == 6
    best = found.frame.iloc[0]
    assert (found.policy.confidence_threshold, found.policy.audit_rate) == (best["threshold"], best["audit_rate"])
    assert (found.policy.rules, found.policy.seed) == (base.rules, 9)
    assert best["reviews"] == found.frame.loc[found.frame["keeps"], "reviews"].min()
    assert found.confirmed
    assert 900 < len(found.unseen.logged) < 1100
    half = len(given["confidence"]) - len(found.unseen.logged)
    assert replay(found.policy, {k: np.asarray(v)[:half] for k, v in given.items()}).outcome.coverage > 0
    assert "confirmed" in str(found)
    assert len(found._table().rows) == 6


def test_prices_decide_where_there_are_any():
    given = rows(2000, np.random.default_rng(5))
    cheap = search(given, max_risk=1.0, audit_rates=[0.02], prices=Prices(review=1, error=0.1)).policy
    dear = search(given, max_risk=1.0, audit_rates=[0.02], prices=Prices(review=1, error=50)).policy
    assert cheap.confidence_threshold < dear.confidence_threshold


def test_where_no_try_keeps_the_risk_there_is_no_winner():
    found = search(rows(500, np.random.default_rng(6)), max_risk=0.0001)
    assert (found.policy, found.unseen, found.confirmed) == (None, None, False)
    assert str(found) == "None of 160 tries keeps a risk of 0.01%: audit more, or allow more."


def test_of_too_many_tries_a_seeded_choice_is_made():
    given = rows(500, np.random.default_rng(7))
    one, again, other = (search(given, tries=10, seed=seed).frame[["threshold", "audit_rate"]] for seed in (1, 1, 2))
    assert len(one) == 10
    assert one.equals(again)
    assert not one.equals(other)
    for wrong in ({"thresholds": []}, {"audit_rates": []}, {"tries": 0}, {"unseen": 1.0}, {"max_risk": 2}):
        with pytest.raises(BadInput):
            search(given, **wrong)


@pytest.mark.parametrize("streams", [60, pytest.param(600, marks=NIGHTLY)])
def test_a_confirmed_winner_keeps_its_promise_and_the_bounds_of_the_search_do_not(streams):
    """At every threshold the risk is just over what is allowed, so each winner is a false one."""
    rng, won, confirmed = np.random.default_rng(8), 0, 0
    for seed in range(streams):
        given = {"confidence": rng.random(600), "wrong": rng.random(600) < 0.1001}
        tried = np.linspace(0.0, 0.9, 40)
        found = search(given, max_risk=0.1, thresholds=tried, audit_rates=[1.0], level=0.9, seed=seed)
        won, confirmed = won + (found.policy is not None), confirmed + found.confirmed
    allowed = 0.1 + 3 * np.sqrt(0.09 / streams)
    assert confirmed / streams <= allowed < won / streams


# -- odd rules ---------------------------------------------------------------------------------------------------------


def odd(policy, given):
    return list(check_policy(policy, given).conclusions)


def test_rules_that_never_ask_or_ask_for_nothing_new_are_named():
    given = {"confidence": [0.9, 0.95], "wrong": [False, False], "input.x": [1, 5], "input.y": [0, 9]}
    rules = [FieldAbove(field="x", bound=2), FieldAbove(field="x", bound=99), FieldAbove(field="y", bound=-1)]
    assert odd(Policy(0.5, rules, audit_rate=0), given) == [
        "audit is never drawn: its rate is 0, so nothing will be known of what goes through",
        "x above 99 never asks on these 2 rows",
        "y above -1 asks about all of these 2 rows, so no other rule matters",
        "confidence never asks on these 2 rows",
        "x above 2 asks only where y above -1 asks too, on these 2 rows",
    ]
    found = check_policy(Policy(0.5, rules), given)
    assert found.frame.to_dict("index")["y above -1"] == {"asks": 2, "alone": 1}
    assert "x above 99" in repr(found._table())


def test_rules_that_want_different_people_for_a_row_are_named():
    rules = [FieldAbove(field="x", bound=2, expertise="law"), FieldAbove(field="y", bound=2, expertise="tax")]
    given = {"confidence": [0.9] * 3, "wrong": [False] * 3, "input.x": [3, 3, 0], "input.y": [0, 3, 3]}
    assert "x above 2 asks law, y above 2 asks tax: on 1 rows both do, and law gets them" in odd(
        Policy(0.95, rules), given
    )


def test_thresholds_of_labels_that_never_come_and_certificates_of_other_models_are_named():
    given = {
        "confidence": [0.9, 0.9], "wrong": [False, False], "prediction": ["a", ["a"]], "model": ["v2", "v2"],
    }  # fmt: skip
    assert "the threshold of label b is never used: no prediction has it" in odd(
        Policy(0.95, label_thresholds={"b": 0.5}), given
    )
    kept = Certificate(threshold=0.5, target_risk=0.1, confidence_level=0.9, n=9, coverage=1, kind="c", model="v1")
    assert "certificate asks about all of these 2 rows, so no other rule matters" in odd(Policy(kept), given)


def test_models_that_are_taken_together_are_named():
    rng = np.random.default_rng(0)
    sure = rng.beta(8, 0.8, 2000)
    rows = {"confidence": sure, "wrong": rng.random(2000) > sure, "model": ["v1", "v2"] * 1000}
    assert "answers of 2 models are taken together" in compare([Policy(0.9)], rows)._repr_html_()
    assert "answers of 2 models are taken together" in search(rows, max_risk=0.2)._repr_html_()
