"""The queue as frames: decisions with their answers, training rows, annotations; and exports of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.errors import BadInput
from hitl_nb.evidence import held_draw
from hitl_nb.payload import canonical, parse
from hitl_nb.queue.row import TaskRow, fold
from hitl_nb.queue.store import Transaction, payloads
from hitl_nb.task import FLAGS, Move, Priority, Status

if TYPE_CHECKING:
    import pandas as pd

#: facts of logged answers by task and number
Reviews = dict[tuple[str, int], dict[str, Any]]
_TIMES = ("at_time", "deadline", "claimed_at", "reviewed_at")
#: tasks whose payloads are read at once
_PAGE = 1000
#: columns of a training frame beside the features
_FACTS = ("task_id", "label", "confidence", "weight", "source", "outcome")
#: names of input fields that would hide one of them, or a field renamed because of one
_HIDES = re.compile(rf"\A(input\.)*({'|'.join(_FACTS)}|review_probability|audit_rate)\Z")
#: types that keep the scalars of one kind as they were stored; gaps are NA
_KINDS: dict[type, str] = {bool: "boolean", int: "Int64", float: "float64", str: "string"}
#: how a text begins that a spreadsheet runs, and numbers, which it does not
_FORMULA = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


def history(tx: Transaction, inputs: bool) -> pd.DataFrame:
    """Return every decision with its answer, one line a task.

    ``label``, ``outcome``, ``reviewer`` and ``reviewed_at`` are those of the answer that holds, NA while none does.
    ``wrong`` is the evidence: of a random audit its first standing judgement, which no second review, dispute or
    adjudication replaces and which counts even while no answer holds; of the others the outcome.

    Parameters
    ----------
    inputs
        Whether to add the scalar input fields as ``input.<name>``, with the type in which they were stored:
        booleans, Int64, float64, text; mixed ones as objects.
    """
    import pandas as pd

    frame: pd.DataFrame = tx.engine.arrow("history").to_pandas()
    for name in ("prediction", "label", *FLAGS):
        frame[name] = _parsed(frame[name])
    frame["task_id"] = frame["task_id"].astype(str)
    frame["wrong"] = frame["wrong"].astype("boolean")
    frame["priority"] = frame["priority"].map({rank: str(Priority.ranked(rank)) for rank in (0, 1, 2)})
    frame["reasons"] = _each(frame["reasons"], lambda text: tuple(r["rule"] for r in json.loads(text)))
    for name in _TIMES:
        frame[name] = pd.to_datetime(frame[name]).dt.tz_localize("UTC")
    return frame if not inputs else frame.merge(_inputs(tx), on="task_id", how="left")


def _parsed(column: pd.Series[Any]) -> pd.Series[Any]:
    return _each(column, parse)


def _each(column: pd.Series[Any], convert: Any) -> pd.Series[Any]:
    """Convert each distinct text once."""
    import pandas as pd

    texts = column.dropna().unique().tolist()
    known = {text: convert(text) for text in texts}
    return pd.Series([known.get(text, pd.NA) for text in column], index=column.index, dtype=object)


def _inputs(tx: Transaction) -> pd.DataFrame:
    import pandas as pd

    ids, rows = [], []
    for task_id, body in tx.rows("inputs"):
        ids.append(str(task_id))
        rows.append(_scalars(parse(body)))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _typed([row.get(name) for row in rows]) for name in names}
    return pd.DataFrame({"task_id": pd.Series(ids, dtype=str)} | columns)


def _typed(values: list[Any]) -> pd.Series[Any]:
    """Return a column in the type in which its values were stored; whole and other numbers together are floats."""
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    largest = max((abs(value) for value in values if type(value) is int), default=0)
    if kinds == {int, float} and largest <= 2**53:  # exact as floats
        kinds = {float}
    dtype: Any = _KINDS[kinds.pop()] if len(kinds) == 1 and largest < 2**63 else object
    column: pd.Series[Any] = pd.Series(values, dtype=dtype)
    return column


def _scalars(data: dict[str, Any]) -> dict[str, Any]:
    return {f"input.{k}": v for k, v in data.items() if _is_scalar(v)}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def training_frame(tx: Transaction, as_of: datetime | None) -> pd.DataFrame:
    """Return the answers that hold as training rows, as they stood at a time.

    The features are the scalar input fields in stored order. One that is called like another column of the frame
    (task_id, label, confidence, weight, source, outcome, audit_rate) stands under ``input.<name>``. The last column,
    ``audit_rate``, is there if a policy decided about a task: the share of its automatic answers that it has audited.
    """
    import pandas as pd

    until = datetime.max if as_of is None else as_of
    rows = [row for row in _folded(tx, until) if row.status == Status.REVIEWED]
    reviews = _reviews(tx, rows)
    kept = [(row, found) for row, found in _with_payload(tx, rows) if "input" in found]  # the others were erased
    lines = [_training_line(row, found, reviews[row.task_id, row.final or 0]) for row, found in kept]
    frame = pd.DataFrame(lines, columns=None if lines else _FACTS)
    features = [name for name in frame.columns if name not in _FACTS]
    frame = frame[["task_id", *features, *_FACTS[1:]]]
    rates = pd.Series(_audit_rates(tx, [row for row, _ in kept]), index=frame.index, dtype=float)
    return frame.assign(audit_rate=rates) if rates.notna().any() else frame


def unanswered_frame(tx: Transaction) -> pd.DataFrame:
    """Return the tasks that models will be compared on once they are answered: task_id, features…, source, audit_rate.

    They are audits, and as large a share of what else a policy asked about. A task that was denied or taken back is
    among them: left out, what people could not judge in time would be missing in the comparison.
    """
    import pandas as pd

    rows = tx.tasks("unanswered")
    rates = np.array(_audit_rates(tx, rows), dtype=float)
    drawn = zip(rows, held_draw([row.task_id for row in rows]) < rates, rates.tolist(), strict=True)
    held = {row.task_id: (row, rate) for row, is_held, rate in drawn if row.random_audit or is_held}
    known = [(row, found) for row, found in _with_payload(tx, [row for row, _ in held.values()]) if "input" in found]
    facts = [{"task_id": row.task_id, "source": _source(row), "audit_rate": held[row.task_id][1]} for row, _ in known]
    lines = [features_of(found["input"]) | line for (_, found), line in zip(known, facts, strict=True)]
    return pd.DataFrame(lines, columns=None if lines else ["task_id", "source", "audit_rate"])


def _source(row: TaskRow, adjudication: bool = False) -> str:
    return "audit" if row.random_audit else "adjudication" if adjudication else "human_review"


def _audit_rates(tx: Transaction, rows: list[TaskRow]) -> list[float | None]:
    """Return for each task the audit rate of its policy, as logged; None where no policy decided about it."""
    names = {row.policy for row in rows if row.audit_probability is not None}
    logged = {name: tx.rows("known_policy", fingerprint=name) for name in names}
    stated = {
        name: dict(parse(found[0][0]).get("policy") or {}).get("audit_rate") for name, found in logged.items() if found
    }
    known = {name: float(rate) for name, rate in stated.items() if isinstance(rate, (int, float))}
    return [None if row.audit_probability is None else row.audit_probability or known.get(row.policy) for row in rows]


def _training_line(row: TaskRow, found: dict[str, Any], review: dict[str, Any]) -> dict[str, Any]:
    label = None
    if row.outcome == "approve":
        label = (found.get("prediction") or {}).get("label")
    elif row.outcome == "correct":
        label = (found["answers"].get(("correction", row.final)) or {}).get("label")
    features, source = features_of(found["input"]), _source(row, review["adjudication"])
    known = 0.5 if row.confidence is None else row.confidence
    facts = {"label": label, "confidence": row.confidence, "weight": 1 / (known + 0.01)}
    return features | {"task_id": row.task_id, **facts, "source": source, "outcome": row.outcome}


def features_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return the scalar fields of an input under the names that they have in a training frame.

    >>> features_of({"x": 1.5, "label": "old", "tags": []})
    {'x': 1.5, 'input.label': 'old'}
    """
    return {_HIDES.sub(r"input.\g<0>", name): value for name, value in data.items() if _is_scalar(value)}


def annotation_frame(tx: Transaction) -> pd.DataFrame:
    """Return every answer that stands as one line: task, worker, label."""
    import pandas as pd

    lines = []
    rows = [row for row in _folded(tx, datetime.max) if row.standing != "[]" and row.erased_at is None]
    reviews = _reviews(tx, rows)
    for row, found in _with_payload(tx, rows):
        for number, reviewer in json.loads(row.standing):
            lines.append({"task": row.task_id, "worker": reviewer, "label": _label(found, reviews, row, number)})
    return pd.DataFrame(lines, columns=["task", "worker", "label"])


def _label(found: dict[str, Any], reviews: Reviews, row: TaskRow, number: int) -> Any:
    outcome = reviews[row.task_id, number]["outcome"]
    if outcome == "approve":
        return (found.get("prediction") or {}).get("label")
    return (found["answers"].get(("correction", number)) or {}).get("label") if outcome == "correct" else "rejected"


def _reviews(tx: Transaction, rows: list[TaskRow]) -> Reviews:
    found = {}
    for page in _pages([row.task_id for row in rows]):
        for event in tx.events("events_of_tasks", task_ids=page):
            if event.move == Move.REVIEW:
                found[str(event.task_id), event.facts["number"]] = event.facts
    return found


def _folded(tx: Transaction, until: datetime) -> Iterator[TaskRow]:
    """Yield the tasks that people touched, as they stood at a time."""
    ids = sorted({str(row[0]) for row in tx.rows("answered_until", until=until)})
    for page in _pages(ids):
        rows: dict[str, TaskRow] = {}
        for event in tx.events("events_of_tasks", task_ids=page):
            if event.at_time <= until:
                rows[str(event.task_id)] = fold(rows.get(str(event.task_id)), event)
        yield from rows.values()


def _pages(ids: list[str]) -> Iterator[list[str]]:
    return (ids[i : i + _PAGE] for i in range(0, len(ids), _PAGE))


def _with_payload(tx: Transaction, rows: list[TaskRow]) -> Iterator[tuple[TaskRow, dict[str, Any]]]:
    by_id = {row.task_id: row for row in rows}
    for page in _pages(list(by_id)):
        texts: dict[str, list[Any]] = {task_id: [] for task_id in page}
        for task_id, *rest in tx.rows("get_payloads", task_ids=page):
            texts[str(task_id)].append(tuple(rest))
        for task_id in page:
            yield by_id[task_id], payloads(texts[task_id], by_id[task_id])


def export_target(path: str) -> Path:
    """Return where an export goes.

    Raises
    ------
    BadInput
        Another ending than .parquet, .csv or .jsonl, or no such folder.
    """
    target = Path(path)
    if target.suffix not in _WRITERS:
        raise BadInput(name="path", value=path, remedy=f"end it in {', '.join(_WRITERS)}")
    if not target.parent.is_dir():
        raise BadInput(name="path", value=path, remedy=f"the folder {target.parent} does not exist; create it")
    return target


def export(tx: Transaction, target: Path, inputs: bool) -> int:
    """Write the history to a file by its ending and return the number of lines.

    Labels and flags may be of any kind: in CSV and Parquet they stand as canonical text, and so do input fields of
    mixed kinds. JSON Lines and Parquet keep every text as it is. CSV is read by spreadsheets, which run text that
    begins with ``=``, ``+``, ``-``, ``@``, tab or a line break: such text, unless it is a number, gets a leading
    apostrophe (OWASP, "CSV Injection").
    """
    frame = history(tx, inputs)
    frame["reasons"] = frame["reasons"].map(list)
    unfinished = target.with_name(f".{target.name}.part")
    try:
        _WRITERS[target.suffix](frame, unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(frame)


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn values of any kind into canonical text."""
    mixed = [name for name in frame.columns if name.startswith("input.") and frame[name].dtype == object]
    for name in ("prediction", "label", *FLAGS, *mixed):
        gone = frame[name].isna()
        frame[name] = [None if none else canonical(v) for v, none in zip(frame[name], gone, strict=True)]
    return frame


def _parquet(frame: pd.DataFrame, path: Path) -> None:
    _texts(frame).to_parquet(path, index=False)


def _csv(frame: pd.DataFrame, path: Path) -> None:
    import pandas as pd

    frame = _texts(frame)
    for name in frame.columns.drop("reasons"):
        if frame[name].dtype == object or isinstance(frame[name].dtype, pd.StringDtype):
            text = frame[name].astype("string")
            runs = text.str.match(_FORMULA) & ~text.str.fullmatch(_NUMBER)
            frame[name] = text.mask(runs.fillna(False), "'" + text)
    frame.to_csv(path, index=False, lineterminator="\r\n")  # so that a carriage return within a text is quoted


def _json_lines(frame: pd.DataFrame, path: Path) -> None:
    for name in _TIMES:
        frame[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    columns = [column.astype(object).where(column.notna(), None).tolist() for _, column in frame.items()]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for values in zip(*columns, strict=True):
            file.write(_line(dict(zip(frame.columns, values, strict=True))) + "\n")


def _line(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # something that JSON does not have
        return json.dumps({name: json.loads(canonical(value)) for name, value in record.items()}, ensure_ascii=False)


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
