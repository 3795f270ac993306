"""One review sitting as data: its states and their table, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

from hitl_nb.display import clean, spell
from hitl_nb.errors import HitlError
from hitl_nb.panel.parts import Shown
from hitl_nb.panel.show import show_prediction
from hitl_nb.payload import agrees
from hitl_nb.task import Review, ReviewOutcome, ReviewTask

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


#: what can be done about an item, whichever it is
JUDGE = ("approve", "reject", "correct", "skip")
_JUDGE = f"{' '.join(JUDGE)} batch undo object finish"
_FOUND = "item cannot_display empty error read_only"
_SAVED = f"{_FOUND} loading lease_expired conflict item_changed finished"
#: every state: what is said, what the reviewer can do, and where it may lead; code only walks this table
STATES: dict[State, tuple[str, str, str]] = {
    State.LOADING: ("Looking for the next item", "", _FOUND),
    State.EMPTY: ("Nothing waits for you", "retry undo object export finish", "saving error"),
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
    State.FINISHED: ("Finished", "export", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A task in the reviewer's hands."""

    #: the task as it was when it was shown
    task: ReviewTask
    #: lease under which it is held; None: it is taken when it is answered
    attempt: int | None
    #: what the input looks like
    shown: Shown
    #: what the model said beside its label
    answer: Shown
    #: the answers that disagree, where it is taken to settle them; in words, without names
    answers: tuple[str, ...] = ()

    @property
    def ticket(self) -> str:
        """Name of what is on the screen; a decision that carries another one is void."""
        return f"{self.task.task_id}:{self.attempt}:{self.task.version}"

    @property
    def is_easy(self) -> bool:
        """Whether it may be approved together with others: a hard rule, a dispute and an audit ask for a look each."""
        hard = any(reason.hard for reason in self.task.reasons)
        known = self.task.confidence is not None and self.task.ai_prediction is not None
        return known and not (hard or self.task.audit or self.answers or self.shown.problem)


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
    #: name of those that were made together and are undone together; empty: it was made alone
    batch: str = ""

    @classmethod
    def of(
        cls, held: Held, action: str, correction: dict[str, Any] | None = None, comment: str = "",
        submit_id: str | None = None, batch: str = "",
    ) -> Kept:  # fmt: skip
        """Make a decision; a correction to what the model said is an approval."""
        outcome, said = ReviewOutcome(action), held.task.ai_prediction or {}
        if correction is not None and agrees(said, correction):
            outcome, correction = ReviewOutcome.APPROVE, None
        text, submit_id = comment.strip() or None, submit_id or uuid4().hex
        return cls(held=held, outcome=outcome, correction=correction, comment=text, submit_id=submit_id, batch=batch)

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
            return f"audit: you said {said}, the model {model} ({confidence(task)}): {verdict}; {spell(task.reason)}"
        done = {"approve": "approved", "reject": "rejected", "correct": "corrected"}[self.outcome]
        return f"{done} {model}" + (f" → {mine}" if mine else "")


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def told(review: Review, prediction: dict[str, Any] | None) -> str:
    """Return an answer of somebody else in words, without the name."""
    said = show_prediction(review.answer) or f"not {show_prediction(prediction) or 'the answer of the model'}"
    return f"{said}; note: {review.comment}" if review.comment else said


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
        return "" if self.item is None else self.item.ticket

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
        void |= set() if sum(held.is_easy for held in self.current) > 1 else {"batch"}
        return tuple(action for action in STATES[self.state][1].split() if action not in void)

    @property
    def current(self) -> tuple[Held, ...]:
        """What is on the screen and what comes next."""
        return self.ahead if self.item is None else (self.item, *self.ahead)

    def joined(self, more: tuple[Held, ...]) -> Sitting:
        """Return the sitting with more items in hand; one that was there without a lease has it now."""
        leased = {held.task.task_id: held for held in more}

        def renewed(held: Held) -> Held:
            found = leased.pop(held.task.task_id, None)
            return replace(held, attempt=found.attempt) if found and found.ticket != held.ticket else held

        item, ahead = self.item and renewed(self.item), tuple(map(renewed, self.ahead))
        return replace(self, item=item, ahead=(*ahead, *leased.values()))

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


def confidence(task: ReviewTask) -> str:
    """Return the model's confidence as text."""
    return "confidence unknown" if task.confidence is None else f"{task.confidence:.3g}"
