"""process_frame at three sizes, as a ratio to a bare CREATE TABLE AS of the same finished rows; and its peak memory.

``enqueue`` is the part of it that stores what was decided, to the same CREATE TABLE AS, and ``finished`` that part
without the making of canonical texts from the inputs' columns: rows that are finished, as the bare engine gets them.

Each size runs in a process of its own, so that the peak is its own. The inputs are invented: 20 numbers, a text and a
flag; confidences are Beta(8, 0.8), so that about one in five goes to a person.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from hitl_nb import Orchestrator, open_queue
from hitl_nb.queue import frame

SIZES = (10_000, 100_000, 1_000_000)
TABLES = ("payload", "event", "task")


def invented(n):
    rng = np.random.default_rng(0)
    inputs = pd.DataFrame(rng.normal(size=(n, 20)).round(3), columns=[f"f{i:02d}" for i in range(20)])
    inputs["channel"] = rng.choice(["web", "shop", "telephone"], n)
    labels = rng.choice(["ham", "spam"], n)
    return inputs, pd.DataFrame({"label": labels, "confidence": rng.beta(8, 0.8, n), "model": "v1"})


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare(folder):
    """Time CREATE TABLE AS of the stored rows, handed over as Arrow like ours were."""
    with duckdb.connect(str(folder / "ours.duckdb")) as stored:
        tables = {name: stored.sql(f"SELECT * FROM {name}").to_arrow_table() for name in TABLES}
    with duckdb.connect(str(folder / "bare.duckdb")) as connection:
        start = time.perf_counter()
        for name, rows in tables.items():
            connection.register("rows", rows)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
        return time.perf_counter() - start


def measure(n):
    inputs, predictions = invented(n)
    size = (inputs.memory_usage(deep=True).sum() + predictions.memory_usage(deep=True).sum()) / 2**20
    with tempfile.TemporaryDirectory() as name:
        folder, before = Path(name), peak()
        with open_queue(folder / "ours.duckdb") as queue:
            enqueue, stored, make, texts = queue.store_frame, [], frame.frame_texts, []
            queue.store_frame = lambda *given: timed(stored, enqueue, *given)
            frame.frame_texts = lambda *given: timed(texts, make, *given)
            ours = []
            timed(ours, Orchestrator(queue=queue).process_frame, inputs, predictions)
        grown = peak() - before
        engine = min(bare(folder), bare_again(folder))
    finished = stored[0] - sum(texts)
    print(
        f"{n:>9} {ours[0]:>8.2f} {engine:>8.2f} {ours[0] / engine:>6.2f} {stored[0] / engine:>8.2f} "
        f"{finished / engine:>9.2f} {grown:>9.0f} {size:>9.0f} {grown / size:>6.1f}"
    )


def timed(took, call, *given):
    start = time.perf_counter()
    found = call(*given)
    took.append(time.perf_counter() - start)
    return found


def bare_again(folder):
    (folder / "bare.duckdb").unlink()
    return bare(folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        print("     rows   ours s   bare s  ratio  enqueue  finished   peak MB  frame MB  ratio", flush=True)
        for rows in SIZES:
            subprocess.run([sys.executable, __file__, str(rows)], check=True)
