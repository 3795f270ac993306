"""Looked at after every case, an alarm and a certificate break their promise no more often than they say."""

import json
from dataclasses import asdict

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from worlds import RIGHT, World

from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Alarm, Certificate, clopper_pearson, evidence_below
from hitl_nb.evidence.sequential import change_evidence, error_bets, most_evidence, rank_bets
from hitl_nb.lab import Certified, DriftAlarm, DriftState, Sequential, choose_threshold, read
from hitl_nb.lab.sequential import in_order

NIGHTLY = pytest.mark.nightly
CHANCE = 0.1


def gate(broken, chance=CHANCE):
    """Whether something happened no more often than promised, up to three standard errors."""
    return np.mean(broken) <= chance + 3 * np.sqrt(chance * (1 - chance) / len(broken))


def fired(wrong, bound=0.02, chance=CHANCE):
    """Return for each stream when the alarm on errors fires; the number of cases where it never does."""
    above = change_evidence(error_bets(wrong, bound))[0] >= -np.log(chance)
    return np.where(above.any(axis=1), above.argmax(axis=1), wrong.shape[1])


# -- errors


@pytest.mark.parametrize(("streams", "n"), [(200, 2000), pytest.param(1000, 10_000, marks=NIGHTLY)])
def test_an_alarm_looked_at_after_every_label_fires_wrongly_as_rarely_as_it_says(streams, n):
    rng = np.random.default_rng(0)
    found = np.concatenate([fired(rng.random((100, n)) < 0.02) < n for _ in range(streams // 100)])
    assert gate(found)
    assert found.any()  # the promise is no reason never to fire


def test_the_exact_interval_looked_at_again_and_again_fires_far_too_often():
    wrong = (np.random.default_rng(0).random((200, 2000)) < 0.02).cumsum(axis=1)
    looks = range(99, 2000, 100)
    ends = [[clopper_pearson(int(one[k]), k + 1, 1 - 2 * CHANCE).low > 0.02 for k in looks] for one in wrong]
    assert not gate(np.any(ends, axis=1))


def test_what_bets_and_what_is_kept_are_one_stake_at_every_case():
    assert change_evidence(np.zeros((3, 5000, 4)))[0] == pytest.approx(0, abs=1e-9)  # nothing was won or lost
    first, bets = change_evidence(np.zeros((70, 4)))
    assert change_evidence(np.zeros((70, 4)), bets, 70)[0] == pytest.approx(0, abs=1e-9)
    assert first[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("before", [0, 1000, 5000])
@pytest.mark.parametrize("streams", [50, pytest.param(500, marks=NIGHTLY)])
def test_after_a_jump_from_2_to_6_percent_it_fires_within_600_labels(before, streams):
    rng = np.random.default_rng(1)
    risk = np.repeat([0.02, 0.06], [before, 600])
    when = np.concatenate([fired(rng.random((50, before + 600)) < risk, chance=0.05) for _ in range(streams // 50)])
    in_time = (when >= before) & (when < before + 600)
    assert in_time.mean() >= 0.8


@given(st.floats(0.001, 0.9), st.floats(0, 1))
def test_no_error_rate_up_to_the_bound_lets_a_bet_grow_on_average(bound, share):
    right, wrong = np.exp(error_bets([0, 1], bound))
    risk = share * bound
    assert (risk * wrong + (1 - risk) * right <= 1 + 1e-9).all()


def test_evidence_below_is_the_mean_of_the_bets_it_mixes():
    rates = (np.arange(20_000) + 0.5) / 20_000 * 0.05
    for wrong, n in ((0, 60), (3, 100), (20, 100)):
        bets = (rates / 0.05) ** wrong * ((1 - rates) / 0.95) ** (n - wrong)
        assert np.exp(evidence_below(wrong, n, 0.05)) == pytest.approx(bets.mean(), rel=1e-4)


def test_the_largest_evidence_is_found_as_if_one_had_looked_after_every_case():
    rng = np.random.default_rng(2)
    for risk in (0.0, 0.02, 0.3):
        wrong = rng.random(400) < risk
        each = evidence_below(np.append(0, wrong.cumsum()), np.arange(401), 0.05)
        assert most_evidence(wrong, 0.05) == pytest.approx(each.max())


# -- confidences


def test_bets_on_ranks_are_fair():
    ranks = (np.arange(100_000) + 0.5) / 100_000
    assert np.exp(rank_bets(ranks)).mean(axis=0) == pytest.approx(1, abs=1e-6)


def streams_of_confidence(streams, seed, n):
    for i in range(streams):
        rng = np.random.default_rng([seed, i])
        yield rng, rng.beta(8, 0.8, n).round(2)  # with ties


def unjudged(confidence):
    return {"confidence": confidence, "wrong": [None] * len(confidence), "review_probability": [0.0] * len(confidence)}


@pytest.mark.parametrize(("streams", "n"), [(150, 1000), pytest.param(1000, 5000, marks=NIGHTLY)])
def test_confidences_that_stay_as_they_were_raise_no_more_alarms_than_promised(streams, n):
    found, tested = [], []
    for rng, reference in streams_of_confidence(streams, 3, 400):
        alarm, later = DriftAlarm(0.02, 1 - 2 * CHANCE, reference=reference), rng.beta(8, 0.8, n).round(2)
        alarm.feed(unjudged(later))
        found.append(alarm.fired)
        if len(tested) < 60:
            tested.append(any(mannwhitneyu(reference, later[k : k + 50]).pvalue < CHANCE for k in range(0, 1000, 50)))
    assert gate(found)
    assert not gate(tested)  # a test of each batch


@pytest.mark.parametrize(("a", "b"), [(6, 0.8), (8, 0.6), (3, 0.35)])
def test_other_confidences_are_found(a, b):
    found = []
    for rng, reference in streams_of_confidence(20, 4, 2000):
        alarm = DriftAlarm(0.02, reference=reference)
        alarm.feed(unjudged(rng.beta(8, 0.8, 500).round(2)))
        alarm.feed(unjudged(rng.beta(a, b, 1500).round(2)))
        found.append(alarm.fired)
    assert np.mean(found) >= 0.9


# -- one alarm


def frame(rng, n, risk, sure=None):
    return {"confidence": rng.beta(8, 0.8, n) if sure is None else sure, "wrong": rng.random(n) < risk}


def test_it_is_the_same_alarm_however_the_rows_are_split_and_stored_between():
    rng = np.random.default_rng(5)
    reference, rows = rng.beta(8, 0.8, 300), pd.DataFrame(frame(rng, 900, 0.02))
    whole = DriftAlarm(0.02, reference=reference, seed=7)
    whole.feed(rows, threshold=0.5)
    state = DriftAlarm(0.02, reference=reference, seed=7).state
    for start, end in ((0, 0), (0, 1), (1, 400), (400, 900)):
        stored = json.loads(json.dumps(asdict(state)))
        tuples = {name: tuple(stored[name]) for name in ("edges", "counts")}
        alarms = {name: Alarm(**{**stored[name], "bets": stored[name]["bets"] and tuple(stored[name]["bets"])})
                  for name in ("errors", "confidences")}  # fmt: skip
        state = DriftAlarm(state=DriftState(**{**stored, **tuples, **alarms})).feed(rows[start:end], threshold=0.5)
    for name in ("errors", "confidences"):
        ours, theirs = getattr(state, name), getattr(whole.state, name)
        assert (ours.n, ours.fired_at) == (theirs.n, theirs.fired_at)
        assert ours.bets == pytest.approx(theirs.bets)
        assert ours.evidence == pytest.approx(theirs.evidence)
    assert (state.counts, state.wrong) == (whole.state.counts, whole.state.wrong)


def test_it_says_what_it_has_seen_and_draws_it():
    mpl.use("Agg")
    rng = np.random.default_rng(6)
    alarm = DriftAlarm(0.02, reference=rng.beta(8, 0.8, 300))
    alarm.feed(frame(rng, 500, 0.0), threshold=0.5)
    assert str(alarm).startswith("No alarm: 0 of ")
    alarm.feed(frame(rng, 800, 0.2), threshold=0.5)
    at = alarm.state.errors.fired_at
    assert str(alarm).startswith(f"Alarm at judged row {at:,}: more than 2 % are wrong")
    assert 480 < at < 600
    assert "confidences" in repr(alarm)
    for what, unit in (("errors", "judged automatic rows"), ("confidences", "rows")):
        ax = alarm.plot(what=what)
        assert ax.get_xlabel() == unit
        x, y = ax.get_lines()[0].get_data()
        assert (x[0], x[-1]) == (1, getattr(alarm.state, what).n)
        assert y[-1] == pytest.approx(np.exp(max(-7, getattr(alarm.state, what).evidence)))
    assert alarm.plot(ax) is ax
    plt.close("all")
    with pytest.raises(BadInput, match="errors, or confidences"):
        DriftAlarm(0.02).plot(what="confidences")


def test_what_cannot_be_watched_is_refused():
    for bound in (None, 0, 1.5, "2 %"):
        with pytest.raises(BadInput, match="bound"):
            DriftAlarm(bound)
    with pytest.raises(EvidenceError, match="20 confidences are too few"):
        DriftAlarm(0.02, reference=np.full(20, 0.9))
    fixed = Certificate(threshold=0.9, target_risk=None, confidence_level=None, n=0, coverage=1, kind="fixed")
    with pytest.raises(BadInput, match="bound"):
        DriftAlarm(fixed)
    alarm = DriftAlarm(0.02)
    alarm.feed({"confidence": [0.5], "wrong": [True], "review_probability": [1.0]})
    assert alarm.state.errors.n == 0  # what a rule sent to a person says nothing of the automatic part
    alarm.feed({"confidence": [0.9] * 3, "wrong": [True, None, None], "review_probability": [0.5, 0.5, 0.0]})
    assert alarm.state.errors.n == 1  # nor does what had no chance of an audit


def test_audits_count_in_the_order_of_their_judgement_and_as_if_drawn_alike():
    n = 400
    rows = pd.DataFrame({
        "confidence": 0.9, "wrong": pd.array([True, False] * (n // 2), dtype="boolean"),
        "review_probability": np.repeat([0.5, 0.1], n // 2),
        "reviewed_at": pd.date_range("2026-01-05", periods=n, freq="min", tz="UTC")[::-1],
    })  # fmt: skip
    kept = in_order(read(rows), np.ones(n, dtype=bool))
    assert kept.frame.index.is_monotonic_decreasing
    share = (kept.frame.index < n // 2).sum() / (n // 2)
    assert 0.1 < share < 0.32  # 0.1 / 0.5 of those that were likelier
    assert (kept.frame.index >= n // 2).sum() == n // 2


# -- a threshold that may be looked at after every review


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize(("n", "streams"), [(1000, 100), pytest.param(3000, 1000, marks=NIGHTLY)])
def test_a_sequential_threshold_keeps_its_promise_over_all_looks(name, n, streams):
    world, broken = World(name), []
    sure, wrong = world.draw(np.random.default_rng(7), streams, n)
    for i, (s, w) in enumerate(zip(sure, wrong, strict=True)):
        order = np.random.default_rng(i).permutation(n)
        found = Sequential(target_risk=0.05, confidence_level=0.9).fit(
            read({"confidence": s[order], "wrong": w[order]})
        )
        broken.append(found.threshold is not None and world.risk(found.threshold) > 0.05)  # the last look has them all
    assert gate(broken)


def test_where_every_threshold_is_just_not_safe_looking_again_breaks_other_promises_and_not_this_one():
    rng, ours, theirs = np.random.default_rng(8), [], []
    for _ in range(150):
        rows = read({"confidence": rng.random(1000), "wrong": rng.random(1000) < 0.0501})
        ours.append(Sequential(target_risk=0.05, confidence_level=0.9).fit(rows).threshold is not None)
        looks = (rows[np.arange(1000) < k] for k in range(200, 1001, 80))
        rule = Certified(target_risk=0.05, confidence_level=0.9)
        theirs.append(any(rule.fit(part).threshold is not None for part in looks))
    assert gate(ours)
    assert not gate(theirs)


def test_below_a_threshold_that_is_not_proven_nothing_is():
    sure = np.random.default_rng(11).random(2000)
    rows = read({"confidence": sure, "wrong": (sure > 0.95)})
    rule = Sequential(target_risk=0.2, confidence_level=0.9, start=0.2)
    assert rule.fit(rows).threshold is None  # a quarter is wrong above the first one, a twentieth above the last one
    assert rule.fit(read({"confidence": sure, "wrong": sure > 0.99})).threshold < 0.1


def test_once_a_threshold_is_found_later_looks_find_it_or_a_lower_one():
    rng = np.random.default_rng(9)
    sure = rng.beta(8, 0.8, 3000)
    rows = read({"confidence": sure, "wrong": rng.random(3000) > sure})
    rule = Sequential(target_risk=0.05, confidence_level=0.9)
    found = [rule.fit(rows[np.arange(3000) < k]).threshold for k in range(100, 3001, 100)]
    assert found[0] is None
    known = [one for one in found if one is not None]
    assert known == sorted(known, reverse=True)
    assert len(known) > 20


def test_late_answers_need_the_time_when_they_came():
    rng, n = np.random.default_rng(12), 1000
    rows = pd.DataFrame({"confidence": rng.random(n), "wrong": np.where(np.arange(n) % 2, 0.0, np.nan)})
    rule = Sequential(target_risk=0.1, start=0.5)
    for more in ({"review_probability": 1.0}, {"review_probability": 0.5},
                 {"review_probability": 0.5, "audit_probability": 0.5, "audit_uniform": 0.1}):  # fmt: skip
        with pytest.raises(EvidenceError, match="500 rows may be answered late, and no reviewed_at"):
            rule.fit(read(rows.assign(**more)))
    drawn = {"review_probability": 0.5, "audit_probability": 0.5, "audit_uniform": np.where(np.arange(n) % 2, 0.1, 0.9)}
    assert rule.fit(read(rows.assign(**drawn))).threshold is not None  # nobody will judge the others
    came = pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(rng.permutation(n), "min")
    timed = rows.assign(review_probability=1.0, reviewed_at=came.where(rows["wrong"].notna()))
    assert rule.fit(read(timed)).threshold is not None


def test_a_sequential_rule_waits_while_all_audits_wait():
    rows = pd.DataFrame({
        "confidence": np.linspace(0, 1, 1000), "wrong": [0.0] * 500 + [np.nan] * 500, "audit_uniform": 0.01,
        "review_probability": [1.0] * 500 + [0.1] * 500, "audit_probability": [0.0] * 500 + [0.1] * 500,
        "reviewed_at": pd.Timestamp("2026-01-05", tz="UTC"),
    })  # fmt: skip
    assert "judge more" in Sequential(settle=10).fit(read(rows)).reason_if_none


def test_a_sequential_threshold_automates_nearly_as_much_as_one_planned_look():
    world = World("calibrated")
    sure, wrong = world.draw(np.random.default_rng(10), 40, 3000)
    shares = []
    for i, (s, w) in enumerate(zip(sure, wrong, strict=True)):
        order = np.random.default_rng(i).permutation(3000)
        found = choose_threshold({"confidence": s[order], "wrong": w[order]},
                                 rule=Sequential(target_risk=0.05, confidence_level=0.9))  # fmt: skip
        shares.append(0 if found.threshold is None else world.coverage(found.threshold))
    assert np.mean(shares) >= 0.55  # of .765 that would be safe


def test_a_sequential_rule_says_why_there_is_no_threshold():
    said = Sequential().fit(read({"confidence": [0.9] * 50, "wrong": [False] * 50})).reason_if_none
    assert said == "no judged row after the first 100, which settle the thresholds: judge more"
    wrong = np.arange(1000) % 4 == 0
    said = Sequential().fit(read({"confidence": np.linspace(0.5, 1, 1000)[::-1], "wrong": wrong})).reason_if_none
    assert "which does not prove at most 2 % yet: judge more and look again" in said
    assert Sequential().fit(read({"confidence": [], "wrong": []})).threshold is None
