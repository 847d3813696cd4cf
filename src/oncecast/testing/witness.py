"""The promise, as a judge: what one subscriber saw, held against everything that was ever published.

Per channel, a subscriber gets every message, once, in order, or a gap that covers exactly what it does not get. A
`Witness` is told of each message and gap as the subscriber gets it, and raises `PromiseBroken` at the first that does
not keep this. Invariant: per channel, everything published up to `covered` has been delivered or told as missed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from ..errors import OncecastError
from ..message import LogGap


class PromiseBroken(OncecastError):
    """A subscriber got what it should not have, or did not get what it should. The text says which."""


class Ledger:
    """The sequence numbers published to each channel, in order: the truth that witnesses are held against."""

    __slots__ = ("_seqs",)

    def __init__(self) -> None:
        self._seqs: dict[str, list[int]] = {}

    def publish(self, channel: str, seq: int) -> None:
        """Note a message that was acknowledged."""
        self._seqs.setdefault(channel, []).append(seq)

    def after(self, channel: str, seq: int) -> int | None:
        """Return the first number published to a channel after `seq`, or None."""
        seqs = self._seqs.get(channel, [])
        at = bisect_right(seqs, seq)
        return seqs[at] if at < len(seqs) else None


class Witness:
    """One subscriber's life on one connection. `owed` gives, per channel, the number after which it is owed everything.

    `ledger` may grow while the witness watches.
    """

    __slots__ = ("covered", "gaps", "ledger", "seen")

    def __init__(self, ledger: Ledger, owed: Mapping[str, int]) -> None:
        self.ledger = ledger
        self.covered = dict(owed)
        self.seen: list[tuple[str, int]] = []
        self.gaps: list[LogGap] = []

    def message(self, channel: str, seq: int) -> None:
        """The subscriber got a message."""
        if channel not in self.covered:
            raise PromiseBroken(f"{seq} came on {channel}, which nobody subscribed to")
        if self.seen and self.seen[-1][1] >= seq:
            raise PromiseBroken(f"{seq} came after {self.seen[-1][1]}: out of order, or again")
        if self.ledger.after(channel, self.covered[channel]) != seq:
            expected = self.ledger.after(channel, self.covered[channel])
            raise PromiseBroken(f"{seq} came on {channel} where {expected} was next and no gap said so")
        self.covered[channel] = seq
        self.seen.append((channel, seq))

    def gap(self, gap: LogGap) -> None:
        """The subscriber was told of a gap whose end is known."""
        if gap.missed_to is None:
            raise ValueError("The end of this gap is not known, so it can't be held against a ledger.")
        first, last = gap.missed_from.seq, gap.missed_to.seq
        missed = self.ledger.after(gap.channel, self.covered[gap.channel])
        if missed is None or not first <= missed <= last:
            raise PromiseBroken(f"a gap {first} to {last} on {gap.channel}, where {missed} was next")
        self.covered[gap.channel] = last
        self.gaps.append(gap)

    def finish(self, channels: Iterable[str] | None = None) -> None:
        """Nothing more will come: everything published must have been delivered, or told as missed."""
        for channel in self.covered if channels is None else channels:
            missed = self.ledger.after(channel, self.covered[channel])
            if missed is not None:
                raise PromiseBroken(f"{missed} never came on {channel}, and no gap said so")


__all__ = ["Ledger", "PromiseBroken", "Witness"]
