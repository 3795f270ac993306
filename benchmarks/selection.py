"""Choosing 100 rows of a pool: time and memory beside plain numpy, modAL, scikit-activeml and small-text.

Run ``python benchmarks/selection.py [ROWS …]``; the default is 100,000, 1,000,000 and 20,000,000, ten labels each. From
10,000,000 on the pool comes in parts of a million rows, which are made as they are read. It needs the extra ``bench``.
"""

import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from hitl_nb.learner import STRATEGIES, Exploring, Learner, score_pool, select
from hitl_nb.learner.batch import ranked_batch

N, LABELS, PART = 100, 10, 1_000_000
#: run once, the others five times
PEERS = ("activeml", "small_text")


class Answered(ClassifierMixin, BaseEstimator):
    """A fitted model whose answers are the input."""

    classes_ = np.arange(LABELS)

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)

    def __sklearn_is_fitted__(self):
        return True


BY_MARGIN = Learner(Answered(), "margin")
#: the default, as it is for a model of so many labels
AT_60_LABELS = Learner(Answered(), Exploring().at(60, LABELS))


def made(rows, seed=0):
    p = np.random.default_rng(seed).standard_exponential((rows, LABELS))
    p /= p.sum(axis=1, keepdims=True)
    return p


def parts(rows):
    return (made(PART, seed) for seed in range(rows // PART))


def plain(p):
    top = np.partition(p, -2, axis=1)
    scores = 1 - (top[:, -1] - top[:, -2])
    chosen = np.argpartition(scores, len(p) - N)[-N:]
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def plain_in_parts(pool):
    kept, scores, start = np.empty(0, int), np.empty(0), 0
    for p in pool:
        top = np.partition(p, -2, axis=1)
        scores, kept = np.r_[scores, 1 - (top[:, -1] - top[:, -2])], np.r_[kept, start + np.arange(len(p))]
        best = np.argpartition(scores, len(scores) - N)[-N:]
        scores, kept, start = scores[best], kept[best], start + len(p)
    return kept[np.argsort(-scores, kind="stable")]


def reading(pool):
    for p in pool:
        del p
    return []


def function(p):
    return select(score_pool(STRATEGIES["margin"], p, None), N)


def learner(pool):
    return BY_MARGIN.select(pool, N)


def exploring(pool):
    return AT_60_LABELS.select(pool, N)


def modal(p):
    from modAL.uncertainty import margin_sampling

    return margin_sampling(Answered(), p, n_instances=N)[0]


def activeml(p):
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import UncertaintySampling

    y = np.full(len(p), np.nan)
    y[:LABELS] = range(LABELS)
    clf = SklearnClassifier(Answered(), classes=range(LABELS)).fit(p[:LABELS], y[:LABELS])
    return UncertaintySampling("margin_sampling", random_state=0).query(p, y, clf, fit_clf=False, batch_size=N)


def small_text(p):
    from small_text import BreakingTies

    nobody = np.empty(0, int)
    return BreakingTies().query(Answered(), p, np.arange(len(p)), nobody, nobody, n=N)


def peak(word="VmHWM"):
    return int(Path("/proc/self/status").read_text().split(f"{word}:")[1].split()[0]) / 1024


def measure(name, rows, answer):
    """Put the least CPU seconds of some runs, and the peak in MB above the input, beside what was chosen."""
    try:
        choose, whole = globals()[name], rows < 10 * PART
        pool = made(rows) if whole else None
        choose(made(1000) if whole else parts(PART))  # imports and first calls
        spent = []
        Path("/proc/self/clear_refs").write_text("5")
        before = peak("VmRSS")
        for _ in range(1 if not whole or name in PEERS else 5):
            start = time.process_time()
            found = choose(pool if whole else parts(rows))
            spent.append(time.process_time() - start)
        answer.put((min(spent), peak() - before, np.asarray(found).tolist()))
    except Exception as error:
        answer.put(f"{type(error).__name__}: {error}")


def ranked(rows=5000, labelled=500, n=100, features=30):
    from modAL.batch import ranked_batch as theirs

    rng = np.random.default_rng(0)
    X, known, p = rng.normal(size=(rows, features)), rng.normal(size=(labelled, features)), made(rows)
    modals = Answered()
    modals.on_transformed, modals.X_training = False, known
    start = time.process_time()
    wanted = theirs(modals, X, 1 - p.max(axis=1), n, "euclidean", None)[0]
    middle = time.process_time()
    found = select(ranked_batch(p, rng, X=X, labelled=known, n=n), n)
    ratio = (middle - start) / (time.process_time() - middle)
    same = "the same" if np.array_equal(wanted, found) else "OTHER"
    print(f"ranked batch, {n} of {rows:,} beside {labelled} labelled: modAL takes {ratio:.0f} × as long, {same} picks")


def main(sizes):
    own = multiprocessing.get_context("spawn")
    print("| rows | way | CPU to plain numpy | peak above the input | picks |\n|---|---|---|---|---|")
    for rows in sizes:
        whole, first = rows < 10 * PART, None
        names = ("plain", "function", "learner", "exploring", "modal", "activeml", "small_text")
        for name in names if whole else ("plain_in_parts", "learner", "reading"):
            answer = own.Queue()
            process = own.Process(target=measure, args=(name, rows, answer))
            process.start()
            found = answer.get(timeout=900)
            process.join()
            if isinstance(found, str):
                print(f"| {rows:,} | {name} | {found} | – | – |")
                continue
            seconds, extra, chosen = found
            first = first or (seconds, chosen)
            same = f"{len(set(first[1]) & set(chosen))} of {N} the same"
            print(f"| {rows:,} | {name} | {seconds / first[0]:.2f} | {extra:.0f} MB | {same} |", flush=True)
    ranked()


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [100_000, 1_000_000, 20_000_000])
