"""One review sitting as data: its states and their table, what it remembers, and what a view shows of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from hitl_nb.display import clean, fold, spell
from hitl_nb.errors import BadInput, HitlError
from hitl_nb.panel.show import Shown, bars, show_prediction
from hitl_nb.payload import canonical
from hitl_nb.task import Reason, ReviewOutcome, ReviewTask

#: disagreement that one may want to promise of what passes without a person
PROMISE = 0.02


class State(StrEnum):
    """Where a sitting stands."""

    LOADING = "loading"
    EMPTY = "empty"
    ITEM = "item"
    CANNOT_DISPLAY = "cannot_display"
    SAVING = "saving"
    ERROR = "error"
    LEASE_EXPIRED = "lease_expired"
    CONFLICT = "conflict"
    ITEM_CHANGED = "item_changed"
    READ_ONLY = "read_only"
    FINISHED = "finished"


_JUDGE = "approve reject correct skip undo object finish"
_FOUND = "item cannot_display empty error read_only"
_SAVED = f"{_FOUND} loading lease_expired conflict item_changed finished"
#: every state: what is said, what the reviewer can do, and where it may lead; code only walks this table
STATES: dict[State, tuple[str, str, str]] = {
    State.LOADING: ("Looking for the next item", "", _FOUND),
    State.EMPTY: ("Nothing waits for you", "retry undo object finish", "saving error"),
    State.ITEM: ("Your judgement, please", _JUDGE, "saving lease_expired error"),
    State.CANNOT_DISPLAY: ("Cannot be shown as it should; decide or skip", _JUDGE, "saving lease_expired error"),
    State.SAVING: ("Saving", "", _SAVED),
    State.ERROR: ("Something failed; what you entered is kept", "retry finish", f"saving {_SAVED}"),
    State.LEASE_EXPIRED: (
        "Your time for this item ran out; retry to answer it all the same, or skip",
        "approve reject correct retry skip finish",
        "saving error",
    ),
    State.CONFLICT: ("It has its answer; object to it, or skip to go on", "object skip finish", "saving error"),
    State.ITEM_CHANGED: ("This item was changed; look again and answer anew", _JUDGE, "saving error"),
    State.READ_ONLY: ("The queue cannot be written; nothing can be saved", "retry finish", "saving error"),
    State.FINISHED: ("Finished", "", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A task in the reviewer's hands."""

    #: the task as it was when it was shown
    task: ReviewTask
    #: lease under which it is held; None: it is taken when it is answered
    attempt: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A decision, kept until it is saved, and afterwards to be undone."""

    #: what was judged
    held: Held
    #: approve, reject or correct
    outcome: ReviewOutcome
    #: what is right instead
    correction: dict[str, Any] | None
    #: free text
    comment: str | None
    #: id made before the first try and used in every other
    submit_id: str

    @classmethod
    def of(cls, held: Held, action: str, correction: dict[str, Any] | None, comment: str) -> Kept:
        """Make a decision; a correction to what the model said is an approval."""
        outcome, said = ReviewOutcome(action), held.task.ai_prediction or {}
        if correction is not None and all(k in said and _same(said[k], v) for k, v in correction.items()):
            outcome, correction = ReviewOutcome.APPROVE, None
        text = comment.strip() or None
        return cls(held=held, outcome=outcome, correction=correction, comment=text, submit_id=uuid4().hex)

    @property
    def stops_an_error(self) -> bool:
        """Whether it keeps a wrong answer from being used; those of audits were in use already."""
        return self.outcome is not ReviewOutcome.APPROVE and not self.held.task.audit

    @property
    def text(self) -> str:
        """The decision in words; of an audit, the model's answer too."""
        task, agreed = self.held.task, self.outcome is ReviewOutcome.APPROVE
        model, mine = show_prediction(task.ai_prediction) or "nothing", show_prediction(self.correction)
        if task.audit:
            said = mine or (model if agreed else "none fits")
            verdict = "agreed" if agreed else "disagreed"
            return f"audit: you said {said}, the model {model} ({_confidence(task)}): {verdict}; {spell(task.reason)}"
        done = {"approve": "approved", "reject": "rejected", "correct": "corrected"}[self.outcome]
        return f"{done} {model}" + (f" → {mine}" if mine else "")


def _same(one: Any, other: Any) -> bool:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (one, other))
    if numbers or (isinstance(other, str) and isinstance(one, (int, float))):
        return bool(one == other or str(one) == other)
    try:
        return canonical(one) == canonical(other)
    except BadInput:  # the queue will say what is wrong with it
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrain:
    """How the last retrain stands."""

    #: ``""``, ``running``, ``done`` or ``failed``
    state: str = ""
    #: where it is, what came of it, or why it failed
    text: str = ""
    #: stages passed
    step: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sitting:
    """Everything that a controller knows; replaced as a whole, under its lock."""

    state: State = State.LOADING
    item: Held | None = None
    shown: Shown = field(default_factory=Shown)
    ahead: tuple[Held, ...] = ()
    kept: Kept | None = None
    undoable: tuple[Kept, ...] = ()
    comment: str = ""
    draft: Any = None
    note: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    last: str = ""
    began: datetime
    touched: datetime
    marks: tuple[datetime, ...] = ()
    judged: int = 0
    stopped: int = 0
    total: int = 0
    waiting: tuple[tuple[str, int], ...] = ()
    risk_before: float | None = None
    summary: str = ""
    retrain: Retrain = field(default_factory=Retrain)

    @property
    def ticket(self) -> str:
        """Name of what is on the screen; a decision that carries another one is void."""
        return "" if self.item is None else f"{self.item.task.task_id}:{self.item.attempt}:{self.item.task.version}"

    @property
    def blind(self) -> bool:
        """Whether the item is an audit: judged without the model's answer."""
        return self.item is not None and self.item.task.audit

    @property
    def actions(self) -> tuple[str, ...]:
        """What the reviewer can do now."""
        void = {"approve"} if self.blind else set()
        void |= {"approve", "reject", "correct"} if self.kept else set()
        void |= set() if self.undoable else {"undo"}
        void |= set() if self.undoable or self.state is State.CONFLICT else {"object"}
        return tuple(action for action in STATES[self.state][1].split() if action not in void)

    @property
    def current(self) -> tuple[Held, ...]:
        """What is on the screen and what comes next."""
        return self.ahead if self.item is None else (self.item, *self.ahead)

    def moved(self, state: State) -> Sitting:
        """Return the sitting in another state, if the table allows it."""
        if state not in STATES[self.state][2].split():
            raise RuntimeError(f"no move from {self.state} to {state}")
        return replace(self, state=state)

    def sentence(self, now: datetime, risk: float | None, more_audits: int = 0) -> str:
        """Return the sitting in one sentence; ``risk`` bounds the disagreement, ``more_audits`` are missing."""
        wrong = f"{self.stopped:,} wrong answer{'' if self.stopped == 1 else 's'} stopped"
        told = f"{(now - self.began).total_seconds() / 60:.0f} min, {self.judged:,} judged, {wrong}"
        if risk is not None:
            was = "" if self.risk_before is None else f" (was ≤ {100 * self.risk_before:.1f} %)"
            told += f"; automatic disagreement now ≤ {100 * risk:.1f} %{was}"
            told += f"; {more_audits:,} more audits to promise {100 * PROMISE:.0f} %" if more_audits else ""
        return told + ("; 1 answer was not saved" if self.kept else "")


def says(why: BaseException | str) -> str:
    """Return an error, or a sentence, as clean text."""
    kind = "" if isinstance(why, (HitlError, str)) else f"{type(why).__name__}: "
    return kind + clean(str(why)[:2000])


# -- what a view shows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a view shows: clean text, numbers, and one picture."""

    #: where the sitting stands
    state: State
    #: that in words
    title: str
    #: what went wrong, what was kept, what to do
    message: str
    #: names what is shown; a view hands it back with a decision
    ticket: str
    #: what can be done now
    actions: tuple[str, ...]
    #: the input
    shown: Shown
    #: the model's answer; empty while an audit is judged
    prediction: str
    #: probabilities by label, largest first
    bars: tuple[tuple[str, float], ...]
    #: its confidence, 0 to 1, as text
    confidence: str
    #: why a person is asked, one line a reason
    why: tuple[str, ...]
    #: priority, deadline, model, policy
    facts: tuple[str, ...]
    #: whether it is judged without seeing the model's answer
    blind: bool
    #: what stands in the comment
    comment: str
    #: what was entered as a correction, by field
    entered: tuple[tuple[str, str], ...]
    #: the model's answer by field, to start a correction from; only values without hidden characters
    predicted: tuple[tuple[str, str], ...]
    #: what is wrong with a correction, by field
    fields: tuple[tuple[str, str], ...]
    #: the decision before
    last: str
    #: decisions of this sitting that are saved
    done: int
    #: those and what still waits for this reviewer
    total: int
    #: decisions a minute, over the last 30; None before there are two
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
    task = None if s.item is None else s.item.task
    seen = None if s.blind else task  # an audit is judged without the model's answer
    prediction = (seen.ai_prediction if seen else None) or {}
    speed = rate(s.marks)
    return View(
        state=s.state, title=STATES[s.state][0], message=_message(s), ticket=s.ticket, actions=s.actions,
        shown=s.shown, prediction=show_prediction(prediction), bars=bars(prediction.get("probabilities")),
        confidence=_confidence(seen) if seen else "", why=why(seen.reasons) if seen else BLIND * s.blind,
        facts=_facts(task, s.blind) if task else (), blind=s.blind, comment=s.comment, entered=_pairs(s.draft),
        predicted=_pairs(prediction), fields=s.fields, last=s.last, done=s.judged, total=max(s.total, s.judged),
        rate=speed, minutes_left=max(0, s.total - s.judged) / speed if speed else None,
        unsaved=int(s.kept is not None), waiting=s.waiting, retrain=s.retrain, summary=s.summary,
    )  # fmt: skip


#: longest reason, and longest value from which a correction starts, in characters; and reasons shown
MAX_LINE, MAX_REASONS = 1_000, 12
BLIND = ("judged blind: the model's answer shows after yours",)


def _message(s: Sitting) -> str:
    unsaved = f"Not saved yet: {s.kept.text}" if s.kept and s.state is not State.SAVING else ""
    others = ", ".join(f"{who} {n:,}" for who, n in s.waiting[:MAX_REASONS]) if s.state is State.EMPTY else ""
    parts = (s.note, s.shown.problem, unsaved, others and f"Open for others: {others}")
    return "\n".join(part for part in parts if part)


def _facts(task: ReviewTask, blind: bool) -> tuple[str, ...]:
    due = "" if task.deadline is None else f"{task.deadline:%Y-%m-%d %H:%M} UTC"
    facts = {"priority": task.priority, "overdue since" if task.overdue else "due": due, "for": task.expertise}
    facts |= {} if blind else {"model": task.model, "policy": task.policy}
    return tuple(f"{what} {spell(value)}" for what, value in facts.items() if value)


def _confidence(task: ReviewTask) -> str:
    return "confidence unknown" if task.confidence is None else f"{task.confidence:.3g}"


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
