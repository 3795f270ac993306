"""Files of older versions: what each released version left is opened, brought forward, and lost in no step."""

import gzip
import json
import logging
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from hitl_nb import Reviewer, open_queue
from hitl_nb.errors import MigrationFailed, QueueTooNew
from hitl_nb.queue.file import SCHEMA_VERSION, connect, migrations
from hitl_nb.task import OPEN, Status

FILES = Path(__file__).parent / "files"
RELEASED = range(1, SCHEMA_VERSION + 1)
#: state of the tasks in each stored file that were submitted one by one, in their order
STATES = [
    *("approved", "reviewed"), *("corrected", "reviewed"), *("delivered", "reviewed"), *("undone", "pending_review"),
    *("disputed", "disputed"), *("settled", "reviewed"), *("one of two", "pending_review"), *("denied", "expired"),
    *("escalated", "pending_review"), *("withdrawn", "withdrawn"), *("replaced", "pending_review"),
    *("erased", "reviewed"), *("claimed", "claimed"), *("pending", "pending_review"),
]  # fmt: skip
#: steps that no version has: one with new columns and new contents, one that can run once only
STEPS = {
    SCHEMA_VERSION + 1: """
        ALTER TABLE task ADD COLUMN urgency DOUBLE;
        UPDATE task SET urgency = 10 * priority;
        CREATE TABLE tally (said VARCHAR NOT NULL);
        INSERT INTO tally SELECT 'of ' || count(*) FROM task
    """,
    SCHEMA_VERSION + 2: "ALTER TABLE task DROP COLUMN urgency; INSERT INTO tally VALUES ('second')",
}
LAST = max(STEPS)


def stored(tmp_path, version=SCHEMA_VERSION):
    path = tmp_path / "reviews.duckdb"
    path.write_bytes(gzip.decompress((FILES / f"queue-v{version}.duckdb.gz").read_bytes()))
    return path


def opened(path):
    """Open a stored queue at the time at which it was left: a lease is alive, and nothing happens by itself."""
    return open_queue(path, clock=lambda: datetime(2026, 1, 5, 9, 4))


def contents(path):
    """Return every line of every table, and the columns."""
    with duckdb.connect(path) as raw:
        names = [name for (name,) in raw.sql("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
        return {name: (raw.table(name).columns, sorted(map(repr, raw.table(name).fetchall()))) for name in names}


def columns(path):
    with duckdb.connect(path) as raw:
        asked = "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() ORDER BY 1, column_index"
        return raw.sql(asked).fetchall()


def version(path):
    with duckdb.connect(path) as raw:
        return int(raw.sql("SELECT value FROM meta WHERE name = 'schema_version'").fetchall()[0][0])


def test_each_version_has_its_migration_and_its_stored_file():
    assert sorted(migrations()) == list(RELEASED)[1:]
    assert {path.name for path in FILES.glob("*.gz")} == {f"queue-v{number}.duckdb.gz" for number in RELEASED}


@pytest.mark.parametrize("released", RELEASED)
def test_a_file_of_a_released_version_is_whole(tmp_path, released):
    path = stored(tmp_path, released)
    with opened(path) as queue:
        assert queue.verify() == []
        tasks = list(dict.fromkeys(event["task_id"] for event in queue.events() if event["move"] == "submit"))
        assert [queue.get(task_id).status for task_id in tasks[:14]] == STATES[1::2]
        assert {queue.get(task_id).status for task_id in tasks} == set(Status)
        for task_id, name in zip(tasks, STATES[::2], strict=False):
            text = {"erased": None, "replaced": {"text": "new"}}.get(name, {"text": f"<{name}> ü"})
            assert name == "erased" or queue.get(task_id).input_data == text
            assert queue.explain(task_id)
        assert len(queue.history()) == len(tasks) == 44
        assert queue.rebuild() == 44
        assert queue.verify() == []


@pytest.mark.parametrize("released", RELEASED)
def test_every_open_task_of_a_released_version_can_be_answered(tmp_path, released):
    everybody = Reviewer(id="new", expertise=("law",), roles=("reviewer", "adjudicator"))
    with opened(stored(tmp_path, released)) as queue:
        queue.release(queue.pending(limit=1)[0].task_id, "bob")
        waiting = {task.task_id for task in queue.pending(limit=1000)}
        assert len(waiting) >= 7
        while tasks := queue.claim(everybody, n=50):
            for task in tasks:
                queue.resolve(task.task_id, everybody, "approve")
        assert {queue.get(task_id).status for task_id in waiting} == {Status.REVIEWED}
        assert not set(queue.history()["status"]) & set(OPEN)
        again = queue.events()
        [once] = [event for event in again if event["submit_id"] == "once"]
        assert queue.resolve(once["task_id"], "ann", "reject", submit_id="once").outcome == "reject"
        assert queue.events() == again  # a repeated answer is still the first one
        assert queue.verify() == []


@pytest.mark.parametrize("released", RELEASED)
def test_a_file_that_was_brought_forward_has_the_tables_of_a_new_one(tmp_path, released):
    path = stored(tmp_path, released)
    open_queue(path).close()
    open_queue(tmp_path / "new.duckdb").close()
    assert columns(path) == columns(tmp_path / "new.duckdb")
    assert version(path) == SCHEMA_VERSION


def test_tokens_of_a_stored_file_let_in_who_they_let_in_before(tmp_path):
    with opened(stored(tmp_path)) as queue:
        assert queue.token_of("hitl_holds").person == Reviewer(id="lea", expertise=("law",))
        assert queue.token_of("hitl_revoked") is None
        assert [token.id for token in queue.tokens()] == ["holds", "revoked"]


# -- the way forward, with steps that a later version could take


def test_migrations_run_once_in_order_and_tell_where_the_old_file_is(tmp_path, caplog):
    path = stored(tmp_path)
    path.chmod(0o600)
    before = contents(path)
    with caplog.at_level(logging.WARNING, "hitl_nb"):
        connect(str(path), STEPS).close()
    backup = tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION}-backup"
    [said] = caplog.messages
    assert str(path) in said
    assert str(backup) in said
    after = contents(path)
    assert after["tally"] == (["said"], ["('of 44',)", "('second',)"])
    assert {name: after[name] for name in ("task", "event", "payload")} == {
        name: before[name] for name in ("task", "event", "payload")
    }
    assert version(path) == LAST
    assert backup.stat().st_mode & 0o777 == 0o600
    assert contents(backup) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, backup.name]

    connect(str(path), STEPS).close()
    assert contents(path) == after
    assert len(caplog.messages) == 1


def test_each_step_of_two_versions_is_taken_by_whoever_comes_later(tmp_path):
    path, first = stored(tmp_path), {SCHEMA_VERSION + 1: STEPS[SCHEMA_VERSION + 1]}
    connect(str(path), first).close()
    with duckdb.connect(path) as raw:
        assert raw.sql("SELECT count(*) FROM task WHERE urgency = 10 * priority").fetchall() == [(44,)]
    connect(str(path), STEPS).close()
    assert contents(path)["tally"][1] == ["('of 44',)", "('second',)"]
    assert version(tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION + 1}-backup") == SCHEMA_VERSION + 1
    with pytest.raises(QueueTooNew):
        connect(str(path), first)


def test_the_copy_is_a_queue(tmp_path):
    path = stored(tmp_path)
    connect(str(path), STEPS).close()
    with pytest.raises(QueueTooNew) as caught:
        open_queue(path)
    assert (caught.value.version, caught.value.known) == (LAST, SCHEMA_VERSION)
    with opened(tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION}-backup") as queue:
        assert queue.verify() == []
        assert queue.stats().total == 44


def test_a_new_file_needs_no_migration(tmp_path):
    connect(str(tmp_path / "q.duckdb")).close()
    assert [file.name for file in tmp_path.iterdir()] == ["q.duckdb"]


ENDLESS = "COPY (SELECT 1) TO '{marker}'; SELECT max(a.range * b.range) FROM range(1000000000) a, range(1000000000) b"
CHILD = """
import json, sys
from hitl_nb.queue.file import connect
connect(sys.argv[1], {int(version): sql for version, sql in json.loads(sys.argv[2]).items()})
"""


@pytest.mark.parametrize("at", STEPS)
def test_a_process_killed_in_a_migration_leaves_it_done_or_not_begun(tmp_path, at):
    path, marker = stored(tmp_path), tmp_path / "in the middle"
    before = contents(path)
    steps = STEPS | {at: f"{STEPS[at]}; {ENDLESS.format(marker=marker)}"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), json.dumps(steps)])
    try:
        while not marker.exists():
            assert child.poll() is None
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert version(path) == at - 1
    if at - 1 == SCHEMA_VERSION:
        assert contents(path) == before
        with opened(path) as queue:
            assert queue.verify() == []
    else:
        assert contents(path)["tally"][1] == ["('of 44',)"]
    connect(str(path), STEPS).close()
    assert version(path) == LAST
    assert contents(path)["tally"][1] == ["('of 44',)", "('second',)"]
    assert contents(tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION}-backup") == before


def test_what_a_killed_process_left_of_a_copy_is_made_anew(tmp_path):
    path = stored(tmp_path)
    before = contents(path)
    for torn in (".part", ".part.wal"):
        (tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION}-backup{torn}").write_bytes(b"torn")
    connect(str(path), STEPS).close()
    assert contents(tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION}-backup") == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("broken", ["a step", "the version", "no copy"])
def test_a_migration_that_fails_changes_nothing_and_says_so(tmp_path, broken):
    path, steps = stored(tmp_path), dict(STEPS)
    before = contents(path)
    if broken == "a step":
        steps[SCHEMA_VERSION + 1] += "; INSERT INTO tally VALUES (NULL)"
    elif broken == "the version":
        steps[SCHEMA_VERSION + 1] += "; ALTER TABLE meta RENAME TO facts"  # so its number cannot be written
    else:
        (tmp_path / f"reviews.duckdb.v{SCHEMA_VERSION}-backup.part").mkdir()
    with pytest.raises(MigrationFailed) as caught:
        connect(str(path), steps)
    assert str(path) in str(caught.value)
    assert contents(path) == before
    with opened(path) as queue:
        assert queue.verify() == []
