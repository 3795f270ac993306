"""What a policy automates, how often that is wrong, and how sure this is; no queue is needed."""

from hitl_nb.lab.answers import from_json_lines, from_probabilities
from hitl_nb.lab.arms import ArmVerdict, Simulation
from hitl_nb.lab.audit import AuditPlan, choose_audits, plan_audits
from hitl_nb.lab.calibrate import Calibrated, calibrate
from hitl_nb.lab.check import Check, check
from hitl_nb.lab.compare import Comparison, compare
from hitl_nb.lab.drift import DriftAlarm, DriftState
from hitl_nb.lab.estimate import RiskEstimate, estimate_risk
from hitl_nb.lab.explore import Explorer, Outlook, explore, outlooks
from hitl_nb.lab.exported import read_export
from hitl_nb.lab.history import Evidence, History, read
from hitl_nb.lab.logged import Logged
from hitl_nb.lab.look import ConfidenceDisplay, ReliabilityDisplay, RiskCoverageDisplay, risk_coverage
from hitl_nb.lab.replay import Outcome, Prices, Replay, replay
from hitl_nb.lab.rules import PolicyCheck, check_policy
from hitl_nb.lab.search import Search, search
from hitl_nb.lab.sequential import Sequential
from hitl_nb.lab.simulate import simulate
from hitl_nb.lab.slices import Slice, Slices, slices
from hitl_nb.lab.threshold import Capacity, Certified, Cost, Fixed, ThresholdRule, by_group, choose_threshold
from hitl_nb.lab.workload import Staff, Workload, workload

__all__ = [
    "ArmVerdict", "AuditPlan", "Calibrated", "Capacity", "Certified", "Check", "Comparison", "ConfidenceDisplay",
    "Cost", "DriftAlarm", "DriftState", "Evidence", "Explorer", "Fixed", "History", "Logged", "Outcome", "Outlook",
    "PolicyCheck", "Prices", "ReliabilityDisplay", "Replay", "RiskCoverageDisplay", "RiskEstimate", "Search",
    "Sequential", "Simulation", "Slice", "Slices", "Staff", "ThresholdRule", "Workload", "by_group", "calibrate",
    "check", "check_policy", "choose_audits", "choose_threshold", "compare", "estimate_risk", "explore",
    "from_json_lines", "from_probabilities", "outlooks", "plan_audits", "read", "read_export", "replay",
    "risk_coverage", "search", "simulate", "slices", "workload",
]  # fmt: skip
