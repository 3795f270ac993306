"""What a policy automates, how often that is wrong, and how sure this is; no queue is needed."""

from hitl_nb.lab.history import Evidence, History, read
from hitl_nb.lab.look import ConfidenceDisplay, RiskCoverageDisplay

__all__ = ["ConfidenceDisplay", "Evidence", "History", "RiskCoverageDisplay", "read"]
