"""The learner: keeps labelled rows, chooses what to ask next, fits a challenger, compares it with the champion.

It knows no queue and no clock; `loop` carries reviews here and decides when to promote.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hitl_nb.errors import BadInput, FitFailed, LearnerError, NotEnoughSamples, plain
from hitl_nb.evidence import PairedComparison, compare_paired, inverse_confidence, spent, with_floor
from hitl_nb.evidence.check import within
from hitl_nb.learner.buffer import HASH, Buffer, Features, Rejects, as_labels, as_text, data_hash
from hitl_nb.learner.challenger import (
    Challenger,
    calibrated,
    continued,
    is_fitted,
    probabilities_of,
    seeded,
    warm_names,
)  # fmt: skip
from hitl_nb.learner.holdout import answers, at_random, held_back, wrong
from hitl_nb.learner.modal import WeightedActiveLearner
from hitl_nb.learner.models import ModelRecord
from hitl_nb.learner.pool import Asking, choose
from hitl_nb.learner.strategy import STRATEGIES, Exploring, Strategy, named, wants
from hitl_nb.learner.weighting import WEIGHTINGS, Weighting, effective_size, fit_weighted, fit_weights, weigh

#: rows of the random holdout where the initial labels are enough for it
HOLDOUT_ROWS = 200
#: no task that waits for an answer
_NONE = pd.DataFrame({"source": [], "audit_rate": []}, index=pd.Index([], dtype=object))


class Learner:
    """Active learning without a queue: add labels, select what to ask, fit, compare, promote.

    Parameters
    ----------
    estimator : a scikit-learn classifier or pipeline with ``predict_proba``; it is cloned, never fitted. If it is
        fitted already, it is the champion from the start, as "v1"
    strategy : name from `STRATEGIES`, or a function (probabilities, rng) -> scores; the default is `Exploring`, which
        draws; "margin" takes the smallest margins without chance
    weighting : "inverse_confidence" uses the raw weight stored with each row; any other name from `WEIGHTINGS`, or a
        function, computes it from the stored confidences or rows
    min_samples : how many reviewed rows make the learner ready, see `counted`
    features : column names, a function of the feature columns that returns X, or None for every scalar column
    rejects : "drop" leaves rejected cases out of the fit; "label" trains them as label "rejected" (labels become text)
    holdout : share of the initial labels that is drawn for comparing models and never trained on: at least 200 rows
        where that is at most half of them; drawn by id at the first fit and fixed then
    seed : of every draw here, and of open random states of the estimator
    calibrate : bring the confidences of each new model in line with how often it is right, on the initial rows of the
        holdout: a model that was fitted to chosen rows is off on random ones. One temperature (Guo 2017, arXiv
        1706.04599), and none where an answer to those rows would change; scikit-learn 1.8 or later
    warm : begin a fit at the model in use, where the estimator has ``warm_start`` and the classes are the same
    held_reviews : share of a queue's reviews that is held back at most: as many as are audited of the automatic answers
        (column audit_rate) join the holdout beside the audits; at 0 neither do, and all reviews train

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> learner = Learner(LogisticRegression(), min_samples=4)
    >>> learner.add(pd.DataFrame({"task_id": list("abcd"), "x": [0.0, 1.0, 3.0, 4.0], "label": [0, 0, 1, 1],
    ...     "confidence": 0.5, "source": "human_review", "outcome": "approve"}))
    4
    >>> learner.promote(learner.fit())
    >>> learner.select(pd.DataFrame({"x": [0.0, 2.1, 9.0]}), n=1).tolist()  # nearest to the boundary at 2
    [1]
    """

    def __init__(
        self, estimator: Any, strategy: str | Strategy = "exploring_margin",
        weighting: str | Weighting = "inverse_confidence", min_samples: int = 500, features: Features = None,
        rejects: Rejects = "drop", holdout: float = 0.2, seed: int = 0, calibrate: bool = False, warm: bool = False,
        held_reviews: float = 0.2,
    ) -> None:  # fmt: skip
        if not hasattr(estimator, "predict_proba"):
            remedy = "needs predict_proba; wrap it in sklearn.calibration.CalibratedClassifierCV"
            raise BadInput(name="estimator", value=type(estimator).__name__, remedy=remedy)
        if rejects not in ("drop", "label"):
            raise BadInput(name="rejects", value=rejects, remedy='must be "drop" or "label"')
        if not 0 <= holdout <= 0.5:
            raise BadInput(name="holdout", value=holdout, remedy="must be a share from 0 to 0.5")
        if isinstance(min_samples, bool) or not min_samples >= 1:
            raise BadInput(name="min_samples", value=min_samples, remedy="must be 1 or more")
        self.strategy, self._score = named(strategy, STRATEGIES, "strategy")
        wants(self._score)
        self.weighting, self._weigh = named(weighting, WEIGHTINGS, "weighting")
        if warm and not warm_names(estimator):
            raise BadInput(name="warm", value=type(estimator).__name__, remedy="has no warm_start; leave it at False")
        self.estimator, self.min_samples, self.holdout, self.seed = estimator, min_samples, holdout, seed
        self.calibrate, self.warm, self.held_reviews = calibrate, warm, within("held_reviews", held_reviews)
        self.buffer = Buffer(features, rejects)
        #: the model in use; None until the first promotion
        self.champion = Challenger(model=estimator, version="v1") if is_fitted(estimator) else None
        #: how often a challenger was compared on the holdout; each look spends a part of the level
        self.looks = 0
        self._earlier: list[Challenger] = []
        self._made = 1 if self.champion else 0
        self._held: frozenset[str] = frozenset()
        self._drawn = False
        self._trained: frozenset[str] = frozenset()  # ids in any fit: never part of the holdout again
        #: hashes of the rows in the last fit
        self.fitted: frozenset[int] = frozenset()
        self._unanswered = _NONE
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        champion = self.champion.version if self.champion else None
        return f"Learner({self.estimator!r}, champion={champion}, {self.counted} of {self.min_samples} reviewed)"

    # -- rows ----------------------------------------------------------------------------------------------------------

    def add(self, frame: pd.DataFrame) -> int:
        """Store labelled rows; return how many were new or changed. All are checked before any is stored.

        Columns: task_id, features…, label, source (initial, human_review, audit, adjudication), outcome (approve,
        reject, correct; may be missing for initial rows), confidence (missing: unknown), weight (missing: inverse
        confidence), audit_rate (of the policy that decided; missing: never compared on). A row for a known task
        replaces it; the same row again changes nothing.

        Raises
        ------
        BadInput : naming column, value, task and remedy
        """
        return self._store(self.buffer.add, frame)

    def sync(self, frame: pd.DataFrame, unanswered: pd.DataFrame | None = None) -> int:
        """Take this frame for all that one source holds now; return how many rows are new, changed or gone.

        Like `add`, but rows that came by an earlier `sync` and are not in this frame go. Rows that came by `add` stay.
        `unanswered` are the tasks that somebody will still answer, or never did: task_id, features…, source (audit or
        human_review), audit_rate. Those of them that would be compared on speak against a promotion, see `compare`.
        """
        return self._store(self.buffer.sync, frame, _NONE if unanswered is None else unanswered.set_index("task_id"))

    def _store(
        self, store: Callable[[pd.DataFrame], int], frame: pd.DataFrame, unanswered: pd.DataFrame | None = None
    ) -> int:
        with self._lock:
            changed = store(frame)
            self._unanswered = self._unanswered if unanswered is None else unanswered
            rows = self.buffer.rows
            self._held |= frozenset(rows.index[held_back(rows, self.held_reviews)]) - self._trained
            return changed

    def _trains(self, rows: pd.DataFrame, held: frozenset[str]) -> NDArray[np.bool_]:
        outcomes = ["approve", "correct", *(["reject"] if self.buffer.rejects == "label" else [])]
        usable = (rows["source"] == "initial") | rows["outcome"].isin(outcomes)
        return np.asarray(usable & (rows["source"] != "audit") & ~rows.index.isin(held), dtype=bool)

    @property
    def counted(self) -> int:
        """Rows that a person reviewed since the last successful fit and that the next one would train on.

        Left out: initial rows, audits and other rows of the holdout, rejects (unless they are a label), and rows that
        are as they were at the last fit.
        """
        rows = self.buffer.rows
        new = (rows["source"] != "initial") & ~rows[HASH].isin(self.fitted)
        return int((self._trains(rows, self._held) & new).sum())

    @property
    def ready(self) -> bool:
        """Whether `counted` has reached `min_samples`."""
        return self.counted >= self.min_samples

    def _with_holdout(self, rows: pd.DataFrame) -> frozenset[str]:
        """Return the ids held out, with the draw from the initial rows if it was not made yet."""
        if self._drawn:
            return self._held
        initial = np.sort(rows.index[rows["source"] == "initial"].to_numpy(dtype=str))
        share = min(max(round(self.holdout * len(initial)), HOLDOUT_ROWS), len(initial) // 2) if self.holdout else 0
        drawn = np.random.default_rng(self.seed).permutation(initial)[:share]
        return self._held | {str(task) for task in drawn}

    @property
    def holdout_rows(self) -> pd.DataFrame:
        """The rows that models are compared on: held out, and with a known label (a bare reject has none)."""
        return self._compared_on()[0]

    def _compared_on(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of the holdout, and those that would be among them if somebody had answered."""
        with self._lock:
            rows, asked, trained = self.buffer.rows, self._unanswered, self._trained
        asked = asked[held_back(asked, self.held_reviews) & ~asked.index.isin(rows.index.union([*trained]))]
        both = pd.concat([side[["source", "audit_rate"]] for side in (rows, asked)])
        random = at_random(both.astype({"audit_rate": float}), self.held_reviews).to_numpy(bool)
        known = rows.index.isin(self._with_holdout(rows)) & rows["label"].notna() & random[: len(rows)]
        return rows[known].drop(columns=[HASH]), asked[random[len(rows) :] & known.any()]

    # -- models --------------------------------------------------------------------------------------------------------

    def fit(self, progress: Callable[[str], None] | None = None, force: bool = False) -> Challenger:
        """Fit a clone to all rows that train and return it as a challenger; the champion stays.

        Rows may be added from another thread meanwhile; this fit uses those it began with.

        Parameters
        ----------
        progress : called with a short line at each stage
        force : fit although fewer than `min_samples` rows were counted

        Raises
        ------
        NotEnoughSamples : not `ready`; with `force`, no row at all
        FitFailed : the estimator raised; champion, rows and holdout are unchanged
        """
        rows = self.buffer.rows
        held = self._with_holdout(rows)
        used = rows[self._trains(rows, held)].sort_index()  # the order in which rows came changes no model
        if not len(used) or not (force or self.ready):
            raise NotEnoughSamples(have=self.counted, needed=self.min_samples)
        say = progress or (lambda line: None)
        say(f"fitting {type(self.estimator).__name__} to {len(used)} rows")
        try:
            stored = self._weigh is inverse_confidence
            raw = used["weight"] if stored else weigh(self._weigh, used)
            weights, y = fit_weights(raw), as_labels(used["label"].tolist())
            x, begun = self.buffer.inputs(used), continued(self.champion, y) if self.warm else None
            active = WeightedActiveLearner(seeded(self.estimator, self.seed), force_all_finite=False, seed=self.seed)
            model = (
                active.fit(x, y, sample_weight=weights).estimator
                if begun is None
                else fit_weighted(begun, x, y, weights)
            )
            random = rows[rows.index.isin(held) & (rows["source"] == "initial")]
            if self.calibrate:
                model = calibrated(model, self.buffer.inputs(random), as_labels(random["label"].tolist()))
            right = 1 - float(np.mean(self._wrong(model, used)))
        except Exception as error:
            raise FitFailed(reason=plain(f"{type(error).__name__}: {error}")) from error
        say(f"fitted; {right:.1%} of its own rows right")
        with self._lock:
            self._made += 1
            self._trained, self.fitted = self._trained | frozenset(used.index), frozenset(used[HASH])
            self._held, self._drawn = (self._held | held) - self._trained, True
            version, held_out = f"v{self._made}", tuple(sorted(self._held))
        reviewed = int((used["source"] != "initial").sum())
        metrics = {"train_accuracy": right, "reviewed_rows": reviewed, "initial_rows": len(used) - reviewed}
        trained = dict(zip(used.index, used[HASH].tolist(), strict=True))
        return Challenger(
            model=model, version=version, n_rows=len(used), effective_size=effective_size(weights),
            data_hash=data_hash(used), strategy=self.strategy, weighting=self.weighting, metrics=metrics,
            columns=tuple(self.buffer.columns), trained=trained, held=held_out,
        )  # fmt: skip

    def compare(
        self, challenger: Challenger, margin: float = 0.02, level: float = 0.95, floor: float = 0.1
    ) -> PairedComparison:
        """Compare a challenger with the champion on the holdout; each call is one look and spends a part of `level`.

        However often it is called: that a challenger worse than its champion by more than `margin` is ever promoted
        has a chance of at most 1 - `level`, as long as nothing is fitted to the holdout (`spent`). It does not hang on
        when people answer: cases that wait count the worse way where the two differ (`sync`, `compare_paired`). No
        class with enough rows may lose more than `floor` (`with_floor`); that is judged on the answered ones.

        Raises
        ------
        LearnerError : there is no champion yet, the first model is promoted without comparison; or a model raised
        """
        champion, (rows, asked) = self._in_use(), self._compared_on()
        try:
            old, new = (self._wrong(side.model, rows) if len(rows) else [] for side in (champion, challenger))
            asked = asked.reindex(columns=self.buffer.columns)  # a field that no answered row has is of no model
            said = [answers(self._answers, side.model, asked) for side in (champion, challenger)]
            differ = sum(wrong(*said))
        except Exception as error:
            what = f"the holdout could not be judged ({type(error).__name__}: {error}); the champion stays"
            raise LearnerError(what=plain(what)) from error
        self.looks += bool(len(rows))  # nothing was looked at where there is no row
        look = max(self.looks, 1)
        found = compare_paired(old, new, margin, spent(look, level), spent(look + 1, level), len(asked), differ)
        return with_floor(found, [as_text(label) for label in rows["label"]], old, new, floor)

    def _wrong(self, model: Any, rows: pd.DataFrame) -> list[bool]:
        """Say for each row whether the model errs."""
        return wrong(self._answers(model, rows)[0].tolist(), as_labels(rows["label"].tolist()).tolist())

    @property
    def outdated(self) -> list[str]:
        """Task ids of rows that the champion was fitted to and that no longer stand so: changed, undone or erased."""
        rows = self.buffer.rows
        trained = self.champion.trained if self.champion else {}
        return sorted(dict(trained.items() - dict(zip(rows.index, rows[HASH].tolist(), strict=True)).items()))

    def promote(self, challenger: Challenger) -> None:
        """Put a challenger in use. The loop calls this, after the verdict of `compare`; the first model needs none."""
        with self._lock:
            if self.champion is not None:
                self._earlier.append(self.champion)
            self.champion, self._made = challenger, max(self._made, challenger.number)

    @property
    def versions(self) -> frozenset[str]:
        """Names of all models that it has made, v1 to the last one."""
        return frozenset(f"v{number}" for number in range(1, self._made + 1))

    def resume(self, champion: Challenger | None, records: Sequence[ModelRecord]) -> None:
        """Take up where stored models ended: champion, version numbers, looks, what was trained on and what held out.

        Raises
        ------
        BadInput : this learner works on other feature columns than the champion
        """
        if champion is not None and champion.columns:
            known, columns = self.buffer.columns, list(champion.columns)
            if known and set(known) != set(columns):
                remedy = f"model {champion.version} works on {columns}; give the same, or a new folder of models"
                raise BadInput(name="features", value=known, remedy=remedy)
            self.buffer.columns = columns
        with self._lock:
            self.champion = champion or self.champion
            for record in sorted(records, key=lambda record: record.number):
                self._made, self.looks = max(self._made, record.number), max(self.looks, record.looks)
                self._trained, self.fitted = self._trained.union(record.trained), frozenset(record.trained.values())
                self._held = self._held.union(record.held)
            self._held, self._drawn = self._held - self._trained, self._drawn or bool(self._trained)

    def rollback(self) -> Challenger:
        """Put the champion before this one in use again and return it."""
        with self._lock:
            if not self._earlier:
                raise LearnerError(what=plain("there is no earlier champion to go back to"))
            self.champion = self._earlier.pop()
            return self.champion

    def _answers(self, model: Any, frame: pd.DataFrame) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return labels (None where the model cannot judge) and probabilities."""
        matrix = probabilities_of(model, self.buffer.inputs(frame))
        judged = np.isfinite(matrix).all(axis=1)
        labels = np.asarray(model.classes_)[np.nan_to_num(matrix).argmax(axis=1)]
        if not judged.all():
            labels = labels.astype(object)
            labels[~judged] = None
        return labels, matrix

    def _in_use(self) -> Challenger:
        if self.champion is None:
            raise LearnerError(what=plain("no model in use; promote the first one: promote(fit(force=True))"))
        return self.champion

    def select(self, pool: Any, n: int, ids: Any = None) -> NDArray[np.intp]:
        """Return the positions in `pool` of the `n` rows to ask a person about, the most wanted first; see `batch`."""
        return self.batch(pool, n, ids)["position"].to_numpy(dtype=np.intp)

    def batch(self, pool: Any, n: int, ids: Any = None) -> pd.DataFrame:
        """Return the `n` rows of a pool to ask a person about, the most wanted first.

        Scores are the champion's, ties go by id; without a champion the order is random by `seed`. Rows that the
        champion cannot judge come first; rows of the holdout never come. Blocks of rows are scored through joblib:
        ``joblib.parallel_config(n_jobs=4)`` spreads them over processes, ``backend="dask"`` over machines.

        Parameters
        ----------
        pool : DataFrame with the feature columns; array or sparse matrix (m, features); path of a Parquet file; DuckDB
            relation or another stream of Arrow; iterator of such parts. Of what comes in parts only the best rows are
            kept in memory, so a strategy that compares all rows refuses it
        ids : array (m,) of stable ids, or the name of their column; default the column task_id, else the row numbers

        Returns
        -------
        DataFrame with one row for each of the batch
            position (row of the pool), task_id, score (NaN: cannot be judged), left (rows that could still be drawn),
            draw_probability (of this draw among those), review_probability (of coming into the batch at all: weights of
            one by it are unbiased for the pool, Kool 2019); both NaN for a strategy without chance, or a row not judged
        """
        rows, model, strategy = self.buffer.rows, None, STRATEGIES["random"]
        held, given = self._with_holdout(rows), dict[str, Any]()
        if self.champion is not None:
            model, strategy = self.champion.model, self._score
            if isinstance(strategy, Exploring):
                strategy = strategy.at(self.champion.n_rows, len(model.classes_))
        if wants(strategy) & {"labelled", "labels"}:
            used = rows[self._trains(rows, held)]
            given = {"labelled": self.buffer.block(used) if len(used) else used, "labels": as_labels([*used["label"]])}
        asking = Asking(model=model, strategy=strategy, seed=(self.seed, len(rows)), held=held, given=given)
        return choose(pool, n, ids, asking, self.buffer.block)

    def predict(self, frame: Any, probabilities: bool = False) -> pd.DataFrame:
        """Return the champion's answers: columns label, confidence (share), model (version), index as in `frame`.

        A row that the model cannot judge has label None and confidence NaN, which every policy sends to a person.
        With `probabilities` a column of dicts {label: p} comes with it.
        """
        champion, frame = self._in_use(), self.buffer.framed(frame)
        labels, matrix = self._answers(champion.model, frame)
        answers: dict[str, Any] = {"label": labels, "confidence": matrix.max(axis=1), "model": champion.version}
        if probabilities:
            names = [str(label) for label in champion.model.classes_]
            answers["probabilities"] = [dict(zip(names, row, strict=True)) for row in matrix.tolist()]
        return pd.DataFrame(answers, index=frame.index)
