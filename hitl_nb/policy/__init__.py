"""Rules and the policy that holds them: pure, vectorised, serialisable."""

from hitl_nb.policy.batch import Batch
from hitl_nb.policy.decision import Decision, Decisions
from hitl_nb.policy.policy import Policy
from hitl_nb.policy.predicate import Predicate
from hitl_nb.policy.rule import FieldAbove, Finding, Flag, Outlier, Rule
from hitl_nb.policy.stored import check_rule

__all__ = [
    "Batch",
    "Decision",
    "Decisions",
    "FieldAbove",
    "Finding",
    "Flag",
    "Outlier",
    "Policy",
    "Predicate",
    "Rule",
    "check_rule",
]
