"""One reviewed process() as a ratio to one bare durable insert, both on a file, in turn; medians of many."""

import statistics
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import duckdb

from hitl_nb import Orchestrator, open_queue

ROUNDS = 300
INPUT = {f"f{i:02d}": i / 7 for i in range(10)} | {"text": "is this yours? " * 10}
RESULT = {"label": "spam", "confidence": 0.62, "model": "v1"}


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        queue = open_queue(Path(folder) / "ours.duckdb")
        orchestrator = Orchestrator(queue=queue)
        connection = duckdb.connect(str(Path(folder) / "bare.duckdb"))
        connection.execute("CREATE TABLE line (id UUID, body VARCHAR)")

        def insert():
            connection.execute("INSERT INTO line VALUES (?, ?)", [uuid4(), "x" * 400])

        for label in ("empty queue", "after 100,000 rows"):
            if label != "empty queue":
                import pandas as pd

                inputs = pd.DataFrame([INPUT] * 100_000)
                orchestrator.process_frame(inputs, pd.DataFrame([RESULT] * 100_000))
            pairs = [(timed(lambda: orchestrator.process(INPUT, RESULT)), timed(insert)) for _ in range(ROUNDS)]
            ours, bare = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
            print(f"{label:<20} ours {ours:.2f} ms, bare insert {bare:.2f} ms, ratio {ours / bare:.2f}")
        queue.close()
