"""The queue: keeps tasks until a person has answered them."""

from hitl_nb.queue.backlog import Wait
from hitl_nb.queue.queue import ReviewQueue
from hitl_nb.queue.read import Stats

__all__ = ["ReviewQueue", "Stats", "Wait"]
