"""Which answers of a queue models are compared on: a simple random sample of its traffic.

People see every case that a policy asks about and, by audits, a share of the others. Audits alone would say nothing
of the first and all answers together little of the second; so the reviews are thinned to the share of the audits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from hitl_nb.evidence import held_draw
from hitl_nb.learner.buffer import as_text


def held_back(rows: pd.DataFrame, most: float) -> pd.Series[bool]:
    """Say which answers of a queue never train: audits, and as large a share of the reviews as audits are drawn.

    Parameters
    ----------
    most : share of the reviews that is held back at most, however many audits there are
    """
    return (rows["source"] == "audit") | (held_draw(rows.index) < rows["audit_rate"].clip(upper=most))


def at_random(rows: pd.DataFrame, most: float) -> pd.Series[bool]:
    """Say which rows, of those that are held back, came with one and the same chance, whatever the model had said.

    Where the audit rates are several that chance is the least of them, see `lab.history.History.sample`. An audit
    without a known rate was chosen, so it is none of them; a row of no policy stands as it is.
    """
    rate, audit = rows["audit_rate"], rows["source"] == "audit"
    usual = rate.clip(upper=most)
    drawn: pd.Series[bool] = held_draw(rows.index) * rate.where(audit, 1.0) < usual[usual > 0].min()
    return drawn.where(usual > 0, ~audit)


def answers(
    judge: Callable[[Any, pd.DataFrame], tuple[NDArray[Any], Any]], model: Any, rows: pd.DataFrame
) -> list[Any]:
    """Return what a model says of each row, None where it cannot judge it; one odd row spoils no other."""
    try:
        return list(judge(model, rows)[0].tolist()) if len(rows) else []
    except (ValueError, TypeError):
        half = len(rows) // 2
        return [*answers(judge, model, rows[:half]), *answers(judge, model, rows[half:])] if half else [None]


def wrong(said: Sequence[Any], truth: Sequence[Any]) -> list[bool]:
    """Say for each answer whether it is another one; as text where one side is, so that 7 and "7" are one label.

    >>> wrong([7, 8.0], ["7", "9"])
    [False, True]
    """
    if any(isinstance(label, str) for label in (*said, *truth)):
        said, truth = [as_text(label) for label in said], [as_text(label) for label in truth]
    return [one != other for one, other in zip(said, truth, strict=True)]
