"""An event stream on a node that has to ask its broker where `latest` is: the head waits for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncecast.errors import Refusal
from oncecast.message import Draft, Kind
from oncecast.server.phases import Phase
from oncecast.testing.history_broker import HistoryBroker

if TYPE_CHECKING:
    from tests.server.conftest import Bench

OPENED = b"HTTP/1.1 200"


def ask(query: str = "", version: str = "1.1") -> bytes:
    """Return a request for the stream of the channel `a`."""
    return f"GET /v1/channels/a{query} HTTP/{version}\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()


@pytest.mark.parametrize("query", ["", "?last=0", "?after=latest"])
def test_what_is_published_after_the_head_comes(bench: Bench, history_broker: HistoryBroker, query: str) -> None:
    """The head comes once the place is known, and what is published from then on is not missed."""
    connection, transport = bench.connect()
    connection.receive(ask(query))
    bench.turn()
    assert (b"", Phase.WAITING) == (transport.take(), connection.phase)
    history_broker.append(Draft("a", b"before", Kind.TEXT))
    history_broker.answer()
    assert OPENED == transport.take()[: len(OPENED)]
    history_broker.append(Draft("a", b"after", Kind.TEXT))
    bench.answer_all(history_broker)
    events = transport.take()
    assert (True, False) == (b"data: after\n" in events, b"data: before\n" in events)
    assert 1 == bench.app.counters.requests[200]


def test_a_cursor_is_a_place_already(bench: Bench, history_broker: HistoryBroker) -> None:
    """The head comes at once."""
    connection, transport = bench.connect()
    connection.receive(ask("?after=e0-0"))
    assert OPENED == transport.take()[: len(OPENED)]
    bench.answer_all(history_broker)
    assert b"data: old\n" in transport.take()


@pytest.mark.parametrize(
    ("version", "end"), [("1.1", b"\r\n\r\nd\r\nretry: 5000\n\n\r\n0\r\n\r\n"), ("1.0", b"\r\n\r\nretry: 5000\n\n")]
)
def test_a_place_that_is_not_found_lets_an_event_source_come_back(
    bench: Bench, history_broker: HistoryBroker, version: str, end: bytes
) -> None:
    """A stream whose place is not found opens and ends, as an EventSource would give up for good after a 503."""
    connection, transport = bench.connect()
    connection.receive(ask(version=version))
    history_broker.answer(refusal=Refusal("unavailable", "The log can't be read now.", retry_after=5))
    answer = transport.take()
    assert (OPENED, end) == (answer[: len(OPENED)], answer[-len(end) :])
    assert (True, 0) == (transport.eof_written, bench.app.node.hub.subscriptions)


def test_a_client_that_leaves_meanwhile_gets_nothing(bench: Bench, history_broker: HistoryBroker) -> None:
    """No stream is made for it."""
    connection, transport = bench.connect()
    connection.receive(ask())
    connection.connection_lost(None)
    bench.answer_all(history_broker)
    assert (b"", 0, 0) == (transport.take(), bench.app.node.hub.subscriptions, bench.app.counters.requests[200])
