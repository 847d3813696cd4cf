"""The judges of the soak: what one subscriber of a channel may be given, and whether a series of figures is flat.

A channel's messages are numbered from 1 on by the one that publishes it. A `Follower` holds that each number comes once
and in order. Only after a gap may numbers be missing, and the one before may come again: its publish was not
acknowledged before a failover, and was repeated. `lost_in` then holds that all that is missing was in the gap.

`fit` is the slope of several pieces of a series, each with a level of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from oncecast.message import Cursor

from .client_oracle import Wrong

__all__ = ["Fit", "Follower", "Skip", "fit", "late", "lost_in", "step_of"]

GAP_OF_A_FAILOVER = "unknown"  # docs/explanation/brokers.md
STEPS = 24  # of a delay, in each power of ten: 10 % each


@dataclass(frozen=True, slots=True)
class Skip:
    """Numbers of a channel that a subscriber did not get, and the ends of the gap, as the log's numbers."""

    channel: int
    first: int
    last: int
    missed_from: int
    missed_to: int


@dataclass(slots=True)
class Follower:
    """What a subscriber was given of one channel. `again` counts what came before a gap and after it."""

    channel: int
    expected: int = 1
    gaps: int = 0
    again: int = 0
    skips: list[Skip] = field(default_factory=list)
    _last: int = 0  # the log's number of the last message
    _gap: tuple[int, int] | None = None

    def message(self, cursor: str, channel: int, number: int) -> None:
        """Take a message. Raises `Wrong` where it is lost, repeated, out of order or another channel's."""
        seq = Cursor.parse(cursor).seq
        gap, self._gap = self._gap, None
        last, self._last = self._last, seq
        expected, self.expected = self.expected, number + 1
        if channel != self.channel:
            raise Wrong(f"channel {self.channel}: {cursor} is of channel {channel}")
        if seq <= last:
            raise Wrong(f"channel {channel}: {cursor} came after {last}")
        if gap is not None and number == expected - 1:
            self.again += 1
        elif gap is not None and number > expected:
            self.skips.append(Skip(channel, expected, number - 1, *gap))
        elif number != expected:
            raise Wrong(f"channel {channel}: number {number} came as {cursor}, and not {expected}")

    def gap(self, reason: str, missed_from: str, missed_to: str | None, cursor: str) -> None:
        """Take a gap. Raises `Wrong` where it is not a failover's, or has what was given already."""
        first, last = Cursor.parse(missed_from).seq, Cursor.parse(missed_to or cursor).seq
        if reason != GAP_OF_A_FAILOVER:
            raise Wrong(f"channel {self.channel}: a gap, {reason}, from {missed_from} to {missed_to}")
        if first <= self._last:
            raise Wrong(f"channel {self.channel}: a gap from {missed_from}, and {self._last} had come")
        self.gaps += 1
        self._gap = (min(first, self._gap[0]), max(last, self._gap[1])) if self._gap else (first, last)


def lost_in(skips: Iterable[Skip], acknowledged: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    """Return which messages, by channel and number, some subscriber lacks. Raises `Wrong` where its gap lacks them too.

    `acknowledged` has, for each channel, the log's number of each of its messages in order.
    """
    lost = set()
    for skip in skips:
        for number in range(skip.first, skip.last + 1):
            seq = acknowledged[skip.channel][number - 1]
            if not skip.missed_from <= seq <= skip.missed_to:
                raise Wrong(f"number {number} is lost, {seq} in the log, and no gap names it: {skip}")
            lost.add((skip.channel, number))
    return lost


# -- figures


@dataclass(frozen=True, slots=True)
class Fit:
    """A line through pieces of a series: its slope a second, the mean, and the longest piece in seconds."""

    slope: float
    mean: float
    seconds: float

    def growth(self, seconds: float) -> float:
        """Return by which part of the mean it grows in so many seconds."""
        return self.slope * seconds / self.mean if self.mean else 0.0


def fit(pieces: Sequence[Sequence[tuple[float, float]]]) -> Fit | None:
    """Fit one slope to pieces of (seconds, value), by least squares, each with its own level; None without two points.

    A piece's own level keeps the step between two lives of a process from counting as growth.
    """
    above = below = total = 0.0
    count = 0
    for piece in pieces:
        if not piece:
            continue
        at, value = (sum(each[axis] for each in piece) / len(piece) for axis in (0, 1))
        above += sum((x - at) * (y - value) for x, y in piece)
        below += sum((x - at) ** 2 for x, _ in piece)
        total, count = total + value * len(piece), count + len(piece)
    if not below:
        return None
    return Fit(above / below, total / count, max(piece[-1][0] - piece[0][0] for piece in pieces if piece))


def step_of(seconds: float) -> int:
    """Return the step of a delay: what a process counts, as it can't keep millions of delays."""
    return round(STEPS * math.log10(max(seconds, 1e-6)))


def late(delays: Mapping[int, int], share: float) -> float:
    """Return the seconds that this share of delays, counted by step, does not exceed; 0 without any."""
    left = sum(delays.values()) * share
    for step in sorted(delays):
        left -= delays[step]
        if left <= 0:
            return float(10 ** (step / STEPS))
    return 0.0
