"""Rates: the token buckets of a connection.

A bucket may go into debt: while any credit is left a whole batch may be spent at once, and then nothing until the debt
is paid off. So a batch larger than the burst is slow, but never impossible.
"""

from __future__ import annotations

BURST_SECONDS = 2.0  # of the limits of connections, users and channels: what these allow may come at once


class Bucket:
    """Allows `rate` a second in the long run, and `burst` at once. Time is passed in, in seconds."""

    __slots__ = ("_credit", "_stamp", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._credit = burst
        self._stamp = now

    @classmethod
    def steady(cls, rate: float, now: float) -> Bucket:
        """Return the bucket of a connection: what `BURST_SECONDS` allow may come at once."""
        return cls(rate, BURST_SECONDS * rate, now)

    def take(self, now: float, count: float = 1) -> float:
        """Spend `count`. Returns 0 where that is allowed, else the seconds after which it will be."""
        credit = self._credit + (now - self._stamp) * self.rate
        if credit > self.burst:
            credit = self.burst
        self._stamp = now
        if credit <= 0:
            self._credit = credit
            return (1 - credit) / self.rate
        self._credit = credit - count
        return 0.0


class PublishBuckets:
    """What one connection publishes: messages and their bytes a second.

    Each of the two is as `Bucket.steady`. They fill by one clock and in one call, as each publish asks them.
    """

    __slots__ = ("_byte_rate", "_bytes", "_message_rate", "_messages", "_most_bytes", "_most_messages", "_stamp")

    def __init__(self, messages: float, size: float, now: float) -> None:
        self._message_rate = messages
        self._byte_rate = size
        self._messages = self._most_messages = BURST_SECONDS * messages
        self._bytes = self._most_bytes = BURST_SECONDS * size
        self._stamp = now

    def take(self, now: float, count: int, size: int) -> tuple[str, float]:
        """Spend messages and bytes. Returns "" and 0, or the limit's name and the seconds after which it allows them.

        A message that is refused for its bytes has been counted as a message.
        """
        passed = now - self._stamp
        self._stamp = now
        messages = self._messages + passed * self._message_rate
        if messages > self._most_messages:
            messages = self._most_messages
        left = self._bytes + passed * self._byte_rate
        if left > self._most_bytes:
            left = self._most_bytes
        if messages <= 0:
            self._messages, self._bytes = messages, left
            return "publishes_per_second", (1 - messages) / self._message_rate
        self._messages = messages - count
        if left <= 0:
            self._bytes = left
            return "bytes_per_second", (1 - left) / self._byte_rate
        self._bytes = left - size
        return "", 0.0
