"""From what a policy decided to what a queue stores, for one input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hitl_nb.payload import canonical, name
from hitl_nb.policy import Batch, Decision, Policy
from hitl_nb.policy.batch import Array
from hitl_nb.queue.ids import one_text
from hitl_nb.queue.row import TaskRow, dump_reasons
from hitl_nb.queue.submit import Submission, key_hash, model_of, number, texts
from hitl_nb.task import Reason, Status


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
        task_id=one_text(ids),
        created_at=now,
        confidence=decision.confidence,
        audit_uniform=decision.audit_uniform,
        value=number("value", roles["value"]),
        key_hash=key_hash(roles["key"]),
        **shared_columns(decision, policy, model_of(ai_result), roles["group"]),
    )
    later = decision.audit and decision.status is Status.AUTO_APPROVED
    return decision, Submission(row=row, texts=payload, audited=later, audit_deadline=decision.deadline)


def shared_columns(decision: Decision, policy: Policy, model: str | None, group: str | None) -> dict[str, Any]:
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
