"""One memory broker that several nodes share: a cluster in one process, for tests.

Invariant: every node is given the same messages, in the same order, under the same epoch, so that a cursor of one is
good at another. A node that joins late is given what was before it came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oncecast.brokers.base import Done, Sink
from oncecast.brokers.memory import MemoryBroker
from oncecast.message import Draft, Message

__all__ = ["NodeBroker", "SharedBroker"]


class SharedBroker:
    """The log, and the nodes that follow it. `history` is every message, for as long as the broker lives."""

    def __init__(self, epoch: str, wall: Callable[[], float]) -> None:
        self.epoch = epoch
        self.history: list[Message] = []
        self.core = MemoryBroker(epoch, wall)
        self._sinks: list[Sink] = []
        self.core.open(self._spread)

    def node(self) -> NodeBroker:
        """Return a broker for one more node."""
        return NodeBroker(self)

    def join(self, sink: Sink) -> None:
        """Follow from the first message on."""
        if self.history:
            sink(tuple(self.history))
        self._sinks.append(sink)

    def leave(self, sink: Sink) -> None:
        """Follow no longer."""
        self._sinks.remove(sink)

    def _spread(self, messages: Sequence[Message]) -> None:
        self.history.extend(messages)
        for sink in tuple(self._sinks):
            sink(messages)


class NodeBroker:
    """The shared broker, as one node sees it. It can be opened again once it was closed."""

    durability = "memory"

    def __init__(self, shared: SharedBroker) -> None:
        self.epoch = shared.epoch
        self._shared = shared
        self._sink: Sink | None = None

    def open(self, sink: Sink) -> None:
        """Begin to hand every message to `sink`."""
        self._sink = sink
        self._shared.join(sink)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts for all nodes, and answer at once."""
        self._shared.core.publish(drafts, done)

    def close(self) -> None:
        """Leave; the other nodes go on."""
        if self._sink is not None:
            self._shared.leave(self._sink)
            self._sink = None
