"""The table of moves: what is in it happens, what is not raises."""

import re

import pytest
from conftest import START

from hitl_nb.errors import IllegalMove
from hitl_nb.queue.row import TaskRow, change
from hitl_nb.task import MOVES, OPEN, Move, Reason, Reviewer, Status, state_diagram

PAIRS = [(status, move) for status in Status for move in Move]


def row(status):
    return TaskRow(task_id="01234567-0000-7000-8000-000000000000", status=str(status), created_at=START)


def test_every_state_has_its_line():
    assert list(MOVES) == list(Status)


@pytest.mark.parametrize(("status", "move"), PAIRS)
def test_a_move_leads_only_where_the_table_says(status, move):
    legal = MOVES[status].get(move, ())
    for target in Status:
        if target in legal:
            assert change(row(status), move, target) == row(target)
        else:
            with pytest.raises(IllegalMove, match=f"is {status} and cannot {move}"):
                change(row(status), move, target)


def test_nothing_but_a_review_ends_in_reviewed_and_nothing_but_a_denial_in_expired():
    into = {
        target: {m for s in Status for m, t in MOVES[s].items() if target in t and s != target} for target in Status
    }
    assert into[Status.REVIEWED] == {Move.REVIEW}
    assert into[Status.EXPIRED] == {Move.DENY}
    assert into[Status.AUTO_APPROVED] == set()
    assert MOVES[Status.WITHDRAWN] == {}


def test_a_claimed_task_can_only_be_answered_by_way_of_a_claim():
    assert [s for s in Status if Move.REVIEW in MOVES[s]] == [Status.CLAIMED]


def test_every_open_task_can_be_replaced_and_withdrawn():
    for status in Status:
        both = {Move.REPLACE, Move.WITHDRAW} & set(MOVES[status])
        assert both == ({Move.REPLACE, Move.WITHDRAW} if status in OPEN else set())


def test_the_diagram_has_an_arrow_for_each_move_and_its_targets():
    first, *lines = state_diagram().splitlines()
    assert first == "stateDiagram-v2"
    assert "    pending_review --> claimed: claim" in lines
    drawn = set()
    for source, target, moves in (re.fullmatch(r"    (\S+) --> (\S+): (.+)", line).groups() for line in lines):
        drawn |= {(source, move, target) for move in moves.split(", ")}
    moves = {(s, m, target) for s, found in MOVES.items() for m, targets in found.items() for target in targets}
    assert drawn == moves | {("[*]", "submit", "auto_approved"), ("[*]", "submit", "pending_review")}


@pytest.mark.parametrize("given", ["ann", Reviewer(id="ann")])
def test_an_id_is_a_reviewer(given):
    assert Reviewer.of(given) == Reviewer(id="ann")


@pytest.mark.parametrize("given", ["", "  ", "a" * 201, 7, None, "a\0b", "\ud800"])
def test_what_is_no_name_is_no_reviewer(given):
    with pytest.raises(ValueError, match="reviewer"):
        Reviewer.of(given)


def test_a_role_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="boss"):
        Reviewer(id="ann", roles=("boss",))


@pytest.mark.parametrize(
    ("value", "bound", "text"),
    [(0.62, 0.85, "0.62 < 0.85"), (0.84999, 0.85, "0.84999 < 0.85"), (None, None, "None < None"), ("x", 1.0, "x < 1")],
)
def test_a_reason_shows_a_value_that_differs_from_its_bound(value, bound, text):
    assert Reason(rule="r", says="{value} < {bound}", value=value, bound=bound).text == text
