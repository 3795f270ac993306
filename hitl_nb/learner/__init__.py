"""Active learning without a queue: what to ask, how labels count, fit, compare, stored models."""

from hitl_nb.learner.activeml import from_activeml
from hitl_nb.learner.challenger import Challenger
from hitl_nb.learner.learner import Learner
from hitl_nb.learner.models import ModelRecord, ModelStore
from hitl_nb.learner.stop import Forecast, forecast, reasons_to_stop
from hitl_nb.learner.strategy import (
    GIVEN,
    STRATEGIES,
    Exploring,
    Stochastic,
    Strategy,
    check_strategy,
    score_pool,
    select,
)
from hitl_nb.learner.weighting import WEIGHTINGS, Weighting, check_weighting, effective_size, fit_weights, lure, on_rows

__all__ = [
    "GIVEN", "STRATEGIES", "WEIGHTINGS", "Challenger", "Exploring", "Forecast", "Learner", "ModelRecord", "ModelStore",
    "Stochastic", "Strategy", "Weighting", "check_strategy", "check_weighting", "effective_size", "fit_weights",
    "forecast", "from_activeml", "lure", "on_rows", "reasons_to_stop", "score_pool", "select",
]  # fmt: skip
