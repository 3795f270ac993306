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
from itertools import takewhile
from pathlib import Path

import pytest
from mortal import do

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

    def read(self, until=None):
        """Read it, up to the beginning of a step; a line that is half written is left out."""
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        told = list(takewhile(lambda line: line["id"] != until, map(json.loads, lines)))
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


def killed_while_it_opens(process, path, log, seed, rng):
    """Kill an owner while it opens the file, or at one of its first steps; returns its log."""
    process.stdin.write(f"{path} {log} {seed}\n")
    process.stdin.flush()
    pid = int(process.stdout.readline())
    time.sleep(rng.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    assert process.stdout.readline() == "ended\n"
    return Log(log).read()


def log_of(queue):
    """Return the whole log."""
    return queue.store.read(lambda tx: tx.events("events_since", since=0, limit=10**9, move=None), search=False)


def events_of(queue, names):
    """Return the events under some ids."""
    found = {name: [] for name in names}
    for event in log_of(queue):
        if event.submit_id in found:
            found[event.submit_id].append(event)
    return found


def is_there(step, said, events, tasks):
    """Whether the events under the id of a step say what its caller was told."""
    kind, given = step["kind"], step["given"]
    found = [(event.move, event.task_id, event.actor, event.attempt) for event in events]
    if kind == "submit":
        return [one[:2] for one in found] == [("submit", said)]
    if kind == "frame":
        return len(said) == given["n"] and set(said) <= tasks
    if kind == "claim":
        return found == [("claim", task_id, given["who"], attempt) for task_id, attempt in said]
    if kind == "resolve":
        task_id, who, outcome, _ = given["args"]
        answers = [(event.facts["outcome"], event.facts["number"]) for event in events]
        return found == [("review", task_id, who, given["attempt"])] and answers == [(outcome, said)]
    move = given["args"][0] if kind == "note" else kind
    return kind in ("checkpoint", "tick", "backup") or move in [one[0] for one in found]


def check_acknowledged(queue, told):
    """Everything that was acknowledged is in the log, as it was acknowledged."""
    under = events_of(queue, told.begun)
    tasks = {event.task_id for event in log_of(queue)}
    for step, said in told.acknowledged:
        if not is_there(step, said, under[step["id"]], tasks):
            raise Lost(f"{step} was answered with {said}, and the log holds {under[step['id']]}")


def check_copies(told):
    """A copy that was acknowledged is whole, and holds all that was acknowledged before it was asked for."""
    for step, _ in told.acknowledged:
        if step["kind"] == "backup":
            with open_queue(step["given"]["args"][0], serve=None) as copy:
                check_whole(copy)
                check_acknowledged(copy, Log(told.path).read(until=step["id"]))


def check_whole(queue):
    """The file agrees with itself, and nothing stands in it twice."""
    assert queue.verify() == []
    log = log_of(queue)
    rows = queue.store.read(lambda tx: tx.tasks("tasks_between", after=None, until=None))
    once = {
        "a lease": [(e.task_id, e.attempt) for e in log if e.move == "claim"],
        "an answer": [(e.task_id, e.facts["number"]) for e in log if e.move == "review"],
        "an id of an answer": [e.submit_id for e in log if e.move == "review"],
        "a submission": [e.submit_id for e in log if e.move == "submit" and e.submit_id],
        "a key": [row.key_hash for row in rows if row.key_hash is not None],
    }
    twice = {what: [one for one, n in Counter(found).items() if n > 1] for what, found in once.items()}
    assert twice == {what: [] for what in once}
    assert len(rows) == sum(e.move == "submit" for e in log)


def repeat(queue, step):
    try:
        return do(queue, Requests(lambda: queue), step, again=True)
    except HitlError as error:
        return type(error)


def check_repeats(queue, told):
    """What was under way is asked again, twice; it is done once."""
    steps = [step for step in told.under_way if step["kind"] != "backup"]
    landed = {name: events for name, events in events_of(queue, [step["id"] for step in steps]).items() if events}
    said = [repeat(queue, step) for step in steps]
    done = {name: events for name, events in events_of(queue, [step["id"] for step in steps]).items() if events}
    assert {name: done[name] for name in landed} == landed
    again = [repeat(queue, step) for step in steps]
    assert events_of(queue, done) == done
    for step, first, second in zip(steps, said, again, strict=True):
        if step["kind"] in ("submit", "frame", "resolve"):
            assert first == second


def play(process, folder, rounds):
    """Play rounds on one file, each on what the last one left; returns the kinds that were under way at a kill."""
    folder.mkdir(exist_ok=True)
    rng, hit, path = random.Random(str(folder)), Counter(), folder / "q.duckdb"
    for i in range(rounds):
        told = [killed(process, path, folder / f"{i}", f"{i}", rng, AIMS[i % len(AIMS)])]
        assert told[0].acknowledged
        hit.update(step["kind"] for step in told[0].under_way)
        if i % 3 == 0:
            told.append(killed_while_it_opens(process, path, folder / f"{i}o", f"{i}o", rng))
        with open_queue(path, serve=None) as queue:
            for one in told:
                check_acknowledged(queue, one)
                check_copies(one)
                check_repeats(queue, one)
            check_whole(queue)
        shutil.rmtree(f"{told[0].path}.copies")
    return hit


def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path):
    with nest() as process:
        hit = play(process, tmp_path / "once", 30)
    assert {"claim", "submit", "resolve", "frame", "checkpoint"} <= set(hit)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_500_kills_lose_and_double_nothing(tmp_path):
    with nest() as process:
        hit = sum((play(process, tmp_path / f"{i}", 50) for i in range(10)), Counter())
    assert set(hit) >= {*AIMS, "release", "renew", "undo", "object", "note", "tick"}


#: how a build is broken: it answers, and only a moment later it commits
COMMIT, LATE = "  engine.commit()", "  _answer_first(done), engine.commit()"
ANSWER_FIRST = """

def _answer_first(done):
    import time
    for job, result, *_ in done:
        job.end(result)
    time.sleep(0.02)
"""


def test_a_build_that_answers_before_it_commits_is_found_out(tmp_path):
    package = tmp_path / "broken" / "hitl_nb"
    shutil.copytree(Path(hitl_nb.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    store = package / "queue" / "duckdb.py"
    source = store.read_text(encoding="utf-8")
    assert source.count(COMMIT) == 1
    store.write_text(source.replace(COMMIT, LATE) + ANSWER_FIRST, encoding="utf-8")
    with nest(package.parent) as process, pytest.raises(Lost):
        play(process, tmp_path / "rounds", 20)
