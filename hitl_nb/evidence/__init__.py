"""What the data can carry: weights, exact intervals, paired comparisons, certificates.

Pure functions of numbers: no clock, no files, no randomness. Rates are shares between 0 and 1, never percent.

>>> round(clopper_pearson(0, 24).high, 2)  # no error in 24 audits does not mean "no errors"
0.14
"""

from hitl_nb.evidence.certificate import Certificate
from hitl_nb.evidence.estimate import hajek, horvitz_thompson, ppi_mean
from hitl_nb.evidence.paired import (
    ClassComparison,
    PairedComparison,
    Verdict,
    compare_paired,
    held_draw,
    share_difference,
    spent,
    with_floor,
)
from hitl_nb.evidence.rate import Interval, clopper_pearson, corrected_risk, pairs_needed, reviewer_error
from hitl_nb.evidence.sequential import Alarm, always_valid, confidence_sequence, evidence_below
from hitl_nb.evidence.weight import inverse_confidence, inverse_propensity, lure

__all__ = [
    "Alarm", "Certificate", "ClassComparison", "Interval", "PairedComparison", "Verdict", "always_valid",
    "clopper_pearson", "compare_paired", "confidence_sequence", "corrected_risk", "evidence_below", "hajek",
    "held_draw", "horvitz_thompson", "inverse_confidence", "inverse_propensity", "lure", "pairs_needed", "ppi_mean",
    "reviewer_error", "share_difference", "spent", "with_floor",
]  # fmt: skip
