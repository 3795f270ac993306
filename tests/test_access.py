"""Who may do what over the network: every route and call, with every kind of token and without."""

from dataclasses import replace
from datetime import timedelta

import httpx
import pandas as pd
import pytest
from conftest import START, let_in, service

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.errors import BadInput, NotAllowed, NotQualified, TokenRefused
from hitl_nb.orchestrator.route import route_one
from hitl_nb.panel import ReviewPanel
from hitl_nb.queue.http import RemoteQueue
from hitl_nb.queue.request import ONCE, SAFE
from hitl_nb.server.access import CALLS, ROUTES

ROLES = dict.fromkeys(("key", "subject", "group", "value"))
WHO = ("none", "wrong", "expired", "revoked", "producer", "reviewer", "adjudicator", "admin")
#: status of every route: no token; an unknown, an expired, a revoked one; producer, reviewer, adjudicator, admin.
#: 409 and 410 say that somebody came in, and the task is in another state
STATUSES = {
    "GET /health": (200, 200, 200, 200, 200, 200, 200, 200),
    "GET /openapi.json": (401, 401, 401, 401, 200, 200, 200, 200),
    "GET /review/queue": (401, 401, 401, 401, 403, 200, 200, 200),
    "POST /review/claim": (401, 401, 401, 401, 403, 200, 200, 200),
    "POST /review/renew": (401, 401, 401, 401, 403, 409, 409, 409),
    "POST /review/{task_id}/submit": (401, 401, 401, 401, 403, 200, 200, 200),
    "POST /review/{task_id}/release": (401, 401, 401, 401, 403, 409, 409, 409),
    "POST /review/{task_id}/undo": (401, 401, 401, 401, 403, 409, 409, 409),
    "POST /review/{task_id}/object": (401, 401, 401, 401, 403, 409, 409, 409),
    "POST /tasks": (401, 401, 401, 401, 200, 403, 403, 200),
    "POST /tasks/batch": (401, 401, 401, 401, 200, 403, 403, 200),
    "GET /tasks/{task_id}": (401, 401, 401, 401, 200, 200, 200, 200),
    "GET /tasks/{task_id}/wait": (401, 401, 401, 401, 202, 403, 403, 202),
    "POST /tasks/{task_id}/withdraw": (401, 401, 401, 401, 204, 403, 403, 204),
    "POST /tasks/{task_id}/reopen": (401, 401, 401, 401, 409, 403, 403, 409),
    "GET /events": (401, 401, 401, 401, 200, 403, 403, 200),
    "GET /stats": (401, 401, 401, 401, 200, 200, 200, 200),
    "GET /changes": (401, 401, 401, 401, 200, 200, 200, 200),
}
NEW = {"input_data": {"n": 1}, "ai_prediction": {"label": "a"}, "reason": "r"}
BODIES = {
    "POST /review/claim": {},
    "POST /review/renew": {"task_ids": ["{task_id}"]},
    "POST /review/{task_id}/submit": {"outcome": "approve"},
    "POST /review/{task_id}/release": {},
    "POST /review/{task_id}/object": {"comment": "no"},
    "POST /tasks": NEW,
    "POST /tasks/batch": {"tasks": [NEW, NEW]},
    "POST /tasks/{task_id}/withdraw": {},
}
#: who may make each call that travels between two parts of this package, by the first letters of the roles
LETTERS = {
    **dict.fromkeys(("now", "get", "stats", "_table", "estimated_wait", "changes"), "pr+a"),
    **dict.fromkeys(("submit", "submit_all", "store_decided", "store_frame", "told", "deliver", "events"), "pa"),
    **dict.fromkeys(("withdraw", "replace", "reopen"), "pa"),
    **dict.fromkeys(("pending", "reviewed", "explain", "claim", "resolve", "release", "renew", "undo"), "r+a"),
    "object": "r+a",
    **dict.fromkeys(
        ("history", "training_frame", "training_frames", "annotations", "verify", "rebuild", "tick", "tick_if_due"), "a"
    ),
    **dict.fromkeys(("forget", "note", "reorder", "tokens", "store_token", "revoke_token"), "a"),
    **dict.fromkeys(("export", "backup", "snapshot"), ""),
}
LETTER = {"p": "producer", "r": "reviewer", "+": "adjudicator", "a": "admin"}


@pytest.fixture(scope="module")
def place():
    """A served queue, its address, and a client for each kind of token."""
    with open_queue(":memory:") as queue, service(queue) as running:
        for role in ("producer", "reviewer", "adjudicator", "admin"):
            let_in(queue, role, [role])
        let_in(queue, "expired", ["admin"], days=-1)
        let_in(queue, "revoked", ["admin"])
        queue.revoke_token("id-of-revoked")
        shown = {who: {"Authorization": f"Bearer hitl_of_{who}"} for who in WHO[1:]} | {"none": {}}
        clients = {who: httpx.Client(base_url=running.address, headers=headers) for who, headers in shown.items()}
        yield queue, running.address, clients
        for client in clients.values():
            client.close()


def test_the_tables_name_every_route_and_every_call():
    assert set(STATUSES) == set(ROUTES)
    assert set(LETTERS) == {*SAFE, *ONCE, "changes"}
    assert {call: {LETTER[letter] for letter in letters} for call, letters in LETTERS.items() if letters} == {
        call: set(roles) for call, roles in CALLS.items()
    }


@pytest.mark.parametrize("route", STATUSES)
def test_each_route_lets_in_whom_the_table_names(place, route):
    queue, _, clients = place
    method, _, path = route.partition(" ")
    found = []
    for who in WHO:
        task_id = queue.submit(**NEW).task_id
        body = BODIES.get(route)
        if body is not None:
            body = {key: [task_id] if key == "task_ids" else value for key, value in body.items()}
        more = {"params": {"timeout": 0}} if method == "GET" and path.endswith("wait") else {}
        found.append(clients[who].request(method, path.format(task_id=task_id), json=body, **more).status_code)
    assert tuple(found) == STATUSES[route]


@pytest.mark.parametrize("call", LETTERS)
def test_each_call_lets_in_whom_the_table_names(place, call):
    _, _, clients = place
    for who in WHO:
        answer = clients[who].post(f"/queue/{call}", content=b"no call")
        if who in WHO[:4]:
            assert answer.status_code == 401
        else:
            allowed = who in [LETTER[letter] for letter in LETTERS[call]]
            assert answer.status_code == (422 if allowed else 403), who


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/redoc", "/queue/", "/queue/close", "/queue/__init__", "/tasks/a/b/c", "/%2e%2e"]
)
def test_what_is_not_there_is_told_to_nobody_without_a_token(place, path):
    _, _, clients = place
    assert clients["none"].get(path).status_code == 401
    assert clients["admin"].get(path).status_code in (404, 405)
    assert clients["admin"].post(path, content=b"{}").status_code in (403, 404, 405)


@pytest.mark.parametrize("header", ["", "Bearer", "Basic aaaa", "Bearer " + 500 * "x", "Bearer hitl_of_admin x"])
def test_what_is_no_token_lets_nobody_in(place, header):
    _, _, clients = place
    answer = clients["none"].get("/stats", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"] == "TokenRefused"


# -- what is seen


@pytest.fixture
def queue():
    with open_queue(":memory:") as opened:
        yield opened


@pytest.fixture
def enter(queue):
    """Return a queue as the holder of a token has it."""
    opened = []
    with service(queue) as running:

        def as_one(name, *roles, expertise=()):
            opened.append(open_queue(running.address, token=let_in(queue, name, roles or ["reviewer"], expertise)))
            return opened[-1]

        yield as_one
        for one in opened:
            one.close()


def put(queue, **more):
    return queue.submit(**NEW | more).task_id


def test_reviewers_see_no_task_outside_their_expertise(queue, enter):
    law, tax, open_to_all = put(queue, expertise="law"), put(queue, expertise="tax"), put(queue)
    lea = enter("lea", expertise=["law"])
    assert {task.task_id for task in lea.pending()} == {law, open_to_all}
    assert {task.task_id for task in lea.pending("law")} == {law, open_to_all}
    assert {task.task_id for task in lea.claim("lea", n=9)} == {law, open_to_all}
    for refused in (
        lambda: lea.get(tax), lambda: lea.explain(tax), lambda: lea.object(tax, "lea", "no"),
        lambda: lea.pending("tax"), lambda: lea.pending(["tax"]), lambda: lea.claim("lea", expertise="tax"),
        lambda: lea.resolve(tax, "lea", "approve"),
        lambda: lea.claim(Reviewer(id="lea", expertise=("tax",))),
    ):  # fmt: skip
        with pytest.raises(NotQualified):
            refused()
    assert [task.task_id for task in enter("nobody").pending()] == [open_to_all]


def test_reviewers_see_no_answers_of_others_before_their_own(queue, enter):
    task_id = put(queue, reviews_required=2)
    ann, bob, svc = enter("ann"), enter("bob"), enter("svc", "producer")
    ann.resolve(task_id, "ann", "correct", {"label": "b"}, "a remark")
    assert [review.reviewer for review in ann.get(task_id).reviews] == ["ann"]
    assert "a remark" in ann.explain(task_id)
    assert bob.get(task_id).reviews == svc.get(task_id).reviews == ()
    assert bob.reviewed() == []
    with pytest.raises(NotAllowed):
        bob.explain(task_id)
    [claimed] = bob.claim("bob")
    assert claimed.reviews == ()
    with pytest.raises(NotAllowed):
        bob.explain(task_id)
    bob.resolve(task_id, "bob", "correct", {"label": "b"})
    assert len(bob.get(task_id).reviews) == 2
    assert "a remark" in bob.explain(task_id)
    assert [task.task_id for task in bob.reviewed()] == [task_id]
    assert [task.task_id for task in ann.reviewed()] == [task_id]
    assert enter("eve").get(task_id).reviews == ()


def test_who_has_answered_sees_the_others_once_it_is_settled_and_takes_nothing_back_then(queue, enter):
    task_id = put(queue, reviews_required=3)
    ann, bob = enter("ann"), enter("bob")
    ann.resolve(task_id, "ann", "approve")
    bob.resolve(task_id, "bob", "reject")
    assert [review.reviewer for review in bob.get(task_id).reviews] == ["bob"]
    with pytest.raises(NotAllowed, match="others judge it yet"):
        bob.explain(task_id)
    bob.undo(task_id, "bob")
    bob.resolve(task_id, "bob", "approve")
    queue.resolve(task_id, "eve", "approve")
    assert len(bob.get(task_id).reviews) == 3
    with pytest.raises(NotAllowed, match="settled"):
        bob.undo(task_id, "bob")
    alone = put(queue)
    bob.resolve(alone, "bob", "reject")
    bob.undo(alone, "bob")
    assert queue.get(alone).reviews == ()


def test_the_counts_tell_no_reviewer_what_others_found_in_a_blind_audit(queue, enter):
    Orchestrator(queue=queue, policy=Policy(0.5, audit_rate=1.0, second_audit=1.0)).process({}, {"confidence": 0.9})
    [task] = queue.pending()
    enter("ann").resolve(task.task_id, "ann", "reject")
    found = enter("bob").stats()
    assert (found.audits, found.audited, found.disagreed, found.judged_twice, found.differed) == (1, *[None] * 4)
    assert (enter("svc", "producer").stats().disagreed, enter("boss", "admin").stats().disagreed) == (1, 1)


def test_an_audit_is_judged_blind_over_http_too(place):
    queue, _, clients = place
    ann, boss = clients["reviewer"], clients["admin"]
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.5, audit_rate=1.0, second_audit=0))
    ids = [orchestrator.process({"n": i}, {"label": 7, "confidence": 0.9, "model": "m"})["task_id"] for i in range(3)]
    listed = {task["task_id"]: task for task in ann.get("/review/queue?limit=1000").json()["tasks"]}
    claimed = {task["task_id"]: task for task in ann.post("/review/claim", json={"n": 1000}).json()["tasks"]}
    for seen in (listed[ids[0]], claimed[ids[0]], ann.get(f"/tasks/{ids[0]}").json()):
        assert [seen[what] for what in ("ai_prediction", "confidence", "model", "policy")] == [None] * 4
        assert (seen["input_data"], "Audit" in seen["reason"]) == ({"n": 0}, True)
    refused = ann.post(f"/review/{ids[0]}/submit", json={"outcome": "approve"})
    assert (refused.status_code, "judged blind" in refused.json()["detail"]) == (422, True)
    for task_id, said in zip(ids, ({"label": "7"}, {"label": "2"}, None), strict=True):
        body = {"outcome": "reject"} if said is None else {"outcome": "correct", "correction": said}
        assert ann.post(f"/review/{task_id}/submit", json=body).status_code == 200
    assert [queue.get(task_id).reviews[0].outcome for task_id in ids] == ["approve", "correct", "reject"]
    assert ann.get(f"/tasks/{ids[0]}").json()["ai_prediction"]["label"] == 7
    later = orchestrator.process({"n": 9}, {"label": 7, "confidence": 0.9})["task_id"]
    assert boss.post(f"/review/{later}/submit", json={"outcome": "approve"}).status_code == 200


def test_an_adjudicator_sees_what_is_to_be_settled(queue, enter):
    task_id = put(queue, reviews_required=2)
    ada = enter("ada", "reviewer", "adjudicator")
    queue.resolve(task_id, "ann", "approve")
    assert ada.get(task_id).reviews == ()
    queue.resolve(task_id, "bob", "reject")
    assert len(ada.get(task_id).reviews) == 2
    [mine] = ada.claim("ada")
    ada.resolve(mine.task_id, "ada", "reject")


def test_nobody_speaks_for_another_but_an_admin(queue, enter):
    ann, boss = enter("ann"), enter("boss", "admin")
    task_id = put(queue)
    for refused in (lambda: ann.claim("bob"), lambda: ann.resolve(task_id, Reviewer(id="bob"), "approve")):
        with pytest.raises(NotAllowed, match="token is that of ann"):
            refused()
    with pytest.raises(NotAllowed):
        ann.claim(7)
    assert boss.resolve(task_id, "bob", "approve").reviewer == "bob"


def test_a_reviewer_has_the_expertise_and_roles_of_the_token_and_no_more(queue, enter):
    put(queue, expertise="law")
    queue.object(_answered(queue), "bob", "no")
    lea = enter("lea", expertise=["law", "tax"])
    assert lea.claim(Reviewer(id="lea", expertise=("tax",), roles=("reviewer", "adjudicator")), n=5) == []
    assert [task.expertise for task in lea.claim("lea", n=5)] == ["law"]


def _answered(queue):
    task_id = put(queue)
    queue.resolve(task_id, "ann", "approve")
    return task_id


def test_an_answer_that_a_producer_reads_is_delivered(queue, enter):
    task_id, svc = _answered(queue), enter("svc", "producer")
    assert enter("boss", "admin").get(task_id).reviews
    assert [event["move"] for event in queue.events()][-1] == "review"
    assert [review.outcome for review in svc.get(task_id).reviews] == ["approve"]
    delivered = queue.events()[-1]
    assert (delivered["move"], delivered["actor"]) == ("deliver", "svc")


def test_a_producer_learns_from_the_log_that_something_happened_and_not_what(queue, enter):
    _answered(queue)
    found = enter("svc", "producer").events()
    assert [event["move"] for event in found] == ["submit", "claim", "review"]
    assert set(found[0]) == {"seq", "task_id", "move", "at_time"}


def test_an_orchestrator_works_with_a_token(queue, enter):
    orchestrator = Orchestrator(queue=enter("svc", "producer"), policy=Policy(0.85, audit_rate=0))
    told = orchestrator.process({"n": 1}, {"label": "a", "confidence": 0.5})
    queue.resolve(told["task_id"], "ann", "reject")
    assert orchestrator.wait(told["task_id"], timeout=60).outcome == "reject"
    other = _answered(queue)
    orchestrator.queue.deliver(other, "somebody else")
    assert [event["actor"] for event in queue.events() if event["move"] == "deliver"] == ["svc", "svc"]


def test_a_panel_works_with_the_token_of_a_reviewer(queue, enter):
    put(queue, expertise="tax")
    task_id = put(queue, expertise="law")
    panel = ReviewPanel(enter("lea", expertise=["law"]), reviewer="lea", labels=["a", "b"])
    panel.correct("b")
    panel.close()
    [review] = queue.get(task_id).reviews
    assert (review.reviewer, review.answer) == ("lea", {"label": "b"})
    assert queue.stats().status == {"reviewed": 1, "pending_review": 1}


def test_a_producer_cannot_say_that_somebody_has_judged_a_new_task(queue, enter):
    svc = enter("svc", "producer")
    policy = Policy(0.85, audit_rate=0)
    _, ready = route_one(policy, {"n": 1}, {"confidence": 0.5}, ROLES, svc.new_ids(1), queue.now)
    for forged in ({"outcome": "approve"}, {"reviewer": "ann"}, {"status": "reviewed"}, {"attempt": 3}):
        with pytest.raises(BadInput):
            svc.store_decided(replace(ready, row=replace(ready.row, **forged)), policy.fingerprint, policy.to_dict())
    assert queue.stats().total == 0


def test_a_frame_of_a_producer_says_nothing_of_judgements_either(queue, enter):
    svc, policy = enter("svc", "producer"), Policy(0.85, audit_rate=0.9)
    inputs, predictions = pd.DataFrame({"n": range(40)}), pd.DataFrame({"label": "a", "confidence": [0.9, 0.5] * 20})
    told = Orchestrator(queue=svc, policy=policy).process_frame(inputs, predictions)
    assert set(told["status"]) == {"auto_approved", "pending_review"}
    assert queue.stats().audits > 0
    assert queue.verify() == []

    sent = []
    svc.store_frame = lambda *given: sent.append(given) or {}
    Orchestrator(queue=svc, policy=policy).process_frame(inputs, predictions)
    [(ready, *rest)] = sent
    [drawn, *_] = [kind for kind in ready.kinds if kind.audit is not None]
    for forged in (
        {"first": replace(drawn.first, outcome="approve")}, {"last": replace(drawn.last, reviewer="ann")},
        {"audit": drawn.audit.replace('"audit":true', '"audit":true,"outcome":"approve"')}, {"audit": None},
        dict.fromkeys(("first", "last"), replace(drawn.first, outcome="approve")) | {"audit": None},
    ):  # fmt: skip
        with pytest.raises(BadInput, match="no history"):
            RemoteQueue.store_frame(svc, replace(ready, kinds=[replace(drawn, **forged)]), *rest[:2])
    assert queue.stats().total == 40


# -- tokens


def test_a_secret_is_shown_once_and_kept_nowhere(tmp_path):
    path = tmp_path / "q.duckdb"
    with open_queue(path) as queue:
        secret, token = queue.create_token("ann", ["reviewer"], ["law"])
        assert len(secret) == len("hitl_") + 43  # 256 bits
        assert queue.token_of(secret) == token
        assert secret not in repr((queue.events(), queue.tokens(), token))
        queue.store.checkpoint()
    assert secret.encode() not in path.read_bytes()


def test_a_token_ends_when_its_time_is_over_or_it_is_revoked(clock):
    with open_queue(":memory:", clock=clock) as queue:
        short, _ = queue.create_token("ann", days=1)
        long, token = queue.create_token("bob", ["producer", "reviewer"], days=30)
        assert queue.token_of(short).reviewer == "ann"
        assert token.roles == ("producer", "reviewer")
        clock.time = START + timedelta(days=1)
        assert queue.token_of(short) is None
        assert queue.token_of(long) == token
        queue.revoke_token(token.id)
        queue.revoke_token(token.id)
        assert queue.token_of(long) is None
        assert queue.token_of("hitl_x") is None
        assert [event["move"] for event in queue.events()] == ["token", "token", "revoke_token"]
        with pytest.raises(BadInput):
            queue.revoke_token("none")


@pytest.mark.parametrize(
    "wrong",
    [
        {"roles": []}, {"roles": ["boss"]}, {"roles": "admin"}, {"expertise": "law"}, {"days": 0}, {"days": 1e9},
        {"reviewer": ""},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_that_says_nothing_sensible_is_not_made(wrong):
    with open_queue(":memory:") as queue:
        with pytest.raises(BadInput):
            queue.create_token(**{"reviewer": "ann"} | wrong)
        assert queue.tokens() == []


def test_tokens_are_made_and_revoked_over_the_line(queue, enter):
    boss = enter("boss", "admin")
    secret, token = boss.create_token("ann")
    assert queue.token_of(secret) == token
    boss.revoke_token(token.id)
    assert queue.token_of(secret) is None
    with pytest.raises(NotAllowed):
        enter("ann").tokens()


def test_a_notebook_need_not_hold_a_token(place, monkeypatch):
    monkeypatch.setenv("HITL_NB_TOKEN", "hitl_of_reviewer")
    put(place[0])
    with open_queue(place[1]) as remote:
        assert "hitl_of" not in repr((remote, vars(remote), remote._line.endpoint))
        assert remote.pending(limit=1)


def test_a_wrong_token_is_told_when_the_queue_is_opened(place, monkeypatch):
    monkeypatch.delenv("HITL_NB_TOKEN", raising=False)
    with pytest.raises(TokenRefused):
        open_queue(place[1], token="hitl_wrong")
    with pytest.raises(BadInput):
        open_queue(place[1])


def test_a_secret_stands_in_no_error_and_a_line_end_is_none_of_it(place):
    with open_queue(place[1], token="hitl_of_admin\n") as remote:
        assert remote.tokens()
    for token in ("hitl_secret\nX", "hitl_secret \u00e9", "hitl_secret\0"):
        with pytest.raises(BadInput) as found:
            open_queue(place[1], token=token)
        assert "hitl_secret" not in str(found.value) + repr(found.value.values)
    for url in ("https://ann:hunter2@x.example", "https://x.example?token=hunter2", "https://x.example/#hunter2"):
        with pytest.raises(BadInput) as refused:
            open_queue(url, token="hitl_of_admin")
        assert "hunter2" not in str(refused.value) + repr(refused.value.values)
