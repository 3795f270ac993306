"""What a view shows of a sitting: clean text, numbers and pictures; the item in front and those that come next."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import islice
from typing import Any

from hitl_nb.display import clean, fold, line, spell
from hitl_nb.panel.parts import Shown
from hitl_nb.panel.show import bars, is_long, show_prediction
from hitl_nb.panel.sitting import STATES, Held, Retrain, Sitting, State, confidence
from hitl_nb.task import Reason, ReviewTask

#: longest reason, and longest value from which a correction starts, in characters; reasons shown, and such values sent
MAX_LINE, MAX_REASONS, MAX_VALUES = 1_000, 12, 200
BLIND = ("judged blind: the model's answer shows after yours",)
DISPUTED = ("the answers below disagree; yours settles it",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One item as it is shown."""

    #: names what is shown; a view hands it back with a decision
    ticket: str = ""
    #: the input
    shown: Shown = field(default_factory=Shown)
    #: the model's answer; empty while an audit is judged
    prediction: str = ""
    #: its label alone; empty if it has none, or one so long that it stands in ``answer``
    label: str = ""
    #: what else it said, as it is shown
    answer: Shown = field(default_factory=Shown)
    #: probabilities by label, largest first
    bars: tuple[tuple[str, float], ...] = ()
    #: its confidence, 0 to 1, as text
    confidence: str = ""
    #: why a person is asked, one line a reason
    why: tuple[str, ...] = ()
    #: priority, deadline, model, policy
    facts: tuple[str, ...] = ()
    #: whether it is judged without seeing the model's answer
    blind: bool = False
    #: whether it may be approved together with others
    easy: bool = False
    #: answers that disagree, to be settled; without names
    answers: tuple[str, ...] = ()
    #: the model's answer by field, to start a correction from; only values without hidden characters
    predicted: tuple[tuple[str, str], ...] = ()
    #: fields of that answer that are too long for it, or hold hidden characters
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class View(Card):
    """What a view shows: the item in front, what comes next, and how the sitting stands."""

    #: where the sitting stands
    state: State
    #: that in words
    title: str
    #: what went wrong, what was kept, what to do
    message: str
    #: what can be done now
    actions: tuple[str, ...]
    #: items that come next
    ahead: tuple[Card, ...]
    #: what stands in the comment
    comment: str
    #: what was entered as a correction, by field
    entered: tuple[tuple[str, str], ...]
    #: what is wrong with a correction, by field
    fields: tuple[tuple[str, str], ...]
    #: the decision before
    last: str
    #: decisions of this sitting that are saved
    done: int
    #: those and what still waits for this reviewer
    total: int
    #: decisions a minute, over the last 30; None before there are two, and where nothing is left to judge
    rate: float | None
    #: minutes until everything is judged at that rate
    minutes_left: float | None
    #: decisions that are not saved yet
    unsaved: int
    #: open tasks by expertise
    waiting: tuple[tuple[str, int], ...]
    #: how the last retrain stands
    retrain: Retrain
    #: the sitting in one sentence, once it is finished
    summary: str


def view_of(s: Sitting) -> View:
    """Return what a view shows of a sitting."""
    card = Card() if s.item is None else card_of(s.item)
    speed = None if s.state in (State.EMPTY, State.FINISHED) else rate(s.marks)
    return View(
        **{one.name: getattr(card, one.name) for one in fields(Card)},
        state=s.state, title=STATES[s.state][0], message=_message(s), actions=s.actions,
        ahead=tuple(map(card_of, s.ahead)), comment=s.comment, entered=_pairs(s.draft), fields=s.fields, last=s.last,
        done=s.judged, total=max(s.total, s.judged), rate=speed,
        minutes_left=max(0, s.total - s.judged) / speed if speed else None, unsaved=int(s.kept is not None),
        waiting=s.waiting, retrain=s.retrain, summary=s.summary,
    )  # fmt: skip


def card_of(held: Held) -> Card:
    """Return what a view shows of one item; nothing of the model's answer where it is judged blind."""
    task, blind = held.task, held.task.audit
    prediction = {} if blind else task.ai_prediction or {}
    values = dict(islice(prediction.items(), MAX_VALUES))
    predicted = _pairs(values)
    missing = {str(k) for k, v in values.items() if v is not None} - {name for name, _ in predicted}
    label = spell(prediction["label"]) if "label" in prediction and not is_long(prediction) else ""
    reasons = (*DISPUTED * bool(held.answers), *why(task.reasons))
    return Card(
        ticket=held.ticket, shown=held.shown, prediction=show_prediction(prediction), label=label,
        answer=Shown() if blind else held.answer,
        bars=bars(prediction.get("probabilities")), confidence="" if blind else confidence(task),
        why=BLIND if blind else reasons, facts=_facts(task, blind), blind=blind, easy=held.is_easy,
        answers=tuple(fold(one, MAX_LINE) for one in held.answers), predicted=predicted,
        withheld=tuple(map(line, sorted(missing))),
    )  # fmt: skip


def _message(s: Sitting) -> str:
    unsaved = f"Not saved yet: {s.kept.text}" if s.kept and s.state is not State.SAVING else ""
    others = ", ".join(f"{who} {n:,}" for who, n in s.waiting[:MAX_REASONS]) if s.state is State.EMPTY else ""
    problem = s.item.shown.problem if s.item else ""
    parts = (s.note, problem, unsaved, others and f"Open for others: {others}")
    return "\n".join(part for part in parts if part)


def _facts(task: ReviewTask, blind: bool) -> tuple[str, ...]:
    due = "" if task.deadline is None else f"{task.deadline:%Y-%m-%d %H:%M} UTC"
    facts = {"priority": task.priority, "overdue since" if task.overdue else "due": due, "for": task.expertise}
    facts |= {} if blind else {"model": task.model, "policy": task.policy}
    return tuple(f"{what} {spell(value)}" for what, value in facts.items() if value)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """Return a value as texts that can be typed over, by field."""
    fields = value if isinstance(value, dict) else {"label": value}
    texts = {str(k): v if isinstance(v, str) else json.dumps(v, default=str) for k, v in fields.items()}
    return tuple((k, text) for k, text in texts.items() if len(text) <= MAX_LINE and clean(text) == text != "null")


def rate(marks: tuple[datetime, ...]) -> float | None:
    """Return decisions a minute between the first and the last of some times; None for fewer than two.

    >>> rate((datetime(2026, 1, 5, 9, 0), datetime(2026, 1, 5, 9, 1), datetime(2026, 1, 5, 9, 2)))
    1.0
    """
    minutes = (marks[-1] - marks[0]).total_seconds() / 60 if len(marks) > 1 else 0.0
    return (len(marks) - 1) / minutes if minutes > 0 else None


def why(reasons: tuple[Reason, ...]) -> tuple[str, ...]:
    """Say of each reason what was seen, the bound, and what would have let the case pass.

    >>> why((Reason(rule="confidence", says="Low confidence: {value}", value=0.617, bound=0.85, field="confidence"),))
    ('Low confidence: 0.617 (bound 0.85); would pass at threshold 0.61',)
    """
    alone = "" if len(reasons) < 2 else " if it were the only reason"
    return tuple(fold(_because(one, alone), MAX_LINE) for one in reasons[:MAX_REASONS])


def _because(reason: Reason, alone: str) -> str:
    value, bound = reason.value, reason.bound
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in (value, bound))
    text = reason.text if bound is None or "{bound}" in reason.says else f"{reason.text} (bound {spell(bound)})"
    if numbers and reason.field == "confidence":
        return f"{text}; would pass at threshold {math.floor(round(value * 100, 6)) / 100:.2f}{alone}"
    if numbers and float(value) > float(str(bound)):
        return f"{text}; would pass with the bound at {value:g}{alone}"
    return f"{text}; asks at any confidence" if reason.hard else text
