"""Intervals hold the truth as often as they say, also after unequal audits and erring reviewers; naive ones do not."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, norm
from worlds import World

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import (
    Certificate,
    always_valid,
    clopper_pearson,
    confidence_sequence,
    corrected_risk,
    hajek,
    horvitz_thompson,
    ppi_mean,
)
from hitl_nb.evidence.estimate import ppi_parts
from hitl_nb.evidence.rate import corrected
from hitl_nb.lab import choose_audits, estimate_risk, plan_audits

NIGHTLY = pytest.mark.nightly
STREAMS = [200, pytest.param(2000, marks=NIGHTLY)]


def covers(held, level=0.9):
    """Whether so many intervals held the truth, up to three standard errors."""
    return np.mean(held) >= level - 3 * np.sqrt(level * (1 - level) / len(held))


def holds(interval, truth):
    return interval.low <= truth <= interval.high


# -- each is an old acquaintance where nothing is unequal


def test_equal_chances_give_the_exact_interval_and_a_sum_of_poisson_counts():
    wrong = np.repeat([1, 0], [3, 97])
    exact = clopper_pearson(3, 100)
    weighted = hajek(wrong, np.full(100, 0.02))
    assert (weighted.low, weighted.high, weighted.estimate) == pytest.approx((exact.low, exact.high, 0.03))
    summed = horvitz_thompson(wrong, np.full(100, 0.02), 5000)
    assert (summed.low, summed.high) == pytest.approx((chi2.ppf(0.025, 6) / 200, chi2.ppf(0.975, 8) / 200))


def test_no_error_among_the_judged_is_no_proof_that_there_is_none():
    assert horvitz_thompson([0] * 50, [0.1] * 50, 500).high == pytest.approx(chi2.ppf(0.975, 2) / 100)
    assert hajek([0] * 50, [0.1] * 50).high == pytest.approx(clopper_pearson(0, 50).high)
    assert ppi_mean([0] * 50, np.linspace(0, 1, 50), [0.5] * 9).high == pytest.approx(clopper_pearson(0, 50).high)


def test_guesses_count_as_in_the_reference_implementation():
    # ppi-python 0.2.3, ppi_mean_pointestimate and ppi_mean_ci(alpha=0.05) on these very rows
    i = np.arange(2000)
    guess = ((i * 37) % 1000) / 2000
    wrong = (((i * 7919) % 1009) / 1009 < 0.4 * guess + 0.02).astype(float)
    estimate, variance, weight = ppi_parts(wrong[:200], guess[:200], guess[200:])
    assert estimate == pytest.approx(0.11545004531504532, abs=1e-9)
    half = norm.ppf(0.975) * np.sqrt(variance)
    assert (estimate - half, estimate + half) == pytest.approx((0.07159818997201331, 0.15930190065807734), abs=1e-9)
    assert 0 < weight < 1


def test_useless_guesses_cost_nothing():
    wrong = np.repeat([1, 0], [3, 97])
    found, exact = ppi_mean(wrong, np.full(100, 0.3), [0.3] * 500), clopper_pearson(3, 100)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


# -- coverage


def audited(rng, n=4000, budget=400):
    """Return a world's automatic rows with a uniform and an active audit of them, and their true error rate."""
    world = World("calibrated")
    sure, wrong = (one[0] for one in world.draw(rng, 1, n))
    among = sure >= 0.8
    sure, wrong = sure[among], wrong[among].astype(float)
    active = choose_audits(sure, budget, seed=int(rng.integers(2**31)))
    return sure, wrong, rng.random(len(sure)) < budget / len(sure), active, float(world.risk(0.8))


@pytest.mark.parametrize("streams", STREAMS)
def test_intervals_of_audits_hold_the_truth_as_often_as_they_say(streams):
    rng, held, width = np.random.default_rng(0), {}, {}

    def note(name, interval, truth):
        held.setdefault(name, []).append(holds(interval, truth))
        width.setdefault(name, []).append(interval.high - interval.low)

    for _ in range(streams):
        sure, wrong, drawn, active, truth = audited(rng)
        chance, chosen = active["review_probability"].to_numpy(), active["drawn"].to_numpy()
        note("exact", clopper_pearson(int(wrong[drawn].sum()), int(drawn.sum()), 0.9), truth)
        note("guesses", ppi_mean(wrong[drawn], 1 - sure[drawn], 1 - sure[~drawn], 0.9), truth)
        note("Hajek", hajek(wrong[chosen], chance[chosen], 0.9), truth)
        note("Horvitz-Thompson", horvitz_thompson(wrong[chosen], chance[chosen], len(sure), 0.9), truth)
        note("naive", clopper_pearson(int(wrong[chosen].sum()), int(chosen.sum()), 0.9), truth)
    assert all(covers(held[name]) for name in held if name != "naive")
    assert not covers(held["naive"])  # who looks where errors are finds more of them
    assert np.mean(width["guesses"]) < np.mean(width["exact"])
    assert np.mean(width["Hajek"]) < 0.97 * np.mean(width["exact"])


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("error", [0.0, 0.02, 0.05])
def test_corrected_intervals_hold_the_truth_whatever_reviewers_err_and_plain_ones_do_not(error, streams):
    rng, truth, n, pairs = np.random.default_rng(1), 0.008, 2000, 400
    plain, freed = [], []
    for _ in range(streams):
        wrong = rng.random(n) < truth
        first, second = (wrong ^ (rng.random(n) < error) for _ in range(2))
        seen = int(first.sum()), n
        plain.append(holds(clopper_pearson(*seen, level=0.9), truth))
        freed.append(holds(corrected_risk(*seen, int((first ^ second)[:pairs].sum()), pairs, 0.9), truth))
    assert covers(freed)
    assert covers(plain) == (error == 0)


@pytest.mark.parametrize("streams", [300, pytest.param(3000, marks=NIGHTLY)])
def test_a_confidence_sequence_holds_at_all_looks_and_the_peeked_exact_interval_does_not(streams):
    rate, n = 0.05, 1000
    wrong = (np.random.default_rng(2).random((streams, n)) < rate).cumsum(axis=1)
    low, high = confidence_sequence(wrong, np.arange(1, n + 1), 0.9)
    assert covers(((low <= rate) & (rate <= high)).all(axis=1))
    looks = np.linspace(50, n, 20).astype(int)
    ends = [[clopper_pearson(int(one[k - 1]), int(k), 0.9) for k in looks] for one in wrong[:300]]
    assert not covers([all(holds(one, rate) for one in stream) for stream in ends])


def test_a_confidence_sequence_is_no_shorter_than_the_exact_interval_and_not_twice_as_long():
    for wrong, n in ((0, 100), (3, 300), (40, 400), (200, 400)):
        exact, always = clopper_pearson(wrong, n), always_valid(wrong, n)
        assert always.low <= exact.low <= exact.high <= always.high
        assert always.high - always.low < 2 * (exact.high - exact.low)
    assert (always_valid(0, 0).low, always_valid(0, 0).high) == (0, 1)


# -- of a history


def logged(n=4000, seed=0, risk=0.03, threshold=0.85, audit_rate=0.1):
    """Return rows as a queue tells them: reviewed below the threshold, audited at random above."""
    rng = np.random.default_rng(seed)
    sure, uniform = rng.beta(8, 0.8, n), rng.random(n)
    through = sure >= threshold
    judged = ~through | (uniform < audit_rate)
    wrong = rng.random(n) < np.where(through, risk, 0.3)
    return pd.DataFrame({
        "confidence": sure, "wrong": pd.array(np.where(judged, wrong, None), dtype="boolean"), "hard": False,
        "review_probability": np.where(through, audit_rate, 1.0), "audit_uniform": uniform,
        "audit_probability": np.where(through, audit_rate, 0.0),
    })  # fmt: skip


def test_the_estimate_is_of_what_went_through_and_says_so_in_a_sentence():
    rows = logged()
    through = rows["confidence"] >= 0.85
    found = estimate_risk(rows)
    judged = rows[through & rows["wrong"].notna()]
    assert found.disagreement == clopper_pearson(int(judged["wrong"].sum()), len(judged))
    assert (found.automatic, found.threshold, found.waiting) == (through.sum(), None, 0)
    said = (
        f"{100 * through.mean():.0f} % go through without a person; with 95 % confidence reviewers would disagree with"
        f" at most {100 * found.at_most:.1f} % of those ({len(judged):,} audited of {through.sum():,})."
    )
    assert str(found) == said
    assert found.at_most == clopper_pearson(int(judged["wrong"].sum()), len(judged), 0.9).high  # one end alone, at 95 %
    always = estimate_risk(rows, "always_valid")
    assert always.at_most == always.disagreement.high  # its ends hold together or not at all
    assert "corrected: the true error rate cannot be said: needs about 10 double audits" in repr(found._table())


def test_double_audits_add_reviewers_error_and_the_corrected_risk():
    found = estimate_risk(logged(), twice=(19, 200))
    n, wrong = found.disagreement.n, round(found.disagreement.n * found.disagreement.estimate)
    assert found.corrected == corrected_risk(wrong, n, 19, 200)
    assert found.reviewer.estimate == pytest.approx(0.05, abs=1e-3)
    assert f"corrected for reviewer error: {100 * found.corrected_at_most:.1f} %" in str(found)
    assert found.corrected_at_most == corrected_risk(wrong, n, 19, 200, 0.9).high
    assert "cannot be said" in estimate_risk(logged(), twice=(100, 200)).unknown
    always = estimate_risk(logged(), "always_valid", twice=(19, 200))
    assert always.corrected == corrected(always_valid(wrong, n, 0.975), always_valid(19, 200, 0.975), 0.95)
    assert always.corrected.high > found.corrected.high
    assert always.corrected_at_most == always.corrected.high


@pytest.mark.parametrize("method", ["clopper_pearson", "horvitz_thompson", "hajek", "ppi", "always_valid"])
def test_each_method_finds_the_risk_of_another_threshold_from_reviews_and_audits(method):
    rows = logged(n=20_000, risk=0.05)
    lower, higher = (estimate_risk(rows, method, threshold=t) for t in (0.6, 0.95))
    sure = rows["confidence"]
    for found, t in ((lower, 0.6), (higher, 0.95)):
        truth = np.where(sure[sure >= t] >= 0.85, 0.05, 0.3).mean()
        assert holds(found.disagreement, truth)
        assert found.disagreement.high < 0.2
    assert lower.coverage == pytest.approx((sure >= 0.6).mean())


def test_audits_that_wait_do_not_lower_the_estimate():
    rows = logged(n=20_000, risk=0.2)
    late = rows.assign(wrong=rows["wrong"].mask(rows.index % 2 == 0))
    for method in ("horvitz_thompson", "hajek", "clopper_pearson"):
        found = estimate_risk(late, method)
        assert holds(found.disagreement, 0.2)
        assert found.waiting > 0
    assert "that were to be judged wait still" in repr(found._table())
    assert f"{found.waiting:,} wait still and count as like these)" in str(found)


@pytest.mark.parametrize("method", ["clopper_pearson", "hajek", "horvitz_thompson", "ppi"])
def test_a_backlog_of_audits_lowers_no_estimate_in_which_reviews_count_too(method):
    held = []
    for seed in range(40):
        rows = logged(n=20_000, seed=seed, risk=0.06, audit_rate=0.05).assign(reviewed=lambda f: f["confidence"] < 0.85)
        rng = np.random.default_rng([seed, 1])
        safe = rng.random(len(rows)) < 0.005
        wrong = np.where(rows["reviewed"], safe, rows["wrong"])
        answered = rows["reviewed"] | (rng.random(len(rows)) < 0.3)
        late = rows.assign(wrong=pd.array(np.where(answered, wrong, None), dtype="boolean"))
        among = rows["confidence"] >= 0.5
        truth = np.where(rows["reviewed"], 0.005, 0.06)[among].mean()
        held.append(estimate_risk(late, method, threshold=0.5, level=0.9).disagreement.high >= truth)
    assert covers(held, 0.95)


def test_reviews_that_wait_count_as_waiting_and_not_as_gone_through():
    rows = logged(n=4000)
    below = (rows["confidence"] < 0.85).to_numpy()
    late = rows.assign(wrong=rows["wrong"].mask(below & (rows.index % 2 == 0)))
    found = estimate_risk(late)
    assert (found.automatic, found.waiting) == ((~below).sum(), 0)
    assert found.disagreement == estimate_risk(rows).disagreement
    assert (
        estimate_risk(late, threshold=0.5).waiting
        == (below & (rows.index % 2 == 0) & (rows["confidence"] >= 0.5)).sum()
    )


def test_where_all_audits_wait_no_reviews_stand_in_for_them():
    rows = logged()
    late = rows.assign(wrong=rows["wrong"].mask(rows["confidence"] >= 0.85))
    with pytest.raises(EvidenceError, match=r"no judged row among .* with review_probability 0.1: .* wait still"):
        estimate_risk(late, threshold=0.5)


def test_weights_far_apart_hold_by_horvitz_thompson_and_make_hajek_doubtful():
    held, said = {"hajek": [], "horvitz_thompson": []}, set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sure, uniform = rng.beta(8, 0.8, 3000), rng.random(3000)
        risk, through = np.where(sure > 0.9, 0.015, 0.03), sure >= 0.85
        rows = {
            "confidence": sure, "wrong": np.where(~through | (uniform < 0.02), rng.random(3000) < risk, np.nan),
            "review_probability": np.where(through, 0.02, 1.0),
        }  # fmt: skip
        for method, each in held.items():
            found = estimate_risk(rows, method, threshold=0.5, level=0.9)
            each.append(found.disagreement.high >= risk[sure >= 0.5].mean())
            said.add((method, found.doubt is not None))
    assert covers(held["horvitz_thompson"], 0.95)
    assert not covers(held["hajek"], 0.95)
    assert said == {("hajek", True), ("horvitz_thompson", False)}
    assert estimate_risk(logged(), "hajek").doubt is None


def test_what_cannot_be_said_is_refused():
    rows = logged()
    with pytest.raises(EvidenceError, match="no row goes through"):
        estimate_risk(rows.assign(hard=True))
    with pytest.raises(EvidenceError, match="had no chance of being judged"):
        estimate_risk(logged(audit_rate=0.0))
    with pytest.raises(EvidenceError, match="no judged"):
        estimate_risk(rows.assign(wrong=pd.NA), "hajek")
    with pytest.raises(BadInput, match="hajek"):
        estimate_risk(rows, "guess")
    none = Certificate(threshold=None, target_risk=0.02, confidence_level=0.95, n=3, coverage=0, kind="certified",
                       reason_if_none="too little")  # fmt: skip
    with pytest.raises(EvidenceError, match="too little"):
        estimate_risk(rows, threshold=none)
    found = replace(none, threshold=0.9, reason_if_none=None, id="")
    assert estimate_risk(rows, threshold=found) == estimate_risk(rows, threshold=0.9)
    for probability in (0.0, 1.5, float("nan")):
        with pytest.raises(BadInput, match="probability"):
            hajek([1, 0], [0.5, probability])
    with pytest.raises(BadInput, match="same cases"):
        hajek([1], [0.5, 0.5])
    with pytest.raises(EvidenceError, match="3 judged of 2 cases"):
        horvitz_thompson([1, 0, 0], [0.5] * 3, 2)


# -- planned and chosen audits


@pytest.mark.parametrize(("wanted", "most"), [({"at_most": 0.02}, 0.02), ({"width": 0.02}, None)])
def test_a_plan_keeps_its_word_as_often_as_it_says(wanted, most):
    plan = plan_audits(50_000, 0.01, **wanted, power=0.8)
    wrong = np.random.default_rng(3).binomial(plan.audits, 0.01, 500)
    found = [clopper_pearson(int(k), plan.audits) for k in wrong]
    kept = np.mean([one.high <= most if most else one.high - one.low <= wanted["width"] for one in found])
    assert 0.8 - 3 * np.sqrt(0.16 / 500) <= kept
    fewer = plan_audits(50_000, 0.01, budget=int(0.9 * plan.audits))
    assert fewer.interval.high > 0.02 if most else fewer.interval.high - fewer.interval.low > wanted["width"]


def test_a_plan_says_what_it_takes_or_that_nothing_will_do():
    assert str(plan_audits(10_000, 0, at_most=0.02)).startswith("Audit 183 of 10,000 (1.8 %): if 0 % are wrong")
    with pytest.raises(EvidenceError, match="not even an audit of all 500 rows"):
        plan_audits(500, 0.01, at_most=0.011)
    for wanted in ({}, {"at_most": 0.1, "width": 0.1}):
        with pytest.raises(BadInput, match="pass one of the three"):
            plan_audits(500, **wanted)


def test_every_row_has_its_chance_and_they_sum_to_the_budget():
    sure = pd.Series(np.random.default_rng(4).beta(8, 0.8, 3000), index=range(5, 3005))
    found = choose_audits(sure, 300, seed=1)
    chance = found["review_probability"]
    assert chance.sum() == pytest.approx(300)
    assert 0.25 * 0.1 * (1 - 1e-9) <= chance.min() < chance.max() <= 1
    assert (found.index == sure.index).all()
    assert chance[sure.idxmin()] > 3 * chance[sure.idxmax()]
    assert found.equals(choose_audits(sure, 300, seed=1))
    assert choose_audits([1.0, 1.0], 2)["drawn"].all()
    assert choose_audits([0.5, 1.0, 1.0], 3)["review_probability"].tolist() == [1, 1, 1]
    for bad in ({"confidence": [0.5, None], "budget": 1}, {"confidence": [0.5], "budget": 2},
                {"confidence": [0.5], "budget": 1, "floor": 0}):  # fmt: skip
        with pytest.raises(BadInput):
            choose_audits(**bad)


def test_rows_that_an_active_audit_was_sure_to_draw_count_too():
    sure = np.where(np.arange(400) % 10 == 0, 0.55, 0.995)
    chosen = choose_audits(sure, 150)
    wrong = np.where(chosen.pop("drawn"), sure < 0.6, np.nan)
    assert (chosen["review_probability"] == 1).sum() == 40
    for method in ("hajek", "horvitz_thompson"):
        found = estimate_risk(chosen.assign(confidence=sure, wrong=wrong), method)
        assert found.automatic == 400
        assert holds(found.disagreement, 0.1)


def test_an_active_audit_whose_answers_wait_is_weighed_by_those_that_came():
    rows = pd.DataFrame({"confidence": np.random.default_rng(3).beta(8, 0.8, 8000)})
    chosen, rng = choose_audits(rows["confidence"], 2000, seed=2), np.random.default_rng(4)
    came = chosen.pop("drawn") & (rng.random(8000) < 0.3)
    found = estimate_risk(
        chosen.assign(**rows, wrong=np.where(came, rng.random(8000) < 0.2, np.nan)), "horvitz_thompson"
    )
    assert holds(found.disagreement, 0.2)


def test_a_stored_active_audit_is_estimated_from_its_chances():
    rows = logged(n=20_000, risk=0.05)
    through = rows[rows["confidence"] >= 0.85]
    chosen = choose_audits(through["confidence"], 1000, seed=2)
    truth = np.random.default_rng(5).random(len(through)) < 1 - through["confidence"]
    stored = json.loads(json.dumps(pd.concat([through[["confidence"]], chosen], axis=1).to_dict("list")))
    stored["wrong"] = [bool(w) if drawn else None for w, drawn in zip(truth, stored.pop("drawn"), strict=True)]
    expected = float((1 - through["confidence"]).mean())
    for method in ("hajek", "horvitz_thompson"):
        assert holds(estimate_risk(stored, method).disagreement, expected)
