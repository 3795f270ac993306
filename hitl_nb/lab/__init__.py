"""What a policy automates, how often that is wrong, and how sure this is; no queue is needed."""

from hitl_nb.lab.arms import Simulation, Verdict
from hitl_nb.lab.check import Check, check
from hitl_nb.lab.explore import Explorer, Outlook, explore, outlooks
from hitl_nb.lab.history import Evidence, History, read
from hitl_nb.lab.look import ConfidenceDisplay, ReliabilityDisplay, RiskCoverageDisplay
from hitl_nb.lab.simulate import simulate
from hitl_nb.lab.threshold import Capacity, Certified, Cost, Fixed, ThresholdRule, by_group, choose_threshold

__all__ = [
    "Capacity", "Certified", "Check", "ConfidenceDisplay", "Cost", "Evidence", "Explorer", "Fixed", "History",
    "Outlook", "ReliabilityDisplay", "RiskCoverageDisplay", "Simulation", "ThresholdRule", "Verdict", "by_group",
    "check", "choose_threshold", "explore", "outlooks", "read", "simulate",
]  # fmt: skip
