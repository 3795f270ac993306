"""Claims and answers beside one bare durable insert, by backlog and by the number of reviewers, and beside SQLite.

Run ``python benchmarks/claim.py [ROWS …]``; the default is 10,000 and 1,000,000 waiting tasks.
"""

import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import duckdb
import pandas as pd

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.queue.read import as_task
from hitl_nb.queue.store import payloads

ROUNDS = 300


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def filled(path, rows):
    queue = open_queue(path, serve=None)
    fill(queue, rows)
    return queue


def fill(queue, rows):
    """Let ``rows`` tasks wait for a claim."""
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
    while (n := min(1_000_000, rows - queue.stats().status.get("pending_review", 0))) > 0:
        confidence = [0.5 + (i % 300) / 1000 for i in range(n)]
        orchestrator.process_frame(
            pd.DataFrame({"i": range(n)}), pd.DataFrame({"label": "a", "confidence": confidence})
        )


class Sqlite:
    """The same claim and answer by hand: log, payload and an indexed task table, durable at each commit."""

    def __init__(self, path, rows):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE line (id TEXT, body TEXT);"
            "CREATE TABLE task (id INTEGER PRIMARY KEY, status TEXT, priority INTEGER, holder TEXT, until REAL);"
            "CREATE TABLE payload (id INTEGER, kind TEXT, body TEXT);"
            "CREATE TABLE event (seq INTEGER PRIMARY KEY, id INTEGER, move TEXT, actor TEXT, submit TEXT, body TEXT);"
        )
        self.db.execute("BEGIN")
        self.db.executemany(
            "INSERT INTO task VALUES (?, 'pending', ?, NULL, NULL)", ((i, i % 300 < 200) for i in range(rows))
        )
        both = ((i, kind) for i in range(rows) for kind in ("input", "prediction"))
        self.db.executemany(
            "INSERT INTO payload VALUES (?, ?, ?)", ((i, kind, json.dumps({"i": i})) for i, kind in both)
        )
        self.db.execute("COMMIT")
        self.db.executescript(
            "CREATE INDEX next ON task (status, priority DESC, id); CREATE INDEX of_task ON payload (id);"
            "CREATE UNIQUE INDEX once ON event (submit) WHERE submit IS NOT NULL;"
        )

    def bare(self):
        self.db.execute("INSERT INTO line VALUES (?, ?)", [str(uuid4()), "x" * 400])

    def claim(self):
        self.db.execute("BEGIN IMMEDIATE")
        [(task,)] = self.db.execute("SELECT id FROM task WHERE status = 'pending' ORDER BY priority DESC, id LIMIT 1")
        until = time.time() + 600
        self.db.execute("UPDATE task SET status = 'claimed', holder = 'ann', until = ? WHERE id = ?", [until, task])
        body = json.dumps({"holder": "ann", "until": until})
        self.db.execute("INSERT INTO event (id, move, actor, body) VALUES (?, 'claim', 'ann', ?)", [task, body])
        found = self.db.execute("SELECT kind, body FROM payload WHERE id = ?", [task]).fetchall()
        self.db.execute("COMMIT")
        return task, {kind: json.loads(body) for kind, body in found}

    def answer(self, task):
        self.db.execute("BEGIN IMMEDIATE")
        [(holder,)] = self.db.execute("SELECT holder FROM task WHERE id = ? AND status = 'claimed'", [task])
        assert holder == "ann"
        self.db.execute("UPDATE task SET status = 'reviewed' WHERE id = ?", [task])
        row = [task, str(uuid4()), json.dumps({"outcome": "approve"})]
        self.db.execute("INSERT INTO event (id, move, actor, submit, body) VALUES (?, 'review', 'ann', ?, ?)", row)
        self.db.execute("COMMIT")


def one_reviewer(queue, connection, sqlite):
    """Return the median milliseconds of claims, answers and bare inserts, ours and SQLite's, in turn."""
    took = []
    for _ in range(ROUNDS):
        mine, theirs = [], []
        calls = {
            "claim": lambda: mine.extend(queue.claim("ann")),  # noqa: B023
            "answer": lambda: queue.resolve(mine[0].task_id, "ann", "approve", submit_id=str(uuid4())),  # noqa: B023
            "bare": lambda: connection.execute("INSERT INTO line VALUES (?, ?)", [uuid4(), "x" * 400]),
            "sqlite claim": lambda: theirs.append(sqlite.claim()),  # noqa: B023
            "sqlite answer": lambda: sqlite.answer(theirs[0][0]),  # noqa: B023
            "sqlite bare": sqlite.bare,
        }
        took.append([timed(call) for call in calls.values()])
    return {name: statistics.median(side) * 1e3 for name, side in zip(calls, zip(*took, strict=True), strict=True)}


def payload_part(queue, rounds=200):
    """Return the median milliseconds in which a claim makes the payload that it brings of texts that are at hand."""
    [task] = queue.claim("ann")
    both = queue.store.write(lambda tx: (tx.task(task.task_id), tx.hand.texts(task.task_id)))
    return statistics.median(timed(lambda: as_task(both[0], payloads(both[1], both[0]))) for _ in range(rounds)) * 1e3


def many_reviewers(queue, n, seconds=2):
    """Return claims with their answers a second, by ``n`` reviewers at once."""
    queue.claim("bob")  # the head of the line is full
    done, end = [0] * n, time.perf_counter() + seconds

    def review(i):
        while time.perf_counter() < end:
            [task] = queue.claim(f"r{i}")
            queue.resolve(task.task_id, f"r{i}", "approve", attempt=task.attempt)
            done[i] += 1

    threads = [threading.Thread(target=review, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def wake_ups(queue, rounds=100):
    """Return the median milliseconds from an acknowledged answer to the return of the caller that waits for it."""
    orchestrator, took = Orchestrator(queue=queue), []
    for _ in range(rounds):
        [task] = queue.claim("ann")
        until = []
        waiter = threading.Thread(
            target=lambda: (orchestrator.wait(task.task_id), until.append(time.perf_counter()))  # noqa: B023
        )
        waiter.start()
        while not queue.store._watchers.get(task.task_id):
            time.sleep(0.001)
        time.sleep(0.02)  # it has looked once and waits
        queue.resolve(task.task_id, "ann", "approve")
        answered = time.perf_counter()
        waiter.join()
        took.append(until[0] - answered)
    return statistics.median(took) * 1e3


def main(rows, folder):
    connection = duckdb.connect(str(folder / "bare.duckdb"))
    connection.execute("CREATE TABLE line (id UUID, body VARCHAR)")
    sqlite = Sqlite(folder / "q.sqlite", rows)
    with filled(folder / "q.duckdb", rows) as queue, closing(sqlite.db):
        first = timed(lambda: queue.claim("bob")) * 1e3
        found = one_reviewer(queue, connection, sqlite)
        bare, theirs = found["bare"], found["sqlite bare"]
        print(f"{rows:>10,} waiting: first claim {first:.0f} ms")
        for name in ("claim", "answer"):
            ours, other = found[name], found[f"sqlite {name}"]
            print(
                f"{name:>10} {ours:.2f} ms = {ours / bare:.1f} bare inserts; sqlite {other:.2f} ms = "
                f"{other / theirs:.1f} of its own, {other / ours:.2f} of ours"
            )
        part = payload_part(queue)
        print(f"   without its payload a claim is {(found['claim'] - part) / bare:.1f} bare inserts")
        wake = wake_ups(queue)
        print(f"{'wake-up':>10} {wake:.2f} ms = {wake / bare:.1f} bare inserts")
        rates = []
        for _ in range(3):
            fill(queue, rows)
            rates.append({n: many_reviewers(queue, n, seconds=1) for n in (1, 8, 32)})
        for n in (1, 8, 32):
            ratios = sorted(turn[n] / turn[1] for turn in rates)
            rate = statistics.median(turn[n] for turn in rates)
            print(f"{n:>10} reviewers: {rate:.0f} reviews a second, {ratios[0]:.1f}–{ratios[-1]:.1f} × one")
        assert queue.verify() == []


if __name__ == "__main__":
    for rows in [int(text) for text in sys.argv[1:]] or [10_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            main(rows, Path(folder))
