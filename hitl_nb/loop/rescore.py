"""After a promotion: open tasks get the order, the reasons and the routes that the model in use gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from hitl_nb.learner import Learner
from hitl_nb.policy import Batch, Policy
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.history import features_of
from hitl_nb.queue.row import TaskRow, dump_reasons
from hitl_nb.task import Priority, Reason, ReviewTask, Status

#: tasks that are read, judged and stored at once
PAGE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescored:
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
        counts = (
            f"{self.moved:,} with another priority, {self.rerouted:,} to other people, {self.passing:,} would pass now"
        )
        odd = f", {self.odd:,} of them since it cannot judge them" if self.odd else ""
        rest = f"; {self.left:,} stay as they are{odd}" if self.left else ""
        rest += f"; then it failed, and other open tasks keep their scores ({self.failed})" if self.failed else ""
        return f"{self.tasks:,} open tasks scored anew by {self.model}: {counts}{rest}"


def rescore(queue: ReviewQueue, learner: Learner, policy: Policy) -> Rescored:
    """Order what waits anew by the model in use; what the callers handed in stays as it was.

    Tasks of other models than this learner's are none of its business. Random audits, tasks sent by hand, and those
    that somebody has had in hand stay as they are, also if that came about while the model judged. What was done
    before something failed stays done, and the log tells of it.
    """
    counts, failed = Counter[str](), None
    try:
        for page in _pages(queue):
            counts.update(_rescored(queue, learner, policy, page))
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
    finally:
        model = learner.champion.version if learner.champion else ""
        found = Rescored(model=model, failed=failed, **counts)
        queue.note("rescore", asdict(found))
    return found


def _pages(queue: ReviewQueue) -> Iterator[list[ReviewTask]]:
    after = str(UUID(int=0))
    while page := queue.pending(limit=PAGE, after=after):
        yield page
        after = page[-1].task_id


def _rescored(queue: ReviewQueue, learner: Learner, policy: Policy, page: Sequence[ReviewTask]) -> dict[str, int]:
    """Score those of a page that the learner's models have judged, and return the counts."""
    mine = [task for task in page if _by_another(task, learner)]
    fields = [features_of(task.input_data or {}) for task in mine]
    fit = [
        (task, one)
        for task, one in zip(mine, fields, strict=True)
        if _free(task) and {*learner.buffer.columns} <= {*one}
    ]
    answers = _judged(learner, [one for _, one in fit]) if fit else []
    known = [(task, told) for (task, _), told in zip(fit, answers, strict=True) if not np.isnan(told["confidence"])]
    new = _routed(queue, policy, known) if known else []
    done = set(queue.rescore([row for row, _ in new], policy.fingerprint, policy.to_dict()) if new else [])
    pairs = [(task, *one) for (task, _), one in zip(known, new, strict=True) if task.task_id in done]
    return {
        "tasks": len(pairs), "moved": sum(task.priority != Priority.ranked(row.priority) for task, row, _ in pairs),
        "rerouted": sum(not task.level and task.expertise != row.expertise for task, row, _ in pairs),
        "passing": sum(passes for *_, passes in pairs), "left": len(mine) - len(pairs), "odd": len(fit) - len(known),
    }  # fmt: skip


def _by_another(task: ReviewTask, learner: Learner) -> bool:
    """Whether another model of this learner's gave a task its place."""
    now = learner.champion.version if learner.champion else ""
    moved = any(reason.rule == "rescored" for reason in task.reasons)
    return task.model in learner.versions and (moved or task.model != now)


def _free(task: ReviewTask) -> bool:
    return task.status is Status.PENDING and not (task.audit or task.attempt) and bool(task.input_data)


def _judged(learner: Learner, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the model's answer to each input; one that makes it raise has confidence NaN, and spoils no other."""
    rows = pd.DataFrame(inputs)
    try:
        found = learner.predict(rows.reindex(columns=learner.buffer.columns or rows.columns), probabilities=True)
    except (ValueError, TypeError):
        half = len(inputs) // 2
        parts = (inputs[:half], inputs[half:]) if half else ()
        return [one for part in parts for one in _judged(learner, part)] or [{"confidence": np.nan}]
    return [{str(name): value for name, value in one.items()} for one in found.to_dict("records")]


def _routed(
    queue: ReviewQueue, policy: Policy, known: Sequence[tuple[ReviewTask, dict[str, Any]]]
) -> list[tuple[TaskRow, bool]]:
    """Return what the policy makes of the new answers: a row for each, and whether it would let it pass."""
    now, told = queue.now, [{**(task.ai_prediction or {}), **answer} for task, answer in known]
    batch = Batch.from_rows([task.input_data or {} for task, _ in known], told)
    decided = policy.decide(batch, task_ids=[task.task_id for task, _ in known], now=now)
    codes, kinds = decided.combinations()
    people = [next((finding.expertise for finding in kind if finding.expertise), None) for kind in kinds]
    rows = []
    for i, (task, answer) in enumerate(known):
        passes = bool(decided.approved[i])
        says = f"Model {{bound}} in use now: confidence {answer['confidence']:.4g}" + ", would pass" * passes
        reason = Reason(rule="rescored", says=says, bound=answer["model"], hard=True)
        row = TaskRow(
            task_id=task.task_id, status=str(task.status), created_at=now, priority=int(decided.priority[i]),
            expertise=people[codes[i]], version=task.version, reasons=dump_reasons([reason]),
        )  # fmt: skip
        rows.append((row, passes))
    return rows
