"""Whoever reaches a served queue and has no token keeps nobody out; whoever has one does no more than it allows."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import httpx
import numpy as np
import pytest
from conftest import let_in, service

from hitl_nb import open_queue
from hitl_nb.errors import BadInput
from hitl_nb.payload import encode

NEW = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"}
#: for what comes at once unless the machine is busy, in seconds
LONG = 120


@pytest.fixture
def queue():
    with open_queue(":memory:") as opened:
        yield opened


def client(running, secret=None):
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=running.address, headers=headers, timeout=LONG)


def line(running, *parts):
    host, port = running.address.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=LONG)
    for part in parts:
        made.sendall(part)
    return made


def answered(made):
    """Return what comes until the server hangs up."""
    found = b""
    try:
        while data := made.recv(65536):
            found += data
    except ConnectionError:
        pass
    return found


def test_connections_beyond_the_limit_are_hung_up_on_and_the_others_served(queue):
    with service(queue, connections=5, patience=2 * LONG) as running:
        idle = [line(running) for _ in range(40)]
        assert [answered(made) for made in idle[5:]] == [b""] * 35  # the first five are given their time
        for made in idle:
            made.close()
        with client(running, let_in(queue)) as me:
            until = time.monotonic() + LONG
            while time.monotonic() < until:
                try:
                    assert me.post("/tasks", json=NEW).status_code == 200
                    break
                except httpx.TransportError:  # the server has not heard yet that the others have gone
                    time.sleep(0.1)
    assert queue.stats().total == 1


@pytest.mark.parametrize(
    "more", [b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}       \r\n"]
)
def test_health_takes_no_body(queue, more):
    with service(queue) as running:
        with line(running, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", more, b"{}       ") as made:
            assert answered(made).startswith(b"HTTP/1.1 413")
        with client(running) as nobody:
            assert nobody.get("/health").status_code == 200


@contextmanager
def busy(queue):
    """Keep the writer of a queue busy meanwhile."""
    begun, go = threading.Event(), threading.Event()

    def long_write(tx):
        begun.set()
        go.wait(LONG)

    writing = threading.Thread(target=queue.store.write, args=(long_write,))
    writing.start()
    assert begun.wait(LONG)
    try:
        yield
    finally:
        go.set()
        writing.join()


def test_those_who_ask_for_health_while_the_writer_is_busy_keep_nobody_out(queue):
    with service(queue, calls=2) as running, client(running, let_in(queue)) as me:
        assert me.get("/openapi.json").status_code == 200
        ask = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with busy(queue):
            asking = [line(running, ask) for _ in range(120)]
            assert [me.get("/openapi.json").status_code for _ in range(5)] == [200] * 5
            with client(running, "hitl_wrong") as stranger:
                assert [stranger.get("/stats").status_code for _ in range(5)] == [401] * 5
        assert {answered(made)[:12] for made in asking} <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}


def test_who_takes_nothing_of_the_answers_is_hung_up_on(queue):
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + let_in(queue).encode() + b"\r\n\r\n"
    with service(queue, patience=0.2) as running:
        with line(running, 500 * ask):  # the answers take 20 MB
            until = time.monotonic() + LONG
            there = running._server.server_state.connections
            while not there:
                assert time.monotonic() < until
            while there:
                assert time.monotonic() < until
                time.sleep(0.05)
        with client(running, "hitl_of_me") as me:
            assert me.get("/stats").status_code == 200


def test_a_server_that_is_busy_is_there(queue, monkeypatch):
    monkeypatch.setattr("hitl_nb.server.health.HOLDS", 0.0)  # what was proven before the long write says nothing
    with service(queue) as running, open_queue(running.address, token=let_in(queue)) as remote:
        task_id = queue.submit(**NEW).task_id
        before, answers = remote._reach(), []
        asking = threading.Thread(target=lambda: answers.append(remote.resolve(task_id, "me", "approve")))
        with busy(queue):
            assert before.answers(10)  # and says that nothing was stored for a while
            asking.start()
            asking.join(1)
            assert answers == []
        asking.join(LONG)
        assert answers[0].reviewer == "me"
        assert remote._reach() is before


def test_a_claim_over_the_network_ends(queue):
    with service(queue) as running, open_queue(running.address, token=let_in(queue, "ann", ["reviewer"])) as ann:
        task_id = queue.submit(**NEW).task_id
        with pytest.raises(BadInput, match="up to 1 day"):
            ann.claim("ann", lease=timedelta(days=3650))
        [task] = ann.claim("ann")
        with pytest.raises(BadInput):
            ann.renew([task_id], "ann", lease=timedelta(days=2))
        assert task.task_id == task_id


def test_lists_within_lists_are_counted_before_they_are_made(queue):
    with service(queue) as running, client(running, let_in(queue)) as me:
        many = b'{"args":[' + b"[]," * 4_000_001 + b'[]],"more":{},"request":"1","again":false}'
        assert me.post("/queue/get", content=many).status_code == 413


def test_a_reviewer_sends_no_large_message_between_notebooks(queue):
    large = b'{"args":["' + b"x" * 2**21 + b'"],"more":{},"request":"1","again":false}'
    with service(queue, max_body=2**20) as running:
        for role, status in (("reviewer", 413), ("producer", 404), ("admin", 404)):
            with client(running, let_in(queue, role, [role])) as one:
                assert one.post("/queue/get", content=large).status_code == status, role


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "x"])
def test_nobody_waits_for_a_time_that_never_comes(queue, seconds):
    with service(queue) as running, client(running, let_in(queue)) as me:
        task_id = queue.submit(**NEW).task_id
        for path in ("/changes", f"/tasks/{task_id}/wait"):
            given = (
                {"task_id": task_id, "after": 99, "timeout": seconds} if path == "/changes" else {"timeout": seconds}
            )
            assert me.get(path, params=given).status_code == 422


def test_who_waits_is_told_nothing_once_the_token_is_revoked(queue):
    with service(queue) as running:
        secret, token = queue.create_token("svc", ["producer"])
        task_id = queue.submit(**NEW).task_id
        answers = []
        with client(running, secret) as svc:
            assert svc.get(f"/tasks/{task_id}/wait?timeout=0").status_code == 202
            waiting = threading.Thread(target=lambda: answers.append(svc.get(f"/tasks/{task_id}/wait?timeout=30")))
            waiting.start()
            time.sleep(0.3)  # it waits by now, or comes too late: it is refused either way
            queue.revoke_token(token.id)
            queue.resolve(task_id, "ann", "approve")
            waiting.join(LONG)
        assert answers[0].status_code == 401
        assert "deliver" not in [event["move"] for event in queue.events()]


def test_a_key_makes_an_answer_known_and_tells_arrays_apart(queue):
    with service(queue) as running, client(running, let_in(queue)) as me:
        key = {"Idempotency-Key": "k"}
        arrays = [np.zeros(5000), np.zeros(5000)]
        arrays[1][2500] = 1
        bodies = [NEW | {"input_data": {"a": encode(array, "a", 0)}} for array in arrays]
        ids = [me.post("/tasks", json=body, headers=key).json()["task_id"] for body in (*bodies, *bodies)]
        assert (ids[:2], len(set(ids))) == (ids[2:], 2)

        answer = [me.post(f"/review/{ids[0]}/submit", json={"outcome": "approve"}, headers=key) for _ in range(2)]
        assert answer[0].json() == answer[1].json()
        me.post(f"/review/{ids[0]}/undo")
        me.post(f"/review/{ids[0]}/submit", json={"outcome": "approve"}, headers=key)  # it comes late, and again
        assert queue.get(ids[0]).reviews == ()


# -- the process

SERVING = """
import sys, threading
from hitl_nb import open_queue
from hitl_nb.server import serve

queue = open_queue(sys.argv[1], serve=None)
running = serve.Service.run

def run(service, ended):
    threading.Timer(0.5, queue.store.close).start()
    running(service, ended)

serve.Service.run = run
serve.serve(queue, "127.0.0.1", 0)
"""


def test_a_server_whose_queue_has_stopped_ends_and_says_so(tmp_path):
    command = [sys.executable, "-c", SERVING, str(tmp_path / "q.duckdb")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert ended.returncode == 1
    assert "QueueClosed" in ended.stderr


def test_a_server_that_is_told_to_end_as_soon_as_it_says_that_it_began_ends(tmp_path):
    for i in range(2):
        command = [sys.executable, "-m", "hitl_nb.cli", "serve", str(tmp_path / f"{i}.duckdb"), "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            assert json.loads(running.stderr.readline())["event"] == "started"
            running.send_signal(signal.SIGTERM)
            assert running.wait(LONG) == 0
            assert re.search('"event": "ended"', running.stderr.read())
