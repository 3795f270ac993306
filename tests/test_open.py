"""Opening a queue: what stands in the way, and what survives."""

import os
import subprocess
import sys
import textwrap

import duckdb
import pytest

from hitl_nb import open_queue
from hitl_nb.errors import (
    BadInput,
    NotAQueue,
    QueueClosed,
    QueueDamaged,
    QueueError,
    QueueLocked,
    QueueReadOnly,
    QueueTooNew,
)
from hitl_nb.queue import file


def child(code, *args, **options):
    """Start a process that runs ``code``."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def refused(path, error):
    """Open, expect an error, and look whether the file is as it was."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(error) as caught:
        open_queue(path)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    return caught.value


def put(queue, **more):
    return queue.submit(input_data={"n": 1}, ai_prediction={"label": "a"}, reason="r", **more)


def test_a_new_file_is_a_new_queue(tmp_path):
    with open_queue(tmp_path / "new.duckdb") as queue:
        put(queue)
    with open_queue(str(tmp_path / "new.duckdb")) as queue:
        assert queue.stats().total == 1
        assert repr(queue) == f"ReviewQueue('{tmp_path / 'new.duckdb'}')"


def test_queues_in_memory_are_apart():
    with open_queue(":memory:") as one, open_queue(":memory:") as two:
        put(one)
        assert two.stats().total == 0


def test_opening_twice_in_one_process_gives_the_same_queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(tmp_path, tmp_path / "link")
    with open_queue(tmp_path / "q.duckdb") as queue:
        assert open_queue("q.duckdb") is queue
        assert open_queue(tmp_path / "link" / "q.duckdb") is queue
    assert open_queue("q.duckdb") is not queue


def test_a_text_file_is_no_queue(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk\n" * 1000)
    refused(path, NotAQueue)


def test_an_empty_file_is_no_queue(tmp_path):
    path = tmp_path / "empty.duckdb"
    path.touch()
    assert "empty" in refused(path, NotAQueue).reason


def test_a_torn_file_is_damaged(tmp_path):
    path = tmp_path / "q.duckdb"
    open_queue(path).close()
    path.write_bytes(path.read_bytes()[:5000])
    refused(path, QueueDamaged)


def test_a_folder_is_no_queue(tmp_path):
    assert "folder" in refused(tmp_path, NotAQueue).reason


def test_a_missing_folder_is_named(tmp_path):
    assert "nowhere" in refused(tmp_path / "nowhere" / "q.duckdb", QueueReadOnly).reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE customers (id INTEGER)",
        "CREATE TABLE task (id INTEGER); CREATE TABLE event (id INTEGER)",
        "CREATE TABLE meta (a INTEGER); CREATE TABLE payload AS FROM meta; "
        "CREATE TABLE event AS FROM meta; CREATE TABLE task AS FROM meta",
        "CREATE TABLE meta (name VARCHAR, value VARCHAR); CREATE TABLE payload AS FROM meta; "
        "CREATE TABLE event AS FROM meta; CREATE TABLE task AS FROM meta",
    ],
)
def test_somebody_elses_database_is_left_alone(tmp_path, sql):
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as other:
        other.execute(sql)
    refused(path, NotAQueue)


@pytest.mark.parametrize("mode", [0o444, 0o555])
def test_a_file_marked_read_only_is_not_written_even_by_root(tmp_path, mode):
    path = tmp_path / "q.duckdb"
    open_queue(path).close()
    path.chmod(mode)
    assert "read-only" in refused(path, QueueReadOnly).reason


def test_a_folder_marked_read_only_gets_no_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    refused(folder / "q.duckdb", QueueReadOnly)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "error"), [(str(file.SCHEMA_VERSION + 1), QueueTooNew), ("0", NotAQueue), ("one", NotAQueue)]
)
def test_a_schema_that_is_not_known_is_refused(tmp_path, version, error):
    path = tmp_path / "q.duckdb"
    open_queue(path).close()
    with duckdb.connect(str(path)) as raw:
        raw.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", [version])
    caught = refused(path, error)
    if error is QueueTooNew:
        assert (caught.version, caught.known) == (file.SCHEMA_VERSION + 1, file.SCHEMA_VERSION)


HOLD = """
    import sys
    from hitl_nb import open_queue
    queue = open_queue(sys.argv[1], serve=None)
    queue.submit(input_data={}, ai_prediction={}, reason="r")
    print("open", flush=True)
    sys.stdin.read()
    queue.close()
"""


def test_a_file_that_another_process_holds_names_that_process(tmp_path, monkeypatch):
    monkeypatch.setattr("hitl_nb.connect.PATIENCE", 0.3)
    path = tmp_path / "q.duckdb"
    with child(HOLD, path) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(QueueLocked) as error:
            open_queue(path)
        assert error.value.pid == holder.pid
        assert str(holder.pid) in str(error.value)
        holder.stdin.close()
        assert holder.wait(60) == 0
    with open_queue(path) as queue:
        assert queue.stats().total == 1


def test_a_killed_owner_leaves_the_file_free_and_whole(tmp_path):
    path = tmp_path / "q.duckdb"
    with child(HOLD, path) as holder:
        assert holder.stdout.readline() == "open\n"
        holder.kill()
    with open_queue(path) as queue:
        assert queue.stats().total == 1
        assert queue.verify() == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "  ",
        "a\0b",
        "http://host:1",
        "https://host",
        "postgresql://host/db?none=1",
        "~nobody-like-that/q",
        "x" * 300,
        "sqlite:///reviews.db",
        "duckdb://reviews.duckdb",
        None,
        7,
    ],
)
def test_what_is_no_path_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="url"):
        open_queue(url)
    assert list(tmp_path.iterdir()) == []


FILL = """
    import resource, sys
    from hitl_nb import open_queue
    from hitl_nb.errors import QueueClosed, StorageFailed
    queue = open_queue(sys.argv[1])
    stored = 0
    def put(n):
        queue.submit(input_data={"blob": "x" * n}, ai_prediction={}, reason="r")
    put(10); stored += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    refused = []
    for n in [100_000] * 40:
        try:
            put(n)
            stored += 1
        except (StorageFailed, QueueClosed) as error:
            refused.append(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert refused[0] == "StorageFailed", refused
    if queue.closed:
        queue.close()
        queue = open_queue(sys.argv[1])
    assert queue.stats().total == stored, (queue.stats().total, stored)
    assert queue.verify() == []
    put(10); stored += 1
    print(stored, flush=True)
    if sys.argv[2] == "kill":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    queue.close()
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path, end):
    path = tmp_path / "q.duckdb"
    with child(FILL, path, end, stderr=subprocess.PIPE) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == (0 if end == "close" else -9), errors
    with open_queue(path) as queue:
        assert queue.stats().total == int(out)
        assert queue.verify() == []
        put(queue)


def test_a_queue_that_stopped_is_opened_anew(tmp_path):
    path = tmp_path / "q.duckdb"
    queue = open_queue(path)
    queue.store.close()  # as after a fatal error of the engine
    assert queue.closed
    with pytest.raises(QueueClosed):
        queue.stats()
    with open_queue(path) as again:
        assert again is not queue
        assert again.stats().total == 0


def test_an_error_inside_a_call_stores_nothing_and_stops_nothing(tmp_path):
    with open_queue(tmp_path / "q.duckdb") as queue:

        def work(tx):
            tx.note("half", None, {})
            raise RuntimeError("boom")

        with pytest.raises(RuntimeError):
            queue.store.write(work)
        put(queue)
        assert [event["move"] for event in queue.events()] == ["submit"]


def test_an_error_of_the_engine_stores_nothing_and_the_queue_goes_on(tmp_path):
    for url in (":memory:", tmp_path / "q.duckdb"):
        with open_queue(url) as queue:
            put(queue)
            put(queue)

            def work(tx):
                tx.note("half", None, {})
                tx.flush()
                tx.engine.put("event", ("seq", "move", "at_time", "body"), [(99, "half", "no time", "{}")])

            with pytest.raises(QueueError, match="nothing of this call was stored"):
                queue.store.write(work)
            assert queue.claim("ann", n=2)
            assert [event["move"] for event in queue.events()] == ["submit", "submit", "claim", "claim"]
            assert queue.verify() == []


def test_a_write_waits_for_no_reader_and_a_reader_sees_one_moment(tmp_path):
    with open_queue(tmp_path / "q.duckdb") as queue:
        task = put(queue, subject="s")

        def work(tx):
            before = tx.rows("counts")
            put(queue)
            queue.forget("s")
            return before == tx.rows("counts")

        assert queue.store.read(work)
        assert queue.get(task.task_id).input_data is None


def test_a_new_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path, seen = tmp_path / "new.duckdb", []
    create = file._create

    def watched(connection):
        create(connection)
        seen.append(path.exists())

    monkeypatch.setattr(file, "_create", watched)
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == 0
        assert seen == [False]
        assert not list(tmp_path.glob("*.new*"))
    assert [place.name for place in tmp_path.iterdir()] == ["new.duckdb"]
