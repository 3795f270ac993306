"""A loop that goes on with stored models, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.base import clone

from hitl_nb.errors import BadInput
from hitl_nb.learner import STRATEGIES, WEIGHTINGS, Learner, ModelStore
from hitl_nb.learner.challenger import bare
from hitl_nb.loop.loop import Loop
from hitl_nb.loop.pipeline import default_estimator
from hitl_nb.queue import ReviewQueue


def take_up(queue: ReviewQueue, folder: Path, labels: Path | None = None) -> Loop:
    """Return a loop that goes on with the models in a folder: the same estimator, columns, strategy and weighting.

    Parameters
    ----------
    labels : CSV or Parquet file of rows that did not come from the queue: ``label``, the features, perhaps ``task_id``

    Raises
    ------
    BadInput : there is neither a model nor a label to begin with, or the file cannot be read
    """
    models = ModelStore(folder)
    known = models.load() if models.latest() else None
    options: dict[str, Any] = {}
    if known is not None:
        kept: dict[str, Any] = {"strategy": STRATEGIES, "weighting": WEIGHTINGS}
        options = {name: getattr(known, name) for name, words in kept.items() if getattr(known, name) in words}
        options["features"] = list(known.columns) or None
        options["calibrate"] = bare(known.model) is not known.model
    learner = Learner(clone(bare(known.model)) if known else default_estimator(), **options)
    if labels is not None:
        learner.add(_initial(labels))
    return Loop(queue, learner, models=models)


def _initial(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except Exception as error:
        remedy = f"cannot be read ({type(error).__name__}: {error}); pass a CSV or Parquet file"
        raise BadInput(name="labels", value=str(path), remedy=remedy) from error
    return rows if "source" in rows else rows.assign(source="initial", task_id=_ids(rows))


def _ids(rows: pd.DataFrame) -> list[str]:
    return rows["task_id"].astype(str).tolist() if "task_id" in rows else [f"initial-{i}" for i in range(len(rows))]
