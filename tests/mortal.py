"""Owners of a file that work with several threads until somebody kills them; each step is told before the next one.

Run: python mortal.py; a line ``path log seed`` on its input starts an owner, whose process id is printed.
"""

import json
import os
import random
import sys
import threading
from datetime import timedelta

import pandas as pd

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.errors import HitlError
from hitl_nb.queue.request import Requests

POLICY = Policy(0.85, audit_rate=0.2)
LEASE = timedelta(seconds=2)
#: what each thread does
THREADS = ("submit", "frame", "review", "review", "upkeep")


def do(queue, requests, step, again=False):
    """Do a step; the same step again, under its id, does nothing twice. Returns what is remembered of the answer."""
    name, kind, given = step["id"], step["kind"], step["given"]
    if kind == "submit":
        task = {"input_data": {"id": name}, "ai_prediction": {"label": "a"}, "confidence": 0.5, "reason": "r"}
        return requests.do("submit", (), task | given, name, again).task_id
    if kind == "frame":
        inputs = pd.DataFrame({"id": name, "i": range(given["n"])})
        predictions = pd.DataFrame({"label": "a", "confidence": [0.5, 0.95] * (given["n"] // 2)})
        keys = [f"{name}-{i}" for i in range(given["n"])]
        return Orchestrator(queue=queue, policy=POLICY).process_frame(inputs, predictions, key=keys)["task_id"].tolist()
    if kind == "claim":
        taken = requests.do("claim", (given["who"],), {"n": given["n"], "lease": LEASE}, name, again)
        return [[task.task_id, task.attempt] for task in taken]
    if kind == "resolve":
        return requests.do("resolve", given["args"], {"submit_id": name, "attempt": given["attempt"]}).number
    if kind in ("checkpoint", "backup", "tick"):
        getattr(queue.store if kind == "checkpoint" else queue, kind)(*given["args"])
    else:
        requests.do(kind, given["args"], {}, name, again)
    return None


class Owner:
    """Works on a file and writes a line before and after each step."""

    def __init__(self, path, log, seed):
        self.log, self.seed, self.folder = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), seed, f"{log}.copies"
        os.mkdir(self.folder)
        self.queue = open_queue(path, serve=None)
        self.requests = Requests(lambda: self.queue)

    def work(self):
        threads = [threading.Thread(target=getattr(self, what), args=(i,)) for i, what in enumerate(THREADS)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    def tell(self, line):
        os.write(self.log, json.dumps(line).encode() + b"\n")  # one write, unbuffered

    def steps(self, thread):
        """Return a random generator for a thread, and how it does a step."""
        rng, count = random.Random(f"{self.seed} {thread}"), 0

        def step(kind, **given):
            nonlocal count
            count += 1
            asked = {"id": f"{self.seed}-{thread}-{count}", "kind": kind, "given": given}
            self.tell(asked)
            try:
                said = {"said": do(self.queue, self.requests, asked)}
            except HitlError as error:
                said = {"refused": type(error).__name__}
            self.tell({"id": asked["id"]} | said)
            return said.get("said")

        return rng, step

    def submit(self, thread):
        rng, step = self.steps(thread)
        while True:
            more = {"subject": f"s{rng.randrange(50)}"} if rng.random() < 0.3 else {}
            more |= {"key": f"k{rng.random()}"} if rng.random() < 0.3 else {}
            step("submit", **more)

    def frame(self, thread):
        rng, step = self.steps(thread)
        while True:
            step("frame", n=2 * rng.randrange(1, 10))

    def review(self, thread):
        rng, step = self.steps(thread)
        who = f"r{self.seed}-{thread}"
        while True:
            for task_id, attempt in step("claim", who=who, n=rng.randrange(1, 5)) or ():
                what = rng.choices(("approve", "correct", "release", "renew"), (5, 3, 1, 1))[0]
                if what in ("approve", "correct"):
                    right = {"label": f"b{attempt}"} if what == "correct" else None
                    step("resolve", args=[task_id, who, what, right], attempt=attempt)
                    if rng.random() < 0.2:
                        kind, args = rng.choice((("undo", [task_id, who]), ("object", [task_id, who, "no"])))
                        step(kind, args=args)
                else:
                    step(what, args=[task_id, who, "later"] if what == "release" else [[task_id], who])

    def upkeep(self, thread):
        rng, step = self.steps(thread)
        while True:
            for kind, args in (
                ("checkpoint", []), ("note", ["x", {"n": rng.random()}]), ("tick", []), ("checkpoint", []),
                ("forget", [f"s{rng.randrange(50)}"]), ("backup", [f"{self.folder}/{rng.random()}.duckdb"]),
            ):  # fmt: skip
                step(kind, args=args)


def nest():
    """Start owners: forks, so that all is imported already."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            Owner(*line.split()).work()
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    nest()
