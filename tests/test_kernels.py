"""Three notebooks and a plain process on one file: a busy owner holds nobody up, a killed one loses nothing."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from jupyter_client.manager import KernelManager
from test_sharing import until

from hitl_nb import open_queue
from hitl_nb.queue import endpoint

#: what each of them runs first; a line is written, unbuffered, after each call that was acknowledged
SETUP = """
import os, sys, threading, time
from hitl_nb import open_queue
PATH, LOG, ME = {path!r}, {log!r}, {me!r}
queue = open_queue(PATH)
log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def tell(*words): os.write(log, " ".join(map(str, words)).encode() + b"\\n")
def ended(): return os.path.exists(PATH + ".end")
tell("kind", type(queue).__name__)
"""
PRODUCE = """
from hitl_nb import Orchestrator
orchestrator, n = Orchestrator(confidence_threshold=0.99, queue=queue), 0
while not ended():
    n += 1
    told = orchestrator.process({"n": n, "x": n % 7}, {"label": "ab"[n % 2], "confidence": 0.5})
    tell("submit", n, told["task_id"])
tell("end")
"""
REVIEW = """
def review():
    while not ended():
        time.sleep(0.05)  # a person looks now and then, and leaves something to the others
        for task in queue.claim(ME):
            right = {"label": "ab"[task.input_data["x"] % 2]}
            queue.resolve(task.task_id, ME, "correct", right, attempt=task.attempt)
            tell("review", task.task_id, task.attempt)
"""
TRAIN = """
from sklearn.tree import DecisionTreeClassifier
from hitl_nb.learner import Learner
from hitl_nb.loop import Loop
loop, known = Loop(queue, Learner(DecisionTreeClassifier(), min_samples=20, features=["x"])), set()
while not ended():
    loop.refresh()
    report = loop.retrain(force=True) if loop.learner.counted > 30 else "waits"
    frame = queue.training_frame()
    assert known <= set(frame["task_id"]), "an answer has gone"
    known = set(frame["task_id"])
    tell("train", len(known))
tell("end")
"""
#: pure Python in the owner's main thread; it looks up from its work every 10,000 rounds
BUSY = """
tell("busy")
n = 0
while n % 10_000 or not os.path.exists(PATH + ".idle"):
    n += 1
tell("idle")
"""


@contextmanager
def kernel(setup):
    """A notebook's kernel; yields its manager and what runs a cell there without waiting for its end."""
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel(env=dict(os.environ))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute(setup)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


class Place:
    """The file, and what each participant has told so far."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder / "q.duckdb"

    def setup(self, me):
        return SETUP.format(path=str(self.path), log=str(self.folder / me), me=me)

    def told(self, me, what):
        path = self.folder / me
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1:] for line in lines if line.split()[0] == what]

    def sign(self, name):
        self.path.with_name(f"q.duckdb.{name}").touch()

    def until_more(self, n, *whom):
        """Wait until each has been acknowledged ``n`` more calls; of trainings, which are long, one."""
        work = {"producer": ("submit", n), "trainer": ("train", 1)}
        goal = {
            me: (what, len(self.told(me, what)) + more) for me in whom for what, more in [work.get(me, ("review", n))]
        }
        until(lambda: all(len(self.told(me, what)) >= most for me, (what, most) in goal.items()), 120)


OTHERS = ("producer", "trainer", "plain")


#: how long the owner's main thread is busy at least, in seconds; a call waits for many turns of the interpreter then
LONG_BUSY = [0, pytest.param(30, marks=pytest.mark.nightly)]


@pytest.mark.parametrize("seconds", LONG_BUSY)
def test_three_kernels_and_a_process_share_a_file_whose_owner_is_busy_and_then_killed(tmp_path, seconds):
    place = Place(tmp_path)
    with kernel(place.setup("owner") + REVIEW + "threading.Thread(target=review).start()") as (_, cells):
        until(lambda: place.told("owner", "kind") == [["ReviewQueue"]])
        pid = endpoint.read(str(place.path)).pid
        code = [sys.executable, "-c", place.setup("plain") + REVIEW + "review(); queue.close()"]
        with (
            kernel(place.setup("producer") + PRODUCE) as (producer, _),
            kernel(place.setup("trainer") + TRAIN) as (trainer, _),
            subprocess.Popen(code) as plain,
        ):
            try:
                befalls(place, pid, cells, seconds)
            finally:
                place.sign("end")
            assert plain.wait(60) == 0
            until(lambda: place.told("producer", "end") and place.told("trainer", "end"))
            assert producer.is_alive()
            assert trainer.is_alive()
    check(place)


def befalls(place, pid, cells, seconds):
    """Kill the owner, after its main thread was busy for a while; the others go on."""
    place.until_more(3, "owner", *OTHERS)
    assert [place.told(me, "kind") for me in OTHERS] == [[["RemoteQueue"]]] * 3
    busy(place, cells, seconds)
    os.kill(pid, signal.SIGKILL)
    place.until_more(3, *OTHERS)  # nobody opens the file anew; one of them has it now
    assert endpoint.read(str(place.path)).pid != pid


def busy(place, cells, seconds):
    """Keep the owner's main thread busy; the others go on meanwhile."""
    cells.execute(BUSY)
    until(lambda: place.told("owner", "busy"))
    end = time.monotonic() + seconds
    place.until_more(3, *OTHERS)
    while time.monotonic() < end:
        place.until_more(3, *OTHERS)
    assert not place.told("owner", "idle")  # it was busy all the while
    place.sign("idle")
    until(lambda: place.told("owner", "idle"))


def check(place):
    """Nothing that was acknowledged is lost, nothing stands twice."""
    with open_queue(place.path, serve=None) as queue:
        assert queue.verify() == []
        tasks = {task_id: queue.get(task_id) for task_id in queue.history()["task_id"]}
        submitted = {task_id: int(n) for n, task_id in place.told("producer", "submit")}
        assert submitted.items() <= {task_id: task.input_data["n"] for task_id, task in tasks.items()}.items()
        assert set(Counter(task.input_data["n"] for task in tasks.values()).values()) == {1}
        log = queue.events(limit=100_000)
        reviews = Counter((event["task_id"], event["attempt"]) for event in log if event["move"] == "review")
        answered = Counter((t, int(attempt)) for me in ("owner", "plain") for t, attempt in place.told(me, "review"))
        assert set(reviews.values()) == set(answered.values()) == {1}
        assert len({task_id for task_id, _ in reviews}) == len(reviews)
        assert answered.keys() <= reviews.keys()
        assert len(queue.training_frame()) == len(reviews)
