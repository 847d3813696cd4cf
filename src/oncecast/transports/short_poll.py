"""Short polling: read the log now, answer at once. The whole life of the subscriber is one request."""

from __future__ import annotations

from ..node import Node
from .base import PollRequest, Query, Reply, Settings


def answer(node: Node, settings: Settings, channels: tuple[str, ...], query: Query, if_none_match: str | None) -> Reply:
    """Answer a short poll: `200` with what there is, or `304` to a client that has it. Raises `Refusal`."""
    reply = PollRequest(node, settings, channels, query, if_none_match).answer()
    assert reply is not None
    return reply
