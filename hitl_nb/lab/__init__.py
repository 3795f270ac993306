"""What a policy automates, how often that is wrong, and how sure this is; no queue is needed."""

from hitl_nb.lab.answers import from_json_lines, from_probabilities
from hitl_nb.lab.arms import Simulation, Verdict
from hitl_nb.lab.calibrate import Calibrated, calibrate
from hitl_nb.lab.check import Check, check
from hitl_nb.lab.explore import Explorer, Outlook, explore, outlooks
from hitl_nb.lab.history import Evidence, History, read
from hitl_nb.lab.look import ConfidenceDisplay, ReliabilityDisplay, RiskCoverageDisplay, risk_coverage
from hitl_nb.lab.simulate import simulate
from hitl_nb.lab.slices import Slice, Slices, slices
from hitl_nb.lab.threshold import Capacity, Certified, Cost, Fixed, ThresholdRule, by_group, choose_threshold

__all__ = [
    "Calibrated", "Capacity", "Certified", "Check", "ConfidenceDisplay", "Cost", "Evidence", "Explorer", "Fixed",
    "History", "Outlook", "ReliabilityDisplay", "RiskCoverageDisplay", "Simulation", "Slice", "Slices", "ThresholdRule",
    "Verdict", "by_group", "calibrate", "check", "choose_threshold", "explore", "from_json_lines", "from_probabilities",
    "outlooks", "read", "risk_coverage", "simulate", "slices",
]  # fmt: skip
