"""The phases of a connection, and which event moves it from one to another.

Invariant: `MOVES` has a row for each phase, and no event moves a connection that is CLOSED.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal, TypeAlias

__all__ = [
    "CLOSED",
    "LINGERING",
    "MOVES",
    "READING",
    "STREAMING",
    "WAITING",
    "ConnectionEvent",
    "Phase",
    "after",
]


class Phase(enum.Enum):
    """What a connection is doing."""

    __hash__ = object.__hash__  # as in `core.subscription.State`: a request makes up to two moves

    READING = "reading"  # answers requests, one by one and in order
    WAITING = "waiting"  # has a request whose answer comes later
    STREAMING = "streaming"  # belongs to a transport or to the application beside; the parser is gone
    LINGERING = "lingering"  # has sent its last byte, and discards what comes until the peer closes
    CLOSED = "closed"


# Names for the members: to look one up on its class costs ten times the comparison, and a request makes a dozen.
READING, WAITING, STREAMING, LINGERING, CLOSED = Phase


ConnectionEvent: TypeAlias = Literal[
    "postponed",  # the answer comes later
    "answered",  # that answer was written
    "streamed",  # a transport took the connection, or the application beside did
    "returned",  # the application has given it back
    "ended",  # the last byte was written
    "lost",  # the socket is closed
]


MOVES: Mapping[Phase, Mapping[ConnectionEvent, Phase]] = {
    READING: {
        "postponed": WAITING,
        "streamed": STREAMING,
        "ended": LINGERING,
        "lost": CLOSED,
    },
    WAITING: {
        "streamed": STREAMING,
        "answered": READING,
        "ended": LINGERING,
        "lost": CLOSED,
    },
    STREAMING: {
        "returned": READING,
        "ended": LINGERING,
        "lost": CLOSED,
    },
    LINGERING: {"lost": CLOSED},
    CLOSED: {},
}


def after(phase: Phase, event: ConnectionEvent) -> Phase:
    """Return the phase that follows. Raises `AssertionError` where the event can't happen in this phase."""
    try:
        return MOVES[phase][event]
    except KeyError:
        raise AssertionError(f"a connection that is {phase.value} can't be {event}") from None
