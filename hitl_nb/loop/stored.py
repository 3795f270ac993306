"""A loop that goes on with stored models, from the command line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.base import clone

from hitl_nb.errors import BadInput
from hitl_nb.learner import STRATEGIES, WEIGHTINGS, Learner, ModelStore
from hitl_nb.learner.buffer import row_hashes
from hitl_nb.learner.challenger import bare
from hitl_nb.loop.loop import OPTIONS, Loop
from hitl_nb.loop.pipeline import default_estimator
from hitl_nb.queue import ReviewQueue


def take_up(queue: ReviewQueue, folder: Path, labels: Path | None = None) -> Loop:
    """Return a loop that goes on with the models in a folder: estimator, columns, weighting and the like stay the same.

    A strategy that is a function of the user's is left out with a warning: nothing is chosen by it here.

    Parameters
    ----------
    labels : CSV or Parquet file of rows that did not come from the queue: ``label``, the features, perhaps ``task_id``

    Raises
    ------
    BadInput : the model in use was made with features or a weighting that are a function, which no folder keeps; or the
        file cannot be read
    """
    models = ModelStore(folder)
    known = models.load() if models.latest() else None
    options: dict[str, Any] = {}
    if known is not None:
        options = {name: known.metrics[name] for name in OPTIONS if name in known.metrics}
        for name, given in (("features", known.metrics.get("features")), ("weighting", known.weighting)):
            if given and given not in WEIGHTINGS:
                remedy = f"is a function, which is not stored with model {known.version}; retrain by a Loop that has it"
                raise BadInput(name=name, value=given, remedy=remedy)
        if known.strategy in STRATEGIES:
            options["strategy"] = known.strategy
        elif known.strategy:
            warnings.warn(
                f"the strategy {known.strategy} is a function, which is not stored: exploring_margin", stacklevel=2
            )
        options |= {"weighting": known.weighting} if known.weighting else {}
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
    """Name rows by what they hold, so that they are the same ones in whatever order and company they come again."""
    if "task_id" in rows:
        return rows["task_id"].astype(str).tolist()
    names = pd.Series([f"initial-{found:016x}" for found in row_hashes(rows).tolist()], dtype=object)
    return (names + "-" + names.groupby(names).cumcount().astype(str)).tolist()
