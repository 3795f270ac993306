"""A history to look at: what a threshold would automate and how often that would be wrong; who is how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, spell, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import clopper_pearson
from hitl_nb.evidence.calibration import Calibration, bins_of, calibration
from hitl_nb.evidence.check import within
from hitl_nb.lab.history import History, read

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: thresholds at which a band is computed; they share its chance of being wrong
POINTS = 40


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RiskCoverageDisplay(Shows):
    """Share decided without a person against the error in that share; made by `from_history`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 2000)
    >>> shown = RiskCoverageDisplay.from_history({"confidence": sure, "wrong": rng.random(2000) > sure})
    >>> print(shown)
    at 0.979 or more 25% go through without a person, 0.0% to 2.3% of those wrong (2,000 judged, 95% wherever one looks)
    """

    #: a line for each threshold, highest first: threshold, coverage, risk, low, high (shares); n, judged rows above it
    frame: pd.DataFrame
    #: how often all of the band holds at once, a share
    level: float
    #: judged rows behind it
    n: int

    @classmethod
    def from_history(cls, history: Any, *, level: float = 0.95, seed: int = 0) -> RiskCoverageDisplay:
        """Compute the curve and its band from a history.

        The thresholds are confidences of judged rows. Given one of them, what lies above it is a simple random sample,
        so an exact interval holds (Clopper and Pearson 1934); each takes its part of ``1 - level`` (Bonferroni), so the
        band holds at all thresholds at once, also at the one that looks best.

        Raises
        ------
        EvidenceError
            Nothing is judged, or some rows could never be.
        """
        import pandas as pd

        rows = read(history)
        evidence = rows.evidence(seed)
        if len(evidence) < 2:
            raise EvidenceError(what=f"{len(evidence)} judged rows are too few for a curve; judge more")
        order = np.argsort(-evidence.confidence, kind="stable")
        sure, wrong = evidence.confidence[order], evidence.wrong[order].cumsum()
        ends = np.append(np.flatnonzero(np.diff(sure)), len(sure) - 1)  # equal confidences go together
        wanted = np.unique((np.linspace(1, np.sqrt(len(sure)), POINTS) ** 2).astype(int)) - 1
        ends = np.unique(ends[np.searchsorted(ends, wanted)])
        each = 1 - (1 - within("level", level, inside=True)) / len(ends)
        found = [clopper_pearson(int(wrong[k]), k + 1, each) for k in ends]
        all_sure = np.sort(rows.confidence[rows.open])
        lines = [
            (sure[k], 1 - np.searchsorted(all_sure, sure[k]) / len(all_sure), one.estimate, one.low, one.high, one.n)
            for k, one in zip(ends, found, strict=True)
        ]
        frame = pd.DataFrame(lines, columns=["threshold", "coverage", "risk", "low", "high", "n"])
        return cls(frame=frame, level=level, n=len(evidence))

    def __str__(self) -> str:
        line = self.frame.iloc[int(self.frame["high"].argmin())]
        wrong = f"{line['low']:.1%} to {line['high']:.1%} of those wrong"
        behind = f"{self.n:,} judged, {self.level:.0%} wherever one looks"
        through = f"at {line['threshold']:.3g} or more {line['coverage']:.0%} go through without a person"
        return f"{through}, {wrong} ({behind})"

    def _table(self) -> Table:
        some = self.frame.iloc[np.unique(np.linspace(0, len(self.frame) - 1, 8).astype(int))]
        lines = [
            (f"{a:.3g}", f"{b:.1%}", f"{c:.1%}", f"{d:.1%} to {e:.1%}", f"{n:,.0f}")
            for a, b, c, d, e, n in some.itertuples(index=False)
        ]
        header = ("threshold", "automatic", "wrong", f"band at {self.level:.0%}", "judged")
        return table(str(self), header, lines, ["next: choose_threshold(history) for a promise, .plot() for the curve"])

    def plot(self, ax: Axes | None = None, *, target: float | None = None) -> Axes:
        """Draw the curve and its band; ``target`` draws a line at a risk that is not to be exceeded."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        share = 100 * self.frame[["coverage", "risk", "low", "high"]]
        [line] = ax.plot(share["coverage"], share["risk"], label="wrong among them")
        band = f"band, {self.level:.0%} at all thresholds at once"
        ax.fill_between(share["coverage"], share["low"], share["high"], alpha=0.2, color=line.get_color(), label=band)
        if target is not None:
            ax.axhline(100 * within("target", target), color="C1", linestyle="--", label=f"{100 * target:.3g}% at most")
        most = share["high"][share["coverage"] >= 10].max()  # before that the band is as wide as the plot
        ax.set(xlabel="decided without a person (%)", ylabel="wrong (%)", xlim=(0, 100), ylim=(0, min(100, 1.3 * most)))
        ax.set_title("What a threshold automates, and how often that is wrong")
        ax.legend()
        return ax


def risk_coverage(history: Any, *, level: float = 0.95, seed: int = 0) -> RiskCoverageDisplay:
    """Show what each threshold would automate and how often that would be wrong; see `RiskCoverageDisplay`."""
    return RiskCoverageDisplay.from_history(history, level=level, seed=seed)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ConfidenceDisplay:
    """How sure the model was, for what was right, what was wrong and what nobody judged; made by `from_history`."""

    #: a line a row: confidence, outcome (right, wrong, not judged) and, where it was asked for, the group
    frame: pd.DataFrame

    @classmethod
    def from_history(cls, history: Any, *, by: str | None = None) -> ConfidenceDisplay:
        """Take the confidences of a history, with ``by`` also one of its columns, such as ``group``."""
        import pandas as pd

        rows: History = read(history)
        outcome = np.select([rows.wrong == 1, rows.wrong == 0], ["wrong", "right"], "not judged")
        frame = pd.DataFrame({"confidence": rows.confidence, "outcome": outcome})
        if by is not None:
            if by not in rows.frame:
                raise BadInput(
                    name="by", value=by, remedy=f"columns are {', '.join(map(str, rows.frame.columns[:20]))}"
                )
            frame["group"] = rows.frame[by].map(spell).to_numpy()
        return cls(frame=frame)

    def plot(self, ax: Axes | None = None, *, group: str | None = None, bins: int = 40) -> Axes:
        """Draw histograms over each other, what was wrong below; of all rows, or of one group."""
        import matplotlib.pyplot as plt

        groups = list(self.frame["group"].unique()) if "group" in self.frame else []
        if group is not None and group not in groups:
            known = ", ".join(groups[:20]) or "none; make it with from_history(by=...)"
            raise BadInput(name="group", value=group, remedy=f"groups are {known}")
        shown = self.frame if group is None else self.frame[self.frame["group"] == group]
        ax = plt.subplots()[1] if ax is None else ax
        names = [name for name in ("wrong", "right", "not judged") if (shown["outcome"] == name).any()]
        parts = [shown["confidence"][shown["outcome"] == name].dropna() for name in names]
        colors = [{"wrong": "C1", "right": "C0", "not judged": "0.7"}[name] for name in names]
        ax.hist(parts, bins=np.linspace(0, 1, bins + 1).tolist(), stacked=True, color=colors, label=names)
        ax.set(xlabel="confidence", ylabel="rows")
        ax.set_title(
            "How sure the model was" if group is None else f"How sure the model was: {group}", parse_math=False
        )
        ax.legend()
        return ax


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReliabilityDisplay(Shows):
    """Confidence against the share that was right, in bins of equally many rows; made by `from_history`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 2000)
    >>> shown = ReliabilityDisplay.from_history({"confidence": sure, "wrong": rng.random(2000) > sure**2})
    >>> print(shown)
    confidences are off by 6.7% on average (Brier 0.119, n = 2,000)
    """

    #: a line for each bin: confidence (its mean), right, low, high (shares); n
    frame: pd.DataFrame
    #: how often the interval of one bin holds, a share
    level: float
    #: the figures
    measured: Calibration

    @classmethod
    def from_history(cls, history: Any, *, bins: int = 10, level: float = 0.95, seed: int = 0) -> ReliabilityDisplay:
        """Measure it on the rows that serve as evidence; each bin has an exact interval of its own."""
        import pandas as pd

        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise BadInput(name="bins", value=bins, remedy="pass a whole number from 1")
        evidence = read(history).evidence(seed)
        measured, lines = calibration(evidence.confidence, ~evidence.wrong), []
        for part in bins_of(evidence.confidence, bins):
            one = clopper_pearson(int((~evidence.wrong[part]).sum()), len(part), level)
            lines.append((evidence.confidence[part].mean(), one.estimate, one.low, one.high, one.n))
        frame = pd.DataFrame(lines, columns=["confidence", "right", "low", "high", "n"])
        return cls(frame=frame, level=level, measured=measured)

    def __str__(self) -> str:
        return str(self.measured)

    def _table(self) -> Table:
        lines = [(f"{a:.3f}", f"{b:.1%}", f"{c:.1%} to {d:.1%}", f"{n:,.0f}") for a, b, c, d, n in
                 self.frame.itertuples(index=False)]  # fmt: skip
        return table(str(self), ("confidence", "right", f"at {self.level:.0%}", "judged"), lines)

    def plot(self, ax: Axes | None = None, *, label: str = "judged rows") -> Axes:
        """Draw the bins with their intervals, and on new axes the line on which confidences would be true."""
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots()[1]
            ax.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle="--", label="as sure as right")
        share = 100 * self.frame[["confidence", "right", "low", "high"]]
        ends = [share["right"] - share["low"], share["high"] - share["right"]]
        ax.errorbar(share["confidence"], share["right"], yerr=ends, marker="o", label=label)
        least = max(0, 10 * np.floor(share[["confidence", "low"]].min().min() / 10))
        ax.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(least, 101), ylim=(least, 101))
        ax.set_title("How often the model is right when it is so sure")
        ax.legend()
        return ax
