"""An alarm that may be looked at after every case: more errors than promised, or confidences other than before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hitl_nb.display import Shows, Table, table
from hitl_nb.errors import BadInput, EvidenceError
from hitl_nb.evidence import Certificate
from hitl_nb.evidence.check import within
from hitl_nb.evidence.sequential import Alarm, error_bets, rank_bets
from hitl_nb.lab.estimate import automatic
from hitl_nb.lab.history import Bools, Floats, History, read
from hitl_nb.lab.sequential import in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: bins of confidence, and the fewest earlier confidences that make a reference of them
BINS, FEWEST = 20, 100
#: rows that are ranked at once
CHUNK = 50_000
CHANGED = "confidences are others than before"


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftState:
    """What a `DriftAlarm` knows; it goes on from there: ``DriftAlarm(state=...)``."""

    #: error rate that is not to be exceeded, a share
    bound: float
    #: bets that it is exceeded, one case a judged automatic row
    errors: Alarm
    #: judged automatic rows that were wrong
    wrong: int = 0
    #: bets that confidences have changed, one case a row; None where there is no reference
    confidences: Alarm | None = None
    #: ends of the bins of confidence, and rows in each, those of the reference among them
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    #: seed of the draws that break ties of confidences
    seed: int = 0


class DriftAlarm(Shows):
    """Fires when the automatic part is wrong more often than promised, or when confidences are others than before.

    Feed rows once they are judged: what is judged after its feed never counts, so a day's rows fed that night leave out
    all answers of the next day; the surest way is a new alarm on the whole history. It fires wrongly, over the whole of
    an endless stream, with a chance of at most ``1 - level``, however often one looks (Ville 1939); with a reference,
    half of that is kept for each of the two kinds. Errors: bets begun anew at each case (Shin, Ramdas and Rinaldo 2022,
    arXiv 2203.03532). Confidences: bets on their ranks among all before them, which are uniform while rows come in no
    order (conformal test martingale, Vovk and others 2021, arXiv 2102.10439); a rhythm of days or weeks is a change
    too.

    Parameters
    ----------
    bound
        Error rate that is not to be exceeded, or the certificate that promises it.
    level
        1 - chance of a wrong alarm.
    reference
        Confidences from the time when all was well, at least 100; None: errors alone are watched.
    seed
        Draws how equal confidences are ranked.
    state
        What an earlier one knew, in place of all others.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> alarm = DriftAlarm(0.02)
    >>> for risk in (0.02, 0.02, 0.06):
    ...     _ = alarm.feed({"wrong": rng.random(600) < risk, "confidence": [0.9] * 600}, threshold=0.9)
    >>> print(alarm)
    Alarm at judged row 1,397: more than 2 % are wrong; 60 of 1,800 judged automatic rows were wrong (3.3 %).
    """

    def __init__(
        self, bound: float | Certificate | None = None, level: float = 0.95, *, reference: Any = None, seed: int = 0,
        state: DriftState | None = None,
    ) -> None:  # fmt: skip
        self.state = state or _start(bound, 1 - within("level", level, inside=True), reference, seed)
        self._paths: dict[str, list[Floats]] = {"errors": [], "confidences": []}

    @property
    def fired(self) -> bool:
        """Whether it has fired."""
        return any(one is not None and one.fired_at is not None for one in (self.state.errors, self.state.confidences))

    def feed(self, history: Any, *, threshold: float | None = None) -> DriftState:
        """Take the rows that came since, with the judgements that they have; what is judged later does not count.

        Parameters
        ----------
        history
            What `read` takes. Errors are counted among the judged rows that went through, in the order of their
            judgement and as if all had had the same chance; confidences in the order of the rows.
        threshold
            Confidence from which rows go through; None: as they did at the time.
        """
        rows: History = read(history)
        sure = rows.confidence[rows.open]
        for some in np.array_split(sure, len(sure) // CHUNK + 1):
            self._feed_confidences(some)
        try:
            among = automatic(rows, threshold)
        except EvidenceError:  # everything went to people
            return self.state
        wrong = in_order(rows, among & (rows.probability > 0), self.state.seed).wrong == 1
        self._feed_errors(np.asarray(wrong))
        return self.state

    def _feed_errors(self, wrong: Bools) -> None:
        errors, path = self.state.errors.after(error_bets(wrong, self.state.bound))
        self.state = replace(self.state, errors=errors, wrong=self.state.wrong + int(wrong.sum()))
        self._paths["errors"].append(path)

    def _feed_confidences(self, confidence: Floats) -> None:
        state = self.state
        if state.confidences is None:
            return
        before = np.array(state.counts)
        binned = np.searchsorted(state.edges, confidence, side="right")
        each = np.eye(len(before), dtype=np.int64)[binned]
        counts = before + np.cumsum(each, axis=0) - each  # before each row
        lower, same = np.cumsum(counts, axis=1), np.arange(len(binned))
        ties = counts[same, binned] + 1
        generator = np.random.PCG64(state.seed)
        generator.advance(state.confidences.n)  # the same draws, however the rows are split into frames
        drawn = np.random.Generator(generator).random(len(binned))
        rank = (lower[same, binned] - ties + 1 + drawn * ties) / (counts.sum(axis=1) + 1)
        now, path = state.confidences.after(rank_bets(rank))
        self.state = replace(state, confidences=now, counts=tuple((before + each.sum(axis=0)).tolist()))
        self._paths["confidences"].append(path)

    def __str__(self) -> str:
        said = self.state
        rate, bound = f" ({100 * said.wrong / max(said.errors.n, 1):.1f} %)", f"{100 * said.bound:.3g} %"
        seen = f"{said.wrong:,} of {said.errors.n:,} judged automatic rows were wrong{rate}"
        if said.errors.fired_at is not None:
            return f"Alarm at judged row {said.errors.fired_at:,}: more than {bound} are wrong; {seen}."
        if said.confidences is not None and said.confidences.fired_at is not None:
            return f"Alarm at row {said.confidences.fired_at:,}: {CHANGED}; {seen}."
        if not said.errors.n:
            return "No alarm, but no automatic row was judged either: have some audited (audit_rate above 0)."
        return f"No alarm: {seen}, {bound} are promised."

    def _table(self) -> Table:
        watched = [("errors", self.state.errors), ("confidences", self.state.confidences)]
        rows = [(name, f"{one.n:,}", f"{_share(one):.0%}", f"{one.fired_at:,}" if one.fired_at else "no")
                for name, one in watched if one is not None]  # fmt: skip
        return table(str(self), ("watched", "cases", "evidence of what an alarm needs", "fired at"), rows)

    def plot(self, ax: Axes | None = None, *, what: Literal["errors", "confidences"] = "errors") -> Axes:
        """Draw the evidence of a change after each case that this object was fed, and where it makes an alarm."""
        import matplotlib.pyplot as plt

        one = self.state.errors if what == "errors" else self.state.confidences
        if what not in self._paths or one is None:
            raise BadInput(name="what", value=what, remedy="pass errors, or confidences where there is a reference")
        ax = plt.subplots()[1] if ax is None else ax
        path = np.concatenate([np.zeros(0), *self._paths[what]])
        cases = np.arange(one.n - len(path) + 1, one.n + 1)
        ax.plot(cases, np.exp(np.maximum(path, -7)), label="evidence")
        ax.axhline(np.exp(one.limit), color="C1", linestyle="--", label=f"alarm at {np.exp(one.limit):.0f}")
        if one.fired_at is not None:
            ax.axvline(one.fired_at, color="C1", linewidth=1, linestyle=":")
        unit, said = (
            ("judged automatic rows", "more are wrong than promised") if what == "errors" else ("rows", CHANGED)
        )
        ax.set(xlabel=unit, yscale="log", title=f"Evidence that {said}")
        ax.legend(loc="upper left")
        return ax


def _share(one: Alarm) -> float:
    return max(0.0, one.evidence) / one.limit


def _start(bound: float | Certificate | None, chance: float, reference: Any, seed: int) -> DriftState:
    promised = bound.target_risk if isinstance(bound, Certificate) else bound
    if promised is None:
        raise BadInput(name="bound", value=bound, remedy="pass the error rate that is not to be exceeded, such as 0.02")
    risk = within("bound", promised, inside=True)
    if reference is None:
        return DriftState(bound=risk, errors=Alarm(false_alarms=chance), seed=seed)
    given = np.asarray(reference, dtype=np.float64)
    known = given[~np.isnan(given)]
    if len(known) < FEWEST:
        raise EvidenceError(what=f"{len(known)} confidences are too few for a reference; pass {FEWEST} or more")
    makes = np.arange(len(known)) % 4 == 0  # a quarter makes the bins, the others fill them: they are like later rows
    edges = np.unique(np.quantile(known[makes], np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, known[~makes], side="right"), minlength=len(edges) + 1)
    half = Alarm(false_alarms=chance / 2)
    return DriftState(
        bound=risk, errors=half, confidences=half, edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), seed=seed
    )
