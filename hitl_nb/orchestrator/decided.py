"""The frame that a caller gets back; as a cell's last line it says first what was decided, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pandas as pd

from hitl_nb.display import Shows, Table, table
from hitl_nb.task import Status

#: rows, and kinds of reasons, that are shown
ROWS, REASONS = 8, 5
_COLUMNS = ("status", "label", "confidence", "reason", "priority", "expertise", "deadline")


class DecisionFrame(Shows, pd.DataFrame):
    """What was decided, one row an input; what is made from it, such as a slice, is an ordinary frame."""

    #: how many rows were drawn for a random audit
    audits = 0
    _metadata: ClassVar[list[str]] = ["audits"]

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _table(self) -> Table:
        head = self.head(ROWS)
        names = [name for name in _COLUMNS if name in self.columns and head[name].notna().any()]
        lines = zip(head.index, *(map(_cell, head[name]) for name in names), strict=True)
        rest = [f"… {len(self) - ROWS:,} more rows"] if len(self) > ROWS else []
        notes = [*rest, "queue.explain(task_id) tells the story of a row; every row has its task_id"]
        whole = {"status", "reasons"} <= set(self.columns)  # a column can be taken out in place
        title, why = (self._sentence(), self._reasons()) if whole else (f"{len(self):,} rows", [])
        return table(title, ("", *names) if len(self) else (), lines, notes, why)

    def _sentence(self) -> str:
        n, approved = len(self), int((self["status"] == Status.AUTO_APPROVED).sum())
        share = f" ({approved / n:.1%})" if n else ""
        return f"{n:,} inputs: {approved:,} auto-approved{share}, {n - approved:,} for a person; {self.audits:,} audits"

    def _reasons(self) -> list[str]:
        strongest = (found[0] for found in self["reasons"] if found)
        counts = Counter((reason.says, reason.bound) for reason in strongest).most_common()
        said = [f"{n:,} × {says.replace('{value}', '…').replace('{bound}', f'{bound}')}" for (says, bound), n in counts]
        return said[:REASONS] + ([f"… {len(said) - REASONS} more kinds of reasons"] if len(said) > REASONS else [])


def _cell(value: Any) -> str | None:
    missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return None if missing else f"{value:.4g}" if isinstance(value, float) else value
