"""The broker on RabbitMQ's streams, against a real server: the contract, and what is its own."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from struct import Struct

import pytest
from rstream import AMQPMessage, Producer, RawMessage

from oncecast.brokers.base import Broker
from oncecast.brokers.followed.record import MAGIC, NO_KEY
from oncecast.brokers.rabbitmq.broker import rabbitmq_broker
from oncecast.errors import ConfigurationError, Refusal
from oncecast.message import Draft, Receipt, Retention
from oncecast.testing.broker import CHECKS, Lab, check_broker
from oncecast.testing.broker_bench import BrokerBench
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from tests.brokers.servers import Servers

INDEX_HEAD = 8
INDEX = Struct(">QQQIB")  # offset, time, epoch, place in the segment, kind
_numbers = itertools.count()


def url_of(server: BrokerServer, stream: str) -> str:
    """Return the URL of a stream."""
    return f"{server.url}?stream={stream}"


def lose_tail(server: BrokerServer, stream: str, chunks: int) -> None:
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


def make_lab(servers: Servers, *, own: bool = False) -> Lab:
    """A stream of its own, on a shared server or on one of its own."""
    stack = ExitStack()
    server = servers.own("rabbitmq", stack) if own else servers("rabbitmq")
    stream = f"t{next(_numbers)}"
    driver = LoopDriver()
    kept: dict[str, int] = {}

    def make() -> Broker:
        return rabbitmq_broker(
            url_of(server, stream),
            new_epoch=lambda: f"e{next(_numbers)}",
            policy=lambda channel: Retention(kept.get(channel, 10_000)),
        )

    async def remove(producer: Producer) -> None:
        await producer.delete_stream(stream)

    async def damage(producer: Producer) -> None:
        head = MAGIC + b"\0" + bytes(16) + NO_KEY
        for value in (b"", b"foreign", head, head + b"\xff\xff\xff", head + b"\x01\0\0*", MAGIC + b"\x10" * 40):
            await producer.send_wait(stream, RawMessage(value))
        await producer.send_wait(stream, AMQPMessage(body=b"foreign"))

    def close() -> None:
        driver.close()
        stack.close()

    return Lab(
        make,
        driver,
        renew=lambda: driver.run(with_producer(server, remove)),
        lose=(lambda: lose_tail(server, stream, 2)) if own else None,
        damage=lambda: driver.run(with_producer(server, damage)),
        trim=lambda channel, count: kept.update({channel: count}),
        close=close,
    )


@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_the_contract(servers: Servers, name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: make_lab(servers, own=name == "tells_of_a_hole"), name)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://localhost?stream=a*b", "stream is 1 to 200"),
        ("amqp://localhost?replicas=0", "replicas is a whole number"),
        ("amqp://localhost?key_seconds=0", "key_seconds is a whole number"),
        ("amqp://u:secret@localhost?queue=3", "no option queue"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, said: str) -> None:
    """What can't be meant is refused before anything is opened, in a line that says what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        rabbitmq_broker(url, new_epoch=str, policy=lambda channel: Retention())
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the error says what to install."""
    for name in [name for name in sys.modules if name.startswith("oncecast.brokers.rabbitmq.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rstream", None)
    from oncecast.brokers.rabbitmq.broker import rabbitmq_broker as fresh

    with pytest.raises(ConfigurationError, match=re.escape("pip install 'oncecast[rabbitmq]'")):
        fresh("amqp://localhost", new_epoch=str, policy=lambda channel: Retention())


def start_once(url: str) -> None:
    """Start a broker and stop it."""
    driver = LoopDriver()
    broker = rabbitmq_broker(url, new_epoch=lambda: "e", policy=lambda channel: Retention())
    try:
        driver.run(broker.start(BrokerBench(broker, Lab(lambda: broker))))
    finally:
        driver.run(broker.stop())
        driver.close()


def test_a_server_without_the_plugin_says_what_to_run() -> None:
    """Where nothing listens the line names the plugin."""
    with pytest.raises(ConfigurationError, match=r"amqp://127\.0\.0\.1:9: .*rabbitmq-plugins enable rabbitmq_stream"):
        start_once("amqp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("user", "place", "said"),
    [
        ("guest:wrong", "", "check its user and password"),
        ("nobody:guest", "", "check its user and password"),
        ("guest:guest", "/elsewhere", "virtual host elsewhere"),
    ],
)
def test_who_may_not_is_told_what_to_check(servers: Servers, user: str, place: str, said: str) -> None:
    """A wrong password and a wrong virtual host are a line each, without the password."""
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        start_once(f"amqp://{user}@127.0.0.1:{servers('rabbitmq').port}{place}")
    assert user not in str(raised.value)


def test_the_port_of_amqp_is_named(servers: Servers) -> None:
    """Who names the port of the other protocol is told which one is needed."""
    with pytest.raises(ConfigurationError, match="5552"):
        start_once(f"amqp://guest:guest@127.0.0.1:{servers('rabbitmq').ports[1]}")


def test_a_message_larger_than_a_frame_is_refused(servers: Servers) -> None:
    """What the server would not take is refused, and what is as large as it takes is not."""
    driver = LoopDriver()
    url = url_of(servers("rabbitmq"), f"t{next(_numbers)}")
    broker = rabbitmq_broker(url, new_epoch=lambda: "e", policy=lambda channel: Retention())
    bench = BrokerBench(broker, Lab(lambda: broker, driver))
    bench.start()
    bench.want("a")
    refused, taken = bench.publish(Draft("a", bytes(8 << 20)), Draft("a", bytes((8 << 20) - 200)))
    bench.stop()
    driver.close()
    assert isinstance(refused, Refusal)
    assert refused.code == "body_too_large"
    assert isinstance(taken, Receipt)
