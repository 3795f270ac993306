"""hitl_nb: people check what a model was not sure of.

>>> from hitl_nb import Orchestrator, open_queue
>>> orchestrator = Orchestrator(confidence_threshold=0.85, queue=open_queue(":memory:"))
>>> orchestrator.process({"text": "hello"}, {"label": "ham", "confidence": 0.62})["reason"]
'Low confidence: 0.62'
"""

from __future__ import annotations

from hitl_nb.connect import open_queue
from hitl_nb.errors import HitlError
from hitl_nb.orchestrator import Orchestrator
from hitl_nb.policy import Decision, FieldAbove, Outlier, Policy, Predicate, Rule
from hitl_nb.task import Priority, Review, Reviewer, ReviewOutcome, ReviewTask, Status

__all__ = [
    "Decision",
    "FieldAbove",
    "HitlError",
    "Orchestrator",
    "Outlier",
    "Policy",
    "Predicate",
    "Priority",
    "Review",
    "ReviewOutcome",
    "ReviewTask",
    "Reviewer",
    "Rule",
    "Status",
    "open_queue",
]
