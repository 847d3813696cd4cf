"""What a node tells of the messages that are traced. Without a `Tracing` a node does nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..brokers.base import Done
from ..message import Draft, Message


class Tracing(Protocol):
    """Makes spans of what a node does. None of its calls raises or waits."""

    def publish(self, drafts: Sequence[Draft], done: Done, /) -> tuple[Sequence[Draft], Done]:
        """Begin to trace a publish. Return the drafts with the contexts of its spans, and what to call at its end."""
        ...

    def receive(self, messages: Sequence[Message], live: Callable[[str], int], /) -> Callable[[], None] | None:
        """Begin to trace the delivery of what was received. Return what to call once it is written, or None.

        `live` says how many live subscriptions a channel has.
        """
        ...
