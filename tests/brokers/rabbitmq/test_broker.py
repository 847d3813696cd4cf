"""The broker on RabbitMQ's streams, against a real server: the contract, and what is its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from struct import Struct

import pytest
from rstream import AMQPMessage, Producer, RawMessage

from oncecast.brokers.followed.record import MAGIC, NO_KEY
from oncecast.brokers.rabbitmq.broker import rabbitmq_broker
from oncecast.errors import Refusal
from oncecast.message import Draft, Receipt
from oncecast.testing.broker import CHECKS, check_broker
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from tests.brokers.followed.lab import FollowedKind, numbers
from tests.brokers.servers import Servers
from tests.brokers.starting import bench_at, refusal_at

INDEX_HEAD = 8
INDEX = Struct(">QQQIB")  # offset, time, epoch, place in the segment, kind


def lose_tail(server: BrokerServer, stream: str, chunks: int = 2) -> None:
    """Let the server lose what it had written last, as a power cut may: its newest chunks.

    It is not killed: a stream that was made a few seconds before has no leader after that, for ever.
    """
    server.stop()
    (index,) = server.data.glob(f"*/stream/__{stream}_*/*.index")
    entries = index.read_bytes()
    kept = entries[: len(entries) - chunks * INDEX.size]
    segment = index.with_suffix(".segment")
    place = INDEX.unpack_from(entries, len(kept))[3]
    index.write_bytes(kept)
    segment.write_bytes(segment.read_bytes()[:place])
    server.start()


async def with_producer(server: BrokerServer, use: Callable[[Producer], Awaitable[None]]) -> None:
    """Use a producer of the library."""
    producer = Producer("127.0.0.1", server.port, username="guest", password="guest")
    await producer.start()
    try:
        await use(producer)
    finally:
        await producer.close()


async def remove(server: BrokerServer, stream: str) -> None:
    """Delete the stream."""

    async def use(producer: Producer) -> None:
        await producer.delete_stream(stream)

    await with_producer(server, use)


async def damage(server: BrokerServer, stream: str) -> None:
    """Add records that are no messages."""

    async def use(producer: Producer) -> None:
        head = MAGIC + b"\0" + bytes(16) + NO_KEY
        for value in (b"", b"foreign", head, head + b"\xff\xff\xff", head + b"\x01\0\0*", MAGIC + b"\x10" * 40):
            await producer.send_wait(stream, RawMessage(value))
        await producer.send_wait(stream, AMQPMessage(body=b"foreign"))

    await with_producer(server, use)


KIND = FollowedKind("rabbitmq", "stream", rabbitmq_broker, remove, damage, lose_tail)


@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_the_contract(servers: Servers, name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: KIND.lab(servers, own=name == "tells_of_a_hole"), name)


def test_a_server_without_the_plugin_says_what_to_run() -> None:
    """Where nothing listens the line names the plugin."""
    line = refusal_at("amqp://127.0.0.1:9")
    assert line.startswith("broker: amqp://127.0.0.1:9: ")
    assert "rabbitmq-plugins enable rabbitmq_stream" in line


@pytest.mark.parametrize(
    ("user", "place", "said"),
    [
        ("guest:wrong", "", "check its user and password"),
        ("nobody:guest", "", "check its user and password"),
        ("guest:guest", "/elsewhere", "virtual host elsewhere"),
    ],
)
def test_a_refusal_says_what_to_check(servers: Servers, user: str, place: str, said: str) -> None:
    """A wrong password and a wrong virtual host are a line each, without the password."""
    line = refusal_at(f"amqp://{user}@127.0.0.1:{servers('rabbitmq').port}{place}")
    assert said in line
    assert user not in line


def test_the_port_of_amqp_is_named(servers: Servers) -> None:
    """The error for AMQP's port names the port of the stream protocol."""
    assert "5552" in refusal_at(f"amqp://guest:guest@127.0.0.1:{servers('rabbitmq').ports[1]}")


def test_a_message_larger_than_a_frame_is_refused(servers: Servers) -> None:
    """What the server would not take is refused, and what is as large as it takes is not."""
    driver = LoopDriver()
    bench = bench_at(KIND.url(servers("rabbitmq"), f"t{next(numbers)}"), driver)
    bench.start()
    bench.want("a")
    refused, taken = bench.publish(Draft("a", bytes(8 << 20)), Draft("a", bytes((8 << 20) - 200)))
    bench.stop()
    driver.close()
    assert isinstance(refused, Refusal)
    assert refused.code == "body_too_large"
    assert "stream.frame_max" in refused.message
    assert isinstance(taken, Receipt)
