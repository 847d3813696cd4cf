"""Short polling: read the log now, answer at once. The whole life of the subscriber is one request."""

from __future__ import annotations

from collections.abc import Callable

from ..core.node import Node
from ..errors import Refusal
from .base import PollRequest, Query, Reply, Settings


def answer(
    node: Node,
    settings: Settings,
    channels: tuple[str, ...],
    query: Query,
    if_none_match: str | None,
    done: Callable[[Reply | Refusal], None],
) -> None:
    """Answer a short poll: `200` with what there is, or `304` to a client that has it.

    `done` is called once: at once, unless the start lies in the broker's history. Raises `Refusal`.
    """

    def answered(reply: Reply | Refusal | None) -> None:
        assert reply is not None
        done(reply)

    PollRequest(node, settings, channels, query, if_none_match).answer(answered)
