"""Replay over 100,000, 1,000,000 and 10,000,000 logged decisions, as a ratio to one bare DuckDB scan of the same.

Run ``python benchmarks/replay.py [ROWS…]``. The rows are invented; a policy of a threshold and two bounds decides about
them, and the scan computes with the same filters what a replay says at the least: how many go through, how many of
those are judged and wrong, and the least chance of being judged. ``again`` replays what is read already, as each policy
but the first is, beside a scan of the frame; ``read`` checks the frame, and ``both`` is the ratio of the two to the
scan. ``file`` does all of it from a Parquet file as an export makes it, beside a scan of that file. Certification is
``choose_threshold``, and 1,000 policies are one ``compare``.
"""

import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hitl_nb import FieldAbove, Policy
from hitl_nb.lab import Logged, choose_threshold, compare, read, read_export, replay

SIZES = (100_000, 1_000_000, 10_000_000)
RULES = (FieldAbove(field="amount", bound=900), FieldAbove(field="age", bound=80))
SCAN = """
SELECT count(*), count(*) FILTER (passes), count(wrong) FILTER (passes), count(*) FILTER (passes AND wrong),
       min(review_probability) FILTER (passes)
FROM (SELECT *, confidence >= 0.8 AND NOT coalesce(is_anomalous, false) AND NOT coalesce(regulated, false)
                AND NOT coalesce(irreversible, false) AND NOT coalesce(high_value_transaction, false)
                AND isfinite("input.amount") AND NOT "input.amount" > 900
                AND isfinite("input.age") AND NOT "input.age" > 80 AS passes FROM {source})
"""


def invented(n):
    """Return a history as ``queue.export(inputs=True)`` has it, logged by ``Policy(0.85, RULES[:1])``."""
    rng = np.random.default_rng(0)
    sure, amount, uniform = rng.beta(8, 0.8, n), rng.random(n) * 1000, rng.random(n)
    asked = (sure < 0.85) | (amount > 900)
    judged = asked | (uniform < 0.02)
    numbers = pc.utf8_lpad(pa.array(np.arange(n)).cast(pa.string()), 12, "0")
    flags = {name: pd.array(np.zeros(n, bool), dtype="boolean") for name in ("is_anomalous", "regulated")}
    none = {name: pd.array([pd.NA] * n, dtype="boolean") for name in ("irreversible", "high_value_transaction")}
    return pd.DataFrame({
        "task_id": pd.Series(pc.binary_join_element_wise("01890000-0000-7000-8000", numbers, "-"), dtype="str"),
        "confidence": sure, "prediction": pd.Series(pa.array(rng.integers(0, 2, n)).cast(pa.string()), dtype="str"),
        "at_time": pd.date_range("2026-01-01", periods=n, freq="s", tz="UTC"), "hard": amount > 900,
        "wrong": pd.array(rng.random(n) > sure, dtype="boolean"), "review_probability": np.where(asked, 1.0, 0.02),
        "audit_probability": np.where(asked, 0.0, 0.02), "audit_uniform": uniform, **flags, **none,
        "input.amount": amount, "input.age": rng.integers(18, 90, n).astype(float),
    }).assign(wrong=lambda frame: frame["wrong"].where(pd.Series(judged)))  # fmt: skip


def best(call, times=3):
    took = []
    for _ in range(times):
        start = time.perf_counter()
        found = call()
        took.append(time.perf_counter() - start)
    return min(took), found


def measure(n):
    frame, policy, times = invented(n), Policy(0.8, RULES), 3 if n <= 1_000_000 else 1
    connection = duckdb.connect()
    connection.sql("SET enable_progress_bar = false")
    connection.register("frame", frame)
    bare, counted = best(lambda: connection.sql(SCAN.format(source="frame")).fetchall()[0])
    read_once, rows = best(lambda: Logged(read(frame)), times)
    found = replay(policy, rows)
    again, _ = best(lambda: replay(Policy(0.8, RULES), rows))
    passed = int(found.automatic.sum())
    assert (counted[0], counted[1], counted[4]) == (n, passed, rows.rows.probability[found.automatic].min())
    columns = [n, bare, again, again / bare, read_once, (read_once + again) / bare]
    if n <= 1_000_000:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "history.parquet"
            frame.to_parquet(path, index=False)
            bare_file, _ = best(lambda: connection.sql(SCAN.format(source=f"'{path}'")).fetchall()[0])
            ours_file, _ = best(lambda: replay(policy, read_export(path)), times)
        columns += [bare_file, ours_file, ours_file / bare_file]
    print("".join(f"{one:>10,.3f}" for one in columns), flush=True)
    return frame, rows


def main(sizes):
    names = ("rows", "scan", "again", "ratio", "read", "both", "scan file", "file", "ratio")
    print("".join(f"{name:>10}" for name in names), flush=True)
    for n in sizes:
        frame, rows = measure(n)
        if n == 1_000_000:
            more(frame, rows)


def more(frame, rows):
    certify, _ = best(lambda: choose_threshold(frame, 0.1), 1)
    certify_again, _ = best(lambda: choose_threshold(rows.rows, 0.1))
    policies = {f"{t:.4f}": Policy(float(t), RULES) for t in np.linspace(0.5, 0.99, 1000)}
    many, _ = best(lambda: compare(policies, rows), 1)
    print(f"certify {certify:.2f} s, what is read already {certify_again:.2f} s; 1,000 policies {many:.1f} s")


if __name__ == "__main__":
    main([int(word.replace(",", "").replace("_", "")) for word in sys.argv[1:]] or SIZES)
