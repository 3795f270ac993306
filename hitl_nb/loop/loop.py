"""The loop: answers to the learner, retrain, promotion on proof."""

from __future__ import annotations

import threading
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hitl_nb.connect import check_opened
from hitl_nb.errors import BadInput, RetrainRunning, plain
from hitl_nb.learner import Challenger, Learner, ModelStore
from hitl_nb.learner.models import ModelRecord
from hitl_nb.loop.background import Retraining
from hitl_nb.loop.reorder import Reordered, reorder
from hitl_nb.loop.report import RetrainReport
from hitl_nb.policy import Policy
from hitl_nb.queue import ReviewQueue

#: what a learner works by and its models do not tell
OPTIONS = ("min_samples", "holdout", "held_reviews", "seed", "warm", "rejects")
_ALARM = "by an alarm of drift"


class Loop:
    """Feeds the answers of a queue to a learner, retrains when enough have come, promotes on proof alone.

    With `models` it takes up where the last loop on that folder ended: the model in use, version numbers, looks at the
    holdout, what was trained on and what was held out. Labels that did not come from the queue are added again. Several
    loops may work on one folder: each retrain and rollback begins where the last one of them ended.

    Parameters
    ----------
    queue : where the answers are
    learner : what learns from them; give it the initial labels with ``learner.add`` first
    models : where models are kept; None: in memory only
    margin : a challenger is promoted when its error is proven to exceed the champion's by no more than this share
    floor : and when no class lost more than this share, see `Learner.compare`
    policy : by which open tasks get new reasons, routes and priorities when another model comes in use; None: they
        stay as they are
    every : a retrain is due after so long, if there are new answers
    drift : a retrain is due when this returns something true, such as the text of an alarm; one that stays on after
        that retrain counts no more until it was off

    Raises
    ------
    UntrustedModel : a file among the models is damaged, foreign or hostile; it is named
    BadInput : the learner works on other feature columns than the model in use

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from hitl_nb import open_queue
    >>> queue = open_queue(":memory:")
    >>> loop = Loop(queue, Learner(LogisticRegression(), min_samples=2))
    >>> for x in (1.0, 4.0):
    ...     task = queue.submit(input_data={"x": x}, ai_prediction={"label": "low"}, confidence=0.5, reason="unsure")
    ...     _ = queue.resolve(task.task_id, "ann", "correct", {"label": "high"}) if x > 2 else queue.resolve(
    ...         task.task_id, "ann", "approve")
    >>> loop.refresh(), loop.learner.ready, loop.retrain().promoted
    (2, True, True)
    """

    def __init__(
        self, queue: ReviewQueue, learner: Learner, *, models: ModelStore | None = None, margin: float = 0.02,
        floor: float = 0.1, policy: Policy | None = None, every: timedelta | None = None,
        drift: Callable[[], object] | None = None,
    ) -> None:  # fmt: skip
        check_opened(queue)
        if not isinstance(learner, Learner):
            raise BadInput(name="learner", value=type(learner).__name__, remedy="pass Learner(estimator)")
        self.policy, self.every, self.drift = policy, every, drift
        self.queue, self.learner, self.models, self.margin, self.floor = queue, learner, models, margin, floor
        self._refreshing, self._retraining = threading.Lock(), threading.Lock()
        self._in_use: ModelRecord | None = None  # as the store said last
        self._seen, self._alarmed = 0, False
        self._take_up()
        records = [] if models is None else models.records()
        #: when it was last retrained, naive UTC; without stored models: when this loop began
        self.last = max((_time(record.created_at) for record in records), default=queue.now)

    def _take_up(self) -> None:
        """Go on where the last retrain or rollback on the folder of models ended, whoever made it."""
        if self.models is None:
            return
        used, self._in_use = self._in_use, self.models.latest()
        self.learner.resume(self.models.load() if self._in_use not in (None, used) else None, self.models.records())
        self.learner.looks = max(self.learner.looks, self.models.looks)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other retrains and rollbacks out, and begin where the last one ended."""
        if not self._retraining.acquire(blocking=False):
            raise RetrainRunning(where=plain("this loop"))
        try:
            with nullcontext() if self.models is None else self.models.lock():
                self._take_up()
                yield
        finally:
            self._retraining.release()

    def refresh(self) -> int:
        """Let the learner hold the answers that stand, and no others; returns how many are new, changed or gone.

        An answer that was undone, disputed, replaced or erased goes. Rows that came by ``learner.add`` stay. What waits
        for an answer comes with them, so that what is answered late tilts no comparison.
        """
        with self._refreshing:  # an older look at the queue must not come after a newer one
            return self.learner.sync(*self.queue.training_frames())

    def due(self) -> str | None:
        """Say why a retrain is due: by count, by time, or by an alarm of drift; None while it is not.

        Without a new answer it never is: the same rows would give the same model.
        """
        new, since = self.learner.counted, self.queue.now - self.last
        if not new:
            return None
        if self.learner.ready:
            return f"by count: {new:,} new answers"
        if self.every is not None and since >= self.every:
            return f"by time: {new:,} new answers, {since.total_seconds() / 86_400:.1f} days since the last"
        alarm = self.drift() if self.drift is not None else None
        self._alarmed = self._alarmed and bool(alarm)
        return f"{_ALARM}: {alarm}" if alarm and not self._alarmed else None

    def retrain_if_due(self, progress: Callable[[str], None] | None = None) -> RetrainReport | None:
        """Take in the answers, and retrain if that is due and no retrain is running; call it as often as you like."""
        if self.queue.events(self._seen, limit=1):
            last = bisect_left(range(2**40), True, self._seen, key=lambda seq: not self.queue.events(seq, limit=1))
            self.refresh()
            self._seen = last
        why = self.due()
        try:
            report = self.retrain(progress, force=True, why=why) if why else None
            self._alarmed = self._alarmed or (why or "").startswith(_ALARM)
            return report
        except RetrainRunning:
            return None

    def start(self, progress: Callable[[str], None] | None = None, force: bool = False) -> Retraining:
        """Do what `refresh` and `retrain` do on a thread of its own, while reviews go on."""
        return Retraining(lambda stage: (self.refresh(), self.retrain(stage, force))[1], progress)

    def retrain(
        self, progress: Callable[[str], None] | None = None, force: bool = False, why: str = "by hand"
    ) -> RetrainReport:
        """Fit a challenger, compare it with the champion on the holdout, and promote it if it is proven not worse.

        May run in a thread while answers come; they are for the next one. What it raises before a model is in use
        leaves champion, rows and count as they were.

        Parameters
        ----------
        progress : called with a short line at each stage; what it raises ends the retrain. The last stage is before the
            comparison, so that no look at the holdout is ever forgotten
        force : retrain although too few new answers came
        why : what started it, for the log

        Raises
        ------
        NotEnoughSamples : too few new answers, unless ``force``
        FitFailed : the estimator raised
        RetrainRunning : a retrain or rollback of these models is running, here or in another process
        LearnerError : a model could not judge the holdout
        """
        with self._alone():
            fitted = self.learner.fitted
            try:
                report = self._retrained(progress or (lambda line: None), force, why)
            except BaseException:
                self.learner.fitted = fitted
                raise
        return replace(report, reordered=self._then_reordered()) if report.promoted and report.before else report

    def _log(self, report: RetrainReport, why: str) -> None:
        made = report.challenger
        facts = {"model": made.version, "data": made.data_hash, "promoted": report.promoted, "why": why}
        folder = None if self.models is None else str(self.models.folder.absolute())
        self.queue.note("retrain", facts | {"folder": folder, "says": str(report)})

    def _then_reordered(self) -> Reordered | str | None:
        """Order open tasks anew; whatever comes of it, the model in use stays so."""
        try:
            return self.reorder()
        except Exception as error:
            return f"open tasks keep their order ({type(error).__name__}: {error})"

    def reorder(self, policy: Policy | None = None) -> Reordered | None:
        """Give open tasks of earlier models the place that the one in use gives them: order, people, one more reason.

        What callers handed in stays, and none leaves the queue, since its caller waits for a person. What somebody has
        had in hand, what was sent by hand and what is under audit stays as it is. What was moved is no evidence for a
        threshold: a model that its score does not come from had a say in when it is judged. Each move is an event.

        Parameters
        ----------
        policy : by which they are judged; None: that of the loop, and without one nothing happens
        """
        chosen = policy or self.policy
        return None if chosen is None else reorder(self.queue, self.learner, chosen)

    def _retrained(self, progress: Callable[[str], None], force: bool, why: str) -> RetrainReport:
        learner, comparison = self.learner, None
        before = learner.champion.version if learner.champion else None
        challenger = learner.fit(progress, force)
        if learner.champion is not None:
            rows = len(learner.holdout_rows)
            progress(f"comparing with {learner.champion.version} on {rows} rows")
            if self.models is not None and rows:
                self.models.look(learner.looks + 1)
            comparison = learner.compare(challenger, self.margin, floor=self.floor)
        promoted = comparison is None or comparison.verdict == "promote"
        report = RetrainReport(
            challenger=challenger, comparison=comparison, promoted=promoted, looks=learner.looks,
            outdated=() if promoted else tuple(learner.outdated), before=before,
        )  # fmt: skip
        now = self.queue.now
        self._log(report, why)  # first: a model that the log does not know is one that `forget` does not name
        if self.models is not None:
            facts = {"promoted": promoted} | _options(learner)
            self.models.save(challenger, created_at=now, looks=learner.looks, metrics=facts)
        if promoted and self.models is not None:
            self._in_use = self.models.use(challenger.version)
        if promoted:
            learner.promote(challenger)
        self.last = now
        return replace(report, outdated=tuple(learner.outdated))

    def rollback(self) -> Challenger:
        """Put the model before this one in use again, here and in the store, and log it.

        Raises
        ------
        LearnerError : there is no earlier one
        RetrainRunning : a retrain of these models is running, here or in another process
        UntrustedModel : the earlier one cannot be loaded; what is in use stays
        """
        with self._alone():
            if self.models is None:
                before = self.learner.rollback()
            else:
                self._in_use = self.models.rollback()
                before = self.learner.champion = self.models.load()
            self.queue.note("rollback", {"model": before.version})
        if isinstance(found := self._then_reordered(), str):
            warnings.warn(found, stacklevel=2)
        return before


def _options(learner: Learner) -> dict[str, Any]:
    """Return what a learner works by beside what its models know of; `take_up` reads it."""
    given = learner.buffer.features
    name = getattr(given, "__name__", type(given).__name__) if callable(given) else None
    return {one: getattr(learner, one, learner.buffer.rejects) for one in OPTIONS} | {"features": name}


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
