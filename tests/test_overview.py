"""A queue at a glance: what it says, what is an alarm, and what it costs; without a browser."""

import gc
import re
import threading
import weakref
from datetime import timedelta

import ipywidgets
import pytest
from conftest import let_in, over_http, service
from payloads import HIDDEN, MARKUP

from hitl_nb import Orchestrator, Policy, Reviewer, open_queue
from hitl_nb.display import line
from hitl_nb.errors import BadInput, StorageFailed
from hitl_nb.evidence import Certificate, always_valid
from hitl_nb.loop import Watch
from hitl_nb.panel import QueueView, ReviewPanel
from hitl_nb.panel.overview import SHARE, pause
from hitl_nb.queue import Wait


@pytest.fixture
def queue(clock):
    with open_queue(":memory:", clock=clock) as opened:
        yield opened


@pytest.fixture
def view(queue, clock):
    return QueueView(queue, now=lambda: clock.aware)


def value(text, what):
    """Return what stands in the line that begins with these words."""
    return next(row[len(what) :].split() for row in text.splitlines() if row.startswith(what))


def said(view):
    """Return what a page is told when it asks."""
    told = []
    view.widget.send = told.append
    view._answer()
    return told[0]


# -- what it says ------------------------------------------------------------------------------------------------------


def test_it_counts_what_waits_since_when_and_until_when(view, clock, ask):
    assert value(str(view), "oldest open") == ["none"]
    ask(confidence=0.4, expertise="law", deadline=timedelta(hours=2))
    clock.forward(minutes=30)
    ask(confidence=0.6)
    ask(confidence=0.6, expertise="law")
    text = str(view)
    assert text.splitlines()[0].endswith(", 3 open")
    assert [value(text, one) for one in ("high", "medium", "low")] == [["1"], ["2"], ["0"]]
    assert value(text, "law")[0] == "2"
    assert value(text, "anyone")[0] == "1"
    assert value(text, "oldest open")[:3] == ["waits", "30", "min,"]
    assert value(text, "next deadline") == ["in", "1", "h", "30", "min,", "at", "2026-01-05", "11:00", "UTC"]


def test_answers_are_counted_by_reviewer_and_age(view, clock, ask):
    for _ in range(5):
        ask()
    times = {"eve": [26], "ann": [20, 0], "bob": [0.5, 0.25]}
    end = clock.time + timedelta(hours=30)
    for before, who in sorted(((hours, who) for who, all_ in times.items() for hours in all_), reverse=True):
        clock.time = end - timedelta(hours=before)
        view.queue.resolve(view.queue.claim(who)[0].task_id, who, "approve")
    clock.time = end
    text = str(view)
    assert value(text, "bob") == ["2", "2", "2"]
    assert value(text, "ann") == ["1", "2", "2"]
    assert "eve" not in text  # only the last day
    assert value(text, "answers") == ["3", "in", "the", "last", "hour,", "4", "in", "the", "last", "day"]
    assert text.index("\nbob") < text.index("\nann")  # who answers most stands first


def test_what_a_new_task_would_wait_is_said_for_each_expertise(view, clock, ask):
    for _ in range(5):
        ask(expertise="law")
    assert value(str(view), "law") == ["5", "not", "known"]
    for _ in range(4):
        clock.forward(minutes=10)
        view.queue.resolve(view.queue.claim(Reviewer(id="ann", expertise=("law",)))[0].task_id, "ann", "approve")
    open_, minutes, unit, *interval = value(str(view), "law")
    assert (open_, unit) == ("1", "min")
    assert float(minutes) > 0
    assert len(interval) == 3  # (low to high)


@pytest.mark.parametrize("minutes", [float("nan"), float("inf")])
def test_a_wait_that_is_no_number_is_not_known(view, ask, monkeypatch, minutes):
    ask()
    monkeypatch.setattr(type(view.queue), "estimated_wait", lambda *_: Wait(minutes=minutes, low=0.0, high=minutes))
    assert value(str(view), "anyone") == ["1", "not", "known"]


def test_the_automatic_share_comes_with_what_audits_say_however_often_one_looks(queue, view):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=1.0, second_audit=0))
    ids = [orchestrator.process({"x": i}, {"label": "ham", "confidence": 0.9})["task_id"] for i in range(10)]
    assert value(str(view), "automatic share") == ["100.0%", "of", "10"]
    assert value(str(view), "audits disagree") == ["none", "judged", "yet"]
    for i, task_id in enumerate(ids):
        queue.resolve(task_id, "ann", *(("correct", {"label": "spam"}) if i == 0 else ("approve",)))
    # at one look it would be 0.3% to 44.5%
    assert f"audits disagree  {always_valid(1, 10)}\n" in f"{view}\n"


def test_another_word_on_the_risk_can_be_handed_in(queue):
    assert value(str(QueueView(queue, risk=lambda: "1 in 100")), "audits disagree") == ["1", "in", "100"]


def test_many_names_are_counted_not_listed(view, ask):
    for i in range(10):
        ask(expertise=f"field {i}")
    for i in range(9):
        who = Reviewer(id=f"person {i}", expertise=("field 0",))
        view.queue.resolve(ask(expertise="field 0").task_id, who, "approve")
    text = str(view)
    assert text.count("\nfield ") == text.count("\nperson ") == 8
    assert "… 2 more" in text
    assert "… 1 more" in text


# -- alarms ------------------------------------------------------------------------------------------------------------


def test_a_passed_deadline_is_an_alarm_until_it_is_answered(view, clock, ask):
    task = ask(deadline=timedelta(minutes=10), escalation=["lead"])
    assert view.look().alarms == ()
    clock.forward(minutes=11)
    view.queue.tick()
    assert view.look().alarms == ("1 overdue: the deadline has passed without an answer",)
    assert value(str(view), "lead")[0] == "1"
    view.queue.resolve(task.task_id, Reviewer(id="lead", expertise=("lead",)), "approve")
    assert view.look().alarms == ()


def test_that_nobody_answers_is_an_alarm_while_something_waits(view, clock, ask):
    clock.forward(days=3)
    ask()
    clock.forward(minutes=59)
    assert view.look().alarms == ()
    clock.forward(minutes=1)
    task = ask()
    assert view.look().alarms == ("nobody has answered for 1 h 0 min, 2 wait",)
    view.queue.resolve(task.task_id, "ann", "approve")
    assert view.look().alarms == ()
    clock.forward(hours=2)
    assert view.look().alarms == ("nobody has answered for 2 h 0 min, 1 wait",)
    view.queue.resolve(view.queue.claim("ann")[0].task_id, "ann", "approve")
    clock.forward(days=2)
    assert view.look().alarms == ()  # nothing waits


def promise(threshold):
    return Certificate(
        threshold=threshold, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v8"
    )


def test_a_certificate_taken_back_is_an_alarm_until_another_one_is_in_use(queue, view, clock):
    orchestrator = Orchestrator(queue=queue, policy=Policy(0.85, audit_rate=0.1))
    watch = Watch(orchestrator, promise(0.9))
    assert view.look().alarms == ()
    clock.forward(minutes=1)
    watch.revoke("drift: the camera was <moved>")
    [alarm] = view.look().alarms
    assert alarm == (
        f"certificate {watch.certificate.id} taken back at 2026-01-05 09:01 UTC: drift: the camera was <moved>"
    )
    assert QueueView(queue).look().alarms == view.look().alarms == (alarm,)  # one that came late says the same
    Watch(orchestrator, promise(0.95))
    assert view.look().alarms == QueueView(queue).look().alarms == ()


# -- a look that fails, and what it costs ------------------------------------------------------------------------------


def test_a_look_that_fails_keeps_the_last_figures_and_goes_on(view, clock, ask, monkeypatch):
    ask()
    view.look()
    clock.forward(minutes=5)

    def away(*_, **__):
        raise StorageFailed(reason="no <b>connection</b>\x00")

    with monkeypatch.context() as patch:
        patch.setattr(view.queue, "stats", away)
        told = said(view)
        assert told["alarms"][0].startswith("not reached since 09:00 UTC, trying again: ")
        assert "no <b>connection</b>⟨U+0000⟩" in told["alarms"][0]
        assert told["tables"][0]["title"].endswith(", 1 open")
        assert told["again"] >= 2
        with pytest.raises(StorageFailed):
            view.look()
        assert "not reached since 09:00 UTC" in str(view)
    assert said(view)["alarms"] == []
    assert said(view)["at"] == "09:05:00 UTC"


def test_a_view_of_a_closed_queue_says_so_and_asks_no_more(view, ask):
    ask()
    view.look()
    view.queue.close()
    told = said(view)
    assert told["alarms"] == ["closed at 09:00 UTC"]
    assert told["again"] is None
    assert told["tables"][0]["title"].endswith(", 1 open")


def test_the_dearer_a_look_the_rarer_it_is(view, monkeypatch):
    assert pause(2.0, 0.0) == pause(2.0, 2.0 * SHARE) == 2.0
    assert pause(2.0, 1.0) == 1.0 / SHARE
    assert pause(2.0, float("inf")) == 600
    assert said(view)["again"] == pause(2.0, view._cost)


def test_of_looks_asked_for_at_once_one_is_made(view, monkeypatch):
    begun, go_on, calls, stats = threading.Event(), threading.Event(), [], view.queue.stats

    def slow():
        calls.append(1)
        begun.set()
        go_on.wait(20)
        return stats()

    monkeypatch.setattr(view.queue, "stats", slow)
    first = threading.Thread(target=view._answer)
    first.start()
    begun.wait(20)
    for _ in range(5):
        view._answer()  # returns at once
    go_on.set()
    first.join(20)
    assert len(calls) == 1


def test_a_look_changes_nothing(view, ask):
    ask()
    before = view.queue.events()
    view.look()
    str(view)
    assert view.queue.events() == before


def test_looks_add_no_widget_and_nothing_holds_a_view_that_is_closed(queue, ask):
    view = QueueView(queue)
    ask()
    said(view)
    widgets = len(ipywidgets.widgets.widget._instances)
    for _ in range(20):
        said(view)
    assert len(ipywidgets.widgets.widget._instances) == widgets
    gone = weakref.ref(view)
    view.close()
    del view
    gc.collect()
    assert gone() is None
    assert len(ipywidgets.widgets.widget._instances) < widgets


def test_a_path_in_place_of_a_queue_is_refused_with_the_remedy():
    for show in (QueueView, ReviewPanel):
        with pytest.raises(BadInput, match=r"pass open_queue\(path\)"):
            show("reviews.duckdb")


@pytest.mark.parametrize("every", [0, -1, float("nan"), True, "2", 10**6, None])
def test_a_pace_that_is_none_is_refused(queue, every):
    with pytest.raises(BadInput, match=r"0\.1 to 600"):
        QueueView(queue, every=every)


# -- what comes from outside -------------------------------------------------------------------------------------------


def test_hostile_names_are_clean_text_and_no_markup(view, ask):
    for name in [*MARKUP, *(one for one in HIDDEN if "\x00" not in one and "\ud800" not in one)]:
        ask(expertise=name)
        view.queue.resolve(ask().task_id, Reviewer(id=name), "approve")
        view.queue.note("revoke_certificate", {"certificate": name, "why": name})
        told = said(view)
        assert told["alarms"][-1].count(line(name)) == 2
        assert {name, line(name)} & {row[0] for row in told["tables"][2]["rows"]} <= {line(name)}
        if name in HIDDEN:
            assert name not in repr(told) + str(view)


def test_over_the_line_it_says_the_same(tmp_path, clock):
    with open_queue(tmp_path / "reviews.duckdb", clock=clock) as owner, over_http(owner) as remote:
        given = {"input_data": {}, "ai_prediction": {}, "confidence": 0.4, "reason": "unsure"}
        owner.submit(**given, expertise="law", deadline=timedelta(hours=2))
        for _ in range(4):
            task = owner.submit(**given).task_id
            clock.forward(minutes=5)
            remote.resolve(task, "ann", "approve")
        owner.note("revoke_certificate", {"certificate": "c", "why": "drift"})
        here, there = (QueueView(one, now=lambda: clock.aware).look() for one in (owner, remote))
        assert here == there
        assert here.waits["law"].minutes > 0
        assert here.stats.last_hour == here.stats.last_day == {"ann": 4}


def test_an_error_of_any_length_is_one_line(queue):
    def wrong():
        raise ValueError("two\nlines " * 1000)

    [alarm] = said(QueueView(queue, risk=wrong))["alarms"]
    assert "ValueError: two⟨U+000A⟩lines" in alarm
    assert len(alarm) <= 600  # each of the 300 characters that is odd is spelt out


@pytest.mark.parametrize(("role", "why"), [("reviewer", None), ("producer", "?: ?"), ("admin", "c: drift")])
def test_each_token_of_a_served_queue_sees_what_it_may(queue, ask, role, why):
    ask()
    queue.note("revoke_certificate", {"certificate": "c", "why": "drift"})
    with service(queue) as running, open_queue(running.address, token=let_in(queue, "ann", (role,))) as remote:
        found = QueueView(remote).look()
    assert found.stats.open_by_priority == {"medium": 1}
    assert [re.sub(" taken back at .* UTC", "", alarm) for alarm in found.alarms] == (
        [f"certificate {why}"] if why else []
    )


def test_what_a_notebook_stores_of_it_holds_no_name(view, ask):
    view.queue.resolve(ask().task_id, "top-secret", "approve")
    view.look()
    shown, _ = view._repr_mimebundle_()
    assert "top-secret" not in repr(shown) + repr(view.widget.get_state())
    assert shown["text/plain"] == repr(view)
    view.close()
    assert view._repr_mimebundle_()[0] == {"text/plain": repr(view)}
