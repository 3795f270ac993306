"""Several processes on one file: one owns it, the others talk to that one, and take over when it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import START, over_http

from hitl_nb import Orchestrator, Policy, connect, open_queue
from hitl_nb.errors import (
    LeaseLost,
    NoCanonicalForm,
    OwnerEnded,
    QueueClosed,
    QueueLocked,
    QueueTooNew,
    SubmitConflict,
    TaskNotFound,
    WrongToken,
)
from hitl_nb.orchestrator.route import route_one
from hitl_nb.queue import ReviewQueue, endpoint, wire
from hitl_nb.queue.http import OwnerGone, RemoteQueue
from hitl_nb.queue.request import ONCE, SAFE, Requests
from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.token import Token
from hitl_nb.server import TURN

#: far longer than anything here takes
LONG = 60


def child(code, *args):
    """Start a process that runs ``code``; it ends at the latest with this one's pipe."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


OWN = """
    import sys
    from hitl_nb import open_queue
    queue = open_queue(sys.argv[1], **eval("dict(" + ",".join(sys.argv[2:]) + ")"))
    print(type(queue).__name__, flush=True)
    sys.stdin.read()
    queue.close()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "q.duckdb"


@pytest.fixture
def owner(path):
    """A process that owns the file."""
    with child(OWN, path) as process:
        assert process.stdout.readline() == "ReviewQueue\n"
        yield process
        process.kill()


def put(queue, **more):
    return queue.submit(**{"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"} | more)


def impatient(monkeypatch):
    monkeypatch.setattr(connect, "PATIENCE", 0.3)


# -- two processes


def test_a_second_process_works_on_the_same_file(path, owner):
    with open_queue(path) as queue:
        assert isinstance(queue, RemoteQueue)
        assert open_queue(path) is queue
        task = put(queue)
        assert queue.get(task.task_id) == task
        [mine] = queue.claim("ann")
        review = queue.resolve(mine.task_id, "ann", "correct", {"label": "b"})
        assert queue.history()["label"].tolist() == ["b"]
        assert queue.get(task.task_id).reviews == (review,)
        with pytest.raises(TaskNotFound):
            queue.get("nothing")
        assert "1" in str(queue._table())
        queue.close()
        with pytest.raises(QueueClosed):
            queue.stats()
    owner.stdin.close()
    assert owner.wait(LONG) == 0
    assert not endpoint.beside(str(path)).exists()
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == 1
        assert queue.verify() == []


def test_an_owner_lets_calls_have_their_turn_soon_once_somebody_calls(path):
    code = OWN.replace("sys.stdin.read()", "while sys.stdin.readline(): print(sys.getswitchinterval(), flush=True)")
    with child(code, path) as process:

        def turn():
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        assert process.stdout.readline() == "ReviewQueue\n"
        assert turn() == 0.005  # Python's own, while nobody calls
        with open_queue(path) as queue:
            queue.stats()
            assert turn() == TURN
        process.stdin.close()


TWO_SERVERS = """
import sys
from conftest import over_http
from hitl_nb import open_queue

with open_queue(":memory:") as first, over_http(first) as one:
    one.stats()
    with open_queue(":memory:") as second, over_http(second) as two:
        two.stats()
        print(sys.getswitchinterval())
    print(sys.getswitchinterval())
print(sys.getswitchinterval())
"""


def test_turns_are_as_they_were_when_the_last_server_of_a_process_has_ended():
    command = [sys.executable, "-c", TWO_SERVERS]
    done = subprocess.run(command, cwd=os.path.dirname(__file__), capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(TURN), str(TURN), "0.005"], done.stderr


def test_what_an_orchestrator_stores_is_the_same_from_a_client(path, owner, tmp_path):
    inputs = pd.DataFrame(
        {"n": [1, 2, 3], "f": [0.1, np.nan, 1e22], "t": ["a", None, "\x01é"], "o": [{"a": 1}, [2], None]}
    )
    predictions = pd.DataFrame({"label": ["a"] * 3, "confidence": np.array([0.5, 0.95, 0.2], "f4")})
    stored = []
    for where in (path, tmp_path / "alone.duckdb"):
        with open_queue(where) as queue:
            orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0))
            orchestrator.process_frame(inputs, predictions, key=["x", "y", "z"])
            again = orchestrator.process_frame(inputs, predictions, key=["x", "y", "z"])
            assert sorted(again["task_id"]) == sorted(queue.history()["task_id"])
            told = orchestrator.process({"n": 9}, {"label": "b", "confidence": 0.1}, key="w")
            assert orchestrator.process({"n": 9}, {"label": "b", "confidence": 0.1}, key="w") == told
            orchestrator.process_frame(inputs, predictions)
            queue.backup(tmp_path / f"copy of {where.name}")
        with open_queue(tmp_path / f"copy of {where.name}", serve=None) as copy:
            assert copy.verify() == []
            ids = sorted(copy.history()["task_id"])
            rows = copy.store.read(lambda tx, ids=ids: tx.rows("get_payloads", task_ids=ids))
            stored.append(sorted(row[1:] for row in rows))
    assert len(stored[0]) > 12
    assert stored[0] == stored[1]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"n": [1.0, 2.0]}, index=pd.Index([5, 6], name=0)),
        pd.DataFrame({"n": np.array([0.1, 2.5], ">f8")}),
        pd.DataFrame({"n": np.array([0.1, 2.5], np.longdouble)}),
        pd.DataFrame({"n": pd.Categorical(["a", None]), "t": pd.to_datetime(["2026-01-01", None], utc=True)}),
    ],
    ids=["index named 0", "big-endian", "long double", "categories and times"],
)
def test_odd_frames_are_stored_the_same_by_a_client(path, owner, frame):
    predictions = pd.DataFrame({"label": ["a", "b"], "confidence": [0.5, 0.6]}, index=frame.index)
    stored = []
    for where in (path, ":memory:"):
        with open_queue(where) as queue:
            ids = Orchestrator(queue=queue, policy=Policy(0.85)).process_frame(frame, predictions)["task_id"]
            stored.append([queue.get(task_id).shown for task_id in ids])
    assert stored[0] == stored[1]


def test_a_cell_that_cannot_be_stored_is_named_by_a_client_too(path, owner):
    frame = pd.DataFrame({"amount": [1j, 2j]})
    predictions = pd.DataFrame({"label": ["a", "b"], "confidence": [0.5, 0.6]})
    with open_queue(path) as queue, pytest.raises(NoCanonicalForm, match="amount"):
        Orchestrator(queue=queue).process_frame(frame, predictions)


def test_a_waiting_client_is_woken_by_a_review_elsewhere(path, owner, monkeypatch):
    monkeypatch.setattr("hitl_nb.orchestrator.orchestrator.POLL", 10 * LONG)
    with open_queue(path) as queue:
        orchestrator = Orchestrator(queue=queue)
        task, found = put(queue), []
        waiter = threading.Thread(target=lambda: found.append(orchestrator.wait(task.task_id, LONG)))
        waiter.start()
        review = queue.resolve(task.task_id, "ann", "approve")
        waiter.join(LONG)
        assert found == [review]


def test_a_file_that_is_not_shared_names_who_has_it(path, monkeypatch):
    impatient(monkeypatch)
    with child(OWN, path, "serve=None") as process:
        assert process.stdout.readline() == "ReviewQueue\n"
        assert not endpoint.beside(str(path)).exists()
        with pytest.raises(QueueLocked) as error:
            open_queue(path)
        assert error.value.pid == process.pid
        process.kill()


# -- the owner ends

WORK = """
    import sys, threading, uuid
    from hitl_nb import open_queue
    queue = open_queue(sys.argv[1])
    print(type(queue).__name__, flush=True)
    def work(me):
        while not ended:
            task = queue.submit(input_data={"n": uuid.uuid4().hex}, ai_prediction={}, reason="r")
            line = [task.task_id, "submit"]
            for mine in queue.claim(me):
                review = queue.resolve(mine.task_id, me, "approve")
                line += [mine.task_id, str(mine.attempt)]
            print(" ".join(line) + chr(10), end="", flush=True)  # in one piece, of two threads
    ended = []
    threads = [threading.Thread(target=work, args=(f"{sys.argv[2]}-{i}",)) for i in range(2)]
    for thread in threads: thread.start()
    sys.stdin.read()
    ended.append(1)
    for thread in threads: thread.join()
    queue.close()
"""


def lines_of(process):
    """Read a process's lines as they come; (lines, thread that reads)."""
    lines = []
    thread = threading.Thread(target=lambda: [lines.append(line) for line in process.stdout], daemon=True)
    thread.start()
    return lines, thread


def until(condition, seconds=LONG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_when_the_owner_is_killed_the_others_go_on_and_nothing_is_lost_or_doubled(path, owner):
    workers = [child(WORK, path, name) for name in ("a", "b", "c")]
    try:
        said = [lines_of(worker) for worker in workers]
        until(lambda: all(len(lines) > 8 for lines, _ in said))
        assert {lines[0] for lines, _ in said} == {"RemoteQueue\n"}
        owner.kill()
        before = [len(lines) for lines, _ in said]
        until(lambda: all(len(lines) > n + 10 for (lines, _), n in zip(said, before, strict=True)))
        second = endpoint.read(str(path)).pid  # one of them has it now; it is killed, too
        assert second in [worker.pid for worker in workers]
        killed = next(worker for worker in workers if worker.pid == second)
        killed.kill()
        rest = [(worker, lines) for worker, (lines, _) in zip(workers, said, strict=True) if worker is not killed]
        before = [len(lines) for _, lines in rest]
        until(lambda: all(len(lines) > n + 10 for (_, lines), n in zip(rest, before, strict=True)))
        for worker, _ in rest:
            worker.stdin.close()
        assert [worker.wait(LONG) for worker, _ in rest] == [0, 0]
        [thread.join(LONG) for _, thread in said]
    finally:
        [worker.kill() for worker in workers]
    acknowledged = [line.split() for lines, _ in said for line in lines[1:] if line.endswith("\n")]
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == []
        tasks = {task.task_id: task for task in map(queue.get, queue.history()["task_id"])}
        assert {line[0] for line in acknowledged} <= set(tasks)
        assert {line[2] for line in acknowledged if len(line) > 2} <= {
            key for key, task in tasks.items() if task.status == "reviewed"
        }
        inputs = Counter(task.input_data["n"] for task in tasks.values())
        assert set(inputs.values()) == {1}  # no submission twice
        log = queue.events(limit=100_000)
        reviews = Counter(event["task_id"] for event in log if event["move"] == "review")
        assert set(reviews.values()) == {1}
        assert max(event["attempt"] or 0 for event in log) <= 2  # a claim was repeated with the same lease
        answered = Counter((line[2], line[3]) for line in acknowledged if len(line) > 2)
        assert set(answered.values()) == {1}


def test_when_the_owner_closes_a_client_takes_the_file_over(path, owner):
    with open_queue(path) as queue:
        task = put(queue)
        woken = threading.Event()
        end = queue.watch(task.task_id, woken.set)
        owner.stdin.close()
        assert owner.wait(LONG) == 0
        queue.claim("ann")
        assert endpoint.read(str(path)).pid == os.getpid()
        assert woken.wait(LONG)
        with child(OWN, path) as third:
            assert third.stdout.readline() == "RemoteQueue\n"
            third.kill()
        woken.clear()
        queue.release(task.task_id, "ann")
        assert woken.wait(LONG)
        end()


RACE = """
    import sys
    from hitl_nb import open_queue
    print("ready", flush=True)
    sys.stdin.readline()
    queue = open_queue(sys.argv[1])
    queue.submit(input_data={}, ai_prediction={}, reason="r")
    print(type(queue).__name__, flush=True)
    sys.stdin.read()
    queue.close()
"""


def test_of_three_that_race_for_a_file_one_owns_it_and_all_work(path):
    racers = [child(RACE, path) for _ in range(3)]
    try:
        assert {racer.stdout.readline() for racer in racers} == {"ready\n"}
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        kinds = sorted(racer.stdout.readline() for racer in racers)
        assert kinds == ["RemoteQueue\n", "RemoteQueue\n", "ReviewQueue\n"]
        for racer in racers:
            racer.stdin.close()
        assert [racer.wait(LONG) for racer in racers] == [0, 0, 0]
    finally:
        [racer.kill() for racer in racers]
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == 3


SLOW = """
    from hitl_nb.queue.hold import Hold
    trust = Hold.trust
    def slow(hold, seq):
        print("opens", flush=True)
        sys.stdin.readline()
        trust(hold, seq)
    Hold.trust = slow
"""


def test_an_owner_that_opens_a_file_for_ten_seconds_is_waited_for(path, monkeypatch):
    with child(OWN.replace("import sys", "import sys" + SLOW), path) as owner:
        assert owner.stdout.readline() == "opens\n"
        now = [0.0]

        def sleep(seconds):
            now[0] += seconds
            if 10 < now[0] < 10 + seconds:
                owner.stdin.write("go\n")
                owner.stdin.flush()
                assert owner.stdout.readline() == "ReviewQueue\n"

        monkeypatch.setattr(connect, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
        with open_queue(path) as queue:
            assert isinstance(queue, RemoteQueue)
            put(queue)


def test_a_process_of_its_own_owns_the_file_and_ends_when_it_is_asked_to(path):
    with open_queue(path, serve="process") as queue:
        assert isinstance(queue, RemoteQueue)
        put(queue)
        first = endpoint.read(str(path)).pid
        assert first != os.getpid()
        os.kill(first, signal.SIGKILL)
        put(queue)
        second = endpoint.read(str(path)).pid
        assert second not in (first, os.getpid())
        os.kill(second, signal.SIGTERM)
    until(lambda: not endpoint.beside(str(path)).exists())
    with open_queue(path, serve=None) as queue:
        assert queue.stats().total == 2


def test_the_token_of_a_served_queue_is_none_of_a_files(path, monkeypatch):
    monkeypatch.setenv("HITL_NB_TOKEN", "hitl_of_a_served_queue")
    with open_queue(path, serve="process") as queue:
        put(queue)
        owner = endpoint.read(str(path))
        assert owner.token
        assert b"hitl_of_a_served_queue" not in Path(f"/proc/{owner.pid}/environ").read_bytes()
        code = f"from hitl_nb import open_queue; print(open_queue({str(path)!r}).stats().total)"
        assert subprocess.check_output([sys.executable, "-c", code], timeout=LONG).strip() == b"1"
        doctor = [sys.executable, "-m", "hitl_nb.cli", "doctor", str(path)]
        assert subprocess.run(doctor, timeout=LONG).returncode == 0


def test_an_owner_process_takes_the_token_that_it_was_opened_with_and_no_short_one(path):
    with open_queue(path, serve="process", token="long enough"):
        assert endpoint.read(str(path)).token == ""
        other = "from hitl_nb import open_queue; open_queue(%r, token=%r).stats()"
        for token, code in (("long enough", 0), ("another one", 1)):
            command = [sys.executable, "-c", other % (str(path), token)]
            assert subprocess.run(command, capture_output=True, timeout=LONG).returncode == code
        for token, code in (("long enough", 0), ("another one", 1)):
            doctor = [sys.executable, "-m", "hitl_nb.cli", "doctor", str(path)]
            environment = os.environ | {"HITL_NB_OWNER_TOKEN": token}
            assert subprocess.run(doctor, env=environment, capture_output=True, timeout=LONG).returncode == code
    command = [sys.executable, "-m", "hitl_nb.cli", "serve", str(path) + "2", "--idle", "0"]
    ended = subprocess.run(command, env=os.environ | {"HITL_NB_OWNER_TOKEN": "x"}, capture_output=True, timeout=LONG)
    assert ended.returncode != 0
    assert b"8 or more" in ended.stderr


def test_an_owner_process_that_ends_at_once_is_told_and_not_started_for_ever(path):
    endpoint.beside(str(path)).mkdir(parents=True)  # where it should say how to reach it
    with pytest.raises(OwnerEnded, match="hitl-nb serve") as error:
        open_queue(path, serve="process")
    assert error.value.times == connect.STARTED
    with open_queue(path) as queue:
        assert queue.stats().total == 0


def test_an_owner_process_that_nobody_calls_ends(path):
    done = subprocess.run([sys.executable, "-m", "hitl_nb.cli", "serve", str(path), "--idle", "0"], timeout=LONG)
    assert done.returncode == 0
    assert path.exists()
    assert not endpoint.beside(str(path)).exists()


# -- the endpoint file


def test_the_endpoint_file_is_for_its_owner_alone(path):
    with open_queue(path):
        place = endpoint.beside(str(path))
        assert place.stat().st_mode & 0o777 == 0o600
        found = endpoint.read(str(path))
        assert (found.pid, found.path, found.alive) == (os.getpid(), str(path), True)
        assert len(found.token) > 30
    assert list(path.parent.iterdir()) == [path]


GARBAGE = {
    "empty": b"",
    "no json": b"\xff\x00",
    "deep": b"[" * 4000,
    "large": b" " * 5000,
    "list": b"[1]",
    "no fields": b"{}",
    "another host": b'{"path":"PATH","pid":1,"started":"","address":"http://10.0.0.1:80","token":"t","schema":1}',
    "another file": b'{"path":"/x","pid":1,"started":"","address":"http://127.0.0.1:80","token":"t","schema":1}',
    "wrong types": b'{"path":"PATH","pid":"1","started":"","address":"http://127.0.0.1:80","token":"t","schema":1}',
    "all processes": b'{"path":"PATH","pid":-1,"started":"","address":"http://127.0.0.1:80","token":"t","schema":1}',
    "no such process": b'{"path":"PATH","pid":4194304,"started":"","address":"http://127.0.0.1:80","token":"t","schema":1}',
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_the_endpoint_file_hinders_nobody(path, text, monkeypatch):
    impatient(monkeypatch)
    place = endpoint.beside(str(path))
    place.write_bytes(text.replace(b"PATH", str(path).encode()))
    place.chmod(0o600)
    with open_queue(path) as queue:
        assert type(queue) is ReviewQueue
        assert endpoint.read(str(path)).pid == os.getpid()
        place.write_bytes(text.replace(b"PATH", str(path).encode()))
        with child(
            OWN.replace("queue =", "from hitl_nb import connect; connect.PATIENCE = 0.3; queue ="), path
        ) as other:
            assert other.wait(LONG) == 1  # QueueLocked
        queue.stats()


@pytest.mark.parametrize("kind", ["readable", "link", "pipe", "folder"])
def test_an_endpoint_file_that_others_could_have_made_is_not_read(path, kind):
    place = endpoint.beside(str(path))
    with open_queue(path):
        real = place.with_name("real")
        place.rename(real)
        assert endpoint.read(str(path)) is None
        if kind == "readable":
            real.rename(place)
            place.chmod(0o644)
        elif kind == "link":
            place.symlink_to(real)
        elif kind == "pipe":
            os.mkfifo(place, 0o600)
        else:
            place.mkdir(0o600)
        assert endpoint.read(str(path)) is None


def forge(path, **fields):
    """Change the endpoint file of an owner that lives."""
    replace(endpoint.read(str(path)), **fields).write()


def test_a_stale_endpoint_file_of_a_number_that_another_process_has_now(path, owner):
    forge(path, started="1")
    assert not endpoint.read(str(path)).alive
    owner.kill()
    owner.wait()
    forge(path, pid=os.getpid(), started=endpoint.started(os.getpid()))  # alive, but it answers nobody there
    with open_queue(path) as queue:
        assert type(queue) is ReviewQueue


@pytest.mark.parametrize(("schema", "error"), [(99, QueueTooNew), (0, QueueLocked)])
def test_an_owner_of_another_version_is_named_and_not_talked_to(path, owner, schema, error):
    forge(path, schema=schema)
    with pytest.raises(error) as caught:
        open_queue(path)
    assert str(path) in str(caught.value)


# -- the door


def test_a_wrong_token_is_refused_by_name(path):
    with child(OWN, path, "token='the right one'") as process:
        assert process.stdout.readline() == "ReviewQueue\n"
        assert endpoint.read(str(path)).token == ""
        for token in ("a wrong one", None):
            with pytest.raises(WrongToken) as error:
                open_queue(path, token=token)
            assert error.value.pid == process.pid
        with open_queue(path, token="the right one") as queue:
            put(queue)
        process.kill()


@pytest.fixture
def door(path, clock):
    """A queue, its client, and a bare way to its server."""
    with open_queue(path, clock=clock) as queue, over_http(queue) as remote:
        line = remote._reach()
        with httpx.Client(base_url=line.endpoint.address, trust_env=False) as bare:
            yield queue, remote, bare


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}, {"Authorization": "Bearer é"}]
)
@pytest.mark.parametrize(
    ("method", "path_"), [("GET", "/health"), ("GET", "/changes?task_id=x"), ("POST", "/queue/stats")]
)
def test_nobody_gets_in_without_the_token(door, header, method, path_):
    _, _, bare = door
    header = {key: value.encode() for key, value in header.items()}
    answer = bare.request(method, path_, headers=header)
    assert answer.status_code == 401
    assert isinstance(wire.load_error(answer.content), WrongToken)


INSIDE = {"Authorization": "Bearer a long token"}


def test_only_the_calls_of_a_queue_are_there(door):
    _, _, bare = door
    nothing = wire.dump({"args": [], "more": {}, "request": "1", "again": False})
    for call in ("close", "__init__", "_write", "store", "leaving", "watch", "new_ids", "ended", "__class__"):
        assert bare.post(f"/queue/{call}", headers=INSIDE, content=nothing).status_code == 422
    for place in ("/docs", "/openapi.json", "/", "//queue/stats", "/queue/stats/x"):
        assert bare.get(place).status_code == 401
        assert bare.get(place, headers=INSIDE).status_code == bare.post(place, headers=INSIDE).status_code == 422
    assert bare.post("/queue/stats", headers=INSIDE, content=nothing).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'{"args":3,"more":{},"request":null,"again":false}', b"\xff" * 99]
)
def test_a_message_that_nobody_sends_is_an_error_with_a_name(door, body):
    _, _, bare = door
    answer = bare.post("/queue/stats", headers=INSIDE, content=body)
    assert answer.status_code in (422, 500)
    assert isinstance(wire.load_error(answer.content), Exception)


def test_a_message_over_the_limit_is_refused(door, monkeypatch):
    _, _, bare = door
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    answer = bare.post("/queue/stats", headers=INSIDE, content=iter([b"x" * 600] * 3))
    assert answer.status_code == 413


def test_texts_that_are_not_canonical_are_refused(door):
    queue, remote, _ = door
    orchestrator = Orchestrator(queue=remote, policy=Policy(0.85, audit_rate=0))
    sent = []
    remote.store_decided = lambda *given: sent.append(given) or queue.store_decided(*given)
    orchestrator.process({"n": 1}, {"label": "a", "confidence": 0.1})
    ready, *rest = sent[0]
    for text in ('{"n": 1}', '{"$what":1}', "{"):
        with pytest.raises(ValueError, match="text"):
            RemoteQueue.store_decided(remote, replace(ready, texts=ready.texts | {"input": text}), *rest)
    assert queue.stats().total == 1


# -- repeats


class Deaf:
    """A line that loses the answers, or the requests, of the next calls."""

    def __init__(self, line):
        self.line, self.process = line, line.process
        self.lose = []

    def ask(self, call, message):
        what = self.lose.pop(0) if self.lose else None
        if what == "request":
            raise OwnerGone("lost")
        found = self.line.ask(call, message)
        if what == "answer":
            raise OwnerGone("lost")
        return found

    def close(self):
        pass


@pytest.fixture
def deaf(door):
    """A client that finds its line again, and the line."""
    queue, remote, _ = door
    line = Deaf(remote._reach())
    remote._line, remote._find = None, lambda: line
    yield queue, remote, line
    line.line.close()


def prepared(queue):
    """Return ids of tasks in the states that the calls below need."""
    held = [put(queue, priority="high", deadline=timedelta(hours=9)) for _ in range(2)]
    queue.claim("ann", n=2)
    answered = [put(queue).task_id for _ in range(2)]
    [queue.resolve(task_id, "ann", "approve") for task_id in answered]
    gone = put(queue, deadline=timedelta(hours=1), on_deadline="deny")
    times = {"created_at": START.replace(tzinfo=UTC), "expires_at": START.replace(tzinfo=UTC)}
    queue.store_token(Token(id="t", reviewer="ann", roles=("admin",), **times), "hash")
    return [task.task_id for task in held] + answered + [gone.task_id]


def reordered(queue):
    """Let a later model order a task anew; returns how many it did."""
    task = Orchestrator(queue=queue, policy=PLAIN).process({"n": 1}, {"confidence": 0.1})["task_id"]
    return len(queue.reorder([TaskRow(task_id=task, status="pending_review", created_at=START)], "p", {}))


PLAIN = Policy(0.85, audit_rate=0)
ASKED = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}}
CALLS = {
    "submit": lambda queue, ids: put(queue, subject="s"),
    "claim": lambda queue, ids: queue.claim("bob"),
    "claim of many": lambda queue, ids: queue.claim("bob", n=5),
    "resolve": lambda queue, ids: queue.resolve(ids[0], "ann", "approve"),
    "release": lambda queue, ids: queue.release(ids[0], "ann", "not mine"),
    "renew": lambda queue, ids: queue.renew(ids[:2], "ann", timedelta(hours=2)),
    "undo": lambda queue, ids: queue.undo(ids[2], "ann"),
    "object": lambda queue, ids: queue.object(ids[3], "bob", "no"),
    "replace": lambda queue, ids: queue.replace(ids[0], {"n": 2}, {"label": "b"}),
    "withdraw": lambda queue, ids: queue.withdraw(ids[1], "no use"),
    "note": lambda queue, ids: queue.note("x", {"y": 1}),
    "deliver": lambda queue, ids: queue.deliver(ids[2], "svc"),
    "forget": lambda queue, ids: (put(queue, subject="s"), queue.forget("s"))[1],
    "reopen": lambda queue, ids: queue.reopen(ids[4]),
    "reorder": lambda queue, ids: reordered(queue),
    "tick": lambda queue, ids: queue.tick(),
    "submit_all": lambda queue, ids: len(queue.submit_all([ASKED | {"reason": r} for r in "ab"])),
    "submit_all with keys": lambda queue, ids: [
        task.input_data for task in queue.submit_all([ASKED | {"reason": "r", "key": key} for key in "ab"])
    ],
    "store_token": lambda queue, ids: len(queue.create_token("ann")[0]),
    "revoke_token": lambda queue, ids: queue.revoke_token("t"),
    "process": lambda queue, ids: Orchestrator(queue=queue, policy=PLAIN).process({"n": 1}, {"confidence": 0.1}),
    "process_frame": lambda queue, ids: Orchestrator(queue=queue, policy=PLAIN).process_frame(
        pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"label": ["a", "b"], "confidence": [0.1, 0.99]})
    )["status"].tolist(),
    "process_frame with keys": lambda queue, ids: Orchestrator(queue=queue, policy=PLAIN).process_frame(
        pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"label": ["a", "b"], "confidence": [0.1, 0.99]}), key=["x", "y"]
    )["status"].tolist(),
}  # fmt: skip


def test_every_call_that_changes_something_is_tried_here():
    tried = {name.split()[0] for name in CALLS} | {"store_decided", "store_frame"}
    assert set(ONCE) <= tried
    assert set(SAFE) & set(ONCE) == set()
    missing = {name for name in vars(ReviewQueue) if name[0] != "_"} - set(SAFE) - set(ONCE)
    assert missing == {"new_ids", "watch", "close", "closed"}


def moves(queue, client, clock, name, lost=lambda: None):
    """Do one call on a prepared queue; returns what it said and what it logged."""
    ids = prepared(queue)
    if name == "reopen":
        clock.forward(hours=1, seconds=1)
        queue.tick()
    before = queue.events()[-1]["seq"]
    lost()
    said = CALLS[name](client, ids)
    assert queue.verify() == []
    return said, [event["move"] for event in queue.events(since=before)]


@pytest.mark.parametrize("lose", [["answer"], ["request"], ["answer", "answer", "request"]], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_answer_is_lost_is_done_once(deaf, clock, name, lose):
    queue, remote, line = deaf
    with open_queue(":memory:", clock=clock) as other:
        expected, logged = moves(other, other, clock, name)
    clock.time -= timedelta(hours=1, seconds=1) if name == "reopen" else timedelta(0)
    said, found = moves(
        queue, remote, clock, name, lambda: setattr(line, "lose", [None] * name.startswith("forget") + lose)
    )
    assert line.lose == []
    assert found == logged
    assert type(said) is type(expected)
    if name.startswith("claim"):
        assert [task.holder for task in said] == ["bob"]
        assert said == [queue.get(said[0].task_id)]
    elif name == "forget":
        assert (len(said.tasks), len(said.withdrawn)) == (1, 1)
    elif name not in ("submit", "resolve", "process", "deliver"):
        assert said == expected


def test_a_repeat_that_overtakes_its_first_try_is_done_once(path):
    with open_queue(path, serve=None) as queue:
        requests = Requests(lambda: queue)
        given = {"input_data": {}, "ai_prediction": {}, "reason": "r"}
        later = requests.do("submit", (), given, "id", again=True)
        assert requests.do("submit", (), given, "id") == later
        assert queue.stats().total == 1


def test_a_repeat_waits_for_its_first_try(path):
    with open_queue(path, serve=None) as queue:
        requests, begun, go, note = Requests(lambda: queue), threading.Event(), threading.Event(), queue.note

        def slow(*given):
            begun.set()
            go.wait(LONG)
            note(*given)

        queue.note = slow
        first = threading.Thread(target=lambda: requests.do("note", ("x", {}), {}, "id"))
        first.start()
        begun.wait(LONG)
        queue.note = note
        repeat = threading.Thread(target=lambda: requests.do("note", ("x", {}), {}, "id", again=True))
        repeat.start()
        repeat.join(0.2)  # one that does not wait has done it by now
        go.set()
        [one.join(LONG) for one in (first, repeat)]
        assert [event["move"] for event in queue.events()] == ["x"]


def test_a_known_key_under_a_new_policy_is_told_again(path):
    """The policy is all that such a call logs."""
    with open_queue(path, serve=None) as queue:
        requests, names = Requests(lambda: queue), {"key": "k", "subject": None, "group": None, "value": None}

        def call(policy, request, again=False):
            _, ready = route_one(
                policy, {"n": 1}, {"label": "a", "confidence": 0.5}, names, queue.new_ids(1), queue.now
            )
            given = [ready, policy.fingerprint, policy.to_dict()]
            return requests.do("store_decided", given, {}, request, again).task_id

        first = call(Policy(0.8, audit_rate=0), "1" * 32)
        for again in (False, True):
            assert call(Policy(0.9, audit_rate=0), "2" * 32, again) == first
        assert queue.stats().total == 1


def test_an_answer_sent_again_under_its_id_is_the_first_one(door):
    queue, remote, _ = door
    task = put(queue)
    first = remote.resolve(task.task_id, "ann", "approve", submit_id="mine")
    assert remote.resolve(task.task_id, "ann", "approve", submit_id="mine") == first
    with pytest.raises(SubmitConflict):
        remote.resolve(task.task_id, "ann", "reject", submit_id="mine")
    with pytest.raises(LeaseLost):
        remote.release(task.task_id, "bob") if queue.claim("ann", n=1) else remote.release(put(queue).task_id, "bob")


def test_a_call_that_is_off_is_told_without_asking(deaf):
    _, remote, line = deaf
    line.lose = ["answer"]
    with pytest.raises(TypeError):
        remote.release()
    with pytest.raises(TypeError):
        remote.submit({"n": 1})
    assert line.lose == ["answer"]
    assert remote.claim.__doc__ == ReviewQueue.claim.__doc__


def test_what_a_client_cannot_reach_is_an_error_and_not_a_hang(path, owner, monkeypatch):
    with open_queue(path) as queue:
        kept = endpoint.read(str(path))
        endpoint.beside(str(path)).unlink()
        queue._reach().close()
        impatient(monkeypatch)
        with pytest.raises(QueueLocked) as error:
            queue.stats()
        assert error.value.pid == owner.pid
        kept.write()
        assert queue.stats().total == 0


# -- what it costs who does not share


def test_a_queue_alone_loads_no_server(path):
    code = """
        import sys
        from hitl_nb import open_queue
        for url in (":memory:", sys.argv[1]):
            with open_queue(url) as queue:
                queue.submit(input_data={}, ai_prediction={}, reason="r")
        print({"fastapi", "uvicorn", "httpx", "starlette"} & set(sys.modules))
    """
    with child(code, path) as process:
        assert process.communicate(timeout=LONG)[0] == "set()\n"


def test_a_served_process_ends_although_its_queue_is_open(path):
    code = """
        import sys
        from hitl_nb import open_queue
        queue = open_queue(sys.argv[1])
        print("open", flush=True)
        sys.stdin.read()
    """
    with child(code, path) as process:
        assert process.stdout.readline() == "open\n"
        with open_queue(path) as queue:
            put(queue)
            end = queue.watch(queue.pending()[0].task_id, lambda: None)
            process.stdin.close()
            assert process.wait(LONG) == 0
            assert queue.stats().total == 1
            end()


def test_a_fork_of_an_owner_takes_nothing_with_it(path):
    with open_queue(path) as queue:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                queue.stats()
            except QueueClosed:
                queue.close()
                code = 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert endpoint.read(str(path)).pid == os.getpid()
        with child(OWN, path) as other:
            assert other.stdout.readline() == "RemoteQueue\n"
            other.kill()
