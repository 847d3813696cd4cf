"""The transports by name, best first. To add one, write its module against `base.Transport` and name it here."""

from __future__ import annotations

from collections.abc import Callable

from .base import Transport
from .long_poll import LongPollTransport
from .short_poll import ShortPollTransport
from .sse import SseTransport
from .websocket import WebSocketTransport

__all__ = ["TRANSPORTS"]

TRANSPORTS: dict[str, Callable[..., Transport]] = {
    "websocket": WebSocketTransport,
    "sse": SseTransport,
    "long-poll": LongPollTransport,
    "short-poll": ShortPollTransport,
}
