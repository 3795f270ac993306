"""The queue for others: an owner's side of a shared file, and the review API over the network."""

from hitl_nb.server.owner import TURN, Server

__all__ = ["TURN", "Server"]
