"""What a reviewer takes from the queue and gives back: items in hand, and the counts of a sitting."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hitl_nb import errors
from hitl_nb.display import spell
from hitl_nb.evidence import clopper_pearson
from hitl_nb.panel.odd import Usual
from hitl_nb.panel.parts import Custom, Shown
from hitl_nb.panel.show import UNFOLDED, show_answer, show_input
from hitl_nb.panel.similar import AMONG, Similar, nearest, outcome
from hitl_nb.panel.sitting import PROMISE, Held, told
from hitl_nb.task import Reviewer, ReviewTask

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue

#: open tasks among which the reviewer's own leases are looked for
OWN = 100
#: errors that say that this answer can never be saved
TOO_LATE = (
    errors.AlreadyReviewed, errors.IllegalMove, errors.PayloadErased, errors.TaskNotFound, errors.SubmitConflict,
    errors.NotQualified,
)  # fmt: skip
#: errors that say that there is nothing to give back or to renew
NOT_HELD = (errors.LeaseLost, *TOO_LATE)


class Desk:
    """One reviewer's hands on a queue; it remembers nothing of the sitting but which values are usual.

    Parameters
    ----------
    queue, reviewer
        Where tasks come from, and for whom.
    render
        Turns ``input_data`` into what is shown.
    words
        Words to mark in texts.
    audits
        Returns how many random audits were disagreed with, and how many were judged.
    """

    def __init__(
        self, queue: ReviewQueue, reviewer: Reviewer, *, render: Callable[[Any], Any] | None = None,
        words: Sequence[str] = (), audits: Callable[[], tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self.queue, self.reviewer = queue, reviewer
        self._render, self._words, self._audits, self._usual = render, tuple(words), audits, Usual()

    def take(self, n: int) -> tuple[Held, ...]:
        """Claim up to ``n`` items."""
        return tuple(self.hold(task, task.attempt) for task in self.queue.claim(self.reviewer, n))

    def own(self) -> tuple[Held, ...]:
        """Return what the reviewer holds already: from a kernel that was killed, or a cell that ran before."""
        with suppress(Exception):  # a lease that is over, or a store that is away: the claim that follows says so
            own = [task for task in self.queue.pending(limit=OWN) if task.holder == self.reviewer.id]
            if own:
                self.queue.renew([task.task_id for task in own], self.reviewer)
            return tuple(self.hold(task, task.attempt) for task in own)
        return ()

    def hold(self, task: ReviewTask, attempt: int | None) -> Held:
        """Return a task as it is shown; the answers to a dispute come with it, without names."""
        shown = self._shown(task.input_data, usual=self._usual)
        answers = self.queue.get(task.task_id).reviews if task.disputed else ()
        said = tuple(told(review, task.ai_prediction) for review in answers if not review.adjudication)
        return Held(task=task, attempt=attempt, shown=shown, answer=show_answer(task.ai_prediction), answers=said)

    def similar(self, held: Held) -> tuple[Similar, ...]:
        """Return judged tasks that are like one in hand; of those that this reviewer might have been asked."""
        mine = (None, *self.reviewer.expertise)
        judged = [task for task in self.queue.reviewed(AMONG) if task.expertise in mine and task.input_data is not None]
        found = nearest(held.task.input_data, [task.input_data for task in judged])
        return tuple(Similar(shown=self._beside(judged[i].input_data), said=outcome(judged[i])) for i in found)

    def _beside(self, value: Any) -> Shown:
        """Return what an input looks like; a widget is for the item in front alone."""
        shown = self._shown(value)
        made = [part.widget for part in shown.parts if isinstance(part, Custom)]
        for widget in made:
            widget.close()
        return show_input(value, words=self._words) if made else shown

    def _shown(self, value: Any, times: int = 1, usual: Usual | None = None) -> Shown:
        return show_input(value, self._render, times, words=self._words, usual=usual)

    def unfold(self, held: Held) -> Held:
        """Return an item of which more is shown."""
        shown = self._shown(held.task.input_data, UNFOLDED, self._usual)
        return replace(held, shown=shown, answer=show_answer(held.task.ai_prediction, UNFOLDED))

    def changed_since(self, held: Held) -> Held | None:
        """Tell an item that was replaced under the reviewer's eyes from a lease that ran out."""
        with suppress(Exception):
            fresh = self.queue.get(held.task.task_id)
            return self.hold(fresh, None) if fresh.shown != held.task.shown else None
        return None

    def renew(self, held: Held) -> errors.HitlError | None:
        """Lengthen a lease; returns why it cannot be, where it is gone."""
        try:
            if held.attempt is not None:
                self.queue.renew([held.task.task_id], self.reviewer)
        except NOT_HELD as error:
            return error
        return None

    def release(self, held: Held | None, reason: str | None = None) -> None:
        """Give an item back, if it is held still."""
        if held is not None and held.attempt is not None:
            with suppress(*NOT_HELD):
                self.queue.release(held.task.task_id, self.reviewer, reason)

    def counted(self, judged: int) -> dict[str, Any]:
        """Count what waits: for this reviewer, and by expertise."""
        found = self.queue.stats().open_by_expertise
        mine = sum(n for who, n in found.items() if who is None or who in self.reviewer.expertise)
        waiting = sorted((spell(who or "anyone"), n) for who, n in found.items() if n)
        return {"total": judged + mine, "waiting": tuple(waiting)}

    def risk(self) -> tuple[float | None, int]:
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
