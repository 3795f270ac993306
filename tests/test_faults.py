"""What befalls a machine: a full disk, a clock that is set back, an owner that hangs. Each caller is told the truth."""

import os
import resource
import signal
import threading
from contextlib import contextmanager
from datetime import timedelta

import pandas as pd
import pytest
from conftest import over_http
from test_sharing import LONG, OWN, child, forge, impatient, put, until
from test_writer import Held

from hitl_nb import Orchestrator, connect, open_queue
from hitl_nb.errors import BadInput, QueueLocked, StorageFailed
from hitl_nb.queue import http
from hitl_nb.queue.duckdb import utc_now
from hitl_nb.queue.http import Line, OwnerGone

# -- a full disk

FULL = """
    import os, random, resource, sys, threading
    import pandas as pd
    from hitl_nb import Orchestrator, open_queue
    from hitl_nb.errors import StorageFailed
    path, room = sys.argv[1], int(sys.argv[2])
    queue, rng = open_queue(path, serve=None), random.Random(room)
    kept, refused = [], []

    def put(size):
        text = rng.randbytes(size).hex()
        kept.append(queue.submit(input_data={"text": text}, ai_prediction={}, reason="r").task_id)

    def frame(size):
        texts = pd.DataFrame({"text": [rng.randbytes(50).hex() for _ in range(size)]})
        answers = pd.DataFrame({"label": ["a"] * size, "confidence": [0.5] * size})
        kept.extend(Orchestrator(queue=queue).process_frame(texts, answers)["task_id"])

    def until_refused(what, size):
        try:
            while True:
                what(size)
        except StorageFailed:
            refused.append(what)

    def checkpoints():
        while len(refused) < 7:
            queue.store.checkpoint()

    put(5000)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + room, limit[1]))
    work = [(put, 20_000)] * 3 + [(put, 100)] * 3 + [(frame, 2000)]
    threads = [threading.Thread(target=until_refused, args=one) for one in work]
    threads.append(threading.Thread(target=checkpoints))
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    for _ in range(3): put(5000)
    assert queue.verify() == []
    print(*kept, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("room", [0, 100_000, 3_000_000])
def test_when_the_disk_is_full_each_caller_is_told_and_work_goes_on_once_there_is_room(tmp_path, room):
    path = tmp_path / "q.duckdb"
    with child(FULL, path, room) as process:
        kept = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == []
        assert set(kept) <= set(queue.history()["task_id"])
        put(queue)


@contextmanager
def no_room(path):
    """Let no file of this process grow beyond the size of one."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path), usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_nobody_is_refused_for_an_answer_that_was_not_stored(tmp_path):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None) as queue:
        task = put(queue).task_id
        with no_room(path), Held(queue) as held:
            calls = [
                held.call(queue.resolve, task, "ann", "approve", None, "x" * 900_000),
                held.call(queue.resolve, task, "bob", "reject"),  # in the same commit, and it comes too late
            ]
        assert [type(call.exception()) for call in calls] == [StorageFailed, StorageFailed]
        assert queue.resolve(task, "bob", "reject").number == 1


def test_an_erasure_that_is_stored_is_told_though_its_traces_could_not_be_cleaned(tmp_path, caplog):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None) as queue:
        task = put(queue, subject="s").task_id
        with no_room(path):
            assert queue.forget("s").tasks == (task,)
        assert "traces of what was erased stay" in caplog.text
        with pytest.raises(BadInput):
            queue.forget("s")
        queue.store.checkpoint()
        assert queue.verify() == []


def test_a_checkpoint_that_fails_is_no_trouble_of_the_next_caller(tmp_path):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None) as queue:
        put(queue)
        for after in (queue.stats, lambda: put(queue), queue.tick):
            with no_room(path):
                queue.store.checkpoint()
            after()


def test_a_rebuild_that_was_not_stored_is_not_acknowledged(tmp_path):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None) as queue:
        inputs = pd.DataFrame({"i": range(20_000)})
        Orchestrator(queue=queue).process_frame(inputs, [{"label": "a", "confidence": 0.5}] * len(inputs))
        queue.store.checkpoint()
        with no_room(path), pytest.raises(StorageFailed):
            queue.rebuild()
        assert queue.rebuild() == len(inputs)
        assert queue.verify() == []


@pytest.mark.parametrize("url", [":memory:", "q.duckdb"])
def test_an_error_in_a_commit_that_is_not_the_engines_hinders_no_later_call(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)

    def too_big(tx):
        tx.engine.put("event", ("seq", "move", "at_time", "body"), [(2**70, "x", tx.now, "{}")] * 20)

    with open_queue(url, serve=None) as queue:
        with pytest.raises(StorageFailed):
            queue.store.write(too_big)
        put(queue)
        assert queue.verify() == []


# -- the clock


def test_leases_run_out_though_the_clock_was_set_back(tmp_path):
    path, ahead = tmp_path / "q.duckdb", utc_now() + timedelta(days=400)
    with open_queue(path, clock=lambda: ahead) as queue:
        task = put(queue).task_id
    with open_queue(path, serve=None) as queue:  # the clock was wrong, and somebody has set it right
        assert queue.now >= ahead
        queue.claim("ann", lease=timedelta(milliseconds=50))
        until(lambda: queue.get(task).status == "pending_review")
        assert [event["move"] for event in queue.events()] == ["submit", "claim", "lapse"]
        assert queue.verify() == []  # among others: no event before the one before it


def test_nothing_happens_before_what_happened_before_it(clock):
    with open_queue(":memory:", clock=clock) as queue:
        first = put(queue, deadline=timedelta(minutes=30), on_deadline="deny").task_id
        clock.forward(minutes=20)
        queue.claim("ann", lease=timedelta(minutes=5))
        clock.forward(hours=-5)
        second = put(queue, deadline=timedelta(minutes=30)).task_id
        assert first < second  # ids are in the order of their making
        assert queue.get(second).created_at == queue.get(first).lease_until - timedelta(minutes=5)
        assert queue.tick() == 0
        clock.forward(hours=5, minutes=5)
        assert queue.tick() == 1
        clock.forward(minutes=5)
        assert queue.tick() == 1
        assert queue.get(first).status == "expired"
        assert queue.verify() == []


# -- an owner that hangs


def test_a_hung_owner_is_named_and_when_it_goes_on_so_do_its_clients(tmp_path, monkeypatch):
    path, said = tmp_path / "q.duckdb", []
    with child(OWN, path) as owner:
        assert owner.stdout.readline() == "ReviewQueue\n"
        with open_queue(path) as queue:
            put(queue)
            os.kill(owner.pid, signal.SIGSTOP)
            impatient(monkeypatch)
            for module, name in ((http, "QUICK"), (http, "ALIVE"), (connect, "STARTING")):
                monkeypatch.setattr(module, name, 0.5)

            def claim(who):
                with pytest.raises(QueueLocked, match="does not answer") as error:
                    queue.claim(who)
                said.append(error.value.pid)

            threads = [threading.Thread(target=claim, args=(f"r{i}",)) for i in range(8)]
            [thread.start() for thread in threads]
            [thread.join(LONG) for thread in threads]
            assert said == [owner.pid] * 8
            with pytest.raises(QueueLocked, match="does not answer"):
                queue.now  # noqa: B018  the next call is told, too
            monkeypatch.undo()
            os.kill(owner.pid, signal.SIGCONT)
            until(lambda: queue.stats().status == {"claimed": 1})  # what it was asked before, once
            assert [event["move"] for event in queue.events()] == ["submit", "claim"]
            assert queue.verify() == []
        owner.kill()


class Counting(Line):
    """A line that counts how often a call was asked."""

    asked = 0

    def ask(self, call, message):
        self.asked += 1
        return super().ask(call, message)


def test_an_owner_that_is_only_slow_is_asked_again_and_does_it_once(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "QUICK", 0.2)
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue, over_http(queue) as remote:
        put(queue), put(queue)
        line = Counting(remote._reach().endpoint, "a long token")
        remote._line, remote._find = None, [line].pop  # there is no other
        with Held(queue) as held:
            call = held.pool.submit(remote.claim, "ann")
            until(lambda: line.asked > 3)
        assert [task.holder for task in call.result()] == ["ann"]
        assert [event["move"] for event in queue.events()] == ["submit", "submit", "claim"]


def test_an_owner_that_stopped_is_not_asked_again_and_again(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue, over_http(queue) as remote:
        line = remote._reach()
        assert line.answers(LONG)
        queue.store.close()  # as after a fatal error of the engine
        assert not line.answers(LONG)
        with pytest.raises(OwnerGone):
            line.ask("stats", http.wire.dump({"args": [], "more": {}, "request": "1", "again": False}))


@pytest.mark.parametrize(
    "forged",
    [
        {"address": "http://127.0.0.1:99999"},
        {"address": "http://127.0.0.1:1"},
        {"token": "\xe9"},
        {"token": "\ud800"},
        {"token": "a\r\nb"},
    ],
    ids=str,
)
def test_a_forged_way_to_an_owner_that_lives_is_an_error_with_a_name(tmp_path, monkeypatch, forged):
    impatient(monkeypatch)
    path = tmp_path / "q.duckdb"
    with child(OWN, path) as owner:
        assert owner.stdout.readline() == "ReviewQueue\n"
        forge(path, **forged)
        with pytest.raises(QueueLocked) as error:
            open_queue(path)
        assert error.value.pid == owner.pid
        owner.kill()
