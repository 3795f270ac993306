"""What the owner keeps in memory is what the file holds: nothing erased, nothing replaced, and never too much."""

import random
import threading
import time
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from types import SimpleNamespace

import duckdb
import pytest
from test_writer import Held

from hitl_nb import Reviewer, open_queue
from hitl_nb.errors import AlreadyReviewed, HitlError, ItemChanged, LeaseLost, PayloadErased, SubmitConflict
from hitl_nb.queue import hand, head, writer
from hitl_nb.queue.engine import DuckDBEngine
from hitl_nb.queue.row import task_row

SECRET = "born 1970-01-01"
JUDGE = Reviewer(id="judge", roles=("reviewer", "adjudicator"))


def put(queue, text="hm", **more):
    return queue.submit(input_data={"text": text}, ai_prediction={"label": "a"}, reason="unsure", **more).task_id


@pytest.fixture
def own(tmp_path, clock):
    """A queue in a file, owned by this process."""
    with open_queue(tmp_path / "q.duckdb", clock=clock, serve=None) as queue:
        yield queue


def asked(queue, monkeypatch):
    """Note the named statements that run from now on."""
    names, rows = [], DuckDBEngine.rows
    monkeypatch.setattr(
        DuckDBEngine, "rows", lambda self, name, **more: (names.append(name), rows(self, name, **more))[1]
    )
    return names


def in_memory(queue):
    return repr(queue.store._hand._kept)


@pytest.mark.parametrize("stage", ["waiting", "read ahead", "claimed", "answered", "disputed"])
def test_an_erased_payload_is_never_told_from_memory(own, stage):
    first = put(own) if stage == "read ahead" else None
    task = put(own, SECRET, subject="eve")
    if stage == "read ahead":
        assert [t.task_id for t in own.claim("zoe")] == [first]
    if stage in ("claimed", "answered", "disputed"):
        [shown] = own.claim("ann")
        assert shown.input_data == {"text": SECRET}
    if stage in ("answered", "disputed"):
        own.resolve(task, "ann", "correct", {"label": SECRET}, SECRET, submit_id="s1")
    if stage == "disputed":
        own.object(task, "bob", SECRET)
    assert SECRET in in_memory(own)
    own.forget("eve")
    assert SECRET not in in_memory(own)
    for call in (
        lambda: own.resolve(task, "ann", "approve"),
        lambda: own.resolve(task, "bob", "reject", submit_id="s2"),
        lambda: own.object(task, "bob", "look again"),
        lambda: own.undo(task, "ann"),
        lambda: own.reopen(task),
    ):
        with pytest.raises(PayloadErased):
            call()
    if stage in ("answered", "disputed"):  # a repeat of what was said, and what was said, are erased as well
        with pytest.raises(PayloadErased):
            own.resolve(task, "ann", "correct", {"label": SECRET}, SECRET, submit_id="s1")
    assert own.claim(JUDGE) == []
    assert own.get(task).input_data is None
    for told in (own.get(task), own.explain(task), own.events(), own.pending(), own.history(inputs=True).to_dict()):
        assert SECRET not in repr(told)
    assert SECRET not in in_memory(own)
    assert own.verify() == []


def test_after_a_replacement_the_new_payload_is_told_from_memory(own):
    task = put(own, "old")
    [before] = own.claim("ann")
    own.replace(task, {"text": "new"}, {"label": "b"})
    with pytest.raises(LeaseLost):
        own.resolve(task, "ann", "approve", attempt=before.attempt)
    with pytest.raises(ItemChanged):
        own.resolve(task, "bob", "approve", shown=before.shown)
    [after] = own.claim("bob")
    assert (after.input_data, after.ai_prediction, after.version) == ({"text": "new"}, {"label": "b"}, 2)
    assert after == own.get(task)
    assert own.resolve(task, "bob", "approve", shown=after.shown).answer == {"label": "b"}
    assert own.verify() == []


def test_a_claim_and_its_answer_read_nothing(own, monkeypatch):
    for i in range(100):
        put(own, str(i))
    own.store._hand = hand.AtHand()  # as after a start
    own.claim("ann")
    own.resolve(put(own), "ann", "approve", submit_id="first")
    names = asked(own, monkeypatch)
    for i in range(50):
        [task] = own.claim("ann")
        own.resolve(task.task_id, "ann", "approve", submit_id=f"s{i}")
    assert names == []
    assert own.verify() == []


def test_an_answer_after_a_search_finds_its_task_in_memory(own, monkeypatch):
    put(own)
    [task] = own.claim("ann")
    own.stats()  # lets the task table follow the log
    names = asked(own, monkeypatch)
    own.resolve(task.task_id, "ann", "approve")
    assert names == []


def test_those_who_find_the_line_empty_fill_it_once(own, monkeypatch):
    monkeypatch.setattr(head, "SHELF", 20)
    tasks = [put(own, str(i)) for i in range(30)]
    names = asked(own, monkeypatch)
    with Held(own) as held:
        calls = [held.call(own.claim, f"r{i}") for i in range(10)]
    claimed = [call.result()[0].task_id for call in calls]
    assert sorted(claimed) == tasks[:10]
    assert names.count("next_tasks") == 1


def test_memory_stays_within_its_bound(own, monkeypatch):
    monkeypatch.setattr(hand, "MOST_BYTES", 400_000)
    texts = {put(own, "x" * size): size for size in [10, 300_000, 60_000, 150_000] * 15}
    kept = []
    for _ in range(60):
        [task] = own.claim("ann")
        assert len(task.input_data["text"]) == texts.pop(task.task_id)
        assert 0 <= own.store._hand._bytes <= 400_000
        kept += [len(body) for _, found, _ in own.store._hand._kept.values() for _, _, body in found or ()]
        own.resolve(task.task_id, "ann", "approve", shown=task.shown)
    assert 60_000 < max(kept) < hand.MOST_OF_ONE
    assert own.verify() == []


def true_to_the_file(queue):
    """Compare every entry of the memory with the tables."""

    def compare(tx):
        for task_id, (row, texts, size) in queue.store._hand._kept.items():
            assert row is None or [row] == [task_row(found) for found in tx.rows("get_task", task_id=task_id)]
            there = sorted(row[1:] for row in tx.rows("get_payloads", task_ids=[task_id]))
            assert texts is None or sorted(texts) == there
            assert size > 0
        assert queue.store._hand._bytes == sum(size for _, _, size in queue.store._hand._kept.values())

    queue.store.write(compare, search=True)


@pytest.mark.parametrize("seed", range(4))
def test_memory_is_true_to_the_file_whatever_happens(own, clock, monkeypatch, seed):
    monkeypatch.setattr(hand, "MOST_BYTES", 40_000)
    rng, tasks = random.Random(seed), []
    for i in range(250):
        if len(tasks) < 3 or rng.random() < 0.2:
            span = timedelta(minutes=rng.choice([3, 60]))
            tasks.append(put(own, "x" * rng.choice([1, 900, 200_000]), subject=f"p{i % 9}", deadline=span))
        task, who = rng.choice(tasks), rng.choice(["ann", "bob", JUDGE])
        call = rng.choice(
            [
                lambda: own.claim(who, n=rng.choice([1, 4])),  # noqa: B023
                lambda: own.resolve(task, who, "approve"),  # noqa: B023
                lambda: own.resolve(task, who, "correct", {"label": "c"}, submit_id=str(i % 20)),  # noqa: B023
                lambda: own.release(task, who, "too hard"),  # noqa: B023
                lambda: own.undo(task, who),  # noqa: B023
                lambda: own.object(task, who, "really?"),  # noqa: B023
                lambda: own.replace(task, {"text": str(i)}, {"label": "d"}),  # noqa: B023
                lambda: own.withdraw(task, "gone"),  # noqa: B023
                lambda: own.reopen(task),  # noqa: B023
                lambda: rng.random() < 0.2 and own.forget(f"p{i % 9}"),  # noqa: B023
                lambda: clock.forward(minutes=rng.choice([1, 9])),
                own.rebuild,
                own.stats,
            ]
        )
        with suppress(HitlError):
            call()
        if i % 25 == 0:
            true_to_the_file(own)
    true_to_the_file(own)
    assert own.verify() == []


def test_the_log_is_searched_only_for_ids_that_it_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(hand, "_TOGETHER", 3)
    said = {}
    for _ in range(3):  # three owners, one after the other
        with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
            for _ in range(5):
                task, submit_id = put(queue), f"ü{len(said)}"
                said[submit_id] = queue.resolve(task, "ann", "correct", {"label": submit_id}, submit_id=submit_id)
            names = asked(queue, monkeypatch)
            for submit_id, review in said.items():
                again = queue.resolve(review.task_id, "ann", "correct", {"label": submit_id}, submit_id=submit_id)
                assert again == review
                with pytest.raises(SubmitConflict):
                    queue.resolve(review.task_id, "ann", "approve", submit_id=submit_id)
            assert names.count("event_by_submit") == 2 * len(said)
            names.clear()
            with pytest.raises(AlreadyReviewed):
                queue.resolve(task, "ann", "correct", {"label": "x"}, submit_id="another")
            assert "event_by_submit" not in names
            assert queue.verify() == []


def test_who_is_alone_waits_for_nobody(own, monkeypatch):
    slept = []
    watched = SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)  # other threads sleep as ever
    monkeypatch.setattr(writer, "time", watched)
    for _ in range(20):
        own.resolve(put(own), "ann", "approve")
    assert slept == []


def test_those_who_shared_a_commit_are_waited_for_but_no_longer_than_it_took(monkeypatch):
    monkeypatch.setattr(writer, "LINGER", 30)
    jobs, callers = SimpleQueue(), [threading.Timer(0.05 * i, lambda: jobs.put(None)) for i in range(1, 4)]
    for caller in callers:
        caller.start()
    writer._linger(jobs, 3, 60)
    assert jobs.qsize() == 3
    writer._linger(jobs, 4, 0)
    assert jobs.qsize() == 3


class Deaf:
    """An appender whose rows are stored, though the engine says that they are not."""

    def __init__(self, appender):
        self._appender = appender

    def __getattr__(self, name):
        return getattr(self._appender, name)

    def flush(self):
        self._appender.flush()
        raise duckdb.IOException("the answer was lost")


def test_a_single_insert_that_is_in_the_log_is_acknowledged_though_the_engine_complained(own):
    task = put(own)
    engine = own.store._engine
    for place in engine._appenders:
        engine._appenders[place] = Deaf(engine._appenders[place])
    [claimed] = own.claim("ann")
    assert claimed.task_id == task
    assert own.resolve(task, "ann", "approve", attempt=claimed.attempt).number == 1
    assert own.verify() == []
