"""What a broker has handed over to its sink, and the rules for what comes next.

Invariants
* `seen` is the number up to which the sink has got everything, or a `skip`. It never decreases within one log.
* A message at or below `seen` is not handed over again, however often the broker reads it: after a reconnect a range is
  read that overlaps with what came before.
* What is not whole is skipped: the node then reads the history.

`deliver` runs a call of the sink, in order: `Outbox.deliver` from another thread, or `call_now` on the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..message import Message
from .base import Opening, Sink


def call_now(step: Callable[[], None]) -> None:
    """Run it."""
    step()


class Follower:
    """The place of one sink in the log."""

    def __init__(self, sink: Sink, deliver: Callable[[Callable[[], None]], None] = call_now) -> None:
        self.seen = 0
        self._sink = sink
        self._deliver = deliver

    def begin(self, opening: Opening) -> None:
        """Go on in this log."""
        self.seen = opening.head
        self._deliver(partial(self._sink.begin, opening))

    def receive(self, messages: Sequence[Message]) -> None:
        """Hand over messages, in order, but for those that were handed over before."""
        if messages and messages[0].seq <= self.seen:
            messages = [message for message in messages if message.seq > self.seen]
        if messages:
            self.seen = messages[-1].seq
            self._deliver(partial(self._sink.receive, messages))

    def follow(self, messages: Sequence[Message] | None, head: int) -> None:
        """Hand over all that there is up to `head`; None where it is not whole."""
        if messages is None:
            self.skip(head)
        else:
            self.receive(messages)
            self.advance(head)

    def advance(self, seq: int) -> None:
        """Go to `seq`, which has no message that is to be handed over behind what was."""
        if seq > self.seen:
            self.seen = seq
            self._deliver(partial(self._sink.advance, seq))

    def skip(self, seq: int) -> None:
        """Go to `seq`, with messages in between that are not handed over."""
        if seq > self.seen:
            self.seen = seq
            self._deliver(partial(self._sink.skip, seq))

    def hole(self, before: int, after: int) -> None:
        """Go to `after`: what is above `before` may be lost."""
        self.seen = max(self.seen, after)
        self._deliver(partial(self._sink.hole, before, after))
