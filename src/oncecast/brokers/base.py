"""The contract of a broker: the only source of order.

A broker appends drafts to its shard, numbers them, acknowledges them, and hands every message of the shard, in order
and its own publishes included, to the sink it was opened with. Nothing is delivered to a subscriber before that.

A broker that keeps what it has numbered has a `history`: the log in memory is then only a window of it, and whoever is
behind the window reads there. One without (`history` is None) keeps nothing: the window is all there is.

Nothing here is a coroutine: `publish` and `read` take a callback, so that a broker that can answer at once costs no
task, and one that cannot calls back later on the loop's thread. `oncecast.testing.check_broker` holds an implementation
to the contract; to add a broker, write a file beside this one that passes it, and name its URL scheme in
`server/build.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from ..errors import Refusal
from ..message import Draft, Mark, Message, Page, Receipt, Start

Outcome = Receipt | Refusal
Done = Callable[[Sequence[Outcome]], None]

KEY_SECONDS = 24 * 3600.0  # an idempotency key is known; who retries for longer has other troubles
STOPPING = Refusal("unavailable", "The server is stopping: publish again in a moment.", retry_after=1)


class Sink(Protocol):
    """What a broker delivers to."""

    def receive(self, messages: Sequence[Message], /) -> None:
        """Take the next messages of the shard, in order."""
        ...

    def skip(self, seq: int, /) -> None:
        """Go on after `seq`: what is before is not handed over, as it is too much or gone. Read the history."""
        ...

    def fail(self, reason: str, /) -> None:
        """The broker can't go on, and won't: it is to be opened again, by a new process. `reason` is for its log."""
        ...


class Opening(msgspec.Struct, frozen=True):
    """Where a shard stands when it is opened.

    `head` is the last number given. `recent` are its newest messages, all of them above `floor` that are not trimmed;
    `marks` has the trimmed mark of each channel where that is above the floor. `holes` are ranges of numbers that were
    never given, as (the last before it, the first after it): a cursor from inside is of a log that is lost.
    """

    head: int = 0
    floor: Mark = Mark()
    recent: tuple[Message, ...] = ()
    marks: Mapping[str, Mark] = {}
    holes: tuple[tuple[int, int], ...] = ()


class History(Protocol):
    """What a broker has kept, to be read from any place."""

    def read(
        self,
        channels: Sequence[str],
        start: Start,
        limit: int,
        max_bytes: int,
        done: Callable[[Page | Refusal], None],
    ) -> None:
        """Read on from a start, and call `done` once, on the loop's thread.

        The page has at most `limit` messages, which may be 0, and only as many as fit in `max_bytes` of data, but then
        at least one. A cursor's epoch has been checked: what counts is its `seq`.
        """
        ...


class Broker(Protocol):
    """One shard of messages, totally ordered."""

    @property
    def epoch(self) -> str:
        """The name of this life of the log: 1 to 32 of `[A-Za-z0-9_]`. Known once it is open."""
        ...

    @property
    def durability(self) -> str:
        """How durable an acknowledged message is: one of those that `Receipt` names."""
        ...

    @property
    def history(self) -> History | None:
        """What has been kept, or None."""
        ...

    def open(self, sink: Sink) -> Opening:
        """Begin to hand every new message to `sink`, from the loop's next turn on. Called once, before anything else.

        Raises `ConfigurationError` where it can't be opened.
        """
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
