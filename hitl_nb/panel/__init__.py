"""What a reviewer sees in a notebook; importing it loads ipywidgets and pandas."""

from hitl_nb.panel.overview import QueueView
from hitl_nb.panel.panel import ReviewPanel
from hitl_nb.panel.review import TableReview, review

__all__ = ["QueueView", "ReviewPanel", "TableReview", "review"]
