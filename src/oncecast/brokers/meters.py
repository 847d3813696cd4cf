"""What `/metrics` shows of a broker, beside what the node counts itself.

A broker may have an attribute `meters`. `Remote` has one for every broker on another machine, `SqliteBroker` its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

logger = logging.getLogger("oncecast.brokers")

Foreign = Callable[[str], None]
"""What is called for a record that is left out, with which one it is and what is wrong with it: see `Meters.skip`."""

_counting = threading.Lock()  # a file is read by several threads


class Meters(msgspec.Struct):
    """Counters and places, changed in place by the broker.

    `refused` counts the drafts that the broker has refused. `head` is the highest number that this node knows to be
    given. `heard` is when the last probe came back (`time.monotonic`), or None before the first. `foreign` counts how
    often a record was skipped that is damaged, or that Oncecast has not written.
    """

    refused: int = 0
    head: int = 0
    heard: float | None = None
    foreign: int = 0

    def skip(self, record: str) -> None:
        """Count that a record is left out. Log the first time, and the next after twice as many: a line each.

        `record` says which one it is, and what is wrong with it. One that is read again counts again.
        """
        with _counting:
            self.foreign += 1
            count = self.foreign
        if count & (count - 1) == 0:
            logger.error(
                "%s: left out, as it is damaged or not Oncecast's (a record was left out %d times)", record, count
            )

    def seconds(self, now: float) -> float:
        """Return the seconds since the last probe came back; 0 before the first."""
        return 0.0 if self.heard is None else max(0.0, now - self.heard)


@runtime_checkable
class Metered(Protocol):
    """A broker with meters."""

    meters: Meters
