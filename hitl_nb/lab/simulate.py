"""Simulated loops on labelled data: which strategy, weighting and threshold rule would have been worth it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from inspect import isfunction
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import count, within
from hitl_nb.lab.arms import Simulation
from hitl_nb.lab.history import read
from hitl_nb.lab.threshold import Fixed, ThresholdRule
from hitl_nb.learner import Learner, Strategy, Weighting
from hitl_nb.learner.buffer import RESERVED, Features, as_labels, row_hashes
from hitl_nb.policy.rule import content_hash

Lines = list[dict[str, Any]]
#: labels, and the rows that they belong to
Part = tuple[NDArray[Any], NDArray[np.intp]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One loop to simulate."""

    #: name of the query strategy and of the weighting, or a function
    strategy: str | Strategy
    weighting: str | Weighting
    #: how often reviewers err, a share
    reviewer_error: float
    #: of the split, the reviewers' errors, and the learner
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class World:
    """What all loops of a simulation share."""

    #: features as a frame of m rows, and true labels (m,)
    X: Any
    y: NDArray[Any]
    #: classifier to clone, and how it gets X, as in `Learner`
    estimator: Any
    features: Features
    #: threshold rules by name
    rules: Mapping[str, ThresholdRule]
    #: labels after each step; the first is what a loop starts with
    labels: tuple[int, ...]
    #: rows that are audited, and rows that measure
    audits: int
    test: int

    def learner(self, cell: Cell) -> Learner:
        """Return a learner without rows."""
        return Learner(self.estimator, cell.strategy, cell.weighting, features=self.features, holdout=0, seed=cell.seed)

    def run(self, cell: Cell, number: int) -> tuple[int, Lines]:
        """Run one loop and return it with its number; in one thread, so that it comes out the same everywhere."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=1):
            return number, list(self._steps(cell))

    def _steps(self, cell: Cell) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(cell.seed)
        order = _shuffled(self.y, rng)
        X, y = self.X.iloc[order].reset_index(drop=True), self.y[order]
        said = _judged(y, cell.reviewer_error, rng)
        parts = np.cumsum([self.labels[0], self.audits, self.test])
        first, audited, tested, pool = np.split(np.arange(len(y)), parts)
        learner = self.learner(cell)
        learner.add(_rows(X, y, first, "initial"))
        for asked, labels in zip(np.diff(self.labels, prepend=self.labels[0]), self.labels, strict=True):
            if asked:
                chosen = pool[learner.select(X.iloc[pool], int(asked), pool)]
                sure = learner.predict(X.iloc[chosen])["confidence"]
                learner.add(_rows(X, said, chosen, "human_review").assign(confidence=sure, outcome="correct"))
                pool = np.setdiff1d(pool, chosen)
            learner.promote(learner.fit(force=True))
            own = {"strategy": learner.strategy, "weighting": learner.weighting, "reviewer_error": cell.reviewer_error}
            for measured in self._measured(learner, X, (y[tested], tested), (said[audited], audited), cell.seed):
                yield own | {"seed": cell.seed, "labels": labels} | measured

    def _measured(self, learner: Learner, X: Any, test: Part, audit: Part, seed: int) -> Iterator[dict[str, Any]]:
        """Fit each rule to the audits, and measure it by the truth."""
        (sure, wrong), seen = (_answers(learner, X, *part) for part in (test, audit))
        history = read(dict(zip(("confidence", "wrong"), seen, strict=True)))
        for name, rule in self.rules.items():
            threshold = rule.fit(history, model=None, seed=seed).threshold
            passing = sure >= (np.inf if threshold is None else threshold)  # NaN goes to a person
            shares = {"accuracy": 1 - wrong, "automatic": passing, "missed": passing & wrong}
            yield {"rule": name, "threshold": threshold, **{k: float(share.mean()) for k, share in shares.items()}}

    def files(self, folder: Path, cells: Sequence[Cell]) -> list[Path]:
        """Return where each finished cell is kept: a name of data, settings and versions."""
        folder.mkdir(parents=True, exist_ok=True)
        versions = [version(name) for name in ("hitl-nb", "scikit-learn", "numpy")]
        functions = [value for value in self.estimator.get_params().values() if isfunction(value)]
        content = [content_hash(part) for part in (self.estimator, *functions, self.features, dict(self.rules), self.y)]
        shared = repr([versions, content, list(self.X.columns), self.labels, self.audits, self.test])
        shared += sha256(row_hashes(self.X).tobytes()).hexdigest()
        own = [[*map(content_hash, (cell.strategy, cell.weighting)), cell.reviewer_error, cell.seed] for cell in cells]
        return [folder / f"{sha256(f'{shared}{one}'.encode()).hexdigest()[:24]}.json" for one in own]


def _shuffled(y: NDArray[Any], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the rows in random order, one of each label before the others."""
    order = rng.permutation(len(y))
    first = np.unique(y[order], return_index=True)[1]
    return np.concatenate([order[first], np.delete(order, first)])


def _judged(y: NDArray[Any], error: float, rng: np.random.Generator) -> NDArray[Any]:
    """Return what reviewers say; with a larger error the same rows are wrong, and more."""
    known, codes = np.unique(y, return_inverse=True)
    slips, other = rng.random(len(y)) < error, rng.integers(1, len(known), len(y))
    return np.asarray(known[(codes + slips * other) % len(known)])


def _rows(X: Any, labels: NDArray[Any], at: NDArray[np.intp], source: str) -> Any:
    return X.iloc[at].assign(task_id=[str(i) for i in at], label=labels[at], source=source)


def _answers(learner: Learner, X: Any, labels: NDArray[Any], at: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return confidences, and which answers are wrong."""
    found = learner.predict(X.iloc[at])
    return found["confidence"].to_numpy(), found["label"].to_numpy() != labels


def simulate(
    X: Any, y: ArrayLike, *, estimator: Any, strategies: Sequence[str | Strategy] = ("exploring_margin", "random"),
    weightings: Sequence[str | Weighting] = ("ones",), rules: Mapping[str, ThresholdRule] | None = None,
    reviewer_error: Sequence[float] = (0.0,), seeds: int | Sequence[int] = 10, initial: int = 50, batch: int = 25,
    budget: int = 200, test: float = 0.3, audits: float = 0.2, error_cost: float = 20.0, level: float = 0.95,
    features: Features = None, folder: str | Path | None = None, n_jobs: int | None = None, progress: bool = True,
) -> Simulation:  # fmt: skip
    """Simulate the loop for strategies × weightings × threshold rules × reviewer error, each over the same seeds.

    A loop starts with `initial` random true labels (one of each label among them), asks simulated reviewers for
    `batch` more until `budget` answers are in, and fits anew each time. Thresholds are fitted to random audits, which
    reviewers judge too and which are never trained on. Accuracy, automatic share and errors are measured by the truth
    on rows that no loop sees. For a seed all arms have the same split and the same slips of the reviewers, so arms are
    compared in pairs.

    Parameters
    ----------
    X, y
        Features, a DataFrame or an array (m, k), and true labels (m,).
    estimator, features
        As in `Learner`; open random states get the seed.
    strategies, weightings
        Names from `STRATEGIES` and `WEIGHTINGS`, or functions.
    rules
        Threshold rules by name; default: ``{"0.85": Fixed(threshold=0.85)}``. They share the fits of a loop.
    reviewer_error
        How often a reviewer gives another label than the true one, drawn evenly from the others; shares.
    seeds
        Their number or the seeds themselves, 2 at the least; from 10 on a winner may be named.
    test, audits
        Shares of the rows that measure and that are audited.
    error_cost
        What a wrong answer that nobody stopped costs, in reviews.
    level
        Of intervals and verdicts.
    folder
        Keeps finished loops (JSON); another call on the same data with the same settings goes on from there.
    n_jobs
        As in joblib; None takes what ``joblib.parallel_config`` says. Figures do not depend on it.

    Raises
    ------
    BadInput
        Naming what cannot be simulated.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> found = simulate(
    ...     X, y, estimator=LogisticRegression(max_iter=500), initial=12, batch=12, budget=24, seeds=3, progress=False
    ... )
    >>> found.frame.groupby("labels")["accuracy"].mean().round(2).to_dict()
    {12: 0.86, 24: 0.95, 36: 0.97}
    >>> found.verdicts()[0].winner is None  # three seeds name no winner
    True
    """
    from sklearn.base import clone

    first, more, most = count("initial", initial), count("batch", batch), count("budget", budget)
    X, y = _checked(X, y)
    world = World(
        X=X, y=y, estimator=clone(estimator), features=features, rules=rules or {"0.85": Fixed(threshold=0.85)},
        labels=(first, *(first + min(k * more, most) for k in range(1, 1 + -(-most // more) if more else 1))),
        audits=max(1, round(within("audits", audits) * len(y))), test=max(1, round(within("test", test) * len(y))),
    )  # fmt: skip
    cells = [
        Cell(strategy=a, weighting=b, reviewer_error=within("reviewer_error", error), seed=count("seeds", seed))
        for a, b, error, seed in product(
            strategies, weightings, reviewer_error, range(seeds) if isinstance(seeds, int) else seeds
        )
    ]
    _check(world, cells)
    cost, sure = within("error_cost", error_cost, 0, 1e9), within("level", level, inside=True)
    lines = _all(world, cells, [] if folder is None else world.files(Path(folder), cells), n_jobs, progress)
    return Simulation(frame=lines, error_cost=cost, level=sure)


def _all(world: World, cells: list[Cell], files: list[Path], n_jobs: int | None, progress: bool) -> Any:
    """Return the lines of every cell, in order; what is in a file is not run again."""
    import pandas as pd
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits
    from tqdm.auto import tqdm

    done: dict[int, Lines] = {}
    for i, path in enumerate(files):
        with suppress(OSError, ValueError):
            done[i] = json.loads(path.read_text(encoding="utf-8"))
    jobs = (delayed(world.run)(cell, i) for i, cell in enumerate(cells) if i not in done)
    bar = tqdm(total=len(cells), initial=len(done), desc="simulated loops", unit="loop", disable=not progress)
    with bar, threadpool_limits(limits=1):
        for i, lines in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
            done[i] = lines
            if files:
                begun = files[i].with_suffix(f".{os.getpid()}")  # two processes may share a folder
                begun.write_text(json.dumps(lines), encoding="utf-8")
                begun.replace(files[i])
            bar.update()
    return pd.DataFrame([line for i in range(len(cells)) for line in done[i]]).astype({"threshold": float})


def _checked(X: Any, y: ArrayLike) -> tuple[Any, NDArray[Any]]:
    """Return features as a frame, and labels of one kind."""
    import pandas as pd

    given = np.asarray(y)
    if given.ndim != 1 or len(given) != np.shape(X)[0] or pd.isna(given).any():
        raise BadInput(name="y", value=given.shape, remedy=f"needs one known label for each row of X {np.shape(X)}")
    if not isinstance(X, pd.DataFrame):
        X = np.asarray(X)
        if X.ndim != 2:
            raise BadInput(name="X", value=X.shape, remedy="pass a DataFrame, or an array of the shape (m, k)")
        X = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    if taken := sorted(set(RESERVED) & set(X.columns)):
        raise BadInput(name="X", value=taken, remedy="these names describe labels; rename the columns")
    return X, as_labels(given.tolist())


def _check(world: World, cells: list[Cell]) -> None:
    n, kinds, seeds, steps = len(world.y), len(np.unique(world.y)), len({cell.seed for cell in cells}), world.labels
    taken = steps[-1] + world.audits + world.test
    arms = [f"{(one := world.learner(c)).strategy}, {one.weighting}, {c.reviewer_error}, {c.seed}" for c in cells]
    twice = [one for one, next_one in pairwise(sorted(arms)) if one == next_one]
    checks: list[tuple[str, Any, bool, str]] = [
        ("y", kinds, kinds < 2, "a model needs two labels at the least"),
        ("initial", steps[0], steps[0] < kinds, f"must be {kinds} or more, one for each label"),
        ("labels", steps, len(steps) < 2, "nothing is asked for; batch and budget must be 1 or more"),
        ("budget", taken, taken > n, f"labels, audits and test rows; there are {n:,}: lower budget, audits or test"),
        ("seeds", seeds, seeds < 2, "needs 2 at the least, and 10 for a winner"),
        ("arm", twice[:1], bool(twice), "stands there twice; give each a name of its own"),
    ]
    for name, value, odd, remedy in checks:
        if odd:
            raise BadInput(name=name, value=value, remedy=remedy)
