"""One slider in a notebook: what a threshold automates, how often that is wrong, what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hitl_nb.display import line
from hitl_nb.errors import BadInput
from hitl_nb.evidence.check import within
from hitl_nb.lab.history import History, read
from hitl_nb.lab.logged import pooled
from hitl_nb.lab.look import RiskCoverageDisplay
from hitl_nb.policy import Policy

#: colour of text in a disabled field, which is paler than it says; the variable is JupyterLab's
INK = "var(--jp-content-font-color0)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What to expect of one threshold."""

    #: confidence from which nobody is asked
    threshold: float
    #: share of all rows decided without a person; hard rules and unknown confidences are not
    automatic: float
    #: error among those, a share: best guess and the ends of a band that holds at every threshold at once
    risk: float
    low: float
    high: float
    #: rows that a person judges, audits among them, of a thousand
    reviews: float
    #: the same an hour, at the pace at which the history came; NaN without its times
    per_hour: float
    #: cost of a thousand rows: reviews, and errors at the upper end of the band; NaN where no cost was given
    cost: float

    @property
    def bars(self) -> dict[str, tuple[float, str]]:
        """What can be shown as bars: how long, and in words; a cost that is not known is left out."""
        shown = {
            "automatic": (self.automatic, f"automatic: {self.automatic:.1%}"),
            "wrong": (self.high, f"of those wrong: {self.low:.1%} to {self.high:.1%}"),
            "reviews": (self.reviews, f"reviews in 1,000: {self.reviews:,.0f}{self._hourly}"),
            "cost": (self.cost, f"cost of 1,000: at most {self.cost:,.2f}"),
        }
        return {name: bar for name, bar in shown.items() if not np.isnan(bar[0])}

    @property
    def _hourly(self) -> str:
        return "" if np.isnan(self.per_hour) else f", {self.per_hour:,.1f} an hour"

    def __str__(self) -> str:
        cost = "" if np.isnan(self.cost) else f"; 1,000 cost at most {self.cost:,.2f}"
        return (
            f"At {self.threshold:.3f} or more, {self.automatic:.1%} go through without a person and {self.low:.1%} to"
            f" {self.high:.1%} of those are wrong; {self.reviews:,.0f} reviews in 1,000{self._hourly}{cost}."
        )


def outlooks(
    history: Any, policy: Policy, *, review_cost: float | None = None, error_cost: float | None = None,
    level: float = 0.95, seed: int = 0,
) -> list[Outlook]:  # fmt: skip
    """Return what to expect of each threshold worth a look, lowest first.

    Parameters
    ----------
    history
        What `read` takes.
    policy
        Its audit rate counts among the reviews; audits stop errors only where callers wait for them.
    review_cost, error_cost
        Of one review, and of one wrong answer that nobody stopped, in the same unit; a cost needs both.
    """
    rows: History = read(history)
    shown = RiskCoverageDisplay.from_history(rows, level=level, seed=seed).frame.iloc[::-1]
    known, pace = float(rows.open.mean()), rows.pace
    stopped = policy.audit_rate * policy.audit_blocks
    prices = [float("nan") if cost is None else _cost(name, cost) for name, cost in
              (("review_cost", review_cost), ("error_cost", error_cost))]  # fmt: skip
    found = []
    for threshold, coverage, risk, low, high, _ in shown.itertuples(index=False):
        automatic = known * coverage
        asked = 1 - automatic + policy.audit_rate * automatic
        cost = 1000 * (asked * prices[0] + automatic * (1 - stopped) * high * prices[1])
        found.append(Outlook(
            threshold=threshold, automatic=automatic, risk=risk, low=low, high=high, reviews=1000 * asked,
            per_hour=asked * pace, cost=cost,
        ))  # fmt: skip
    return found


def _cost(name: str, value: float) -> float:
    return within(name, value, 0, 1e12)


@dataclass(kw_only=True, eq=False)
class Explorer:
    """A slider over thresholds and what each would mean; made by `explore`."""

    #: one for each position of the slider, lowest threshold first
    outlooks: list[Outlook]
    #: what the button starts from
    policy: Policy
    #: file that the button writes
    path: Path
    #: what is said beside the button, such as that several models are taken together
    note: str = ""
    #: what a cell shows
    widget: Any = field(init=False)

    def __post_init__(self) -> None:
        import ipywidgets as w

        now = self.policy.confidence_threshold
        start = now if isinstance(now, float) else 1.0
        first = int(np.argmin([abs(one.threshold - start) for one in self.outlooks]))
        positions = [(f"{one.threshold:.3f}", i) for i, one in enumerate(self.outlooks)]
        wide, words = w.Layout(width="100%"), {"description_width": "20em"}
        self._slider = w.SelectionSlider(
            options=positions, index=first, description="threshold", layout=wide, style=words,
        )  # fmt: skip
        most = {name: max(one.bars[name][0] for one in self.outlooks) or 1.0 for name in self.outlooks[0].bars}
        self._bars = {name: w.FloatProgress(max=end, layout=wide, style=words) for name, end in most.items()}
        self._text, self._said = (
            w.Textarea(disabled=True, rows=rows, layout=wide, style={"text_color": INK}) for rows in (2, 1)
        )
        self._button = w.Button(
            description="Make this my policy", tooltip=f"Write {self.path}", button_style="primary",
            layout=w.Layout(width="auto", flex="none"),
        )  # fmt: skip
        self._slider.observe(lambda _: self._draw(), names="value")
        self._button.on_click(lambda _: self._write())
        self.widget = w.VBox([self._slider, *self._bars.values(), self._text, w.HBox([self._button, self._said])])
        self._draw()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.widget._repr_mimebundle_(), "text/plain": str(self.outlook)}

    @property
    def outlook(self) -> Outlook:
        """What the slider stands at."""
        return self.outlooks[int(self._slider.value)]

    def choose(self, threshold: float) -> Outlook:
        """Move the slider to the nearest threshold."""
        within("threshold", threshold)
        self._slider.value = int(np.argmin([abs(one.threshold - threshold) for one in self.outlooks]))
        return self.outlook

    def make_policy(self) -> Policy:
        """Return the policy with the threshold of the slider, and write it to the file; what was there gets .bak."""
        import tomli_w

        made = replace(self.policy, confidence_threshold=float(self.outlook.threshold))
        if self.path.exists():
            self.path.replace(self.path.with_name(f"{self.path.name}.bak"))
        self.path.write_text(tomli_w.dumps(made.to_dict()), encoding="utf-8")
        return made

    def _draw(self) -> None:
        found = self.outlook
        for name, shown in found.bars.items():
            self._bars[name].value, self._bars[name].description = shown
        self._text.value, self._said.value = str(found), self.note

    def _write(self) -> None:
        try:
            made = self.make_policy()
            self._said.value = f"policy {made.fingerprint} is in {line(str(self.path))}"
        except Exception as error:  # in a callback nobody would see it
            self._said.value = line(f"not written: {error}")


def explore(
    history: Any, policy: Policy | None = None, *, path: str | Path = "policy.toml", review_cost: float | None = None,
    error_cost: float | None = None, level: float = 0.95, seed: int = 0,
) -> Explorer:  # fmt: skip
    """Show one slider: what each threshold would automate, how often that is wrong, how many reviews and what it costs.

    Parameters
    ----------
    history
        What `read` takes, such as ``queue.history()``.
    policy
        What the button takes everything from but the threshold; default: ``Policy()``.
    path
        File that the button writes, TOML.
    review_cost, error_cost
        Of one review, and of one wrong answer that nobody stopped, in the same unit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sure = rng.beta(8, 0.8, 2000)
    >>> slider = explore({"confidence": sure, "wrong": rng.random(2000) > sure}, review_cost=1, error_cost=20)
    >>> round(slider.choose(0.9).threshold, 3), round(slider.outlook.automatic, 2)
    (0.899, 0.68)
    """
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise BadInput(name="path", value=str(path), remedy="pass the name of a file in a folder that exists")
    chosen = Policy() if policy is None else policy
    rows = read(history)
    found = outlooks(rows, chosen, review_cost=review_cost, error_cost=error_cost, level=level, seed=seed)
    return Explorer(outlooks=found, policy=chosen, path=target, note="; ".join(pooled(rows)))
