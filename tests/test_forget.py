"""What an erasure says of the copies and models that may hold the data still."""

import os
from dataclasses import replace

import duckdb
import pytest
from conftest import over_http
from sklearn.linear_model import LogisticRegression

from hitl_nb import open_queue
from hitl_nb.errors import BadInput
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.loop import Loop
from hitl_nb.queue.change import Copy
from hitl_nb.queue.request import Requests


@pytest.fixture(params=["here", "http"])
def queue(request, tmp_path, clock):
    with open_queue(tmp_path / "q.duckdb", clock=clock) as opened:
        if request.param == "here":
            yield opened
            return
        with over_http(opened) as remote:
            yield remote


def put(queue, subject="eva", **more):
    return queue.submit(
        **{"input_data": {"n": 1.0}, "ai_prediction": {"label": "a"}, "reason": "r", "subject": subject} | more
    )


def named(found):
    return [(copy.kind, os.path.basename(copy.path), copy.there) for copy in found.copies]


def test_every_copy_since_the_first_task_is_named_and_whether_it_is_there(queue, clock, tmp_path):
    put(queue, "bob")
    queue.backup(tmp_path / "too early.duckdb")
    put(queue)
    queue.backup(tmp_path / "kept.duckdb")
    queue.backup(tmp_path / "lost.duckdb")
    clock.forward(days=1)
    queue.snapshot(tmp_path / "snap")
    queue.export(tmp_path / "out.csv")
    clock.forward(days=1)
    queue.export(tmp_path / "out.csv")
    (tmp_path / "lost.duckdb").unlink()
    found = queue.forget("eva")
    assert named(found) == [
        ("backup", "kept.duckdb", True),
        ("backup", "lost.duckdb", False),
        ("snapshot", "snap", True),
        ("export", "out.csv", True),
    ]
    assert found.copies[-1] == Copy(kind="export", path=str(tmp_path / "out.csv"), at_time=clock.aware)
    assert found.models == ()
    said = str(found)
    assert str(tmp_path / "kept.duckdb") in said
    assert "gone" in said
    assert "delete what is there" in said
    assert [name for name, *_ in named(queue.forget("bob"))] == ["backup"] * 3 + ["snapshot", "export"]


def test_without_a_copy_it_says_so(queue):
    put(queue)
    found = queue.forget("eva")
    assert (found.copies, found.models) == ((), ())
    assert "no copy and no model is known" in str(found)


def test_a_place_that_cannot_be_looked_at_is_unknown():
    copy = Copy(kind="export", path="\0", at_time=None)
    assert copy.there is None
    assert replace(copy, path="/nowhere/at/all").there is False


def test_a_path_is_logged_as_text_and_shown_as_text(queue, tmp_path):
    put(queue)
    queue.export(tmp_path / "<b>\u202e.csv")
    found = queue.forget("eva")
    assert "⟨U+202E⟩" in str(found)
    assert "<b>" not in found._repr_html_()


def test_a_path_that_is_no_text_is_logged_all_the_same(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        put(queue)
        queue.export(tmp_path / os.fsdecode(b"\xff.csv"))
        assert queue.forget("eva").copies[0].path.endswith("\\xff.csv")


def test_a_copy_that_is_refused_is_not_logged(queue, tmp_path):
    put(queue)
    for call in (lambda: queue.export(tmp_path / "out.txt"), lambda: queue.backup(tmp_path)):
        with pytest.raises(BadInput):
            call()
    assert queue.forget("eva").copies == ()


def test_models_that_were_fitted_after_an_answer_are_named(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        models = ModelStore(tmp_path / "models")
        loop = Loop(queue, Learner(LogisticRegression(), min_samples=2), models=models)

        def answer(subject, n):
            for x in (1.0, 4.0) * n:
                task = put(queue, subject, input_data={"x": x}, confidence=0.5)
                label = {"label": "high" if x > 2 else "low"}
                queue.resolve(task.task_id, "ann", "correct", label)
            loop.refresh()
            return loop.retrain(force=True).challenger.version

        versions = [answer("bob", 4), answer("eva", 4)]
        put(queue, "open")
        assert queue.forget("open").models == ()
        assert queue.forget("eva").models == (f"{versions[1]} in {tmp_path / 'models'}",)
        assert queue.forget("bob").models == tuple(f"{v} in {tmp_path / 'models'}" for v in versions)


def test_a_repeated_erasure_tells_the_same(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        put(queue)
        done = put(queue)
        queue.resolve(done.task_id, "ann", "approve")
        queue.note("retrain", {"model": "v1"})
        queue.backup(tmp_path / "b.duckdb")
        requests = Requests(lambda: queue)
        first = requests.do("forget", ["eva"], {}, "request")
        queue.backup(tmp_path / "later.duckdb")
        queue.note("retrain", {"model": "v2"})
        assert requests.do("forget", ["eva"], {}, "request", again=True) == first
        assert (named(first), first.models) == ([("backup", "b.duckdb", True)], ("v1",))


@pytest.mark.parametrize("facts", [{}, {"path": 7}, {"model": None}, {"model": ["<b>"], "folder": {}}])
def test_odd_notes_do_not_disturb_an_erasure(queue, facts):
    done = put(queue)
    queue.resolve(done.task_id, "ann", "approve")
    queue.note("backup", facts)
    queue.note("retrain", facts)
    assert str(queue.forget("eva"))


def test_a_backup_made_after_an_erasure_holds_nothing_of_it(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        put(queue, input_data={"text": "SECRETWORD"})
        put(queue, "bob", input_data={"text": "OTHERWORD"})
        queue.store.checkpoint()
        queue.forget("eva")
        queue.backup(tmp_path / "b.duckdb")
    data = (tmp_path / "b.duckdb").read_bytes()
    assert b"SECRETWORD" not in data
    assert b"OTHERWORD" in data


# -- what must never be in a file


def test_no_operation_leaves_an_index_or_a_constraint(tmp_path, clock):
    path = tmp_path / "q.duckdb"

    def look():
        with duckdb.connect(str(path)) as raw:
            assert raw.execute("FROM duckdb_indexes()").fetchall() == []
            kinds = raw.execute("SELECT DISTINCT constraint_type FROM duckdb_constraints()").fetchall()
            assert kinds == [("NOT NULL",)]

    steps = [
        lambda queue: None,
        lambda queue: [put(queue, key=f"k{i}") for i in range(40)],
        lambda queue: [queue.resolve(task.task_id, "ann", "approve") for task in queue.claim("ann", n=9)],
        lambda queue: queue.undo(queue.history().dropna(subset="outcome")["task_id"].iloc[0], "ann"),
        lambda queue: queue.replace(queue.pending()[0].task_id, {"n": 2}, {"label": "b"}),
        lambda queue: (clock.forward(days=1), queue.tick()),
        lambda queue: (queue.export(str(tmp_path / "o.parquet")), queue.snapshot(str(tmp_path / "s"))),
        lambda queue: queue.rebuild(),
        lambda queue: queue.forget("eva"),
    ]
    for step in steps:
        with open_queue(path, clock=clock) as queue:
            step(queue)
            assert queue.verify() == []
        look()
    with open_queue(path, clock=clock) as queue:
        queue.backup(tmp_path / "b.duckdb")
    path = tmp_path / "b.duckdb"
    look()


@pytest.mark.parametrize("sql", ["CREATE INDEX i ON task (status)", "CREATE UNIQUE INDEX i ON event (seq)"])
def test_an_index_that_somebody_made_is_a_problem(tmp_path, sql):
    path = tmp_path / "q.duckdb"
    open_queue(path, serve=None).close()
    with duckdb.connect(str(path)) as raw:
        raw.execute(sql)
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == ["index i should not be there: this file has none"]


def test_ids_are_version_7_and_in_order_whatever_made_them(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        ids = [put(queue).task_id for _ in range(300)]
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue:
        ids += [put(queue).task_id for _ in range(300)]
    assert {task_id[14] for task_id in ids} == {"7"}
    assert {task_id[19] for task_id in ids} <= set("89ab")
    assert ids == sorted(set(ids))


def test_a_new_file_holds_its_tables_before_anything_waits_in_the_log(tmp_path):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None):
        assert not os.path.exists(f"{path}.wal")  # after CREATE TABLE comes a CHECKPOINT
