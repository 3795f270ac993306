"""Callers that wait for a person."""

import asyncio
import random
import threading
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from hitl_nb import Orchestrator, Policy, Reviewer
from hitl_nb.errors import (
    BadInput,
    IllegalMove,
    TaskEscalated,
    TaskExpired,
    TaskNotFound,
    TaskWithdrawn,
    UndoRefused,
    WaitTimeout,
)

JUDGE = Reviewer(id="judge", roles=("reviewer", "adjudicator"))
#: long enough for any machine; a test that needs it has failed
LONG = 60


@pytest.fixture
def orchestrator(queue):
    return Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))


@pytest.fixture(autouse=True)
def nobody_polls(monkeypatch):
    """A waiter that is not woken by the change itself waits longer than these tests."""
    monkeypatch.setattr("hitl_nb.orchestrator.orchestrator.POLL", 10 * LONG)


@pytest.fixture(params=["wait", "wait_async"])
def wait(request, orchestrator):
    """Both ways of waiting, as one blocking call."""
    if request.param == "wait":
        return orchestrator.wait
    return lambda *args, **more: asyncio.run(orchestrator.wait_async(*args, **more))


class Waiter(threading.Thread):
    """Waits in a thread of its own; ``end()`` returns the answer or raises."""

    def __init__(self, queue, wait, task_id, *args, **more):
        super().__init__(daemon=True)
        self.call = lambda: wait(task_id, *args, **more)
        self.found = self.error = None
        self.start()
        while not queue.store._watchers.get(task_id):  # it waits from here on
            if not self.is_alive():
                break

    def run(self):
        try:
            self.found = self.call()
        except Exception as error:
            self.error = error

    def end(self):
        self.join(LONG)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.found


def test_a_waiter_is_unblocked_by_the_review(queue, ask, wait):
    task = ask()
    waiter = Waiter(queue, wait, task.task_id, LONG)
    review = queue.resolve(task.task_id, "ann", "correct", {"label": "ham"})
    assert waiter.end() == review
    assert queue.events()[-1]["move"] == "deliver"
    assert queue.store._watchers == {}


def test_ten_waiters_receive_the_same_answer(queue, ask, wait):
    task = ask()
    waiters = [Waiter(queue, wait, task.task_id, LONG) for _ in range(10)]
    review = queue.resolve(task.task_id, "ann", "approve")
    assert [waiter.end() for waiter in waiters] == [review] * 10
    assert [event["move"] for event in queue.events()].count("deliver") == 1


def test_an_answer_that_is_there_needs_no_waiting(queue, ask, wait):
    task = ask()
    review = queue.resolve(task.task_id, "ann", "approve")
    assert wait(task.task_id, 0) == review


def test_no_answer_in_time_is_neither_approval_nor_rejection(queue, ask, wait):
    task = ask()
    with pytest.raises(WaitTimeout) as error:
        wait(task.task_id, 0.05)
    assert isinstance(error.value, TimeoutError)
    assert queue.get(task.task_id).status == "pending_review"
    assert queue.store._watchers == {}


def test_a_waiter_is_told_that_the_task_expired(queue, ask, clock, wait):
    task = ask(deadline=timedelta(hours=1), on_deadline="deny")
    waiter = Waiter(queue, wait, task.task_id, LONG)
    clock.forward(hours=1)
    queue.tick()
    with pytest.raises(TaskExpired):
        waiter.end()


def test_a_waiter_applies_a_deadline_that_nobody_else_looked_at(ask, clock, wait):
    task = ask(deadline=timedelta(hours=1), on_deadline="deny")
    clock.forward(hours=1)
    with pytest.raises(TaskExpired):
        wait(task.task_id, 0)


def test_a_waiter_is_told_that_the_task_was_withdrawn(queue, ask, wait):
    task = ask()
    waiter = Waiter(queue, wait, task.task_id, LONG)
    queue.withdraw(task.task_id)
    with pytest.raises(TaskWithdrawn):
        waiter.end()


def test_a_waiter_is_told_that_the_task_was_escalated_and_may_wait_again(queue, ask, clock, wait):
    task = ask(deadline=timedelta(hours=1), escalation=["law"])
    waiter = Waiter(queue, wait, task.task_id, LONG)
    clock.forward(hours=1)
    queue.tick()
    with pytest.raises(TaskEscalated) as error:
        waiter.end()
    assert (error.value.level, error.value.expertise) == (1, "law")
    again = Waiter(queue, wait, task.task_id, LONG)
    review = queue.resolve(task.task_id, Reviewer(id="lea", expertise=("law",)), "approve")
    assert again.end() == review


def test_an_objection_is_followed_by_a_later_answer(queue, ask, wait):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    first = wait(task.task_id, 0)
    with pytest.raises(WaitTimeout):
        wait(task.task_id, 0, after=first.number)
    waiter = Waiter(queue, wait, task.task_id, LONG, after=first.number)
    queue.object(task.task_id, "bob", "no")
    queue.resolve(task.task_id, JUDGE, "reject")
    second = waiter.end()
    assert (second.number, second.outcome, second.adjudication) == (2, "reject", True)
    assert wait(task.task_id, 0) == second


def test_an_undone_answer_reaches_nobody(queue, ask, wait):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    queue.undo(task.task_id, "ann")
    waiter = Waiter(queue, wait, task.task_id, LONG)
    queue.resolve(task.task_id, "ann", "reject")
    assert waiter.end().outcome == "reject"


def test_several_waiters_for_several_tasks_hear_of_their_own(queue, ask, wait):
    tasks = [ask() for _ in range(5)]
    waiters = [Waiter(queue, wait, task.task_id, LONG) for task in tasks]
    for i, task in enumerate(tasks):
        queue.resolve(task.task_id, f"r{i}", "approve")
    assert [waiter.end().reviewer for waiter in waiters] == [f"r{i}" for i in range(5)]


def test_there_is_no_waiting_for_what_was_approved_or_is_not_there(queue, orchestrator, wait):
    told = orchestrator.process({"n": 1}, {"label": "a", "confidence": 0.99})
    with pytest.raises(IllegalMove):
        wait(told["task_id"], 0)
    with pytest.raises(TaskNotFound):
        wait("42", 0)


def test_who_receives_the_answer_is_in_the_log(queue, ask, wait):
    task = ask()
    queue.resolve(task.task_id, "ann", "approve")
    wait(task.task_id, caller="billing")
    assert queue.events()[-1]["actor"] == "billing"
    with pytest.raises(BadInput):
        wait(ask().task_id, 0, caller="")


def test_other_coroutines_run_while_one_waits(queue, ask, orchestrator):
    task = ask()

    async def both():
        waiting = asyncio.create_task(orchestrator.wait_async(task.task_id, LONG))
        await asyncio.sleep(0)
        queue.resolve(task.task_id, "ann", "approve")
        return await waiting

    assert asyncio.run(both()).reviewer == "ann"


@pytest.mark.parametrize("queue", [":memory:"], indirect=True)
@pytest.mark.parametrize("rounds", [200, pytest.param(1000, marks=pytest.mark.nightly)])
def test_an_answer_is_delivered_or_undone_never_both(queue, ask, orchestrator, rounds):
    """One thread that waits against one that takes the answer back."""
    tasks = [ask().task_id for _ in range(rounds)]
    gate = threading.Barrier(2)
    delivered, undone, delay = set(), set(), random.Random(0)

    def take_back():
        for i, task_id in enumerate(tasks):
            gate.wait(LONG)
            time.sleep(delay.uniform(0, 0.015) if i % 10 > 1 else 0)  # so that either may win
            with suppress(UndoRefused):
                queue.undo(task_id, "ann")
                undone.add(task_id)
            if i % 10 == 1:  # here it comes first for sure
                gate.wait(LONG)

    other = threading.Thread(target=take_back)
    other.start()
    for i, task_id in enumerate(tasks):
        queue.resolve(task_id, "ann", "approve")
        if i % 10 == 0:  # here the waiter comes first for sure
            orchestrator.wait(task_id, 0)
        gate.wait(LONG)
        if i % 10 == 1:
            gate.wait(LONG)
        with suppress(WaitTimeout):
            orchestrator.wait(task_id, 0)
            delivered.add(task_id)
    other.join(LONG)
    assert delivered | undone == set(tasks)
    assert delivered & undone == set()
    assert delivered >= set(tasks[0::10])
    assert undone >= set(tasks[1::10])
    assert queue.verify() == []
