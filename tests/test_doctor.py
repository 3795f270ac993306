"""The doctor: what it looks at, what it finds, and that it changes nothing."""

import os
import subprocess
import sys
import textwrap
from datetime import timedelta

import duckdb
import pytest

from hitl_nb import doctor, open_queue
from hitl_nb.cli import main
from hitl_nb.doctor import examine

OWN = """
    import sys
    from hitl_nb import open_queue
    queue = open_queue(sys.argv[1], **eval("dict(" + ",".join(sys.argv[2:]) + ")"))
    queue.submit(input_data={}, ai_prediction={}, reason="r")
    print("open", flush=True)
    sys.stdin.read()
"""


def child(code, *args):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "q.duckdb"


def put(queue, **more):
    return queue.submit(**{"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"} | more)


def made(path, clock=None, **more):
    """Make a sound queue with a few tasks, and close it."""
    with open_queue(path, clock=clock) as queue:
        for _ in range(3):
            put(queue, **more)
        [task] = queue.claim("ann")
        queue.resolve(task.task_id, "ann", "approve")


def alter(path, *statements):
    with duckdb.connect(str(path)) as raw:
        for sql in statements:
            raw.execute(sql)


def files(path):
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}


def wrong(path):
    """Examine a file and return what is wrong, looking whether the file is as it was."""
    before = files(path)
    found = examine(path)
    assert files(path) == before
    assert found.fine == (not any(finding.fine is not True for finding in found.findings))
    return {finding.what: finding for finding in found.findings if finding.fine is not True}


def test_a_sound_file_is_fine_and_everything_was_looked_at(path, capsys):
    made(path)
    assert wrong(path) == {}
    assert main(["doctor", str(path)]) == 0
    said = capsys.readouterr().out
    assert "all is well" in said
    words = ("file", "permissions", "disk", "log", "owner", "schema", "tables", "clock", "content", "leases", "backups")
    assert [word for word in words if f"\n{word} " not in f"\n{said}"] == []


def test_a_file_that_is_not_there_or_none_of_ours(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "nowhere.duckdb")]) == 1
    assert "there is no such file" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path)]) == 1
    assert "it is a folder" in capsys.readouterr().out
    path = tmp_path / "other.duckdb"
    alter(path, "CREATE TABLE customers (id INTEGER)")
    assert "customers" in wrong(path)["queue"].says


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in {f.what: f.says for f in examine(tmp_path / "pipe").findings}["queue"]


@pytest.mark.parametrize(("version", "todo"), [("9", "pip install --upgrade"), ("0", "backup"), ("x", "backup")])
def test_a_schema_that_is_not_known(path, version, todo):
    made(path)
    alter(path, f"UPDATE meta SET value = '{version}'")
    assert todo in wrong(path)["schema"].todo


@pytest.mark.parametrize(
    ("what", "sql", "todo"),
    [
        ("content", "UPDATE task SET status = 'reviewed'", "queue.rebuild()"),
        ("content", "DELETE FROM task WHERE status = 'reviewed'", "queue.rebuild()"),
        ("content", "INSERT INTO task FROM task LIMIT 1", "queue.rebuild()"),
        ("content", "DELETE FROM event WHERE seq = 2", "backup"),
        ("content", "INSERT INTO event FROM event WHERE seq = 2", "backup"),
        ("content", "DELETE FROM payload WHERE kind = 'input'", "backup"),
        ("content", "UPDATE payload SET body = '{\"label\":\"z\"}' WHERE kind = 'prediction'", "backup"),
        ("content", "INSERT INTO payload VALUES (uuid(), 1, 'input', '{}')", "backup"),
        ("content", "CREATE INDEX i ON task (status)", "hitl-nb rebuild"),
        ("log", "UPDATE event SET body = 'x'", "backup"),
        ("clock", "UPDATE event SET at_time = at_time + INTERVAL 3 HOUR", "clock"),
    ],
)
def test_what_verify_finds_comes_with_what_to_do(path, what, sql, todo):
    made(path)
    alter(path, sql)
    if what == "log":
        alter(path, "DELETE FROM task")
    assert todo in wrong(path)[what].todo


def test_a_killed_owner_is_no_illness(path):
    with child(OWN, path) as process:
        assert process.stdout.readline() == "open\n"
        process.kill()
        process.wait()
        assert wrong(path) == {}
        said = {finding.what: finding.says for finding in examine(path).findings}
    assert "has ended without closing it" in said["owner"]
    assert "wait in" in said["engine's log"]
    assert "all that were acknowledged" in said["log"]


def test_events_that_were_acknowledged_and_are_missing_are_counted(path):
    with child(OWN, path, "serve=None") as process:
        assert process.stdout.readline() == "open\n"
        process.kill()
    os.unlink(f"{path}.wal")
    assert wrong(path)["log"].says == "1 of 1 acknowledged events are missing at its end"


def test_a_file_in_use_is_looked_at_through_its_owner(path, capsys):
    with child(OWN, path) as process:
        assert process.stdout.readline() == "open\n"
        assert main(["doctor", str(path)]) == 0
        said = capsys.readouterr().out
        assert f"process {process.pid} owns it" in said
        assert "log, table and payloads agree" in said
        process.kill()


def test_a_file_that_its_owner_does_not_share_names_that_process(path):
    with child(OWN, path, "serve=None") as process:
        assert process.stdout.readline() == "open\n"
        found = wrong(path)["queue"]
        assert found.fine is None
        assert str(process.pid) in found.says
        process.kill()


@pytest.mark.parametrize("serve", ["thread", None])
def test_a_queue_of_this_process_is_asked_and_its_lock_stays(path, serve):
    with open_queue(path, serve=serve) as queue:
        put(queue)
        assert examine(path).fine
        code = "import duckdb, sys; duckdb.connect(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert f"PID {os.getpid()}" in done.stderr  # the engine's own lock, too


def test_a_broken_endpoint_file_is_to_be_removed(path):
    made(path)
    path.with_name("q.duckdb.owner").write_text("{}")
    assert wrong(path)["owner"].todo == f"rm {path}.owner"


def test_what_is_marked_read_only_is_looked_at_all_the_same(path):
    made(path)
    path.chmod(0o444)
    found = wrong(path)
    assert list(found) == ["permissions"]
    assert found["permissions"].todo == f"chmod u+w {path}"


def test_a_full_disk_and_a_log_that_is_not_taken_in_are_told(path, monkeypatch):
    with child(OWN, path, "serve=None") as process:
        assert process.stdout.readline() == "open\n"
        process.kill()
    monkeypatch.setattr(doctor, "LITTLE", 2**62)
    monkeypatch.setattr(doctor, "LARGE_WAL", 10)
    assert set(wrong(path)) == {"disk", "engine's log"}


def test_leases_long_over_and_overdue_tasks_are_told(path, clock):
    with open_queue(path, clock=clock) as queue:
        put(queue, deadline=timedelta(hours=1), on_deadline="hold")
        put(queue, deadline=timedelta(hours=1), on_deadline="hold")
        put(queue)
        queue.claim("ann", n=1, lease=timedelta(minutes=5))
    found = wrong(path)
    assert set(found) == {"leases", "deadlines"}
    assert found["leases"].says.startswith("1 claims")
    assert "2 deadlines were not applied" in found["deadlines"].says
    with open_queue(path) as queue:
        queue.tick()
        assert "2 open tasks are overdue" in wrong(path)["deadlines"].says


def test_the_newest_backup_that_is_there_is_named(path, clock):
    with open_queue(path, clock=clock) as queue:
        put(queue)
        for name in ("one", "two", "three"):
            clock.forward(days=1)
            queue.backup(path.with_name(f"{name}.duckdb"))
    path.with_name("three.duckdb").unlink()
    said = {finding.what: finding.says for finding in examine(path).findings}
    assert said["backups"] == f"2; the newest: {path.with_name('two.duckdb')}, {clock.time:%Y-%m}-07"


def test_hostile_text_is_shown_and_not_obeyed(tmp_path, capsys):
    path = tmp_path / "\u202e<b>\x1b[31mq'.duckdb"
    made(path)
    assert wrong(path) == {}
    alter(path, "UPDATE meta SET value = chr(27) || chr(8238) || 'x'")
    assert main(["doctor", str(path)]) == 1
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "⟨U+202E⟩" in said
    assert "<b>" not in examine(path)._repr_html_()
    assert main(["stats", str(path)]) == 1
    assert "\x1b" not in capsys.readouterr().err
