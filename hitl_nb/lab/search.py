"""A seeded search for a policy, and the winner confirmed on rows that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput
from hitl_nb.evidence import clopper_pearson
from hitl_nb.evidence.check import count, within
from hitl_nb.lab.compare import figures
from hitl_nb.lab.history import History, read
from hitl_nb.lab.logged import Logged, pooled
from hitl_nb.lab.replay import Prices, Replay, judge, replay
from hitl_nb.policy import Policy

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Search(Shows):
    """What a search found; made by `search`."""

    #: a line for each try, the best first: threshold, audit_rate, what `compare` says of it, provable (the bound that
    #: its own audits would show over as many rows), keeps (whether both bounds keep the risk)
    frame: pd.DataFrame
    #: the winner; None where no try keeps the risk
    policy: Policy | None
    #: the winner on the rows that the search never saw
    unseen: Replay | None
    #: risk that is to be kept, a share
    max_risk: float

    @property
    def confirmed(self) -> bool:
        """Whether the winner keeps the risk on rows that the search never saw."""
        return self.unseen is not None and not self.unseen.misses(max_risk=self.max_risk)

    def __str__(self) -> str:
        tries = f"of {len(self.frame):,} tries"
        if self.policy is None or self.unseen is None:
            return f"None {tries} keeps a risk of {self.max_risk:.2%}: audit more, or allow more."
        won = f"{self.policy.confidence_threshold:.3f} with audits of {self.policy.audit_rate:.3g} won {tries}"
        said = "confirmed" if self.confirmed else "not confirmed, so take it for a guess"
        return f"Threshold {won}. On rows that the search never saw: {said}. {self.unseen}"

    def _table(self) -> Table:
        rows = [(f"{one.threshold:.3f}", f"{one.audit_rate:.3g}", f"{one.coverage:.1%}", f"{one.at_most:.2%}",
                 f"{one.provable:.2%}", f"{one.reviews:,.1f}") for one in self.frame[:8].itertuples()]  # fmt: skip
        header = ("threshold", "audits", "automatic", "wrong, at most", "its audits would show", "reviews in 1,000")
        return table(str(self), header, rows, pooled(self.unseen.logged.rows) if self.unseen else [])


def search(
    history: Any, policy: Policy | None = None, *, max_risk: float = 0.02, thresholds: Sequence[float] | None = None,
    audit_rates: Sequence[float] = (0.01, 0.02, 0.05, 0.1), tries: int = 200, prices: Prices | None = None,
    unseen: float = 0.5, level: float = 0.95, seed: int = 0,
) -> Search:  # fmt: skip
    """Search thresholds and audit rates for the fewest reviews, or the least cost, at a risk; then confirm the winner.

    A random part of the rows chooses. A try may win if on that part the upper bound of its risk is at most `max_risk`,
    and if its own audits could show as much over as many rows as the whole history has. The best of many bounds is
    seldom as good as it looks, so the other part, which no try has seen, judges the winner, once: that bound holds.

    Parameters
    ----------
    history
        What `read` takes, such as ``queue.history(inputs=True)``.
    policy
        What every try takes the rest from; default: ``Policy()``.
    max_risk
        Disagreement with what goes through that is not to be exceeded, a share.
    thresholds, audit_rates
        What is tried; default: 40 thresholds that part the rows evenly.
    tries
        Most pairs of them that are tried; of more a random choice.
    prices
        With prices the cheapest wins, without them the one with the fewest reviews.
    unseen
        Share of the rows that is kept for the confirmation.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 6000)
    >>> found = search({"confidence": sure, "wrong": rng.random(6000) > sure}, max_risk=0.05)
    >>> found.confirmed, found.policy.audit_rate, round(found.policy.confidence_threshold, 2)
    (True, 0.1, 0.94)
    """
    rows: History = read(history)
    rng, base = np.random.default_rng(seed), policy or Policy()
    kept = rng.random(len(rows)) < within("unseen", unseen, inside=True)
    part = Logged(rows[~kept], seed)
    sure = rows.confidence[rows.open & ~kept]
    evenly = np.quantile(sure, np.linspace(0, 0.99, 40)) if len(sure) else np.ones(1)
    tried = np.unique(evenly if thresholds is None else np.asarray(thresholds, dtype=np.float64)).tolist()
    pairs = [(threshold, float(rate)) for threshold in tried for rate in audit_rates]
    if not pairs or not count("tries", tries):
        raise BadInput(name="thresholds, audit_rates, tries", value=(0, tries), remedy="there is nothing to try")
    if len(pairs) > tries:
        pairs = [pairs[i] for i in np.sort(rng.choice(len(pairs), tries, replace=False))]
    lines = []
    for threshold, rate in pairs:
        made = replace(base, confidence_threshold=threshold, audit_rate=rate)
        one = figures(judge(made, part, prices=prices, level=level, seed=seed)[1])
        shown = _provable(one, rate * len(rows), level)
        keeps = max(one["at_most"], shown) <= within("max_risk", max_risk)
        lines.append({"threshold": threshold, "audit_rate": rate, **one, "provable": shown, "keeps": keeps})
    return _judged(lines, base, rows[kept], prices, level, max_risk, seed)


def _judged(
    lines: list[dict[str, Any]], base: Policy, unseen: History, prices: Prices | None, level: float, max_risk: float,
    seed: int,
) -> Search:  # fmt: skip
    """Order the tries, and let the rows that none has seen judge the best."""
    import pandas as pd

    order = ["keeps", "cost" if prices else "reviews", "threshold", "audit_rate"]
    frame = pd.DataFrame(lines).sort_values(order, ascending=[False, True, True, True], ignore_index=True)
    best = frame.iloc[0]
    if not best["keeps"]:
        return Search(frame=frame, policy=None, unseen=None, max_risk=max_risk)
    won = replace(base, confidence_threshold=float(best["threshold"]), audit_rate=float(best["audit_rate"]))
    judged = replay(won, Logged(unseen, seed), prices=prices, level=level)
    return Search(frame=frame, policy=won, unseen=judged, max_risk=max_risk)


def _provable(one: dict[str, float], audits: float, level: float) -> float:
    """Return the bound that so many audits of all rows would show, if as many were wrong as here."""
    n = int(audits * one["coverage"])
    return clopper_pearson(round(n * one["risk"]), n, 2 * level - 1).high if one["judged"] else np.nan
