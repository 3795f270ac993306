"""Judged tasks that are like the one in front: which they are, and who may see them."""

import time

import numpy as np
import pytest
from payloads import MARKUP
from sklearn.datasets import load_digits

from hitl_nb.panel import ReviewPanel
from hitl_nb.panel.similar import nearest
from hitl_nb.task import Reviewer


def test_of_real_digits_the_nearest_are_mostly_the_same_digit():
    pixels, digits = load_digits(return_X_y=True)
    others = [{"pixels": row.reshape(8, 8).tolist()} for row in pixels[:300]]
    same = [
        digits[i] == digits[300 + k]
        for k in range(60)
        for i in nearest({"pixels": pixels[300 + k].reshape(8, 8).tolist()}, others)
    ]
    assert len(same) > 150
    assert np.mean(same) > 0.85


def test_numbers_and_words_count_by_how_many_fields_they_have():
    others = [
        {"amount": 10.0, "shop": "kiosk"},
        {"amount": 9_000.0, "shop": "jeweller"},
        {"amount": 11.0, "shop": "bar"},
    ]
    assert nearest({"amount": 12.0, "shop": "kiosk"}, others)[0] == 0
    assert nearest({"amount": 8_000.0, "shop": "jeweller"}, others) == [1]


def test_what_is_as_far_away_as_any_other_is_not_alike():
    assert nearest({"text": "a parcel"}, [{"text": "lunch today"}, {"text": "minutes of a meeting"}]) == []
    assert nearest({"text": "a parcel"}, []) == []


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 1e308, float("nan"), float("inf"), 2**70, "", " ", "x" * 100_000, MARKUP[0], [], {},
        [[[1], 2]], list(range(10_000)), {str(i): i for i in range(10_000)}, {"a": 1e308, "b": -1e308}, {"a": "1"},
        {"": {"": ""}},
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_any_input_can_be_compared_with_any_other(value):
    others = [{"text": "hm"}, {"a": 1.0}, {"a": -1e308}, {}, {"a": {"b": [1, 2, None, True, "x"]}}, {"x": value}]
    assert set(nearest({"x": value}, others)) <= set(range(len(others)))


def judge(queue, text, reviewer="bob", correction=None, **options):
    task = queue.submit(
        input_data={"text": text}, ai_prediction={"label": "ham"}, confidence=0.5, reason="unsure", **options
    )
    queue.resolve(task.task_id, reviewer, *(("correct", {"label": correction}) if correction else ("approve",)))
    return task


@pytest.fixture
def panel(queue, ask, clock):
    judge(queue, "invoice of a parcel", correction="spam")
    judge(queue, "invoice of last month")
    judge(queue, "lunch")
    ask(input_data={"text": "where is the invoice"})
    return ReviewPanel(queue, Reviewer(id="ann", expertise=("tax",)), now=lambda: clock.aware)


def test_the_answers_to_similar_tasks_are_told_without_names(panel):
    assert sorted(one.said for one in panel.similar()) == ["ham (the model: ham)", "spam (the model: ham)"]
    assert sorted(one.shown.text for one in panel.similar()) == ["invoice of a parcel", "invoice of last month"]


def test_none_is_shown_that_the_reviewer_could_not_have_been_asked(panel, queue):
    judge(queue, "invoice of a surgeon", Reviewer(id="dr", expertise=("medicine",)), expertise="medicine")
    judge(queue, "invoice of the tax office", Reviewer(id="tim", expertise=("tax",)), expertise="tax")
    assert {one.shown.text for one in panel.similar()} == {
        "invoice of a parcel", "invoice of last month", "invoice of the tax office",
    }  # fmt: skip


def test_of_a_blind_audit_none_is_shown_and_of_erased_ones_neither(queue, ask, clock):
    judge(queue, "invoice of a parcel", subject="eve")
    ask(input_data={"text": "invoice"}, audit=True)
    blind = ReviewPanel(queue, "ann", now=lambda: clock.aware)
    assert blind.view.blind
    assert blind.similar() == ()
    blind.finish()
    ask(input_data={"text": "invoice"}, priority="high")
    seeing = ReviewPanel(queue, "ann", now=lambda: clock.aware)
    assert [one.shown.text for one in seeing.similar()] == ["invoice of a parcel"]
    queue.forget("eve")
    assert seeing.similar() == ()


def test_several_answers_to_one_task_are_counted_and_a_note_is_told(queue, ask, clock):
    task = ask(input_data={"text": "invoice"}, reviews_required=3)
    for who, comment in (("bob", None), ("eve", None), ("dan", "odd sender")):
        queue.resolve(task.task_id, who, "approve", comment=comment)
    ask(input_data={"text": "invoice"})
    [one] = ReviewPanel(queue, "ann", now=lambda: clock.aware).similar()
    assert one.said == "2 × spam · spam; note: odd sender (the model: spam)"


def test_a_page_gets_them_beside_its_decisions_and_only_of_the_last_item_it_asked_about(panel):
    sent = []
    panel.live.widget.send = lambda content, buffers=None: sent.append(content)
    for ticket in ("gone", panel.view.ticket):
        panel.live.widget._handle_custom_msg({"session": "s", "kind": "similar", "ticket": ticket}, [])
    until = time.monotonic() + 30
    while not any(one.get("found") for one in sent) and time.monotonic() < until:
        time.sleep(0.01)
    assert {one["kind"] for one in sent} == {"similar"}
    assert sent[-1]["ticket"] == panel.view.ticket
    assert len(sent[-1]["found"]) == 2


def test_where_they_cannot_be_read_that_is_said_and_the_item_stays(panel, queue):
    from hitl_nb.panel.live import Live

    sent = []

    def away(ticket):
        raise OSError("the disk is gone")

    live = Live(panel.controller.view, lambda asked: True, panel.controller.fail, dict, away)
    live.widget.send = lambda content, buffers=None: sent.append(content)
    live._compared = "x"
    live._compare("x")
    assert "the disk is gone" in sent[0]["problem"]
    assert panel.view.state == "item"
