"""A whole frame: from what a policy decided to what a queue stores, and to what the caller is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from hitl_nb.errors import BadInput
from hitl_nb.orchestrator.decided import DecisionFrame
from hitl_nb.orchestrator.route import shared_columns
from hitl_nb.payload import canonical, name
from hitl_nb.policy import Batch, Decision, Decisions, Policy
from hitl_nb.policy.batch import Array, objects
from hitl_nb.policy.decision import reasons_at
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.frame import FrameSubmission, Kind
from hitl_nb.queue.ids import as_text
from hitl_nb.queue.row import TaskRow
from hitl_nb.queue.submit import audit_event, key_hash, model_of, number
from hitl_nb.task import Priority, ReviewTask, Status

#: stands for the id in the line that all tasks of a kind share
_NO_ID = "00000000-0000-0000-0000-000000000000"


def route_frame(
    queue: ReviewQueue, policy: Policy, stored: Mapping[str, Any], inputs: Any, predictions: Any,
    roles: Mapping[str, str | Sequence[Any] | None], progress: bool,
) -> pd.DataFrame:  # fmt: skip
    """Decide about a frame, store every decision, and return them as a frame."""
    inputs, predictions = _checked(inputs, predictions)
    given = {what: _role(inputs, what, column) for what, column in roles.items()}
    ids, now = queue.new_ids(len(inputs)), queue.now
    batch = Batch.from_frames(inputs, predictions)
    decisions = policy.decide(batch, task_ids=ids, now=now)
    task_id = as_text(ids)
    ready = _submission(policy, decisions, batch, inputs, predictions, given, task_id, now)
    with _bar(progress, len(inputs)) as bar:
        known = queue.store_frame(ready, policy.fingerprint, stored, bar.update)
    frame = _result(decisions, predictions, inputs, task_id)
    if known:
        _tell_again(frame, list(known), queue.told(list(known.values())))
    decided = DecisionFrame(frame)
    decided.audits = int(decisions.audit.sum() - decisions.audit[list(known)].sum())
    return decided


def _tell_again(frame: pd.DataFrame, rows: list[int], told: Sequence[tuple[Status, ReviewTask]]) -> None:
    """Put what was told when known keys came first in the place of the new decisions."""
    asked = [(status is Status.PENDING, task) for status, task in told]
    values: dict[str, list[Any]] = {
        "status": [str(status) for status, _ in told],
        "task_id": [task.task_id for _, task in told],
        "reason": [task.reason if ask else None for ask, task in asked],
        "reasons": [task.reasons if ask else () for ask, task in asked],
        "priority": [str(task.priority) for _, task in told],
        "expertise": [task.expertise for _, task in told],
        "deadline": [task.deadline if ask and task.deadline else pd.NaT for ask, task in asked],
        "audit_probability": [task.audit_probability for _, task in told],
    }
    for column, new in values.items():
        dtype: Any = frame[column].dtype
        place: Any = (rows, frame.columns.get_loc(column))
        frame.iloc[place] = pd.Series(objects(new), dtype=dtype).array


def _submission(
    policy: Policy, decisions: Decisions, batch: Batch, inputs: pd.DataFrame, predictions: pd.DataFrame,
    given: Mapping[str, Any], task_id: pa.Array, now: datetime,
) -> FrameSubmission:  # fmt: skip
    models, groups = _models(predictions), given["group"]
    codes, first = _kinds(decisions, models, groups)
    kinds = []
    for i in first:
        decision = decisions[i]
        columns = shared_columns(
            decision, policy, None if models is None else models[i], None if groups is None else groups[i]
        )
        kinds.append(_kind(TaskRow(task_id=_NO_ID, created_at=now, **columns), decision))
    numbers = {"confidence": decisions.confidence, "audit_uniform": decisions.audit_uniform}
    numbers["value"] = np.full(batch.n, np.nan) if given["value"] is None else given["value"]
    keys, subjects = given["key"], given["subject"]
    more: dict[str, Sequence[str | None]] = {}
    for kind, values in (("key", keys), ("subject", subjects)):
        if values is not None:
            more[kind] = [None if value is None else canonical(value) for value in values]
    scores = _scores(decisions)
    return FrameSubmission(
        task_id=task_id, inputs=inputs, predictions=predictions, kinds=kinds, codes=codes, numbers=numbers,
        texts=more if scores is None else more | {"score": scores},
        key_hashes=None if keys is None else np.array([key_hash(key) for key in keys]),
    )  # fmt: skip


def _kind(first: TaskRow, decision: Decision) -> Kind:
    if not decision.audit or decision.status is Status.PENDING:
        return Kind(first=first, last=first)
    last, body = audit_event(first, decision.deadline)
    return Kind(first=first, last=last, audit=body)


def _kinds(decisions: Decisions, models: Any, groups: Any) -> tuple[Array, Array]:
    """Return a code a row for all that decisions of one kind share, and the first row of each kind."""
    codes, _ = decisions.combinations()
    for column in (decisions.priority, decisions.reviews_required, models, groups):
        if column is not None:
            found, distinct = pd.factorize(np.asarray(column), use_na_sentinel=False)
            codes, _ = pd.factorize(codes * len(distinct) + found)  # each time, or the numbers outgrow 64 bits
    codes, _ = pd.factorize(codes)
    return codes, np.unique(codes, return_index=True)[1]


def _models(predictions: pd.DataFrame) -> Any:
    if "model" not in predictions.columns:
        return None
    column: Any = predictions["model"]
    if column.dtype == object:  # anything may stand there; only text names a model
        column = objects([value if isinstance(value, str) else None for value in column])
    codes, distinct = pd.factorize(column, use_na_sentinel=False)
    return objects([model_of({"model": value}) for value in distinct.tolist()])[codes]


def _scores(decisions: Decisions) -> list[str | None] | None:
    found = [f for f in decisions.findings if (f.field or "").startswith("score.")]
    if not found:
        return None
    texts_of: list[str | None] = [None] * len(decisions)
    hit = np.any([f.fired for f in found], axis=0)
    for i in np.flatnonzero(hit):
        texts_of[i] = canonical({f.rule: f.values[i] for f in found if f.fired[i] and f.values is not None}, "score")
    return texts_of


def _result(decisions: Decisions, predictions: pd.DataFrame, inputs: pd.DataFrame, task_id: pa.Array) -> pd.DataFrame:
    told = np.where(decisions.approved, 0, 1)
    codes, sets = decisions.combinations()
    expertise = [next((f.expertise for f in found if f.expertise), None) for found in sets]
    first, every = _reasons(decisions)
    labels = predictions["label"].array if "label" in predictions.columns else [None] * len(decisions)
    deadline = None if decisions.deadline is None else decisions.deadline.replace(tzinfo=UTC)
    ranks = pd.Index([str(Priority.ranked(rank)) for rank in range(3)])
    columns = {
        "status": pd.Categorical.from_codes(told, pd.Index([str(Status.AUTO_APPROVED), str(Status.PENDING)])),
        "task_id": pd.Series(pd.array(task_id, dtype="str")),
        "label": labels,
        "confidence": decisions.confidence,
        "reason": first,
        "reasons": every,
        "priority": pd.Categorical.from_codes(decisions.priority, ranks),
        "expertise": np.array([*expertise, None], dtype=object)[codes],
        "deadline": pd.Series([pd.NaT if deadline is None else deadline] * len(decisions), dtype="datetime64[us, UTC]"),
        "audit_probability": decisions.audit_probability,
    }
    frame = pd.DataFrame(columns)
    frame.loc[decisions.approved, "deadline"] = pd.NaT
    return frame.set_axis(inputs.index)


def _reasons(decisions: Decisions) -> tuple[Any, Array]:
    """Return the strongest reason in words, and all of them; none for what was approved."""
    n = len(decisions)
    first, every = np.full(n, None, dtype=object), np.empty(n, dtype=object)
    every.fill(())
    codes, sets = decisions.combinations()
    for code, findings in enumerate(sets):
        rows = np.flatnonzero((codes == code) & ~decisions.approved)
        if len(rows):
            columns = [reasons_at(finding, rows) for finding in findings]
            every[rows] = objects(list(zip(*columns, strict=True)))
            first[rows] = [one.text for one in columns[0]]
    return pd.array(first, dtype="str"), every


def _checked(inputs: Any, predictions: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two frames of one index with text columns, or say what is wrong with them."""
    if not isinstance(inputs, pd.DataFrame):
        raise BadInput(name="inputs", value=type(inputs).__name__, remedy="pass a DataFrame, one row an input")
    if isinstance(predictions, Sequence) and not isinstance(predictions, str):
        _same_length(inputs, predictions)
        predictions = _framed(predictions, inputs.index)
    if not isinstance(predictions, pd.DataFrame):
        remedy = "pass a DataFrame with columns label and confidence, or a list of dicts"
        raise BadInput(name="predictions", value=type(predictions).__name__, remedy=remedy)
    for what, frame in (("inputs", inputs), ("predictions", predictions)):
        _check_columns(what, frame)
    _same_length(inputs, predictions)
    if not inputs.index.equals(predictions.index):
        remedy = "the indexes differ; use predictions.set_axis(inputs.index) if the rows are in the same order"
        raise BadInput(name="index of predictions", value=list(predictions.index[:5]), remedy=remedy)
    return inputs, predictions


def _framed(predictions: Sequence[Any], index: pd.Index[Any]) -> pd.DataFrame:
    """Return a list of dicts as a frame that keeps every value as it is."""
    for i, row in enumerate(predictions):
        if not isinstance(row, Mapping):
            raise BadInput(name=f"predictions[{i}]", value=row, remedy="pass a dict with label and confidence")
        if row.keys() != predictions[0].keys():
            odd = sorted(map(str, row.keys() ^ predictions[0].keys()))
            remedy = "not every prediction has these keys; give all the same, None where a value is unknown"
            raise BadInput(name=f"keys of predictions[{i}]", value=odd, remedy=remedy)
    names = list(predictions[0]) if len(predictions) else []
    return pd.DataFrame(
        {name: objects([row[name] for row in predictions]) for name in names}, index=index, dtype=object
    )


def _same_length(inputs: Any, predictions: Any) -> None:
    if len(inputs) != len(predictions):
        remedy = f"there are {len(inputs)} inputs; pass one prediction for each"
        raise BadInput(name="predictions", value=f"{len(predictions)} rows", remedy=remedy)


def _check_columns(what: str, frame: pd.DataFrame) -> None:
    double = frame.columns[frame.columns.duplicated()]
    if len(double):
        raise BadInput(name=f"columns of {what}", value=double[0], remedy="it stands twice; rename one")
    for column in frame.columns:
        if not isinstance(column, str):
            raise BadInput(name=f"column of {what}", value=column, remedy="names are text; use df.columns.astype(str)")


def _role(inputs: pd.DataFrame, what: str, given: str | Sequence[Any] | None) -> Any:
    """Return the values that play a role: key, subject, group or value; a column's, or one for each row."""
    if given is None:
        return None
    if isinstance(given, str) and given not in inputs.columns:
        raise BadInput(name=what, value=given, remedy=f"inputs have the columns {', '.join(inputs.columns)}")
    found = inputs[given].tolist() if isinstance(given, str) else list(given)
    if len(found) != len(inputs):
        raise BadInput(name=what, value=f"{len(found)} values", remedy=f"pass one for each of the {len(inputs)} rows")
    missing = pd.isna(objects(found))
    values = [None if gone else value for gone, value in zip(missing, found, strict=True)]
    if what == "value":
        return np.array([number("value", value) for value in values], dtype=np.float64)
    if what == "key" and None in values:
        raise BadInput(name="key", value=None, remedy="a row has no key; every row needs its own")
    return [None if value is None else name(what, str(value) if what == "key" else value) for value in values]


def _bar(progress: bool, n: int) -> Any:
    return tqdm(total=n, desc="routing", unit="row", disable=not progress)
