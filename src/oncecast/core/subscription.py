"""What the hub serves: a subscription, its states and legal moves, the contract of its format and its sink, and the
audience of a channel.

To add a policy for readers that lag, add it to `Lag` and to `Hub.unblock`; a state goes into `State` and `MOVES`.
"""

from __future__ import annotations

import enum
from typing import Protocol

from ..errors import Refusal
from ..message import Gap
from .log import Encoding, Place


class Lag(enum.StrEnum):
    """What a channel does with a subscriber that reads too slowly."""

    RESUME = "resume"  # read on from its place; past the retention, a gap
    LATEST = "latest"  # skip to the newest message: for values of which only the last counts
    DISCONNECT = "disconnect"  # close its connection


class State(enum.Enum):
    """Where a subscription stands."""

    CATCHING_UP = "catching up"
    LIVE = "live"
    BLOCKED = "blocked"
    CLOSED = "closed"


MOVES: dict[State, frozenset[State]] = {
    State.CATCHING_UP: frozenset({State.LIVE, State.BLOCKED, State.CLOSED}),
    State.LIVE: frozenset({State.BLOCKED, State.CLOSED}),
    State.BLOCKED: frozenset({State.CATCHING_UP, State.CLOSED}),
    State.CLOSED: frozenset(),
}


class Format(Encoding, Protocol):
    """One wire format: how a message looks, and a block of them."""

    def block(self, parts: list[bytes]) -> bytes:
        """Join encoded messages to what goes out in one write."""
        ...


class Sink(Protocol):
    """Where a subscription's bytes go. `write` never raises, and may call `Hub.block` before it returns."""

    def write(self, block: bytes, /) -> None:
        """Send the bytes; past what the sink can hold, keep them and block."""
        ...

    def gap(self, gap: Gap, /) -> None:
        """Tell the subscriber what it has missed."""
        ...

    def refuse(self, refusal: Refusal, /) -> None:
        """Tell the subscriber why, and close."""
        ...


class Subscription:
    """A set of channels that one sink listens to in one format, and its place in the log.

    `descriptor` is that of the sink's socket, where it may be written to directly while the subscription is live; what
    the socket does not take goes to `sink.write`.
    """

    __slots__ = ("alone", "channels", "descriptor", "format", "lag", "lagging", "place", "queued", "sink", "state")

    def __init__(
        self,
        channels: tuple[str, ...],
        format: Format,  # noqa: A002 - the word of the domain
        sink: Sink,
        place: Place | None,
        lag: Lag,
        descriptor: int | None = None,
    ) -> None:
        self.channels = channels
        self.format = format
        self.sink = sink
        self.descriptor = descriptor
        # None while LIVE, when the hub's `flushed` is its place, and before its start has been looked up.
        self.place = place
        self.lag = lag
        self.alone = len(channels) == 1  # one channel, and nothing else goes to its sink
        self.lagging = False  # it was live or blocked before, so what it misses from now on it misses by being slow
        self.queued = False  # it stands in the hub's catch-up queue
        self.state = State.CATCHING_UP

    def behind(self) -> bool:
        """Whether it has a backlog to read."""
        return self.state is State.CATCHING_UP and self.place is not None

    def move(self, state: State) -> None:
        """Go to a state that the table allows."""
        if state not in MOVES[self.state]:
            raise AssertionError(f"a subscription can't go from {self.state.value} to {state.value}")
        self.state = state


class Group:
    """The live subscriptions of one channel and format whose sink gets nothing else: by socket, or by sink."""

    __slots__ = ("descriptors", "sinks")

    def __init__(self) -> None:
        self.descriptors: dict[Subscription, int] = {}
        self.sinks: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self.descriptors) + len(self.sinks)


class Audience:
    """The live subscriptions of one channel: those whose sink gets nothing else, by format, and the others."""

    __slots__ = ("alone", "gathered")

    def __init__(self) -> None:
        self.alone: dict[Format, Group] = {}
        self.gathered: dict[Subscription, None] = {}

    def __bool__(self) -> bool:
        return bool(self.alone or self.gathered)

    def members(self) -> list[Subscription]:
        """Return all of them."""
        alone = [subscription for group in self.alone.values() for subscription in (*group.descriptors, *group.sinks)]
        return [*alone, *self.gathered]

    def add(self, subscription: Subscription) -> None:
        """Let a subscription hear."""
        if not subscription.alone:
            self.gathered[subscription] = None
            return
        group = self.alone.get(subscription.format)
        if group is None:
            group = self.alone[subscription.format] = Group()
        if subscription.descriptor is not None:
            group.descriptors[subscription] = subscription.descriptor
        else:
            group.sinks[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Let it hear no more."""
        if not subscription.alone:
            del self.gathered[subscription]
            return
        group = self.alone[subscription.format]
        if subscription.descriptor is not None:
            del group.descriptors[subscription]
        else:
            del group.sinks[subscription]
        if not group:
            del self.alone[subscription.format]
