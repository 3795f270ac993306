"""Arms of a simulated loop side by side: paired over seeds, and no winner where intervals overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, line, table
from hitl_nb.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: what arms are judged by, and whether more of it is better
MEASURES = {"area": True, "accuracy": True, "cost": False}
#: on fewer seeds no winner is named
LEAST_SEEDS = 10
#: more seeds than this are never asked for
MOST_SEEDS = 2_000
#: what makes an arm, and under which reviewers it ran
ARM, WORLD = ["strategy", "weighting", "rule"], "reviewer_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmVerdict:
    """Which arm was best, and whether that is proven; made by `Simulation.verdicts`."""

    #: ``area``, ``accuracy`` or ``cost``
    measure: str
    #: how often reviewers erred, a share
    reviewer_error: float
    #: arm with the best mean, and the one that is hardest to tell from it
    best: str
    rival: str
    #: by how much the best is better than the rival, and its interval: shares; of ``cost``: reviews for 1,000 answers
    lead: float
    low: float
    high: float
    #: how often a verdict names no wrong winner, a share
    level: float
    #: seeds behind it
    seeds: int
    #: about how many more would show the lead four times in five, if it is what it seems; None: too many to run
    seeds_missing: int | None

    @property
    def winner(self) -> str | None:
        """The best arm where it is proven better than every other; else None."""
        return self.best if self.low > 0 and self.seeds >= LEAST_SEEDS else None

    def __str__(self) -> str:
        unit, scale = ("reviews in 1,000", 1) if self.measure == "cost" else ("points", 100)
        lead, low, high = (f"{scale * part:+.3g}" for part in (self.lead, self.low, self.high))
        ahead = f"{lead} {unit} ahead of {self.rival} ({low} to {high} at {self.level:.0%}, {self.seeds} seeds)"
        where = f"by {self.measure} where reviewers err in {100 * self.reviewer_error:.3g}%"
        if self.winner:
            return f"best {where}: {self.best}, {ahead}"
        more = f"about {self.seeds_missing:,} more seeds would tell, if that lead is real" if self.seeds_missing else (
            "they may well be equal, no affordable number of seeds would tell"
        )  # fmt: skip
        return f"no winner {where}: {self.best} is {ahead}; {more}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Simulation(Shows):
    """Learning curves of every arm and seed; made by `simulate`."""

    #: a line for each step: strategy, weighting, rule, reviewer_error, seed; labels, accuracy, threshold (NaN: none),
    #: automatic (share of all answers), missed (share of all answers: automatic and wrong)
    frame: pd.DataFrame
    #: what a wrong answer that nobody stopped costs, in reviews
    error_cost: float
    #: of intervals and verdicts, a share
    level: float

    @property
    def loops(self) -> pd.DataFrame:
        """A line for each loop and rule: figures of its last model, area and cost."""
        keys, labels = [WORLD, *ARM, "seed"], np.sort(self.frame["labels"].unique())
        width = np.diff(labels, prepend=labels[0]) + np.diff(labels, append=labels[-1])  # the trapezoid rule
        share = self.frame["labels"].map(dict(zip(labels, width / width.sum(), strict=True)))
        area = self.frame.assign(area=share * self.frame["accuracy"]).groupby(keys)["area"].sum()
        last: pd.DataFrame = self.frame[self.frame["labels"] == labels[-1]].set_index(keys).assign(area=area)
        last["cost"] = 1000 * (1 - last["automatic"] + self.error_cost * last["missed"])
        return last.reset_index()

    def _gaps(self, measure: str) -> dict[float, tuple[tuple[str, ...], Any]]:
        """Return for each reviewer error the best arm, and by how much it is better than each other, paired over seeds.

        One-sided t bounds at ``(1 - level) / arms`` each. An arm is named wrongly only if it beats one that is no
        worse, which is one comparison for each arm: at most ``1 - level`` in all (Bonferroni).
        """
        from scipy.stats import t

        if measure not in MEASURES:
            raise BadInput(name="measure", value=measure, remedy=f"is none of {', '.join(MEASURES)}")
        loops, arm = self.loops, ARM if measure == "cost" else ARM[:2]
        loops = loops if measure == "cost" else loops[loops["rule"] == loops["rule"].iloc[0]]  # rules share their fits
        found: dict[float, tuple[tuple[str, ...], Any]] = {}
        for world, rows in loops.groupby(WORLD):
            wide: Any = rows.pivot(index="seed", columns=arm, values=measure) * (1 if MEASURES[measure] else -1)
            best, n = wide.mean().idxmax(), len(wide)
            gaps = wide.drop(columns=[best]).rsub(wide[best], axis=0)
            bound, lead, spread = t.isf((1 - self.level) / wide.shape[1], n - 1), gaps.mean(), gaps.std()
            half, wanted = bound * spread / math.sqrt(n), (bound + t.isf(0.2, n - 1)) * spread  # power of 4/5
            ends = {"low": lead - half, "high": lead + half, "needed": (wanted / lead.where(lead > 0)).fillna(math.inf)}
            found[float(str(world))] = best, lead.to_frame("behind").assign(**ends)
        return found

    def verdicts(self, measure: str = "area") -> list[ArmVerdict]:
        """Return for each share of reviewer error which arm was best, and whether that is proven; of one arm, nothing.

        Parameters
        ----------
        measure
            ``area``: mean accuracy along the learning curve; ``accuracy``: at its end; ``cost``: reviews for 1,000
            answers of the last model, those below the threshold and, at ``error_cost`` each, the errors above it.

        Notes
        -----
        Seeds are splits of the same data: a verdict says what holds on this data, not on other data. Each verdict has
        its own chance of being wrong.
        """
        found, n = [], self.frame["seed"].nunique()
        for world, (best, gaps) in self._gaps(measure).items():
            rival, missing = gaps["low"].argmin() if len(gaps) else None, gaps["needed"].max() ** 2 - n
            if rival is not None:
                lead, low, high, _ = map(float, gaps.iloc[rival])
                found.append(ArmVerdict(
                    measure=measure, reviewer_error=world, best=", ".join(best), rival=", ".join(gaps.index[rival]),
                    lead=lead, low=low, high=high, level=self.level, seeds=n,
                    seeds_missing=None if missing > MOST_SEEDS else max(1, LEAST_SEEDS - n, math.ceil(missing)),
                ))  # fmt: skip
        return found

    def summary(self, measure: str = "area") -> pd.DataFrame:
        """Return a line for each arm: means over seeds, and how far it is behind the best, paired, with an interval.

        ``automatic_error`` is the share of all automatic answers of all seeds that was wrong; ``behind``, ``low`` and
        ``high`` are NaN for the best arm.
        """
        import pandas as pd

        names = ["area", "accuracy", "automatic", "missed", "cost"]
        means = self.loops.groupby([WORLD, *ARM], sort=False)[names].mean().reset_index()
        error = means.pop("missed") / means["automatic"].where(means["automatic"] > 0)
        means.insert(len(means.columns) - 1, "automatic_error", error)
        gaps = pd.concat({world: one.drop(columns="needed") for world, (_, one) in self._gaps(measure).items()})
        return means.join(gaps.rename_axis(arm := [WORLD, *gaps.index.names[1:]]), on=arm)

    def __str__(self) -> str:
        alone = f"{self.loops['accuracy'].mean():.1%} right after {self.frame['labels'].max():,} labels"
        return "; ".join(map(str, self.verdicts())) or alone

    def _table(self) -> Table:
        summary: Any = self.summary()
        lines = [
            (*one[1:4], f"{100 * one[0]:.3g}%", *("" if math.isnan(share) else f"{share:.2%}" for share in one[4:8]),
             f"{one.cost:,.0f}", "best" if math.isnan(one.behind) else f"{100 * one.low:+.2f} to {100 * one.high:+.2f}")
            for one in summary.itertuples(index=False)
        ]  # fmt: skip
        columns = (*ARM, "reviewers err", "area", "accuracy", "automatic", "wrong of those", "cost of 1,000", "behind")
        about = f"{self.frame['seed'].nunique()} loops an arm, to {self.frame['labels'].max():,} labels"
        said = [str(one) for measure in ("area", "cost") for one in self.verdicts(measure)]
        return table(about, columns, lines, [*said, "behind: points of area; next: .summary(measure), .frame, .plot()"])

    def plot(self, ax: Axes | None = None, *, reviewer_error: float | None = None) -> Axes:
        """Draw accuracy by labels, mean and interval over seeds, a line for each strategy and weighting."""
        import matplotlib.pyplot as plt
        from scipy.stats import t

        ax = plt.subplots()[1] if ax is None else ax
        worlds = sorted(self.frame[WORLD].unique())
        world = worlds[0] if reviewer_error is None else reviewer_error
        if world not in worlds:
            raise BadInput(name=WORLD, value=world, remedy=f"is none of {', '.join(map(str, worlds))}")
        shown = self.frame[(self.frame[WORLD] == world) & (self.frame["rule"] == self.frame["rule"].iloc[0])]
        for arm, rows in shown.groupby(ARM[:2], sort=False):
            steps = 100 * rows.pivot(index="labels", columns="seed", values="accuracy")
            mean, n = steps.mean(axis=1), steps.shape[1]
            half = t.isf((1 - self.level) / 2, n - 1) * steps.std(axis=1) / math.sqrt(n)
            [drawn] = ax.plot(steps.index, mean, marker=".", label=line(", ".join(arm)))
            ax.fill_between(steps.index, mean - half, mean + half, alpha=0.2, color=drawn.get_color())
        ax.set(xlabel="labels", ylabel="right (%)")
        ax.set_title(f"What labels are worth where reviewers err in {100 * world:.3g}%")
        ax.legend()
        return ax
