"""Orchestrator: policy meets queue. Process one input, process a frame, wait for the answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hitl_nb.connect import check_opened, open_queue
from hitl_nb.errors import BadInput, TaskEscalated, WaitTimeout
from hitl_nb.orchestrator.route import route_one
from hitl_nb.policy import Policy
from hitl_nb.queue import ReviewQueue
from hitl_nb.task import Review, Status

if TYPE_CHECKING:
    import pandas as pd

#: longest time between two looks while waiting, in seconds; a change wakes earlier
POLL = 0.5
#: file that an orchestrator without a queue opens in the current folder
DEFAULT_FILE = "reviews.duckdb"
#: files of which that was said
_said: set[str] = set()


class Orchestrator:
    """Decides which predictions need a person and keeps those in a queue.

    Parameters
    ----------
    confidence_threshold
        Predictions below it go to a person; shorthand for ``policy=Policy(confidence_threshold)``.
    queue
        Where tasks are kept; default: ``reviews.duckdb`` in the current folder.
    policy
        All rules; not together with ``confidence_threshold``.

    Examples
    --------
    >>> orchestrator = Orchestrator(queue=open_queue(":memory:"), policy=Policy(0.85, audit_rate=0))
    >>> orchestrator.process({"amount": 12.5}, {"label": "ok", "confidence": 0.93})["status"]
    'auto_approved'
    >>> orchestrator.process({"amount": 99.0}, {"label": "ok", "confidence": 0.62})["reason"]
    'Low confidence: 0.62'
    """

    def __init__(
        self,
        confidence_threshold: float | None = None,
        *,
        queue: ReviewQueue | None = None,
        policy: Policy | None = None,
    ) -> None:
        if confidence_threshold is not None and policy is not None:
            remedy = "the policy holds its own threshold; pass one of the two"
            raise BadInput(name="confidence_threshold", value=confidence_threshold, remedy=remedy)
        check_opened(queue)
        if policy is not None and not isinstance(policy, Policy):
            raise BadInput(name="policy", value=policy, remedy="pass a Policy")
        given = Policy() if confidence_threshold is None else Policy(confidence_threshold)
        self.use(policy or given)
        self.queue = queue if queue is not None else _default_queue()

    @property
    def policy(self) -> Policy:
        """All rules in use."""
        return self._in_use[0]

    def use(self, policy: Policy) -> None:
        """Decide by another policy from now on; decisions that are being made go by the old one."""
        self._in_use = policy, policy.to_dict()

    def process(
        self, input_data: dict[str, Any], ai_result: dict[str, Any], *, key: str | None = None,
        subject: str | None = None, group: str | None = None, value: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Decide about one prediction, and log the decision.

        Parameters
        ----------
        input_data
            What the model saw: a dict of fields.
        ai_result
            What it answered: label, confidence 0..1, model and the flags ``is_anomalous``, ``high_value_transaction``,
            ``irreversible``, ``regulated``; other keys are kept.
        key
            The caller's own id: the same input again is decided once.
        subject, group, value
            Whom it is about; group and cost, for the history.

        Returns
        -------
        dict
            ``status`` auto_approved with ``prediction`` and ``confidence``, or pending_review with ``task_id``,
            ``estimated_wait_minutes`` (None before it is known), ``reason`` and ``reasons``.
        """
        roles = {"key": key, "subject": subject, "group": group, "value": value}
        ids = self.queue.new_ids(1)
        policy, stated = self._in_use
        decision, ready = route_one(policy, input_data, ai_result, roles, ids, self.queue.now)
        wait = self.queue.estimated_wait(decision.expertise, decision.priority)  # before it waits behind itself
        stored = self.queue.store_decided(ready, policy.fingerprint, stated)
        status, reasons = decision.status, decision.reasons
        if stored.task_id != ready.row.task_id:  # the key is known: what was told then holds
            [(status, task)] = self.queue.told([stored.task_id])
            reasons = task.reasons
        if status is Status.AUTO_APPROVED:
            told = {"status": "auto_approved", "prediction": ai_result, "confidence": stored.confidence}
            return told | {"task_id": stored.task_id}
        return {
            "status": "pending_review",
            "task_id": stored.task_id,
            "estimated_wait_minutes": None if wait is None else wait.minutes,
            "reason": reasons[0].text,
            "reasons": [reason.as_dict() for reason in reasons],
        }

    def process_frame(
        self, inputs: pd.DataFrame, predictions: pd.DataFrame | Sequence[Mapping[str, Any]], *,
        key: str | Sequence[Any] | None = None, subject: str | Sequence[Any] | None = None,
        group: str | Sequence[Any] | None = None, value: str | Sequence[Any] | None = None,
        progress: bool = False,
    ) -> pd.DataFrame:  # fmt: skip
        """Decide about a whole frame with the same rules, and log every decision in one transaction.

        Parameters
        ----------
        inputs
            One row an input.
        predictions
            One row a prediction, with the index of ``inputs``; or a list of dicts.
        key, subject, group, value
            The caller's id, whom a row is about, its group and its cost: a column of ``inputs`` each, or one value a
            row for what is no input.
        progress
            Whether to show a progress bar.

        Returns
        -------
        pandas.DataFrame
            Index of ``inputs``; status, task_id, label, confidence, reason, reasons, priority, expertise, deadline,
            audit_probability.
        """
        from hitl_nb.orchestrator.frame import route_frame

        roles = {"key": key, "subject": subject, "group": group, "value": value}
        return route_frame(self.queue, *self._in_use, inputs, predictions, roles, progress)

    def wait(self, task_id: str, timeout: float | None = None, *, after: int = 0, caller: str = "caller") -> Review:
        """Block until a person has answered a task; from then on the answer cannot be undone.

        Parameters
        ----------
        task_id
            What ``process`` returned.
        timeout
            Seconds; None: for ever.
        after
            ``Review.number`` of an answer already known: wait for the one that follows an objection.
        caller
            Who receives the answer, for the log.

        Raises
        ------
        WaitTimeout
            No answer yet; neither an approval nor a rejection.
        TaskExpired, TaskWithdrawn
            There will be none.
        TaskEscalated
            It went to the next level meanwhile and is still open; wait again.
        """
        woken = threading.Event()
        waiting = _Waiting(self.queue, task_id, timeout, after, caller)
        end = self.queue.watch(task_id, woken.set)
        try:
            while True:
                woken.clear()
                review = waiting.look()
                if review is not None:
                    return review
                woken.wait(waiting.pause())
        finally:
            end()

    async def wait_async(
        self, task_id: str, timeout: float | None = None, *, after: int = 0, caller: str = "caller"
    ) -> Review:
        """Do what ``wait`` does, for ``await``: no thread is held while nothing happens."""
        woken, loop = asyncio.Event(), asyncio.get_running_loop()
        waiting = _Waiting(self.queue, task_id, timeout, after, caller)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile, nobody waits any more
                loop.call_soon_threadsafe(woken.set)

        end = self.queue.watch(task_id, wake)
        try:
            while True:
                woken.clear()
                review = waiting.look()
                if review is not None:
                    return review
                pause = waiting.pause()
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), pause)
        finally:
            end()


class _Waiting:
    """What blocking and asynchronous waits share: one look, and how long to pause after it."""

    def __init__(self, queue: ReviewQueue, task_id: str, timeout: float | None, after: int, caller: str) -> None:
        self.queue, self.task_id, self.timeout, self.after, self.caller = queue, task_id, timeout, after, caller
        self.until = None if timeout is None else time.monotonic() + timeout
        self.level = queue.get(task_id).level

    def look(self) -> Review | None:
        """Return the answer if there is one."""
        review = self.queue.deliver(self.task_id, self.caller, self.after)
        if review is None:
            task = self.queue.get(self.task_id)
            if task.level > self.level:
                raise TaskEscalated(task_id=self.task_id, level=task.level, expertise=task.expertise)
        return review

    def pause(self) -> float:
        """Return how long to wait for a change, in seconds."""
        if self.until is None:
            return POLL
        rest = self.until - time.monotonic()
        if rest <= 0:
            raise WaitTimeout(task_id=self.task_id, seconds=self.timeout)
        return min(rest, POLL)


def _default_queue() -> ReviewQueue:
    path = str(Path(DEFAULT_FILE).resolve())
    if path not in _said:
        _said.add(path)
        print(f"hitl_nb keeps reviews in {DEFAULT_FILE} in the current folder; pass queue=open_queue(path) to choose.")
    return open_queue(DEFAULT_FILE)
