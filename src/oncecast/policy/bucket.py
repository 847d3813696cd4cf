"""Rates: the token buckets of a connection.

A bucket may go into debt: while any credit is left a whole batch may be spent at once, and then nothing until the debt
is paid off. So a batch larger than the burst is slow, but never impossible.
"""

from __future__ import annotations


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
        """Return the bucket of a connection: what two seconds allow may come at once."""
        return cls(rate, 2 * rate, now)

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
    """What one connection publishes: messages and their bytes a second."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self, messages: float, size: float, now: float) -> None:
        self._messages = Bucket.steady(messages, now)
        self._bytes = Bucket.steady(size, now)

    def take(self, now: float, count: int, size: int) -> tuple[str, float]:
        """Spend messages and bytes. Returns "" and 0, or the limit's name and the seconds after which it allows them.

        A message that is refused for its bytes has been counted as a message.
        """
        if seconds := self._messages.take(now, count):
            return "publishes_per_second", seconds
        if seconds := self._bytes.take(now, size):
            return "bytes_per_second", seconds
        return "", 0.0
