"""Pools of any size: scored in blocks, side by side where joblib is told so, of which only the best rows are kept."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import check_array

from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import count
from hitl_nb.learner.challenger import probabilities_of
from hitl_nb.learner.committee import split, votes_of
from hitl_nb.learner.strategy import Stochastic, Strategy, score_pool, select, wants
from hitl_nb.learner.weighting import rows_at

Floats = NDArray[np.float64]

#: rows that the model judges at a time; fewer for a committee, whose votes are many times as large
ROWS, VOTED_ROWS = 32_768, 2_048


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """How to choose from a pool: what a block needs wherever it is scored."""

    #: the champion, if there is one
    model: Any
    #: query strategy
    strategy: Strategy
    #: of all draws
    seed: tuple[int, ...]
    #: ids that never come
    held: frozenset[str]
    #: what the strategy names besides X and votes: labelled, labels
    given: dict[str, Any]


#: rows of a block, in the order of their ids: X, ids, positions; in a list that who takes it empties, so that nobody
#: holds on to a part of the pool while the next one is read
Block = list[tuple[Any, NDArray[Any], NDArray[np.intp]]]
#: the best rows of some blocks, one more than are wanted (position, task_id, score, weight), and of all rows that could
#: be judged their number and the sum of their weights
Best = tuple[dict[str, NDArray[Any]], int, float]


def chunks(pool: Any) -> Iterator[Any]:
    """Return the parts of a pool, each a DataFrame, an array or a sparse matrix.

    >>> [len(part) for part in chunks(iter([[[1.0]], [[2.0], [3.0]]]))]
    [1, 2]
    """
    if isinstance(pool, (str, os.PathLike)):
        from pyarrow.parquet import ParquetFile

        pool = ParquetFile(pool)
    if isinstance(pool, (pd.DataFrame, list, tuple)):
        parts: Any = [pool]
    elif hasattr(pool, "iter_batches"):
        parts = pool.iter_batches(ROWS)
    elif hasattr(pool, "__arrow_c_stream__"):
        from pyarrow import RecordBatchReader

        parts = RecordBatchReader.from_stream(pool)
    else:
        parts = [pool] if hasattr(pool, "shape") else pool
    if not isinstance(parts, Iterable):
        remedy = "must be a DataFrame, an array, a path, a relation, or an iterator of such parts"
        raise BadInput(name="pool", value=type(pool).__name__, remedy=remedy)
    for part in parts:
        known = isinstance(part, pd.DataFrame) or hasattr(part, "tocsr")
        part = part.to_pandas() if hasattr(part, "to_pandas") else part if known else np.asarray(part)
        yield part.tocsr() if hasattr(part, "tocsr") else part
        del part  # the next one comes before this name is free


def _ids(part: Any, ids: Any, start: int, rows: int) -> tuple[NDArray[Any], bool]:
    """Return an id for each row of a part, and whether they were given; else they are row numbers."""
    column = "task_id" if ids is None else ids
    if isinstance(column, str):
        if column in getattr(part, "columns", ()):
            column = part[column]
        elif ids is None:
            return np.arange(start, start + rows), False
        else:
            raise BadInput(name="ids", value=ids, remedy="is no column of the pool; name one, or give an array of ids")
    names = np.asarray(column)
    if names.shape != (rows,):
        raise BadInput(name="ids", value=names.shape, remedy=f"needs one id for each of the {rows} rows")
    return (names if names.dtype.kind in "iu" else names.astype(str)), True


def _blocks(pool: Any, ids: Any, asking: Asking, inputs: Callable[[Any], Any]) -> Iterator[Block]:
    """Return the free rows of a pool block by block."""
    names, start, number = wants(asking.strategy), 0, 0
    for part in chunks(pool):
        if part.ndim != 2 and part.size:
            raise BadInput(name="pool", value=part.shape, remedy="must have the shape (rows, features)")
        rows = part.shape[0]
        if number and "n" in names:
            remedy = "comes in parts, and this strategy compares all rows; give one array or DataFrame"
            raise BadInput(name="pool", value=type(pool).__name__, remedy=remedy)
        if number and not isinstance(ids, str | None):
            raise BadInput(name="ids", value=ids, remedy="the pool comes in parts; name the column of the ids")
        own, given = _ids(part, ids, start, rows)
        order = np.argsort(own, kind="stable") if given else own
        if given and asking.held:
            order = order[~np.isin(own[order].astype(str), list(asking.held))]
        size = max(len(order), 1) if "n" in names else VOTED_ROWS if "votes" in names else ROWS
        for first in range(0, len(order), size):
            block = order[first : first + size]
            where: Any = block if given else slice(first, first + size)  # no copy where the order is that of the rows
            yield [(inputs(rows_at(part, where)), own[where], start + block if given else block)]
        start, number = start + rows, number + 1
        del part


def _numbers(x: Any) -> Any:
    try:
        return check_array(x, accept_sparse="csr", dtype=np.float64)
    except ValueError as error:
        remedy = "this strategy works on finite numbers; encode and impute in a pipeline before the classifier"
        raise BadInput(name="X", value=type(x).__name__, remedy=f"{remedy} ({error})") from error


def _scores(asking: Asking, x: Any, matrix: Floats, rng: np.random.Generator, n: int) -> Floats:
    """Return the scores of a block; what the strategy names is made for the rows that can be judged."""
    names = wants(asking.strategy)
    if not names:
        return score_pool(asking.strategy, matrix, rng)
    judged, scores = np.flatnonzero(np.isfinite(matrix).all(axis=1)), np.full(len(matrix), math.nan)
    if len(judged):
        before = split(asking.model)[0]
        given = {"n": n, "model": asking.model, "X": rows_at(x, judged), **asking.given}
        for name in ("X", "labelled"):
            if name in given and before is not None and given[name].shape[0]:
                given[name] = before.transform(given[name])
        if "votes" in names:
            given["votes"] = votes_of(asking.model, given["X"])
        if "X" in names:
            given["X"] = _numbers(given["X"])
        if "labelled" in names:
            labelled = given["labelled"]
            given["labelled"] = _numbers(labelled) if labelled.shape[0] else np.empty((0, given["X"].shape[1]))
        scores[judged] = score_pool(asking.strategy, matrix[judged], rng, **given)
    return scores


def _best(asking: Asking, block: Block, n: int, number: int) -> Best:
    """Judge one block and keep its best rows; runs wherever joblib sends it."""
    x, ids, positions = block.pop()
    rng = np.random.default_rng([*asking.seed, number])
    matrix = np.ones((len(ids), 1)) if asking.model is None else probabilities_of(asking.model, x)
    weights = score_pool(asking.strategy.weight, matrix, rng) if isinstance(asking.strategy, Stochastic) else None
    scores = _scores(asking, x, matrix, rng, n) if weights is None else Stochastic.drawn(weights, rng)
    first, judged = select(scores, n + 1, ids), np.isfinite(scores)
    best = {"position": positions[first], "task_id": ids[first], "score": scores[first]}
    best["weight"] = np.full(len(first), math.nan) if weights is None else weights[first]
    return best, int(judged.sum()), math.nan if weights is None else float(weights[judged].sum())


def _merged(one: Best, other: Best, n: int) -> Best:
    both = {name: np.concatenate([each, other[0][name]]) for name, each in one[0].items()}
    first = select(both["score"], n + 1, both["task_id"])
    return {name: each[first] for name, each in both.items()}, one[1] + other[1], one[2] + other[2]


def _probabilities(best: dict[str, NDArray[Any]], judged: int, total: float, n: int) -> pd.DataFrame:
    """Add to the rows drawn how likely each draw and each row was; NaN where no chance was in it."""
    rows, after = {name: each[:n] for name, each in best.items()}, best["score"][n:]
    weight, drawn = rows.pop("weight"), ~np.isnan(rows["score"])
    gone = np.nan_to_num(weight).cumsum() - np.nan_to_num(weight)
    with np.errstate(over="ignore"):
        chance = -np.expm1(-weight * np.exp(-after[0])) if len(after) else np.where(np.isnan(weight), weight, 1.0)
    rows["left"] = judged - drawn.cumsum() + drawn
    rows["draw_probability"] = np.minimum(weight / np.maximum(total - gone, weight), 1)
    return pd.DataFrame(rows | {"review_probability": chance})


def choose(pool: Any, n: int, ids: Any, asking: Asking, inputs: Callable[[Any], Any]) -> pd.DataFrame:
    """Return the rows to ask first, see `Learner.batch`; `inputs` makes of rows of the pool what the model takes."""
    from joblib import Parallel, delayed

    n, number = count("n", n), itertools.count()
    work = (delayed(_best)(asking, block, n, next(number)) for block in _blocks(pool, ids, asking, inputs))
    parts = Parallel(return_as="generator")(work)
    none = {"position": np.empty(0, np.intp)} | dict.fromkeys(("task_id", "score", "weight"), np.empty(0))
    best, judged, total = reduce(lambda one, other: _merged(one, other, n), parts, next(parts, (none, 0, 0.0)))
    return _probabilities(best, judged, total, n)
