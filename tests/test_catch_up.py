"""The task table follows the log: an owner that is killed leaves it behind, the next one catches up."""

import os
import signal
import subprocess
import sys

import duckdb
import pyarrow.parquet as pq
import pytest

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.errors import BadInput
from hitl_nb.queue import duckdb as store

OWNER = """
import os, signal, sys
from hitl_nb import Orchestrator, open_queue
queue = open_queue(sys.argv[1])
orchestrator = Orchestrator(confidence_threshold=0.85, queue=queue)
ids = [orchestrator.process({"i": i}, {"label": "x", "confidence": 0.5})["task_id"] for i in range(30)]
for task in queue.claim("ann", n=3):
    queue.resolve(task.task_id, "ann", "approve")
queue.undo(ids[0], "ann")
queue.resolve(ids[9], "bob", "correct", {"label": "y"})
queue.release(queue.claim("eve")[0].task_id, "eve", "unsure")
orchestrator.process({"i": 31}, {"label": "x", "confidence": 0.5})
print(len(queue.store._behind), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_owner_loses_nothing_that_it_acknowledged(tmp_path):
    path = tmp_path / "q.duckdb"
    done = subprocess.run([sys.executable, "-c", OWNER, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert int(done.stdout) > 0
    with duckdb.connect(str(path)) as raw:
        [(told,)] = raw.execute("SELECT count(*) FROM event WHERE move = 'submit'").fetchall()
        [(shown,)] = raw.execute("SELECT count(*) FROM task").fetchall()
    assert told == 31
    assert shown < told
    with open_queue(path) as queue:
        assert queue.verify() == []
        assert queue.stats().status == {"pending_review": 28, "reviewed": 3}
        assert queue.stats().reviewers == {"ann": 3, "bob": 1}
    with duckdb.connect(str(path)) as raw:
        assert raw.execute("SELECT count(*) FROM task").fetchall() == [(31,)]


@pytest.mark.parametrize("most", [1, 7])
def test_the_table_is_never_far_behind(tmp_path, monkeypatch, most):
    monkeypatch.setattr(store, "MOST_BEHIND", most)
    with open_queue(tmp_path / "q.duckdb") as queue:
        orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.5))
        for i in range(20):
            orchestrator.process({"i": i}, {"label": "x", "confidence": 0.9})
            assert len(queue.store._behind) <= most
        assert len(queue.history()) == 20
        assert queue.verify() == []


def test_an_interpreter_that_ends_without_close_leaves_a_whole_file(tmp_path):
    path = tmp_path / "q.duckdb"
    ends = OWNER.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")
    done = subprocess.run([sys.executable, "-c", ends, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists(f"{path}.wal")
    with open_queue(path) as queue:
        assert queue.verify() == []
        assert queue.stats().total == 31


def test_a_snapshot_holds_the_three_tables(tmp_path):
    with open_queue(tmp_path / "q.duckdb") as queue:
        Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0)).process(
            {"i": 1}, {"label": "x", "confidence": 0.5}
        )
        queue.snapshot(tmp_path / "snap's")
        with pytest.raises(BadInput, match="new or empty folder"):
            queue.snapshot(tmp_path / "snap's")
    counts = {f.stem: pq.read_metadata(f).num_rows for f in (tmp_path / "snap's").iterdir()}
    # input and prediction; the policy, the submission, and where this copy went
    assert counts == {"payload": 2, "event": 3, "task": 1}


KEYED = """
import os, sys
from hitl_nb import open_queue
queue = open_queue(sys.argv[1])
asked = {"input_data": {"x": 1}, "ai_prediction": {"label": "a"}, "reason": "unsure", "key": "k1"}
print(queue.submit(**asked).task_id, flush=True)
os._exit(9)
"""


def test_a_key_is_known_after_a_kill(tmp_path):
    run = [sys.executable, "-c", KEYED, str(tmp_path / "q.duckdb")]
    ids = {subprocess.run(run, capture_output=True, text=True, timeout=120).stdout for _ in range(3)}
    assert len(ids) == 1
    with open_queue(tmp_path / "q.duckdb") as queue:
        assert queue.verify() == []
        assert queue.stats().total == 1
