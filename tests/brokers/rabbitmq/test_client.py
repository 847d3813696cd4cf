"""The connection to RabbitMQ, against a server that says what a real one rarely does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from rstream import exceptions, schema
from rstream.constants import Key
from rstream.encoding import decode_frame, encode_frame

from oncecast.brokers.address import parse_address
from oncecast.brokers.rabbitmq import client
from oncecast.brokers.rabbitmq.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.rabbitmq.client import StreamConnection
from oncecast.brokers.rabbitmq.log import RabbitLog, RabbitStream
from oncecast.brokers.session import Lost
from oncecast.errors import ConfigurationError

Answer = Callable[[Any], Sequence[Any]]
LEADER, NOBODY = 1, 65535


class Server:
    """Logs a client in, then answers each frame by its kind: the test's answer, or the usual one."""

    def __init__(self) -> None:
        self.answers: dict[type[schema.Frame], Answer] = {}
        self.seen: list[schema.Frame] = []
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.writers.append(writer)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                frame = decode_frame(await reader.readexactly(length))
                self.seen.append(frame)
                answer: Answer = self.answers.get(type(frame), self.usual)
                for each in answer(frame):
                    writer.write(encode_frame(each) if isinstance(each, schema.Frame) else each)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()

    def usual(self, frame: Any) -> Sequence[Any]:
        """Return what a server answers."""
        number = frame.corr_id
        match frame:
            case schema.PeerProperties():
                return [response(schema.PeerPropertiesResponse(number, 1, [schema.Property("version", "3.13.0")]))]
            case schema.SaslHandshake():
                return [response(schema.SaslHandshakeResponse(number, 1, ["PLAIN"]))]
            case schema.SaslAuthenticate():
                return [response(schema.SaslAuthenticateResponse(number, 1)), schema.Tune(0, 60)]
            case schema.Open():
                return [response(schema.OpenResponse(number, 1, []))]
            case schema.Metadata():
                return [metadata(number, 1, LEADER, self.port)]
        return []


def response(frame: schema.Frame) -> Any:
    """Return the bytes of an answer, which has a bit that the library's encoder does not set."""
    data = bytearray(encode_frame(frame))
    data[4] |= 0x80
    return bytes(data)


def metadata(number: int, code: int, leader: int, port: int) -> Any:
    """Return where a stream is."""
    found = schema.StreamMetadata("s", code, leader, [])
    return response(schema.MetadataResponse(number, [schema.Broker(LEADER, "127.0.0.1", port)], [found]))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server."""
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    for writer in made.writers:
        writer.transport.abort()


def address_of(server: Server) -> Any:
    """Return its address."""
    return parse_address(f"amqp://guest:guest@127.0.0.1:{server.port}", SCHEMES, PORT, OPTIONS)


async def connect(server: Server) -> StreamConnection:
    """Return a connection that is logged in."""
    connection = StreamConnection(address_of(server), lambda frame: None)
    await connection.open("127.0.0.1", server.port, None)
    return connection


def make_log(server: Server) -> RabbitLog:
    """Return a log that is not open."""
    return RabbitLog(address_of(server), RabbitStream("s", 1, 3600))


async def test_a_login_names_the_version_and_has_limits(server: Server) -> None:
    """A server without a limit is sent frames of at most our own."""
    connection = await connect(server)
    assert (connection.name, connection.frame_bytes) == ("RabbitMQ 3.13.0", client.FRAME_BYTES)
    assert [type(frame).__name__ for frame in server.seen][-2:] == ["Tune", "Open"]
    await connection.close()
    await connection.close()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (schema.PublishError(1, [schema.PublishingError(5, 6)]), "it refuses records: stream not available"),
        (schema.MetadataUpdate(schema.MetadataInfo(6, "s")), "not where it was"),
        (schema.Close(1, 1, "going down"), "closes the connection: going down"),
        (b"\x7f\xff\xff\xff", "no stream protocol"),
        (b"\0\0\0\4\0\x63\0\1", "99"),
        (b"", "connection was closed"),
    ],
)
async def test_what_ends_a_connection_is_said(server: Server, sent: Any, said: str) -> None:
    """Each waiting call and each later call raises the reason of the end."""
    connection = await connect(server)

    def end(frame: schema.Frame) -> Sequence[Any]:
        if not sent:
            server.writers[0].transport.abort()
        return [sent]

    server.answers[schema.Metadata] = end
    for _ in range(2):
        with pytest.raises(Exception, match=said):
            await connection.ask(schema.Metadata(connection.number(), ["s"]), schema.MetadataResponse)
    await connection.close()


async def test_a_silent_server_is_lost(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time is a loss, whether to a request or to the login."""
    connection = await connect(server)
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.02)
    server.answers[schema.Metadata] = lambda frame: []
    with pytest.raises(Lost, match="no answer to Metadata"):
        await connection.ask(schema.Metadata(connection.number(), ["s"]), schema.MetadataResponse)
    await connection.close()


async def test_heartbeats_are_answered(server: Server) -> None:
    """And confirmations of publishes are let pass."""
    connection = await connect(server)
    server.answers[schema.Metadata] = lambda frame: [
        schema.Heartbeat(),
        schema.PublishConfirm(1, [1, 2]),
        metadata(frame.corr_id or 0, 1, LEADER, server.port),
    ]
    await connection.ask(schema.Metadata(connection.number(), ["s"]), schema.MetadataResponse)
    await connection.ask(schema.Metadata(connection.number(), ["s"]), schema.MetadataResponse)
    assert [type(frame).__name__ for frame in server.seen[-3:]] == ["Metadata", "Heartbeat", "Metadata"]
    await connection.close()


@pytest.mark.parametrize(
    ("code", "leader", "said"), [(6, NOBODY, "has no leader now"), (2, NOBODY, "was made and is not there")]
)
async def test_a_stream_without_a_leader_is_a_loss(server: Server, code: int, leader: int, said: str) -> None:
    """A stream that can't be written now is one that can be later."""
    server.answers[schema.Metadata] = lambda frame: [metadata(frame.corr_id or 0, code, leader, server.port)]
    server.answers[schema.Create] = lambda frame: [response(schema.CreateResponse(frame.corr_id or 0, 5))]
    log = make_log(server)
    with pytest.raises(Lost, match=said):
        await log.open(lambda: None)
    await log.close()


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        (exceptions.PreconditionFailed, ConfigurationError, "is no stream, or has other settings"),
        (exceptions.AccessRefused, ConfigurationError, "this user may not use the stream s"),
        (exceptions.InternalError, Lost, "the stream s: internal error"),
    ],
)
async def test_a_stream_that_cannot_be_made_says_why(
    server: Server, refusal: type[exceptions.ServerError], kind: type[Exception], said: str
) -> None:
    """A fault that a setting mends and one that may pass are different errors."""
    server.answers[schema.Metadata] = lambda frame: [metadata(frame.corr_id or 0, 2, NOBODY, server.port)]
    server.answers[schema.Create] = lambda frame: [response(schema.CreateResponse(frame.corr_id or 0, refusal.code))]
    log = make_log(server)
    with pytest.raises(kind, match=said):
        await log.open(lambda: None)
    await log.close()


def test_the_kinds_of_frames_are_those_of_the_protocol() -> None:
    """Publish confirmations are recognized by their key."""
    assert Key.PublishConfirm.value == 3
    assert encode_frame(schema.PublishConfirm(1, []))[4:6] == client.CONFIRM
