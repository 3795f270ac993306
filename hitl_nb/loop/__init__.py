"""The one place where learner and lab meet queue: training set, retrain trigger, promotion, watched promises."""

from hitl_nb.loop.background import Retraining
from hitl_nb.loop.loop import Loop
from hitl_nb.loop.pipeline import ActiveLearningPipeline, default_estimator, feature_row
from hitl_nb.loop.reorder import Reordered
from hitl_nb.loop.report import RetrainReport
from hitl_nb.loop.stored import take_up
from hitl_nb.loop.watch import Watch

__all__ = [
    "ActiveLearningPipeline", "Loop", "Reordered", "RetrainReport", "Retraining", "Watch", "default_estimator",
    "feature_row", "take_up",
]  # fmt: skip
