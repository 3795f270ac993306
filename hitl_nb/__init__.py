"""hitl_nb: people check what a model was not sure of.

>>> from hitl_nb import Orchestrator, open_queue
>>> orchestrator = Orchestrator(confidence_threshold=0.85, queue=open_queue(":memory:"))
>>> orchestrator.process({"text": "hello"}, {"label": "ham", "confidence": 0.62})["reason"]
'Low confidence: 0.62'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hitl_nb.connect import open_queue
from hitl_nb.errors import HitlError
from hitl_nb.orchestrator import Orchestrator
from hitl_nb.policy import Decision, FieldAbove, Outlier, Policy, Predicate, Rule
from hitl_nb.task import Priority, Review, Reviewer, ReviewOutcome, ReviewTask, Status

if TYPE_CHECKING:
    import pandas as pd

    from hitl_nb.panel import TableReview

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
    "review",
]


def review(df: pd.DataFrame, model: Any = None, **options: Any) -> TableReview:
    """Let a person check the rows of a frame, least certain first; as the last line of a cell it shows the panel.

    Parameters
    ----------
    df
        One row an item; its columns are what the reviewer sees.
    model
        A fitted classifier, or a function that returns probabilities; without one pass ``label=`` and ``confidence=``.
    options
        See ``hitl_nb.panel.review``: label, confidence, n, path, labels, reviewer, render.

    Examples
    --------
    >>> import pandas as pd
    >>> mails = review(pd.DataFrame({"text": ["hm"], "guess": ["spam"], "p": [0.6]}), label="guess", confidence="p")
    >>> mails.panel.approve()
    >>> mails.frame["label"].tolist()
    ['spam']
    """
    from hitl_nb.panel import review as start

    return start(df, model, **options)
