"""From what a policy decided to what a queue stores: for one input, and for a frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hitl_nb.errors import BadInput
from hitl_nb.payload import canonical, name
from hitl_nb.policy import Batch, Decision, Decisions, Policy
from hitl_nb.policy.batch import Array, objects
from hitl_nb.policy.decision import reasons_at
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.frame import FrameSubmission, Kind
from hitl_nb.queue.ids import as_text
from hitl_nb.queue.row import TaskRow, dump_reasons
from hitl_nb.queue.submit import Submission, audit_event, key_hash, model_of, number, texts
from hitl_nb.task import Priority, Reason, ReviewTask, Status

if TYPE_CHECKING:
    import pandas as pd

#: a row of the queue for each kind of decision, made before ids are known
_NO_ID = "00000000-0000-0000-0000-000000000000"


def route_one(
    policy: Policy, input_data: Any, ai_result: Any, roles: Mapping[str, Any], ids: Array, now: datetime
) -> tuple[Decision, Submission]:
    """Decide about one input; nothing is written."""
    for what in ("key", "subject", "group"):
        if roles[what] is not None:
            name(what, roles[what])
    payload = texts(input_data, ai_result, key=roles["key"], subject=roles["subject"])
    decision = policy.decide(Batch.from_rows([input_data], [ai_result]), task_ids=ids, now=now)[0]
    scores = {r.rule: r.value for r in decision.reasons if _is_score(r)}
    if scores:
        payload["score"] = canonical(scores, "score")
    row = TaskRow(
        task_id=str(as_text(ids)[0]),
        created_at=now,
        confidence=decision.confidence,
        audit_uniform=decision.audit_uniform,
        value=number("value", roles["value"]),
        key_hash=key_hash(roles["key"]),
        **_columns(decision, policy, model_of(ai_result), roles["group"]),
    )
    later = decision.audit and decision.status is Status.AUTO_APPROVED
    return decision, Submission(row=row, texts=payload, audited=later, audit_deadline=decision.deadline)


def _columns(decision: Decision, policy: Policy, model: str | None, group: str | None) -> dict[str, Any]:
    """Return the columns that all decisions of one kind share."""
    due = decision.deadline if decision.status is Status.PENDING else None
    return {
        "status": str(decision.status),
        "priority": decision.priority.rank,
        "expertise": decision.expertise,
        "deadline": due,
        "due_at": due,
        "reviews_required": decision.reviews_required,
        "consensus": policy.consensus,
        "on_deadline": policy.on_deadline,
        "escalation": json.dumps(list(policy.escalation), ensure_ascii=False),
        "audit": decision.audit and decision.status is Status.PENDING,
        "audit_probability": decision.audit_probability,
        "review_probability": decision.review_probability,
        "hard": decision.hard,
        "reasons": dump_reasons(decision.reasons),
        "model": model,
        "policy": decision.policy,
        "grouping": group,
    }


def _is_score(one: Reason) -> bool:
    return one.field is not None and one.field.startswith("score.")


def route_frame(
    queue: ReviewQueue, policy: Policy, stored: Mapping[str, Any], inputs: Any, predictions: Any,
    roles: Mapping[str, str | None], progress: bool,
) -> pd.DataFrame:  # fmt: skip
    """Decide about a frame, store every decision, and return them as a frame."""
    inputs, predictions = _checked(inputs, predictions)
    given = {what: _role(inputs, what, column) for what, column in roles.items()}
    ids, now = queue.new_ids(len(inputs)), queue.store.now
    batch = Batch.from_frames(inputs, predictions)
    decisions = policy.decide(batch, task_ids=ids, now=now)
    ready = _submission(policy, decisions, batch, inputs, predictions, given, ids, now)
    with _bar(progress, len(inputs)) as bar:
        known = queue.store_frame(ready, policy.fingerprint, stored, bar.update)
    frame = _result(decisions, batch, inputs, ids)
    for row, task_id in known.items():
        _tell_again(frame, row, *queue.told(task_id))
    return frame


def _tell_again(frame: pd.DataFrame, row: int, status: Status, task: ReviewTask) -> None:
    """Put what was told when a known key came first in the place of the new decision."""
    asked = status is Status.PENDING
    values = {
        "status": str(status),
        "task_id": task.task_id,
        "reason": task.reason if asked else None,
        "reasons": task.reasons if asked else (),
        "priority": str(task.priority),
        "expertise": task.expertise,
    }
    for column, value in values.items():
        frame.iat[row, frame.columns.get_loc(column)] = value


def _submission(
    policy: Policy, decisions: Decisions, batch: Batch, inputs: pd.DataFrame, predictions: pd.DataFrame,
    given: Mapping[str, Any], ids: Array, now: datetime,
) -> FrameSubmission:  # fmt: skip
    models, groups = _models(batch), given["group"]
    codes, first = _kinds(decisions, models, groups)
    kinds = []
    for i in first:
        decision = decisions[i]
        columns = _columns(
            decision, policy, None if models is None else models[i], None if groups is None else groups[i]
        )
        kinds.append(_kind(TaskRow(task_id=_NO_ID, created_at=now, **columns), decision))
    numbers = {"confidence": decisions.confidence, "audit_uniform": decisions.audit_uniform}
    numbers["value"] = np.full(batch.n, np.nan) if given["value"] is None else given["value"]
    keys, subjects = given["key"], given["subject"]
    more = {kind: [canonical(v) for v in values] for kind, values in (("key", keys), ("subject", subjects)) if values}
    scores = _scores(decisions)
    return FrameSubmission(
        ids=ids, inputs=inputs, predictions=predictions, kinds=kinds, codes=codes, numbers=numbers,
        texts=more | ({"score": scores} if scores else {}),
        key_hashes=None if keys is None else np.array([key_hash(key) for key in keys]),
    )  # fmt: skip


def _kind(first: TaskRow, decision: Decision) -> Kind:
    if not decision.audit or decision.status is Status.PENDING:
        return Kind(first=first, last=first)
    last, body = audit_event(first, decision.deadline)
    return Kind(first=first, last=last, audit=body)


def _kinds(decisions: Decisions, models: Any, groups: Any) -> tuple[Array, Array]:
    """Return a code a row for all that decisions of one kind share, and the first row of each kind."""
    import pandas as pd

    codes, _ = decisions.combinations()
    for column in (decisions.priority, decisions.reviews_required, models, groups):
        if column is not None:
            found, distinct = pd.factorize(np.asarray(column), use_na_sentinel=False)
            codes = codes * len(distinct) + found
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return codes, first


def _models(batch: Batch) -> Any:
    import pandas as pd

    column = batch.get("prediction.model")
    if column is None:
        return None
    codes, distinct = pd.factorize(column, use_na_sentinel=False)
    return np.array([model_of({"model": v}) for v in distinct], dtype=object)[codes]


def _scores(decisions: Decisions) -> list[str | None] | None:
    found = [f for f in decisions.findings if (f.field or "").startswith("score.")]
    if not found:
        return None
    texts_of: list[str | None] = [None] * len(decisions)
    hit = np.any([f.fired for f in found], axis=0)
    for i in np.flatnonzero(hit):
        texts_of[i] = canonical({f.rule: f.values[i] for f in found if f.fired[i] and f.values is not None}, "score")
    return texts_of


def _result(decisions: Decisions, batch: Batch, inputs: pd.DataFrame, ids: Array) -> pd.DataFrame:
    import pandas as pd

    told = np.where(decisions.approved, 0, 1)
    codes, sets = decisions.combinations()
    expertise = [next((f.expertise for f in found if f.expertise), None) for found in sets]
    first, every = _reasons(decisions)
    labels = batch.get("prediction.label")
    deadline = None if decisions.deadline is None else decisions.deadline.replace(tzinfo=UTC)
    columns = {
        "status": pd.Categorical.from_codes(told, [str(Status.AUTO_APPROVED), str(Status.PENDING)]),
        "task_id": pd.Series(pd.array(as_text(ids), dtype="str")),
        "label": [None] * batch.n if labels is None else labels,
        "confidence": decisions.confidence,
        "reason": first,
        "reasons": every,
        "priority": pd.Categorical.from_codes(decisions.priority, [str(Priority.ranked(rank)) for rank in range(3)]),
        "expertise": np.array(expertise, dtype=object)[codes] if len(expertise) else [],
        "deadline": pd.Series([pd.NaT if deadline is None else deadline] * batch.n, dtype="datetime64[us, UTC]"),
        "audit_probability": decisions.audit_probability,
    }
    frame = pd.DataFrame(columns)
    frame.loc[decisions.approved, "deadline"] = pd.NaT
    return frame.set_axis(inputs.index)


def _reasons(decisions: Decisions) -> tuple[Any, Array]:
    """Return the strongest reason in words, and all of them; none for what was approved."""
    import pandas as pd

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
    import pandas as pd

    if not isinstance(inputs, pd.DataFrame):
        raise BadInput(name="inputs", value=type(inputs).__name__, remedy="pass a DataFrame, one row an input")
    if isinstance(predictions, Sequence) and not isinstance(predictions, str):
        _same_length(inputs, predictions)
        predictions = pd.DataFrame(list(predictions), index=inputs.index)
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


def _role(inputs: pd.DataFrame, what: str, column: str | None) -> Any:
    """Return the values of a column that plays a role: key, subject, group or value."""
    if column is None:
        return None
    if column not in inputs.columns:
        raise BadInput(name=what, value=column, remedy=f"inputs have the columns {', '.join(inputs.columns)}")
    if what == "value":
        return np.array([number("value", v) for v in inputs[column].tolist()], dtype=np.float64)
    return [name(what, str(v) if what == "key" else v) for v in inputs[column].tolist()]


def _bar(progress: bool, n: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=n, desc="routing", unit="row", disable=not progress)
