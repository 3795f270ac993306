"""What `hitl_nb.evidence` promises, against textbook numbers, by property and by simulation."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import (
    Certificate,
    clopper_pearson,
    compare_paired,
    corrected_risk,
    inverse_confidence,
    inverse_propensity,
    lure,
    pairs_needed,
    reviewer_error,
    spent,
    with_floor,
)

levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])
counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))

# -- weights -----------------------------------------------------------------------------------------------------------


def test_inverse_confidence_is_one_over_confidence_plus_a_hundredth():
    assert inverse_confidence([0.99, 0.49, 0.0]).tolist() == [1.0, 2.0, 100.0]


def test_an_unknown_confidence_weighs_like_one_half():
    assert inverse_confidence([math.nan, None, 0.5]).tolist() == [1 / 0.51] * 3


@pytest.mark.parametrize("value", [1.01, -0.2, math.inf, -math.inf, "0.5", True])
def test_what_is_no_confidence_is_refused_by_value(value):
    with pytest.raises(BadInput) as caught:
        inverse_confidence([value])
    assert str(value) in str(caught.value)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_less_confidence_never_weighs_less(confidence):
    weights = inverse_confidence(np.sort(confidence))
    assert (np.diff(weights) <= 0).all()


# -- intervals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "n", "level", "low", "high"),
    [
        (0, 10, 0.95, 0.0, 1 - 0.025 ** (1 / 10)),  # no error: (1 - high)^10 = 0.025
        (10, 10, 0.95, 0.025 ** (1 / 10), 1.0),  # all wrong: low^10 = 0.025
        (0, 149, 0.90, 0.0, 0.0199),  # "149 error-free rows for 2 % at 95 % one-sided": 0.98^149 = 0.0493 < 0.05
        (4, 20, 0.95, 0.0573, 0.4366),  # Clopper and Pearson 1934; the tables' 4 of 20
        (0, 24, 0.95, 0.0, 0.1425),  # 0.8575^24 = 0.025: no error in 24 audits is not "no errors"
    ],
)
def test_clopper_pearson_gives_the_textbook_bounds(wrong, n, level, low, high):
    interval = clopper_pearson(wrong, n, level)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_without_cases_a_rate_may_be_anything():
    nothing = clopper_pearson(0, 0)
    assert (nothing.low, nothing.high, nothing.n) == (0.0, 1.0, 0)
    assert math.isnan(nothing.estimate)


@given(counts, levels)
def test_an_interval_contains_its_estimate(case, level):
    interval = clopper_pearson(*case, level)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


@given(counts, levels)
def test_one_more_wrong_never_lowers_a_bound_and_one_more_right_never_raises_one(case, level):
    wrong, n = case
    before, worse, better = (clopper_pearson(*c, level) for c in [(wrong, n), (wrong + 1, n + 1), (wrong, n + 1)])
    assert worse.low >= before.low
    assert worse.high >= before.high
    assert better.low <= before.low
    assert better.high <= before.high


@pytest.mark.parametrize(("wrong", "n", "level"), [(3, 2, 0.9), (-1, 2, 0.9), (1.5, 2, 0.9), (1, 2, 1.0), (1, 2, "a")])
def test_impossible_counts_are_refused(wrong, n, level):
    with pytest.raises(BadInput):
        clopper_pearson(wrong, n, level)


# -- reviewers err too -------------------------------------------------------------------------------------------------


def test_reviewer_error_solves_two_e_times_one_minus_e():
    assert reviewer_error(18, 100).estimate == pytest.approx(0.1)  # 2 x 0.1 x 0.9 = 0.18
    assert reviewer_error(60, 100).estimate == 0.5  # above one half there is no solution: coins


@given(counts, levels)
def test_a_reviewer_error_lies_within_its_interval_and_below_one_half(case, level):
    error = reviewer_error(*case, level)
    assert 0 <= error.low <= error.estimate <= error.high <= 0.5


def test_corrected_risk_takes_the_reviewers_own_errors_out():
    # observed 0.008 x 0.95 + 0.992 x 0.05 = 0.0572; back: (0.0572 - 0.05) / 0.9 = 0.008
    assert corrected_risk(572, 10_000, 95, 1000).estimate == pytest.approx(0.008, abs=1e-12)


@given(counts, counts, levels)
def test_a_corrected_risk_is_an_interval_within_zero_and_one_or_an_error(case, doubles, level):
    with suppress(EvidenceError):
        risk = corrected_risk(*case, *doubles, level)
        assert 0 <= risk.low <= risk.estimate <= risk.high <= 1


@pytest.mark.parametrize(("disagreements", "pairs"), [(0, 0), (1, 3), (5, 12)])
def test_what_cannot_be_said_says_how_many_double_audits_it_needs(disagreements, pairs):
    with pytest.raises(EvidenceError, match=r"cannot be said: needs about \d+ double audits") as caught:
        corrected_risk(10, 100, disagreements, pairs)
    assert caught.value.values["pairs_needed"] > pairs


def test_reviewers_who_disagree_like_coins_are_helped_by_no_number():
    with pytest.raises(EvidenceError, match="as coins") as caught:
        corrected_risk(10, 100, 50, 100)
    assert caught.value.values["pairs_needed"] is None
    assert pairs_needed(0.5) is None


def test_no_pairs_leave_the_reviewer_error_unsaid():
    with pytest.raises(EvidenceError):
        reviewer_error(0, 0)


@pytest.fixture(scope="module")
def audited_streams():
    """Return per stream: does (the corrected, the plain) interval hold the true 0.8 %, reviewers erring in 5 %?"""
    rng, truth, e = np.random.default_rng(1), 0.008, 0.05
    held = []
    for _ in range(400):
        wrong = rng.random(2000) < truth
        first, second = wrong ^ (rng.random(2000) < e), wrong ^ (rng.random(2000) < e)
        doubles = int((first[:200] != second[:200]).sum())
        both = corrected_risk(first.sum(), 2000, doubles, 200), clopper_pearson(first.sum(), 2000)
        held.append([interval.low <= truth <= interval.high for interval in both])
    return np.mean(held, axis=0)


def test_the_corrected_interval_holds_the_truth_as_often_as_it_says(audited_streams):
    assert audited_streams[0] >= 0.95


def test_the_uncorrected_interval_fails_which_is_why_it_is_corrected(audited_streams):
    assert audited_streams[1] <= 0.01


# -- weights -----------------------------------------------------------------------------------------------------------


def estimates(runs: int = 1000, pool: int = 200, m: int = 40):
    """Estimate the mean loss of a pool from rows that were chosen because they looked difficult, in three ways."""
    rng = np.random.default_rng(11)
    hard = rng.random(pool)
    loss = (rng.random(pool) < hard**2).astype(float)
    found = {"naive": [], "lure": [], "inverse": []}
    for _ in range(runs):
        left, rows, q = np.arange(pool), [], []
        for _ in range(m):
            p = (0.1 + hard[left]) / (0.1 + hard[left]).sum()
            drawn = rng.choice(len(left), p=p)
            rows.append(left[drawn])
            q.append(p[drawn])
            left = np.delete(left, drawn)
        found["naive"].append(loss[rows].mean())
        found["lure"].append((lure(q, pool) * loss[rows]).mean())
        chance = np.clip(2 * m / pool * hard, 0.02, 1.0)
        seen = rng.random(pool) < chance
        found["inverse"].append((inverse_propensity(chance[seen]) * loss[seen]).sum() / pool)
    off = {way: np.array(values) - loss.mean() for way, values in found.items()}
    return {way: abs(values.mean()) / (values.std() / math.sqrt(runs)) for way, values in off.items()}


def test_lure_and_inverse_propensity_are_unbiased_where_the_naive_mean_is_far_off():
    off = estimates()  # in standard errors
    assert off["lure"] <= 3
    assert off["inverse"] <= 3
    assert off["naive"] > 10


def test_lure_by_hand():
    # 1 + 2/3 (1 / (4 x 0.5) - 1) = 2/3; 1 + 2/2 (1 / (3 x 0.1) - 1) = 10/3
    assert lure([0.5, 0.1], 4) == pytest.approx([2 / 3, 10 / 3])


def test_rows_drawn_by_pure_chance_weigh_the_same_and_so_does_a_whole_pool():
    assert lure([math.nan] * 3, 9).tolist() == [1.0] * 3
    assert lure([0.9, 0.2, 1.0], 3).tolist() == [1.0] * 3  # nothing is left out: nothing to correct


@pytest.mark.parametrize(("probability", "pool"), [([0.0], 5), ([1.5], 5), ([0.5, 0.5], 1), ([0.5], 1.5)])
def test_impossible_draws_are_refused(probability, pool):
    with pytest.raises(BadInput):
        lure(probability, pool)


# -- champion and challenger -------------------------------------------------------------------------------------------


def answers(repaired: int, broken: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    champion, challenger = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    champion[:repaired], challenger[repaired : repaired + broken] = True, True
    return champion, challenger


@pytest.mark.parametrize(
    ("repaired", "broken", "n", "low", "high"),
    [
        (7, 1, 21, -0.517, -0.026),  # Fagerlund, Lydersen and Laake 2014, Tango's interval of their first example
        (16, 6, 161, -0.124, -0.005),  # and of their second
        (0, 0, 100, -3.841 / 103.841, 3.841 / 103.841),  # no discordant pair: z^2 / (n + z^2)
    ],
)
def test_the_score_bounds_are_those_of_tango(repaired, broken, n, low, high):
    result = compare_paired(*answers(repaired, broken, n), level=0.975)  # two one-sided 97.5 % bounds
    assert (result.low, result.high) == pytest.approx((low, high), abs=6e-4)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_swapping_the_models_mirrors_the_bounds(repaired, broken, rest):
    n = repaired + broken + rest
    if n:
        one, other = (compare_paired(*answers(*case, n)) for case in [(repaired, broken), (broken, repaired)])
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
        assert one.low <= one.difference <= one.high


@pytest.mark.parametrize(
    ("repaired", "broken", "n", "verdict"),
    [
        (0, 0, 133, "promote"),  # 2.706 / 135.706 = 0.01994 <= 0.02
        (0, 0, 132, "undecided"),  # 2.706 / 134.706 = 0.02009
        (0, 12, 200, "refuse"),  # 12 broken, none repaired
        (4, 4, 100, "undecided"),
        (0, 0, 0, "undecided"),
    ],
)
def test_the_verdict_follows_the_bounds(repaired, broken, n, verdict):
    result = compare_paired(*answers(repaired, broken, n))
    assert result.verdict == verdict
    assert (result.labels_needed > 0) == (verdict == "undecided")
    assert (result.n, result.only_champion_wrong, result.only_challenger_wrong) == (n, repaired, broken)


def draw(rng: np.random.Generator, n: int, worse: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw n cases of two models that differ in 8 % of them, the challenger worse by `worse`."""
    return answers(*rng.multinomial(n, [0.04 - worse / 2, 0.04 + worse / 2, 0.92])[:2], n)


def test_no_labels_of_the_unanswered_could_make_the_verdict_worse_for_it():
    old, new, differ = *answers(6, 10, 150), 5
    waiting = compare_paired(old, new, unanswered=8, differ=differ)
    assert (waiting.unanswered, waiting.differ, waiting.n) == (8, differ, 150)
    for repaired, broken in itertools.product(range(differ + 1), repeat=2):
        if repaired + broken <= differ:
            more_old, more_new = answers(repaired, broken, 8)
            known = compare_paired([*old, *more_old], [*new, *more_new])
            assert waiting.low <= known.low <= known.high <= waiting.high
    assert (known.low, waiting.high) == (pytest.approx(waiting.low), pytest.approx(worst(old, new, 5, 8).high))
    assert "8 cases without an answer (the two differ on 5)" in str(waiting)
    with pytest.raises(BadInput, match="differ"):
        compare_paired(old, new, unanswered=1, differ=2)


def test_cases_on_which_both_say_the_same_need_no_answer():
    same = compare_paired([False] * 100, [False] * 100, unanswered=100)
    assert same.high == compare_paired([False] * 200, [False] * 200).high


def worst(old, new, differ, unanswered):
    more_old, more_new = answers(0, differ, unanswered)
    return compare_paired([*old, *more_old], [*new, *more_new])


def promoted(n: int, worse: float, decide=lambda pair: compare_paired(*pair).verdict == "promote") -> float:
    rng = np.random.default_rng(3)
    return float(np.mean([decide(draw(rng, n, worse)) for _ in range(400)]))


def not_significant(pair: tuple[np.ndarray, np.ndarray]) -> bool:
    """The mistake: promote whatever is not proven worse (exact McNemar, two-sided 5 %)."""
    from scipy.stats import binomtest

    repaired, broken = int((pair[0] & ~pair[1]).sum()), int((pair[1] & ~pair[0]).sum())
    return repaired + broken == 0 or binomtest(broken, repaired + broken).pvalue > 0.05


LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("n", [24, 100, 200])
def test_a_challenger_five_points_worse_is_hardly_ever_promoted(n):
    assert promoted(n, worse=0.05) <= LIMIT


def test_a_challenger_worse_by_just_the_margin_is_promoted_in_at_most_one_in_twenty():
    assert max(promoted(n, worse=0.02) for n in (100, 400, 1000)) <= LIMIT


@pytest.mark.parametrize("n", [24, 100, 200])
def test_promoting_what_is_not_significant_breaks_that_promise(n):
    assert promoted(n, worse=0.05, decide=not_significant) > LIMIT


def test_an_equal_challenger_is_promoted_at_the_number_of_labels_asked_for():
    first = compare_paired(*answers(4, 4, 100))
    assert promoted(100 + first.labels_needed, worse=0.0) >= 0.8
    assert promoted((100 + first.labels_needed) // 3, worse=0.0) < 0.8  # the number asked for is not idle


def looked(rng: np.random.Generator, level_of, looks: int = 10) -> bool:
    """Say whether any of ten challengers, each worse by just the margin, is promoted on a holdout that grows."""
    old, new = draw(rng, 200 * looks, worse=0.02)
    order = [rng.permutation(len(old)) for _ in range(looks)]
    pairs = [(old[o][: 200 * (i + 1)], new[o][: 200 * (i + 1)]) for i, o in enumerate(order)]
    return any(compare_paired(*pair, level=level_of(i + 1)).verdict == "promote" for i, pair in enumerate(pairs))


def test_ten_looks_together_promote_a_worse_challenger_in_at_most_one_in_twenty():
    rng = np.random.default_rng(5)
    assert np.mean([looked(rng, spent) for _ in range(400)]) <= LIMIT


def test_ten_looks_at_the_full_level_each_break_that_promise():
    rng = np.random.default_rng(5)
    assert np.mean([looked(rng, lambda look: 0.95) for _ in range(400)]) > 2 * LIMIT


def test_what_all_looks_spend_is_the_whole_and_no_more():
    parts = [1 - spent(look, 0.9) for look in range(1, 1001)]
    assert sum(parts) == pytest.approx(0.1 * 1000 / 1001)  # 0.1 (1 - 1 / 1001)
    assert parts == sorted(parts, reverse=True)


@pytest.mark.parametrize("look", [1, 5])
def test_labels_are_asked_for_at_the_level_of_the_look_that_follows(look):
    level, after = spent(look), spent(look + 1)
    first = compare_paired(*answers(4, 4, 100), level=level, next_level=after)
    n = 100 + first.labels_needed
    assert promoted(n, worse=0.0, decide=lambda pair: compare_paired(*pair, level=after).verdict == "promote") >= 0.8
    assert first.labels_needed > compare_paired(*answers(4, 4, 100), level=level).labels_needed


@pytest.mark.parametrize("look", [0, -1, 1.5, True, "1"])
def test_a_look_is_counted_from_one(look):
    with pytest.raises(BadInput, match="look"):
        spent(look)


# -- each class --------------------------------------------------------------------------------------------------------


def classes(*parts: tuple[int, int, int], level: float = 0.95):
    """Compare models on classes a, b, …: how many cases the challenger repaired and broke, and how many there are."""
    truth = [label for label, (_, _, n) in zip("abc", parts, strict=False) for _ in range(n)]
    old, new = (np.concatenate(side) for side in zip(*(answers(*part) for part in parts), strict=True))
    whole = compare_paired(old, new, level=level)
    return whole, with_floor(whole, truth, old, new)


@pytest.mark.parametrize(
    ("parts", "before", "after", "states"),
    [
        ([(20, 0, 400), (0, 5, 30)], "promote", "refuse", ["holds", "worse"]),  # a sixth of b is lost
        ([(20, 0, 400), (0, 3, 24)], "promote", "undecided", ["holds", "lower"]),  # an eighth, but it may be chance
        ([(20, 0, 400), (0, 2, 24)], "promote", "promote", ["holds", "open"]),  # 8 points: within the floor
        ([(20, 0, 400), (0, 2, 19)], "promote", "promote", ["holds", "few"]),  # of 19 rows two are more than a tenth
        ([(20, 0, 400), (0, 5, 5)], "promote", "refuse", ["holds", "worse"]),  # all of them
        ([(20, 0, 400), (0, 0, 60)], "promote", "promote", ["holds", "holds"]),
        ([(4, 4, 50), (0, 3, 24)], "undecided", "undecided", ["open", "lower"]),
        ([(0, 12, 200), (5, 0, 24)], "refuse", "refuse", ["open", "holds"]),
    ],
)
def test_no_class_may_lose_what_the_others_gain(parts, before, after, states):
    whole, found = classes(*parts)
    assert (whole.verdict, found.verdict) == (before, after)
    assert [one.state for one in found.classes] == states
    assert (found.labels_needed > 0) == (after == "undecided")
    assert [one.label for one in found.blocked] == ["b"] * any(s in ("worse", "lower") for s in states)
    assert ("class b: +" in str(found)) == bool(found.blocked)


def test_a_sentence_names_the_worst_class_and_counts_the_others():
    _, found = classes((200, 0, 400), (0, 9, 30), (0, 12, 30))
    assert [one.label for one in found.blocked] == ["c", "b"]
    assert "; class c: +40.0% errors (+" in str(found)
    assert str(found).endswith(" and 1 more")


def test_the_bounds_of_classes_share_the_level():
    _, found = classes((1, 1, 50), (2, 1, 50), level=0.9)
    alone = compare_paired(*answers(1, 1, 50), 0.1, 0.95)  # a tenth, halved
    assert (found.classes[0].low, found.classes[0].high) == (alone.low, alone.high)


def guarded(worse: float, n: int = 40) -> float:
    """Return how often a challenger is stopped that gains in a common class and is worse by so much in a rare one."""
    rng, runs = np.random.default_rng(8), 200
    stopped = 0
    for _ in range(runs):
        rare = tuple(rng.multinomial(n, [0.04, 0.04 + worse, 0.92 - worse])[:2])
        stopped += classes((40, 4, 600), (*rare, n))[1].verdict != "promote"
    return stopped / runs


def test_a_class_that_loses_a_quarter_stops_a_better_challenger_and_an_equal_class_does_not():
    assert guarded(worse=0.25) >= 0.9
    assert guarded(worse=0.0) <= 0.1


def test_without_cases_there_are_no_classes():
    nothing = compare_paired([], [])
    assert with_floor(nothing, [], [], []) == nothing


@pytest.mark.parametrize(
    ("champion", "challenger", "margin"),
    [([True], [True, False], 0.02), ([2], [1], 0.02), ([None], [True], 0.02), ([True], [True], 0.0)],
)
def test_a_comparison_of_unlike_things_is_refused(champion, challenger, margin):
    with pytest.raises(BadInput):
        compare_paired(champion, challenger, margin)


# -- certificates ------------------------------------------------------------------------------------------------------

PROMISE = Certificate(
    threshold=0.9, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v7"
)


def test_a_certificate_survives_its_dict():
    revoked = replace(PROMISE, revoked_at=datetime(2026, 3, 1, 12))
    assert Certificate.from_dict(PROMISE.to_dict()) == PROMISE
    assert Certificate.from_dict(revoked.to_dict()) == revoked


def test_a_certificate_made_of_numpy_numbers_is_the_same():
    assert replace(PROMISE, threshold=np.float64(0.9), n=np.int64(400), id="") == PROMISE


def test_a_certificate_is_named_by_its_content_and_keeps_its_name_when_revoked():
    assert replace(PROMISE, id="").id == PROMISE.id
    assert replace(PROMISE, id="", n=401).id != PROMISE.id
    assert replace(PROMISE, id="", revoked_at=datetime(2026, 3, 1)).id == PROMISE.id


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1.2},
        {"target_risk": math.nan},
        {"confidence_level": -0.1},
        {"coverage": None},
        {"n": -1},
        {"threshold": None},  # and no reason
        {"reason_if_none": "too few audits"},  # and a threshold
    ],
)
def test_a_certificate_that_makes_no_sense_is_refused(change):
    with pytest.raises(BadInput):
        replace(PROMISE, **change)


@pytest.mark.parametrize(("threshold", "shown"), [
    (0.9, "0.9"), (0.57, "0.57"), (0.892213, "0.8923"), (0.9996, "0.9996"), (0.99996, "0.99996"), (1.0, "1"),
])  # fmt: skip
def test_a_threshold_is_shown_rounded_up_so_that_a_copy_lets_no_more_through(threshold, shown):
    assert str(replace(PROMISE, threshold=threshold, id="")).startswith(f"At {shown} or more")
    assert float(shown) >= threshold


def test_no_threshold_qualifies_is_a_certificate_too():
    none = replace(PROMISE, threshold=None, coverage=0.0, reason_if_none="85 more audits needed", id="")
    assert Certificate.from_dict(none.to_dict()).reason_if_none == "85 more audits needed"


@pytest.mark.parametrize("change", [{"colour": "red"}, {"n": None}])
def test_a_dict_with_unknown_or_missing_fields_is_no_certificate(change):
    values = {k: v for k, v in (PROMISE.to_dict() | change).items() if v is not None or k not in change}
    with pytest.raises(BadInput):
        Certificate.from_dict(values)


def test_evidence_imports_without_scipy():
    import subprocess
    import sys

    code = "import hitl_nb.evidence, sys; raise SystemExit(any(m in sys.modules for m in ('scipy', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
