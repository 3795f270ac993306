"""Calibration: confidences made as high as the shares of right answers, before a threshold is fitted to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence.calibration import Calibration, bins_of, calibration
from hitl_nb.evidence.check import within
from hitl_nb.lab.history import Bools, Floats, History, read
from hitl_nb.lab.logged import pooled
from hitl_nb.lab.look import ReliabilityDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: from confidences to calibrated ones, shape (n,) both
Map = Callable[[Floats], Floats]
#: fits such a map to confidences and to whether each answer was right
Method = Callable[[Floats, Bools], Map]
#: most rows to which a map is fitted; of more, a part is drawn
MOST = 10_000
#: `bins` makes at most so many, each of about so many rows
MOST_BINS, ROWS_IN_BIN = 6, 50
#: confidences are moved this far away from 0 and 1, where log-odds have no end
EDGE = 1e-6


def temperature(sure: Floats, right: Bools) -> Map:
    """Fit one number by which log-odds are divided (Guo and others 2017, arXiv 1706.04599).

    Of a confidence alone, without the other classes, these are the log-odds of being right.
    """
    from scipy.special import expit, logit
    from sklearn.linear_model import LogisticRegression

    def odds(confidence: Floats) -> Any:
        return logit(np.clip(confidence, EDGE, 1 - EDGE))

    fitted = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cg", tol=1e-8).fit(
        odds(sure)[:, None], right
    )
    return lambda confidence: np.asarray(expit(odds(confidence) * fitted.coef_[0, 0]))


def isotonic(sure: Floats, right: Bools) -> Map:
    """Fit the rising steps that are closest to what was right (Zadrozny and Elkan 2002); it makes ties."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(sure, right)
    return lambda confidence: np.asarray(fitted.predict(confidence))


def venn_abers(sure: Floats, right: Bools) -> Map:
    """Fit isotonic steps twice for each new confidence, with it right and with it wrong, and join the two values.

    Inductive Venn-Abers prediction (Vovk, Petej and Fedorova 2015, arXiv 1511.00213): one of the two is calibrated,
    whatever the confidences are like; p1 / (1 - p0 + p1) joins them.
    """
    from scipy.optimize import isotonic_regression

    scores, at, times = np.unique(sure, return_inverse=True, return_counts=True)
    share = np.bincount(at, weights=right) / times

    def pair(place: int, known: bool) -> float:
        """Return the joined value at a score that is known, or in the gap before it."""
        weights, values, ends = times.astype(float), share, []
        if known:
            weights[place] += 1
        else:
            weights, values = np.insert(weights, place, 1.0), np.insert(share, place, 0.0)
        for outcome in (0.0, 1.0):
            mean = (values[place] * (weights[place] - 1) + outcome) / weights[place]
            steps = isotonic_regression(np.r_[values[:place], mean, values[place + 1 :]], weights=weights)
            ends.append(float(steps.x[place]))
        return ends[1] / (1 - ends[0] + ends[1])

    def joined(confidence: Floats) -> Floats:
        place = np.searchsorted(scores, confidence)
        known = np.isin(confidence, scores)
        cases, back = np.unique(np.c_[place, known], axis=0, return_inverse=True)
        return np.array([pair(int(p), bool(k)) for p, k in cases])[back.ravel()]

    return joined


def bins(sure: Floats, right: Bools) -> Map:
    """Join the shares of right answers in a few bins of equally many rows by straight lines, which may fall too.

    Binning (Zadrozny and Elkan 2001), the one method that may change the order: where the most confident are not the
    safest, a threshold on what it returns leaves them to people and lets others through.
    """
    values, first = np.unique(np.sort(sure), return_index=True)

    def place(confidence: Floats) -> Floats:
        return np.interp(confidence, values, first / len(sure))

    parts = bins_of(sure, min(MOST_BINS, max(2, len(sure) // ROWS_IN_BIN)))
    centres = [float(place(sure[part]).mean()) for part in parts]
    shares = [(right[part].sum() + 0.5) / (len(part) + 1) for part in parts]
    return lambda confidence: np.interp(place(confidence), centres, shares) + 1e-9 * confidence  # no ties


#: methods by name
METHODS: dict[str, Method] = {
    "temperature": temperature, "isotonic": isotonic, "venn_abers": venn_abers, "bins": bins,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibrated(Shows):
    """A fitted calibration, and the rows that are left for a promise; made by `calibrate`."""

    #: name of the method
    method: str
    #: what it was fitted to, rows
    fitted: int
    #: rows that it has not seen, with calibrated confidences: what a threshold may be fitted to
    history: History
    #: how far confidences were off on those rows, and how far they are now
    before: Calibration
    after: Calibration
    #: the same rows as they came
    raw: History = field(repr=False)
    #: the fitted map
    map: Map = field(repr=False)
    #: what the versions of calibrated models end with: the method, and a hash of what the map made of those rows
    name: str = ""

    def version(self, model: object = "?") -> str:
        """Return what a model is called whose confidences are calibrated; without a name of its own it is ``?``."""
        return f"{model}+{self.name}"

    def __call__(self, confidence: ArrayLike) -> Floats:
        """Return calibrated confidences, shape (n,); unknown ones stay NaN."""
        given = np.asarray(confidence, dtype=np.float64)
        if (odd := (given < 0) | (given > 1)).any():
            raise BadInput(name="confidence", value=float(given[odd][0]), remedy="must lie between 0 and 1")
        found, known = np.full(given.shape, np.nan), ~np.isnan(given)
        if known.any():
            found[known] = np.clip(self.map(given[known]), 0, 1)
        return found

    def _table(self) -> Table:
        lines = [(name, f"{one.ece:.1%}", f"{one.ks:.1%}", f"{one.brier:.3f}") for name, one in
                 (("before", self.before), ("after", self.after))]  # fmt: skip
        title = f"{self.method}: confidences are off by {self.after.ece:.1%}, before by {self.before.ece:.1%}"
        note = f"fitted to {self.fitted:,} rows, measured on {self.after.n:,} others"
        notes = [note, *pooled(self.raw), "next: choose_threshold(found.history)"]
        return table(title, ("", "ECE", "KS", "Brier"), lines, notes)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how often the model is right when it is so sure, before and after."""
        lowest = []
        for name, rows in (("before", self.raw), ("after", self.history)):
            ax = ReliabilityDisplay.from_history(rows).plot(ax, label=name)
            lowest.append(ax.get_ylim()[0])
        assert ax is not None
        ax.set(xlim=(min(lowest), 101), ylim=(min(lowest), 101))
        return ax


def calibrate(
    history: Any, method: str | Method = "isotonic", *, share: float = 0.5, initial: Any = None, seed: int = 0
) -> Calibrated:
    """Fit a calibration that a promise may follow, and show how far confidences were off before and after.

    The rows to which it is fitted never serve as evidence of a threshold. They are those of ``initial``, or a random
    ``share`` of all rows, judged or not, so that what is left has the probabilities that it had.

    A model with calibrated confidences is another model: in what is left its version ends with the method and a hash
    of the map, such as ``v7+bins@1f3a90c2``; ``?`` stands for a model without a name. Say so in production too, where
    ``answers["confidence"] = found(answers["confidence"])`` and ``answers["model"] = found.version("v7")``: a
    certificate sends answers with other confidences than those it was made for to a person.

    Parameters
    ----------
    history
        What `read` takes.
    method
        ``"temperature"``, ``"isotonic"``, ``"venn_abers"``, ``"bins"`` (which may change the order: for models whose
        most confident answers are not the safest), or a function of confidences and of what was right that returns a
        map of confidences.
    share
        Part of the rows to which it is fitted; 0.3 is enough for ``"bins"``.
    initial
        Another history, such as the first labels, to fit to; then all of ``history`` is left.

    Raises
    ------
    EvidenceError
        All rows to fit to are right, or all are wrong, or there are too few.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 4000)
    >>> found = calibrate({"confidence": sure, "wrong": rng.random(4000) > sure**2}, "venn_abers")
    >>> round(found.before.ece, 3), round(found.after.ece, 3), len(found.history)
    (0.076, 0.02, 2031)
    """
    fit, rows = METHODS.get(method) if isinstance(method, str) else method, read(history)
    if fit is None:
        raise BadInput(name="method", value=method, remedy=f"is none of {', '.join(METHODS)}")
    if initial is None:
        first = np.random.default_rng([seed, 1]).random(len(rows)) < within("share", share, inside=True)
        base, rest = rows[first], rows[~first]
    else:
        base, rest = read(initial), rows
    seen = base.evidence(seed)
    if len(seen) < 2 or seen.wrong.all() or not seen.wrong.any():
        said = f"of {len(seen):,} rows to calibrate on {int(seen.wrong.sum()):,} are wrong"
        raise EvidenceError(what=f"{said}; both right and wrong ones are needed: judge more, or fit to initial labels")
    part = slice(MOST) if len(seen) <= MOST else np.random.default_rng([seed, 2]).choice(len(seen), MOST, replace=False)
    fitted, left = fit(seen.confidence[part], ~seen.wrong[part]), rest.evidence(seed)
    raw = calibration(left.confidence, ~left.wrong)
    name = method if isinstance(method, str) else getattr(method, "__name__", "calibration")
    made = Calibrated(
        method=name, fitted=min(len(seen), MOST), history=rest, before=raw, after=raw, raw=rest, map=fitted
    )
    sure, frame = made(rest.confidence), rest.frame
    made = replace(made, name=f"{name}@{hashlib.sha256(np.round(sure, 6).tobytes()).hexdigest()[:8]}")
    named = "model" in frame and frame["model"].notna().any()
    model = frame["model"].map(made.version, na_action="ignore") if named else made.version()
    now = replace(rest, confidence=sure, frame=frame.assign(model=model))
    return replace(made, history=now, after=calibration(made(left.confidence), ~left.wrong))
