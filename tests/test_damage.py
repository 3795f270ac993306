"""Damaged files, with real bytes: refused by name, never opened with less than was acknowledged, never changed."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress

import duckdb
import pytest

from hitl_nb import open_queue
from hitl_nb.cli import main
from hitl_nb.errors import HitlError, NotAQueue, QueueClosed, QueueDamaged, StorageFailed

FILL = """
import os, sys
import numpy as np, pandas as pd
from hitl_nb import Orchestrator, Policy, open_queue
queue = open_queue(sys.argv[1], serve=None)
orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
rng = np.random.default_rng(0)
inputs = pd.DataFrame({"i": range(3000), "text": rng.random(3000).astype(str)})
predictions = pd.DataFrame({"label": ["a"] * 3000, "confidence": rng.random(3000)})
orchestrator.process_frame(inputs, predictions)
for task in queue.claim("ann", n=20):
    queue.resolve(task.task_id, "ann", "approve")
queue.history()
queue.store.checkpoint()
for i in range(40):
    queue.submit(input_data={"i": i}, ai_prediction={"label": "b"}, reason="r")
os.kill(os.getpid(), 9)
"""
TOTAL = 3040


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A file whose owner was killed, so that a part of it waits in the engine's own log."""
    path = tmp_path_factory.mktemp("killed") / "q.duckdb"
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return path


@pytest.fixture
def path(killed, tmp_path):
    for end in ("", ".wal", ".last"):
        shutil.copy(f"{killed}{end}", f"{tmp_path / 'q.duckdb'}{end}")
    return tmp_path / "q.duckdb"


def files(path):
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}


def place(data, where):
    return int(where * len(data)) if isinstance(where, float) else where


def overwrite(path, start, end, noise):
    data = bytearray(path.read_bytes())
    start, end = place(data, start), place(data, end)
    data[start:end] = random.Random(0).randbytes(end - start) if noise else bytes(end - start)
    path.write_bytes(data)


def truncate(path, where):
    data = path.read_bytes()
    path.write_bytes(data[: place(data, where)])


def wal(path):
    return path.with_name(f"{path.name}.wal")


def other_database(path):
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE task (i)")


DAMAGE = {
    "the magic bytes": lambda p: overwrite(p, 0, 64, True),
    "the main header": lambda p: overwrite(p, 0, 4096, False),
    "both headers": lambda p: overwrite(p, 4096, 12288, True),
    "both headers with zeros": lambda p: overwrite(p, 4096, 12288, False),
    "all after the headers": lambda p: overwrite(p, 12288, 1.0, True),
    "zeros after the headers": lambda p: overwrite(p, 12288, 1.0, False),
    "the first quarter": lambda p: overwrite(p, 12288, 0.25, True),
    "the last quarter": lambda p: overwrite(p, 0.75, 1.0, True),
    "a file cut early": lambda p: truncate(p, 5000),
    "a file cut in the middle": lambda p: truncate(p, 0.5),
    "a file cut at its end": lambda p: truncate(p, 0.99),
    "an empty file": lambda p: truncate(p, 0),
    "a text file": lambda p: p.write_text("remember the milk\n" * 9999),
    "another kind of database": other_database,
    "the log's first bytes": lambda p: overwrite(wal(p), 0, 40, True),
    "the log's first bytes with zeros": lambda p: overwrite(wal(p), 0, 40, False),
    "the log near its begin": lambda p: overwrite(wal(p), 0.1, 0.15, True),
    "the log in the middle": lambda p: overwrite(wal(p), 0.4, 0.45, True),
    "the log in the middle with zeros": lambda p: overwrite(wal(p), 0.4, 0.45, False),
    "the log from the middle on with zeros": lambda p: overwrite(wal(p), 0.5, 1.0, False),
    "a log cut within its header": lambda p: truncate(wal(p), 10),
    "a log cut in the middle": lambda p: truncate(wal(p), 0.6),
    "a log cut near its end": lambda p: truncate(wal(p), 0.95),
    "an empty log": lambda p: truncate(wal(p), 0),
    "a text for a log": lambda p: wal(p).write_text("hello\n" * 99),
    "a log that is gone": lambda p: wal(p).unlink(),
    "a file that is gone": lambda p: p.unlink(),
}


def test_a_file_that_nobody_damaged_is_opened_whole(path):
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == TOTAL
        assert queue.verify() == []
    assert sorted(os.listdir(path.parent)) == ["q.duckdb"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_name_and_left_byte_for_byte(path, damage, capsys):
    DAMAGE[damage](path)
    before = files(path)
    with pytest.raises((NotAQueue, QueueDamaged)) as caught:
        open_queue(path, serve=None)
    assert str(path) in str(caught.value)
    assert "download" not in str(caught.value)
    assert "hitl-nb doctor" in str(caught.value) or "choose another path" in str(caught.value)
    del caught
    after = files(path)
    if damage == "an empty log":  # the engine deletes a log without content
        before.pop("q.duckdb.wal")
        after.pop("q.duckdb.wal", None)
    assert after == before
    assert main(["doctor", str(path)]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert {name: data for name, data in files(path).items() if name in before} == before


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("start", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_damage_in_the_middle_is_never_a_bare_error_and_never_a_smaller_queue(path, start, noise, capsys):
    overwrite(path, start, start + 0.1, noise)
    before = files(path)
    try:
        queue = open_queue(path, serve=None)
    except QueueDamaged:
        assert files(path) == before
        assert main(["doctor", str(path)]) == 1
        return
    with queue, suppress(QueueDamaged):
        assert queue.stats().total == TOTAL
        assert queue.verify() == []
        assert len(queue.history(inputs=True)) == TOTAL


def test_an_older_file_can_be_taken_on_purpose(path):
    wal(path).unlink()
    with pytest.raises(QueueDamaged, match=r"40 of 3\d+ acknowledged events are missing .* remove .*q\.duckdb\.last"):
        open_queue(path, serve=None)
    path.with_name("q.duckdb.last").unlink()
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == TOTAL - 40


def test_what_can_be_saved_is_saved_to_a_new_file(path, tmp_path, capsys):
    wal(path).unlink()
    before = files(path)
    assert main(["rebuild", str(path), str(tmp_path / "new.duckdb")]) == 0
    assert {name: data for name, data in files(path).items() if name in before} == before
    with open_queue(tmp_path / "new.duckdb", serve=None) as queue:
        assert queue.stats().total == TOTAL - 40
        assert queue.stats().reviewers == {"ann": 20}
        assert queue.verify() == []
    assert main(["rebuild", str(path), str(tmp_path / "new.duckdb")]) == 1
    assert "new file" in capsys.readouterr().err


def table_blocks(path, table):
    """Return which blocks of the file a table's lines stand in."""
    with duckdb.connect(str(path), read_only=True) as raw:
        return {row[0] for row in raw.execute(f"SELECT block_id FROM pragma_storage_info('{table}')").fetchall()} - {-1}


def test_a_damaged_task_table_is_built_anew_from_the_log(path, tmp_path, capsys):
    open_queue(path, serve=None).close()
    others = table_blocks(path, "event") | table_blocks(path, "payload")
    mine = table_blocks(path, "task") - others
    assert mine
    for block in mine:  # three headers of 4,096 bytes, then blocks of 256 KiB
        overwrite(path, 12288 + block * 2**18, 12288 + (block + 1) * 2**18, True)
    with pytest.raises(QueueDamaged, match="hitl-nb rebuild"):
        open_queue(path, serve=None)
    assert main(["doctor", str(path)]) == 1
    assert f"table task: hitl-nb rebuild {path} NEW.duckdb" in capsys.readouterr().out
    assert main(["rebuild", str(path), str(tmp_path / "new.duckdb")]) == 0
    with open_queue(tmp_path / "new.duckdb", serve=None) as queue:
        assert queue.stats().total == TOTAL
        assert queue.verify() == []


@pytest.mark.parametrize("table", ["event", "payload"])
def test_without_log_or_payloads_only_a_backup_helps(path, tmp_path, capsys, table):
    open_queue(path, serve=None).close()
    others = set().union(*(table_blocks(path, other) for other in {"event", "payload", "task", "meta"} - {table}))
    for block in table_blocks(path, table) - others:
        overwrite(path, 12288 + block * 2**18, 12288 + (block + 1) * 2**18, True)
    assert main(["doctor", str(path)]) == 1
    assert "put your newest backup in the place" in capsys.readouterr().out
    assert main(["rebuild", str(path), str(tmp_path / "new.duckdb")]) == 1
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "new.duckdb").exists()


@pytest.mark.parametrize("body", ["no json", "[1]", '{"set": {"deadline": "soon"}}', '{"set": {"no_column": 1}}'])
def test_rebuilding_from_a_log_that_cannot_be_read_is_refused_and_changes_nothing(tmp_path, body):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None) as queue:
        task = queue.submit(input_data={}, ai_prediction={}, reason="r")
    with duckdb.connect(str(path)) as raw:
        raw.execute("UPDATE event SET body = ?", [body])
    with open_queue(path, serve=None) as queue:
        assert queue.verify()
        with pytest.raises(QueueDamaged, match=r"its log cannot be read.*newest backup"):
            queue.rebuild()
        assert queue.stats().total == 1
        assert queue.get(task.task_id).task_id == task.task_id


# -- while it is open


FATAL = """
import logging, os, resource, signal, sys
from hitl_nb import open_queue
from hitl_nb.errors import StorageFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
queue = open_queue(sys.argv[1], serve=None)
for i in range(200):
    queue.submit(input_data={"b": os.urandom(1000).hex()}, ai_prediction={}, reason="r")
limit = os.path.getsize(sys.argv[1] + ".wal") if sys.argv[2] == "for a while" else 0
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
said = []
logging.getLogger("hitl_nb").addFilter(lambda record: said.append(record.getMessage()))
queue.store.checkpoint()
assert "FATAL" in said[0], said
if sys.argv[2] == "for a while":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    assert queue.stats().total == 200  # it was opened anew
except StorageFailed as error:  # there is no room yet
    assert sys.argv[2] == "for good", error
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert not queue.closed
assert queue.stats().total == 200
queue.submit(input_data={}, ai_prediction={}, reason="r")
assert queue.verify() == []
queue.close()
"""


@pytest.mark.parametrize("how", ["for a while", "for good"])
def test_after_a_fatal_error_of_the_engine_the_queue_is_opened_anew_and_goes_on(tmp_path, how):
    path = tmp_path / "q.duckdb"
    done = subprocess.run([sys.executable, "-c", FATAL, str(path), how], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == 201


def test_a_queue_that_cannot_be_opened_anew_says_that_it_stopped_and_what_to_do(path):
    """After an error of the engine it is read again, and then the damage is found."""
    with open_queue(path, serve=None) as queue:
        queue.store.checkpoint()
        overwrite(path, 0, 1.0, True)

        def work(tx):
            tx.engine.put("event", ("seq", "move", "at_time", "body"), [(99, "half", "no time", "{}")])

        with pytest.raises(StorageFailed):
            queue.store.write(work)
        with pytest.raises(QueueClosed, match=r"it stopped after an error of the engine: .*; open it again"):
            queue.stats()
    with pytest.raises(NotAQueue):
        open_queue(path, serve=None)


def test_what_was_acknowledged_is_known_after_a_refused_reopening_too(tmp_path, monkeypatch):
    path, older = tmp_path / "q.duckdb", tmp_path / "older.duckdb"
    queue = open_queue(path, serve=None)
    queue.submit(input_data={}, ai_prediction={}, reason="r")
    queue.backup(older)
    queue.submit(input_data={}, ai_prediction={}, reason="r")
    older.replace(path)  # an older copy under a living owner

    def work(tx):
        tx.engine.put("event", ("seq", "move", "at_time", "body"), [(99, "half", "no time", "{}")])

    with pytest.raises(StorageFailed):
        queue.store.write(work)
    assert queue.closed
    with pytest.raises(QueueDamaged, match="acknowledged events are missing"):
        open_queue(path, serve=None)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_what_was_acknowledged_holds_nobody_up(tmp_path):
    open_queue(tmp_path / "q.duckdb", serve=None).close()
    os.mkfifo(tmp_path / "q.duckdb.last")
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        queue.submit(input_data={}, ai_prediction={}, reason="r")
        assert queue.stats().total == 1


def test_errors_of_the_engine_have_our_name_whatever_the_call(path):
    """Half of the file turns to noise while it is open: what is in memory works on, the rest says what it is."""
    with open_queue(path, serve=None) as queue:
        overwrite(path, 12288, 1.0, True)
        seen = set()
        for call in (queue.history, queue.verify, queue.rebuild, queue.tick, queue.stats, queue.annotations):
            try:
                call()
            except HitlError as error:
                seen.add(type(error))
        assert seen <= {QueueDamaged, QueueClosed, StorageFailed}
        assert seen
    with pytest.raises(QueueDamaged):
        open_queue(path, serve=None)
