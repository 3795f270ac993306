"""What a retrain led to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hitl_nb.display import Shows, Table, line, table
from hitl_nb.evidence import PairedComparison, clopper_pearson
from hitl_nb.learner import Challenger
from hitl_nb.loop.reorder import Reordered

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: what came of a retrain, and what to do next
_VERDICTS = {
    "first": ("is in use: the first model, compared with none", "loop.learner.predict(frame)"),
    "promote": ("is in use now: proven not worse by more than the margin", "loop.learner.predict(frame)"),
    "refuse": ("is not in use: proven worse", "look at the answers it learned from; the model before stays in use"),
    "undecided": ("is not in use: undecided", "about {more:,} more random labels; audits give them"),
}


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class RetrainReport(Shows):
    """What a retrain led to; ``str()`` is one sentence."""

    #: the new model
    challenger: Challenger
    #: how it compares with the one in use; None for a first model
    comparison: PairedComparison | None
    #: whether it is in use now
    promoted: bool
    #: how often this holdout has been looked at; each look spends a part of the level
    looks: int
    #: task ids that the model in use learned from and that no longer stand so: undone, corrected or erased since
    outdated: tuple[str, ...] = ()
    #: the model that was in use until then; None for a first model
    before: str | None = None
    #: what became of the open tasks, or why they stayed; None: nothing was to be done
    reordered: Reordered | str | None = None

    def __str__(self) -> str:
        made = f"{self.challenger.version} from {self.challenger.n_rows} rows"
        old = f"; the model in use learned from {len(self.outdated)} rows that no longer stand" if self.outdated else ""
        after = f"; {self.reordered}" if self.reordered else ""
        found = f"{self.comparison} (look {self.looks})" if self.comparison else "in use, as the first model"
        return f"{made}: {found}{old}{after}"

    @property
    def frame(self) -> pd.DataFrame:
        """The comparison, all cases first and then each class: n, difference, low, high (shares), state."""
        import pandas as pd

        found, lines = self.comparison, []
        if found is not None:
            lines = [("all", found.n, found.difference, found.low, found.high, str(found.verdict))]
            lines += [(c.label, c.n, c.difference, c.low, c.high, str(c.state)) for c in found.classes]
        return pd.DataFrame(lines, columns=["class", "n", "difference", "low", "high", "state"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the difference of the two error rates with its bounds, for all cases and for each class."""
        import matplotlib.pyplot as plt

        ax, found = plt.subplots()[1] if ax is None else ax, self.frame
        share = 100 * found[["difference", "low", "high"]]
        ends, places = [share["difference"] - share["low"], share["high"] - share["difference"]], -found.index
        colors = ["C1" if one in ("refuse", "worse", "lower") else "C0" for one in found["state"]]
        for place, middle, *end, color in zip(places, share["difference"], *ends, colors, strict=True):
            ax.errorbar(middle, place, xerr=[[end[0]], [end[1]]], marker="o", color=color)
        ax.axvline(0, color="0.6", linewidth=1)
        names = [f"{line(label, 30)} ({n:,})" for label, n in zip(found["class"], found["n"], strict=True)]
        ax.set_yticks(places, names)
        ax.set(xlabel="errors more than before (points)")
        ax.set_title(f"{self.challenger.version} against {self.before}")
        return ax

    def _table(self) -> Table:
        made, found, rows = self.challenger, self.comparison, []
        notes = [f"it learned from {made.n_rows:,} rows, {made.metrics.get('reviewed_rows', 0):,} of them reviewed"]
        if made.effective_size:
            notes += [f"their weights let them count like {made.effective_size:,.0f} rows of equal weight"]
        if found is not None:
            repaired, broken, both = found.only_champion_wrong, found.only_challenger_wrong, found.both_wrong
            old, new = (str(clopper_pearson(both + wrong, found.n)) for wrong in (repaired, broken))
            rows += [(f"{self.before}, in use before", both + repaired, old), (made.version, both + broken, new)]
            level = f"one-sided bounds at {100 * found.level:.4g}%"
            bounds = f"{found.difference:+.1%} ({found.low:+.1%} to {found.high:+.1%}, {level})"
            rows.append((f"{repaired} repaired, {broken} broken", broken - repaired, bounds))
            notes += [f"look {self.looks} at this holdout; all looks together share one chance of a wrong promotion"]
            notes += [f"against a promotion: class {one}" for one in found.blocked]
            notes += self._unproven(found) + self._unanswered(found)
        if self.outdated:
            notes += [f"the model in use learned from {len(self.outdated):,} rows that no longer stand: retrain"]
        notes += [str(self.reordered)] if self.reordered else []
        columns = ("model", f"wrong of {found.n}", "error on the holdout") if found else ()
        verdict, todo = _VERDICTS[found.verdict if found else "first"]
        more = found.labels_needed if found else 0
        return table(f"{made.version} {verdict}", columns, rows, [*notes, f"next: {todo.format(more=more)}"])

    def _unanswered(self, found: PairedComparison) -> list[str]:
        against = f"the two differ on {found.differ:,}, which count against a promotion until somebody answers"
        return [f"{found.unanswered:,} cases of this draw have no answer: {against}"] if found.unanswered else []

    def _unproven(self, found: PairedComparison) -> list[str]:
        names = [f"{one.label} ({one.n})" for one in found.classes if one.state in ("open", "few")]
        return [f"too few rows to prove that these classes lose nothing: {', '.join(names)}"] if names else []
