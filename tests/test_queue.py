"""The contract of a queue, as sentences."""

import json
import threading
import tracemalloc
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from conftest import START, Clock
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import ai_results, answers, payloads
from strategies import reviewers as odd_names

from hitl_nb import FieldAbove, Orchestrator, Policy, Reviewer, ReviewTask, Status, open_queue
from hitl_nb.errors import (
    AlreadyReviewed,
    BadInput,
    HitlError,
    IllegalMove,
    ItemChanged,
    KeyConflict,
    LeaseLost,
    NoCanonicalForm,
    NotAllowed,
    NotQualified,
    PayloadErased,
    QueueClosed,
    SubmitConflict,
    TaskNotFound,
    UndoRefused,
)
from hitl_nb.payload import canonical, parse
from hitl_nb.queue import upkeep
from hitl_nb.queue.row import TaskRow, dump_reasons
from hitl_nb.task import Reason

#: every test with a queue runs over HTTP, too
EVERYWHERE = True
JUDGE = Reviewer(id="judge", roles=("reviewer", "adjudicator"))
LAWYER = Reviewer(id="lea", expertise=("law",))
NOBODY = "01234567-0000-7000-8000-000000000000"


def ids(tasks):
    return [task.task_id for task in tasks]


def copies_itself(queue, path):
    """Whether a queue makes a backup; a server refuses, and PostgreSQL has tools of its own."""
    if not queue.name.startswith(("http:", "postgresql:")):
        return True
    with pytest.raises((BadInput, NotAllowed), match=r"pg_dump|do it on that machine"):
        queue.backup(path)
    return False


def kinds(queue, task_id):
    return [event["move"] for event in queue.events() if event["task_id"] == task_id]


# -- submitting


def test_a_task_comes_back_as_it_was_submitted(queue, clock):
    task = queue.submit(
        input_data={"text": "hm", "amount": 3.5}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure",
        subject="s1", expertise="law", deadline=timedelta(hours=4), model="v7", policy="p1", group="north", value=12,
    )  # fmt: skip
    assert isinstance(task, ReviewTask)
    assert task == queue.get(task.task_id)
    assert task.input_data == {"text": "hm", "amount": 3.5}
    assert task.ai_prediction == {"label": "spam"}
    assert (task.confidence, task.reason, task.priority) == (0.6, "unsure", "medium")
    assert (task.created_at, task.deadline) == (clock.aware, clock.aware + timedelta(hours=4))
    assert (task.status, task.attempt, task.version, task.level) == ("pending_review", 0, 1, 0)
    assert (task.expertise, task.model, task.policy, task.holder) == ("law", "v7", "p1", None)


@pytest.mark.parametrize(
    ("confidence", "known", "priority"),
    [
        (0.49, 0.49, "high"),
        (0.5, 0.5, "medium"),
        (0.7, 0.7, "low"),
        (np.float32(0.5), 0.5, "medium"),
        (1, 1.0, "low"),
        (None, None, "high"),
        (float("nan"), None, "high"),
        (1.01, None, "high"),
        (-0.1, None, "high"),
        ("0.9", None, "high"),
        (True, None, "high"),
    ],
)
def test_an_unknown_confidence_is_urgent(ask, confidence, known, priority):
    task = ask(confidence=confidence)
    assert (task.confidence, task.priority) == (known, priority)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_data": ["hm"]},
        {"ai_prediction": "spam"},
        {"reason": " "},
        {"priority": "urgent"},
        {"key": ""},
        {"subject": 7},
        {"expertise": "x" * 201},
        {"deadline": 7},
        {"deadline": datetime(2026, 1, 6)},
        {"deadline": timedelta(0)},
        {"deadline": timedelta.max},
        {"on_deadline": "approve"},
        {"escalation": "law"},
        {"escalation": [""]},
        {"reviews_required": 0},
        {"reviews_required": True},
        {"consensus": "loudest"},
        {"value": float("inf")},
        {"input_data": {"a": object()}},
        {"input_data": {"a": "\0"}},
        {"reason": "\ud800"},
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(queue, ask, wrong):
    with pytest.raises(BadInput):
        ask(**wrong)
    assert queue.events() == []
    assert queue.stats().total == 0


def test_the_same_key_and_content_is_the_same_task(queue, ask):
    first, again = ask(key="k"), ask(key="k")
    assert first == again
    assert queue.stats().total == 1


def test_a_key_with_other_content_is_a_conflict(queue, ask):
    first = ask(key="k")
    with pytest.raises(KeyConflict) as error:
        ask(key="k", input_data={"text": "other"})
    assert (error.value.key, error.value.task_id) == ("k", first.task_id)
    assert queue.stats().total == 1


def test_a_known_key_shows_the_task_as_it_is_now(queue, ask):
    task = ask(key="k")
    queue.replace(task.task_id, {"text": "new"}, {"label": "ham"})
    assert ask(key="k") == queue.get(task.task_id)
    assert ask(key="k").input_data == {"text": "new"}


def test_ids_are_in_the_order_of_submission_even_if_the_clock_steps_back(queue, ask, clock):
    first = ask()
    clock.forward(hours=-3)
    second = ask()
    assert first.task_id < second.task_id
    assert first.created_at <= second.created_at


@settings(max_examples=40)
@given(payloads, ai_results, answers, odd_names)
@example(
    {"x": float("nan"), "y": -0.0, "z": 1e22}, {"label": 1e-7, "$odd": 1.0}, ("correct", {"$float": b"\x00"}), "ann"
)
def test_any_payload_survives_storage_byte_for_byte(data, prediction, answer, who):
    outcome, correction = answer
    with open_queue(":memory:", clock=Clock()) as queue:
        prediction = {k: v for k, v in prediction.items() if k != "model" or v.strip()}
        task = queue.submit(input_data=data, ai_prediction=prediction, reason="r")
        review = queue.resolve(task.task_id, who, outcome, correction, submit_id="s")
        again = queue.resolve(task.task_id, who, outcome, correction, submit_id="s")
        assert canonical(again.correction) == canonical(review.correction)
        found = queue.get(task.task_id)
        assert canonical(found.input_data) == canonical(data)
        assert canonical(found.ai_prediction) == canonical(prediction)
        if correction is not None:
            assert canonical(found.reviews[0].answer) == canonical(correction)
        [line] = queue.history(inputs=True).to_dict("records")
        assert canonical(line["prediction"]) == canonical(parse(canonical(prediction["label"])))
        assert len(queue.training_frame()) == len(queue.annotations()) == 1
        assert queue.verify() == []


# -- claiming


def test_claims_come_by_priority_then_deadline_then_age(queue, ask):
    low = ask(priority="low", deadline=timedelta(minutes=1))
    old, young = ask(priority="high"), ask(priority="high")
    later = ask(priority="high", deadline=timedelta(hours=2))
    sooner = ask(priority="high", deadline=timedelta(hours=1))
    order = ids([sooner, later, old, young, low])
    assert ids(queue.pending()) == order
    assert ids(queue.claim("ann", n=9)) == order


def test_a_claimed_task_is_not_handed_out_again(queue, ask, clock):
    task = ask()
    [mine] = queue.claim("ann")
    assert queue.claim("bob") == []
    assert (mine.task_id, mine.holder, mine.attempt, mine.status) == (task.task_id, "ann", 1, "claimed")
    assert mine.lease_until == clock.aware + timedelta(minutes=10)
    assert mine == queue.get(task.task_id)


def test_eight_threads_claim_a_hundred_tasks_once_each(queue, ask):
    for _ in range(100):
        ask()
    taken = []

    def work(name):
        while found := queue.claim(name, n=3):
            taken.extend(ids(found))

    threads = [threading.Thread(target=work, args=(f"r{i}",)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(taken) == len(set(taken)) == 100
    assert queue.verify() == []


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"n": True}, {"n": 10**6}, {"lease": timedelta(0)}, {"lease": 5}, {"lease": timedelta.max}]
)
def test_a_claim_without_sense_is_refused(queue, ask, wrong):
    ask()
    with pytest.raises(BadInput):
        queue.claim("ann", **wrong)
    assert queue.get(queue.pending()[0].task_id).attempt == 0


def test_a_lease_that_runs_out_comes_back(queue, ask, clock):
    task = ask()
    queue.claim("ann", lease=timedelta(minutes=5))
    clock.forward(minutes=4, seconds=59)
    assert queue.claim("bob") == []
    clock.forward(seconds=1)
    [taken] = queue.claim("bob")
    assert (taken.task_id, taken.attempt, taken.holder) == (task.task_id, 2, "bob")
    assert kinds(queue, task.task_id) == ["submit", "claim", "lapse", "claim"]


def test_renewing_keeps_a_lease(queue, ask, clock):
    ask(), ask()
    mine = ids(queue.claim("ann", n=2))
    clock.forward(minutes=9)
    queue.renew(mine, "ann")
    clock.forward(minutes=9)
    assert queue.claim("bob") == []
    with pytest.raises(LeaseLost):
        queue.renew(mine, "bob")
    with pytest.raises(BadInput):
        queue.renew(mine, "ann", timedelta(0))
    clock.forward(minutes=2)
    with pytest.raises(LeaseLost):
        queue.renew(mine, "ann")


def test_renewing_is_all_or_nothing(queue, ask, clock):
    ask()
    [mine] = queue.claim("ann")
    other = ask()
    clock.forward(minutes=5)
    with pytest.raises(LeaseLost):
        queue.renew([mine.task_id, other.task_id], "ann")
    assert queue.get(mine.task_id).lease_until == mine.lease_until


def test_expertise_is_a_hard_filter(queue, ask):
    law, anyone = ask(expertise="law", priority="high"), ask(priority="low")
    assert ids(queue.claim("ann", n=9)) == [anyone.task_id]
    with pytest.raises(NotQualified):
        queue.resolve(law.task_id, "ann", "approve")
    with pytest.raises(NotQualified):
        queue.claim(LAWYER, expertise="tax")
    assert queue.claim(Reviewer(id="tom", expertise=("tax",))) == []
    assert ids(queue.pending(expertise="tax")) == [anyone.task_id]
    assert ids(queue.pending(expertise="law")) == [law.task_id, anyone.task_id]
    assert ids(queue.pending()) == [law.task_id, anyone.task_id]
    assert ids(queue.claim(LAWYER)) == [law.task_id]
    assert queue.resolve(law.task_id, LAWYER, "approve").reviewer == "lea"


def test_who_released_a_task_gets_it_last_and_others_get_it_first(queue, ask):
    first, second = ask(priority="high"), ask(priority="low")
    queue.claim("ann")
    queue.release(first.task_id, "ann", "not my field")
    assert queue.get(first.task_id).status == "pending_review"
    assert ids(queue.claim("ann")) == [second.task_id]
    assert ids(queue.claim("bob")) == [first.task_id]
    queue.release(first.task_id, "bob")
    assert ids(queue.claim("ann")) == [first.task_id]


def test_a_task_that_is_put_back_unseen_is_no_skip_and_no_return(queue, ask):
    first, _ = ask(escalation=["law"]), ask()
    for _ in range(5):
        assert queue.claim("ann")[0].task_id == first.task_id
        queue.release(first.task_id, "ann")
    assert queue.get(first.task_id).level == 0


def test_an_answer_can_be_taken_back_while_another_reviewer_judges_the_task(queue, ask):
    task = ask(reviews_required=2)
    queue.resolve(task.task_id, "ann", "approve")
    [held] = queue.claim("bob")
    queue.undo(task.task_id, "ann")
    assert queue.get(task.task_id).status == "claimed"
    queue.resolve(task.task_id, "bob", "reject", attempt=held.attempt)
    assert queue.get(task.task_id).status == "pending_review"
    queue.resolve(task.task_id, "ann", "reject")
    assert [review.reviewer for review in queue.get(task.task_id).reviews] == ["bob", "ann"]
    assert queue.history()["outcome"].tolist() == ["reject"]
    assert queue.verify() == []


def test_who_answers_what_was_replaced_meanwhile_is_told_so(queue, ask):
    task = ask()
    [held] = queue.claim("ann")
    queue.replace(task.task_id, {"text": "new"}, {"label": "b"})
    with pytest.raises(ItemChanged):
        queue.resolve(task.task_id, "ann", "approve", attempt=held.attempt, shown=held.shown)


def test_only_the_holder_can_release(queue, ask):
    task = ask()
    with pytest.raises(LeaseLost):
        queue.release(task.task_id, "ann")
    queue.claim("ann")
    with pytest.raises(LeaseLost) as error:
        queue.release(task.task_id, "bob")
    assert error.value.holder == "ann"


def test_the_third_lease_without_an_answer_asks_the_next_level(queue, ask, clock):
    task = ask(escalation=["law"])
    for round_ in range(3):
        assert queue.get(task.task_id).level == 0
        queue.claim(f"r{round_}")
        if round_ == 1:
            clock.forward(minutes=11)
            queue.tick()
        else:
            queue.release(task.task_id, f"r{round_}", "not sure")
    after = queue.get(task.task_id)
    assert (after.level, after.expertise, after.status) == (1, "law", "pending_review")


@settings(max_examples=30)
@given(st.lists(odd_names, min_size=1, max_size=4, unique=True), odd_names)
@example(['x"ann'], "ann")
def test_only_who_answered_is_not_asked_again(before, asked):
    with open_queue(":memory:", clock=Clock()) as queue:
        task = queue.submit(input_data={}, ai_prediction={}, reason="r", reviews_required=20)
        for name in before:
            queue.resolve(task.task_id, name, "approve")
        assert len(queue.claim(asked)) == (asked not in before)


# -- answering


def test_an_answer_under_a_lease_holds(queue, ask, clock):
    task = ask()
    [mine] = queue.claim("ann")
    clock.forward(minutes=3)
    review = queue.resolve(task.task_id, "ann", "correct", {"label": "ham"}, "obvious", attempt=mine.attempt)
    assert (review.outcome, review.correction, review.comment) == ("correct", {"label": "ham"}, "obvious")
    assert review.answer == {"label": "ham"}
    assert (review.number, review.attempt, review.version, review.shown) == (1, 1, 1, mine.shown)
    assert (review.claimed_at, review.at_time) == (clock.aware - timedelta(minutes=3), clock.aware)
    after = queue.get(task.task_id)
    assert (after.status, after.holder, after.reviews) == ("reviewed", None, (review,))
    assert queue.claim("bob") == []


@pytest.mark.parametrize(("outcome", "answer"), [("approve", {"label": "spam", "confidence": 0.6}), ("reject", None)])
def test_what_holds_after_an_answer(queue, ask, outcome, answer):
    assert queue.resolve(ask().task_id, "ann", outcome).answer == answer


def test_answering_an_unclaimed_task_claims_it_in_the_same_breath(queue, ask):
    task = ask()
    review = queue.resolve(task.task_id, "ann", "approve")
    assert (review.attempt, review.reviewer) == (1, "ann")
    assert kinds(queue, task.task_id) == ["submit", "claim", "review"]


def test_a_task_held_by_another_cannot_be_answered(queue, ask):
    task = ask()
    queue.claim("ann")
    with pytest.raises(LeaseLost) as error:
        queue.resolve(task.task_id, "bob", "approve")
    assert error.value.holder == "ann"
    assert queue.get(task.task_id).reviews == ()


def test_an_answered_task_cannot_be_answered_again(queue, ask, clock):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    for late in ("bob", "ann"):
        with pytest.raises(AlreadyReviewed) as error:
            queue.resolve(task.task_id, late, "reject")
        assert (error.value.by, error.value.when) == ("ann", clock.aware)
    assert queue.get(task.task_id).reviews[0].outcome == "approve"


def test_a_late_submit_never_overwrites(queue, ask, clock):
    task = ask()
    [first] = queue.claim("ann")
    clock.forward(minutes=11)
    with pytest.raises(LeaseLost):
        queue.resolve(task.task_id, "ann", "approve", attempt=first.attempt)
    [second] = queue.claim("ann")
    with pytest.raises(LeaseLost):
        queue.resolve(task.task_id, "ann", "approve", attempt=first.attempt)
    assert queue.resolve(task.task_id, "ann", "reject", attempt=second.attempt).attempt == 2


def test_without_an_attempt_an_ended_lease_is_nobodys(queue, ask, clock):
    task = ask()
    queue.claim("ann")
    clock.forward(minutes=11)
    assert queue.resolve(task.task_id, "bob", "approve").attempt == 2
    assert kinds(queue, task.task_id) == ["submit", "claim", "lapse", "claim", "review"]


def test_the_same_submit_id_and_content_is_the_first_answer(queue, ask, clock):
    task = ask()
    first = queue.resolve(task.task_id, "ann", "correct", {"label": "ham"}, "c", submit_id="s1")
    clock.forward(hours=1)
    assert queue.resolve(task.task_id, "ann", "correct", {"label": "ham"}, "c", submit_id="s1") == first
    assert kinds(queue, task.task_id).count("review") == 1


@pytest.mark.parametrize(
    "other",
    [{"outcome": "approve", "correction": None}, {"correction": {"label": "x"}}, {"comment": "d"}, {"reviewer": "bob"}],
)
def test_the_same_submit_id_with_other_content_is_a_conflict(queue, ask, other):
    said = {"reviewer": "ann", "outcome": "correct", "correction": {"label": "ham"}, "comment": "c", "submit_id": "s1"}
    task, second = ask(), ask()
    queue.resolve(task.task_id, **said)
    with pytest.raises(SubmitConflict):
        queue.resolve(task.task_id, **said | other)
    with pytest.raises(SubmitConflict):
        queue.resolve(second.task_id, **said)
    assert queue.get(second.task_id).status == "pending_review"


def test_a_repeated_submit_tells_what_was_answered_then(queue, ask):
    task = ask(reviews_required=2)
    first = queue.resolve(task.task_id, "ann", "approve", submit_id="s1")
    queue.replace(task.task_id, {"text": "new"}, {"label": "ham"})
    assert queue.resolve(task.task_id, "ann", "approve", submit_id="s1") == first


@pytest.mark.parametrize(
    "said",
    [
        ("correct", None), ("correct", "ham"), ("approve", {"label": "ham"}), ("maybe", None), (None, None),
        ("correct", {"a": "\0"}), ("approve", None, 7),
    ],
)  # fmt: skip
def test_an_answer_without_sense_is_refused(queue, ask, said):
    task = ask()
    with pytest.raises(BadInput):
        queue.resolve(task.task_id, "ann", *said)
    assert kinds(queue, task.task_id) == ["submit"]


@pytest.mark.parametrize("wrong", [NOBODY, "42", "", None, 7, "'; DROP TABLE task; --"])
def test_a_task_that_does_not_exist_is_not_found(queue, ask, wrong):
    ask()
    calls = [
        lambda: queue.get(wrong),
        lambda: queue.explain(wrong),
        lambda: queue.told([wrong]),
        lambda: queue.resolve(wrong, "ann", "approve"),
        lambda: queue.release(wrong, "ann"),
        lambda: queue.renew([wrong], "ann"),
        lambda: queue.undo(wrong, "ann"),
        lambda: queue.object(wrong, "ann", "no"),
        lambda: queue.replace(wrong, {}, {}),
        lambda: queue.withdraw(wrong),
        lambda: queue.reopen(wrong),
        lambda: queue.deliver(wrong, "caller"),
    ]
    for call in calls:
        with pytest.raises(TaskNotFound):
            call()


# -- several reviews


def vote(queue, task, *verdicts):
    for i, verdict in enumerate(verdicts):
        outcome, correction = (verdict, None) if isinstance(verdict, str) else ("correct", verdict)
        queue.resolve(task.task_id, f"r{i}", outcome, correction)
    return queue.get(task.task_id)


@pytest.mark.parametrize(
    ("consensus", "verdicts", "status", "final"),
    [
        ("majority", ["approve", "approve"], "reviewed", 1),
        ("majority", ["approve", "reject"], "disputed", None),
        ("majority", ["reject", "approve", "approve"], "reviewed", 2),
        ("majority", [{"label": "a"}, {"label": "b"}, {"label": "b"}], "reviewed", 2),
        ("majority", [{"label": "a"}, {"label": "b"}, "approve"], "disputed", None),
        ("unanimous", ["approve", "approve", "approve"], "reviewed", 1),
        ("unanimous", ["approve", "approve", "reject"], "disputed", None),
        ("unanimous", [{"a": 1, "b": 2}, {"b": 2, "a": 1}], "reviewed", 1),
        ("adjudicator", ["approve", "approve"], "disputed", None),
    ],
)
def test_several_answers_become_one(queue, ask, consensus, verdicts, status, final):
    task = ask(reviews_required=len(verdicts), consensus=consensus)
    after = vote(queue, task, *verdicts)
    assert (after.status, len(after.reviews)) == (status, len(verdicts))
    review = queue.deliver(task.task_id, "caller")
    assert (None if review is None else review.number) == final
    if status == "disputed":
        assert queue.claim("someone") == []
        queue.claim(JUDGE)
        settled = queue.resolve(task.task_id, JUDGE, "approve")
        assert settled.adjudication
        assert queue.deliver(task.task_id, "caller") == settled
    assert queue.verify() == []


def test_a_reviewer_is_never_offered_a_task_twice(queue, ask):
    task = ask(reviews_required=2)
    queue.claim("ann")
    queue.resolve(task.task_id, "ann", "approve")
    assert queue.claim("ann") == []
    with pytest.raises(AlreadyReviewed):
        queue.resolve(task.task_id, "ann", "approve")
    [taken] = queue.claim("bob")
    assert taken.reviews == ()  # blind to what ann said


def test_an_adjudicator_among_the_reviewers_does_not_settle_his_own_dispute(queue, ask):
    task = ask(reviews_required=2)
    queue.resolve(task.task_id, JUDGE, "approve")
    queue.resolve(task.task_id, "ann", "reject")
    assert queue.claim(JUDGE) == []
    with pytest.raises(AlreadyReviewed):
        queue.resolve(task.task_id, JUDGE, "approve")
    with pytest.raises(NotQualified):
        queue.resolve(task.task_id, "bob", "approve")


# -- undo, objection, delivery


def test_an_answer_can_be_taken_back_and_given_anew(queue, ask):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    queue.undo(task.task_id, "ann")
    after = queue.get(task.task_id)
    assert (after.status, after.reviews) == ("pending_review", ())
    assert ids(queue.claim("ann")) == [task.task_id]
    assert queue.resolve(task.task_id, "ann", "reject").number == 2
    assert [r.outcome for r in queue.get(task.task_id).reviews] == ["reject"]


def test_nobody_can_take_back_what_another_said(queue, ask):
    task = ask()
    for _ in range(2):
        with pytest.raises(UndoRefused):
            queue.undo(task.task_id, "bob")
        if queue.get(task.task_id).status != "reviewed":
            queue.resolve(task.task_id, "ann", "approve")


def test_a_delivered_answer_is_never_taken_back(queue, ask, clock):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    assert queue.deliver(task.task_id, "svc").answer == {"label": "spam", "confidence": 0.6}
    clock.forward(minutes=1)
    with pytest.raises(UndoRefused) as error:
        queue.undo(task.task_id, "ann")
    assert (error.value.when, error.value.told) == (START.replace(tzinfo=clock.aware.tzinfo), "approve")
    queue.object(task.task_id, "bob", "really?")
    with pytest.raises(UndoRefused):
        queue.undo(task.task_id, "ann")


def test_none_of_several_can_take_back_a_part_of_what_was_delivered(queue, ask):
    task = ask(reviews_required=2)
    vote(queue, task, "approve", "approve")
    assert queue.deliver(task.task_id, "svc").number == 1
    for who in ("r0", "r1"):
        with pytest.raises(UndoRefused):
            queue.undo(task.task_id, who)
    assert queue.get(task.task_id).status == "reviewed"


def test_one_of_several_answers_can_be_taken_back_before_delivery(queue, ask):
    task = ask(reviews_required=2)
    vote(queue, task, "approve", "reject")
    queue.undo(task.task_id, "r0")
    after = queue.get(task.task_id)
    assert (after.status, [r.reviewer for r in after.reviews]) == ("pending_review", ["r1"])
    queue.resolve(task.task_id, "r0", "reject")
    assert queue.deliver(task.task_id, "svc").outcome == "reject"


def test_the_first_of_two_answers_can_be_taken_back_while_the_second_is_awaited(queue, ask):
    task = ask(reviews_required=2)
    queue.resolve(task.task_id, "ann", "approve")
    queue.undo(task.task_id, "ann")
    assert queue.get(task.task_id).reviews == ()


def test_delivery_is_logged_once(queue, ask):
    task = ask()
    assert queue.deliver(task.task_id, "svc") is None
    queue.resolve(task.task_id, "ann", "approve")
    assert queue.deliver(task.task_id, "svc") == queue.deliver(task.task_id, "svc")
    assert kinds(queue, task.task_id).count("deliver") == 1


def test_an_objection_asks_an_adjudicator_and_keeps_the_first_answer(queue, ask):
    task = ask()
    first = queue.resolve(task.task_id, "ann", "approve")
    queue.deliver(task.task_id, "svc")
    queue.object(task.task_id, "bob", "looks wrong")
    assert queue.get(task.task_id).status == "disputed"
    assert queue.deliver(task.task_id, "svc", after=first.number) is None
    assert queue.claim("carl") == []
    [taken] = queue.claim(JUDGE)
    assert taken.task_id == task.task_id
    second = queue.resolve(task.task_id, JUDGE, "correct", {"label": "ham"})
    assert (second.number, second.adjudication) == (2, True)
    assert queue.get(task.task_id).reviews == (first, second)
    assert queue.deliver(task.task_id, "svc", after=first.number) == second
    assert list(queue.training_frame()["source"]) == ["adjudication"]
    assert list(queue.annotations()["label"]) == ["spam", "ham"]


def test_who_works_alone_can_settle_an_own_answer_again_and_again(queue, ask):
    task = ask()
    queue.resolve(task.task_id, JUDGE, "approve")
    queue.undo(task.task_id, JUDGE)
    queue.resolve(task.task_id, JUDGE, "approve")
    for number in (3, 4):
        queue.object(task.task_id, JUDGE, "hm")
        assert len(queue.claim(JUDGE)) == 1
        assert queue.resolve(task.task_id, JUDGE, "reject").number == number


def test_an_objection_needs_words_and_an_answer(queue, ask):
    task = ask()
    with pytest.raises(IllegalMove):
        queue.object(task.task_id, "bob", "no")
    queue.resolve(task.task_id, "ann", "approve")
    with pytest.raises(BadInput):
        queue.object(task.task_id, "bob", " ")


def test_an_own_answer_can_be_taken_back_after_an_objection(queue, ask):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    queue.object(task.task_id, "bob", "no")
    queue.undo(task.task_id, "ann")
    assert queue.get(task.task_id).status == "pending_review"


def test_a_settled_dispute_is_not_reopened_by_an_earlier_answer(queue, ask):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    queue.object(task.task_id, "bob", "no")
    queue.resolve(task.task_id, JUDGE, "reject")
    with pytest.raises(UndoRefused, match="judge settled it"):
        queue.undo(task.task_id, "ann")
    assert queue.deliver(task.task_id, "svc").outcome == "reject"


def test_an_adjudicator_who_takes_it_back_leaves_the_dispute(queue, ask):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    queue.object(task.task_id, "bob", "no")
    queue.resolve(task.task_id, JUDGE, "reject")
    queue.undo(task.task_id, JUDGE)
    assert queue.get(task.task_id).status == "disputed"
    assert queue.deliver(task.task_id, "svc") is None
    queue.resolve(task.task_id, JUDGE, "approve")
    assert queue.deliver(task.task_id, "svc").number == 3


def test_an_objection_after_the_deadline_is_still_heard(queue, ask, clock):
    task = ask(deadline=timedelta(hours=1), on_deadline="deny")
    queue.resolve(task.task_id, "ann", "approve")
    clock.forward(hours=2)
    queue.object(task.task_id, "bob", "no")
    queue.tick()
    assert queue.get(task.task_id).status == "disputed"


# -- deadlines


def test_a_deadline_escalates_level_by_level_each_with_its_own_time(queue, ask, clock):
    task = ask(deadline=timedelta(hours=1), escalation=["law", "board"])
    seen = []
    for _ in range(4):
        clock.forward(hours=1)
        queue.tick()
        after = queue.get(task.task_id)
        seen.append((after.level, after.expertise, after.overdue, after.status))
    assert seen == [(1, "law", True, "pending_review")] + [(2, "board", True, "pending_review")] * 3


def test_a_deadline_that_is_not_over_does_nothing(queue, ask, clock):
    task = ask(deadline=timedelta(hours=1), on_deadline="deny")
    clock.forward(minutes=59)
    assert queue.tick() == 0
    assert queue.get(task.task_id).status == "pending_review"


def test_hold_marks_it_overdue_and_asks_on(queue, ask, clock):
    task = ask(deadline=timedelta(hours=1), on_deadline="hold")
    clock.forward(hours=2)
    assert [queue.tick(), queue.tick()] == [1, 0]
    after = queue.get(task.task_id)
    assert (after.status, after.overdue, after.level) == ("pending_review", True, 0)
    assert queue.stats().overdue == 1
    assert queue.resolve(task.task_id, "ann", "approve").number == 1


def test_deny_expires_and_reopen_asks_again(queue, ask, clock):
    task = ask(deadline=timedelta(hours=1), on_deadline="deny")
    clock.forward(hours=2)
    queue.tick()
    assert queue.get(task.task_id).status == "expired"
    assert queue.claim("ann") == []
    with pytest.raises(IllegalMove):
        queue.resolve(task.task_id, "ann", "approve")
    queue.reopen(task.task_id)
    after = queue.get(task.task_id)
    assert (after.status, after.deadline, after.overdue) == ("pending_review", None, False)
    clock.forward(days=9)
    queue.tick()
    assert queue.resolve(task.task_id, "ann", "approve").answer is not None


def test_a_claim_looks_at_deadlines_first(queue, ask, clock):
    ask(deadline=timedelta(hours=1), on_deadline="deny")
    clock.forward(hours=1)
    assert queue.claim("ann") == []


@pytest.mark.parametrize("end", ["release", "lapse"])
@pytest.mark.parametrize(
    ("on_deadline", "status", "level"), [("deny", "expired", 0), ("escalate", "pending_review", 1)]
)
def test_a_deadline_waits_for_who_is_judging(queue, ask, clock, on_deadline, status, level, end):
    task = ask(deadline=timedelta(minutes=5), on_deadline=on_deadline, escalation=["law"])
    queue.claim("ann")
    clock.forward(minutes=6)
    queue.tick()
    during = queue.get(task.task_id)
    assert (during.status, during.overdue, during.holder, during.level) == ("claimed", True, "ann", 0)
    if end == "release":
        queue.release(task.task_id, "ann")
    else:
        clock.forward(minutes=5)
        queue.tick()
    after = queue.get(task.task_id)
    assert (after.status, after.level) == (status, level)


def test_who_is_judging_may_answer_after_the_deadline(queue, ask, clock):
    task = ask(deadline=timedelta(minutes=5), on_deadline="deny")
    queue.claim("ann")
    clock.forward(minutes=6)
    queue.tick()
    queue.resolve(task.task_id, "ann", "approve")
    queue.tick()
    assert queue.get(task.task_id).status == "reviewed"


def test_a_deadline_passes_between_two_of_several_reviews(queue, ask, clock):
    task = ask(deadline=timedelta(minutes=5), on_deadline="deny", reviews_required=2)
    queue.claim("ann")
    clock.forward(minutes=6)
    queue.tick()
    queue.resolve(task.task_id, "ann", "approve")
    assert queue.get(task.task_id).status == "expired"


@pytest.mark.parametrize(("on_deadline", "status", "level"), [("deny", "expired", 0), ("hold", "disputed", 1)])
def test_a_dispute_has_its_deadline_too(queue, ask, clock, on_deadline, status, level):
    task = ask(deadline=timedelta(hours=1), on_deadline=on_deadline, reviews_required=2)
    vote(queue, task, "approve", "reject")
    clock.forward(hours=2)
    queue.tick()
    after = queue.get(task.task_id)
    assert (after.status, after.level) == (status, level)


# -- replaced, withdrawn, erased


def test_a_replaced_payload_voids_leases_and_answers(queue, ask):
    task = ask(reviews_required=2)
    queue.resolve(task.task_id, "ann", "approve")
    [mine] = queue.claim("bob")
    queue.replace(task.task_id, {"text": "new"}, {"label": "ham", "confidence": 0.9})
    after = queue.get(task.task_id)
    assert (after.status, after.version, after.holder, after.reviews) == ("pending_review", 2, None, ())
    assert (after.input_data, after.ai_prediction["label"], after.confidence) == ({"text": "new"}, "ham", 0.9)
    assert after.shown != mine.shown
    with pytest.raises(LeaseLost):
        queue.resolve(task.task_id, "bob", "approve", attempt=mine.attempt)
    with pytest.raises(ItemChanged):
        queue.resolve(task.task_id, "bob", "approve", shown=mine.shown)
    assert queue.get(task.task_id).status == "pending_review"
    vote(queue, task, "approve", "approve")
    assert queue.deliver(task.task_id, "svc").version == 2
    assert queue.verify() == []


@pytest.mark.parametrize("confidence", [float("nan"), "high", 7, True])
def test_a_replacement_with_an_unknown_confidence(queue, ask, confidence):
    task = ask()
    queue.replace(task.task_id, {}, {}, confidence)
    assert queue.get(task.task_id).confidence is None
    assert queue.verify() == []


def test_a_disputed_task_stays_disputed_when_replaced(queue, ask):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    queue.object(task.task_id, "bob", "no")
    queue.claim(JUDGE)
    queue.replace(task.task_id, {}, {"label": "x"})
    assert queue.get(task.task_id).status == "disputed"
    queue.resolve(task.task_id, JUDGE, "approve")
    assert queue.deliver(task.task_id, "svc").answer == {"label": "x"}


# -- ordered anew

LOOSE = Policy(0.85, rules=(FieldAbove(field="amount", bound=1000, expertise="law"),), audit_rate=1.0)
ROUTES = {"high": 2, "medium": 1, "low": 0}


def scored(task, priority, expertise=None, says="sure"):
    """Return what a later model and a policy make of a task as it was read."""
    reason = Reason(rule="reordered", says="Model {bound}: " + says, bound="v2", hard=True)
    return TaskRow(
        task_id=task.task_id, status="pending_review", created_at=START, priority=ROUTES[priority],
        expertise=expertise, version=task.version, reasons=dump_reasons([reason]),
    )  # fmt: skip


def anew(queue, *ready, policy=LOOSE):
    return queue.reorder(list(ready), policy.fingerprint, policy.to_dict())


def routed(queue, confidence=0.6, amount=3, **roles):
    told = {"label": "spam", "confidence": confidence, "model": "v1", "regulated": False, "note": "kept"}
    made = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=1.0, second_audit=0))
    return queue.get(made.process({"amount": amount}, told, **roles)["task_id"])


def test_a_task_ordered_anew_has_another_order_and_route_and_a_reason_more(queue):
    first, second = routed(queue, 0.6), routed(queue, 0.65, amount=5000)
    assert anew(queue, scored(first, "low"), scored(second, "high", "law")) == [first.task_id, second.task_id]
    low, high = queue.get(first.task_id), queue.get(second.task_id)
    assert (low.priority, high.priority, low.expertise, high.expertise) == ("low", "high", None, "law")
    assert [reason.text for reason in low.reasons] == ["Low confidence: 0.6", "Model v2: sure"]
    assert [task.task_id for task in queue.claim(LAWYER, n=2)] == [second.task_id, first.task_id]
    assert "ordered it anew by a later model" in queue.explain(first.task_id)
    assert queue.events(move="reorder")[0]["body"]["policy"] == LOOSE.fingerprint
    assert queue.verify() == []


def test_who_approves_a_task_that_was_ordered_anew_approves_what_its_caller_handed_in(queue):
    task = routed(queue)
    anew(queue, scored(task, "low"))
    now = queue.get(task.task_id)
    same = ("input_data", "ai_prediction", "confidence", "model", "policy", "version", "shown", "status")
    assert [getattr(now, name) for name in same] == [getattr(task, name) for name in same]
    queue.resolve(task.task_id, "ann", "approve", shown=task.shown)
    assert queue.deliver(task.task_id, "svc").answer == task.ai_prediction
    assert queue.verify() == []


def test_a_task_that_a_later_model_put_in_its_place_is_no_evidence_for_a_threshold(queue):
    task = routed(queue)
    anew(queue, scored(task, "low"))
    queue.resolve(task.task_id, "ann", "reject")
    [row] = queue.history().to_dict("records")
    assert (row["hard"], row["model"], row["confidence"], row["review_probability"]) == (True, "v1", 0.6, 1.0)
    assert (row["audit_probability"], row["policy"]) == (0.0, task.policy)


TAKEN = {
    "held": lambda queue, task: queue.claim("ann"),
    "given back": lambda queue, task: (queue.claim("ann"), queue.release(task.task_id, "ann")),
    "answered": lambda queue, task: queue.resolve(task.task_id, "ann", "approve"),
    "undone": lambda queue, task: (queue.resolve(task.task_id, "ann", "approve"), queue.undo(task.task_id, "ann")),
    "withdrawn": lambda queue, task: queue.withdraw(task.task_id),
    "replaced": lambda queue, task: queue.replace(task.task_id, {"amount": 4}, {"label": "b"}),
    "erased": lambda queue, task: queue.forget("bob"),
}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
def test_whoever_was_faster_than_the_new_model_wins(queue, take):
    task = routed(queue, subject="bob")
    late = scored(task, "high", "law")
    take(queue, task)
    before = queue.get(task.task_id), kinds(queue, task.task_id)
    assert anew(queue, late) == []
    assert (queue.get(task.task_id), kinds(queue, task.task_id)) == before
    assert queue.verify() == []


def test_an_audit_stays_as_it_was(queue):
    audit = routed(queue, 0.95)
    assert audit.audit
    assert anew(queue, scored(audit, "high")) == []
    assert queue.get(audit.task_id) == audit


def test_who_may_judge_what_a_caller_sent_by_hand_no_model_changes(queue, ask):
    task = ask(expertise="pathology", priority="high", model="v1")
    assert anew(queue, scored(task, "low")) == []
    assert queue.claim("intern") == []
    assert queue.get(task.task_id) == task


def test_an_escalated_task_keeps_its_level_and_the_last_score_is_the_reason(queue, clock):
    made = Orchestrator(queue=queue, policy=Policy(0.85, deadline=timedelta(hours=1), escalation=("law",)))
    task_id = made.process({"amount": 1}, {"label": "spam", "confidence": 0.6, "model": "v1"})["task_id"]
    clock.forward(hours=2)
    queue.tick()
    for says in ("once", "twice"):
        anew(queue, scored(queue.get(task_id), "low", says=says))
    now = queue.get(task_id)
    assert (now.level, now.expertise, now.overdue, now.version) == (1, "law", True, 1)
    assert [reason.text for reason in now.reasons] == ["Low confidence: 0.6", "Model v2: twice"]
    assert queue.verify() == []


def test_what_was_ordered_anew_is_the_same_after_the_table_was_rebuilt(queue):
    tasks = [routed(queue, p) for p in (0.6, 0.7)]
    anew(queue, scored(tasks[0], "low"), scored(tasks[1], "high"))
    before = [queue.get(task.task_id) for task in tasks]
    queue.rebuild()
    assert [queue.get(task.task_id) for task in tasks] == before
    assert queue.pending() == before[::-1]


def test_a_repeat_by_key_tells_what_was_told_at_first(queue):
    made = Orchestrator(queue=queue, policy=Policy(0.85))
    asked = {"amount": 3}, {"label": "spam", "confidence": 0.6, "model": "v1"}
    first = made.process(*asked, key="k")
    anew(queue, scored(queue.get(first["task_id"]), "high", "law"))
    assert made.process(*asked, key="k") == first
    queue.replace(first["task_id"], {"amount": 4}, {"label": "ham", "confidence": 0.2})
    assert made.process(*asked, key="k") == first
    frame = pd.DataFrame([asked[0]])
    again = made.process_frame(frame, [asked[1]], key=["k"]).iloc[0]
    assert (again["reason"], again["priority"], again["expertise"]) == ("Low confidence: 0.6", "medium", None)


@pytest.mark.parametrize("call", ["replace", "withdraw"])
def test_what_is_decided_can_neither_be_replaced_nor_withdrawn(queue, ask, call):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    with pytest.raises(IllegalMove):
        getattr(queue, call)(task.task_id, *([{}, {}] if call == "replace" else []))


def test_a_withdrawn_task_is_gone_for_good(queue, ask):
    task = ask(deadline=timedelta(hours=1))
    queue.claim("ann")
    queue.withdraw(task.task_id, "cancelled by the customer")
    assert queue.get(task.task_id).status == "withdrawn"
    for call in (lambda: queue.resolve(task.task_id, "ann", "approve"), lambda: queue.reopen(task.task_id)):
        with pytest.raises(IllegalMove):
            call()
    assert "cancelled by the customer" in queue.explain(task.task_id)
    assert queue.pending() == []


@pytest.fixture
def forgotten(queue, ask):
    """A reviewed and an open task about one subject, and one about another; the first subject is erased."""
    done, waiting, other = ask(subject="s1"), ask(subject="s1", key="k"), ask(subject="s2")
    queue.resolve(done.task_id, "ann", "correct", {"label": "secret"}, "private")
    found = queue.forget("s1")
    assert set(found.tasks) == {done.task_id, waiting.task_id}
    assert found.withdrawn == (waiting.task_id,)
    return done, waiting, other


def test_forgetting_erases_payloads_and_keeps_facts(queue, forgotten):
    done, waiting, other = forgotten
    assert queue.get(done.task_id).input_data is None
    assert queue.get(done.task_id).status == "reviewed"
    assert queue.get(done.task_id).reviews[0].correction is None
    assert queue.get(waiting.task_id).status == "withdrawn"
    assert queue.get(other.task_id).input_data == {"text": "hm"}
    assert queue.verify() == []
    rows = queue.store.read(lambda tx: tx.rows("get_payloads", task_ids=[done.task_id, waiting.task_id]))
    assert rows == []
    assert "secret" not in json.dumps(queue.events(), default=str)
    queue.rebuild()
    assert queue.verify() == []


def test_reading_works_on_after_forgetting(queue, forgotten, ask):
    done, waiting, _ = forgotten
    assert "erased" in queue.explain(done.task_id)
    frame = queue.history(inputs=True).set_index("task_id")
    assert frame.loc[done.task_id, "outcome"] == "correct"
    assert pd.isna(frame.loc[done.task_id, "label"])
    assert queue.training_frame().empty
    assert queue.annotations().empty
    assert queue.pending()
    assert ask(subject="s1", key="k").task_id != waiting.task_id


def test_what_is_erased_cannot_be_judged_again(queue, forgotten, clock):
    done, waiting, _ = forgotten
    for call in (
        lambda: queue.object(done.task_id, "bob", "no"),
        lambda: queue.undo(done.task_id, "ann"),
        lambda: queue.resolve(waiting.task_id, "ann", "approve"),
    ):
        with pytest.raises(PayloadErased):
            call()
    assert queue.verify() == []


def test_an_erased_answer_is_missing_in_earlier_training_frames_too(queue, ask, clock):
    task = ask(subject="s1")
    queue.resolve(task.task_id, "ann", "approve")
    then = clock.aware
    clock.forward(hours=1)
    assert len(queue.training_frame(as_of=then)) == 1
    queue.forget("s1")
    assert queue.training_frame(as_of=then).empty


def test_an_expired_and_erased_task_cannot_be_reopened(queue, ask, clock):
    task = ask(subject="s1", deadline=timedelta(hours=1), on_deadline="deny")
    clock.forward(hours=1)
    queue.tick()
    queue.forget("s1")
    with pytest.raises(PayloadErased):
        queue.reopen(task.task_id)
    with pytest.raises(BadInput):
        queue.forget("nobody")


# -- reading


def test_the_log_tells_everything_in_order(queue, ask, clock):
    task = ask()
    queue.claim("ann")
    clock.forward(minutes=2)
    queue.resolve(task.task_id, "ann", "correct", {"label": "ham"})
    log = queue.events()
    first, second, last = [event["seq"] for event in log]
    assert 0 < first < second < last
    assert last == 3 or queue.store.shared  # where several processes write, numbers may have gaps
    assert [event["move"] for event in log] == ["submit", "claim", "review"]
    assert [event["actor"] for event in log] == [None, "ann", "ann"]
    assert log[2]["at_time"] == clock.aware
    assert log[2]["body"]["outcome"] == "correct"
    assert [queue.events(move=event["move"]) for event in log] == [[event] for event in log]
    assert queue.events(move="submit", since=first) == queue.events(move="note") == []
    with pytest.raises(BadInput):
        queue.events(move="")
    assert queue.events(since=second) == log[2:]
    assert queue.events(since=last) == []
    for wrong in (-1, True, "2", 2**70):
        with pytest.raises(BadInput):
            queue.events(since=wrong)
    with pytest.raises(BadInput):
        queue.pending(limit=0)


def test_all_that_waits_comes_page_by_page_in_the_order_of_ids(queue, ask):
    made = [ask(priority=one, expertise=who) for one in ("low", "high") for who in (None, "law", "tax")]
    queue.resolve(made[3].task_id, "ann", "approve")
    queue.claim("ann")
    first = queue.pending(limit=2, after="00000000-0000-0000-0000-000000000000")
    assert ids(first) == ids(made[:2])
    assert ids(queue.pending(after=first[-1].task_id)) == ids([made[2], *made[4:]])
    assert ids(queue.pending("law", after=first[-1].task_id)) == [made[4].task_id]
    assert queue.pending(after=made[-1].task_id) == []
    with pytest.raises(BadInput, match="after"):
        queue.pending(after="first")


def test_what_was_answered_last_comes_with_its_answers_newest_first(queue, ask, clock):
    tasks = [ask(input_data={"text": f"mail {i}"}, subject=f"s{i}") for i in range(5)]
    for task in (tasks[3], tasks[0], tasks[4]):
        clock.forward(minutes=1)
        queue.resolve(task.task_id, "ann", "correct", {"label": "ham"}, "seen")
    found = queue.reviewed()
    assert [task.input_data["text"] for task in found] == ["mail 4", "mail 0", "mail 3"]
    assert found[0] == queue.get(tasks[4].task_id)
    assert queue.reviewed(1) == found[:1]
    long = ask(input_data={"text": "x" * 2**17})
    queue.resolve(long.task_id, "ann", "approve")
    queue.forget("s0")
    assert [task.task_id for task in queue.reviewed()] == [tasks[4].task_id, tasks[3].task_id]
    with pytest.raises(BadInput):
        queue.reviewed(0)


def test_an_explanation_names_reason_value_bound_policy_model_reviewer_and_times(queue, clock):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
    found = orchestrator.process({"amount": 3}, {"label": "ok", "confidence": 0.62, "model": "v7"})
    queue.claim("ann")
    clock.forward(minutes=5)
    queue.resolve(found["task_id"], "ann", "correct", {"label": "no"}, "wrong person")
    said = queue.explain(found["task_id"])
    for word in ("Low confidence", "0.62", "0.85", "v7", orchestrator.policy.fingerprint, "ann", "wrong person",
                 "2026-01-05 09:00:00", "2026-01-05 09:05:00", "reviewed", "correct"):  # fmt: skip
        assert word in said


def test_an_explanation_says_a_bound_once(queue):
    policy = Policy(0.85, rules=(FieldAbove(field="amount", bound=50),), audit_rate=0)
    found = Orchestrator(queue=queue, policy=policy).process({"amount": 60}, {"label": "ok", "confidence": 0.62})
    assert queue.explain(found["task_id"]).splitlines()[1:3] == [
        "Reason: amount 60 > 50", "Reason: Low confidence: 0.62 (bound 0.85)"
    ]  # fmt: skip


def test_every_move_is_explained_in_words(queue, ask, clock):
    task = ask(deadline=timedelta(hours=1), escalation=["law"])
    clock.forward(hours=2)
    [mine] = queue.claim(LAWYER)
    queue.renew([mine.task_id], LAWYER)
    queue.release(task.task_id, LAWYER, "later")
    said = queue.explain(task.task_id)
    assert "the queue escalated it" in said
    assert "lea kept it longer" in said
    assert "lea gave it back: later" in said


def test_the_wait_follows_backlog_and_rate(queue, ask, clock):
    tasks = [ask(priority="high") for _ in range(12)]
    for task in tasks[:6]:
        clock.forward(minutes=2)
        queue.resolve(task.task_id, "ann", "approve")
    wait = queue.estimated_wait()
    assert wait.low < wait.minutes < wait.high
    assert 8 <= wait.minutes <= 16  # six ahead, one in two minutes
    assert queue.estimated_wait(priority="high") == wait
    ask(priority="low")
    assert queue.estimated_wait(priority="high") == wait
    assert queue.estimated_wait().minutes > wait.minutes


# -- upkeep


def busy(queue, clock):
    """Fill a queue with tasks in every state."""

    def ask(**options):
        given = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "confidence": 0.6, "reason": "r"}
        return queue.submit(**given | options).task_id

    done = [ask(key=f"k{i}", expertise="law" if i % 2 else None) for i in range(6)]
    for task_id in done:
        clock.forward(minutes=1)
        queue.resolve(task_id, LAWYER, "correct", {"label": "b"}, "why")
    queue.undo(done[0], LAWYER)
    queue.object(done[1], "bob", "no")
    queue.deliver(done[2], "svc")
    ask(deadline=timedelta(minutes=1), on_deadline="deny", priority="high")
    ask(deadline=timedelta(minutes=1), escalation=["law"], priority="high")
    clock.forward(minutes=2)
    queue.tick()
    queue.withdraw(ask(), "x")
    queue.replace(ask(), {"n": 2}, {"label": "c", "model": "v2"})
    ask(subject="s", priority="high")
    queue.forget("s")
    Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.5)).process_frame(
        pd.DataFrame({"n": range(40)}), pd.DataFrame({"label": ["a"] * 40, "confidence": np.linspace(0.5, 1, 40)})
    )
    queue.claim("ann", n=3)


def everything(queue):
    return queue.store.read(lambda tx: tx.rows("tasks_between", after=None, until=None))


def counters(queue):
    backlog = queue.store.backlog
    waiting = {key: count for key, count in backlog.waiting.items() if count}
    return waiting, list(backlog.recent), backlog.next_due


@pytest.mark.parametrize("page", [1, 7, upkeep.PAGE])
def test_a_rebuilt_table_is_the_same_table(queue, clock, monkeypatch, page):
    monkeypatch.setattr(upkeep, "PAGE", page)
    busy(queue, clock)
    assert queue.verify() == []
    before, counted = everything(queue), counters(queue)
    assert {row[1] for row in before} >= set(map(str, Status))
    assert queue.rebuild() == len(before)
    assert everything(queue) == before
    assert counters(queue) == counted
    assert queue.verify() == []


def test_a_reopened_file_is_the_same_queue(tmp_path, clock):
    path = tmp_path / "q.duckdb"
    with open_queue(path, clock=clock) as queue:
        busy(queue, clock)
        seen = [
            everything(queue),
            counters(queue),
            queue.estimated_wait(),
            queue.pending(),
            queue.events(),
            queue.stats(),
        ]
    with open_queue(path, clock=clock) as again:
        assert again is not queue
        assert [
            everything(again),
            counters(again),
            again.estimated_wait(),
            again.pending(),
            again.events(),
            again.stats(),
        ] == seen
        assert again.verify() == []


TAMPER = {
    "outcome": "UPDATE task SET outcome = 'approve' WHERE status = 'reviewed'",
    "status": "UPDATE task SET status = 'reviewed' WHERE status = 'expired'",
    "twice": "INSERT INTO task SELECT * FROM task LIMIT 1",
    "not in the table": "DELETE FROM task WHERE status = 'reviewed'",
    "no payload": "DELETE FROM payload WHERE kind = 'input'",
}


@pytest.mark.parametrize(("problem", "sql"), TAMPER.items())
def test_a_tampered_file_is_noticed_and_rebuilt(tmp_path, clock, problem, sql):
    path = tmp_path / "q.duckdb"
    with open_queue(path, clock=clock) as queue:
        busy(queue, clock)
        before = everything(queue)
    with duckdb.connect(str(path)) as raw:
        raw.execute(sql)
    with open_queue(path, clock=clock) as queue:
        assert any(problem in line for line in queue.verify())
        if problem != "no payload":  # what is gone is gone
            queue.rebuild()
            assert queue.verify() == []
            assert everything(queue) == before


CHANGED = {
    "stands twice in the log": "INSERT INTO event SELECT * FROM event WHERE move = 'policy'",
    "missing in the log before event": "DELETE FROM event WHERE move = 'policy'",
    "missing in the log before event 2": "DELETE FROM event WHERE seq = 1",
    "happened before the one before it": "UPDATE event SET at_time = at_time - INTERVAL 1 HOUR WHERE move = 'policy'",
    "not what was shown": "UPDATE payload SET body = '{\"n\":2}' WHERE kind = 'input' AND body = '{\"n\":1}'",
    "what was shown": "DELETE FROM payload WHERE kind = 'prediction'",
    "cannot be read": "UPDATE event SET body = 'x' WHERE seq = 3",
    "or key that cannot be read": "UPDATE payload SET body = '{\"$what\":1}' WHERE kind = 'key'",
    "log or key that cannot": 'UPDATE event SET body = \'{"set":{"status":"gone"}}\' WHERE move = \'claim\'',
}


@pytest.mark.parametrize(("problem", "sql"), CHANGED.items())
def test_a_changed_log_or_payload_is_noticed(tmp_path, clock, monkeypatch, problem, sql):
    monkeypatch.setattr(upkeep, "PAGE", 50)
    path = tmp_path / "q.duckdb"
    with open_queue(path, clock=clock) as queue:
        busy(queue, clock)
        assert queue.verify() == []
    with duckdb.connect(str(path)) as raw:
        raw.execute(sql)
    with open_queue(path, clock=clock) as queue:
        assert any(problem in line for line in queue.verify())


def test_verify_and_rebuild_hold_a_page_in_memory_and_not_the_file(queue, monkeypatch):
    monkeypatch.setattr(upkeep, "PAGE", 50)
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.5))

    def rebuild():
        assert queue.store.write(upkeep.rebuild, search=True) > 0

    def peaks(n):
        frame = pd.DataFrame({"n": range(n)})
        orchestrator.process_frame(frame, pd.DataFrame({"label": "a", "confidence": 0.9}, index=frame.index))
        found = []
        for call in (queue.verify, queue.verify, rebuild):  # the first call also fills caches
            tracemalloc.start()
            call()
            found.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        return found[1:]

    for few, many in zip(peaks(100), peaks(900), strict=True):
        assert many < 3 * few  # ten times as many tasks


def test_problems_are_named_up_to_a_bound(queue, ask):
    for _ in range(upkeep.NAMED):
        ask()
    queue.store.write(lambda tx: tx.rows("clear_tasks"), search=True)
    found = queue.verify()
    assert len(found) == upkeep.NAMED
    assert {line[-20:] for line in found} == {" should not be there", "but not in the table"}


def test_an_impossible_log_is_noticed(tmp_path, clock):
    path = tmp_path / "q.duckdb"
    with open_queue(path, clock=clock) as queue:
        busy(queue, clock)
    with duckdb.connect(str(path)) as raw:
        raw.execute("DELETE FROM event WHERE move = 'claim' AND attempt = 1")
    with open_queue(path, clock=clock) as queue:
        assert any("was pending_review and made review" in line for line in queue.verify())


def test_a_backup_is_a_queue(queue, clock, tmp_path):
    busy(queue, clock)
    path = tmp_path / "it's a copy.duckdb"
    if not copies_itself(queue, path):
        return
    queue.backup(path)
    queue.submit(input_data={}, ai_prediction={}, reason="later")
    with open_queue(path, clock=clock) as copy:
        assert copy.verify() == []
        assert len(everything(copy)) == len(everything(queue)) - 1
        copy.claim("ann")
    assert queue.verify() == []


@pytest.mark.parametrize("path", ["there.duckdb", "nowhere/copy.duckdb", "."])
def test_a_backup_overwrites_nothing(queue, tmp_path, path):
    (tmp_path / "there.duckdb").write_text("precious")
    with pytest.raises((BadInput, NotAllowed)):
        queue.backup(tmp_path / path)
    assert (tmp_path / "there.duckdb").read_text() == "precious"


def test_a_closed_queue_says_so(queue, ask):
    task = ask()
    queue.close()
    queue.close()
    assert queue.closed
    calls = [ask, queue.stats, queue.pending, queue.events, queue.history, queue.tick, queue.verify, queue.rebuild]
    calls += [lambda: queue.claim("ann"), lambda: queue.get(task.task_id), lambda: queue.backup("x.duckdb")]
    calls += [queue.estimated_wait, lambda: queue.deliver(task.task_id, "svc")]
    for call in calls:
        with pytest.raises(QueueClosed):
            call()


def test_a_policy_is_in_the_log_even_if_its_first_decision_failed(queue):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
    queue.submit(input_data={"a": 1}, ai_prediction={"label": "x"}, reason="r", key="k")
    with pytest.raises(KeyConflict):
        orchestrator.process({"a": 2}, {"label": "x", "confidence": 0.1}, key="k")
    orchestrator.process({"a": 2}, {"label": "x", "confidence": 0.1})
    assert [event["move"] for event in queue.events()].count("policy") == 1


def test_an_error_is_a_sentence_with_its_values(queue, ask, clock):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    with pytest.raises(HitlError) as error:
        queue.resolve(task.task_id, "bob", "approve")
    assert str(error.value) == (
        f"task '{task.task_id}' was answered by 'ann' at 2026-01-05 09:00:00 UTC; use object() to ask for a second look"
    )


def test_a_refused_task_is_never_half_stored(queue):
    with pytest.raises(NoCanonicalForm):
        queue.submit(input_data={"a": {1, 2}}, ai_prediction={}, reason="r")
    assert queue.stats().total == 0
