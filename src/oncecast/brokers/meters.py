"""What `/metrics` shows of a broker that is elsewhere, beside what the node counts itself.

A broker may have an attribute `meters`. `Remote` has one for every broker on another machine.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec


class Meters(msgspec.Struct):
    """Counters and places, changed in place by the broker.

    `refused` counts the drafts that the broker has refused. `head` is the highest number that this node knows to be
    given. `heard` is when the last probe came back (`time.monotonic`), or None before the first.
    """

    refused: int = 0
    head: int = 0
    heard: float | None = None

    def seconds(self, now: float) -> float:
        """Return the seconds since the last probe came back; 0 before the first."""
        return 0.0 if self.heard is None else max(0.0, now - self.heard)


@runtime_checkable
class Metered(Protocol):
    """A broker with meters."""

    meters: Meters
