"""The contract of a broker: the only source of order.

A broker appends drafts to its shard, numbers them, acknowledges them, and hands every message of the shard, in order
and its own publishes included, to the sink it was opened with. Nothing is delivered to a subscriber before that.

Nothing here is a coroutine: `publish` takes a callback, so that a broker that can answer at once costs no task, and
one that cannot calls back later on the loop's thread. `oncecast.testing.check_broker` holds an implementation to the
contract; to add a broker, write a file beside this one that passes it, and name its URL scheme in `server/build.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import Refusal
from ..message import Draft, Message, Receipt

Sink = Callable[[Sequence[Message]], None]
Outcome = Receipt | Refusal
Done = Callable[[Sequence[Outcome]], None]


class Broker(Protocol):
    """One shard of messages, totally ordered."""

    @property
    def epoch(self) -> str:
        """The name of this life of the log: 1 to 32 of `[A-Za-z0-9_]`."""
        ...

    @property
    def durability(self) -> str:
        """How durable an acknowledged message is: `memory`, `broker` or `fsync`."""
        ...

    def open(self, sink: Sink) -> None:
        """Begin to hand every new message to `sink`. Called once, before anything else."""
        ...

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts in order, then call `done` once with an outcome for each.

        The messages reach the sink before `done` is called. A draft with a `key` that its channel has seen is not
        appended again: its outcome is the receipt of the first time.
        """
        ...

    def close(self) -> None:
        """Stop. Publishes not yet acknowledged are answered with `unavailable`."""
        ...
