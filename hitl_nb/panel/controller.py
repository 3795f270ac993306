"""The controller of a review sitting: claims, decides, undoes, retries; knows no widget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hitl_nb import errors
from hitl_nb.display import spell
from hitl_nb.panel.correction import Checker, checker
from hitl_nb.panel.desk import TOO_LATE, Desk
from hitl_nb.panel.similar import Similar
from hitl_nb.panel.sitting import Held, Kept, Retrain, Sitting, State, says, utc_now
from hitl_nb.panel.view import View, view_of
from hitl_nb.task import Reviewer

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue

#: decisions that can be undone, and over which the rate is measured
REMEMBERED = 30
#: most items that are approved together
MAX_TOGETHER = 24
#: after so long without a sign of the reviewer, leases are no longer renewed
IDLE = timedelta(minutes=30)


class Controller:
    """The state machine of one reviewer's sitting; every call is safe from any thread.

    What it knows is one frozen ``Sitting``, replaced under one lock. Whoever enters the state ``saving`` is alone until
    it ends; a decision that comes meanwhile is void, since its reviewer has not seen what comes next.

    Parameters
    ----------
    queue : where tasks come from and answers go
    reviewer : who judges
    check : checks corrections; default: any text
    render : turns ``input_data`` into a text, a dict, a picture or a widget
    words : words to mark in texts
    audits : returns how many random audits were disagreed with, and how many were judged
    retrain : retrains a model; called in a thread with a function to report each stage to
    now : returns the time, aware
    lookahead : tasks to have in hand beside the one in front; more are claimed when half of them are judged
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
        render: Callable[[Any], Any] | None = None, words: Sequence[str] = (),
        audits: Callable[[], tuple[int, int]] | None = None,
        retrain: Callable[[Callable[[str], None]], Any] | None = None, now: Callable[[], datetime] = utc_now,
        lookahead: int = 0, on_change: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.queue, self.reviewer, self._check, self._work = queue, Reviewer.of(reviewer), check or checker(), retrain
        self._desk = Desk(queue, self.reviewer, render=render, words=words, audits=audits)
        self._clock, self.lookahead, self._changed = now, lookahead, on_change
        self._lock, self._claiming = threading.Lock(), threading.RLock()  # the second is taken first, if both are
        self._s = Sitting(began=now(), touched=now())

    def start(self) -> Controller:
        """Claim and show the first item."""
        self._set(risk_before=self._desk.risk()[0], ahead=self._desk.own())
        self._load()
        return self

    def view(self) -> View:
        """Return what is to be shown now."""
        return view_of(self._s)  # frozen

    @property
    def state(self) -> State:
        """Where the sitting stands; a view has that too, and is dear to make."""
        return self._s.state

    # -- what a reviewer does; each returns whether it was done

    def approve(self, comment: str | None = None, *, ticket: str | None = None, submit_id: str | None = None) -> bool:
        """Say that the prediction is right."""
        return self._decide("approve", None, comment, ticket, submit_id)

    def reject(self, comment: str | None = None, *, ticket: str | None = None, submit_id: str | None = None) -> bool:
        """Say that the prediction is wrong, without another answer; of an audit, that no answer fits."""
        return self._decide("reject", None, comment, ticket, submit_id)

    def correct(
        self, correction: Any, comment: str | None = None, *, ticket: str | None = None, submit_id: str | None = None
    ) -> bool:
        """Say what is right; where that is the prediction, it counts as approved."""
        if ticket not in (None, self._s.ticket):
            return False
        try:
            return self._decide("correct", self._check.check(correction), comment, ticket, submit_id)
        except errors.BadInput as error:
            fields = tuple(getattr(error, "fields", {}).items())
            beyond = isinstance(error, (errors.NoCanonicalForm, errors.TooLarge))  # nothing to show again
            draft = self._s.draft if beyond else correction
            self._set(note=says(error), fields=fields, draft=draft, comment=comment or self._s.comment)
            return False

    def approve_all(self, tickets: Iterable[str] | None = None) -> bool:
        """Approve several items in hand at once, by default all that are easy; one undo takes them back."""
        with self._claiming:
            chosen = set(self.easy if tickets is None else tickets)
            before = self._begin("batch")
            if before is None:
                return False
            together = [held for held in before.current if held.is_easy and held.ticket in chosen]
            if not together or len(together) < len(chosen):
                self._set(before.state, note="Some of these cannot be approved together any more; look again")
                return False
            rest = tuple(held for held in before.current if held not in together)
            batch = uuid4().hex
            for i, held in enumerate(together, 1):
                kept = Kept.of(held, "approve", batch=batch)
                self._set(item=held, ahead=(*together[i:], *rest), kept=kept)
                if not self._send(kept, self._set):
                    return False
            return self._next(ahead=rest, last=f"approved {len(together)} together")

    def gather(self, n: int) -> None:
        """Claim until ``n`` items are in hand, to look at them together."""
        self._fetch(min(n, MAX_TOGETHER) - 1)

    @property
    def easy(self) -> tuple[str, ...]:
        """Tickets of what is in hand and may be approved together."""
        return tuple(held.ticket for held in self._s.current if held.is_easy)

    def skip(self, reason: str = "skipped", *, ticket: str | None = None) -> bool:
        """Give the item back, others get it first; also goes on after a conflict."""
        before = self._try("skip", lambda before: self._desk.release(before.item, reason), ticket)
        return before is not None and self._next()

    def undo(self) -> bool:
        """Take the last decision back, or the last batch, and show its item again."""
        with self._claiming:
            undone: list[Kept] = []
            before = self._try("undo", lambda s: self._take_back(s, undone), anyway=lambda: bool(undone))
            if before is None:
                return False
            n, kept = len(undone), undone[-1]
            again = tuple(replace(one.held, attempt=None) for one in reversed(undone))
            return self._next(
                ahead=(*again, *before.current), undoable=before.undoable[:-n], marks=before.marks[:-n],
                judged=before.judged - n, stopped=before.stopped - sum(one.stops_an_error for one in undone),
                last=f"undone: {kept.text}" if n == 1 else f"undone: {n} together",
                comment=kept.comment or "", draft=kept.correction,
            )  # fmt: skip

    def _take_back(self, s: Sitting, undone: list[Kept]) -> None:
        batch = s.undoable[-1].batch
        for kept in reversed(s.undoable):
            if undone and (not batch or kept.batch != batch):
                return
            self.queue.undo(kept.held.task.task_id, self.reviewer)
            undone.append(kept)

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
            more = self._desk.unfold(item)
            self._set(item=more) if self._s.item is item else None

    def similar(self, ticket: str | None = None) -> tuple[Similar, ...]:
        """Return judged tasks that are like an item in hand, by default the one in front; none of a blind audit."""
        held = [one for one in self._s.current if ticket in (None, one.ticket)][:1]
        return self._desk.similar(held[0]) if held and not held[0].task.audit else ()

    def heartbeat(self) -> None:
        """Renew leases and counts, and look for work where there was none; views call it about once a minute."""
        s = self._s
        if s.state is State.EMPTY:
            self.retry()
        elif s.state not in (State.LOADING, State.SAVING, State.FINISHED) and self._clock() - s.touched < IDLE:
            with suppress(Exception):  # the store is away: the next beat tries again, and a decision would say so
                for held in s.current:
                    self._renew(held)
                self._set(**self._desk.counted(self._s.judged))

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

    def say(self, text: str) -> None:
        """Show a sentence."""
        self._set(note=says(text))

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

    def _try(
        self, action: str, work: Callable[[Sitting], None], ticket: str | None = None,
        anyway: Callable[[], bool] = lambda: False,
    ) -> Sitting | None:  # fmt: skip
        """Do something for which nothing need be kept; after an error all is as it was, unless a part is done."""
        before = self._begin(action, ticket)
        try:
            if before is not None:
                work(before)
        except Exception as error:
            if anyway():
                self._set(note=says(error))
                return before
            self._set(before.state if before else None, note=says(error))
            return None
        return before

    # -- deciding

    def _decide(
        self, action: str, correction: dict[str, Any] | None, comment: str | None, ticket: str | None,
        submit_id: str | None,
    ) -> bool:  # fmt: skip
        before = self._begin(action, ticket)
        if before is None or before.item is None:  # a second click, or about what is no longer shown
            return False
        said = before.comment if comment is None else str(comment)
        kept = Kept.of(before.item, action, correction, said, submit_id)
        self._set(kept=kept, comment=kept.comment or "", draft=correction)
        return self._send(kept, self._next)

    def _send(self, kept: Kept, then: Callable[..., Any]) -> bool:
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
        then(
            undoable=(*s.undoable, kept)[-REMEMBERED:], marks=(*s.marks, now)[-REMEMBERED:], judged=s.judged + 1,
            stopped=s.stopped + kept.stops_an_error, last=f"{kept.text}; saved {now:%H:%M} UTC", kept=None, item=None,
        )  # fmt: skip
        return True

    def _keep(self, kept: Kept, error: Exception) -> None:
        lost = isinstance(error, (errors.LeaseLost, errors.ItemChanged))
        fresh, free = self._desk.changed_since(kept.held) if lost else None, replace(kept.held, attempt=None)
        if fresh is not None:
            self._set(State.ITEM_CHANGED, item=fresh, kept=None, note=says(error))
        elif lost:
            self._set(State.LEASE_EXPIRED, item=free, kept=replace(kept, held=free), note=says(error))
        elif isinstance(error, TOO_LATE):
            self._set(State.CONFLICT, kept=None, note=f"{says(error)}\nYour answer was: {kept.text}")
        elif isinstance(error, errors.BadInput):
            self._set(_state(kept.held), kept=None, note=says(error))
        else:
            self._set(_failed(error), note=says(error))

    # -- the next item

    def _next(self, **changes: Any) -> bool:
        """Leave the item behind and show the next; what was typed about it goes, unless it is set anew."""
        self._set(State.LOADING, **{"item": None, "kept": None, "comment": "", "draft": None, **changes})
        self._load()
        return True

    def _load(self) -> None:
        try:
            with self._claiming:  # whatever is on its way comes first
                ahead = self._s.ahead or self._desk.take(1 + self.lookahead)
                counts = self._desk.counted(self._s.judged) if not ahead or self._s.judged >= self._s.total else {}
                marks = self._s.marks or (self._clock(),) * bool(ahead)
                item, state = (ahead[0], _state(ahead[0])) if ahead else (None, State.EMPTY)
                self._set(state, item=item, ahead=ahead[1:], marks=marks, **counts)
        except Exception as error:
            self._set(_failed(error), note=says(error))
            return
        if len(self._s.ahead) <= self.lookahead // 2:
            self._fetch(self.lookahead)

    def _fetch(self, n: int) -> None:
        """Claim what comes next, until ``n`` items are there, while the reviewer looks at what is in front."""
        if self._s.item is None or len(self._s.ahead) >= n or not self._claiming.acquire(blocking=False):
            return
        try:
            with suppress(Exception):  # where it cannot be, the item in front stays; what comes next will say so
                more = self._desk.take(n - len(self._s.ahead))
                with self._lock:
                    over = self._s.state is State.FINISHED
                    self._s = self._s if over else self._s.joined(more)
                for held in more if over else ():
                    self._desk.release(held)
        finally:
            self._claiming.release()
        self._changed()

    def _renew(self, held: Held) -> None:
        error = self._desk.renew(held)
        if error is None:
            return
        with self._lock:
            s = self._s
            if s.item is held and s.state in (State.ITEM, State.CANNOT_DISPLAY):
                self._s = replace(s.moved(State.LEASE_EXPIRED), item=replace(held, attempt=None), note=says(error))
            self._s = replace(self._s, ahead=tuple(one for one in self._s.ahead if one is not held))

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
                self._desk.release(held)
        summary = s.sentence(self._clock(), *self._desk.risk())
        gone = {"item": None, "ahead": (), "undoable": (), "comment": "", "draft": None, "last": ""}
        self._set(State.FINISHED, **{**saved, **gone, "kept": None, "summary": summary})
        return True


def _state(held: Held) -> State:
    return State.CANNOT_DISPLAY if held.shown.problem else State.ITEM


def _failed(error: Exception) -> State:
    return State.READ_ONLY if isinstance(error, errors.QueueReadOnly) else State.ERROR
