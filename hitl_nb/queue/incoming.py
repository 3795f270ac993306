"""What comes ready to be stored from another process: checked as strictly as what is made here.

A submission that a policy made elsewhere names its own id, columns and texts. Here is said which of them it may.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from hitl_nb.errors import BadInput
from hitl_nb.payload import canonical, digest, name, parse
from hitl_nb.queue.row import TaskRow, dump_list
from hitl_nb.queue.store import is_id
from hitl_nb.queue.submit import Submission, audit_event, key_hash
from hitl_nb.task import CONSENSUS, ON_DEADLINE, Status

if TYPE_CHECKING:
    from hitl_nb.queue.frame import FrameSubmission, Kind

#: what stands in a row before anybody has touched the task
UNTOUCHED = (
    "attempt", "holder", "lease_until", "claimed_at", "came_from", "returns", "level", "overdue", "version", "answers",
    "standing", "skipped", "final", "outcome", "reviewer", "reviewed_at", "delivered_at", "delivered", "erased_at",
)  # fmt: skip
#: longest list of reasons, and of expertises, as they stand in a row, in characters
MAX_LIST = 64 * 1024
#: numbers that a frame brings, one a row
NUMBERS = ("confidence", "audit_uniform", "value")
_REASON = {"rule": (str,), "says": (str,), "bound": (str, int, float, bool, type(None)), "field": (str, type(None)),
           "hard": (bool,)}  # fmt: skip
_KINDS = ("input", "prediction", "score", "reason", "key", "subject")
_TYPES = {column: get_args(kind) or (kind,) for column, kind in get_type_hints(TaskRow).items()}


def check(call: str, args: Sequence[Any]) -> None:
    """Refuse a submission that says more, or other things, than a policy decides about a new task.

    Raises
    ------
    BadInput
        It names what is wrong; nothing has been written.
    """
    wanted = {"store_decided": "Submission", "store_frame": "FrameSubmission"}.get(call)
    if wanted is None:
        return
    if not args or type(args[0]).__name__ != wanted:
        raise BadInput(name="arguments", value=call, remedy=f"the first is a {wanted}; use the same version on both")
    _policy(*args[1:3])
    rows = _submission(args[0]) if isinstance(args[0], Submission) else _frame(args[0])
    for row in rows:
        _require(row.policy in (None, args[1]), "policy", row.policy)


def _wrong(what: str, value: Any) -> BadInput:
    remedy = "a new task has none such, and no history; send what this package makes, of the same version"
    return BadInput(name=what, value=value, remedy=remedy)


def _require(fine: bool, what: str, value: Any) -> None:
    if not fine:
        raise _wrong(what, value)


def _policy(fingerprint: Any = None, policy: Any = None) -> None:
    """Refuse a policy under another's fingerprint: what is logged first under one holds for good."""
    _require(isinstance(policy, dict), "policy", policy)
    _require(fingerprint == digest(canonical(policy, "policy"))[:12], "fingerprint", fingerprint)
    rate = policy.get("audit_rate")
    _require(type(rate) in (int, float) and 0 <= rate <= 1, "audit_rate", rate)


def _submission(ready: Submission) -> list[TaskRow]:
    row, given = ready.row, ready.texts
    _row(row)
    _require(is_id(row.task_id), "task_id", row.task_id)
    _require(type(given) is dict and set(given) <= {*_KINDS}, "texts", given)
    found = {kind: _text(kind, text) for kind, text in given.items()}
    _require({"input", "prediction"} <= set(found), "texts", sorted(found))
    _require(row.key_hash == key_hash(found.get("key")), "key_hash", row.key_hash)
    _require(type(ready.audited) is bool, "audited", ready.audited)
    _require(not ready.audited or row.status == Status.AUTO_APPROVED, "audited", row.status)
    _require(_is_time(ready.audit_deadline), "audit_deadline", ready.audit_deadline)
    return [row]


def _text(kind: str, text: Any) -> Any:
    """Return the value of a text that stands in its one form and is what this kind of text holds."""
    _require(type(text) is str, kind, text)
    value = parse(text)
    if canonical(value, kind) != text:
        raise BadInput(name="text", value=text, remedy="it is not in the canonical form; send what canonical() makes")
    if kind in ("key", "subject"):
        return name(kind, value)
    _require(isinstance(value, dict), kind, value)
    return value


def _row(row: Any) -> None:
    """Refuse a row that no policy makes of a new task."""
    _require(type(row) is TaskRow, "row", row)
    for column, kinds in _TYPES.items():
        value = getattr(row, column)
        _require(type(value) in kinds and (datetime not in kinds or _is_time(value)), column, value)
    blank = TaskRow(task_id=row.task_id, status=row.status, created_at=row.created_at)
    for column in (*UNTOUCHED, "seq"):
        _require(getattr(row, column) == getattr(blank, column), column, getattr(row, column))
    _require(row.status in (Status.AUTO_APPROVED, Status.PENDING), "status", row.status)
    _require(row.priority in (0, 1, 2), "priority", row.priority)
    _require(row.consensus in CONSENSUS, "consensus", row.consensus)
    _require(row.on_deadline in ON_DEADLINE, "on_deadline", row.on_deadline)
    _require(1 <= row.reviews_required <= 20, "reviews_required", row.reviews_required)
    _require(row.due_at == row.deadline, "due_at", row.due_at)
    for column in ("confidence", "audit_uniform", "audit_probability", "review_probability"):
        share = getattr(row, column)
        _require(share is None or 0 <= share <= 1, column, share)
    _require(row.value is None or math.isfinite(row.value), "value", row.value)
    for column in ("expertise", "model", "policy", "grouping"):
        if getattr(row, column) is not None:
            name(column, getattr(row, column))
    for word in _listed("escalation", row.escalation):
        name("escalation", word)
    for one in _listed("reasons", row.reasons):
        fine = isinstance(one, dict) and set(one) == set(_REASON)
        _require(fine and all(type(one[part]) in kinds for part, kinds in _REASON.items()), "reasons", one)
        canonical(one, "reasons")  # or nobody could be told them
        name("rule", one["rule"])


def _listed(what: str, text: str) -> list[Any]:
    _require(len(text) <= MAX_LIST, what, text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(what, text) from None
    _require(isinstance(found, list) and dump_list(found) == text, what, text)
    return list(found)


def _is_time(value: Any) -> bool:
    return value is None or (type(value) is datetime and value.tzinfo is None)


def _frame(ready: FrameSubmission) -> list[TaskRow]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = ready.task_id
    _require(isinstance(ids, pa.StringArray) and ids.null_count == 0, "task_id", "…")
    n = len(ids)
    form = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    _require(pc.all(pc.match_substring_regex(ids, form)).as_py() is not False, "task_id", "…")
    _require(len(pc.unique(ids)) == n, "task_id", "one id twice")
    for side in ("inputs", "predictions"):
        _sheet(side, getattr(ready, side), n)
    _require(isinstance(ready.kinds, (list, tuple)), "kinds", ready.kinds)
    for kind in ready.kinds:
        _kind(kind)
    codes = ready.codes
    _require(_is_column(codes, "i", n) and not ((codes < 0) | (codes >= len(ready.kinds))).any(), "codes", "…")
    _require(set(ready.numbers) <= set(NUMBERS), "numbers", sorted(map(str, ready.numbers)))
    for what, column in ready.numbers.items():
        _require(_is_column(column, "f", n), what, "…")
        known = column[~np.isnan(column)]
        low, high = (-math.inf, math.inf) if what == "value" else (0, 1)
        _require(bool(((known >= low) & (known <= high) & np.isfinite(known)).all()), what, "…")
    _texts(ready, n)
    return [kind.first for kind in ready.kinds]


def _sheet(side: str, sheet: Any, n: int) -> None:
    import pandas as pd

    _require(isinstance(sheet, pd.DataFrame) and len(sheet) == n and sheet.columns.is_unique, side, "…")
    _require(all(isinstance(column, str) for column in sheet.columns), side, "…")


def _is_column(column: Any, kind: str, n: int) -> bool:
    import numpy as np

    return isinstance(column, np.ndarray) and (column.dtype.kind, column.itemsize, column.shape) == (kind, 8, (n,))


def _kind(kind: Kind) -> None:
    _require(type(kind).__name__ == "Kind", "kinds", kind)
    first = kind.first
    _row(first)
    for column in (*NUMBERS, "key_hash"):
        _require(getattr(first, column) is None, column, getattr(first, column))
    drawn: tuple[TaskRow, str | None] = (first, None)
    if kind.audit is not None and _is_time(getattr(kind.last, "deadline", "")):
        drawn = audit_event(first, kind.last.deadline)
    _require((kind.last, kind.audit) == drawn, "audit", kind.audit)


def _texts(ready: FrameSubmission, n: int) -> None:
    """Check the texts of a frame; those of the payload are made here of its columns."""
    _require(type(ready.texts) is dict and set(ready.texts) <= {"key", "subject", "score"}, "texts", ready.texts)
    for kind, column in ready.texts.items():
        _require(isinstance(column, list) and len(column) == n, kind, "…")
    found = {k: [None if t is None else _text(k, t) for t in column] for k, column in ready.texts.items()}
    hashes = ready.key_hashes
    if "key" not in found or hashes is None:
        return _require("key" not in found and hashes is None, "key_hashes", "…")
    _require(None not in found["key"], "key", None)
    _require(_is_column(hashes, "i", n) and hashes.tolist() == [*map(key_hash, found["key"])], "key_hashes", "…")
