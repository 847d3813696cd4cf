"""The broker and the clocks that a test gives to an `Oncecast`."""

from __future__ import annotations

from typing import Protocol

from ..brokers.base import Broker
from ..message import RetentionPolicy
from ..server.settings import Settings

__all__ = ["Surroundings"]


class Surroundings(Protocol):
    """The world around an `Oncecast`. `monotonic` gives seconds, `wall` Unix seconds."""

    def build_broker(self, settings: Settings, policy: RetentionPolicy, /) -> Broker:
        """Return a broker, not started, for a running part that begins on this loop."""
        ...

    def monotonic(self) -> float:
        """Return the monotonic clock's seconds."""
        ...

    def wall(self) -> float:
        """Return the wall clock's Unix seconds."""
        ...
