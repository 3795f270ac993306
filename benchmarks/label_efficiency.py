"""How many labels a query strategy saves: learning curves on four data sets, paired by seed, beside modAL's and others.

Run ``python benchmarks/label_efficiency.py [SEEDS] [MINUTES]``. What was measured is kept in ``label_efficiency.csv``
beside this file; a run goes on where the last one ended, so it may be stopped, and then prints the tables and draws
``docs/label_efficiency.png``. joblib spreads the runs: ``JOBS=4 python …``. It needs the extras ``bench`` and ``plot``.

Each run: a third of the rows (at most 1,500) is for the test, at most 1,500 others are the pool; 20 random labels
first, then batches of 20 up to 300. The area is the mean accuracy over the curve.
"""

import csv
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hitl_nb.learner import STRATEGIES, from_activeml, score_pool, select
from hitl_nb.learner.committee import votes_of
from hitl_nb.learner.strategy import wants
from hitl_nb.shipped import load_spam

HERE = Path(__file__).parent
KEPT, PICTURE = HERE / "label_efficiency.csv", HERE.parent / "docs" / "label_efficiency.png"
START, BATCH, LAST, MOST, SURE = 20, 20, 300, 1500, 0.85
STEPS = list(range(START, LAST + 1, BATCH))
MODELS = {
    "logistic regression": LogisticRegression(max_iter=200),
    "random forest": RandomForestClassifier(50, random_state=0),
}
OURS = ["margin_inverse_confidence", "stochastic_margin", "margin_subset", "ranked_batch", "entropy"]
PEERS = ["committee_disagreement", "Falcun", "Badge"]
NAMES = ["random", "uncertainty_sampling", "exploring_margin", "margin", *OURS, *PEERS]
FIELDS = ["set", "model", "strategy", "seed", "full", *map(str, STEPS), "automatic", "automatic_error"]


def segments():
    from river.datasets import ImageSegments

    rows = list(ImageSegments())
    return np.array([list(x.values()) for x, _ in rows], dtype=float), np.array([y for _, y in rows])


def spam():
    frame = load_spam()
    return frame.drop(columns="label").to_numpy(float), frame["label"].to_numpy(str)


SETS = {
    "digits": lambda: load_digits(return_X_y=True),
    "segments": segments,
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "spam": spam,
}


def strategy_of(name):
    if name in STRATEGIES:
        return STRATEGIES[name]
    import skactiveml.pool

    return from_activeml(getattr(skactiveml.pool, name)())


def run(data, model, name, seed):
    """Return one row of the file: accuracy at each step, and what a threshold would let through at the last."""
    warnings.simplefilter("ignore")
    X, y = SETS[data]()
    order = np.random.default_rng([seed, 1]).permutation(len(X))
    tested = min(MOST, len(X) // 3)
    test, pool = order[:tested], order[tested : tested + MOST]
    scaler = StandardScaler().fit(X[pool])
    X, strategy, known = scaler.transform(X), strategy_of(name), list(range(START))
    full = clone(MODELS[model]).fit(X[pool], y[pool]).score(X[test], y[test])
    while len(set(y[pool[known]])) < 2:
        known.append(len(known))
    curve, rng = [], np.random.default_rng([seed, 2])
    for size in STEPS:
        fitted = clone(MODELS[model]).fit(X[pool[known]], y[pool[known]])
        p = fitted.predict_proba(X[test])
        right = fitted.classes_[p.argmax(axis=1)] == y[test]
        curve.append(right.mean())
        if size < LAST:
            free = np.setdiff1d(np.arange(len(pool)), known)
            rows, old = X[pool[free]], pool[known]
            given = {"X": rows, "n": BATCH, "labelled": X[old], "labels": y[old], "model": fitted}
            if "votes" in wants(strategy):
                given["votes"] = votes_of(fitted, rows)
            known += free[select(score_pool(strategy, fitted.predict_proba(rows), rng, **given), BATCH)].tolist()
    sure = p.max(axis=1) >= SURE
    through = 1 - right[sure].mean() if sure.any() else np.nan
    return [data, model, name, seed, full, *curve, sure.mean(), through]


def kept():
    if not KEPT.exists():
        return {}
    with KEPT.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {(d, m, s, int(seed)): np.array(rest, dtype=float) for d, m, s, seed, *rest in rows}


def wanted(seeds):
    """Return what is to be run, seed by seed, so that a stopped run has whole pairs; the quick model first."""
    for model in MODELS:
        for seed in range(seeds):
            for data in SETS:
                for name in NAMES:
                    if "committee" not in name or "forest" in model:
                        yield data, model, name, seed


def measure(seeds, minutes):
    end, done, jobs = time.monotonic() + 60 * minutes, kept(), int(os.environ.get("JOBS", "1"))
    left = [one for one in wanted(seeds) if one not in done]
    if not KEPT.exists():
        KEPT.write_text(",".join(FIELDS) + "\n")
    work = (delayed(run)(*one) for one in left if time.monotonic() < end)
    with KEPT.open("a", newline="") as file:
        for row in Parallel(jobs, return_as="generator_unordered", pre_dispatch=jobs)(work):
            csv.writer(file).writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row])
            file.flush()
    print(f"{len(kept())} of {len(list(wanted(seeds)))} runs\n")


def interval(values):
    """Return a mean with its 95 % interval by Student's t; alone where there is one pair only."""
    mean, n = np.mean(values), len(values)
    if n < 2:
        return f"{mean:+.2f}"
    half = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def labels_needed(rows):
    """Return the labels at which the mean curve first has 95 % of the full accuracy."""
    curve, goal = rows[:, 1:-2].mean(axis=0), 0.95 * rows[:, 0].mean()
    return next((str(n) for n, accuracy in zip(STEPS, curve, strict=True) if accuracy >= goal), f"> {LAST}")


def table(done, data, model):
    seeds = [{s for d, m, n, s in done if (d, m, n) == (data, model, name)} for name in NAMES]
    runs = [name for name, found in zip(NAMES, seeds, strict=True) if found]
    common = sorted(set.intersection(*[found for found in seeds if found])) if runs else []
    if not common:
        return
    rows = {name: np.array([done[data, model, name, seed] for seed in common]) for name in runs}
    area = {name: 100 * its[:, 1:-2].mean(axis=1) for name, its in rows.items()}
    print(f"**{data}, {model}** ({len(common)} seeds, full accuracy {100 * rows['random'][:, 0].mean():.1f} %)\n")
    print("| strategy | area | against random | against modAL's default | labels to 95 % | automatic | its error |")
    print("|---|---|---|---|---|---|---|")
    for name in runs:
        cells = [
            "–" if name == other else interval(area[name] - area[other]) for other in ("random", "uncertainty_sampling")
        ]
        automatic, error = 100 * rows[name][:, -2].mean(), 100 * np.nanmean(rows[name][:, -1])
        label = f"{name} (default)" if name == "exploring_margin" else name
        figures = f"{labels_needed(rows[name])} | {automatic:.0f} % | {error:.1f} %"
        print(f"| {label} | {area[name].mean():.2f} | {' | '.join(cells)} | {figures} |")
    print()


def draw(done):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.style.use("hitl_nb.notebook")
    shown = {"random": "0.6", "exploring_margin": "C0", "margin": "C1", "entropy": "C2", "Falcun": "C3"}
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.4), sharex=True, layout="constrained")
    for row, model in zip(axes, MODELS, strict=True):
        for axis, data in zip(row, SETS, strict=True):
            seeds = max((seed + 1 for d, m, _, seed in done if (d, m) == (data, model)), default=0)
            for name, colour in shown.items():
                rows = [its for (d, m, n, _), its in done.items() if (d, m, n) == (data, model, name)]
                if rows:
                    axis.plot(STEPS, np.mean(rows, axis=0)[1:-2], color=colour, label=name)
            axis.set_title(f"{data}, {model} ({seeds})", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("labels (in brackets: seeds)")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(shown))
    figure.savefig(PICTURE, dpi=110, facecolor="white")


def main(seeds, minutes):
    measure(seeds, minutes)
    done = kept()
    for data in SETS:
        for model in MODELS:
            table(done, data, model)
    if done:
        draw(done)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, float(sys.argv[2]) if len(sys.argv) > 2 else 1e6)
