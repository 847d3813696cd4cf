"""The transports by name, best first. To add one, write its module against `base.Transport` and name it here."""

from __future__ import annotations

from collections.abc import Callable

from .base import Transport
from .long_poll import LongPoll
from .short_poll import ShortPoll
from .sse import Sse
from .websocket import WebSocket

__all__ = ["TRANSPORTS"]

TRANSPORTS: dict[str, Callable[..., Transport]] = {
    "websocket": WebSocket,
    "sse": Sse,
    "long-poll": LongPoll,
    "short-poll": ShortPoll,
}
