"""What the hub serves: a subscription, its states and the events that move it, and the contracts of format and sink.

To add a policy for subscribers that read too slowly, add it to `Lag` and to `Hub.unblock`. A state or an event goes
into its type and into `MOVES`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import Refusal
from ..message import LogGap
from .entry import Encoding
from .place import Place


class Lag(enum.StrEnum):
    """What a channel does with a subscriber that has been live and then reads too slowly."""

    RESUME = "resume"  # read on from its place; past the retention, a gap
    LATEST = "latest"  # skip to the newest message: for values of which only the last counts
    DISCONNECT = "disconnect"  # close its connection


class State(enum.Enum):
    """Where a subscription stands."""

    __hash__ = object.__hash__  # each member is one object; Enum's own runs Python code for each look at `MOVES`

    CATCHING_UP = "catching up"
    LIVE = "live"
    BLOCKED = "blocked"
    CLOSED = "closed"


SubscriptionEvent: TypeAlias = Literal[
    "caught up",  # it has read everything up to the head
    "skipped",  # the broker went on without handing everything over
    "filled",  # its sink is full
    "drained",  # its sink takes bytes again
    "ended",  # its subscriber left, or was refused
]


# Names for the members: to look one up on its class costs several times the comparison.
CATCHING_UP, LIVE, BLOCKED, CLOSED = State

MOVES: Mapping[State, Mapping[SubscriptionEvent, State]] = {
    CATCHING_UP: {"caught up": LIVE, "filled": BLOCKED, "ended": CLOSED},
    LIVE: {"skipped": CATCHING_UP, "filled": BLOCKED, "ended": CLOSED},
    BLOCKED: {"drained": CATCHING_UP, "ended": CLOSED},
    CLOSED: {},
}


class Format(Encoding, Protocol):
    """One wire format: how a message looks, and a block of messages."""

    def block(self, parts: list[bytes]) -> bytes:
        """Join encoded messages to the bytes of one write."""
        ...


class SubscriptionSink(Protocol):
    """Where a subscription's bytes go. `write` never raises, and may call any method of the hub before it returns."""

    def write(self, block: bytes, /) -> None:
        """Send the bytes. Past what the sink can hold, keep them and call `Hub.block`."""
        ...

    def gap(self, gap: LogGap, /) -> None:
        """Tell the subscriber what it has missed."""
        ...

    def refuse(self, refusal: Refusal, /) -> None:
        """Tell the subscriber why it can't go on, and close."""
        ...


Descriptor: TypeAlias = Any  # of a socket, an int; where a socket has another way to be sent to, what that takes


class Subscription:
    """A set of channels that one sink listens to in one format, and its place in the log.

    `descriptor` is that of the sink's socket, or what else the hub's `send` takes, if the hub may write to it directly
    while the subscription is live. What it does not take goes to `sink.write`.
    """

    __slots__ = ("alone", "channels", "descriptor", "format", "lag", "place", "sink", "state", "was_live")

    def __init__(
        self,
        channels: tuple[str, ...],
        format: Format,  # noqa: A002 - the word of the domain
        sink: SubscriptionSink,
        place: Place | None,
        lag: Lag,
        descriptor: Descriptor | None = None,
    ) -> None:
        self.channels = channels
        self.format = format
        self.sink = sink
        self.descriptor = descriptor
        # None while LIVE, when the hub's `flushed` is its place, and until its start has been looked up.
        self.place = place
        self.lag = lag
        self.alone = len(channels) == 1  # one channel, and nothing else goes to its sink
        # It has been live, and nothing but its own reading has kept it behind since. Only then is it too slow: one that
        # reads a backlog fills its socket too, however fast it reads.
        self.was_live = False
        self.state = CATCHING_UP

    def behind(self) -> bool:
        """Whether it has a backlog to read."""
        return self.state is CATCHING_UP and self.place is not None

    def replaying(self) -> bool:
        """Whether it reads a backlog that it does not owe to its own slowness."""
        return self.place is not None and not self.was_live

    def move(self, event: SubscriptionEvent) -> None:
        """Go to the state that the event leads to. Raises `AssertionError` where the table has none."""
        state = MOVES[self.state].get(event)
        if state is None:
            raise AssertionError(f"a subscription that is {self.state.value} can't be {event}")
        self.state = state
