"""review: from a frame and a model to a panel, in one line; the answers come back beside the frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hitl_nb.connect import open_queue
from hitl_nb.errors import BadInput, KeyConflict
from hitl_nb.orchestrator import Orchestrator
from hitl_nb.panel.panel import ReviewPanel
from hitl_nb.policy import Batch, Policy
from hitl_nb.policy.rule import Finding
from hitl_nb.task import Reviewer

#: probabilities kept with each row
MAX_PROBABILITIES = 10
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

    def __init__(self, df: pd.DataFrame, positions: np.ndarray[Any, Any], tasks: list[str], panel: ReviewPanel) -> None:
        #: the panel, to be pressed by a person or by ``panel.approve()``
        self.panel = panel
        #: where the answers are kept
        self.queue = panel.controller.queue
        self._df, self._positions, self._tasks = df, positions, tasks

    def __repr__(self) -> str:
        judged = self.frame["outcome"].notna().sum()
        return f"Review of {len(self._tasks):,} rows: {judged:,} judged; the answers are in .frame"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.panel._repr_mimebundle_(), "text/plain": repr(self)}

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of the frame with the answers so far in ``label``, ``outcome`` and ``wrong``; the rest is NA."""
        found = self.queue.history().set_index("task_id").reindex(self._tasks)
        frame = self._df.copy()
        for name, dtype in ANSWERS.items():
            values = np.full(len(frame), pd.NA, dtype=object)
            values[self._positions] = found[name].astype(object).where(found[name].notna(), pd.NA)
            frame[name] = pd.Series(values, index=frame.index, dtype=object).astype(dtype)
        return frame


def review(
    df: pd.DataFrame, model: Any = None, *, label: str | None = None, confidence: str | None = None,
    n: int | None = None, path: str | None = None, labels: Sequence[Any] | None = None,
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
        At once; ``.frame`` fills as answers come, ``.panel`` is what the cell shows.

    Raises
    ------
    BadInput
        The model gives no probabilities, a column is missing, or the file belongs to another table.

    Examples
    --------
    >>> df = pd.DataFrame({"text": ["a", "b"], "guess": ["ham", "spam"], "p": [0.9, 0.6]}, index=["x", "x"])
    >>> mails = review(df, label="guess", confidence="p")
    >>> mails.panel.correct("ham")
    >>> mails.frame["label"].tolist(), mails.panel.view.prediction
    ([<NA>, 'ham'], 'ham')
    """
    _check(df, model, label, confidence, n)
    names, predictions = _by_columns(df, label, confidence) if model is None else _by_model(df, model, labels)
    certain = np.array([-1.0 if p["confidence"] is None else p["confidence"] for p in predictions])
    positions = np.argsort(certain, kind="stable")[:n]
    queue = open_queue(":memory:" if path is None else path)
    shown = df.drop(columns=[c for c in (label, confidence) if c is not None]).rename(columns=str)
    inputs = shown.iloc[positions].reset_index(drop=True)
    key = None if path is None else [f"row {i}" for i in positions]
    orchestrator = Orchestrator(queue=queue, policy=Policy(1.0, rules=(EveryRow(),), audit_rate=0))
    try:
        routed = orchestrator.process_frame(inputs, [predictions[i] for i in positions], key=key)
    except KeyConflict as error:
        remedy = f"it holds answers about other rows or predictions ({error}); choose another path"
        raise BadInput(name="path", value=str(path), remedy=remedy) from error
    panel = ReviewPanel(queue, reviewer, labels=names if labels is None else labels, render=render)
    return TableReview(df.copy(), positions, routed["task_id"].tolist(), panel)


def _check(df: Any, model: Any, label: str | None, confidence: str | None, n: Any) -> None:
    if not isinstance(df, pd.DataFrame):
        raise BadInput(name="df", value=type(df).__name__, remedy="pass a DataFrame, one row an item")
    if (model is None) == (label is None) or (model is not None and confidence is not None):
        remedy = "pass a fitted model, or the columns label= and confidence= that hold its answers"
        raise BadInput(name="model", value=type(model).__name__, remedy=remedy)
    for column in {label, confidence} - {None} - set(df.columns):
        raise BadInput(name="column of df", value=column, remedy=f"there are {', '.join(map(str, df.columns))}")
    for column in set(ANSWERS) & set(df.columns):
        remedy = f"answers go into {', '.join(ANSWERS)}; rename or drop that column of df first"
        raise BadInput(name="column of df", value=column, remedy=remedy)
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise BadInput(name="n", value=n, remedy="pass how many rows to review, 1 or more")


def _by_columns(df: pd.DataFrame, label: str | None, confidence: str | None) -> tuple[list[Any] | None, list[Any]]:
    said = df[label].astype(object).tolist()
    sure = [None] * len(df) if confidence is None else df[confidence].astype(object).tolist()
    distinct = df[label].dropna().unique().tolist()
    return distinct if 1 < len(distinct) <= 200 else None, [_prediction(a, b) for a, b in zip(said, sure, strict=True)]


def _by_model(df: pd.DataFrame, model: Any, labels: Sequence[Any] | None) -> tuple[list[Any], list[Any]]:
    table = _probabilities(df, model)
    known = getattr(model, "classes_", None)
    known = getattr(table, "columns", labels) if known is None else known
    p = np.asarray(table, dtype=np.float64)
    if p.ndim != 2 or len(p) != len(df) or (known is not None and len(known) != p.shape[1]):
        remedy = f"return an array of shape ({len(df)}, labels), and pass labels= in the order of its columns"
        raise BadInput(name="probabilities of the model", value=p.shape, remedy=remedy)
    names = list(range(p.shape[1])) if known is None else np.asarray(known).tolist()
    return names, [_likeliest(names, row) for row in p]


def _probabilities(df: pd.DataFrame, model: Any) -> Any:
    predict = getattr(model, "predict_proba", None)
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


def _likeliest(names: list[Any], row: np.ndarray[Any, Any]) -> dict[str, Any]:
    order = np.argsort(-row, kind="stable")[:MAX_PROBABILITIES]
    probabilities = {str(names[i]): float(row[i]) for i in order}
    return _prediction(names[order[0]], float(row[order[0]])) | {"probabilities": probabilities}


def _prediction(label: Any, confidence: Any) -> dict[str, Any]:
    known = isinstance(confidence, (int, float)) and not isinstance(confidence, bool) and 0 <= confidence <= 1
    return {"label": label, "confidence": confidence if known else None}
