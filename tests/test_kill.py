"""Whenever an owner is killed: what it acknowledged is there, and what it was asked again is done once."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from mortal import THREADS, do

import hitl_nb
from hitl_nb import open_queue
from hitl_nb.errors import HitlError
from hitl_nb.queue.request import Requests

LONG = 60
#: what is under way when the kill comes, in turn; each kind is hit more often by chance
AIMS = ("claim", "submit", "resolve", "frame", "checkpoint", "backup", "forget")
TESTS = Path(__file__).parent


class Lost(AssertionError):
    """Something that was acknowledged is not there."""


@contextmanager
def nest(package=Path(hitl_nb.__file__).parents[1]):
    """A process that starts owners with the package of a folder."""
    command = [sys.executable, str(TESTS / "mortal.py")]
    run = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(package)}, **run) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(LONG)


class Log:
    """What an owner has written so far."""

    def __init__(self, path):
        self.path, self.begun, self.ended = path, {}, {}

    def read(self):
        """Read it; the last line is left out while it is half written."""
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        told = [json.loads(line) for line in lines]
        self.begun = {line["id"]: line for line in told if "kind" in line}
        self.ended = {line["id"]: line for line in told if "kind" not in line}
        return self

    @property
    def under_way(self):
        return [step for name, step in self.begun.items() if name not in self.ended]

    @property
    def acknowledged(self):
        return [(self.begun[name], line["said"]) for name, line in self.ended.items() if "said" in line]


def killed(process, path, log, seed, rng, aim):
    """Let an owner work on a file, and kill it soon after it has begun a step of a kind; returns its log."""
    process.stdin.write(f"{path} {log} {seed}\n")
    process.stdin.flush()
    pid, told, end = int(process.stdout.readline()), Log(log), time.monotonic() + LONG
    while not (told.read().acknowledged and aim in [step["kind"] for step in told.under_way]):
        assert time.monotonic() < end, (aim, told.ended)
        time.sleep(rng.uniform(0, 0.003))
    time.sleep(rng.uniform(0, 0.004))
    os.kill(pid, signal.SIGKILL)
    assert process.stdout.readline() == "ended\n"
    return told.read()


def killed_while_it_opens(process, path, log, rng):
    """Kill an owner at a moment of its first steps, or before them."""
    process.stdin.write(f"{path} {log} 0\n")
    process.stdin.flush()
    pid = int(process.stdout.readline())
    time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    assert process.stdout.readline() == "ended\n"
    return Log(log).read()


def events_of(queue, names):
    """Return the events under some ids."""
    log = queue.store.read(lambda tx: tx.events("events_since", since=0, limit=10**9), search=False)
    found = {name: [] for name in names}
    for event in log:
        if event.submit_id in found:
            found[event.submit_id].append(event)
    return found


def check_acknowledged(queue, told):
    """Everything that was acknowledged is in the log, as it was acknowledged."""
    under = events_of(queue, told.begun)
    rows = queue.store.read(lambda tx: tx.tasks("tasks_between", after=None, until=None))
    tasks = {row.task_id for row in rows}
    for step, said in told.acknowledged:
        name, kind, given = step["id"], step["kind"], step["given"]
        found = [(event.move, event.task_id, event.actor, event.attempt) for event in under[name]]
        if kind == "submit":
            there = "key" in given and said in tasks or [found[0][:2]] == [("submit", said)] if found else False
        elif kind == "frame":
            there = len(said) == given["n"] and set(said) <= tasks
        elif kind == "claim":
            there = found == [("claim", task_id, given["who"], attempt) for task_id, attempt in said]
        elif kind == "resolve":
            task_id, who, outcome, right = given["args"]
            there = found == [("review", task_id, who, given["attempt"])]
            there = there and (under[name][0].facts["outcome"], under[name][0].facts["number"]) == (outcome, said)
        elif kind in ("checkpoint", "tick", "backup"):
            there = True
        else:
            there = kind in {"note": ["x"]}.get(kind, [event[0] for event in found]) or found[0][0] == "x"
        if not there:
            raise Lost(f"{step} was answered with {said}, and the log holds {found}")


def check_whole(queue):
    """The file agrees with itself, and nothing stands in it twice."""
    assert queue.verify() == []
    log = queue.store.read(lambda tx: tx.events("events_since", since=0, limit=10**9), search=False)
    rows = queue.store.read(lambda tx: tx.tasks("tasks_between", after=None, until=None))
    once = {
        "a lease": [(e.task_id, e.attempt) for e in log if e.move == "claim"],
        "an answer": [(e.task_id, e.facts["number"]) for e in log if e.move == "review"],
        "an id of an answer": [e.submit_id for e in log if e.move == "review"],
        "a submission": [e.submit_id for e in log if e.move == "submit" and e.submit_id],
        "a key": [row.key_hash for row in rows if row.key_hash is not None],
    }
    assert {what: [one for one, n in Counter(found).items() if n > 1] for what, found in once.items()} == dict.fromkeys(
        once, []
    )
    assert len(rows) == sum(e.move == "submit" for e in log)


def repeat(queue, step):
    try:
        return do(queue, Requests(lambda: queue), step, again=True)
    except HitlError as error:
        return type(error)


def check_repeats(queue, told):
    """What was under way is asked again, twice; it is done once. Returns how much of it was done before the kill."""
    steps = [step for step in told.under_way if step["kind"] != "backup"]
    landed = {name: events for name, events in events_of(queue, [step["id"] for step in steps]).items() if events}
    said = [repeat(queue, step) for step in steps]
    done = {name: events for name, events in events_of(queue, [step["id"] for step in steps]).items() if events}
    assert {name: done[name] for name in landed} == landed
    again = [repeat(queue, step) for step in steps]
    assert {name: found for name, found in events_of(queue, done).items()} == done
    for step, first, second in zip(steps, said, again, strict=True):
        if step["kind"] in ("submit", "frame", "resolve"):
            assert first == second
    return len(landed)


def play(process, folder, rounds, seed=0):
    """Play rounds on one file, each from what the last one left; returns the kinds that were under way at a kill."""
    folder.mkdir(exist_ok=True)
    rng, hit, landed, path, tries = random.Random(seed), Counter(), 0, folder / "q.duckdb", 0
    while tries < rounds:
        told = killed(process, path, folder / f"{tries}", f"{seed}.{tries}", rng, AIMS[tries % len(AIMS)])
        logs = [told, killed_while_it_opens(process, path, folder / f"{tries}o", rng)] if tries % 3 == 0 else [told]
        assert told.acknowledged
        hit.update({step["kind"] for step in told.under_way})
        with open_queue(path, serve=None) as queue:
            for one in logs:
                check_acknowledged(queue, one)
                landed += check_repeats(queue, one)
            check_whole(queue)
        shutil.rmtree(folder / f"{tries}.copies")
        tries += 1
    return hit, landed


def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path):
    with nest() as process:
        hit, landed = play(process, tmp_path / "f", 30)
    print(hit, landed)
    assert {"claim", "submit", "frame", "checkpoint"} <= set(hit)
