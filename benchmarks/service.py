"""A served queue under load: calls per second of 1, 8 and 32 clients, the slowest of a mixed load beside one client's,
and the server's memory over time; prints ratios of one run.

Run: python benchmarks/service.py [seconds per figure, default 5] [minutes of the memory run, default 0.5]
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

from hitl_nb import open_queue

TASK = {
    "input_data": {"text": "hm", "amount": 3.5},
    "ai_prediction": {"label": "a"},
    "confidence": 0.6,
    "reason": "unsure",
}
#: processes over which clients are spread, so that they do not wait for each other
PROCESSES = 4


def submit(ask, rng):
    ask("POST", "/tasks", TASK)


def mixed(ask, rng):
    """Do what a service and its reviewers do: submit, look, claim and answer."""
    ask("POST", "/tasks", TASK)
    ask("GET", "/review/queue")
    for task in ask("POST", "/review/claim", {"n": 1})["tasks"]:
        body = {"outcome": "approve", "attempt": task["attempt"], "submit_id": str(rng.random())}
        ask("POST", f"/review/{task['task_id']}/submit", body)
        ask("GET", f"/tasks/{task['task_id']}")


def client(address, secret, work, begin, until, times):
    line, rng = HTTPConnection(address.removeprefix("http://")), random.Random()

    def ask(method, path, body=None):
        start = time.perf_counter()
        data = None if body is None else json.dumps(body)
        line.request(method, path, data, {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"})
        answer = line.getresponse()
        found = json.loads(answer.read() or b"null")
        assert answer.status in (200, 204), found
        times.append(time.perf_counter() - start)
        return found

    time.sleep(max(0.0, begin - time.time()))
    while time.time() < until:
        work(ask, rng)


def clients(address, secret, work, begin, until, count, pipe):
    """Run some clients in a process and send how long each call took."""
    times = []
    threads = [Thread(target=client, args=(address, secret, work, begin, until, times)) for _ in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    pipe.send(times)


def load(address, secret, work, count, seconds):
    """Return calls per second, and how long calls took, in order."""
    context, running, begin = get_context("spawn"), [], time.time() + 4  # when all have started
    for _ in range(min(count, PROCESSES)):
        ours, theirs = context.Pipe()
        share = count // PROCESSES if count >= PROCESSES else 1
        process = context.Process(target=clients, args=(address, secret, work, begin, begin + seconds, share, theirs))
        process.start()
        running.append((process, ours))
    times = sorted(took for process, pipe in running for took in pipe.recv())
    [process.join() for process, _ in running]
    return len(times) / seconds, times


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(seconds=5.0, minutes=0.5):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.duckdb"
        with open_queue(path, serve=None) as queue:
            secret, _ = queue.create_token("me", ["admin"])
        command = [sys.executable, "-m", "hitl_nb.cli", "serve", str(path), "--port", "0"]
        with open(Path(folder) / "log", "w+") as log, subprocess.Popen(command, stderr=log) as server:
            while not (started := (Path(folder) / "log").read_text()).count("\n"):
                time.sleep(0.1)
            address = json.loads(started.splitlines()[0])["address"]
            speeds = {count: load(address, secret, submit, count, seconds) for count in (1, 8, 32)}
            one = speeds[1][0]
            for count, (speed, _) in speeds.items():
                print(f"submit, {count:2} clients: {speed:7.0f} calls/s, {speed / one:5.1f} x one client")
            _, alone = load(address, secret, mixed, 1, seconds)
            _, many = load(address, secret, mixed, 8, seconds)
            p99 = [times[int(0.99 * len(times))] for times in (alone, many)]
            print(f"mixed, p99: 8 clients {1000 * p99[1]:.0f} ms, {p99[1] / p99[0]:.1f} x one client's")
            sizes = []
            for _ in range(10):
                load(address, secret, mixed, 4, 6 * minutes)
                sizes.append(resident(server.pid))
            print(f"memory over {minutes:g} minutes: {sizes[0]:.0f} MB, at the end {sizes[-1]:.0f} MB, ", end="")
            print(f"second half {max(sizes[5:]) / max(sizes[:5]):.2f} x the first")
            server.terminate()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
