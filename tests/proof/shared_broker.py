"""A memory broker that several nodes share: a cluster in one process, for tests.

Invariant: every node gets the same messages, in the same order, under the same epoch, so that a cursor of one is valid
at another. A node that joins late gets the earlier messages in its opening.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oncecast.brokers.base import Capabilities, Done, Opening, Read, Sink
from oncecast.brokers.memory import MemoryBroker
from oncecast.message import Draft, Message, Start
from oncecast.testing.driver import run_now

__all__ = ["NodeBroker", "SharedBroker"]


class SharedBroker:
    """The log, and the nodes that follow it. `messages` is every one, for as long as the broker lives."""

    def __init__(self, epoch: str, wall: Callable[[], float]) -> None:
        self.epoch = epoch
        self.messages: list[Message] = []
        self.core = MemoryBroker(epoch, wall)
        self._sinks: list[Sink] = []
        run_now(self.core.start(self))

    def node(self) -> NodeBroker:
        """Return a broker for one more node."""
        return NodeBroker(self)

    def join(self, sink: Sink) -> Opening:
        """Follow from here on; what was before is in the opening."""
        self._sinks.append(sink)
        messages = tuple(self.messages)
        return Opening(self.epoch, head=messages[-1].seq if messages else 0, recent=messages)

    def leave(self, sink: Sink) -> None:
        """Follow no longer."""
        self._sinks.remove(sink)

    def receive(self, messages: Sequence[Message], /) -> None:
        """Keep them, and hand them to every node."""
        self.messages.extend(messages)
        for sink in tuple(self._sinks):
            sink.receive(messages)

    def begin(self, opening: Opening, /) -> None:
        """Begin empty."""

    def skip(self, seq: int, /) -> None:
        """A memory broker never does."""

    def advance(self, seq: int, /) -> None:
        """A memory broker never does."""

    def hole(self, before: int, after: int, /) -> None:
        """A memory broker never does."""

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """A memory broker never does."""

    def away(self, reason: str, /) -> None:
        """A memory broker never does."""

    def back(self) -> None:
        """A memory broker never does."""

    def fail(self, reason: str, /) -> None:
        """A memory broker never does."""


class NodeBroker:
    """The shared broker, as one node sees it. It can be started again once it was stopped."""

    capabilities = Capabilities("memory", history=False)

    def __init__(self, shared: SharedBroker) -> None:
        self.epoch = shared.epoch
        self._shared = shared
        self._sink: Sink | None = None

    async def start(self, sink: Sink) -> None:
        """Begin to hand every message to `sink`."""
        self._sink = sink
        sink.begin(self._shared.join(sink))

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """There is no history."""
        raise NotImplementedError

    def want(self, channels: Sequence[str]) -> None:
        """Every channel is delivered."""

    def unwant(self, channels: Sequence[str]) -> None:
        """Every channel is delivered."""

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts for all nodes, and answer at once."""
        self._shared.core.publish(drafts, done)

    async def stop(self) -> None:
        """Leave; the other nodes go on."""
        if self._sink is not None:
            self._shared.leave(self._sink)
            self._sink = None
