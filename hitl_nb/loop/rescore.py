"""After a promotion: open tasks get the answers of the model in use, and with them their order, reasons and routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hitl_nb.learner import Learner
from hitl_nb.orchestrator.route import route_one
from hitl_nb.policy import Decision, Policy
from hitl_nb.policy.policy import id_pairs
from hitl_nb.queue import ReviewQueue
from hitl_nb.queue.history import features_of
from hitl_nb.queue.read import MAX_PAGE
from hitl_nb.queue.submit import Submission
from hitl_nb.task import ReviewTask, Status

#: tasks that one transaction scores anew
PAGE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescored:
    """What became of the open tasks; ``str()`` is a sentence."""

    #: version of the model in use
    model: str
    #: tasks that have its answer now
    tasks: int = 0
    #: of those, how many have another priority
    moved: int = 0
    #: of those, how many go to other people
    rerouted: int = 0
    #: of those, how many no rule would send any more; they stay, their callers wait for a person
    passing: int = 0
    #: tasks that stay as they were: held, judged, an audit, or not to be scored
    left: int = 0

    def __str__(self) -> str:
        counts = (
            f"{self.moved:,} with another priority, {self.rerouted:,} to other people, {self.passing:,} would pass now"
        )
        rest = f"; {self.left:,} in hand or under audit stay as they are" if self.left else ""
        return f"{self.tasks:,} open tasks scored anew by {self.model}: {counts}{rest}"


def rescore(queue: ReviewQueue, learner: Learner, policy: Policy) -> Rescored:
    """Score what waits anew by the model in use.

    Tasks of other models than this learner's are none of its business. Random audits, tasks in somebody's hand and
    those with an answer stay as they are, also if that came about while the model judged.
    """
    model = learner.champion.version if learner.champion else ""
    waiting = [task for task in queue.pending(limit=MAX_PAGE) if task.model in learner.versions - {model}]
    tasks = [task for task in waiting if task.status is Status.PENDING and not task.audit and task.input_data]
    scored = list(_scored(tasks, learner, policy, queue)) if tasks else []
    pages = [scored[start : start + PAGE] for start in range(0, len(scored), PAGE)]
    by = (policy.fingerprint, policy.to_dict())
    done = {task_id for page in pages for task_id in queue.rescore([ready for _, _, ready in page], *by)}
    pairs = [(task, decision) for task, decision, _ in scored if task.task_id in done]
    found = Rescored(
        model=model, tasks=len(pairs), moved=sum(old.priority != new.priority for old, new in pairs),
        rerouted=sum(not old.level and old.expertise != new.expertise for old, new in pairs),
        passing=sum(new.status is Status.AUTO_APPROVED for _, new in pairs), left=len(waiting) - len(pairs),
    )  # fmt: skip
    queue.note("rescore", asdict(found))
    return found


def _scored(
    tasks: Sequence[ReviewTask], learner: Learner, policy: Policy, queue: ReviewQueue
) -> Iterator[tuple[ReviewTask, Decision, Submission]]:
    rows = pd.DataFrame([features_of(task.input_data or {}) for task in tasks])
    answers = learner.predict(rows.reindex(columns=learner.buffer.columns or rows.columns), probabilities=True)
    for task, answer in zip(tasks, answers.to_dict("records"), strict=True):
        if np.isnan(answer["confidence"]):
            continue  # the model cannot judge it: it waits as it was
        told: dict[str, Any] = dict(task.ai_prediction or {})
        names = ("label", "confidence", "model", *(["probabilities"] if "probabilities" in told else []))
        told |= {name: answer[name] for name in names}
        roles = dict.fromkeys(("key", "subject", "group", "value"))
        ids = id_pairs([task.task_id], 1)
        decision, ready = route_one(policy, task.input_data, told, roles, ids, queue.now)
        yield task, decision, replace(ready, row=replace(ready.row, version=task.version))
