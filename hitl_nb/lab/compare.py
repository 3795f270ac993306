"""Policies side by side on one history: paired intervals, and the front beyond which nothing is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, line, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Interval, clopper_pearson, share_difference
from hitl_nb.lab.history import Bools
from hitl_nb.lab.logged import Logged, pooled
from hitl_nb.lab.replay import Outcome, Prices, judge
from hitl_nb.policy import Policy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

#: most policies that a table shows
SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison(Shows):
    """Policies side by side; made by `compare`."""

    #: a line for each policy, by its name: coverage, risk, low, high, at_most (shares), judged (rows behind the risk),
    #: reviews (of 1,000), per_hour, cost (of 1,000); coverage_more and risk_more against the first policy, each with
    #: its _low and _high; front: no other policy lets more through at no more risk, by the best guesses
    frame: pd.DataFrame
    #: rows of the history
    n: int
    #: how often each interval holds, a share
    level: float
    #: what else is to be known, a sentence each, such as that several models are taken together
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        front = [line(name) for name in self.frame.index[self.frame["front"]][:SHOWN]]
        said = f"on the front: {', '.join(front)}" if front else "of no risk anything can be said"
        return f"{len(self.frame):,} policies on {self.n:,} rows; {said}."

    def _table(self) -> Table:
        shown = self.frame.sort_values("front", ascending=False, kind="stable")[:SHOWN]
        rows = [(name, f"{one.coverage:.1%}", _spread(one, "coverage_more"), _share(one.risk),
                 _spread(one, "risk_more"), f"{one.reviews:,.1f}", "yes" if one.front else "")
                for name, one in shown.iterrows()]  # fmt: skip
        more = "more than the first"
        header = ("policy", "automatic", more, "wrong", more, "reviews in 1,000", "front")
        left = [f"{len(self.frame) - SHOWN:,} more are in .frame"] * (len(self.frame) > SHOWN)
        return table(str(self), header, rows, [f"intervals at {self.level:.0%}, each for itself", *left, *self.notes])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw risk against the share that goes through, with the interval of each policy and the front."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        known = 100 * self.frame.loc[self.frame["risk"].notna(), ["coverage", "risk", "low", "high"]]
        ends = [known["risk"] - known["low"], known["high"] - known["risk"]]
        ax.errorbar(known["coverage"], known["risk"], yerr=ends, fmt="o", alpha=0.6, label="policies")
        front = 100 * self.frame.loc[self.frame["front"], ["coverage", "risk"]].sort_values("coverage")
        ax.step(front["coverage"], front["risk"], where="pre", color="C1", label="front")
        for name, one in front[:SHOWN].iterrows():
            place = (one["coverage"], one["risk"])
            ax.annotate(line(name, 20), place, (4, 4), textcoords="offset points", parse_math=False)
        ax.set(xlabel="decided without a person (%)", ylabel="wrong (%)", ylim=(0, None))
        ax.set_title("What policies automate, and how often that is wrong")
        ax.margins(x=0.1)
        ax.legend(loc="upper left")
        return ax


def compare(
    policies: Mapping[str, Policy] | Iterable[Policy], history: Any, *, prices: Prices | None = None,
    level: float = 0.95, seed: int = 0,
) -> Comparison:  # fmt: skip
    """Replay policies over one history, and say how each differs from the first.

    Both differences are paired. That of the shares is a score interval. That of the risks parts the rows into those
    that both let through and those that one does; each part has an exact interval with its share of ``1 - level``
    (Bonferroni), so it holds whatever the errors are, and what both let through nearly cancels.

    Parameters
    ----------
    policies
        By name, the one to compare with first; without names they are called by their fingerprints.
    history, prices, level, seed
        What `replay` takes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 3000)
    >>> rows = {"confidence": sure, "wrong": rng.random(3000) > sure}
    >>> found = compare({"now": Policy(0.9), "lower": Policy(0.8)}, rows).frame.loc["lower"]
    >>> float(round(found.coverage_more, 3)), float(round(found.risk_more, 3))
    (0.209, 0.029)
    """
    named = policies if isinstance(policies, Mapping) else {}
    pairs = [*named.items()] or [(one.fingerprint, one) for one in policies if isinstance(one, Policy)]
    if not pairs or not all(isinstance(one, Policy) for _, one in pairs):
        raise BadInput(name="policies", value=policies, remedy="pass policies, such as {'now': Policy(0.9)}")
    import pandas as pd

    logged = Logged.of(history, seed)
    lines, first = [], None
    for _, policy in pairs:
        automatic, one = judge(policy, logged, prices=prices, level=level, seed=seed)
        first = automatic if first is None else first
        lines.append(figures(one) | _against(logged, first, automatic, level))
    frame = pd.DataFrame(lines, index=pd.Index([name for name, _ in pairs], name="policy"))
    notes = tuple(pooled(logged.rows))
    return Comparison(frame=frame.assign(front=_front(frame)), n=len(logged), level=level, notes=notes)


def figures(found: Outcome) -> dict[str, float]:
    """Return what a replay comes to, as one line of a frame."""
    risk = found.risk or Interval(estimate=np.nan, low=np.nan, high=np.nan, level=1, n=0)
    return {
        "coverage": found.coverage, "risk": risk.estimate, "low": risk.low, "high": risk.high, "at_most": found.at_most,
        "judged": risk.n, "reviews": found.reviews, "per_hour": found.per_hour, "cost": found.cost,
    }  # fmt: skip


def _against(logged: Logged, first: Bools, other: Bools, level: float) -> dict[str, float]:
    both = first & other
    more = share_difference(int((first & ~both).sum()), int((other & ~both).sum()), len(logged), level)
    risks = _risk_more(logged, first, other, both, level)
    found = {"coverage_more": (more.estimate, more.low, more.high), "risk_more": risks}
    return {f"{name}{end}": value for name, three in found.items()
            for end, value in zip(("", "_low", "_high"), three, strict=True)}  # fmt: skip


def _risk_more(logged: Logged, first: Bools, other: Bools, both: Bools, level: float) -> tuple[float, float, float]:
    """Return by how much the risk of the other is larger, with its ends; NaN where nothing can be said."""
    if not first.any() or not other.any():
        return np.nan, np.nan, np.nan
    parts = [(both, 1 / other.sum() - 1 / first.sum()), (first & ~both, -1 / first.sum()),
             (other & ~both, 1 / other.sum())]  # fmt: skip
    parts, ends = [(some, weight * some.sum()) for some, weight in parts if weight and some.any()], np.zeros(3)
    for some, weight in parts:
        try:
            rows, _ = logged.sample(some)
        except EvidenceError:
            return np.nan, np.nan, np.nan
        one = clopper_pearson(int(logged.rows.wrong[rows].sum()), len(rows), 1 - (1 - level) / len(parts))
        ends += weight * np.array([one.estimate, *((one.low, one.high) if weight > 0 else (one.high, one.low))])
    return float(ends[0]), float(ends[1]), float(ends[2])


def _front(frame: pd.DataFrame) -> Bools:
    columns = (frame[name].to_numpy() for name in ("coverage", "risk"))
    more, risk = (np.subtract.outer(column, column) for column in columns)
    better = (more <= 0) & (risk >= 0) & ((more < 0) | (risk > 0))
    return np.asarray(~better.any(axis=1) & frame["risk"].notna())


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2%}"


def _spread(one: Any, name: str) -> str:
    low, high = one[f"{name}_low"], one[f"{name}_high"]
    return "" if np.isnan(low) else f"{one[name]:+.1%} ({low:+.1%} to {high:+.1%})"
