"""People as a queue: the order is the queue's, the waiting is what theory says, the pace is the measured one."""

from datetime import timedelta

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitl_nb import Policy
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.lab import Staff, workload

mpl.use("Agg")
START = pd.Timestamp("2026-01-05 09:00", tz="UTC")
ALL = Policy(1.0, audit_rate=0)


def arrivals(minutes, confidence=0.9, **more):
    times = START + pd.to_timedelta(np.asarray(minutes, dtype=float), unit="min")
    confidence = np.broadcast_to(confidence, len(times))
    return pd.DataFrame({"at_time": times, "confidence": confidence, "wrong": False, **more})


@pytest.mark.parametrize(
    ("reviewers", "minutes", "waits"),
    [
        (1, [0, 0, 0], [0, 10, 20]),
        (2, [0, 0, 0], [0, 0, 10]),
        (9, [0, 0, 0], [0, 0, 0]),
        (1, [0, 5, 100], [0, 5, 0]),
        (2, [0, 1, 2, 3], [0, 0, 8, 8]),
    ],
)
def test_who_is_free_first_takes_who_came_first(reviewers, minutes, waits):
    found = workload(ALL, arrivals(minutes), Staff(reviewers=reviewers, seconds=600))
    assert found.minutes.tolist() == pytest.approx(waits)


def test_the_highest_priority_goes_first_but_stops_nobody():
    found = workload(ALL, arrivals([0, 1, 2, 3], [0.9, 0.9, 0.6, 0.3]), Staff(reviewers=1, seconds=600))
    assert found.minutes.tolist() == pytest.approx([0, 29, 18, 7])
    assert [row[0] for row in found._table().rows] == ["high", "low", "medium"]


def test_only_what_is_asked_or_audited_comes():
    rows = arrivals([0, 1, 2], [0.5, 0.9, 0.9], audit_uniform=[0.5, 0.01, 0.5])
    assert len(workload(Policy(0.8, audit_rate=0.1), rows, Staff(seconds=1)).frame) == 2
    nothing = workload(Policy(0.1, audit_rate=0), rows, Staff(seconds=1))
    assert str(nothing) == "Nothing comes to a person."


def test_deadlines_count_from_the_arrival_to_the_answer():
    policy = Policy(1.0, audit_rate=0, deadline=timedelta(minutes=25))
    found = workload(policy, arrivals([0, 0, 0]), Staff(reviewers=1, seconds=600))
    assert found.missed == 1
    assert "1 miss their deadline of 0:25:00" in str(found)
    assert workload(ALL, arrivals([0, 0, 0]), Staff(reviewers=1, seconds=600)).missed == 0


def test_nobody_works_at_night():
    found = workload(ALL, arrivals([0, 30, 90, 900]), Staff(reviewers=1, seconds=1800, hours=(9.5, 10)))
    # 9:00 waits until 9:30 and is begun last at 9:59: each day takes one, the rest waits for the next day's opening
    days = (found.frame["started"] - START.timestamp()) / 60
    assert days.tolist() == pytest.approx([30, 30 + 1440, 30 + 2 * 1440, 30 + 3 * 1440])
    assert found.capacity == pytest.approx(2 * 0.5 / 24)


def test_the_backlog_is_counted_over_time():
    found = workload(ALL, arrivals([0, 0, 0, 60]), Staff(reviewers=1, seconds=600))
    assert found.backlog.tolist() == [2, 1, 0, 0]
    assert (found.backlog.index - START.timestamp()).tolist() == [0, 600, 1200, 3600]


@pytest.mark.parametrize(("people", "load"), [(1, 0.5), (1, 0.8), (3, 0.8)])
def test_the_mean_wait_is_that_of_theory(people, load):
    """Poisson arrivals, exponential times: Erlang's C formula."""
    rng, n, seconds = np.random.default_rng(0), 40_000, 60.0
    gaps = rng.exponential(seconds / people / load, n) / 60
    took = rng.exponential(seconds, 5000)
    rows = arrivals(np.cumsum(gaps), reviewer="ann")
    rows["reviewed_at"] = rows["at_time"].max() + pd.to_timedelta(np.cumsum(np.resize(took, n)), unit="s")
    rows["claimed_at"] = rows["reviewed_at"] - pd.to_timedelta(np.resize(took, n), unit="s")
    found = workload(ALL, rows, Staff(reviewers=people))
    offered = people * load
    terms = [offered**k / np.prod(np.arange(1, k + 1)) for k in range(people + 1)]
    busy = terms[-1] / (1 - load)
    wait = busy / (busy + sum(terms[:-1])) * seconds / (people * (1 - load))
    assert found.minutes.mean() * 60 == pytest.approx(wait, rel=0.12)
    assert found.staff.seconds == pytest.approx(took.mean(), rel=0.01)


def test_a_review_takes_from_its_claim_or_from_the_answer_before_it():
    rows = arrivals([0, 0, 0, 0], reviewer=["ann", "ann", "bob", None])
    rows["claimed_at"] = START  # two claimed at once: the second is begun when the first is answered
    rows["reviewed_at"] = [START + pd.Timedelta(seconds=s) for s in (30, 70, 100)] + [pd.NaT]
    found = workload(ALL, rows)
    assert found.staff.reviewers == 2
    assert found.staff.seconds == pytest.approx((30 + 40 + 100) / 3)


def test_more_than_people_can_judge_is_said():
    found = workload(ALL, arrivals(range(100)), Staff(reviewers=1, seconds=120))
    assert str(found).endswith("; more come than they can judge.")
    assert (found.capacity, round(found.demand)) == (30, 61)
    assert found.plot().get_ylabel() == "waiting"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 3))
def test_one_more_reviewer_never_lets_anybody_wait_longer(minutes, people, seed):
    one, two = (
        workload(ALL, arrivals(minutes), Staff(reviewers=n, seconds=600), seed=seed) for n in (people, people + 1)
    )
    assert (two.minutes <= one.minutes + 1e-6).all()
    assert (one.minutes >= -1e-6).all()
    assert one.frame["arrived"].is_monotonic_increasing


def test_what_cannot_be_simulated_is_said():
    with pytest.raises(EvidenceError, match="pass seconds="):
        workload(ALL, arrivals([0]))
    with pytest.raises(EvidenceError, match="no at_time"):
        workload(ALL, arrivals([0]).drop(columns="at_time"), Staff(seconds=1))
    at_once = arrivals([0], reviewer=["ann"], claimed_at=[START], reviewed_at=[START])
    with pytest.raises(EvidenceError, match="claimed before"):
        workload(ALL, at_once)
    with pytest.raises(BadInput, match="at_time = 'soon'"):
        workload(ALL, {"confidence": [0.5], "wrong": [False], "at_time": ["soon"]}, Staff(seconds=1))
    for wrong in ({"reviewers": 0}, {"seconds": 0}, {"hours": (9, 9)}, {"hours": (9, 25)}, {"reviewers": 1.5}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            Staff(**wrong)
