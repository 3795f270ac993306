"""Claims and answers: how they grow with the backlog, and with the number of reviewers, beside one bare durable insert.

Run ``python benchmarks/claim.py [ROWS …]``; the default is 10,000 and 1,000,000 waiting tasks.
"""

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

import duckdb
import pandas as pd

from hitl_nb import Orchestrator, Policy, open_queue

ROUNDS = 200


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def filled(path, rows):
    queue = open_queue(path)
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
    for start in range(0, rows, 1_000_000):
        n = min(1_000_000, rows - start)
        confidence = [0.5 + (i % 300) / 1000 for i in range(n)]
        orchestrator.process_frame(
            pd.DataFrame({"i": range(n)}), pd.DataFrame({"label": "a", "confidence": confidence})
        )
    return queue


def one_reviewer(queue, connection):
    """Return the median milliseconds of a claim, an answer, and a bare insert, in turn."""
    took = []
    for _ in range(ROUNDS):
        claimed = []
        claim = timed(lambda: claimed.extend(queue.claim("ann")))  # noqa: B023
        answer = timed(lambda: queue.resolve(claimed[0].task_id, "ann", "approve"))  # noqa: B023
        bare = timed(lambda: connection.execute("INSERT INTO line VALUES (?, ?)", [uuid4(), "x" * 400]))
        took.append((claim, answer, bare))
    return [statistics.median(side) * 1e3 for side in zip(*took, strict=True)]


def many_reviewers(queue, n, seconds=4):
    """Return claims with their answers a second, by ``n`` reviewers at once."""
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


if __name__ == "__main__":
    for rows in [int(text) for text in sys.argv[1:]] or [10_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder, filled(Path(folder) / "q.duckdb", rows) as queue:
            connection = duckdb.connect(str(Path(folder) / "bare.duckdb"))
            connection.execute("CREATE TABLE line (id UUID, body VARCHAR)")
            first = timed(lambda: queue.claim("bob")) * 1e3
            claim, answer, bare = one_reviewer(queue, connection)
            print(
                f"{rows:>10,} waiting: first claim {first:.0f} ms; "
                f"claim {claim:.2f} ms = {claim / bare:.1f} bare inserts, answer {answer:.2f} ms = {answer / bare:.1f}"
            )
            rates = {n: many_reviewers(queue, n) for n in (1, 8, 32)}
            alone = rates[1]
            print(
                f"{'':>10}  reviews a second: "
                + ", ".join(f"{n}: {r:.0f} ({r / alone:.1f} ×)" for n, r in rates.items())
            )
            assert queue.verify() == []
