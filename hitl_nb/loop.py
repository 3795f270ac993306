"""The one place where learner meets queue: training set, retrain trigger, promotion."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, FitFailed, LearnerError, plain
from hitl_nb.evidence import Certificate, PairedComparison, clopper_pearson
from hitl_nb.lab.drift import FEWEST, DriftAlarm
from hitl_nb.learner import Challenger, Learner, ModelStore
from hitl_nb.orchestrator import Orchestrator
from hitl_nb.queue import ReviewQueue

#: what came of a retrain, and what to do next
_VERDICTS = {
    "first": ("is in use: the first model, compared with none", "loop.learner.predict(frame)"),
    "promote": ("is in use now: proven not worse by more than the margin", "loop.learner.predict(frame)"),
    "refuse": ("is not in use: proven worse", "look at the answers it learned from; the model before stays in use"),
    "undecided": ("is not in use: undecided", "about {more:,} more random labels; audits give them"),
}


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class RetrainReport(Shows):
    """What a retrain led to; ``str()`` is one sentence."""

    #: the new model
    challenger: Challenger
    #: how it compares with the one in use; None for a first model
    comparison: PairedComparison | None
    #: whether it is in use now
    promoted: bool
    #: how often this holdout has been looked at; each look adds its own chance of a wrong promotion
    looks: int
    #: task ids that the model in use learned from and that no longer stand so: undone, corrected or erased since
    outdated: tuple[str, ...] = ()
    #: the model that was in use until then; None for a first model
    before: str | None = None

    def __str__(self) -> str:
        made = f"{self.challenger.version} from {self.challenger.n_rows} rows"
        old = f"; the model in use learned from {len(self.outdated)} rows that no longer stand" if self.outdated else ""
        return f"{made}: {self.comparison or 'promote: the first model'} (look {self.looks}){old}"

    def _table(self) -> Table:
        made, found, rows = self.challenger, self.comparison, []
        notes = [f"it learned from {made.n_rows:,} rows, {made.metrics.get('reviewed_rows', 0):,} of them reviewed"]
        if found is not None:
            repaired, broken, both = found.only_champion_wrong, found.only_challenger_wrong, found.both_wrong
            old, new = (str(clopper_pearson(both + wrong, found.n)) for wrong in (repaired, broken))
            rows += [(f"{self.before}, in use before", both + repaired, old), (made.version, both + broken, new)]
            bounds = f"{found.difference:+.1%} ({found.low:+.1%} to {found.high:+.1%}, one-sided bounds at 95%)"
            rows.append((f"{repaired} repaired, {broken} broken", broken - repaired, bounds))
            notes += [f"look {self.looks} at this holdout; each adds its own chance of a wrong promotion"]
        if self.outdated:
            notes += [f"the model in use learned from {len(self.outdated):,} rows that no longer stand: retrain"]
        columns = ("model", f"wrong of {found.n}", "error on the holdout") if found else ()
        verdict, todo = _VERDICTS[found.verdict if found else "first"]
        more = found.labels_needed if found else 0
        return table(f"{made.version} {verdict}", columns, rows, [*notes, f"next: {todo.format(more=more)}"])


class Loop:
    """Feeds the answers of a queue to a learner, retrains when enough have come, promotes on proof alone.

    With `models` it takes up where the last loop on that folder ended: the model in use, version numbers, looks at the
    holdout, what was trained on and what was held out. Labels that did not come from the queue are added again.

    Parameters
    ----------
    queue : where the answers are
    learner : what learns from them; give it the initial labels with ``learner.add`` first
    models : where models are kept; None: in memory only
    margin : a challenger is promoted when its error is proven to exceed the champion's by no more than this share

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
        self, queue: ReviewQueue, learner: Learner, *, models: ModelStore | None = None, margin: float = 0.02
    ) -> None:
        self.queue, self.learner, self.models, self.margin = queue, learner, models, margin
        self._refreshing, self._retraining = threading.Lock(), threading.Lock()
        if models is not None:
            learner.resume(models.load() if models.latest() else None, models.records())

    def refresh(self) -> int:
        """Let the learner hold the answers that stand, and no others; returns how many are new, changed or gone.

        An answer that was undone, disputed, replaced or erased goes. Rows that came by ``learner.add`` stay.
        """
        with self._refreshing:  # an older look at the queue must not come after a newer one
            return self.learner.sync(self.queue.training_frame())

    def retrain(self, progress: Callable[[str], None] | None = None, force: bool = False) -> RetrainReport:
        """Fit a challenger, compare it with the champion on the holdout, and promote it if it is proven not worse.

        May run in a thread while answers come; they are for the next one. What it raises before a model is in use
        leaves champion, rows and count as they were.

        Parameters
        ----------
        progress : called with a short line at each stage; what it raises ends the retrain
        force : retrain although too few new answers came

        Raises
        ------
        NotEnoughSamples : too few new answers, unless ``force``
        FitFailed : the estimator raised
        LearnerError : a retrain is running, or a model could not judge the holdout
        """
        if not self._retraining.acquire(blocking=False):
            raise LearnerError(what=plain("a retrain is running already; wait for its report"))
        fitted = self.learner.fitted
        try:
            report = self._retrained(progress or (lambda line: None), force)
        except BaseException:
            self.learner.fitted = fitted
            raise
        finally:
            self._retraining.release()
        made = report.challenger
        facts = {"model": made.version, "data": made.data_hash, "promoted": report.promoted}
        folder = None if self.models is None else str(self.models.folder.absolute())
        self.queue.note("retrain", facts | {"folder": folder, "says": str(report)})
        return report

    def _retrained(self, progress: Callable[[str], None], force: bool) -> RetrainReport:
        learner, comparison = self.learner, None
        before = learner.champion.version if learner.champion else None
        challenger = learner.fit(progress, force)
        if learner.champion is not None:
            progress(f"comparing with {learner.champion.version} on {len(learner.holdout_rows)} rows")
            comparison = learner.compare(challenger, self.margin)
        promoted = comparison is None or comparison.verdict == "promote"
        if self.models is not None:
            facts = {"promoted": promoted}
            self.models.save(challenger, created_at=self.queue.now, looks=learner.looks, metrics=facts)
        if promoted and self.models is not None:
            self.models.use(challenger.version)
        if promoted:
            learner.promote(challenger)
        return RetrainReport(
            challenger=challenger, comparison=comparison, promoted=promoted, looks=learner.looks,
            outdated=tuple(learner.outdated), before=before,
        )  # fmt: skip

    def rollback(self) -> Challenger:
        """Put the model before this one in use again, here and in the store, and log it.

        Raises
        ------
        LearnerError : there is no earlier one
        """
        if self.models is None:
            before = self.learner.rollback()
        else:
            self.models.rollback()
            before = self.learner.champion = self.models.load()
        self.queue.note("rollback", {"model": before.version})
        return before


class Watch(Shows):
    """Lets an orchestrator decide by a certificate, and takes that back when its promise no longer holds.

    Made again after a restart it goes on: it finds in the log when the certificate was put to use, and whether anybody
    has taken it back. Until then `look` belongs wherever answers come in; a revoked certificate lets nothing through,
    with the reason "No valid certificate for model v8".

    Parameters
    ----------
    orchestrator
        What decides; its policy stays as it is but for the threshold.
    certificate
        What a threshold rule found, such as ``choose_threshold(queue.history(), ...)``.
    level
        1 - chance of a wrong alarm, over all looks together.
    bound
        Error rate at which the alarm watches; None: the one that is promised.
    confidences
        Whether confidences other than before are an alarm too; not where they follow the hours of the day.

    Examples
    --------
    >>> from hitl_nb import open_queue
    >>> promise = Certificate(
    ...     threshold=0.9, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v8")
    >>> orchestrator = Orchestrator(queue=open_queue(":memory:"))
    >>> watch = Watch(orchestrator, promise)
    >>> watch.revoke("the camera was moved").revoked_at is None
    False
    >>> orchestrator.process({}, {"label": "ok", "confidence": 0.99, "model": "v8"})["reason"]
    'No valid certificate for model v8'
    """

    def __init__(
        self, orchestrator: Orchestrator, certificate: Certificate, *, level: float = 0.95, bound: float | None = None,
        confidences: bool = True,
    ) -> None:  # fmt: skip
        self.orchestrator, self.queue, self.certificate = orchestrator, orchestrator.queue, certificate
        self._level, self._bound, self._confidences = level, certificate if bound is None else bound, confidences
        self._seen = 0
        self._issued: datetime | None = None
        #: what the last look saw; None before it
        self.alarm: DriftAlarm | None = None
        DriftAlarm(self._bound, level)  # says at once what is wrong with them
        self._read_log()
        if self._issued is None:
            self.queue.note("issue_certificate", {"certificate": certificate.to_dict(), "says": str(certificate)})
            self._read_log()
        self._use()

    def look(self) -> Certificate:
        """Judge all answers so far, and take the certificate back if the alarm fires; returns it as it stands now.

        Errors are those of its own model that audits found since it was put to use. Confidences are compared with those
        before, where the queue holds at least 100.
        """
        self._read_log()
        if self.certificate.revoked_at is None:
            self.alarm = self._fed()
            if self.alarm.fired:
                return self.revoke(str(self.alarm))
        self._use()
        return self.certificate

    def revoke(self, why: str) -> Certificate:
        """Take the certificate back, and log why; whoever watches it elsewhere follows at the next look."""
        self._read_log()
        if self.certificate.revoked_at is None:
            self.queue.note("revoke_certificate", {"certificate": self.certificate.id, "why": why})
            self._read_log()
        self._use()
        return self.certificate

    def _fed(self) -> DriftAlarm:
        rows = self.queue.history()
        if self.certificate.model is not None:
            rows = rows[(rows["model"] == self.certificate.model).fillna(False)]
        since = rows["at_time"] > self._issued
        known = rows.loc[~since & ~rows["hard"].fillna(True).astype(bool), "confidence"].dropna().to_numpy(np.float64)
        enough = self._confidences and len(known) >= FEWEST
        alarm = DriftAlarm(self._bound, self._level, reference=known if enough else None)
        alarm.feed(rows[since])
        return alarm

    def _read_log(self) -> None:
        """Take note of what has become of the certificate, here or elsewhere."""
        while events := self.queue.events(self._seen, limit=10_000):
            for event in events:
                body = event["body"] if event["move"] in ("issue_certificate", "revoke_certificate") else {}
                if event["move"] == "issue_certificate" and body["certificate"]["id"] == self.certificate.id:
                    self._issued = self._issued or event["at_time"]
                elif body.get("certificate") == self.certificate.id:
                    self.certificate = self.certificate.revoked(event["at_time"])
            self._seen = events[-1]["seq"]

    def _use(self) -> None:
        policy = self.orchestrator.policy
        if policy.confidence_threshold != self.certificate:
            self.orchestrator.use(replace(policy, confidence_threshold=self.certificate))

    def __str__(self) -> str:
        return str(self.certificate if self.alarm is None else self.alarm)

    def _table(self) -> Table:
        found = self.certificate._table()
        return found if self.alarm is None else replace(found, facts=(*found.facts, str(self.alarm)))


def default_estimator() -> Any:
    """Return the classifier of those who name none: standardised features, logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def feature_row(features: Mapping[str, Any] | Sequence[float] | NDArray[Any]) -> dict[str, Any]:
    """Return one sample's features by name; in a sequence they are called f0, f1 and so on.

    >>> feature_row([1.5, 2])
    {'f0': 1.5, 'f1': 2}
    """
    if isinstance(features, Mapping):
        return dict(features)
    if isinstance(features, (str, bytes)) or np.ndim(features) != 1:
        raise BadInput(name="features", value=features, remedy="must be a dict, or a flat sequence of numbers")
    return {f"f{i}": value for i, value in enumerate(features)}


class ActiveLearningPipeline:
    """The smallest loop: hand in reviewed samples one by one, a model is refitted each `min_samples_for_retrain`.

    It stands on a `Learner` (attribute `learner`) without queue or holdout, so a refitted model is in use at once,
    unproven; to promote on proof take `Learner.compare`.

    Parameters
    ----------
    min_samples_for_retrain : samples since the last fit that start the next one
    estimator : scikit-learn classifier or pipeline; default `default_estimator`
    options : passed on to `Learner` (strategy, weighting, features, seed)

    Examples
    --------
    >>> pipeline = ActiveLearningPipeline(min_samples_for_retrain=4)
    >>> [pipeline.add_reviewed_sample([x], x > 2, confidence=0.49) for x in (1.0, 2.0, 3.0, 4.0)]
    [False, False, False, True]
    >>> pipeline.learner.predict([[0.0], [9.0]])["label"].tolist(), pipeline.weights.tolist(), pipeline.retrain_count
    ([False, True], [2.0, 2.0, 2.0, 2.0], 1)
    """

    def __init__(self, min_samples_for_retrain: int = 500, estimator: Any = None, **options: Any) -> None:
        chosen = default_estimator() if estimator is None else estimator
        self.learner = Learner(chosen, min_samples=min_samples_for_retrain, **options)
        #: how often the model was refitted
        self.retrain_count = 0
        #: why the last refit failed; None when it did not
        self.last_error: FitFailed | None = None

    def add_reviewed_sample(
        self, features: Mapping[str, Any] | Sequence[float] | NDArray[Any], ground_truth: Any, confidence: float | None
    ) -> bool:
        """Store a sample with raw weight ``1 / (confidence + 0.01)`` and refit when enough are new.

        A refit that fails keeps the sample and the old model, warns, and is tried again with the next sample.

        Parameters
        ----------
        ground_truth : the label a person gave
        confidence : the model's confidence before, 0..1; None or NaN if unknown, which weighs like 0.5

        Returns
        -------
        whether the model was refitted

        Raises
        ------
        BadInput : other features than before, no label, no confidence between 0 and 1; nothing was stored
        """
        row = feature_row(features) | {"task_id": f"sample-{len(self.learner.buffer.rows):09d}", "label": ground_truth}
        row |= {"confidence": confidence, "source": "human_review", "outcome": "correct"}
        self.learner.add(pd.DataFrame([row]))
        if not self.learner.ready:
            return False
        try:
            self.learner.promote(self.learner.fit())
        except FitFailed as error:
            self.last_error = error
            warnings.warn(str(error), stacklevel=2)
            return False
        self.retrain_count, self.last_error = self.retrain_count + 1, None
        return True

    @property
    def model(self) -> Any:
        """The fitted estimator in use; None before the first fit."""
        return self.learner.champion.model if self.learner.champion else None

    @property
    def weights(self) -> NDArray[np.float64]:
        """Raw weights of all samples, in the order they came."""
        return self.learner.buffer.rows["weight"].to_numpy(dtype=np.float64)
