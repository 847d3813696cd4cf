"""When messages are published in a comparison, and how large they are: `SCHEDULES`, by name.

Invariant: the moments of a schedule are the same for the same seed and length, are in order, and lie between 0 and the
length. They are irregular, since a publisher in step with a poll would make each of its delays the same.
To add a schedule, add a row to `SCHEDULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

__all__ = ["SCHEDULES", "Schedule", "steady"]

Moments = Callable[[float, Random], list[float]]

BURST_MESSAGES = 40
BURST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A use of realtime messages.

    `rate` is messages a second on average, `size` is bytes of a message's data, `two_way` says whether those who
    listen also write. `moments` returns the seconds at which messages are published, for a length in seconds.
    """

    name: str
    text: str
    rate: float
    size: int
    two_way: bool
    moments: Moments


def steady(rate: float) -> Moments:
    """Return the moments of `rate` messages a second: one in each slot of 1/rate seconds, anywhere in it."""

    def moments(seconds: float, rng: Random) -> list[float]:
        count, slot = max(1, int(rate * seconds)), min(1 / rate, seconds)
        return [(n + rng.random()) * slot for n in range(count)]

    return moments


def _random(rate: float) -> Moments:
    """Return the moments of people who do not wait for each other: a Poisson process."""

    def moments(seconds: float, rng: Random) -> list[float]:
        found: list[float] = []
        now = rng.expovariate(rate)
        while now < seconds:
            found.append(now)
            now += rng.expovariate(rate)
        return found or [seconds * rng.random()]

    return moments


def _bursts(seconds: float, rng: Random) -> list[float]:
    """Return the moments of bursts: all of a burst's messages are published at once."""
    starts = steady(1 / BURST_SECONDS)(seconds, rng)
    return [start for start in starts for _ in range(BURST_MESSAGES)]


_ALL = (
    Schedule("chat", "people who write when they like, 2 messages a second", 2.0, 120, True, _random(2.0)),
    Schedule("ticker", "a price feed, 20 small messages a second", 20.0, 60, False, steady(20.0)),
    Schedule("notifications", "a message every 4 s, at random", 0.25, 240, False, _random(0.25)),
    Schedule("quiet", "a message every 10 s", 0.1, 240, False, steady(0.1)),
    Schedule(
        "burst",
        f"{BURST_MESSAGES} messages at once every {BURST_SECONDS:g} s",
        BURST_MESSAGES / BURST_SECONDS,
        240,
        False,
        _bursts,
    ),
)
SCHEDULES: Mapping[str, Schedule] = {each.name: each for each in _ALL}
