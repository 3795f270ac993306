"""Orchestrator: policy meets queue."""

from hitl_nb.orchestrator.orchestrator import Orchestrator

__all__ = ["Orchestrator"]
