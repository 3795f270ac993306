"""A certificate is put to use, watched and taken back; from then on a person decides, wherever the queue is open."""

import threading

import numpy as np
import pandas as pd
import pytest
from conftest import over_http

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.errors import BadInput
from hitl_nb.evidence import Certificate
from hitl_nb.loop import Watch

PROMISE = Certificate(
    threshold=0.8, target_risk=0.05, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v8"
)
REASON = "No valid certificate for model v8"


class Stream:
    """Rows with their true outcomes, decided by an orchestrator and audited without error."""

    def __init__(self, queue, clock, **options):
        self.queue, self.clock, self.rng = queue, clock, np.random.default_rng(0)
        self.orchestrator = Orchestrator(queue=queue, policy=Policy(0.8, audit_rate=0.5, second_audit=0, **options))

    def go(self, n, risk, sure=(0.85, 1.0), model="v8"):
        self.clock.forward(minutes=1)
        answers = pd.DataFrame({"label": "ok", "confidence": self.rng.uniform(*sure, n), "model": model})
        decided = self.orchestrator.process_frame(pd.DataFrame({"i": range(n)}), answers)
        self.clock.forward(minutes=1)
        for task in self.queue.pending(limit=5000):
            self.queue.resolve(task.task_id, "ann", "reject" if self.rng.random() < risk else "approve")
        return decided


@pytest.fixture
def stream(clock):
    with open_queue(":memory:", clock=clock) as queue:
        yield Stream(queue, clock)


def logged(queue, what):
    return [event["body"] for event in queue.events(limit=100_000) if event["move"] == what]


def test_an_alarm_takes_the_certificate_back_and_people_decide(stream):
    stream.go(200, 0.0)
    watch = Watch(stream.orchestrator, PROMISE)
    assert stream.orchestrator.policy.confidence_threshold == PROMISE
    assert stream.orchestrator.policy.audit_rate == 0.5
    stream.go(200, 0.0)
    assert watch.look() == PROMISE
    assert str(watch).startswith("No alarm: 0 of ")
    stream.go(300, 0.4)
    taken_back = watch.look()
    assert taken_back.id == PROMISE.id
    assert taken_back.revoked_at == stream.clock.aware
    told = stream.orchestrator.process({}, {"label": "ok", "confidence": 0.99, "model": "v8"})
    assert (told["status"], told["reason"]) == ("pending_review", REASON)
    assert set(stream.go(20, 0.0)["reason"]) == {REASON}
    [issued], [revoked] = logged(stream.queue, "issue_certificate"), logged(stream.queue, "revoke_certificate")
    assert Certificate.from_dict(issued["certificate"]) == PROMISE
    assert revoked["certificate"] == PROMISE.id
    assert "more than 5 % are wrong" in revoked["why"]
    assert "taken back at" in repr(watch)
    assert watch.look() == taken_back
    assert len(logged(stream.queue, "revoke_certificate")) == 1


def test_the_alarm_looks_at_audits_of_its_own_model_since_the_certificate_was_put_to_use(stream):
    stream.go(300, 0.5)  # before; the evidence of the certificate says what is to be said of it
    watch = Watch(stream.orchestrator, PROMISE)
    Stream(stream.queue, stream.clock).go(300, 0.5, model="v7")  # another model, which goes by a fixed threshold
    stream.go(300, 0.5, sure=(0.2, 0.7))  # a person decided these
    stream.go(100, 0.0)
    assert Watch(stream.orchestrator, PROMISE, confidences=False).look() == PROMISE
    assert watch.look().revoked_at  # with them the confidences are others than before
    assert "confidences are others" in str(watch)


def test_confidences_other_than_before_take_it_back_before_an_error_is_found(stream):
    stream.go(400, 0.0)
    watch = Watch(stream.orchestrator, PROMISE)
    stream.go(200, 0.0)
    assert watch.look() == PROMISE
    stream.go(300, 0.0, sure=(0.81, 0.88))
    assert watch.look().revoked_at
    assert watch.alarm.state.wrong == 0


def test_it_goes_on_after_a_restart_and_follows_what_others_took_back(tmp_path, clock):
    path = tmp_path / "reviews.duckdb"
    with open_queue(path, clock=clock) as queue, over_http(queue) as remote:
        stream = Stream(queue, clock)
        watch = Watch(stream.orchestrator, PROMISE)
        other = Stream(remote, clock)
        elsewhere = Watch(other.orchestrator, PROMISE)
        assert len(logged(queue, "issue_certificate")) == 1
        watch.revoke("the camera was moved")
        assert set(other.go(3, 0.0)["status"]) == {"auto_approved"}  # it has not looked yet
        elsewhere.look()
        assert set(other.go(3, 0.0)["reason"]) == {REASON}
        elsewhere.revoke("again")
        assert [one["why"] for one in logged(queue, "revoke_certificate")] == ["the camera was moved"]
    with open_queue(path, clock=clock) as queue:
        again = Stream(queue, clock)
        assert Watch(again.orchestrator, PROMISE).certificate.revoked_at
        assert set(again.go(3, 0.0)["reason"]) == {REASON}


def test_another_certificate_stays_valid(stream):
    first = Watch(stream.orchestrator, PROMISE)
    first.revoke("old")
    second = Watch(stream.orchestrator, Certificate(**{**PROMISE.to_dict(), "threshold": 0.9, "id": ""}))
    assert second.certificate.revoked_at is None
    assert set(stream.go(5, 0.0, sure=(0.9, 1.0))["status"]) == {"auto_approved"}
    assert set(stream.go(5, 0.0, model="v9")["reason"]) == {"No valid certificate for model v9"}


def test_without_a_promise_a_watch_needs_a_bound(stream):
    before, fixed = (
        stream.orchestrator.policy,
        Certificate(
            threshold=0.8, target_risk=None, confidence_level=None, n=0, coverage=0.7, kind="fixed", model="v8"
        ),
    )
    with pytest.raises(BadInput, match="bound"):
        Watch(stream.orchestrator, fixed)
    assert (stream.orchestrator.policy, logged(stream.queue, "issue_certificate")) == (before, [])
    with pytest.raises(BadInput, match="audit_rate = 0"):
        Watch(Orchestrator(queue=stream.queue, policy=Policy(0.8, audit_rate=0)), PROMISE)
    watch = Watch(stream.orchestrator, fixed, bound=0.05)
    assert str(watch.look()) == str(fixed)
    assert str(watch) == "No alarm, but no automatic row was judged either: have some audited (audit_rate above 0)."
    stream.go(300, 0.4)
    assert watch.look().revoked_at


def test_a_decision_that_is_being_made_is_stored_with_the_policy_that_made_it(stream):
    first = stream.orchestrator.policy
    stream.orchestrator.use(Policy(0.99, audit_rate=0))
    stream.go(2, 0.0)
    stream.orchestrator.use(first)
    stream.go(2, 0.0)
    used = [Policy(0.99, audit_rate=0).fingerprint, first.fingerprint]
    assert stream.queue.history()["policy"].tolist() == [used[0]] * 2 + [used[1]] * 2
    assert [Policy.from_dict(one["policy"]).fingerprint for one in logged(stream.queue, "policy")] == used


def test_a_certificate_says_in_words_what_it_promises_and_that_it_was_taken_back(clock):
    said = "At 0.8 or more, 70 % go through without a person; at most 5 % of those are wrong (with 95 % confidence, 400"
    assert str(PROMISE).startswith(said)
    once = PROMISE.revoked(clock.aware)
    assert (once.id, once.revoked(None)) == (PROMISE.id, once)
    assert "valid" in repr(PROMISE._table())
    shown = once._repr_html_()
    assert "<table" in shown
    assert "taken back at 2026-01-05 09:00 UTC: everything goes to a person" in shown
    hostile = Certificate(**{**PROMISE.to_dict(), "id": "", "model": "<script>", "kind": "<b>"})._repr_html_()
    assert "<script>" not in hostile
    assert "&lt;script&gt;" in hostile
    nothing = Certificate(**{**PROMISE.to_dict(), "id": "", "threshold": None, "reason_if_none": "too few rows"})
    assert str(nothing) == "No threshold qualifies: too few rows."
    assert "nothing is promised" in str(Certificate(**{**PROMISE.to_dict(), "id": "", "target_risk": None}))


def test_what_another_policy_let_through_below_the_threshold_says_nothing_of_the_promise(stream):
    watch = Watch(stream.orchestrator, PROMISE, confidences=False)
    stream.go(200, 0.01)
    careless = Stream(stream.queue, stream.clock)
    careless.orchestrator = Orchestrator(queue=stream.queue, policy=Policy(0.5, audit_rate=0.5, second_audit=0))
    careless.go(300, 0.5, sure=(0.5, 0.79))
    assert watch.look() == PROMISE
    careless.go(300, 0.5)
    assert watch.look().revoked_at


def test_of_several_that_take_it_back_at_once_one_is_logged(stream):
    watch = Watch(stream.orchestrator, PROMISE)
    together = threading.Barrier(8)

    def revoke():
        together.wait(60)
        watch.revoke("the camera was moved")

    threads = [threading.Thread(target=revoke) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(logged(stream.queue, "revoke_certificate")) == 1
