"""What a comparison is asked to do. Invariant: a plan that exists is within the bounds of `BOUNDS` and of its products.

To add an option, add a field, and its bounds to `BOUNDS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from ..errors import UsageError
from .schedule import SCHEDULES, Schedule, steady

__all__ = ["BOUNDS", "ComparePlan"]

# The least and the most of each number, and its unit. One process publishes, relays and listens: past these it would
# measure itself.
BOUNDS: Mapping[str, tuple[float, float, str]] = {
    "rate": (0.01, 200, "messages a second"),
    "size": (24, 65_536, "bytes"),
    "listeners": (1, 100, "listeners on each transport"),
    "seconds": (1, 3600, "seconds"),
    "poll-interval": (0.05, 60, "seconds"),
    "rtt": (0, 2000, "milliseconds"),
}
MOST_DELIVERIES = 1000  # a second, on each transport
MOST_BYTES = 8 * 1024 * 1024  # a second, on each transport
MOST_IN_ALL = 200_000  # deliveries on each transport: each one's delay is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """A comparison, in seconds and bytes; `rtt_ms` is in milliseconds. Raises `UsageError` past a bound.

    `rate` and `size` are those of the schedule where they are None. A rate makes the moments regular.
    """

    schedule: str = "chat"
    rate: float | None = None
    size: int | None = None
    listeners: int = 5
    seconds: float = 20.0
    poll_interval: float = 1.0
    rtt_ms: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(f"--schedule: take one of {', '.join(SCHEDULES)}")
        given = {
            "rate": self.rate,
            "size": self.size,
            "listeners": self.listeners,
            "seconds": self.seconds,
            "poll-interval": self.poll_interval,
            "rtt": self.rtt_ms,
        }
        for name, value in given.items():
            least, most, unit = BOUNDS[name]
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                raise UsageError(f"--{name}: give from {least:g} to {most:g} {unit}, not {value:g}")
        self._check_products()

    def _check_products(self) -> None:
        a_second = self.mean_rate * self.listeners
        ways = "lower --rate, --listeners or --seconds"
        if a_second > MOST_DELIVERIES:
            raise UsageError(
                f"{a_second:g} deliveries a second on each transport are more than {MOST_DELIVERIES}: {ways}"
            )
        if a_second * self.bytes > MOST_BYTES:
            raise UsageError(f"more than {MOST_BYTES >> 20} MiB a second on each transport: {ways}, or --size")
        if a_second * self.seconds > MOST_IN_ALL:
            raise UsageError(f"more than {MOST_IN_ALL} deliveries on each transport: {ways}")

    @property
    def use(self) -> Schedule:
        """The schedule that was named."""
        return SCHEDULES[self.schedule]

    @property
    def mean_rate(self) -> float:
        """Messages a second, on average."""
        return self.use.rate if self.rate is None else self.rate

    @property
    def bytes(self) -> int:
        """Bytes of a message's data."""
        return self.use.size if self.size is None else self.size

    @property
    def rtt(self) -> float:
        """Seconds that are added to each round trip of a listener."""
        return self.rtt_ms / 1000

    def moments(self) -> list[float]:
        """Return the seconds from the start at which messages are published, in order."""
        moments = self.use.moments if self.rate is None else steady(self.rate)
        return moments(self.seconds, Random(self.seed))  # noqa: S311 - the same moments each time, and no secret

    def describe(self) -> str:
        """Return what is published and to whom, as a part of a sentence."""
        count = len(self.moments())
        messages = "1 message" if count == 1 else f"{count} messages"
        name = self.schedule if self.rate is None else f"{self.rate:g} a second"
        people = "1 listener" if self.listeners == 1 else f"{self.listeners} listeners"
        return f"{name}: {messages} of {self.bytes} bytes in {self.seconds:g} s, to {people} on each transport"
