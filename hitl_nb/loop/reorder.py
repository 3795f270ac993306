"""After a promotion: open tasks get the order, the reasons and the routes that the model in use gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from hitl_nb.learner import Learner
from hitl_nb.policy import Batch, Decision, Policy
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.change import ORDERED
from hitl_nb.queue.history import features_of
from hitl_nb.queue.row import TaskRow, dump_reasons
from hitl_nb.task import Reason, ReviewTask, Status

#: tasks that are read, judged and stored at once
PAGE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Reordered:
    """What became of the open tasks; ``str()`` is a sentence."""

    #: version of the model in use
    model: str
    #: tasks that have its order now; what their callers handed in stays as it was
    tasks: int = 0
    #: of those, how many have another priority
    moved: int = 0
    #: of those, how many go to other people
    rerouted: int = 0
    #: of those, how many no rule would send any more; they stay, their callers wait for a person
    passing: int = 0
    #: tasks that stay as they were: seen by somebody, sent by hand, an audit, or not to be scored
    left: int = 0
    #: of those, how many have inputs that the model could not judge
    odd: int = 0
    #: what ended it before all open tasks were looked at; None: nothing did
    failed: str | None = None

    def __str__(self) -> str:
        says = f"{self.tasks:,} open tasks ordered anew by {self.model}: {self.moved:,} with another priority, "
        says += f"{self.rerouted:,} to other people, {self.passing:,} would pass now"
        says += f"; {self.left:,} stay as they are" if self.left else ""
        says += f", {self.odd:,} of them since it cannot judge them" if self.odd else ""
        return says + (f"; then other open tasks keep their order ({self.failed})" if self.failed else "")


def reorder(queue: ReviewQueue, learner: Learner, policy: Policy) -> Reordered:
    """Order what waits anew by the model in use; what the callers handed in stays as it was.

    Tasks of other models than this learner's are none of its business. Random audits, tasks sent by hand, and those
    that somebody has had in hand stay as they are, also if that came about while the model judged. What was done
    before something failed stays done, and the log tells of it.
    """
    model, counts, failed = learner.champion.version if learner.champion else "", Counter[str](), None
    after = str(UUID(int=0))
    try:
        while page := queue.pending(limit=PAGE, after=after):
            counts.update(_reordered(queue, learner, policy, [task for task in page if _placed(task, learner, model)]))
            after = page[-1].task_id
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
    finally:
        found = Reordered(model=model, failed=failed, **counts)
        queue.note("reorder", asdict(found))
    return found


def _placed(task: ReviewTask, learner: Learner, model: str) -> bool:
    """Whether another model of this learner's than the one in use gave a task its place."""
    anew = task.model != model or any(reason.rule in ORDERED for reason in task.reasons)
    return anew and task.model in learner.versions


def _reordered(queue: ReviewQueue, learner: Learner, policy: Policy, page: Sequence[ReviewTask]) -> dict[str, int]:
    """Order a page anew and return the counts."""
    unseen = [task for task in page if task.status is Status.PENDING and not (task.audit or task.attempt)]
    columns = set(learner.buffer.columns)
    fit = [(task, one) for task in unseen if (one := features_of(task.input_data or {})).keys() >= columns]
    if not fit:
        return {"left": len(page)}
    judged = zip(fit, _judged(learner, [fields for _, fields in fit]), strict=True)
    known = [(task, answer) for (task, _), answer in judged if not np.isnan(answer["confidence"])]
    told = [{**(task.ai_prediction or {}), **answer} for task, answer in known]
    batch = Batch.from_rows([task.input_data or {} for task, _ in known], told)
    decided = policy.decide(batch, task_ids=[task.task_id for task, _ in known], now=queue.now)
    new = [(task, one, _row(task, one, answer)) for (task, answer), one in zip(known, decided, strict=True)]
    done = set(queue.reorder([row for *_, row in new], policy.fingerprint, policy.to_dict()) if new else ())
    pairs = [(task, one) for task, one, _ in new if task.task_id in done]
    return {
        "tasks": len(pairs), "left": len(page) - len(pairs), "odd": len(fit) - len(known),
        "moved": sum(task.priority != one.priority for task, one in pairs),
        "rerouted": sum(not task.level and task.expertise != one.expertise for task, one in pairs),
        "passing": sum(one.status is Status.AUTO_APPROVED for _, one in pairs),
    }  # fmt: skip


def _judged(learner: Learner, inputs: Sequence[dict[str, Any]]) -> list[dict[Any, Any]]:
    """Return the model's answer to each input; one that makes it raise has confidence NaN, and spoils no other."""
    try:
        rows = pd.DataFrame(inputs).reindex(columns=learner.buffer.columns or None)
        return learner.predict(rows, probabilities=True).to_dict("records")
    except (ValueError, TypeError):
        half = len(inputs) // 2
        return _judged(learner, inputs[:half]) + _judged(learner, inputs[half:]) if half else [{"confidence": np.nan}]


def _row(task: ReviewTask, new: Decision, answer: dict[Any, Any]) -> TaskRow:
    says = f"Model {{bound}} in use now: confidence {answer['confidence']:.4g}"
    says += ", would pass" if new.status is Status.AUTO_APPROVED else ""
    reasons = dump_reasons([Reason(rule=ORDERED[0], says=says, bound=answer["model"], hard=True)])
    return TaskRow(
        task_id=task.task_id, status=str(task.status), created_at=task.created_at, version=task.version,
        priority=new.priority.rank, expertise=new.expertise, reasons=reasons,
    )  # fmt: skip
