"""One thread writes: signals, threads and broken calls never tear what it does."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress

import duckdb
import pandas as pd
import pytest

from hitl_nb import Orchestrator, open_queue
from hitl_nb.errors import AlreadyReviewed, QueueClosed, QueueError, StorageFailed, SubmitConflict, TaskNotFound
from hitl_nb.queue.writer import MOST_IN_A_BATCH, Job


def put(queue, **more):
    return queue.submit(input_data={"n": 1}, ai_prediction={"label": "a"}, reason="unsure", **more).task_id


class Held:
    """Keeps the writer busy, so that calls of other threads line up behind it and share a commit."""

    def __init__(self, queue):
        self.queue, self.free, self.busy = queue, threading.Event(), threading.Event()
        self.pool = ThreadPoolExecutor(MOST_IN_A_BATCH + 10)

    def __enter__(self):
        def work(tx):
            self.busy.set()
            self.free.wait(30)

        self.first = self.pool.submit(self.queue.store.write, work, search=True)
        self.busy.wait(30)
        return self

    def call(self, *call, **more):
        before = self.queue.store._writer._jobs.qsize()
        called = self.pool.submit(*call, **more)
        while self.queue.store._writer._jobs.qsize() == before and not called.done():
            time.sleep(0.001)
        return called

    def __exit__(self, *_):
        self.free.set()
        self.pool.shutdown()


INTERRUPTED = """
import random, signal, sys
from hitl_nb import open_queue
queue = open_queue(sys.argv[1])
def stop(*_):
    stopped.append(True)
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, stop)
rng, said, others = random.Random(7), [], set()
most, in_vain = 0.03, 0
while len(said) < 60:
    stopped, before = [], len(said)
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0003, most))
        while not stopped:  # an interrupt in a callback of the collector ends nothing
            task = queue.submit(input_data={"x": 1}, ai_prediction={"label": "a"}, reason="unsure").task_id
            if rng.random() < 0.5:
                queue.resolve(task, "ann", "approve")
                said.append(task)
            if rng.random() < 0.05:
                queue.stats(), queue.claim("bob"), queue.history()
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        others.add(repr(error))
    signal.setitimer(signal.ITIMER_REAL, 0)
    in_vain = 0 if len(said) > before else in_vain + 1
    if in_vain > 9:  # on a slow disk a call takes longer than that
        most, in_vain = 2 * most, 0
assert not others, others
events = queue.events(limit=100_000)
assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
assert queue.verify() == []
kept = {e["task_id"] for e in events if e["move"] == "review" and e["actor"] == "ann"}
assert set(said) <= kept, len(set(said) - kept)
queue.close()
print("whole")
"""


def test_an_interrupt_at_any_moment_tears_nothing(tmp_path):
    run = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "q.duckdb")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr[-3000:]
    with open_queue(tmp_path / "q.duckdb") as queue:
        assert queue.verify() == []


def test_an_answer_whose_caller_was_interrupted_is_never_overwritten(monkeypatch):
    with open_queue(":memory:") as queue:
        task = put(queue)

        def interrupted(job):
            wait(job)
            raise KeyboardInterrupt  # between the commit and the caller's next line

        wait = Job.result
        monkeypatch.setattr("hitl_nb.queue.writer.Job.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue.resolve(task, "ann", "correct", {"label": "b"})
        monkeypatch.undo()
        with pytest.raises(AlreadyReviewed):
            queue.resolve(task, "bob", "approve")
        assert [event["seq"] for event in queue.events()] == [1, 2, 3]
        assert queue.verify() == []


def test_calls_that_wait_share_a_commit(monkeypatch, tmp_path):
    with open_queue(tmp_path / "q.duckdb") as queue:
        sizes, commit = [], queue.store._commit
        monkeypatch.setattr(
            queue.store, "_commit", lambda units, behind: (sizes.append(len(units)), commit(units, behind))
        )
        with Held(queue) as held:
            calls = [held.call(put, queue) for _ in range(40)]
        assert sizes == [1, 40]
        assert len({call.result() for call in calls}) == 40
        assert queue.stats().total == 40
        assert queue.verify() == []


def test_who_reads_among_them_divides_no_commit_and_sees_it(monkeypatch, tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        commits, commit = [], queue.store._commit
        with Held(queue) as held:
            monkeypatch.setattr(
                queue.store, "_commit", lambda units, behind: (commits.append(units), commit(units, behind))
            )
            calls = [held.call(call, queue) for _ in range(4) for call in (put, type(queue).stats)]
            held.free.set()
            found = [call.result(30) for call in calls]
    assert [len(units) for units in commits] == [4]
    assert [stats.total for stats in found[1::2]] == [4] * 4


def test_one_that_is_refused_stops_no_other_in_its_commit():
    with open_queue(":memory:") as queue:
        task = put(queue)
        with Held(queue) as held:
            answers = [
                held.call(queue.resolve, task, "ann", "approve", submit_id="one"),
                held.call(queue.resolve, task, "bob", "reject"),
                held.call(queue.resolve, "no such task", "eve", "reject"),
                held.call(put, queue),
                held.call(queue.resolve, task, "ann", "approve", submit_id="one"),
                held.call(queue.resolve, task, "ann", "reject", submit_id="one"),
            ]
        errors = [None if call.exception() is None else type(call.exception()) for call in answers]
        assert errors == [None, AlreadyReviewed, TaskNotFound, None, None, SubmitConflict]
        assert answers[4].result() == answers[0].result()
        assert [event["move"] for event in queue.events()] == ["submit", "claim", "review", "submit"]
        assert queue.verify() == []


@pytest.mark.parametrize("url", [":memory:", "q.duckdb"])
def test_an_error_of_the_engine_refuses_all_that_shared_the_commit(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_queue(url) as queue:
        task = put(queue)

        def broken(tx):
            tx.engine.put("event", ("seq", "move", "at_time", "body"), [(99, "half", "no time", "{}")])

        with Held(queue) as held:
            calls = [
                held.call(put, queue),
                held.call(queue.store.write, broken),
                held.call(queue.resolve, task, "ann", "approve"),
            ]
        assert [type(call.exception()) for call in calls] == [StorageFailed] * 3
        assert queue.resolve(task, "ann", "approve").number == 1
        assert queue.stats().total == 1
        assert queue.verify() == []


class Deaf:
    """A connection whose next commit is stored, though the engine says that it failed."""

    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *values):
        found = self._connection.execute(sql, *values)
        if sql == "COMMIT":
            raise duckdb.IOException("the answer was lost")
        return found


def test_what_the_log_holds_is_acknowledged_though_the_engine_complained(tmp_path):
    with open_queue(tmp_path / "q.duckdb") as queue:
        queue.store._connection = Deaf(queue.store._connection)
        task = put(queue)
        assert queue.get(task).status == "pending_review"
        assert queue.stats().total == 1
        assert queue.verify() == []


def test_a_frame_whose_caller_has_gone_is_not_stored():
    with open_queue(":memory:") as queue:
        orchestrator, stopped = Orchestrator(queue=queue), []
        inputs = pd.DataFrame({"x": range(100)})
        answers = pd.DataFrame({"label": ["a"] * 100, "confidence": [0.5] * 100})
        check = Job.check

        def gone(job):
            job.abandoned = True  # as after an interrupt
            stopped.append(job)
            check(job)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hitl_nb.queue.writer.Job.check", gone)
            with pytest.raises(CancelledError):
                orchestrator.process_frame(inputs, answers)
        assert stopped
        assert queue.stats().total == 0
        assert len(orchestrator.process_frame(inputs, answers)) == 100


def test_a_callback_that_fails_stops_nothing_and_one_that_calls_the_queue_is_told(caplog):
    with open_queue(":memory:") as queue:
        task, woken = put(queue), threading.Event()
        queue.watch(task, lambda: queue.get(task))
        queue.watch(task, woken.set)
        queue.resolve(task, "ann", "approve")
        assert woken.wait(30)
        assert "let it only set an event" in caplog.text


def test_a_fork_is_told_to_open_the_queue_itself(tmp_path):
    code = """
import os, sys
from hitl_nb import open_queue
from hitl_nb.errors import QueueClosed
queue = open_queue(sys.argv[1])
queue.submit(input_data={}, ai_prediction={}, reason="unsure")
if os.fork() == 0:
    try:
        queue.stats()
    except QueueClosed as error:
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
assert queue.stats().total == 1
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "q.duckdb")], check=True, timeout=60)


def test_a_queue_that_nobody_holds_ends_its_thread():
    queue = open_queue(":memory:")
    put(queue)
    thread = queue.store._writer._thread
    del queue
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_threads_that_call_while_it_is_closed_get_an_answer_or_an_error(tmp_path):
    queue = open_queue(tmp_path / "q.duckdb")
    stored, refused = [], []

    def work():
        try:
            while True:
                stored.append(put(queue))
        except QueueClosed:
            refused.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(stored) < 20:
        time.sleep(0.001)
    queue.close()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 4
    with open_queue(tmp_path / "q.duckdb") as again:
        assert again.stats().total == len(stored)
        assert again.verify() == []
    assert os.path.exists(tmp_path / "q.duckdb")


class Slow(weakref.WeakSet):
    """Readers that leave a moment after they have hung up."""

    def discard(self, reader):
        time.sleep(0.05)
        super().discard(reader)


def test_a_read_that_ends_while_it_is_closed_leaves_the_file_free(tmp_path, monkeypatch):
    monkeypatch.setattr("hitl_nb.queue.duckdb.PATIENCE", 0.1)
    queue, begun = open_queue(tmp_path / "q.duckdb", serve=None), threading.Event()
    queue.store._readers = Slow()

    def work(tx):
        begun.set()
        tx.engine.connection.execute("SELECT sum(a.range % 7 * b.range) FROM range(100000) a, range(10000000) b")

    def read():
        with suppress(QueueError, KeyboardInterrupt):
            queue.store.read(work)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(30)
    queue.close()
    thread.join(30)
    with open_queue(tmp_path / "q.duckdb", serve=None) as again:
        assert again.stats().total == 0


LEFT = """
import pandas as pd
from hitl_nb import Orchestrator, Policy, open_queue

inputs = pd.DataFrame({"amount": [12.5, 99.0, 5000.0]})
answers = pd.DataFrame({"label": ["ok", "ok", "fraud"], "confidence": [0.97, 0.75, 0.91]})
for threshold in (0.7, 0.9):
    policy = Policy(confidence_threshold=threshold, audit_rate=0)
    print(len(Orchestrator(queue=open_queue(":memory:"), policy=policy).process_frame(inputs, answers)))
"""


def test_a_program_ends_well_just_after_it_has_dropped_a_queue():
    running = [subprocess.Popen([sys.executable, "-c", LEFT], stdout=subprocess.PIPE) for _ in range(6)]
    assert [(one.communicate(timeout=120)[0], one.returncode) for one in running] == 6 * [(b"3\n3\n", 0)]
