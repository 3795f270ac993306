"""A review sitting: the controller over a real queue, without a widget."""

import ast
import threading
from datetime import timedelta
from pathlib import Path

import pydantic
import pytest
from flaky import Flaky
from scipy.stats import binom

from hitl_nb import Orchestrator, Policy, open_queue
from hitl_nb.errors import BadInput, QueueReadOnly
from hitl_nb.panel import controller as module
from hitl_nb.panel.controller import Controller
from hitl_nb.panel.correction import checker
from hitl_nb.panel.sitting import STATES, State
from hitl_nb.panel.view import rate, why
from hitl_nb.queue import ReviewQueue
from hitl_nb.task import Reason, Reviewer


class Refund(pydantic.BaseModel):
    kind: str
    amount: float = pydantic.Field(ge=0)


@pytest.fixture
def sit(queue, clock):
    def start(reviewer="ann", queue=queue, **options):
        return Controller(queue, reviewer, now=lambda: clock.aware, **options).start()

    return start


@pytest.fixture
def flaky(queue):
    return ReviewQueue(Flaky(queue.store))


def answers(queue):
    found = queue.history()
    return found[found["outcome"].notna()][["outcome", "label"]].values.tolist()


def reviews(queue):
    return [event for event in queue.events() if event["move"] == "review"]


# -- the table


def test_the_table_names_only_states_and_every_state_can_be_reached_and_left():
    targets = {state: set(STATES[state][2].split()) for state in State}
    assert set().union(*targets.values()) <= {str(state) for state in State}
    reached, todo = set(), {"loading"}
    while todo:
        reached |= todo
        todo = set().union(*(targets[State(state)] for state in todo)) - reached
    assert reached == {str(state) for state in State}
    assert [state for state in State if not targets[state]] == [State.FINISHED]


def test_every_state_with_an_action_leads_to_saving():
    for state, (_, actions, targets) in STATES.items():
        assert set(actions.split()) <= {"export"} or "saving" in targets.split(), state  # an export decides nothing


def test_a_move_that_is_not_in_the_table_is_refused(sit):
    with pytest.raises(RuntimeError, match="no move from empty to item"):
        sit()._set(State.ITEM)


def test_the_controller_imports_no_widget():
    for name in ("controller", "sitting", "correction", "show"):
        text = (Path(module.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        names = [n.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for n in node.names]
        names += [node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
        assert not [n for n in names if n.startswith(("ipywidgets", "anywidget", "IPython"))]


# -- judging


@pytest.mark.parametrize(
    ("press", "outcome", "label"),
    [
        (lambda c: c.approve("fine"), "approve", "spam"),
        (lambda c: c.reject(), "reject", None),
        (lambda c: c.correct("ham"), "correct", "ham"),
        (lambda c: c.correct("spam"), "approve", "spam"),  # what the model said is no correction
    ],
    ids=["approve", "reject", "correct", "correct to the same"],
)
def test_a_judgement_is_stored(sit, ask, queue, press, outcome, label):
    ask()
    assert press(sit())
    [[stored, answer]] = answers(queue)
    assert stored == outcome
    assert label is None or answer == label


def test_the_next_item_follows_and_the_counts_are_right(sit, ask, clock):
    for i in range(4):
        ask(input_data={"text": f"mail {i}"})
    controller = sit()
    assert (controller.view().shown.text, controller.view().total) == ("mail 0", 4)
    for _ in range(2):
        clock.forward(seconds=30)
        controller.approve()
    view = controller.view()
    assert (view.state, view.shown.text) == (State.ITEM, "mail 2")
    assert (view.done, view.total, view.rate, view.minutes_left, view.unsaved) == (2, 4, 2.0, 1.0, 0)
    assert view.last == "approved spam; saved 09:01 UTC"


def test_a_comment_is_stored_and_does_not_stick_to_the_next_item(sit, ask, queue):
    first = ask()
    ask()
    controller = sit()
    controller.reject("  too rude ")
    assert queue.get(first.task_id).reviews[0].comment == "too rude"
    assert controller.view().comment == ""


def test_an_empty_queue_says_who_else_has_work(sit, ask):
    ask(expertise="law")
    ask(expertise="law")
    ask(expertise="tax")
    view = sit().view()
    assert view.state is State.EMPTY
    assert view.waiting == (("law", 2), ("tax", 1))
    assert "law 2, tax 1" in view.message


def test_new_work_shows_itself_at_the_next_heartbeat(sit, ask):
    controller = sit()
    ask()
    controller.heartbeat()
    assert controller.view().state is State.ITEM


def test_an_expert_is_shown_what_needs_one(sit, ask):
    ask(expertise="law")
    view = sit(Reviewer(id="ann", expertise=("law",))).view()
    assert (view.state, view.total) == (State.ITEM, 1)
    assert "for law" in view.facts


def test_a_skipped_item_goes_back_with_its_reason(sit, ask, queue):
    first = ask()
    ask()
    controller = sit()
    controller.skip("not my language")
    assert "gave it back: not my language" in queue.explain(first.task_id)
    assert controller.view().done == 0
    assert controller.view().ticket.split(":")[0] != first.task_id


def test_undo_brings_the_item_back_with_what_was_written(sit, ask, queue):
    first = ask()
    ask()
    controller = sit()
    controller.correct("ham", "sure")
    assert controller.undo()
    view = controller.view()
    assert view.ticket.startswith(first.task_id)
    assert (view.comment, view.entered, view.done) == ("sure", (("label", "ham"),), 0)
    assert controller.approve("now I see")
    assert controller.view().shown.text == "hm"
    assert controller.approve()
    assert [outcome for outcome, _ in answers(queue)] == ["approve", "approve"]


def test_undo_goes_back_more_than_once_and_is_refused_without_a_decision(sit, ask, queue):
    for _ in range(3):
        ask()
    controller = sit()
    assert not controller.undo()
    for _ in range(3):
        controller.approve()
    assert controller.view().state is State.EMPTY
    assert [controller.undo() for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        assert controller.reject()
    assert [outcome for outcome, _ in answers(queue)] == ["reject"] * 3


def test_after_delivery_undo_is_refused_and_objecting_helps(sit, ask, queue):
    task = ask()
    controller = sit()
    controller.approve()
    queue.deliver(task.task_id, "caller")
    assert not controller.undo()
    assert "delivered" in controller.view().message
    assert controller.view().done == 1
    assert controller.object("I was wrong")
    assert queue.get(task.task_id).status == "disputed"


# -- errors: nothing is lost, doubled or overwritten


def test_a_store_that_fails_twice_then_works_loses_nothing(sit, ask, flaky, queue):
    ask()
    controller = sit(queue=flaky)
    flaky.store.fails = 2
    assert not controller.correct("ham", "sure")
    view = controller.view()
    assert (view.state, view.unsaved, view.comment, view.entered) == (State.ERROR, 1, "sure", (("label", "ham"),))
    assert "no connection" in view.message
    assert "Not saved yet: corrected spam → ham" in view.message
    assert not controller.retry()
    assert controller.view().unsaved == 1
    assert controller.retry()
    assert answers(queue) == [["correct", "ham"]]
    assert (controller.view().done, controller.view().unsaved) == (1, 0)


def test_an_answer_whose_receipt_was_lost_is_stored_once(sit, ask, flaky, queue):
    ask()
    controller = sit(queue=flaky)
    flaky.store.fails, flaky.store.late = 2, True
    assert not controller.reject()
    assert not controller.retry()
    assert controller.retry()
    assert len(reviews(queue)) == 1
    assert controller.view().done == 1


def test_an_unsaved_answer_cannot_be_replaced_or_skipped(sit, ask, flaky):
    ask()
    controller = sit(queue=flaky)
    flaky.store.fails = 1
    controller.approve()
    assert not any([controller.reject(), controller.correct("ham"), controller.skip(), controller.undo()])
    assert controller.view().unsaved == 1


def test_finishing_sends_what_is_unsaved_and_says_so_if_it_cannot(sit, ask, flaky, queue):
    ask()
    controller = sit(queue=flaky)
    flaky.store.fails = 2
    controller.approve()
    assert not controller.finish()
    assert controller.view().state is State.ERROR
    assert controller.finish()
    assert controller.view().state is State.FINISHED
    assert answers(queue) == [["approve", "spam"]]
    assert controller.view().summary == "0 min, 1 judged, 0 wrong answers stopped"


def test_an_answer_that_was_dropped_is_counted(sit, ask, flaky):
    ask()
    controller = sit(queue=flaky)
    flaky.store.fails = 9
    controller.approve()
    assert controller.finish(discard=True)
    assert controller.view().summary.endswith("1 answer was not saved")


@pytest.mark.parametrize("press", ["skip", "undo"])
def test_what_fails_without_an_answer_leaves_everything_as_it_was(sit, ask, flaky, press):
    for _ in range(2):
        ask()
    controller = sit(queue=flaky)
    controller.approve()
    before = controller.view()
    flaky.store.fails = 1
    assert not getattr(controller, press)()
    after = controller.view()
    assert (after.state, after.ticket, after.done) == (before.state, before.ticket, before.done)
    assert "no connection" in after.message
    assert getattr(controller, press)()


def test_a_load_that_fails_is_tried_again(sit, ask, flaky):
    ask()
    flaky.store.fails = 1
    controller = sit(queue=flaky)
    assert controller.view().state is State.ERROR
    assert controller.retry()
    assert controller.view().state is State.ITEM


def test_a_queue_that_cannot_be_written_keeps_the_answer(sit, ask, flaky, queue):
    ask()
    controller = sit(queue=flaky)
    flaky.store.fails, flaky.store.error = 1, QueueReadOnly(path="x", reason="no space")
    controller.approve()
    assert (controller.view().state, controller.view().unsaved) == (State.READ_ONLY, 1)
    assert controller.retry()
    assert answers(queue) == [["approve", "spam"]]


def test_what_the_queue_refuses_can_be_entered_anew(sit, ask, queue):
    ask()
    controller = sit()
    assert not controller.correct("ham\x00")
    view = controller.view()
    assert (view.state, view.unsaved) == (State.ITEM, 0)
    assert "NUL" in view.message
    assert controller.correct("ham")
    assert answers(queue) == [["correct", "ham"]]


# -- other people and time


def test_an_expired_lease_is_said_and_the_answer_kept_for_a_retry(sit, ask, queue, clock):
    ask()
    controller = sit()
    clock.forward(minutes=11)
    assert not controller.correct("ham")
    view = controller.view()
    assert (view.state, view.unsaved) == (State.LEASE_EXPIRED, 1)
    assert not any([controller.approve(), controller.correct("eggs")])  # the first answer waits to be sent
    assert controller.retry()
    assert answers(queue) == [["correct", "ham"]]


def test_who_holds_a_lapsed_item_is_named_and_skipping_goes_on(sit, ask, queue, clock):
    first = ask()
    controller = sit()
    clock.forward(minutes=11)
    assert [task.task_id for task in queue.claim("bob")] == [first.task_id]
    ask()
    assert not controller.approve()
    assert "bob" in controller.view().message
    assert not controller.retry()
    assert controller.view().state is State.LEASE_EXPIRED
    assert controller.skip()
    assert controller.view().state is State.ITEM
    assert answers(queue) == []


def test_who_was_faster_is_named_and_never_overwritten(sit, ask, queue, clock):
    task = ask()
    controller = sit()
    clock.forward(minutes=11)
    queue.resolve(task.task_id, "bob", "reject")
    assert not controller.approve("looks fine")
    view = controller.view()
    assert (view.state, view.unsaved) == (State.CONFLICT, 0)
    assert "bob" in view.message
    assert "approved spam" in view.message
    assert [outcome for outcome, _ in answers(queue)] == ["reject"]
    assert controller.object("bob is wrong")
    assert queue.get(task.task_id).status == "disputed"
    assert controller.view().state is State.EMPTY


def test_an_item_that_was_replaced_is_shown_anew_before_it_is_judged(sit, ask, queue):
    task = ask()
    controller = sit()
    queue.replace(task.task_id, {"text": "other words"}, {"label": "ham"})
    assert not controller.approve("nice")
    view = controller.view()
    assert (view.state, view.shown.text, view.comment) == (State.ITEM_CHANGED, "other words", "nice")
    assert answers(queue) == []
    assert controller.approve()
    assert answers(queue) == [["approve", "ham"]]


def test_an_undone_item_that_was_replaced_is_shown_anew_too(sit, ask, queue):
    task = ask()
    controller = sit()
    controller.approve()
    controller.undo()
    queue.replace(task.task_id, {"text": "other words"}, {"label": "ham"})
    assert not controller.approve()
    assert controller.view().shown.text == "other words"
    assert answers(queue) == []


@pytest.mark.parametrize("gone", ["withdraw", "forget"])
def test_an_item_that_is_gone_cannot_be_answered(sit, ask, queue, gone):
    task = ask(subject="eva")
    ask()
    controller = sit()
    queue.withdraw(task.task_id) if gone == "withdraw" else queue.forget("eva")
    assert not controller.approve()
    assert controller.view().state is State.CONFLICT
    assert controller.skip()
    assert controller.view().state is State.ITEM


def test_a_heartbeat_keeps_the_lease_while_somebody_is_there(sit, ask, queue, clock):
    ask()
    controller = sit()
    for _ in range(3):
        clock.forward(minutes=9)
        controller.heartbeat()
    assert controller.approve()


def test_an_absent_reviewer_does_not_hold_a_task_for_ever(sit, ask, queue, clock):
    task = ask()
    controller = sit()
    for _ in range(6):
        clock.forward(minutes=9)
        controller.heartbeat()
    assert [t.task_id for t in queue.claim("bob")] == [task.task_id]


def test_what_the_reviewer_holds_already_comes_first_again(sit, ask, queue, clock):
    held, other = ask(), ask()
    sit()  # a kernel that was killed, or a cell that is run again: nobody gives the item back
    clock.forward(minutes=9)
    again = sit()
    assert again.view().ticket.startswith(held.task_id)
    clock.forward(minutes=9)  # the lease was renewed
    assert again.approve()
    assert again.view().ticket.startswith(other.task_id)
    assert [event["task_id"] for event in reviews(queue)] == [held.task_id]


def test_what_somebody_else_holds_is_left_to_them(sit, ask):
    ask()
    second = ask()
    sit("ben")
    assert sit("ann").view().ticket.startswith(second.task_id)


def test_a_lease_that_ran_out_meanwhile_is_claimed_anew(sit, ask, queue, clock):
    ask()
    sit()
    clock.forward(minutes=11)
    again = sit()
    assert again.approve()
    assert [event["move"] for event in queue.events()].count("claim") == 2


def test_a_heartbeat_tells_that_the_lease_is_gone(sit, ask, queue, clock):
    ask()
    controller = sit()
    clock.forward(minutes=11)
    controller.heartbeat()
    assert controller.view().state is State.LEASE_EXPIRED
    assert controller.approve()
    assert answers(queue) == [["approve", "spam"]]


# -- two threads, two clicks


def test_a_decision_about_what_is_no_longer_shown_is_void(sit, ask, queue):
    ask()
    ask()
    controller = sit()
    ticket = controller.view().ticket
    assert controller.approve(ticket=ticket)
    assert not controller.approve(ticket=ticket)
    assert len(reviews(queue)) == 1


def test_clicks_from_eight_threads_at_once_are_one_review(sit, ask, queue):
    for _ in range(10):
        ask()
    controller = sit()
    for n in range(1, 11):
        ticket, start, done = controller.view().ticket, threading.Barrier(8), []

        def press(ticket=ticket, start=start, done=done):
            start.wait()
            done.append(controller.approve(ticket=ticket))

        threads = [threading.Thread(target=press) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done.count(True) == 1
        assert len(reviews(queue)) == n


def test_two_threads_that_press_anything_leave_a_sound_queue(sit, ask, queue):
    for _ in range(40):
        ask()
    controller = sit()

    def press(actions):
        for action in actions * 20:
            action()

    first = threading.Thread(target=press, args=([controller.approve, controller.undo, controller.heartbeat],))
    second = threading.Thread(target=press, args=([controller.reject, controller.skip, controller.view],))
    for thread in (first, second):
        thread.start()
    for thread in (first, second):
        thread.join()
    while controller.view().state is State.ITEM:
        controller.approve()
    assert controller.view().state is State.EMPTY
    assert queue.stats().status == {"reviewed": 40}
    assert queue.verify() == []
    assert controller.view().done == 40


# -- blind audits


@pytest.fixture
def audited(queue):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.5, audit_rate=1.0, second_audit=0))
    for i in range(3):
        orchestrator.process(
            {"text": f"mail {i}"}, {"label": "spam", "confidence": 0.9, "probabilities": {"spam": 0.9}}
        )


@pytest.mark.usefixtures("audited")
def test_an_audit_is_judged_blind_and_tells_afterwards(sit, queue):
    controller = sit()
    view = controller.view()
    assert view.blind
    text = f"{view.prediction} {view.bars} {view.confidence} {view.why} {view.predicted} {view.facts} {view.message}"
    assert not any(word in text for word in ("spam", "0.9", "audit"))
    assert controller.correct("ham")
    assert controller.view().last.startswith(
        "audit: you said ham, the model spam (0.9): disagreed; Random audit (p=1); saved"
    )
    assert controller.correct("spam")
    assert "agreed" in controller.view().last
    assert queue.stats().disagreed == 1
    assert answers(queue) == [["correct", "ham"], ["approve", "spam"]]


@pytest.mark.usefixtures("audited")
def test_an_audit_cannot_be_approved_unseen(sit, queue):
    controller = sit()
    assert "approve" not in controller.view().actions
    assert not controller.approve()
    assert "blind" in controller.view().message
    assert reviews(queue) == []
    assert controller.reject()


# -- corrections


@pytest.mark.parametrize(
    ("labels", "schema", "value", "stored"),
    [
        (["refund", 7], None, "7", {"label": 7}),
        (["refund", 7], None, {"label": "refund"}, {"label": "refund"}),
        ([True, False], None, "False", {"label": False}),
        (None, None, "free words", {"label": "free words"}),
        (None, None, {"a": 1}, {"a": 1}),
        (None, (0, 10), "2.5", {"label": 2.5}),
        (None, Refund, {"kind": "x", "amount": "3"}, {"kind": "x", "amount": 3.0}),
        (None, Refund, Refund(kind="x", amount=3), {"kind": "x", "amount": 3.0}),
    ],
)
def test_a_valid_correction_is_stored_as_a_dict(labels, schema, value, stored):
    assert checker(labels, schema).check(value) == stored


@pytest.mark.parametrize(
    ("labels", "schema", "value"),
    [
        (["refund"], None, "Refund"),
        (["refund"], None, None),
        (["refund"], None, {"label": "refund", "x": 1}),
        (None, None, "  "),
        (None, None, {}),
        (None, None, None),
        (None, (0, 10), "10.1"),
        (None, (0, 10), "nan"),
        (None, (0, 10), True),
        (None, (0, 10), "ten"),
        (None, Refund, {"kind": "x", "amount": -1}),
        (None, Refund, "x"),
    ],
)
def test_an_invalid_correction_never_reaches_the_queue(sit, ask, queue, labels, schema, value):
    ask()
    controller = sit(check=checker(labels, schema))
    assert not controller.correct(value, "my note")
    view = controller.view()
    assert (view.state, view.comment) == (State.ITEM, "my note")
    assert view.message
    assert reviews(queue) == []


@pytest.mark.parametrize("value", [0, "a\0b", "x" * 2_000_000], ids=["deep", "NUL", "long"])
def test_a_correction_beyond_every_bound_is_named_and_the_sitting_goes_on(sit, ask, queue, value):
    ask()
    controller = sit()
    for _ in range(50_000 if value == 0 else 0):
        value = [value]
    assert not controller.correct(value)
    assert controller.view().state is State.ITEM
    assert controller.view().message
    assert controller.view().entered == ()
    assert controller.correct("ham")
    assert answers(queue) == [["correct", "ham"]]


def test_what_is_wrong_is_kept_by_field(sit, ask):
    ask()
    controller = sit(check=checker(schema=Refund))
    controller.correct({"amount": -1})
    assert dict(controller.view().fields) == {
        "kind": "Field required",
        "amount": "Input should be greater than or equal to 0",
    }
    assert controller.view().entered == (("amount", "-1"),)
    assert controller.correct({"kind": "x", "amount": 1})
    assert controller.view().fields == ()


@pytest.mark.parametrize("labels", [[], ["a", "a"], [1, "1"], [""]])
def test_labels_that_cannot_be_told_apart_are_refused(labels):
    with pytest.raises(BadInput):
        checker(labels)


@pytest.mark.parametrize(("labels", "schema"), [(["a"], Refund), (None, "x"), (None, (1, 2, 3)), (None, int)])
def test_a_schema_that_is_none_is_refused(labels, schema):
    with pytest.raises(BadInput):
        checker(labels, schema)


# -- showing, why, the end


def test_an_item_that_cannot_be_shown_can_still_be_judged(sit, ask, queue):
    ask(input_data={"x": 1, "y": 2})
    controller = sit(render=lambda d: d["z"])
    view = controller.view()
    assert view.state is State.CANNOT_DISPLAY
    assert "KeyError: 'z'" in view.message
    assert view.shown.rows == (("x", "1"), ("y", "2"))
    assert controller.approve()
    assert len(reviews(queue)) == 1


def test_more_is_shown_on_request(sit, ask):
    ask(input_data={"text": "x" * 10_000})
    controller = sit()
    assert controller.view().shown.folded
    controller.unfold()
    assert controller.view().shown.text == "x" * 10_000


def test_more_of_what_the_model_said_is_shown_on_request(sit, ask):
    ask(ai_prediction={"label": "x" * 10_000})
    controller = sit()
    assert (controller.view().label, controller.view().answer.folded) == ("", True)
    controller.unfold()
    assert controller.view().answer.text == "x" * 10_000


def test_a_field_that_the_model_left_empty_is_not_one_that_cannot_be_shown(sit, ask):
    ask(ai_prediction={"paid": None, "number": "A-1", "remark": "a\u200bb", "text": "w" * 5000})
    assert (dict(sit().view().predicted), sit().view().withheld) == ({"number": "A-1"}, ("remark", "text"))


@pytest.mark.parametrize(
    ("reasons", "lines"),
    [
        (
            (Reason(rule="confidence", says="Low confidence: {value}", value=0.61, bound=0.85, field="confidence"),),
            ("Low confidence: 0.61 (bound 0.85); would pass at threshold 0.61",),
        ),
        (
            (Reason(rule="a", says="amount {value} > {bound}", value=120, bound=100, field="input.amount", hard=True),),
            ("amount 120 > 100; would pass with the bound at 120",),
        ),
        (
            (
                Reason(rule="f", says="Irreversible", value=True, hard=True),
                Reason(rule="x", says="odd\u202e"),
            ),
            ("Irreversible; asks at any confidence", "odd⟨U+202E⟩"),
        ),
        (
            (Reason(rule="c", says="{value}", value=0.999, bound=1.0, field="confidence"), Reason(rule="x", says="o")),
            ("0.999 (bound 1.0); would pass at threshold 0.99 if it were the only reason", "o"),
        ),
        ((Reason(rule="c", says="{value} {bound}", value=float("nan"), bound=0.5, field="confidence"),), ("nan 0.5",)),
    ],
)
def test_a_reason_says_what_would_have_changed_the_route(reasons, lines):
    assert why(reasons) == lines


def test_the_rate_needs_two_times(clock):
    now = clock.aware
    assert rate(()) is rate((now,)) is rate((now, now)) is None
    assert rate((now, now + timedelta(seconds=30))) == 2.0


def test_the_end_is_one_sentence(sit, ask, queue, clock):
    for _ in range(12):
        ask()
    counts = iter([(1, 100), (1, 200)])
    controller = sit(audits=lambda: next(counts))
    for i in range(10):
        clock.forward(minutes=4)
        controller.reject() if i < 3 else controller.approve()
    clock.forward(minutes=1)
    assert controller.finish()
    # one-sided 95 % bounds of 1 in 100 and of 1 in 200: 4.7 % and 2.3 %; 1 in 236 is the first to stay below 2 %
    assert binom.cdf(1, 235, 0.02) > 0.05 >= binom.cdf(1, 236, 0.02)
    assert controller.view().summary == (
        "41 min, 10 judged, 3 wrong answers stopped; automatic disagreement now ≤ 2.3 % (was ≤ 4.7 %); "
        "36 more audits to promise 2 %"
    )
    assert (controller.view().rate, controller.view().minutes_left) == (None, None)  # two are left, and nobody is at it
    assert {task.holder for task in queue.pending()} == {None}


@pytest.mark.parametrize("audits", [None, lambda: (0, 0), lambda: 1 / 0], ids=["none", "no audit yet", "broken"])
def test_the_end_is_sensible_without_audits(sit, audits):
    controller = sit(audits=audits)
    controller.finish()
    assert controller.view().summary == "0 min, 0 judged, 0 wrong answers stopped"


def test_nothing_of_an_item_is_left_after_the_end(sit, ask):
    ask(input_data={"text": "private words"})
    ask(input_data={"text": "private as well"})
    controller = sit(lookahead=2)
    controller.reject("private too")
    controller.finish()
    assert "private" not in repr(controller.view())
    assert not any([controller.approve(), controller.undo(), controller.retry(), controller.finish()])
    controller.heartbeat()
    controller.fail(ValueError("x"))
    assert controller.view().state is State.FINISHED


def test_several_items_can_be_claimed_ahead_and_are_given_back(sit, ask, queue):
    for _ in range(5):
        ask()
    controller = sit(lookahead=3)
    assert [task.holder for task in queue.pending()].count("ann") == 4
    controller.approve()
    controller.finish()
    assert {task.holder for task in queue.pending()} == {None}


# -- retraining beside it


def test_the_labels_of_the_model_in_another_order_are_an_approval(sit, ask, queue):
    ask(ai_prediction={"label": ["blue", "red"]})
    sit(check=checker(["red", "green", "blue"], multiple=True)).correct(["red", "blue"])
    assert queue.stats().outcome == {"approve": 1}


def in_hand(controller):
    view = controller.view()
    return [card.ticket.split(":")[0] for card in (view, *view.ahead)]


def test_what_comes_next_is_claimed_when_half_of_it_is_judged(sit, ask, queue):
    tasks = [ask(input_data={"text": f"mail {i}"}).task_id for i in range(12)]
    controller = sit(lookahead=4)
    assert in_hand(controller) == tasks[:5]
    controller.approve()
    assert in_hand(controller) == tasks[1:5]
    controller.approve()
    assert in_hand(controller) == tasks[2:7]
    for _ in range(10):
        controller.approve()
    assert [event["task_id"] for event in reviews(queue)] == tasks


def test_an_undone_item_is_in_hand_once_and_under_a_lease_of_its_own(sit, ask, queue):
    tasks = [ask().task_id for _ in range(3)]
    controller = sit(lookahead=4)
    controller.approve()
    controller.undo()
    assert in_hand(controller) == tasks
    assert queue.get(tasks[0]).holder == "ann"
    assert controller.approve(ticket=controller.view().ticket)
    assert len(reviews(queue)) == 2


def test_easy_items_are_approved_together_and_undone_together(sit, queue):
    policy = Policy(0.85, audit_rate=0)
    orchestrator = Orchestrator(queue=queue, policy=policy)
    flags = [{}, {"irreversible": True}, {}, {}, {}]
    tasks = [
        orchestrator.process({"i": i}, {"label": "a", "confidence": 0.6, **flag})["task_id"]
        for i, flag in enumerate(flags)
    ]
    controller = sit(lookahead=8)
    easy = [ticket.split(":")[0] for ticket in controller.easy]
    assert easy == [tasks[0], *tasks[2:]]  # what a hard rule sent is looked at alone
    view = controller.view()
    hard = next(card.ticket for card in (view, *view.ahead) if card.ticket not in controller.easy)
    assert not controller.approve_all([hard])
    assert reviews(queue) == []
    assert controller.approve_all(controller.easy[1:])
    assert sorted(event["task_id"] for event in reviews(queue)) == sorted(easy[1:])
    assert controller.view().done == 3
    assert controller.undo()
    assert controller.view().done == 0
    assert queue.stats().outcome == {}
    assert sorted(in_hand(controller)) == sorted(tasks)


def test_a_batch_that_fails_half_way_keeps_what_is_saved_and_shows_the_one_that_is_not(sit, ask, flaky, queue):
    tasks = [ask().task_id for _ in range(4)]
    controller = sit(queue=flaky, lookahead=4)
    controller.gather(4)
    flaky.store.fails = 0
    write, calls = flaky.store.write, []

    def third(*work, **options):
        calls.append(work)
        if len(calls) == 3:
            raise OSError("no connection")
        return write(*work, **options)

    flaky.store.write = third
    assert not controller.approve_all()
    assert controller.view().state is State.ERROR
    assert (controller.view().done, controller.view().unsaved) == (2, 1)
    assert controller.retry()
    assert [event["task_id"] for event in reviews(queue)] == tasks[:3]
    assert in_hand(controller) == tasks[3:]


def test_an_adjudicator_sees_the_answers_that_disagree_and_no_names(sit, queue):
    said = {"input_data": {"i": 1}, "ai_prediction": {"label": "spam"}, "confidence": 0.5, "reason": "unsure"}
    task = queue.submit(**said, reviews_required=2, consensus="unanimous")
    queue.resolve(task.task_id, "ann", "approve")
    assert sit("eve").view().answers == ()  # a second reviewer judges blind to the first
    queue.release(task.task_id, "eve")
    queue.resolve(task.task_id, "bob", "correct", {"label": "ham"}, "a newsletter")
    view = sit(Reviewer(id="zoe", roles=("reviewer", "adjudicator"))).view()
    assert view.answers == ("spam", "ham; note: a newsletter")
    assert view.why == ("the answers below disagree; yours settles it", "unsure")
    assert not view.easy


def test_reviews_go_on_during_a_retrain(sit, ask):
    for _ in range(3):
        ask()
    going, told = threading.Event(), threading.Event()

    def retrain(report):
        report("fitting")
        told.set()
        assert going.wait(20)
        return "promoted v2"

    controller = sit(retrain=retrain)
    thread = controller.start_retrain()
    assert told.wait(20)
    assert controller.start_retrain() is None
    assert controller.approve()
    view = controller.view()
    assert (view.retrain.state, view.retrain.text, view.retrain.step, view.done) == ("running", "fitting", 2, 1)
    going.set()
    thread.join(20)
    assert (controller.view().retrain.state, controller.view().retrain.text) == ("done", "promoted v2")


def test_a_retrain_that_fails_says_why_and_stops_nothing(sit, ask):
    ask()
    controller = sit(retrain=lambda report: 1 / 0)
    controller.start_retrain().join(20)
    view = controller.view()
    assert (view.retrain.state, view.retrain.text) == ("failed", "ZeroDivisionError: division by zero")
    assert view.state is State.ITEM
    assert controller.approve()


def test_a_closed_queue_is_said_and_keeps_the_answer(clock):
    queue = open_queue(":memory:", clock=clock)
    queue.submit(input_data={"x": 1}, ai_prediction={"label": "a"}, confidence=0.5, reason="r")
    controller = Controller(queue, "ann", now=lambda: clock.aware).start()
    queue.close()
    assert not controller.approve()
    assert (controller.view().state, controller.view().unsaved) == (State.ERROR, 1)
    assert "closed" in controller.view().message
