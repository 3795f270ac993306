"""Thresholds with a promise: how much they automate, and how often it broke, beside MAPIE, SGR and a plug-in.

Run ``python benchmarks/thresholds.py [STREAMS [N ...]]``; all rules see the same simulated streams, fully labelled, and
the truth comes from numeric integration. Promised: more than 5 % wrong in at most 10 % of the streams. It needs what
the tests need.
"""

import sys
import warnings
from math import ceil, log2
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from mapie.risk_control import BinaryClassificationController
from scipy.special import betaincinv
from worlds import INSIDE, RIGHT, World

from hitl_nb.errors import EvidenceError
from hitl_nb.evidence.selection import certified, chances, sequence, starts
from hitl_nb.lab import calibrate, choose_threshold

TARGET, DELTA = 0.05, 0.1
#: thresholds that MAPIE tries, highest first
GRID = np.linspace(0.995, 0.3, 140)


def ours(start):
    def fit(sure, wrong):
        shares = starts(len(sure), TARGET) if start is None else (start,)
        ends = sequence(len(sure), TARGET, DELTA / len(shares), min(shares))
        last = int(certified(wrong, ends, TARGET, chances(ends, len(sure), DELTA, shares)))
        return sure[ends[last] - 1] if last >= 0 else np.nan

    return fit


def ranked(sure, wrong):
    """Put confidences in the order of their bins on 0.3 of the rows, and certify on the others; which pass?"""
    try:
        step = calibrate({"confidence": sure, "wrong": wrong}, "bins", share=0.3)
    except EvidenceError:  # no error among the rows to fit to
        return np.zeros(len(INSIDE), dtype=bool)
    found = choose_threshold(step.history, TARGET, 1 - DELTA, start=0).threshold
    return step(INSIDE) >= (2 if found is None else found)


def mapie(method):
    def fit(sure, wrong):
        found = BinaryClassificationController(
            lambda x: np.c_[1 - x[:, 0], x[:, 0]], risk="precision", target_level=1 - TARGET,
            confidence_level=1 - DELTA, list_predict_params=GRID, fwer_method=method,
        )  # fmt: skip
        found.calibrate(sure[:, None], (~wrong).astype(int))
        return min(found.valid_predict_params, default=np.nan)

    return fit


def sgr(sure, wrong):
    """Search the lowest threshold by halving, each bound at its part of the promise (Geifman and El-Yaniv 2017)."""
    low, high, best, steps = 1, len(sure), np.nan, ceil(log2(len(sure)))
    errors = np.cumsum(wrong)
    for _ in range(steps):
        k = (low + high + 1) // 2
        bound = betaincinv(errors[k - 1] + 1, max(k - errors[k - 1], 1e-9), 1 - DELTA / steps)
        low, high, best = (k, high, sure[k - 1]) if bound <= TARGET else (low, max(k - 1, 1), best)
    return best


def plug_in(sure, wrong):
    below = np.cumsum(wrong) / np.arange(1, len(wrong) + 1) <= TARGET
    return sure[np.flatnonzero(below)[-1]] if below.any() else np.nan


RULES = {
    "Certified()": ours(None), "Certified(start=0)": ours(0), "Certified(start=0.6)": ours(0.6),
    'Certified(start=0) after calibrate("bins")': ranked,
    "MAPIE fixed sequence": mapie("fixed_sequence"), "MAPIE default": mapie("bonferroni_holm"), "SGR": sgr,
    "plug-in (no promise)": plug_in,
}  # fmt: skip


def main(streams, sizes):
    warnings.simplefilter("ignore")
    print("| n | rule | " + " | ".join(f"{name} ({World(name).oracle(TARGET):.3f})" for name in RIGHT) + " |")
    for n in sizes:
        drawn = {name: World(name).draw(np.random.default_rng(1), streams, n) for name in RIGHT}
        for rule, fit in RULES.items():
            cells = []
            for name, (sure, wrong) in drawn.items():
                found, world = [fit(s, w) for s, w in zip(sure, wrong, strict=True)], World(name)
                # a threshold, or for each confidence whether it passes
                share, risk = np.array([world.where(one if np.ndim(one) else one <= INSIDE) for one in found]).T
                cells.append(f"{share.mean():.3f}, {(risk > TARGET).mean():.1%}")
            print(f"| {n:,} | {rule} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, [int(n) for n in sys.argv[2:]] or [300, 1000, 3000])
