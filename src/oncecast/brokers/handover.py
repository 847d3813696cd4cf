"""What a node has been handed of the log, from one session to the next, and how it is handed what it has missed.

Invariants
* `seen` is the number up to which the sink has everything that it wants; it never goes back within one epoch.
* Messages, holes and the head are handed over in the order of the log. A hole that was passed is not handed over again.
* What can't be handed over whole is skipped: the node then reads the history.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from operator import attrgetter

from ..message import Mark, Message
from .base import Opening
from .session import GuardedSink, Lost

CAUGHT_UP = 5_000  # messages handed over after a pause; what is more is left to the history
CAUGHT_UP_BYTES = 32 << 20


class Missed:
    """What has come since a node's last session, as long as it can be handed over."""

    def __init__(self) -> None:
        self.too_much = False
        self._messages: list[Message] = []
        self._bytes = 0

    def add(self, messages: Sequence[Message]) -> bool:
        """Add messages of any channel. Return whether it is still not too much."""
        if not self.too_much:
            self._messages += messages
            self._bytes += sum(len(message.data) for message in messages)
            if len(self._messages) > CAUGHT_UP or self._bytes > CAUGHT_UP_BYTES:
                self.give_up()
        return not self.too_much

    def give_up(self) -> None:
        """Take it to be too much: the node reads the history."""
        self.too_much = True
        self._messages = []

    def messages(self) -> list[Message] | None:
        """Return all of them in order, or None."""
        return None if self.too_much else sorted(self._messages, key=attrgetter("seq"))


class Handover:
    """See the module. A session changes it, the next one goes on with it."""

    def __init__(self) -> None:
        self.epoch = ""
        self.seen = 0
        self.holes: set[tuple[int, int]] = set()
        self.last: dict[str, int] = {}  # by confirmed channel: the number seen last, or where it was confirmed

    def begin(
        self, sink: GuardedSink, epoch: str, head: int, holes: Collection[tuple[int, int]], wanted: Sequence[str]
    ) -> None:
        """Begin with another log, at its head."""
        self.epoch, self.seen, self.holes = epoch, head, set(holes)
        self.last = dict.fromkeys(wanted, head)
        sink.begin(Opening(epoch, head, Mark(head, math.inf), holes=tuple(sorted(holes))))
        if wanted:
            sink.wanted(wanted, head)

    def catch_up(
        self,
        sink: GuardedSink,
        missed: Missed,
        head: int,
        holes: Collection[tuple[int, int]],
        wanted: Sequence[str],
    ) -> None:
        """Hand over what has come to the wanted channels since the last session, up to `head`.

        `holes` are all that the log has.
        """
        messages = missed.messages() or []
        for before, after in sorted(set(holes) - self.holes):
            if after <= self.seen:
                continue
            if earlier := [message for message in messages if message.seq <= before]:
                sink.receive(earlier)
            messages = [message for message in messages if message.seq > after]
            sink.hole(before, after)
            self.seen = after
        self.holes = set(holes)
        if missed.too_much and head > self.seen:
            sink.skip(head)
        elif messages:
            sink.receive(messages)
        sink.advance(head)
        self.seen = max(self.seen, head)
        fresh = [channel for channel in wanted if channel not in self.last]
        self.last = dict.fromkeys(wanted, self.seen)
        if fresh:
            sink.wanted(fresh, self.seen)

    def follows(self, sink: GuardedSink, channel: str, before: int, seq: int) -> bool:
        """Return whether a message that was pushed is to be handed over: its channel is confirmed.

        `before` is the number of the message before it in its channel. Raises `Lost` where that one did not come.
        """
        last = self.last.get(channel)
        if last is None:
            return False
        if before > last:
            if last < self.seen:  # what came since on other channels is delivered, and can't be taken back
                sink.hole(last, self.seen)
            raise Lost(f"a message of {channel} before {seq} did not arrive")
        self.last[channel] = seq
        return True

    def advance(self, sink: GuardedSink, seq: int) -> None:
        """Go to `seq`: nothing that is wanted is before it but what was handed over."""
        if seq > self.seen:
            self.seen = seq
            sink.advance(seq)

    def forget(self, channels: Sequence[str]) -> None:
        """Know nothing more of channels: they are confirmed again if they are wanted again."""
        for channel in channels:
            self.last.pop(channel, None)
