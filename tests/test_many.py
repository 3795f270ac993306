"""Many reviewers at once, in one process and in several: each task is answered exactly once."""

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from hitl_nb import Orchestrator, Policy, open_queue

LONG = 280
MOST = 10_000


def review_all(queue, name, threads, all_hold=lambda: None):
    """Let threads claim 1 to 20 tasks at a time and answer them until none is left; returns their leases.

    ``all_hold`` is called when each of them holds one.
    """
    leases, failed, start = [], [], threading.Barrier(threads, action=all_hold, timeout=LONG)

    def work(who):
        rng = random.Random(who)
        try:
            mine = queue.claim(who)
            start.wait()
            while mine or (mine := queue.claim(who, n=rng.randint(1, 20))):
                leases.extend((task.task_id, task.attempt) for task in mine)
                assert len(leases) <= MOST, "more leases than tasks"
                for task in mine:
                    queue.resolve(task.task_id, who, "approve", attempt=task.attempt)
                mine = []
        except BaseException as error:
            failed.append(error)
            start.abort()

    reviewers = [threading.Thread(target=work, args=(f"{name}-{i}",)) for i in range(threads)]
    [reviewer.start() for reviewer in reviewers]
    [reviewer.join() for reviewer in reviewers]
    assert failed == []
    return leases


def fill(queue, tasks):
    inputs = pd.DataFrame({"i": range(tasks)})
    predictions = pd.DataFrame({"label": ["a"] * tasks, "confidence": [0.5] * tasks})
    return set(Orchestrator(queue=queue, policy=Policy(0.85)).process_frame(inputs, predictions)["task_id"])


def check_answered_once(queue, tasks, leases, reviewers=32):
    """The log holds each task with one lease and one answer, and the leases are those that were given out."""
    log = [event for event in queue.events(limit=100_000) if event["task_id"] is not None]
    assert len(log) == 3 * len(tasks)
    for move in ("submit", "claim", "review"):
        assert Counter(event["task_id"] for event in log if event["move"] == move) == Counter(tasks)
    held = {event["task_id"]: (event["actor"], event["attempt"]) for event in log if event["move"] == "claim"}
    assert held == {e["task_id"]: (e["actor"], e["attempt"]) for e in log if e["move"] == "review"}
    assert Counter(leases) == Counter({(task_id, attempt): 1 for task_id, (_, attempt) in held.items()})
    assert len({who for who, _ in held.values()}) == reviewers
    assert queue.verify() == []


def test_32_threads_answer_10_000_tasks_exactly_once(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        tasks = fill(queue, MOST)
        check_answered_once(queue, tasks, review_all(queue, "t", 32))


@pytest.mark.parametrize("tasks", [2_000, pytest.param(MOST, marks=pytest.mark.nightly)])
def test_4_processes_with_8_threads_answer_each_task_exactly_once(tmp_path, tasks):
    path = tmp_path / "q.duckdb"
    with open_queue(path) as queue:
        tasks = fill(queue, tasks)
        check_answered_once(queue, tasks, answered_by_processes(path, 4, "RemoteQueue"))


def answered_by_processes(url, n, kind):
    """Let processes with 8 threads each answer all that waits; returns their leases."""
    run = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, str(Path(__file__)), str(url), str(i)], **run) for i in range(n)]
    try:
        assert [worker.stdout.readline() for worker in workers] == [f"{kind}: 8 hold one\n"] * n
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        said = [line.split() for worker in workers for line in worker.communicate(timeout=LONG)[0].splitlines()]
        assert [worker.returncode for worker in workers] == [0] * n
    finally:
        [worker.kill() for worker in workers]
    return [(task_id, int(attempt)) for task_id, attempt in said]


def main(path, name):
    """Be one of the processes."""
    with open_queue(path) as queue:

        def all_hold():
            print(f"{type(queue).__name__}: 8 hold one", flush=True)
            sys.stdin.readline()

        for task_id, attempt in review_all(queue, name, 8, all_hold):
            print(task_id, attempt)


if __name__ == "__main__":
    main(*sys.argv[1:])
