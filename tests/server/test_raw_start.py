"""A raw socket on a node that has to ask its broker where `latest` is: the answer 101 waits for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from oncecast.errors import Refusal
from oncecast.http.service import Rules
from oncecast.message import Draft, Kind
from oncecast.policy.identity import Identity
from oncecast.policy.rules import AccessRules
from oncecast.server.phases import Phase
from oncecast.testing.history_broker import HistoryBroker
from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from tests.server.conftest import Bench

OPENED = b"HTTP/1.1 101"


@pytest.mark.parametrize("query", ["", "?last=0", "?after=latest"])
def test_what_is_published_after_the_answer_comes(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes], query: str
) -> None:
    """The socket opens once its place is known, and what is published from then on is not missed."""
    connection, transport = bench.connect()
    connection.receive(upgrade(f"/v1/channels/a{query}", protocol=None))
    bench.turn()
    assert (b"", Phase.WAITING) == (transport.take(), connection.phase)
    history_broker.append(Draft("a", b"before", Kind.TEXT))
    history_broker.answer()
    assert OPENED == transport.take()[: len(OPENED)]
    history_broker.append(Draft("a", b"after", Kind.TEXT))
    bench.answer_all(history_broker)
    assert encode_frame(Opcode.TEXT, b"after") == transport.take()
    assert 1 == bench.app.counters.requests[101]


@pytest.mark.parametrize("query", ["?last=1", "?after=earliest", "?after=e0-0", "?since=0"])
def test_a_start_that_does_not_move_opens_at_once(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes], query: str
) -> None:
    """A socket whose start does not move opens at once, and gets the messages published meanwhile."""
    connection, transport = bench.connect()
    connection.receive(upgrade(f"/v1/channels/a{query}", protocol=None))
    assert OPENED == transport.take()[: len(OPENED)]
    history_broker.append(Draft("a", b"new", Kind.TEXT))
    bench.answer_all(history_broker)
    assert encode_frame(Opcode.TEXT, b"new") in transport.take()


def test_frames_that_come_ahead_of_the_answer_are_kept(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes]
) -> None:
    """Frames that come before the socket is open are published once it is, and come back on it."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a", protocol=None))
    connection.receive(encode_frame(Opcode.TEXT, b"mine", mask=b"mask"))
    bench.answer_all(history_broker)
    assert encode_frame(Opcode.TEXT, b"mine") in transport.take()


def test_more_ahead_than_is_taken_is_read_after_the_answer(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes]
) -> None:
    """The socket is not read meanwhile, and is read again then."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a", protocol=None))
    connection.receive(encode_frame(Opcode.BINARY, b"x" * 70_000, mask=b"mask"))
    assert not transport.reading
    bench.answer_all(history_broker)
    assert (True, 2) == (transport.reading, history_broker.head)


def test_a_place_that_is_not_found_is_answered_with_the_error(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes]
) -> None:
    """The client has an answer of HTTP, with when to try again, and no socket."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a", protocol=None))
    history_broker.answer(refusal=Refusal("unavailable", "The log can't be read now.", retry_after=5))
    answer = transport.take()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 5\r\n" in answer.lower()
    assert (True, 0) == (transport.eof_written, bench.app.node.hub.subscriptions)
    assert 0 == bench.app.counters.requests[101]


def test_a_client_that_leaves_meanwhile_gets_nothing(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes]
) -> None:
    """No session is made for it."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a", protocol=None))
    connection.connection_lost(None)
    bench.answer_all(history_broker)
    assert (b"", 0, 0) == (transport.take(), bench.app.node.hub.subscriptions, bench.app.counters.requests[101])


def test_rules_that_change_meanwhile_hold(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes]
) -> None:
    """A socket that may no longer read its channel is not opened."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a", protocol=None))
    app = bench.app
    closed = replace(app.settings, access=AccessRules({"a": ("server", "server")}))
    app.adopt(Rules(closed, app.hosts, app.origins))
    bench.answer_all(history_broker)
    assert b"HTTP/1.1 403" == transport.take()[:12]
    assert 0 == app.node.hub.subscriptions


def test_a_user_who_is_disconnected_meanwhile(
    bench: Bench, history_broker: HistoryBroker, upgrade: Callable[..., bytes]
) -> None:
    """A socket and a stream that wait for their place end too: nothing is opened for that user afterwards."""
    events = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    for request in (upgrade("/v1/channels/a", protocol=None), events):
        connection, transport = bench.connect()
        connection.receive(request)
        connection.identity = Identity("", "ann", "token")
        assert b"" == transport.take()
        bench.app.disconnect("bob")
        assert b"" == transport.take()
        bench.app.disconnect("ann")
        bench.answer_all(history_broker)
        answer = transport.take()
        assert b"HTTP/1.1 401" == answer[:12]
        assert b"This user was disconnected" in answer
        assert (1, 0) == (answer.count(b"HTTP/"), bench.app.node.hub.subscriptions)
