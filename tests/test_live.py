"""The kernel's side of the panel with keys: what it sends, and what it does with whatever a page sends."""

import json
import time

import numpy as np
import pytest

from hitl_nb.errors import BadInput
from hitl_nb.panel import ReviewPanel, view
from hitl_nb.panel import panel as module
from hitl_nb.panel.live import Live
from hitl_nb.panel.sitting import State


class Page:
    """What a browser would be: keeps what the kernel sends, and answers by hand."""

    def __init__(self, panel):
        self.panel, self.sent, self.n = panel, [], 0
        panel.live.widget.send = lambda content, buffers=None: self.sent.append((content, buffers))

    def say(self, session="s", **content):
        self.panel.live.widget._handle_custom_msg({"session": session, **content}, [])
        return self.sent[-1][0]

    def ready(self):
        return self.say(kind="ready", sent=self.n)

    def act(self, action, n=None, **more):
        self.n += 1
        return self.say(kind="act", n=n or self.n, action=action, **more)


@pytest.fixture
def page(queue, ask, clock):
    for i in range(12):
        ask(input_data={"text": f"mail {i}"})
    return Page(ReviewPanel(queue, "ann", labels=["ham", "spam"], now=lambda: clock.aware))


def outcomes(queue):
    return [event["move"] for event in queue.events() if event["move"] in ("review", "undo")]


def test_a_page_that_is_ready_gets_everything_and_then_what_is_new(page, queue):
    assert page.sent == []  # nobody listens yet
    told = page.ready()
    assert len(told["queue"]) == len(told["cards"]) == 9
    assert told["setup"]["reviewer"] == "ann"
    told = page.act("approve", ticket=told["queue"][0], id="one")
    assert (told["done"], told["cards"], len(told["queue"])) == (1, {}, 8)
    assert len(page.ready()["cards"]) == 8  # loaded anew
    json.dumps(told, allow_nan=False)


def test_an_act_is_carried_out_once_and_its_number_told(page, queue):
    first = page.ready()["queue"][0]
    for _ in range(3):
        told = page.act("approve", n=1, ticket=first, id="one", comment="sure")
    assert told["sessions"]["s"] == {"answered": 1, "heard": 0, "refused": []}
    assert outcomes(queue) == ["review"]
    [review] = queue.get(first.split(":")[0]).reviews
    assert (review.submit_id, review.comment) == ("one", "sure")


def test_what_came_too_early_or_never_is_refused_by_its_number(page, queue):
    told = page.ready()
    told = page.act("approve", n=3, ticket=told["queue"][1])
    assert told["sessions"]["s"]["refused"] == [1, 2, 3]
    assert outcomes(queue) == []


def test_a_number_that_no_page_can_have_reached_costs_no_memory(page, queue):
    told = page.act("approve", n=10**15, ticket=page.ready()["queue"][1])
    assert len(told["sessions"]["s"]["refused"]) == 200
    assert outcomes(queue) == []


def test_what_is_wrong_with_a_correction_comes_back_with_it(page, queue):
    told = page.act("correct", ticket=page.ready()["queue"][0], correction="eggs", comment="hm")
    assert "labels are ham, spam" in told["message"]
    assert (told["comment"], told["entered"], told["state"]) == ("hm", (("label", "eggs"),), "item")
    assert outcomes(queue) == []


@pytest.mark.parametrize(
    "content",
    [
        None, [], "act", 7, {}, {"session": 1, "kind": "act", "n": 1}, {"session": "s", "kind": "act", "n": "1"},
        {"session": "s" * 65, "kind": "ready"}, {"session": "s", "kind": "act"},
        {"session": "s", "kind": "ready", "sent": "x"},
        {"session": "s", "kind": "act", "n": 1, "action": "__class__"},
        {"session": "s", "kind": "act", "n": 1, "action": "close"},
        {"session": "s", "kind": "act", "n": 1, "action": "approve", "ticket": {"a": 1}},
        {"session": "s", "kind": "act", "n": 1, "action": "correct", "correction": [[[[]]]]},
        {"session": "s", "kind": "act", "n": 1, "action": "batch", "tickets": "all"},
    ],
)  # fmt: skip
def test_a_message_that_makes_no_sense_stores_nothing_and_the_panel_goes_on(page, queue, content):
    page.ready()
    page.panel.live.widget._handle_custom_msg(content, [])
    assert outcomes(queue) == []
    page.panel.retry()
    assert page.panel.view.state is State.ITEM
    page.panel.approve()
    assert outcomes(queue) == ["review"]


def test_many_pages_are_remembered_up_to_a_bound(page):
    for i in range(100):
        told = page.say(session=f"s{i}", kind="ready")
    assert len(told["sessions"]) <= 16


def test_a_page_that_speaks_is_remembered_longer_than_one_that_does_not(page):
    for i in range(40):
        page.say(session=f"s{i}", kind="ready")
        told = page.say(session="s0", kind="ready")
    assert "s0" in told["sessions"]


def test_a_new_label_is_told_to_the_page_once(queue, ask):
    ask(), ask()
    page = Page(ReviewPanel(queue, "ann", labels=["ham", "spam"], new_labels=True))
    told = page.act("correct", ticket=page.ready()["queue"][0], correction="eggs")
    assert told["setup"]["form"]["options"] == ["ham", "spam", "eggs"]
    assert "setup" not in page.act("undo")
    assert page.ready()["setup"]["form"]["options"] == ["ham", "spam", "eggs"]


def test_pictures_go_beside_the_message_and_no_trait_holds_an_item(queue, ask):
    ask(input_data={"pixels": np.arange(64.0).reshape(8, 8).tolist()})
    page = Page(ReviewPanel(queue, "ann", render=lambda item: np.array(item["pixels"])))
    page.ready()
    content, buffers = page.sent[-1]
    [card] = content["cards"].values()
    assert card["shown"]["parts"][0]["buffer"] == 0
    assert buffers[0].startswith(b"\x89PNG")
    state = page.panel.live.widget.get_state()
    assert not any("pixels" in str(value) for key, value in state.items() if key not in ("_esm", "_css"))


def test_where_no_page_answers_the_plain_panel_shows_itself(queue, ask, monkeypatch):
    ask()
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    panel = ReviewPanel(queue, "ann")
    assert panel.plain is None
    panel._repr_mimebundle_()
    until = time.monotonic() + 30
    while time.monotonic() < until and not (panel.plain and panel.plain._answer.value):
        time.sleep(0.01)
    assert panel.plain._answer.value
    assert len(panel.widget.children) == 2
    Page(panel).ready()  # it was slow, not away
    assert (panel.plain, len(panel.widget.children)) == (None, 1)


def test_to_a_page_that_never_hears_the_plain_panel_is_shown_until_it_does(page):
    for shown in (False, False, True, True):
        page.say(kind="ready", sent=0, heard=False)
        assert (page.panel.plain is not None) is shown
    assert page.panel.plain._answer.value
    page.say(kind="ready", sent=0, heard=True)
    assert page.panel.plain is None
    page.say(kind="ready", sent=0, heard=False)
    assert page.panel.plain is None


def calls(monkeypatch, place, name):
    """Note each call of something that goes on doing what it does."""
    noted, does = [], getattr(place, name)
    monkeypatch.setattr(place, name, lambda *given, **more: noted.append(name) or does(*given, **more))
    return noted


@pytest.mark.parametrize("pace", [0.0, Live.pace])
def test_a_decision_shows_its_items_once_however_many_states_it_passes(page, monkeypatch, pace):
    page.panel.live.pace = pace
    told, shown, before = page.ready(), calls(monkeypatch, view, "card_of"), len(page.sent)
    told = page.act("approve", ticket=told["queue"][0])
    assert (told["done"], len(told["queue"])) == (1, 8)
    assert (len(shown), len(page.sent) - before) == (8, 1)


def test_a_decision_asks_the_queue_for_nothing_that_grows_with_it(page, queue, monkeypatch):
    told, asked = page.ready(), [calls(monkeypatch, queue, name) for name in ("stats", "pending", "history")]
    for done in range(1, 12):
        told = page.act("approve", ticket=told["queue"][0])
        assert told["done"] == done
    assert asked == [[], [], []]
    page.panel.controller.heartbeat()
    assert asked == [["stats"], [], []]


@pytest.mark.parametrize("keys", [{"approve": "ab"}, {"approve": "r"}, {"dance": "x"}, {"approve": ""}, {"skip": " "}])
def test_keys_that_cannot_be_told_apart_are_refused(queue, keys):
    with pytest.raises(BadInput, match="keys"):
        ReviewPanel(queue, "ann", keys=keys)


def test_keys_can_be_others(queue):
    assert Page(ReviewPanel(queue, "ann", keys={"approve": "Y"})).ready()["setup"]["keys"]["approve"] == "y"
