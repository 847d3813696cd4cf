"""Large answers: they wait for their turn, share their bytes, and hold up nobody."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from oncecast.core.bulk import LARGE_BYTES, LARGE_MESSAGES, TURN_SECONDS

if TYPE_CHECKING:
    from tests.server.conftest import Bench

PEERS = 50
PAGE = b"GET /v1/channels/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def one_turn(bench: Bench) -> None:
    """Run what is scheduled now, and leave what that schedules."""
    for call in [bench.scheduled.pop(0) for _ in range(len(bench.scheduled))]:
        call()


def test_short_requests_are_answered_before_the_large_pages_of_others(bench: Bench) -> None:
    """Of 50 large polls that came before, no turn answers more than its time allows; a publish waits for none."""
    bench.publish("large", b'"%b"' % (b"x" * LARGE_BYTES))
    bench.step = TURN_SECONDS / 4  # a look at the clock, of which each answer has some
    slow = [bench.connect() for _ in range(PEERS)]
    for connection, transport in slow:
        connection.receive(PAGE)
        assert b"" == transport.take()
    connection, transport = bench.connect()
    connection.receive(POST)
    assert transport.take().startswith(b"HTTP/1.1 201 ")
    answered, turns = 0, 0
    while answered < PEERS:
        one_turn(bench)
        turns += 1
        now = sum(bool(transport.sent) for _, transport in slow)
        assert 1 <= now - answered <= 4
        answered = now
        assert turns <= PEERS
    assert {200} == {int(transport.take()[9:12]) for _, transport in slow}


@pytest.mark.parametrize("query", ["", "?wait=5", "?after=e0-0&wait=5"])
@pytest.mark.parametrize("many", [False, True])
def test_a_large_answer_is_whole(bench: Bench, query: str, many: bool) -> None:
    """One that is large by its bytes or by its number of messages is the same as a small one, short or long poll."""
    sent = [str(number) for number in range(LARGE_MESSAGES)] if many else [f'"{"x" * LARGE_BYTES}"']
    for data in sent:
        bench.publish("large", data.encode())
    connection, transport = bench.connect()
    connection.receive(PAGE.replace(b"/large", b"/large" + query.encode()) + HEALTH)
    assert b"" == transport.take()
    bench.turn()
    head, _, rest = bytes(transport.take()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    assert [json.loads(data) for data in sent] == [message["data"] for message in json.loads(rest[:size])["messages"]]
    assert rest[size:].startswith(b"HTTP/1.1 200 ")  # the next request's answer comes behind


def test_a_client_that_has_left_meanwhile_gets_no_answer(bench: Bench) -> None:
    """A connection that closes while its answer waits is forgotten, and the next one has its turn."""
    bench.publish("large", b'"%b"' % (b"x" * LARGE_BYTES))
    (gone, dead), (left, alive) = bench.connect(), bench.connect()
    gone.receive(PAGE)
    left.receive(PAGE)
    gone.connection_lost(None)
    bench.turn()
    assert (b"", b"HTTP/1.1 200 ") == (dead.take(), alive.take()[:13])


def test_what_peers_do_not_take_is_one_object_for_all(bench: Bench) -> None:
    """The unsent rest of equal answers is a view of the same bytes: 50 peers do not cost 50 MiB."""
    for _ in range(20):
        bench.publish("large", b'"%b"' % (b"x" * 50_000))
    given: list[object] = []
    pairs = [socket.socketpair() for _ in range(3)]
    try:
        for ours, _ in pairs:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            connection, transport = bench.connect(sock=ours)
            transport.write = given.append  # type: ignore[method-assign, assignment]
            connection.receive(PAGE)
        bench.turn()
    finally:
        for pair in pairs:
            for sock in pair:
                os.close(sock.detach())
    assert 3 == len(given)
    views = [rest for rest in given if isinstance(rest, memoryview)]
    assert 3 == len(views)
    assert 1 == len({id(view.obj) for view in views})
