"""The controller of a review sitting: claims, decides, undoes, retries; knows no widget."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hitl_nb import errors
from hitl_nb.display import spell
from hitl_nb.evidence import clopper_pearson
from hitl_nb.panel.correction import Checker, checker
from hitl_nb.panel.show import UNFOLDED, Shown, show_input
from hitl_nb.panel.sitting import PROMISE, Held, Kept, Retrain, Sitting, State, View, says, view_of
from hitl_nb.task import Reviewer, ReviewTask

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue

#: decisions that can be undone, and over which the rate is measured
REMEMBERED = 30
#: open tasks among which the reviewer's own leases are looked for
OWN = 100
#: after so long without a sign of the reviewer, leases are no longer renewed
IDLE = timedelta(minutes=30)
#: errors that say that this answer can never be saved
_TOO_LATE = (
    errors.AlreadyReviewed, errors.IllegalMove, errors.PayloadErased, errors.TaskNotFound, errors.SubmitConflict,
    errors.NotQualified,
)  # fmt: skip
#: errors that say that there is nothing to give back or to renew
_NOT_HELD = (errors.LeaseLost, *_TOO_LATE)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Controller:
    """The state machine of one reviewer's sitting; every call is safe from any thread.

    What it knows is one frozen ``Sitting``, replaced under one lock. Whoever enters the state ``saving`` is alone until
    it ends; a decision that comes meanwhile is void, since its reviewer has not seen what comes next.

    Parameters
    ----------
    queue : where tasks come from and answers go
    reviewer : who judges
    check : checks corrections; default: any text
    render : turns ``input_data`` into a text, a dict or a picture
    audits : returns how many random audits were disagreed with, and how many were judged
    retrain : retrains a model; called in a thread with a function to report each stage to
    now : returns the time, aware
    lookahead : tasks to claim at once
    on_change : called after each change, from the thread that made it

    Examples
    --------
    >>> from hitl_nb import open_queue
    >>> queue = open_queue(":memory:")
    >>> task = queue.submit(input_data={"text": "hm"}, ai_prediction={"label": "spam"}, confidence=0.6, reason="unsure")
    >>> controller = Controller(queue, "ann").start()
    >>> controller.view().prediction, controller.approve(), controller.view().state
    ('spam', True, <State.EMPTY: 'empty'>)
    """

    def __init__(
        self, queue: ReviewQueue, reviewer: str | Reviewer = "me", *, check: Checker | None = None,
        render: Callable[[Any], Any] | None = None, audits: Callable[[], tuple[int, int]] | None = None,
        retrain: Callable[[Callable[[str], None]], Any] | None = None, now: Callable[[], datetime] = utc_now,
        lookahead: int = 1, on_change: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.queue, self.reviewer, self._check = queue, Reviewer.of(reviewer), check or checker()
        self._render, self._audits, self._work = render, audits, retrain
        self._clock, self._lookahead, self._changed = now, lookahead, on_change
        self._lock = threading.Lock()
        self._s = Sitting(began=now(), touched=now())

    def start(self) -> Controller:
        """Claim and show the first item."""
        self._set(risk_before=self._risk()[0], ahead=self._own())
        self._load()
        return self

    def _own(self) -> tuple[Held, ...]:
        """Return what the reviewer holds already: from a kernel that was killed, or a cell that ran before."""
        with suppress(Exception):  # a lease that is over, or a store that is away: the claim that follows says so
            own = [task for task in self.queue.pending(limit=OWN) if task.holder == self.reviewer.id]
            if own:
                self.queue.renew([task.task_id for task in own], self.reviewer)
            return tuple(Held(task=task, attempt=task.attempt) for task in own)
        return ()

    def view(self) -> View:
        """Return what is to be shown now."""
        return view_of(self._s)  # frozen

    # -- what a reviewer does; each returns whether it was done

    def approve(self, comment: str | None = None, *, ticket: str | None = None) -> bool:
        """Say that the prediction is right."""
        return self._decide("approve", None, comment, ticket)

    def reject(self, comment: str | None = None, *, ticket: str | None = None) -> bool:
        """Say that the prediction is wrong, without another answer; of an audit, that no answer fits."""
        return self._decide("reject", None, comment, ticket)

    def correct(self, correction: Any, comment: str | None = None, *, ticket: str | None = None) -> bool:
        """Say what is right; where that is the prediction, it counts as approved."""
        try:
            return self._decide("correct", self._check.check(correction), comment, ticket)
        except errors.BadInput as error:
            fields = tuple(getattr(error, "fields", {}).items())
            self._set(note=says(error), fields=fields, draft=correction, comment=comment or self._s.comment)
            return False

    def skip(self, reason: str = "skipped") -> bool:
        """Give the item back, others get it first; also goes on after a conflict."""
        return self._try("skip", lambda before: self._release(before.item, reason)) is not None and self._next()

    def undo(self) -> bool:
        """Take the last decision back and show its item again."""
        before = self._try("undo", lambda s: self.queue.undo(s.undoable[-1].held.task.task_id, self.reviewer))
        if before is None:
            return False
        kept = before.undoable[-1]
        return self._next(
            ahead=(replace(kept.held, attempt=None), *before.current), undoable=before.undoable[:-1],
            marks=before.marks[:-1], judged=before.judged - 1, stopped=before.stopped - kept.stops_an_error,
            last=f"undone: {kept.text}", comment=kept.comment or "", draft=kept.correction,
        )  # fmt: skip

    def object(self, comment: str) -> bool:
        """Ask for a second look: at the answer of whoever was faster, else at the reviewer's own last one."""

        def ask(s: Sitting) -> None:
            held = s.item if s.item and s.state is State.CONFLICT else s.undoable[-1].held
            self.queue.object(held.task.task_id, self.reviewer, comment)

        before = self._try("object", ask)
        if before is not None and before.state is State.CONFLICT:
            return self._next(last="objected; an adjudicator settles it")
        if before is not None:
            self._set(before.state, note="objected; an adjudicator settles it")
        return before is not None

    def retry(self) -> bool:
        """Send the kept answer again, under the same submit id; without one, look for work again."""
        before = self._begin("retry")
        if before is not None and before.kept is not None:
            return self._send(before.kept, self._next)
        return before is not None and self._next(ahead=before.current, comment=before.comment, draft=before.draft)

    def finish(self, discard: bool = False) -> bool:
        """End the sitting and give open items back; an unsaved answer is sent once more, or dropped by ``discard``."""
        before = self._begin("finish")
        if before is not None and before.kept is not None and not discard:
            return self._send(before.kept, self._close)
        return before is not None and self._close()

    def unfold(self) -> None:
        """Show more of the item."""
        item = self._s.item
        if item is not None:
            shown = show_input(item.task.input_data, self._render, UNFOLDED)
            self._set(shown=shown) if self._s.item is item else None

    def heartbeat(self) -> None:
        """Renew leases and counts, and look for work where there was none; views call it about once a minute."""
        s = self._s
        if s.state is State.EMPTY:
            self.retry()
        elif s.state not in (State.LOADING, State.SAVING, State.FINISHED) and self._clock() - s.touched < IDLE:
            with suppress(Exception):  # the store is away: the next beat tries again, and a decision would say so
                for held in s.current:
                    self._renew(held)
                self._set(**self._counted())

    def start_retrain(self) -> threading.Thread | None:
        """Retrain in a thread while reviews go on; None if one runs already."""
        with self._lock:
            if self._work is None or self._s.retrain.state == "running":
                return None
            self._s = replace(self._s, retrain=Retrain(state="running", step=1))
        self._changed()
        thread = threading.Thread(target=self._retrain, args=(self._work,), name="hitl_nb-retrain", daemon=True)
        thread.start()
        return thread

    def fail(self, error: BaseException) -> None:
        """Show an error of a view's own."""
        stays = self._s.state in (State.ERROR, State.FINISHED)
        self._set(None if stays else State.ERROR, note=says(error))

    # -- changing the sitting: the only code that writes it

    def _set(self, state: State | None = None, **changes: Any) -> None:
        with self._lock:
            self._s = replace(self._s if state is None else self._s.moved(state), **changes)
        self._changed()

    def _begin(self, action: str, ticket: str | None = None) -> Sitting | None:
        """Enter ``saving`` if the action is possible now; returns the sitting as it was before."""
        with self._lock:
            before = self._s
            able = action in before.actions and ticket in (None, before.ticket)
            if able:
                self._s = replace(before.moved(State.SAVING), touched=self._clock(), note="", fields=())
            elif action == "approve" and before.blind:
                self._s = replace(before, note="an audit is judged blind: say what is right, or that no answer fits")
        self._changed()
        return before if able else None

    def _try(self, action: str, work: Callable[[Sitting], None]) -> Sitting | None:
        """Do something for which nothing need be kept; after an error everything is as it was."""
        before = self._begin(action)
        try:
            if before is not None:
                work(before)
        except Exception as error:
            self._set(before.state if before else None, note=says(error))
            return None
        return before

    # -- deciding

    def _decide(self, action: str, correction: dict[str, Any] | None, comment: str | None, ticket: str | None) -> bool:
        before = self._begin(action, ticket)
        if before is None or before.item is None:  # a second click, or about what is no longer shown
            return False
        kept = Kept.of(before.item, action, correction, before.comment if comment is None else str(comment))
        self._set(kept=kept, comment=kept.comment or "", draft=correction)
        return self._send(kept, self._next)

    def _send(self, kept: Kept, then: Callable[..., bool]) -> bool:
        task = kept.held.task
        try:
            self.queue.resolve(
                task.task_id, self.reviewer, kept.outcome, kept.correction, kept.comment,
                attempt=kept.held.attempt, submit_id=kept.submit_id, shown=task.shown,
            )  # fmt: skip
        except Exception as error:
            self._keep(kept, error)
            return False
        s, now = self._s, self._clock()
        return then(
            undoable=(*s.undoable, kept)[-REMEMBERED:], marks=(*s.marks, now)[-REMEMBERED:], judged=s.judged + 1,
            stopped=s.stopped + kept.stops_an_error, last=f"{kept.text}; saved {now:%H:%M} UTC", kept=None, item=None,
        )  # fmt: skip

    def _keep(self, kept: Kept, error: Exception) -> None:
        lost = isinstance(error, (errors.LeaseLost, errors.ItemChanged))
        fresh, free = self._changed_since(kept.held.task) if lost else None, replace(kept.held, attempt=None)
        if fresh is not None:
            shown = show_input(fresh.input_data, self._render)
            changed = Held(task=fresh, attempt=None)
            self._set(State.ITEM_CHANGED, item=changed, shown=shown, kept=None, note=says(error))
        elif lost:
            self._set(State.LEASE_EXPIRED, item=free, kept=replace(kept, held=free), note=says(error))
        elif isinstance(error, _TOO_LATE):
            self._set(State.CONFLICT, kept=None, note=f"{says(error)}\nYour answer was: {kept.text}")
        elif isinstance(error, errors.BadInput):
            self._set(_state(self._s.shown), kept=None, note=says(error))
        else:
            self._set(_failed(error), note=says(error))

    def _changed_since(self, task: ReviewTask) -> ReviewTask | None:
        """Tell an item that was replaced under the reviewer's eyes from a lease that ran out."""
        with suppress(Exception):
            fresh = self.queue.get(task.task_id)
            return fresh if fresh.shown != task.shown else None
        return None

    # -- the next item

    def _next(self, **changes: Any) -> bool:
        """Leave the item behind and show the next; what was typed about it goes, unless it is set anew."""
        self._set(State.LOADING, **{"item": None, "kept": None, "comment": "", "draft": None, **changes})
        self._load()
        return True

    def _load(self) -> None:
        try:
            claimed = () if self._s.ahead else self.queue.claim(self.reviewer, self._lookahead)
            ahead = self._s.ahead or tuple(Held(task=task, attempt=task.attempt) for task in claimed)
            counts = self._counted() if not ahead or self._s.judged >= self._s.total else {}
        except Exception as error:
            self._set(_failed(error), note=says(error))
            return
        shown = show_input(ahead[0].task.input_data, self._render) if ahead else Shown()
        marks = self._s.marks or (self._clock(),) * bool(ahead)
        item, state = (ahead[0], _state(shown)) if ahead else (None, State.EMPTY)
        self._set(state, item=item, ahead=ahead[1:], shown=shown, marks=marks, **counts)

    def _counted(self) -> dict[str, Any]:
        """Count what waits: for this reviewer, and by expertise."""
        found = self.queue.stats().open_by_expertise
        mine = sum(n for who, n in found.items() if who is None or who in self.reviewer.expertise)
        waiting = sorted((spell(who or "anyone"), n) for who, n in found.items() if n)
        return {"total": self._s.judged + mine, "waiting": tuple(waiting)}

    def _renew(self, held: Held) -> None:
        try:
            if held.attempt is not None:
                self.queue.renew([held.task.task_id], self.reviewer)
        except _NOT_HELD as error:
            with self._lock:
                if self._s.item is held and self._s.state in (State.ITEM, State.CANNOT_DISPLAY):
                    free = replace(held, attempt=None)
                    self._s = replace(self._s.moved(State.LEASE_EXPIRED), item=free, note=says(error))

    def _release(self, held: Held | None, reason: str | None = None) -> None:
        if held is not None and held.attempt is not None:
            with suppress(*_NOT_HELD):
                self.queue.release(held.task.task_id, self.reviewer, reason)

    # -- retraining, and the end

    def _retrain(self, work: Callable[[Callable[[str], None]], Any]) -> None:
        def stage(line: str) -> None:
            self._set(retrain=Retrain(state="running", text=spell(line), step=self._s.retrain.step + 1))

        try:
            self._set(retrain=Retrain(state="done", text=spell(str(work(stage)))))
        except Exception as error:
            self._set(retrain=Retrain(state="failed", text=says(error)))

    def _close(self, **saved: Any) -> bool:
        s = replace(self._s, **saved)
        for held in s.current:
            with suppress(Exception):  # out of reach: the lease ends by itself
                self._release(held)
        summary = s.sentence(self._clock(), *self._risk())
        gone = {"item": None, "ahead": (), "undoable": (), "shown": Shown(), "comment": "", "draft": None, "last": ""}
        self._set(State.FINISHED, **{**saved, **gone, "kept": None, "summary": summary})
        return True

    def _risk(self) -> tuple[float | None, int]:
        """Return the one-sided 95 % bound of the disagreement in audits, and how many more would make it ``PROMISE``.

        None where there are no audits yet; the number counts on no further disagreement.
        """
        with suppress(Exception):  # a figure for the last sentence must not end a sitting
            wrong, judged = self._audits() if self._audits else (0, 0)

            def bound(more: int) -> float:
                return clopper_pearson(wrong, judged + more, level=0.90).high

            if judged:
                return bound(0), bisect_left(range(200 * (wrong + 1)), True, key=lambda more: bound(more) <= PROMISE)
        return None, 0


def _state(shown: Shown) -> State:
    return State.CANNOT_DISPLAY if shown.problem else State.ITEM


def _failed(error: Exception) -> State:
    return State.READ_ONLY if isinstance(error, errors.QueueReadOnly) else State.ERROR
