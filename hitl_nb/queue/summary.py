"""The queue as a table: what a cell shows that ends with it, and what ``hitl-nb stats`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from hitl_nb.display import Table, table
from hitl_nb.evidence import clopper_pearson
from hitl_nb.queue.read import stats
from hitl_nb.task import Priority

if TYPE_CHECKING:
    from hitl_nb.queue.queue import ReviewQueue

#: most names counted on one line
NAMES = 6


def of_queue(queue: ReviewQueue) -> Table:
    """Return the counts of a queue, what the audits say, and what to do next."""
    name = f"Review queue {queue.name}"
    if queue.closed:
        return table(f"{name}, closed", notes=["open_queue(path) opens a file again"])
    found = queue.store.read(stats)
    wrong, judged, *_ = found.audit_counts
    share, waiting = found.automatic_share, sum(found.open_by_priority.values())
    rows = [
        ("decisions", f"{found.total}"),
        ("automatic share", "none yet" if share is None else f"{share:.1%}"),
        ("status", _counts(found.status)),
        ("open by priority", _counts({str(p): found.open_by_priority.get(str(p), 0) for p in Priority}, ranked=True)),
        ("open by expertise", _counts(found.open_by_expertise)),
        ("oldest open", _time(found.oldest)),
        ("next deadline", _time(found.next_deadline)),
        ("overdue", f"{found.overdue}"),
        ("answers", _counts(found.outcome)),
        ("reviewers", _counts(found.reviewers)),
        ("audits", f"{found.audits} drawn, {judged} judged"),
        ("audited disagreement", str(clopper_pearson(wrong, judged)) if judged else "none yet"),
    ]
    todo = 'next: ReviewPanel(queue) shows one after the other, queue.claim("me") hands one out' if waiting else ""
    return table(f"{name}, {waiting:,} open", rows=rows, notes=[todo or "nothing waits for a person"])


def _counts(found: Mapping[str, int] | Mapping[str | None, int], ranked: bool = False) -> str:
    counts = [(name or "anyone", count) for name, count in found.items() if count]
    counts = counts if ranked else sorted(counts, key=lambda one: (-one[1], one[0]))
    more = [f"… {len(counts) - NAMES} more"] if len(counts) > NAMES else []
    return ", ".join([f"{name} {count}" for name, count in counts[:NAMES]] + more) or "none"


def _time(when: datetime | None) -> str:
    return "none" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"
