"""A served queue stores nothing that a policy would not have made, whoever sends it."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import let_in, service

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.errors import BadInput, HitlError
from hitl_nb.orchestrator.route import route_one
from hitl_nb.payload import canonical, digest
from hitl_nb.queue import wire
from hitl_nb.queue.frame import travelling
from hitl_nb.queue.http import RemoteQueue

ROLES = dict.fromkeys(("key", "subject", "group", "value"))
POLICY = Policy(0.85, audit_rate=0.5)
LIST = json.dumps([["x"]])


def reason(**odd):
    return json.dumps([{"rule": "r", "says": "s", "bound": None, "field": None, "hard": False} | odd])


@pytest.fixture(scope="module")
def place():
    """A served queue, and the same as a producer has it."""
    with (
        open_queue(":memory:") as queue,
        service(queue) as running,
        open_queue(running.address, token=let_in(queue, "svc", ["producer"])) as svc,
    ):
        yield queue, svc


@pytest.fixture
def queue(place):
    return place[0]


@pytest.fixture
def svc(place):
    return place[1]


def one(svc, **roles):
    _, ready = route_one(POLICY, {"n": 1}, {"label": "a", "confidence": 0.5}, ROLES | roles, svc.new_ids(1), svc.now)
    return ready


def send(svc, ready):
    return svc.store_decided(ready, POLICY.fingerprint, POLICY.to_dict())


@pytest.mark.parametrize(
    "forged",
    [
        {"task_id": "1"}, {"task_id": None}, {"task_id": "x" * 36}, {"seq": 2**62}, {"key_hash": 7},
        {"status": "claimed"},
        {"outcome": "approve"}, {"holder": "ann"}, {"delivered": 1}, {"standing": '[[1, "ann"]]'}, {"final": 1},
        {"priority": 3}, {"priority": True}, {"priority": 1.0}, {"confidence": 2.0}, {"confidence": "0.5"},
        {"review_probability": float("nan")}, {"audit_probability": -0.1}, {"value": float("inf")},
        {"reviews_required": 0}, {"reviews_required": 10**9}, {"consensus": "mine"}, {"on_deadline": "approve"},
        {"due_at": datetime(2030, 1, 1)}, {"deadline": datetime(2030, 1, 1, tzinfo=UTC), "due_at": None},
        {"expertise": 201 * "x"}, {"expertise": ""}, {"model": "\ud800"}, {"policy": 7}, {"grouping": ["a"]},
        {"escalation": "{"}, {"escalation": "{}"}, {"escalation": "[7]"}, {"escalation": 7}, {"escalation": "[ ]"},
        {"reasons": "{"}, {"reasons": LIST}, {"reasons": "null"}, {"reasons": "[{}]"}, {"reasons": 50_000 * "["},
        {"reasons": reason(bound=[])}, {"reasons": reason(says="\0")}, {"reasons": reason(rule="")},
        {"reasons": reason(says=7)}, {"reasons": reason(bound=10**400)}, {"reasons": reason(more=1)},
        {"reasons": '[{"bound":null,"field":null,"hard":false,"rule":"r","says":"\ud800"}]'}, {"policy": "another one"},
    ],
    ids=lambda forged: str(forged)[:60].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_a_row_that_no_policy_makes_is_refused(queue, svc, forged):
    before = queue.stats().total
    ready = one(svc)
    with pytest.raises(BadInput):
        send(svc, replace(ready, row=replace(ready.row, **forged)))
    assert queue.stats().total == before


@pytest.mark.parametrize(
    "texts",
    [
        {"comment": canonical("I, ann, approve")}, {"correction": canonical({"label": "b"})}, {"remark": '"x"'},
        {"input": "[]"}, {"prediction": "7"}, {"input": '{"b":1,"a":1}'}, {"input": "{"}, {"input": None},
        {"input": {"n": 1}}, {"score": '"x"'}, {"reason": '"x"'}, {"subject": "7"}, {"subject": '""'}, {"key": '"k"'},
    ],
    ids=str,
)  # fmt: skip
def test_texts_of_a_new_task_are_its_own_and_hold_what_they_should(queue, svc, texts):
    before = queue.stats().total
    ready = one(svc)
    with pytest.raises(BadInput):
        send(svc, replace(ready, texts=ready.texts | texts))
    with pytest.raises(BadInput):
        send(svc, replace(ready, texts={kind: text for kind, text in ready.texts.items() if kind != "input"}))
    assert queue.stats().total == before


@pytest.mark.parametrize(
    "forged",
    [
        ("f", {}), (POLICY.fingerprint, POLICY.to_dict() | {"audit_rate": 0.0}), (None, POLICY.to_dict()),
        (7, POLICY.to_dict()), (POLICY.fingerprint, "x"), (POLICY.fingerprint,), (),
        (digest("{}")[:12], {}), (digest(canonical({"audit_rate": "x"}))[:12], {"audit_rate": "x"}),
    ],
    ids=lambda forged: str(forged)[:30],
)  # fmt: skip
def test_nobody_logs_a_policy_under_the_fingerprint_of_another(queue, svc, forged):
    before = [event for event in queue.events() if event["move"] == "policy"]
    with pytest.raises(BadInput):
        svc._call("store_decided", one(svc), *forged)
    assert [event for event in queue.events() if event["move"] == "policy"] == before


def test_nobody_writes_over_a_task_with_a_new_one_of_its_id(queue, svc):
    answered = queue.submit(input_data={"n": 1}, ai_prediction={"label": "a"}, reason="r", expertise="law").task_id
    queue.resolve(answered, Reviewer(id="lea", expertise=("law",)), "reject")
    open_one = send(svc, one(svc)).task_id
    for task_id in (answered, open_one):
        ready = one(svc)
        with pytest.raises(BadInput, match="has this id"):
            send(svc, replace(ready, row=replace(ready.row, task_id=task_id)))
    assert queue.get(answered).reviews[0].reviewer == "lea"
    assert queue.verify() == []


def test_a_repeat_tells_of_its_own_task_alone(queue, svc):
    other = queue.submit(input_data={"n": 1}, ai_prediction={"label": "a"}, reason="r").task_id
    queue.resolve(other, "ann", "reject", comment="secret")
    ready = one(svc)
    rows = []
    for row in (ready.row, replace(ready.row, task_id=other)):
        args = [replace(ready, row=row), POLICY.fingerprint, POLICY.to_dict()]
        asked = {"args": args, "more": {}, "request": "the same", "again": bool(rows)}
        rows.append(svc._line.ask("store_decided", wire.dump(asked)))
    assert [row.task_id for row in rows] == 2 * [ready.row.task_id]


def test_the_request_of_one_token_is_not_that_of_another(queue, svc):
    given = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"}
    message = wire.dump({"args": [], "more": given, "request": "guessed", "again": True})
    first = svc._line.ask("submit", message)
    assert svc._line.ask("submit", message).task_id == first.task_id
    with open_queue(svc.name, token=let_in(queue, "other", ["producer"])) as other:
        assert other._line.ask("submit", message).task_id != first.task_id


def test_what_is_known_of_a_key_says_nothing_of_answers(queue, svc):
    ready = one(svc, key="k1")
    assert send(svc, ready).holder is None
    queue.resolve(ready.row.task_id, "ann", "reject")
    again = send(svc, one(svc, key="k1"))
    assert again.task_id == ready.row.task_id
    assert (again.outcome, again.reviewer, again.answers, again.standing) == (None, None, 0, "[]")
    given = {"input_data": {"n": 2}, "ai_prediction": {"label": "a"}, "reason": "r"}
    task = svc.submit(**given, key="k2")
    queue.resolve(task.task_id, "ann", "reject")
    assert svc.submit(**given, key="k2").reviews == ()
    assert [task.reviews for task in svc.submit_all([{**given, "key": "k2"}])] == [()]
    assert [event["move"] for event in queue.events() if event["move"] == "deliver"] == []


@pytest.fixture
def frame(svc):
    """Return what is sent of a frame of four rows, and its policy."""
    sent = []
    svc.store_frame = lambda *given: sent.append(given) or {}
    inputs, predictions = (
        pd.DataFrame({"n": range(4), "t": "x"}),
        pd.DataFrame({"label": "a", "confidence": [0.9, 0.5] * 2}),
    )
    try:
        Orchestrator(queue=svc, policy=POLICY).process_frame(inputs, predictions, key=["a", "b", "c", "d"])
    finally:
        del svc.store_frame
    [(ready, *rest)] = sent
    return replace(ready, key_hashes=None, texts={}), rest[:2]


FORGED = {
    "numbers of the log": lambda f: {"numbers": f.numbers | {"seq": np.full(4, 2.0**62)}},
    "whole numbers": lambda f: {"numbers": {"value": np.arange(4)}},
    "too few numbers": lambda f: {"numbers": {"value": np.zeros(3)}},
    "confidence over 1": lambda f: {"numbers": {"confidence": np.full(4, 7.0)}},
    "infinite value": lambda f: {"numbers": {"value": np.full(4, np.inf)}},
    "kinds that are not there": lambda f: {"codes": f.codes + 9},
    "kinds before the first": lambda f: {"codes": f.codes - 9},
    "codes as texts": lambda f: {"codes": ["0", "0", "0", "0"]},
    "too few codes": lambda f: {"codes": f.codes[:3]},
    "no kinds": lambda f: {"kinds": []},
    "kinds of another kind": lambda f: {"kinds": [{"first": 1}]},
    "ids twice": lambda f: {"task_id": f.task_id.take([0, 0, 1, 2])},
    "no ids": lambda f: {"task_id": pa.array([None, None, None, None], pa.string())},
    "other ids": lambda f: {"task_id": pa.array(["a", "b", "c", "d"])},
    "too few rows": lambda f: {"inputs": f.inputs[:3]},
    "no frame": lambda f: {"predictions": {"label": "a"}},
    "texts of reviewers": lambda f: {"texts": {"comment": 4 * ['"x"']}},
    "texts that are none": lambda f: {"texts": {"score": [1, 2, 3, 4]}},
    "texts in another form": lambda f: {"texts": {"score": 4 * ['{"b":1,"a":1}']}},
    "hashes without keys": lambda f: {"key_hashes": np.arange(4)},
    "hashes of other keys": lambda f: {"texts": {"key": ['"a"', '"b"', '"c"', '"d"']}, "key_hashes": np.arange(4)},
    "keys without hashes": lambda f: {"texts": {"key": ['"a"', '"b"', '"c"', '"d"']}},
    "rows with numbers": lambda f: {"kinds": [replace(k, first=replace(k.first, value=1.0)) for k in f.kinds]},
    "rows with reasons that are none": lambda f: {
        "kinds": [replace(k, first=replace(k.first, reasons="{")) for k in f.kinds]
    },
}


@pytest.mark.parametrize("what", FORGED)
def test_a_frame_that_no_policy_makes_is_refused(queue, svc, frame, what):
    ready, rest = frame
    before = queue.stats().total
    with pytest.raises(HitlError) as found:
        svc._call("store_frame", replace(travelling(ready), **FORGED[what](ready)), *rest)
    assert isinstance(found.value, BadInput)
    assert queue.stats().total == before


def test_a_frame_does_not_write_over_tasks_either(queue, svc, frame):
    ready, rest = frame
    assert RemoteQueue.store_frame(svc, ready, *rest) == {}
    total = queue.stats().total
    with pytest.raises(BadInput, match="has this id"):
        RemoteQueue.store_frame(svc, ready, *rest)
    assert (queue.stats().total, queue.verify()) == (total, [])


def test_a_message_holds_no_arrow_and_no_long_id(queue, svc):
    frame = wire.dump(pd.DataFrame({"when": pd.to_datetime(["2026-01-01"])}))  # as the answer to a call may
    assert b"$frame" in frame
    assert len(wire.load(frame)) == 1
    pairs = {"$pairs": [[i * (2**61 - 1), 0] for i in range(5)]}  # each takes as long to find as all before it
    for args, request in (([json.loads(frame)], "1"), ([pairs], "1"), ([], 201 * "x"), ([], None), ([], 7)):
        message = json.dumps({"args": args, "more": {}, "request": request, "again": False})
        answer = httpx.post(f"{svc.name}/queue/stats", content=message, headers=svc._line._headers)
        assert (answer.status_code, answer.json()["error"]) == (422, "BadInput")
