"""review: from a frame and a model to a panel, in one line; the answers come back beside the frame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hitl_nb.connect import open_queue
from hitl_nb.errors import BadInput, KeyConflict
from hitl_nb.orchestrator import Orchestrator
from hitl_nb.panel.controller import Controller
from hitl_nb.panel.panel import ReviewPanel
from hitl_nb.policy import Batch, Policy
from hitl_nb.policy.rule import Finding
from hitl_nb.task import Reviewer

#: probabilities kept with each row
MAX_PROBABILITIES = 10
#: how far the probabilities of a row may be from 1 together, as they may have been rounded
UNROUND = 0.05
#: rows stored at once, of a new table and of one that a file may know; the panel shows after the first step
STEP, KNOWN_STEP = 10_000, 2_000
#: columns that the answers fill, and their types
ANSWERS: dict[str, Any] = {"label": object, "outcome": "string", "wrong": "boolean"}


class EveryRow:
    """Asks about rows that are as sure as can be, because the reviewer asked for every row."""

    name = "every row"

    def check(self, batch: Batch) -> list[Finding]:
        """Return the rows that no threshold sends to a person."""
        return [Finding(rule=self.name, says="Every row was asked for", fired=batch.confidence >= 1, hard=False)]

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as a plain dict."""
        return {"kind": "every_row", "name": self.name}


class TableReview:
    """A frame under review; as the last line of a cell it shows its panel."""

    def __init__(
        self, df: pd.DataFrame, positions: np.ndarray[Any, Any], tasks: list[str], panel: ReviewPanel,
        storing: threading.Thread,
    ) -> None:  # fmt: skip
        #: the panel, to be pressed by a person or by ``panel.approve()``
        self.panel = panel
        #: where the answers are kept
        self.queue = panel.controller.queue
        self._df, self._positions, self._tasks, self._storing = df, positions, tasks, storing

    def __repr__(self) -> str:
        judged = self._answers()["outcome"].notna().sum()
        return f"Review of {len(self._positions):,} rows: {judged:,} judged; the answers are in .frame"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.panel._repr_mimebundle_(), "text/plain": repr(self)}

    def _answers(self) -> pd.DataFrame:
        tasks = self._tasks.copy()  # grows while a large frame is being stored
        return self.queue.history().set_index("task_id").reindex(tasks)

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of the frame with the answers so far in ``label``, ``outcome`` and ``wrong``; the rest is NA.

        Waits until all rows are stored.
        """
        self._storing.join()
        found, frame = self._answers(), self._df.copy()
        for name, dtype in ANSWERS.items():
            values = np.full(len(frame), pd.NA, dtype=object)
            values[self._positions[: len(found)]] = found[name].astype(object).where(found[name].notna(), pd.NA)
            frame[name] = pd.Series(values, index=frame.index, dtype=object).astype(dtype)
        return frame


def review(
    df: pd.DataFrame, model: Any = None, *, label: str | None = None, confidence: str | None = None,
    n: int | None = None, path: str | Path | None = None, labels: Sequence[Any] | None = None,
    reviewer: str | Reviewer = "me", render: Callable[[Any], Any] | None = None,
) -> TableReview:  # fmt: skip
    """Let a person check the rows of a frame, least certain first.

    Parameters
    ----------
    df
        One row an item; its columns are what the reviewer sees. Take the true label out first.
    model
        A fitted classifier with ``predict_proba``, or a function from a frame to probabilities of shape (rows, labels);
        None: ``label`` and ``confidence`` name columns.
    label, confidence
        Columns that hold the prediction and its confidence, 0..1.
    n
        How many rows; None: all.
    path
        File that keeps the answers: the same call resumes. None: in memory.
    labels
        Labels to correct to; default: those of the model, or of the column.
    reviewer, render
        As in ``ReviewPanel``.

    Returns
    -------
    TableReview
        Soon, also for a large frame: its surer rows are stored in the background. ``.frame`` fills as answers come,
        ``.panel`` is what the cell shows.

    Raises
    ------
    BadInput
        The model gives no probabilities, a column is missing or there twice, nothing is left to show, or the file
        belongs to another table.

    Examples
    --------
    >>> df = pd.DataFrame({"text": ["a", "b"], "guess": ["ham", "spam"], "p": [0.9, 0.6]}, index=["x", "x"])
    >>> mails = review(df, label="guess", confidence="p")
    >>> mails.panel.correct("ham")
    >>> mails.frame["label"].tolist(), mails.panel.view.prediction
    ([<NA>, 'ham'], 'ham')
    """
    shown = _shown(df, model, label, confidence, n)
    names, predictions = _by_columns(df, label, confidence) if model is None else _by_model(df, model, labels)
    certain = np.array([-1.0 if p["confidence"] is None else p["confidence"] for p in predictions])
    positions = np.argsort(certain, kind="stable")[:n]
    queue, tasks = open_queue(":memory:" if path is None else path), list[str]()
    step = KNOWN_STEP if queue.stats().total else STEP
    orchestrator = Orchestrator(queue=queue, policy=Policy(1.0, rules=(EveryRow(),), audit_rate=0))

    def store(start: int) -> None:
        rows = positions[start : start + step].tolist()
        inputs, said = shown.iloc[rows].reset_index(drop=True), [predictions[i] for i in rows]
        key = None if path is None else [f"row {i}" for i in rows]
        try:
            tasks.extend(orchestrator.process_frame(inputs, said, key=key)["task_id"])
        except KeyConflict as error:
            remedy = f"it holds answers about other rows or predictions ({error}); choose another path"
            raise BadInput(name="path", value=str(path), remedy=remedy) from error

    store(0)
    panel = ReviewPanel(queue, reviewer, labels=names if labels is None else labels, render=render)
    rest = (store, range(step, len(positions), step), panel.controller)
    storing = threading.Thread(target=_store_rest, args=rest, name="hitl_nb-store", daemon=True)
    storing.start()
    return TableReview(df.copy(), positions, tasks, panel, storing)


def _store_rest(store: Callable[[int], None], starts: range, controller: Controller) -> None:
    try:
        for start in starts:
            store(start)
            controller.heartbeat()
    except Exception as error:  # nobody else would see it
        controller.fail(error)


def _shown(df: Any, model: Any, label: str | None, confidence: str | None, n: Any) -> pd.DataFrame:
    """Return the columns that a reviewer sees; refuse what cannot be reviewed."""
    _check(df, model, label, confidence, n)
    shown: pd.DataFrame = df.drop(columns=[c for c in (label, confidence) if c is not None]).rename(columns=str)
    for column in shown.columns[shown.columns.duplicated()]:
        raise BadInput(name="column of df", value=column, remedy="it is there twice; rename or drop one")
    if len(df) and shown.columns.empty:
        raise BadInput(name="df", value="no column", remedy="nothing is left to show; add what the reviewer should see")
    return shown


def _check(df: Any, model: Any, label: str | None, confidence: str | None, n: Any) -> None:
    if not isinstance(df, pd.DataFrame):
        raise BadInput(name="df", value=type(df).__name__, remedy="pass a DataFrame, one row an item")
    if (model is None) == (label is None) or (model is not None and confidence is not None):
        remedy = "pass a fitted model, or the columns label= and confidence= that hold its answers"
        raise BadInput(name="model", value=model if model is None else type(model).__name__, remedy=remedy)
    for column in {label, confidence} - {None} - set(df.columns):
        raise BadInput(name="column of df", value=column, remedy=f"there are {', '.join(map(str, df.columns))}")
    for column in set(ANSWERS) & set(df.columns):
        remedy = f"answers go into {', '.join(ANSWERS)}; rename or drop that column of df first"
        raise BadInput(name="column of df", value=column, remedy=remedy)
    if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
        raise BadInput(name="n", value=n, remedy="pass how many rows to review, 1 or more")


def _by_columns(df: pd.DataFrame, label: str | None, confidence: str | None) -> tuple[list[Any] | None, list[Any]]:
    said = df[label].astype(object).tolist()
    sure = [None] * len(df) if confidence is None else df[confidence].astype(object).tolist()
    predictions = [_prediction(a, b) for a, b in zip(said, sure, strict=True)]
    distinct = df[label].dropna().unique().tolist()
    if confidence is not None and df[confidence].notna().any() and all(p["confidence"] is None for p in predictions):
        first = df[confidence].dropna().iloc[0]
        remedy = f"it holds no number from 0 to 1, but {first!r}; convert it, or leave confidence= out"
        raise BadInput(name="column of df", value=confidence, remedy=remedy)
    return distinct if 1 < len(distinct) <= 200 else None, predictions


def _by_model(df: pd.DataFrame, model: Any, labels: Sequence[Any] | None) -> tuple[Any, list[Any]]:
    known = getattr(model, "classes_", labels)
    if not len(df):  # there is nothing to predict, and scikit-learn refuses it
        return known, []
    table = _probabilities(df, model)
    known = getattr(table, "columns", known) if known is None else known
    try:
        p = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError):
        p = np.empty(0)
    if p.ndim != 2 or len(p) != len(df) or (known is not None and len(known) != p.shape[1]):
        remedy = f"return an array of shape ({len(df)}, labels), and pass labels= in the order of its columns"
        raise BadInput(name="probabilities of the model", value=p.shape, remedy=remedy)
    if len(odd := np.flatnonzero(abs(p.sum(axis=1) - 1) > UNROUND)):  # unknown ones (NaN) are no error
        remedy = "they must add up to 1; of scores make them by scipy.special.softmax(scores, axis=1)"
        value = p[odd[0], :MAX_PROBABILITIES].tolist()
        raise BadInput(name=f"probabilities of row {odd[0]}", value=value, remedy=remedy)
    names = list(range(p.shape[1])) if known is None else np.asarray(known).tolist()
    order = np.argsort(-p, axis=1, kind="stable")[:, :MAX_PROBABILITIES]
    shares = np.take_along_axis(p, order, axis=1)
    return names, [_likeliest(names, *one) for one in zip(order.tolist(), shares.tolist(), strict=True)]


def _probabilities(df: pd.DataFrame, model: Any) -> Any:
    predict = getattr(model, "predict_proba", None)
    if isinstance(model, type):
        raise BadInput(name="model", value=model.__name__, remedy="it is a class; pass a fitted model of it")
    if predict is None and (hasattr(model, "predict") or not callable(model)):
        remedy = "it has no predict_proba; wrap it in sklearn.calibration.CalibratedClassifierCV and fit that, or pass"
        remedy += " label= and confidence= columns"
        raise BadInput(name="model", value=type(model).__name__, remedy=remedy)
    if predict is None:
        return model(df)
    names = getattr(model, "feature_names_in_", None)
    missing = [] if names is None else [name for name in names if name not in df.columns]
    if missing:
        raise BadInput(name="df", value=missing[:5], remedy="the model was fitted with these columns; add them")
    return predict(df[list(names)] if names is not None else df.to_numpy())


def _likeliest(names: list[Any], order: list[int], shares: list[float]) -> dict[str, Any]:
    probabilities = {str(names[i]): share for i, share in zip(order, shares, strict=True)}
    return _prediction(names[order[0]], shares[0]) | {"probabilities": probabilities}


def _prediction(label: Any, confidence: Any) -> dict[str, Any]:
    known = isinstance(confidence, (int, float)) and not isinstance(confidence, bool) and 0 <= confidence <= 1
    return {"label": label, "confidence": confidence if known else None}
