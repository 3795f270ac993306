"""What a policy automates, how often that is wrong, and how sure this is; no queue is needed."""

from hitl_nb.lab.explore import Explorer, Outlook, explore, outlooks
from hitl_nb.lab.history import Evidence, History, read
from hitl_nb.lab.look import ConfidenceDisplay, RiskCoverageDisplay

__all__ = [
    "ConfidenceDisplay", "Evidence", "Explorer", "History", "Outlook", "RiskCoverageDisplay", "explore", "outlooks",
    "read",
]  # fmt: skip
