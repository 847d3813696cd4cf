"""The promise as a check: the items of one subscriber, compared with everything that was published.

Per channel, a subscriber gets every message once and in order, or a gap that covers exactly the missing ones. Pass each
message and gap to a `Witness` in the order of arrival. It raises `PromiseBroken` at the first item that breaks the
promise. Invariant: per channel, each message up to `covered` was delivered, or is in a gap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from ..errors import OncecastError
from ..message import LogGap


class PromiseBroken(OncecastError):
    """A subscriber has a wrong item, or misses one. The text says which."""


class PublishedNumbers:
    """The sequence numbers published to each channel, in order: what a witness compares with."""

    __slots__ = ("_seqs",)

    def __init__(self) -> None:
        self._seqs: dict[str, list[int]] = {}

    def publish(self, channel: str, seq: int) -> None:
        """Record an acknowledged message."""
        self._seqs.setdefault(channel, []).append(seq)

    def after(self, channel: str, seq: int) -> int | None:
        """Return the first number published to a channel after `seq`, or None."""
        seqs = self._seqs.get(channel, [])
        at = bisect_right(seqs, seq)
        return seqs[at] if at < len(seqs) else None


class Witness:
    """One subscriber on one connection. `owed` has, per channel, the number after which it must get every message.

    Messages may be added to `ledger` meanwhile.
    """

    __slots__ = ("covered", "gaps", "ledger", "seen")

    def __init__(self, ledger: PublishedNumbers, owed: Mapping[str, int]) -> None:
        self.ledger = ledger
        self.covered = dict(owed)
        self.seen: list[tuple[str, int]] = []
        self.gaps: list[LogGap] = []

    def message(self, channel: str, seq: int) -> None:
        """Check a message of the subscriber."""
        if channel not in self.covered:
            raise PromiseBroken(f"{seq} came on {channel}, which has no subscription")
        if self.seen and self.seen[-1][1] >= seq:
            raise PromiseBroken(f"{seq} came after {self.seen[-1][1]}: out of order, or again")
        if self.ledger.after(channel, self.covered[channel]) != seq:
            expected = self.ledger.after(channel, self.covered[channel])
            raise PromiseBroken(f"{seq} came on {channel} where {expected} was next and no gap said so")
        self.covered[channel] = seq
        self.seen.append((channel, seq))

    def gap(self, gap: LogGap) -> None:
        """Check a gap of the subscriber whose end is known."""
        if gap.missed_to is None:
            raise ValueError("The end of this gap is not known: a ledger can't check it.")
        first, last = gap.missed_from.seq, gap.missed_to.seq
        missed = self.ledger.after(gap.channel, self.covered[gap.channel])
        if missed is None or not first <= missed <= last:
            raise PromiseBroken(f"a gap {first} to {last} on {gap.channel}, where {missed} was next")
        self.covered[gap.channel] = last
        self.gaps.append(gap)

    def finish(self, channels: Iterable[str] | None = None) -> None:
        """Check at the end that every published message was delivered, or is in a gap."""
        for channel in self.covered if channels is None else channels:
            missed = self.ledger.after(channel, self.covered[channel])
            if missed is not None:
                raise PromiseBroken(f"{missed} never came on {channel}, and no gap said so")


__all__ = ["PromiseBroken", "PublishedNumbers", "Witness"]
