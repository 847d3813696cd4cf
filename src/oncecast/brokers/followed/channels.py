"""Where each channel's messages are in a followed log, and what of them is trimmed.

Invariant: the offsets and times of a channel rise; what is at or below its mark is not among them.

Memory: 16 bytes for each message that is kept, about 500 bytes for each channel.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from ...message import Retention

SLACK = 64  # messages above a channel's bound before it is trimmed, and an eighth of the bound

Trimmed = tuple[int, float]  # offset and time of the last message that is trimmed


class Channel:
    """The kept messages of one channel, and the last that was trimmed."""

    __slots__ = ("bound", "name", "offsets", "times", "trimmed", "wanted")

    def __init__(self, name: str, bound: int) -> None:
        self.name = name
        self.bound = bound  # of messages, at which it is trimmed
        self.wanted = False
        self.offsets = array("q")
        self.times = array("d")
        self.trimmed: Trimmed | None = None

    def over(self, retention: Retention, now: float) -> int:
        """Return how many of the oldest messages are not kept at a time, in Unix seconds."""
        return max(0, len(self.offsets) - retention.messages, bisect_left(self.times, now - retention.seconds))

    def cut(self, count: int) -> None:
        """Trim the oldest messages."""
        if count > 0:
            self.trimmed = (self.offsets[count - 1], self.times[count - 1])
            del self.offsets[:count]
            del self.times[:count]


class Channels:
    """The channels of a log. `policy` gives a channel's retention by its name."""

    def __init__(self, policy: Callable[[str], Retention]) -> None:
        self.by_name: dict[bytes, Channel] = {}
        self.floor: Trimmed | None = None  # what the server has removed, of every channel
        self._policy = policy

    def find(self, name: str) -> Channel | None:
        """Return a channel, if it has messages or is wanted."""
        return self.by_name.get(name.encode())

    def make(self, name: str) -> Channel:
        """Return a channel."""
        raw = name.encode()
        found = self.by_name.get(raw)
        if found is None:
            found = self.by_name[raw] = Channel(name, _bound(self._policy(name)))
        return found

    def want(self, names: Iterable[str], wanted: bool) -> None:
        """Note which channels are wanted."""
        for name in names:
            if wanted:
                self.make(name).wanted = True
            elif (found := self.find(name)) is not None:
                found.wanted = False

    def trimmed(self, channel: Channel | None) -> Trimmed | None:
        """Return the last message of a channel that is trimmed or removed."""
        mark = None if channel is None else channel.trimmed
        return max(mark, self.floor) if mark and self.floor else mark or self.floor

    def trim(self, channel: Channel, now: float) -> None:
        """Trim what a channel's policy does not keep at a time, in Unix seconds."""
        retention = self._policy(channel.name)
        channel.bound = _bound(retention)
        channel.cut(channel.over(retention, now))

    def sweep(self, now: float) -> Iterator[None]:
        """Trim every channel, one at each step; forget one that is empty, not wanted, and trimmed as far as all."""
        for raw, channel in list(self.by_name.items()):
            yield
            self.trim(channel, now)
            if not channel.offsets and not channel.wanted and self.trimmed(channel) == self.floor:
                del self.by_name[raw]

    def removed(self, first: int, time: float) -> None:
        """Note that the server has removed all below an offset; `time` is at least that of the last of it."""
        for channel in self.by_name.values():
            channel.cut(bisect_left(channel.offsets, first))
            time = min(time, channel.times[0]) if channel.times else time
        self.floor = max((first - 1, time), self.floor or (-1, 0.0))


def _bound(retention: Retention) -> int:
    return retention.messages + retention.messages // 8 + SLACK
