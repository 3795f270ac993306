"""Hypothesis strategies for a queue: payloads, answers of models and of people, names, moves.

Texts, floats, scalars and payloads come from ``strategies_policy``.
"""

from datetime import timedelta

from hypothesis import strategies as st
from strategies_policy import floats, payloads, scalars, texts

from hitl_nb.task import CONSENSUS, ON_DEADLINE, Move, Priority, ReviewOutcome, Status

__all__ = ["ai_results", "answers", "moves", "options", "payloads", "reviewers", "statuses"]

#: names that look like each other inside JSON and SQL
reviewers = st.sampled_from(["ann", "bob", 'x"ann', 'ann"], [2, "x', "a\\", "élan", "' OR 1=1 --", "%"])
moves = st.sampled_from(list(Move))
statuses = st.sampled_from(list(Status))
confidences = st.one_of(st.floats(0, 1), floats, st.none(), st.text(max_size=3), st.booleans())
ai_results = st.fixed_dictionaries(
    {"label": scalars, "confidence": confidences},
    optional={"model": texts, "is_anomalous": st.booleans(), "$odd": floats, "probabilities": payloads},
)
#: outcome and correction, as ``resolve`` takes them
answers = st.one_of(
    st.tuples(st.sampled_from([ReviewOutcome.APPROVE, "reject"]), st.none()),
    st.tuples(st.just("correct"), payloads),
)
spans = st.integers(1, 90).map(lambda minutes: timedelta(minutes=minutes))
#: what ``submit`` takes beside the payload
options = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(list(Priority)),
        "deadline": spans,
        "on_deadline": st.sampled_from(ON_DEADLINE),
        "escalation": st.lists(st.sampled_from(["law", "tax"]), max_size=3),
        "expertise": st.sampled_from(["law", "tax"]),
        "reviews_required": st.sampled_from([1, 2, 2, 3]),
        "consensus": st.sampled_from(CONSENSUS),
    },
)
