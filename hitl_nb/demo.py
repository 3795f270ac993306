"""The whole loop on real data: route, queue, review by simulated reviewers, learn; and what that was worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from hitl_nb.connect import open_queue
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Interval, clopper_pearson, corrected_risk, reviewer_error
from hitl_nb.learner import Learner, ModelStore
from hitl_nb.loop import Loop, RetrainReport
from hitl_nb.orchestrator import Orchestrator
from hitl_nb.policy import Policy
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.read import Stats
from hitl_nb.shipped import load_spam
from hitl_nb.task import Reviewer

#: the combination that the project is known for, and the plain one beside it: strategy and weighting
ARMS = {"margin with inverse-confidence weights": ("margin_inverse_confidence", "inverse_confidence"),
        "plain margin, no weights": ("margin", "ones")}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoData:
    """A labelled table and how the demo uses it."""

    #: what it is, for people
    title: str
    #: features and a column ``label``
    frame: pd.DataFrame
    #: rows with labels at the start; part of them is the holdout
    initial: int
    #: rows kept apart to measure accuracy
    test: int
    #: answers that start a retrain
    min_samples: int
    #: share of the auto-approved rows that is audited
    audit_rate: float


@dataclass(kw_only=True)
class SimulatedReviewer:
    """Judges by the truth and errs at a stated rate, at a stated pace."""

    #: name and roles
    who: Reviewer
    #: probability of a wrong judgement
    error_rate: float
    #: draws the errors
    rng: np.random.Generator
    #: labels that a wrong correction is drawn from
    labels: Sequence[str]

    def judge(self, predicted: str, truth: str) -> tuple[str, dict[str, str] | None]:
        """Return outcome and correction."""
        seen = truth
        if self.rng.random() < self.error_rate:
            seen = str(self.rng.choice([label for label in self.labels if label != truth]))
        return ("approve", None) if seen == predicted else ("correct", {"label": seen})


@dataclass(kw_only=True)
class Clock:
    """Simulated time: a judgement takes as long as a person would take."""

    #: naive UTC
    now: datetime

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


@dataclass(kw_only=True)
class DemoReport:
    """What the demo measured."""

    #: figures in the order in which they are printed: what, and how much
    rows: list[tuple[str, str]] = field(default_factory=list)
    #: retrains in order
    retrains: list[RetrainReport] = field(default_factory=list)
    #: random audits judged
    audits: int = 0

    def __str__(self) -> str:
        width = max(len(what) for what, _ in self.rows)
        return "\n".join(f"{what:<{width}}  {value}" for what, value in self.rows)


def spam() -> DemoData:
    """Return the shipped e-mails."""
    title = "e-mails, spam or ham (Spambase)"
    return DemoData(title=title, frame=load_spam(), initial=500, test=600, min_samples=500, audit_rate=0.1)


def digits() -> DemoData:
    """Return the handwritten digits that scikit-learn ships: images of 8 by 8 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    frame = pd.DataFrame(found.data, columns=[f"pixel_{i:02d}" for i in range(64)])
    frame["label"] = found.target.astype(str)
    title = "handwritten digits, 8 × 8 pixels (scikit-learn)"
    return DemoData(title=title, frame=frame, initial=300, test=200, min_samples=150, audit_rate=0.2)


DATA: dict[str, Callable[[], DemoData]] = {"spam": spam, "digits": digits}


class Demo:
    """One run of the loop.

    Parameters
    ----------
    data : ``spam`` or ``digits``
    path : queue file to create; models go to a folder beside it
    rows : rows of the table to use; None: all
    min_samples, audit_rate : as in `Learner` and `Policy`; None: what suits the data
    error_rate : how often a simulated reviewer errs, a share
    seconds : how long a judgement takes
    seed : of rows, reviewers and models; audit draws are keyed by task ids, so their figures differ from run to run
    quiet : no progress bars
    """

    def __init__(
        self, data: str = "spam", path: str | Path = "hitl-demo.duckdb", *, rows: int | None = None,
        min_samples: int | None = None, audit_rate: float | None = None, error_rate: float = 0.03,
        seconds: float = 20.0, seed: int = 0, quiet: bool = False,
    ) -> None:  # fmt: skip
        if data not in DATA:
            raise BadInput(name="data", value=data, remedy=f"pass one of {', '.join(DATA)}")
        if not 0 <= error_rate < 0.5:
            raise BadInput(name="error_rate", value=error_rate, remedy="pass a share below 0.5")
        self.path = Path(path)
        if self.path.exists():
            raise BadInput(name="path", value=str(path), remedy="it exists and would be mixed up; pass another --path")
        found = DATA[data]()
        self.title, self.seconds, self.quiet, self.seed = found.title, seconds, quiet, seed
        self._split(found, rows, min_samples)
        self.labels = sorted(self.frame["label"].unique())
        self.policy = Policy(0.85, audit_rate=found.audit_rate if audit_rate is None else audit_rate, second_audit=0.3)
        self.clock = Clock(now=datetime(2026, 1, 5, 9))
        self._reviewers(error_rate)

    def _split(self, found: DemoData, rows: int | None, min_samples: int | None) -> None:
        """Shuffle, and keep labelled rows for the start and unseen rows for the end."""
        frame = found.frame.sample(frac=1, random_state=self.seed).reset_index(drop=True)
        self.frame = frame if rows is None else frame.head(rows)
        n = len(self.frame)
        if n < 100:
            raise BadInput(name="rows", value=n, remedy="the demo needs at least 100 rows")
        share = n / len(frame)
        initial, test = max(60, round(found.initial * share)), max(20, round(found.test * share))
        self.initial, self.test = self.frame[:initial], self.frame[initial : initial + test]
        self.stream = self.frame[initial + test :]
        self.min_samples = max(10, round(found.min_samples * share)) if min_samples is None else min_samples

    def _reviewers(self, error_rate: float) -> None:
        words = {"ann": ("reviewer",), "ben": ("reviewer",), "eve": ("reviewer", "adjudicator")}
        made: dict[str, Any] = {"error_rate": error_rate, "labels": self.labels}
        self.first, self.second, self.last = (
            SimulatedReviewer(who=Reviewer(id=name, roles=roles), rng=np.random.default_rng([self.seed, i]), **made)
            for i, (name, roles) in enumerate(words.items())
        )

    def run(self) -> DemoReport:
        """Run the loop and return what it measured; the queue file stays."""
        with open_queue(self.path, clock=self.clock) as queue:
            self.queue = queue
            loop = self._start(queue)
            before = self._accuracy(loop.learner)
            orchestrator = Orchestrator(queue=queue, policy=self.policy)
            told, retrains = [], []
            for batch in tqdm(self._batches(), desc="stream", unit="batch", disable=self.quiet):
                told.append(self._route(orchestrator, loop.learner, batch))
                retrains += self._review(loop, told[-1])
            return self._report(loop, pd.concat(told), retrains, before)

    def _start(self, queue: ReviewQueue) -> Loop:
        strategy, weighting = next(iter(ARMS.values()))
        learner = self._learner(strategy, weighting)
        loop = Loop(queue, learner, models=ModelStore(self.path.with_suffix(".models")))
        loop.retrain(force=True)
        return loop

    def _learner(self, strategy: str, weighting: str) -> Learner:
        learner = Learner(estimator(), strategy, weighting, min_samples=self.min_samples, seed=self.seed)
        learner.add(self.initial.assign(task_id=[f"initial-{i}" for i in self.initial.index], source="initial"))
        return learner

    def _batches(self) -> list[pd.DataFrame]:
        size = max(50, len(self.stream) // 8)
        return [self.stream[i : i + size] for i in range(0, len(self.stream), size)]

    def _route(self, orchestrator: Orchestrator, learner: Learner, batch: pd.DataFrame) -> pd.DataFrame:
        inputs = batch.drop(columns="label")
        decided = orchestrator.process_frame(inputs, learner.predict(inputs))
        return decided.assign(truth=batch["label"])

    def _review(self, loop: Loop, decided: pd.DataFrame) -> list[RetrainReport]:
        """Answer all that waits, the most wanted first; retrain as soon as enough answers have come."""
        retrains: list[RetrainReport] = []
        known = decided.set_index("task_id")
        for task_id in tqdm(self._wanted(loop.learner), desc="review", unit="task", leave=False, disable=self.quiet):
            self._answer(task_id, str(known.at[task_id, "label"]), str(known.at[task_id, "truth"]))
        loop.refresh()
        if loop.learner.ready:
            retrains.append(loop.retrain())
        return retrains

    def _wanted(self, learner: Learner) -> list[str]:
        waiting = self.queue.pending(limit=100_000)
        if not waiting:
            return []
        inputs = pd.DataFrame([task.input_data for task in waiting])
        ids = np.array([task.task_id for task in waiting])
        return [str(ids[i]) for i in learner.select(inputs, len(ids), ids)]

    def _answer(self, task_id: str, predicted: str, truth: str) -> None:
        for reviewer in (self.first, self.second, self.last):
            self.clock.now += timedelta(seconds=self.seconds)
            self.queue.resolve(task_id, reviewer.who, *reviewer.judge(predicted, truth))
            if self.queue.get(task_id).status == "reviewed":
                return

    def _accuracy(self, learner: Learner) -> float:
        found = learner.predict(self.test.drop(columns="label"))["label"]
        return float((found.to_numpy() == self.test["label"].to_numpy()).mean())

    def _arms(self) -> dict[str, float]:
        """Return the accuracy of each arm after the same number of labels, chosen from the same reviewed tasks."""
        pool = self.queue.training_frame()
        pool = pool[pool["source"] != "audit"].drop(columns="weight")
        after = {}
        for arm, (strategy, weighting) in ARMS.items():
            learner = self._learner(strategy, weighting)
            learner.promote(learner.fit(force=True))
            chosen = learner.select(pool, min(self.min_samples, len(pool)), pool["task_id"])
            learner.add(pool.iloc[chosen])
            learner.promote(learner.fit(force=True))
            after[arm] = self._accuracy(learner)
        return after

    def _report(self, loop: Loop, told: pd.DataFrame, retrains: list[RetrainReport], before: float) -> DemoReport:
        history = self.queue.history()
        approved = told[told["status"] == "auto_approved"]
        risk = float((approved["label"] != approved["truth"]).mean())
        counts = self.queue.stats()
        asked = told[told["status"] == "pending_review"].set_index("task_id")
        wrong = (asked["label"] != asked["truth"]) & asked.index.isin(history["task_id"][history["wrong"].notna()])
        stopped = wrong & asked.index.isin(history["task_id"][history["wrong"].fillna(False)])
        caught, missed = int(stopped.sum()), int((wrong & ~stopped).sum())
        rows = [
            ("data", f"{self.title}: {len(self.initial)} labelled at first, {len(self.stream)} streamed"),
            ("inputs", f"{len(told)}"),
            ("automatic", f"{len(approved) / len(told):.1%} at threshold 0.85"),
            *audit_lines(counts),
            ("truth: automatic answers wrong", f"{risk:.1%}"),
            ("reviews", f"{len(asked)} asked by a rule; {caught} stopped a wrong answer, {missed} let one through"),
            ("accuracy before", f"{before:.1%} on {len(self.test)} unseen rows"),
            *((f"after, {arm}", f"{found:.1%} with {self.min_samples} reviews") for arm, found in self._arms().items()),
            *(("retrain", said) for said in ([*map(str, retrains)] or ["not enough answers came"])),
            ("model in use", loop.learner.champion.version if loop.learner.champion else "none"),
            ("queue file", f"{self.path}  (see it: hitl-nb stats {self.path})"),
        ]
        return DemoReport(rows=rows, retrains=retrains, audits=counts.audit_counts[1])


def audit_lines(counts: Stats) -> list[tuple[str, str]]:
    """Return what the audits say, and what they cannot say."""
    first, twice = counts.audit_counts[:2], counts.audit_counts[2:]
    rows = [("audited disagreement", str(clopper_pearson(*first)))]
    estimates: list[tuple[str, Callable[[], Interval]]] = [
        ("reviewer error", lambda: reviewer_error(*twice)),
        ("corrected risk", lambda: corrected_risk(*first, *twice)),
    ]
    for what, find in estimates:
        try:
            rows.append((what, f"{find()}, {twice[1]} audits judged twice"))
        except EvidenceError as error:
            rows.append((what, str(error)))
    return rows


def estimator() -> Any:
    """Return the demo's classifier: counts on a logarithmic scale, standardised, logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression(max_iter=2000))


def fresh_path(wanted: Path) -> Path:
    """Return ``wanted``, or the first free name beside it, so that no queue is ever mixed up with another."""
    path, i = wanted, 1
    while path.exists() or path.with_suffix(".models").exists():
        i += 1
        path = wanted.with_stem(f"{wanted.stem}-{i}")
    return path
