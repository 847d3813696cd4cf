"""Who may connect to a full server."""

from __future__ import annotations

import logging

import pytest

from oncecast.policy.limits import Limits
from oncecast.server.admission import Admission, may_use_reserve
from oncecast.server.capacity import Capacity
from oncecast.wire.http1 import RequestParser


class Peer:
    """A connection that gives way unless it is `busy`."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy
        self.evicted = 0

    def evict(self) -> bool:
        self.evicted += not self.busy
        return not self.busy


class Clock:
    """A clock that stands."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def open_(admission: Admission[Peer], peer: Peer) -> bool:
    """Accept and open a connection; returns whether it is reserved."""
    assert admission.take()
    return admission.add(peer)


def test_the_reserve_begins_at_the_ceiling() -> None:
    """A place that has been given back is free again, in the reserve and below the ceiling."""
    admission: Admission[Peer] = Admission(Capacity(2, 1), Clock())
    first, second, third = Peer(), Peer(), Peer()
    assert [False, False, True] == [open_(admission, peer) for peer in (first, second, third)]
    admission.remove(first)
    assert admission.promote(third)
    assert open_(admission, Peer())
    assert (4, 0) == (admission.opened, admission.turned_away)


def test_a_full_reserve_gives_up_its_oldest_that_can_go() -> None:
    """A connection is evicted once; where all wait for answers, a new connection is refused."""
    admission: Admission[Peer] = Admission(Capacity(1, 3), Clock())
    peers = [Peer(), Peer(busy=True), Peer(), Peer()]
    for peer in peers:
        open_(admission, peer)
    assert [True, True, False] == [admission.take() for _ in range(3)]
    assert [0, 0, 1, 1] == [peer.evicted for peer in peers]
    admission.give_back()
    assert admission.take()
    for peer in peers:
        admission.remove(peer)
    assert set() == admission.connections
    assert [True, True] == [admission.take() for _ in range(2)]


def test_a_connection_that_never_opened_gives_its_place_back() -> None:
    """A handshake that fails costs nobody a place."""
    admission: Admission[Peer] = Admission(Capacity(1, 0), Clock())
    for _ in range(3):
        assert admission.take()
        admission.give_back()


def test_the_others_hear_of_a_connection_that_never_opened() -> None:
    """The number that all processes share is lower again once a handshake has failed, not with the next connection."""
    admission: Admission[Peer] = Admission(Capacity(9, 0), Clock())
    said: list[int] = []

    def room(own: int) -> int:
        said.append(own)
        return 1

    admission.room = room
    for _ in range(3):
        admission.take()
    for _ in range(3):
        admission.give_back()
    assert 0 == said[-1]


def test_a_place_that_is_taken_over_is_counted_as_turned_away() -> None:
    """Whose place it was gives it back when it is cut."""
    admission: Admission[Peer] = Admission(Capacity(1, 0), Clock())
    assert (False, True, True) == (admission.full, admission.take(), bool(admission.full))
    admission.take_over()
    admission.give_back()
    assert (False, 1) == (admission.take(), admission.turned_away)


def test_a_full_server_says_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Not for each connection that it turns away."""
    clock = Clock()
    admission: Admission[Peer] = Admission(Capacity(0, 0), clock)
    with caplog.at_level(logging.WARNING, "oncecast.server"):
        for seconds in (0.0, 1.0, 59.0, 61.0):
            clock.seconds = seconds
            admission.turn_away()
    assert (2, 4) == (len(caplog.records), admission.turned_away)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("POST /v1/channels/a", True),
        ("POST /v1/publish", True),
        ("OPTIONS /v1/channels/a", True),
        ("GET /readyz", True),
        ("HEAD /metrics", True),
        ("GET /v1/channels/a", False),
        ("GET /v1/connect", False),
        ("GET /", False),
        ("POST /readyz", False),
    ],
)
def test_what_the_reserve_is_for(line: str, expected: bool) -> None:
    """Publishes and probes, and nothing that stays."""
    request = RequestParser(Limits()).whole(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert request is not None
    assert expected == may_use_reserve(request)
