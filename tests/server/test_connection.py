"""One connection on a transport that is not there: phases, pipelining, deadlines, pausing, and every way to end."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from oncecast.errors import Refusal
from oncecast.message import Draft
from oncecast.protocol.base import Reply
from oncecast.protocol.events import EventStream
from oncecast.server.capacity import Capacity
from oncecast.server.connection import FIRST_SECONDS, LEAST_TAKEN_BYTES, Connection
from oncecast.server.framing.websocket import SLICE_BYTES
from oncecast.server.phases import Phase
from oncecast.server.read_budget import SHORT_BYTES, TURN_SECONDS
from oncecast.server.responder import LINGER_SECONDS, PIPELINE_BYTES
from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Bench, FakeTransport

    Parse = Callable[..., Answer]
    ParseAll = Callable[[bytes], list[Answer]]

GET = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = b"GET /v1/channels/a?after=latest&wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n"
SSE = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42"


def post(body: bytes) -> bytes:
    """Return a publish."""
    return b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def phase_of(connection: Connection) -> Phase:
    """Return the phase as it is now: a type checker believes that it stays."""
    return connection.phase


# -- phases


def test_an_illegal_move_is_a_defect(bench: Bench) -> None:
    """A connection is lost once; what is not in the table raises."""
    connection, _ = bench.connect()
    connection.connection_lost(None)
    with pytest.raises(AssertionError, match="a connection that is closed can't be lost"):
        connection.connection_lost(None)


# -- requests


def test_keep_alive_answers_one_after_another(bench: Bench, parse: Parse) -> None:
    """HTTP/1.1 keeps the connection, without saying so."""
    connection, transport = bench.connect()
    for _ in range(3):
        connection.receive(HEALTH)
        answer = parse(transport.take())
        assert (200, b"ok\n", None) == (answer.status, answer.body, answer.headers.get("connection"))
    assert Phase.READING is phase_of(connection)


def test_connection_close_is_obeyed(bench: Bench, parse: Parse) -> None:
    """A client that says close gets its answer, and the end."""
    connection, transport = bench.connect()
    connection.receive(HEALTH[:-2] + b"Connection: close\r\n\r\n" + HEALTH)
    answer = parse(transport.take())
    assert (200, "close", b"") == (answer.status, answer.headers["connection"], answer.rest)
    assert (True, Phase.LINGERING) == (transport.eof_written, connection.phase)


def test_http_1_0(bench: Bench, parse: Parse) -> None:
    """HTTP/1.0 closes unless the client asks to keep the connection, and then the answer confirms it."""
    connection, transport = bench.connect()
    connection.receive(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert "keep-alive" == parse(transport.take()).headers["connection"]
    assert Phase.READING is phase_of(connection)
    connection.receive(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert "close" == parse(transport.take()).headers["connection"]
    assert Phase.LINGERING is phase_of(connection)


def test_head_has_no_body(bench: Bench, parse: Parse) -> None:
    """HEAD is answered with the length that GET would have, and nothing after it."""
    answer = parse(bench.ask(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), head_only=True)
    assert (200, "3", b"") == (answer.status, answer.headers["content-length"], answer.rest)


def test_pipelined_requests_are_answered_in_order(bench: Bench, parse_all: ParseAll) -> None:
    """Requests of one packet get their answers in the order in which they came."""
    answers = parse_all(
        bench.ask(HEALTH + post(b"1") + GET + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH)
    )
    assert [200, 201, 200, 404, 200] == [answer.status for answer in answers]
    assert [1] == [message["data"] for message in answers[2].json["messages"]]


def test_a_request_byte_by_byte(bench: Bench, parse_all: ParseAll) -> None:
    """However a request is cut, it is answered once, when its last byte is there."""
    connection, transport = bench.connect()
    for byte in POST + HEALTH:
        connection.receive(bytes([byte]))
    assert [201, 200] == [answer.status for answer in parse_all(transport.take())]


def test_expect_continue_is_answered_once_before_the_body(bench: Bench, parse: Parse) -> None:
    """A client that waits for 100 gets it, then its answer (RFC 9110 §10.1.1)."""
    connection, transport = bench.connect()
    connection.receive(
        b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == transport.take()
    connection.receive(b"4")
    assert b"" == transport.take()
    connection.receive(b"2")
    assert 201 == parse(transport.take()).status


def test_a_body_over_the_limit_is_refused_instead_of_continued(bench: Bench, parse: Parse) -> None:
    """No 100 goes to a body that would be refused."""
    answer = parse(
        bench.ask(
            b"POST /v1/channels/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        )
    )
    assert (413, "close") == (answer.status, answer.headers["connection"])


def test_after_a_malformed_request_nothing_is_read(bench: Bench, parse: Parse) -> None:
    """Where the next request would begin is unknown, so an error ends the connection."""
    connection, transport = bench.connect()
    connection.receive(b"GET / HTTP/1.1\r\nHost : t\r\n\r\n" + HEALTH)
    answer = parse(transport.take())
    assert (400, "close", b"") == (answer.status, answer.headers["connection"], answer.rest)
    connection.receive(HEALTH)
    assert b"" == transport.take()


# -- waiting


def test_a_request_behind_a_long_poll_waits_for_it(bench: Bench, parse_all: ParseAll) -> None:
    """The long poll's answer comes first, then the one that was pipelined behind it."""
    connection, transport = bench.connect()
    connection.receive(LONG + HEALTH)
    connection.receive(HEALTH)
    assert (Phase.WAITING, b"") == (connection.phase, transport.take())
    bench.turn()
    bench.publish("a", b"1")
    first, *others = parse_all(transport.take())
    assert [1] == [message["data"] for message in first.json["messages"]]
    assert [b"ok\n", b"ok\n"] == [answer.body for answer in others]
    assert Phase.READING is phase_of(connection)


def test_a_client_that_sends_ahead_too_far_is_not_read(bench: Bench, parse_all: ParseAll) -> None:
    """While an answer is due, a bounded number of bytes is taken; the rest stays in the socket until then."""
    connection, transport = bench.connect()
    connection.receive(LONG)
    connection.receive(HEALTH * (PIPELINE_BYTES // len(HEALTH)))
    assert transport.is_reading()
    connection.receive(HEALTH)
    connection.receive(HEALTH)
    assert not transport.is_reading()
    bench.pass_time(20)
    assert PIPELINE_BYTES // len(HEALTH) + 3 == len(parse_all(transport.take()))
    assert transport.is_reading()


def test_a_publish_that_takes_time(bench: Bench, parse_all: ParseAll) -> None:
    """An answer that the broker gives later comes before those of the requests behind it."""
    bench.broker.slow = True
    connection, transport = bench.connect()
    connection.receive(POST + HEALTH)
    assert b"" == transport.take()
    bench.broker.answer()
    assert [201, 200] == [answer.status for answer in parse_all(transport.take())]


def test_a_broker_that_never_answers(bench: Bench) -> None:
    """A publish without an answer holds its connection for a bounded time."""
    bench.broker.slow = True
    connection, transport = bench.connect()
    connection.receive(POST)
    bench.pass_time(29)
    assert not transport.is_closing()
    bench.pass_time(1)
    assert transport.aborted
    connection.connection_lost(None)
    bench.broker.answer()
    assert b"" == transport.take()


def test_an_answer_after_the_request_failed_is_dropped(bench: Bench, parse: Parse) -> None:
    """A late answer finds its request gone and writes nothing."""
    bench.broker.slow = True
    connection, transport = bench.connect()
    connection.receive(POST)
    connection.fail(Refusal("unavailable", "Gone."))
    assert 503 == parse(transport.take()).status
    bench.broker.answer()
    assert b"" == transport.take()


# -- streaming


def test_what_is_pipelined_behind_a_stream_is_not_answered(bench: Bench) -> None:
    """An event stream never ends, so a request behind it is read and dropped."""
    connection, transport = bench.connect()
    connection.receive(SSE + HEALTH)
    assert Phase.STREAMING is phase_of(connection)
    assert b"ok\n" not in transport.take()
    connection.receive(HEALTH)
    assert b"" == transport.take()


def test_frames_behind_a_handshake_are_read(bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """Frames that came in the handshake's packet are the WebSocket's first."""
    connection, transport = bench.connect()
    ping = encode_frame(Opcode.PING, b"hello", mask=b"mask")
    connection.receive(upgrade("/v1/channels/a") + ping)
    assert transport.take().endswith(encode_frame(Opcode.PONG, b"hello"))
    connection.receive(ping)
    assert encode_frame(Opcode.PONG, b"hello") == transport.take()


def test_a_refused_stream_leaves_the_connection_as_it_was(bench: Bench, parse_all: ParseAll) -> None:
    """A stream that can't begin is answered with its error, again and again, and requests go on."""
    bad = SSE.replace(b"Accept", b"Last-Event-ID: nonsense\r\nAccept")
    connection, transport = bench.connect()
    connection.receive(bad + bad + HEALTH)
    assert [400, 400, 200] == [answer.status for answer in parse_all(transport.take())]
    assert Phase.READING is phase_of(connection)


def test_a_full_stream_is_not_written_to_and_catches_up(bench: Bench) -> None:
    """While the socket is full messages stay in the log; when it drains they come, each once."""
    connection, transport = bench.connect()
    connection.receive(SSE)
    bench.turn()
    transport.take()
    transport.room = 10
    bench.publish("a", b"1")
    assert (10, False) == (len(transport.sent), transport.is_reading())
    held = len(transport.unsent)
    bench.publish("a", b"2")
    assert held == len(transport.unsent)
    transport.drain()
    bench.turn()
    sent = transport.take()
    assert [1, 1] == [sent.count(b"data: 1\n"), sent.count(b"data: 2\n")]
    assert transport.is_reading()
    assert Phase.STREAMING is phase_of(connection)


def test_a_stream_whose_beginning_does_not_fit(bench: Bench) -> None:
    """A stream that fills the socket with its head is blocked from the start."""
    connection, transport = bench.connect(room=5)
    connection.receive(SSE)
    bench.publish("a", b"1")
    assert b"data: 1" not in bytes(transport.unsent)
    transport.drain()
    bench.turn()
    assert b"data: 1\n" in transport.take()
    assert Phase.STREAMING is phase_of(connection)


def test_a_stream_wakes_itself(bench: Bench) -> None:
    """A stream's deadline is its transport's: a heartbeat, and the next."""
    connection, transport = bench.connect()
    connection.receive(SSE)
    bench.turn()
    transport.take()
    for _ in range(2):
        bench.pass_time(15)
        assert b": keep-alive" in transport.take()
    assert Phase.STREAMING is phase_of(connection)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection that take what they can at once."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_what_is_written_goes_straight_to_the_socket(bench: Bench, pair: tuple[socket.socket, socket.socket]) -> None:
    """Answers and streams pass the transport by, and the descriptor stays the transport's to close."""
    connection, transport = bench.connect(sock=pair[0])
    connection.receive(HEALTH)
    assert pair[1].recv(10_000).endswith(b"ok\n")
    connection.receive(SSE)
    assert pair[1].recv(10_000).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream")
    bench.publish("a", b"1")
    assert b"data: 1\n" in pair[1].recv(10_000)
    connection.connection_lost(None)
    assert pair[0].send(b"still open")
    assert b"" == transport.take()


def test_what_the_socket_does_not_take_goes_to_the_transport(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The rest that the socket does not take goes to the transport, in order and without a byte repeated."""
    connection, transport = bench.connect(sock=pair[0], room=0)
    connection.receive(SSE)
    with contextlib.suppress(BlockingIOError):
        while True:
            pair[0].send(b"#" * 65536)
    connection.write(b"one")
    assert (b"one", True) == (bytes(transport.unsent), transport.paused)
    with contextlib.suppress(BlockingIOError):
        while pair[1].recv(65536):
            pass
    connection.write(b"two")
    assert b"onetwo" == bytes(transport.unsent)
    transport.drain()
    connection.write(b"three")
    assert (b"onetwo", b"three") == (transport.take(), pair[1].recv(100))


def test_a_kept_write_of_a_stream_that_has_ended(bench: Bench, pair: tuple[socket.socket, socket.socket]) -> None:
    """A `write` that was kept does nothing after the stream's end."""
    connection, transport = bench.connect(sock=pair[0])
    connection.receive(SSE)
    kept = connection.write
    connection.drain()
    assert pair[1].recv(10_000).endswith(b"0\r\n\r\n")
    for _ in range(2):
        kept(b"late")
        with pytest.raises(BlockingIOError):
            pair[1].recv(100)
        if connection.phase is not Phase.CLOSED:
            connection.connection_lost(None)
    assert b"" == transport.take()


def test_streams_that_could_not_begin_leave_the_descriptor_whole(
    bench: Bench, parse_all: ParseAll, pair: tuple[socket.socket, socket.socket]
) -> None:
    """After each refusal the socket goes on to be used: a forgotten holder would close it under the transport."""
    bad = SSE.replace(b"Accept", b"Last-Event-ID: nonsense\r\nAccept")
    connection, _ = bench.connect(sock=pair[0])
    connection.receive(bad + bad + HEALTH)
    gc.collect()
    assert [400, 400, 200] == [answer.status for answer in parse_all(pair[1].recv(10_000))]
    assert pair[0].send(b"still open")
    assert Phase.READING is phase_of(connection)


# -- deadlines


def test_a_head_must_come_in_time(bench: Bench, parse: Parse) -> None:
    """A head that dribbles in is cut at its deadline, which no byte moves."""
    connection, transport = bench.connect()
    for byte in HEALTH[:9]:
        connection.receive(bytes([byte]))
        bench.pass_time(0.8)
    assert b"" == transport.take()
    connection.receive(b"x")
    bench.pass_time(1.2)
    answer = parse(transport.take())
    assert (408, "timeout", "close") == (answer.status, answer.code, answer.headers["connection"])
    assert "head" in answer.json["error"]["message"]


def test_a_body_must_come_in_time(bench: Bench, parse: Parse) -> None:
    """A body has its own deadline, from the end of its head."""
    connection, transport = bench.connect()
    connection.receive(POST[:-2])
    bench.pass_time(29)
    connection.receive(b"4")
    assert b"" == transport.take()
    bench.pass_time(1)
    answer = parse(transport.take())
    assert (408, "timeout") == (answer.status, answer.code)
    assert "body" in answer.json["error"]["message"]


def test_a_connection_that_says_nothing_is_closed(bench: Bench) -> None:
    """A client that connects and sends nothing has the time of a head, and gets no answer to no request."""
    connection, transport = bench.connect()
    bench.pass_time(9)
    assert Phase.READING is phase_of(connection)
    bench.pass_time(1)
    assert (b"", True) == (transport.take(), transport.eof_written)


def test_an_idle_connection_is_kept_for_its_time(bench: Bench) -> None:
    """Each answer begins the time that an idle connection is kept."""
    connection, transport = bench.connect()
    for _ in range(3):
        connection.receive(HEALTH)
        bench.pass_time(60)
        assert not transport.eof_written
    bench.pass_time(15)
    assert transport.eof_written


def test_an_answer_that_is_not_read(bench: Bench) -> None:
    """A client that does not take its answer is cut off, and read no further meanwhile."""
    connection, transport = bench.connect(room=10)
    connection.receive(HEALTH + HEALTH)
    assert not transport.is_reading()
    assert 10 == len(transport.take())
    bench.pass_time(29)
    assert not transport.is_closing()
    bench.pass_time(1)
    assert transport.aborted


@pytest.mark.parametrize("closing", [False, True])
def test_an_answer_that_is_read_slowly(bench: Bench, closing: bool) -> None:
    """A client on a thin line keeps its connection while it takes enough of the answer in each such time."""
    bench.publish("a", b'"' + b"x" * 10 * LEAST_TAKEN_BYTES + b'"')
    connection, transport = bench.connect(room=10)
    ask = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n"
    connection.receive(ask + b"Connection: close\r\n" * closing + b"\r\n")
    assert (Phase.LINGERING if closing else Phase.READING) is phase_of(connection)
    for _ in range(5):
        del transport.unsent[:LEAST_TAKEN_BYTES]
        bench.pass_time(30)
        assert not transport.is_closing()
    bench.pass_time(29)
    assert not transport.is_closing()
    del transport.unsent[: LEAST_TAKEN_BYTES - 1]  # a byte now and then would hold the answer's memory for ever
    bench.pass_time(1)
    assert transport.aborted


def test_what_the_kernel_holds_is_not_taken_yet(bench: Bench, pair: tuple[socket.socket, socket.socket]) -> None:
    """The client is at work while it takes what the kernel holds, though the transport gets rid of nothing."""
    ours, theirs = pair
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 1000)
    connection, transport = bench.connect(room=10, sock=ours)
    connection.receive(HEALTH)
    theirs.recv(1000)
    bench.pass_time(30)
    assert not transport.is_closing()
    bench.pass_time(30)
    assert transport.aborted


def test_an_answer_that_is_read_in_time(bench: Bench, parse_all: ParseAll) -> None:
    """When the answers have been taken, the requests behind them are handled, under deadlines of their own."""
    connection, transport = bench.connect(room=10)
    connection.receive(HEALTH + GET + POST[:-1])
    transport.drain()
    bench.turn()
    assert [200, 200] == [answer.status for answer in parse_all(transport.take())]
    assert transport.is_reading()
    bench.pass_time(31)
    assert b"HTTP/1.1 408 " in transport.take()


def test_a_late_answer_that_is_not_read(bench: Bench) -> None:
    """A long poll whose answer is not taken is cut off too, and read no further meanwhile."""
    connection, transport = bench.connect()
    connection.receive(LONG)
    connection.receive(HEALTH * (2 + PIPELINE_BYTES // len(HEALTH)))
    transport.room = 10
    bench.pass_time(20)
    assert (Phase.READING, False) == (connection.phase, transport.is_reading())
    bench.pass_time(30)
    assert transport.aborted


def test_lingering_ends(bench: Bench) -> None:
    """After the end is written, the peer has a moment to close; then it is cut off."""
    connection, transport = bench.connect()
    connection.receive(b"nonsense\r\n\r\n")
    assert Phase.LINGERING is phase_of(connection)
    bench.pass_time(LINGER_SECONDS - 0.5)
    assert not transport.is_closing()
    bench.pass_time(0.5)
    assert transport.aborted


def test_a_last_answer_has_the_time_of_an_answer(bench: Bench) -> None:
    """An error that does not fit into the socket is not cut off with the linger."""
    connection, transport = bench.connect(room=10)
    connection.receive(b"nonsense\r\n\r\n")
    assert transport.is_reading()
    bench.pass_time(LINGER_SECONDS + 1)
    assert not transport.is_closing()
    bench.pass_time(30)
    assert transport.aborted
    transport.drain()
    assert Phase.LINGERING is phase_of(connection)


# -- the end of input


def test_eof_while_reading_closes(bench: Bench) -> None:
    """A client that half-closes between requests, or inside one, has nothing more to get."""
    for data in (b"", HEALTH, POST[:-1]):
        connection, _ = bench.connect()
        connection.receive(data)
        assert not connection.eof_received()


def test_eof_while_a_publish_waits(bench: Bench, parse_all: ParseAll) -> None:
    """A half-closed client gets the answers that it waits for, and no keep-alive after them."""
    bench.broker.slow = True
    connection, transport = bench.connect()
    connection.receive(POST + HEALTH + POST[:-1])
    assert connection.eof_received()
    bench.broker.answer()
    assert [201, 200] == [answer.status for answer in parse_all(transport.take())]
    assert (Phase.LINGERING, True) == (connection.phase, transport.closing)


def test_eof_while_a_long_poll_waits(bench: Bench, parse_all: ParseAll) -> None:
    """A client that has gone looks the same as a half-closed one: both are answered at once, and forgotten."""
    connection, transport = bench.connect()
    connection.receive(LONG + LONG + HEALTH)
    assert not connection.eof_received()
    answers = parse_all(transport.take())
    assert [[], []] == [answer.json["messages"] for answer in answers[:2]]
    assert b"ok\n" == answers[2].body
    assert (Phase.LINGERING, 0) == (connection.phase, bench.app.node.hub.subscriptions)


def test_eof_while_answers_do_not_fit(bench: Bench, parse_all: ParseAll) -> None:
    """Requests that came before the end are answered once the socket takes their answers."""
    connection, transport = bench.connect(room=10)
    connection.receive(HEALTH + HEALTH + LONG)
    assert connection.eof_received()
    transport.drain()
    bench.turn()
    assert 3 == len(parse_all(transport.take()))
    assert transport.closing
    assert Phase.LINGERING is phase_of(connection)


def test_eof_on_a_stream_ends_it(bench: Bench) -> None:
    """A stream to a client that has closed its side ends."""
    connection, _ = bench.connect()
    connection.receive(SSE)
    assert not connection.eof_received()


def test_eof_while_lingering_closes(bench: Bench) -> None:
    """The peer has answered our end with its own."""
    connection, _ = bench.connect()
    connection.receive(b"nonsense\r\n\r\n")
    assert not connection.eof_received()


def test_tls_is_half_closed_as_tcp_is(bench: Bench) -> None:
    """A client that says goodbye still gets its answer, and the server's own goodbye follows."""
    bench.broker.slow = True
    connection, transport = bench.connect(tls=True)
    connection.receive(POST)
    assert connection.eof_received()
    bench.broker.answer()
    assert transport.take().startswith(b"HTTP/1.1 201 ")
    assert transport.closing


# -- a lost connection


@pytest.mark.parametrize(
    "data",
    [b"", HEALTH, POST[:-1], LONG, SSE, b"nonsense\r\n\r\n", POST],
    ids=["new", "idle", "in a body", "in a long poll", "streaming", "lingering", "in a publish"],
)
def test_lost_in_each_phase(bench: Bench, data: bytes) -> None:
    """A lost connection leaves nothing: no subscription, no deadline, no place among the connections."""
    bench.broker.slow = data == POST
    connection, transport = bench.connect()
    connection.receive(data)
    transport.take()
    connection.connection_lost(ConnectionResetError())
    bench.publish("a", b"1")
    if bench.broker.slow:
        bench.broker.answer()
    connection.write(b"late")
    connection.end()
    connection.abort()
    connection.wake_at(bench.now() + 1)
    bench.pass_time(100)
    assert (b"", Phase.CLOSED, 0.0) == (transport.take(), connection.phase, connection.deadline)
    assert (set(), 0) == (bench.app.connections, bench.app.node.hub.subscriptions)
    assert not transport.is_closing()


def test_a_peer_that_has_reset_unnoticed(bench: Bench) -> None:
    """Where the end can't be sent because the peer is gone already, the connection is cut off."""
    connection, transport = bench.connect()
    transport.shutdown_error = OSError(107, "Transport endpoint is not connected")
    bench.pass_time(11)
    assert transport.aborted
    assert Phase.LINGERING is phase_of(connection)


def test_a_write_after_the_end_is_dropped(bench: Bench) -> None:
    """A `write` that was kept does nothing after the stream's end."""
    connection, transport = bench.connect()
    connection.receive(SSE)
    connection.drain()
    transport.take()
    connection.write(b"late")
    assert b"" == transport.take()


# -- the ceiling


def full(bench: Bench, reserve: int = 2) -> None:
    """Fill the server: one connection may do anything, and has a stream."""
    bench.app.admission.capacity = Capacity(1, reserve)
    listener, _ = bench.connect()
    listener.receive(SSE)


def test_a_full_server_takes_publishes_and_answers_probes(bench: Bench, parse: Parse) -> None:
    """On a reserved connection one publish or probe is answered, and the connection is closed behind it."""
    full(bench)
    for request, status in ((POST, 201), (HEALTH, 200), (HEALTH.replace(b"healthz", b"readyz"), 200)):
        connection, transport = bench.connect()
        connection.receive(request)
        answer = parse(transport.take())
        assert (status, "close", True) == (answer.status, answer.headers["connection"], transport.eof_written)
        connection.connection_lost(None)
    assert 0 == bench.app.admission.turned_away


@pytest.mark.parametrize("request_", [SSE, LONG, GET], ids=["stream", "long poll", "poll"])
def test_a_full_server_answers_503_to_listeners(bench: Bench, parse: Parse, request_: bytes) -> None:
    """A listener on a reserved connection is asked to come back later."""
    full(bench)
    connection, transport = bench.connect()
    connection.receive(request_)
    answer = parse(transport.take())
    assert (503, "5", "close") == (answer.status, answer.headers["retry-after"], answer.headers["connection"])
    assert transport.eof_written
    connection.receive(HEALTH)
    assert b"" == transport.take()
    assert 1 == bench.app.admission.turned_away


def test_a_reserved_connection_may_do_anything_once_there_is_room(bench: Bench) -> None:
    """A connection of the reserve may do anything if the server has room when its request comes."""
    bench.app.admission.capacity = Capacity(1, 2)
    first, _ = bench.connect()
    connection, transport = bench.connect()
    first.connection_lost(None)
    connection.receive(SSE)
    assert transport.take().startswith(b"HTTP/1.1 200 ")
    assert Phase.STREAMING is phase_of(connection)


def test_the_oldest_reserved_connection_gives_way(bench: Bench, parse: Parse) -> None:
    """Where the reserve is full, its oldest connection is answered 503 and cut, unless it waits for an answer."""
    full(bench)
    bench.broker.slow = True
    busy, busy_transport = bench.connect()
    busy.receive(POST)
    _, idle = bench.connect()
    assert bench.app.admission.take()
    assert (503, True) == (parse(idle.take()).status, idle.aborted)
    newest, newest_transport = bench.connect()
    newest.receive(b"nonsense\r\n\r\n")
    newest_transport.take()
    assert bench.app.admission.take()
    assert (b"", True) == (newest_transport.take(), newest_transport.aborted)  # it has its answer
    assert not bench.app.admission.take()
    bench.broker.answer()
    assert 201 == parse(busy_transport.take()).status


# -- draining


def test_drain_ends_an_idle_connection(bench: Bench) -> None:
    """A connection between two requests is ended."""
    connection, transport = bench.connect()
    connection.receive(HEALTH)
    bench.app.ready = False
    connection.drain()
    assert transport.eof_written


def test_drain_ends_a_connection_that_has_its_turn_later(bench: Bench) -> None:
    """A connection that looks in the next turn whether there is another request is ended then, as there is none."""
    connection, transport = bench.connect(room=10)
    connection.receive(HEALTH)
    transport.drain()
    bench.app.leave(1)
    assert not transport.eof_written
    bench.turn()
    assert transport.eof_written


def test_drain_waits_for_the_first_request(bench: Bench, parse: Parse) -> None:
    """A drain answers the first request of a new connection, or ends the connection at its deadline without one."""
    connection, transport = bench.connect()
    silent, other = bench.connect()
    bench.app.ready = False
    for each in (connection, silent):
        each.drain()
    assert [False, False] == [transport.eof_written, other.eof_written]
    connection.receive(HEALTH)
    assert "close" == parse(transport.take()).headers["connection"]
    bench.pass_time(FIRST_SECONDS)
    assert other.eof_written


def test_drain_lets_a_request_come_and_closes_after_it(bench: Bench, parse: Parse) -> None:
    """A request that is on its way is answered, with `Connection: close`."""
    connection, transport = bench.connect()
    connection.receive(POST[:-1])
    bench.app.ready = False
    connection.drain()
    assert not transport.eof_written
    connection.receive(b"2" + HEALTH)
    answer = parse(transport.take())
    assert (201, "close", b"") == (answer.status, answer.headers["connection"], answer.rest)
    assert transport.eof_written


def test_drain_answers_a_long_poll(bench: Bench, parse: Parse) -> None:
    """A long poll is answered at once, with a cursor to go on from elsewhere."""
    connection, transport = bench.connect()
    connection.receive(LONG)
    bench.app.ready = False
    connection.drain()
    answer = parse(transport.take())
    assert (200, "e0-0", "close") == (answer.status, answer.json["cursor"], answer.headers["connection"])
    assert transport.eof_written


def test_drain_waits_for_a_publish(bench: Bench, parse: Parse) -> None:
    """A publish that the broker has is answered before the connection closes."""
    bench.broker.slow = True
    connection, transport = bench.connect()
    connection.receive(POST)
    bench.app.ready = False
    connection.drain()
    assert b"" == transport.take()
    bench.broker.answer()
    answer = parse(transport.take())
    assert (201, "close") == (answer.status, answer.headers["connection"])


def test_drain_says_goodbye_on_a_stream(bench: Bench) -> None:
    """A stream ends as one that is whole: with the last chunk."""
    connection, transport = bench.connect()
    connection.receive(SSE)
    connection.drain()
    assert transport.take().endswith(b"\r\n0\r\n\r\n")
    assert transport.eof_written


@pytest.mark.parametrize("request_, end", [(SSE, b"\r\n0\r\n\r\n"), (LONG, b"}\n")])
def test_what_begins_after_its_moment_to_go_ends_at_once(bench: Bench, request_: bytes, end: bytes) -> None:
    """A request that was on its way when its connection was drained may yet be one that would never end."""
    connection, transport = bench.connect()
    connection.receive(request_[:-1])
    bench.app.leave(1000)
    assert b"" == transport.take()
    connection.receive(request_[-1:])
    assert transport.take().endswith(end)
    assert transport.eof_written


def test_goodbyes_are_said_at_the_pace_that_is_set(bench: Bench) -> None:
    """Each stream ends at a slot of its own. A late one gets one too; one that has left takes none."""
    streams = [bench.connect() for _ in range(4)]
    for connection, _ in streams:
        connection.receive(SSE)
    leaving = bench.app.leave(1)
    gone = next(connection for connection, _ in streams if connection in leaving)
    gone.connection_lost(None)
    late, transport = bench.connect()
    late.receive(SSE)
    assert b"\r\n0\r\n\r\n" not in transport.sent
    ended = [sum(t.eof_written for _, t in streams)]
    for _ in range(2):
        bench.pass_time(1)
        ended.append(sum(t.eof_written for _, t in streams))
    assert ([1, 2, 3], False) == (ended, transport.eof_written)
    bench.pass_time(1)
    assert transport.eof_written


def test_a_goodbye_that_fails_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect at one connection's goodbye is logged, and ends that connection alone."""
    transports = []
    for channel in (b"a", b"broken", b"a"):
        connection, transport = bench.connect()
        connection.receive(SSE.replace(b"/a ", b"/%b " % channel))
        transports.append(transport)
    drain = EventStream.drain

    def fail(self: EventStream) -> None:
        assert "broken" not in self._subscription.channels
        drain(self)

    monkeypatch.setattr(EventStream, "drain", fail)
    bench.app.leave(1000)
    assert [(True, False), (False, True), (True, False)] == [(t.eof_written, t.aborted) for t in transports]


def test_drain_of_a_connection_that_ends_anyway(bench: Bench) -> None:
    """Draining what lingers or is closed changes nothing."""
    connection, transport = bench.connect()
    connection.receive(b"nonsense\r\n\r\n")
    sent = transport.take()
    connection.drain()
    connection.connection_lost(None)
    connection.drain()
    assert sent
    assert b"" == transport.take()


# -- the time of one turn


def turn(bench: Bench) -> None:
    """End one turn of the loop, and no more."""
    scheduled, bench.scheduled[:] = list(bench.scheduled), []
    for callback in scheduled:
        callback()


def read(connection: Connection, data: bytes) -> bytes:
    """Let the loop read once; returns what is left in the socket."""
    buffer = connection.get_buffer(-1)
    piece = data[: len(buffer)]
    buffer[: len(piece)] = piece
    connection.buffer_updated(len(piece))
    return data[len(piece) :]


def test_a_pile_of_requests_is_answered_over_several_turns(bench: Bench, parse_all: ParseAll) -> None:
    """Many requests at once are answered in order, but not all in one turn of the loop."""
    bench.step = TURN_SECONDS / 10
    connection, transport = bench.connect()
    connection.receive(HEALTH * 50)
    first = len(parse_all(bytes(transport.sent)))
    assert 0 < first < 50
    assert not transport.reading
    for _ in range(50):
        turn(bench)
    assert [b"ok\n"] * 50 == [answer.body for answer in parse_all(transport.take())]
    assert transport.reading


def test_a_flood_on_a_stream_is_read_over_several_turns(bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """A flood on a WebSocket is read slice by slice, in order, until the time of each turn is over."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a", protocol=None))
    bench.step = TURN_SECONDS
    frame = encode_frame(Opcode.TEXT, b"x" * 1000, mask=b"mask")
    for count in (0, 1):
        connection.receive(frame * (2 * SLICE_BYTES // len(frame)))
        head = bench.app.node.log.head
        assert (False, True) == (transport.reading, head > count)
        bench.turn()
        assert bench.app.node.log.head > head
        assert transport.reading


def test_past_the_time_of_a_turn_nothing_is_read(bench: Bench, parse_all: ParseAll) -> None:
    """Connections that come late in a turn keep the little that they have read, and have their turn in order."""
    peers = [bench.connect() for _ in range(3)]
    bench.step = TURN_SECONDS
    assert b"" == read(peers[0][0], HEALTH * 2)
    assert 2 == len(parse_all(peers[0][1].take()))
    later = post(b"y" * SHORT_BYTES)
    rest = [read(connection, later) for connection, _ in peers[1:]]
    assert [later[SHORT_BYTES:]] * 2 == rest
    assert [(False, b"")] * 2 == [(transport.reading, transport.take()) for _, transport in peers[1:]]
    bench.step = 0.0
    turn(bench)
    assert [True] * 2 == [transport.reading for _, transport in peers[1:]]
    for (connection, transport), left in zip(peers[1:], rest, strict=True):
        assert b"" == read(connection, left)
        assert 201 == parse_all(transport.take())[0].status


def test_those_that_wait_have_their_turn_in_order(bench: Bench) -> None:
    """One turn goes on with as many as it has time for, and the next with those behind them."""
    peers = [bench.connect() for _ in range(4)]
    bench.step = TURN_SECONDS
    for connection, _ in peers:
        read(connection, HEALTH)
    assert [True, False, False, False] == [bool(transport.take()) for _, transport in peers]
    for count in (1, 2, 3):
        turn(bench)
        assert count == sum(bool(transport.sent) for _, transport in peers)


def test_what_comes_while_a_connection_waits_stands_behind_what_it_holds(bench: Bench, parse_all: ParseAll) -> None:
    """TLS may hand over more although reading is paused: the order of the bytes is kept."""
    connection, transport = bench.connect()
    bench.step = TURN_SECONDS
    read(bench.connect()[0], HEALTH)
    read(connection, HEALTH[:10])
    read(connection, HEALTH[10:])
    bench.step = 0.0
    turn(bench)
    assert [200] == [answer.status for answer in parse_all(transport.take())]


def test_a_connection_that_waits_for_its_turn_is_not_late(bench: Bench, parse: Parse) -> None:
    """No deadline and no stop ends a connection whose request the server has not read yet."""
    connection, transport = bench.connect()
    bench.step = TURN_SECONDS
    read(bench.connect()[0], HEALTH)
    read(connection, HEALTH)
    bench.step = 0.0
    connection.expired(bench.now())
    connection.drain()
    turn(bench)
    assert 200 == parse(transport.take()).status


def test_a_full_read_lets_the_others_have_a_turn(bench: Bench, parse: Parse) -> None:
    """After a whole buffer nothing more is read from a connection in this turn of the loop."""
    connection, transport = bench.connect()
    data = post(b"x" * (2 * len(connection.get_buffer(-1))))
    for reading in (False, False, True):
        data = read(connection, data)
        assert reading == transport.is_reading()
        turn(bench)
        assert transport.is_reading()
    assert 201 == parse(transport.take()).status


def test_a_turn_does_not_read_on_past_what_may_be_sent_ahead(bench: Bench) -> None:
    """A full buffer behind a long poll waits for its answer, not for the next turn."""
    connection, transport = bench.connect()
    connection.receive(LONG)
    connection.receive(HEALTH * (PIPELINE_BYTES // len(HEALTH)))
    read(connection, HEALTH * 2000)
    turn(bench)
    assert not transport.is_reading()


def test_the_next_turn_of_a_connection_that_is_gone(bench: Bench) -> None:
    """A connection that is lost before its next turn is left alone."""
    bench.step = TURN_SECONDS / 10
    connection, transport = bench.connect()
    connection.receive(HEALTH * 50)
    transport.take()
    connection.connection_lost(None)
    turn(bench)
    assert b"" == transport.take()


def test_a_defect_in_a_later_turn_harms_its_own_connection_alone(
    bench: Bench, parse: Parse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that raises as it goes on is cut and logged, and those behind it have their turn."""
    (broken, cut), (other, transport) = bench.connect(), bench.connect()
    bench.step = TURN_SECONDS
    read(bench.connect()[0], HEALTH)
    read(broken, HEALTH)
    read(other, HEALTH)
    bench.step = 0.0

    def fail(data: bytes) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Connection, "receive", lambda self, data: fail(data) if self is broken else None)
    turn(bench)
    assert (True, False, True) == (cut.aborted, transport.aborted, transport.reading)
    assert "a defect" in caplog.text


# -- unfinished requests


def test_unfinished_requests_are_bounded_all_together(bench: Bench, parse: Parse) -> None:
    """The request that has been unfinished for the longest is refused; the others go on, and are counted out."""
    bench.app.unfinished.limit = 3000
    peers = [bench.connect() for _ in range(3)]
    body = post(b"x" * 1100)
    for connection, _ in peers:
        connection.receive(body[:-1])
    answer = parse(peers[0][1].take())
    assert (503, "2", "close") == (answer.status, answer.headers["retry-after"], answer.headers["connection"])
    for connection, transport in peers[1:]:
        connection.receive(body[-1:])
        assert 201 == parse(transport.take()).status
    assert (0, 0, 1) == (bench.app.unfinished.total, len(bench.app.unfinished), bench.app.unfinished.refused)


def test_what_is_sent_ahead_counts_as_unfinished(bench: Bench) -> None:
    """Bytes behind a long poll count too; a connection whose answer is due can only be cut."""
    bench.app.unfinished.limit = 1000
    connection, transport = bench.connect()
    connection.receive(LONG)
    connection.receive(HEALTH * 100)
    assert transport.aborted
    connection.connection_lost(None)
    assert 0 == bench.app.unfinished.total


def test_a_lost_connection_holds_nothing(bench: Bench) -> None:
    """Half a body is given back when its connection is lost, and when it ends."""
    for lose in (True, False):
        connection, _ = bench.connect()
        connection.receive(POST[:-1])
        assert bench.app.unfinished.total > 0
        if lose:
            connection.connection_lost(None)
        else:
            bench.pass_time(31)
        assert 0 == bench.app.unfinished.total


# -- defects


@pytest.mark.parametrize("callback", ["blocked", "drained"])
def test_a_defect_in_a_callback_of_the_loop_cuts_its_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, callback: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop would log it and leave the connection in no known state."""
    connection, transport = bench.connect()
    connection.receive(SSE)

    def fail(self: EventStream) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(EventStream, callback, fail)
    connection.pause_writing()
    connection.resume_writing()
    assert transport.aborted
    assert "a defect" in caplog.text


def test_a_defect_is_answered_and_logged(
    bench: Bench, parse: Parse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that is none of the peer's doing gives 500 and says nothing of its cause."""

    def fail(*args: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(bench.app, "handle", fail)
    connection, transport = bench.connect()
    connection.receive(HEALTH)
    answer = parse(transport.take())
    assert (500, "internal", "close") == (answer.status, answer.code, answer.headers["connection"])
    assert b"secret" not in answer.body
    assert "a secret" in caplog.text
    assert Phase.LINGERING is phase_of(connection)


def test_a_defect_after_an_answer_cuts_the_connection(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an answer has gone out already, a second one would be taken for another request's."""

    def fail(app: object, connection: Connection, request: object) -> None:
        connection.reply(Reply(200, (), b""))
        raise ZeroDivisionError

    monkeypatch.setattr(bench.app, "handle", fail)
    connection, transport = bench.connect()
    connection.receive(HEALTH)
    assert 1 == transport.take().count(b"HTTP/1.1")
    assert transport.aborted
    assert Phase.READING is phase_of(connection)


def test_a_fault_at_one_deadline_does_not_cost_the_others_theirs(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that raises at its deadline is cut and logged. The rest are woken."""

    class Broken(Connection):
        def expired(self, now: float) -> None:
            raise ZeroDivisionError

    from_conftest = bench.connect()[1]
    kind: type[FakeTransport] = type(from_conftest)
    broken = Broken(bench.app)
    transport = kind(broken)
    broken.connection_made(transport)
    _, after = bench.connect()
    bench.pass_time(11)
    assert transport.aborted
    assert (True, True) == (from_conftest.eof_written, after.eof_written)
    assert "failed at its deadline" in caplog.text


def test_publishes_are_counted_against_the_flood_guard(bench: Bench, parse_all: ParseAll) -> None:
    """One connection may publish so much and no more; the refusal says when to go on, and then it may."""
    connection, transport = bench.connect()
    connection.spend_publishes(2 * 5000 - 1, 1, connection.now())
    connection.receive(POST + POST + POST)
    answers = parse_all(transport.take())
    assert [201, 429, 429] == [answer.status for answer in answers]
    assert ("1", "too_many_requests") == (answers[1].headers["retry-after"], answers[1].code)
    bench.seconds += 1
    connection.receive(POST)
    assert [201] == [answer.status for answer in parse_all(transport.take())]


def test_the_wait_for_an_answer_that_has_come_is_none(bench: Bench) -> None:
    """A broker that answers at once leaves the connection reading."""
    connection, _ = bench.connect()
    connection.receive(POST)
    assert Phase.READING is phase_of(connection)


def test_drafts_reach_the_log_once(bench: Bench) -> None:
    """A message that is published on a connection is in the log once."""
    bench.ask(POST)
    seen: list[object] = []
    bench.broker.publish((Draft("a", b"1"),), seen.extend)
    assert (2, 1) == (bench.app.node.log.head, len(seen))


def test_too_many_unfinished_messages_close_a_websocket(bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """The Close says why: 1013, as an overflowing request gets 503."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a"))
    bench.turn()
    transport.take()
    connection.receive(encode_frame(Opcode.TEXT, b"half", fin=False, mask=b"mask"))
    assert 4 == bench.app.unfinished.total
    connection.overflow()
    sent = transport.take()
    assert (0x88, 1013) == (sent[0], int.from_bytes(sent[2:4], "big"))
    assert (True, 0) == (transport.eof_written, bench.app.unfinished.total)


def test_an_unfinished_message_on_a_websocket_that_closes_cuts_it(bench: Bench, upgrade: Callable[..., bytes]) -> None:
    """What comes before the peer's Close is held too, and after ours no other can say why: its memory is given back."""
    connection, transport = bench.connect()
    connection.receive(upgrade("/v1/channels/a"))
    bench.turn()
    connection.drain()
    connection.receive(encode_frame(Opcode.TEXT, b"half", fin=False, mask=b"mask"))
    assert (4, False) == (bench.app.unfinished.total, transport.aborted)
    bench.app.unfinished.limit = 3
    connection.receive(encode_frame(Opcode.CONTINUATION, b"more", fin=False, mask=b"mask"))
    assert (0, True) == (bench.app.unfinished.total, transport.aborted)


def test_the_loop_keeps_two_methods_of_a_connection() -> None:
    """A connection has none of the methods that uvloop keeps bound, 64 bytes each, but the two that it calls."""
    kept = [name for name in ("get_buffer", "buffer_updated", "data_received") if hasattr(Connection, name)]
    assert ["get_buffer", "buffer_updated"] == kept
