"""The broker on Kafka, against a real server: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from oncecast.brokers.base import Broker
from oncecast.brokers.followed.record import MAGIC, NO_KEY
from oncecast.brokers.kafka.broker import kafka_broker
from oncecast.brokers.kafka.log import read_batches
from oncecast.brokers.session import Lost
from oncecast.errors import ConfigurationError, Refusal
from oncecast.message import Draft, Receipt, Retention
from oncecast.testing.broker import CHECKS, Lab, check_broker
from oncecast.testing.broker_bench import BrokerBench
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from tests.brokers.servers import Servers

_numbers = itertools.count()


def url_of(server: BrokerServer, topic: str, **options: str) -> str:
    """Return the URL of a topic."""
    return f"kafka://127.0.0.1:{server.port}?topic={topic}" + "".join(f"&{k}={v}" for k, v in options.items())


def lose_tail(server: BrokerServer, topic: str) -> None:
    """Let the server lose what it had written last, as a power cut may: its newest batches are cut from the file."""
    server.kill()
    (segment,) = (server.data / f"{topic}-0").glob("*.log")
    data = segment.read_bytes()
    at = ends = 0
    places = []
    while at < len(data):
        ends = at + 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        places.append((at, data[at:ends]))
        at = ends
    *_, first = [place for place, batch in places if b"x:lost" in batch] or [places[-2][0]]
    segment.write_bytes(data[: first + 20])  # a batch that ends in its middle
    server.start()


def make_lab(servers: Servers, *, own: bool = False) -> Lab:
    """A topic of its own, on a shared server or on one of its own."""
    stack = ExitStack()
    server = servers.own("kafka", stack) if own else servers("kafka")
    topic = f"t{next(_numbers)}"
    driver = LoopDriver()
    kept: dict[str, int] = {}

    def make() -> Broker:
        return kafka_broker(
            url_of(server, topic),
            new_epoch=lambda: f"e{next(_numbers)}",
            policy=lambda channel: Retention(kept.get(channel, 10_000)),
        )

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        driver.run(coroutine)

    async def remove() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
        await admin.start()
        try:
            await admin.delete_topics([topic])
        finally:
            await admin.close()

    async def damage() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{server.port}")
        await producer.start()
        try:
            head = MAGIC + b"\0" + bytes(16) + NO_KEY
            for value in (b"", b"foreign", head, head + b"\xff\xff\xff", head + b"\x01\0\0*", MAGIC + b"\x10" * 40):
                await producer.send_and_wait(topic, value)
        finally:
            await producer.stop()

    def close() -> None:
        driver.close()
        stack.close()

    return Lab(
        make,
        driver,
        renew=lambda: run(remove()),
        lose=(lambda: lose_tail(server, topic)) if own else None,
        damage=lambda: run(damage()),
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
        ("kafka://localhost/oncecast", "no path"),
        ("kafka://localhost?topic=a*b", "topic is 1 to 249"),
        ("kafka://localhost?topic=..", "topic is 1 to 249"),
        ("kafka://u:p@localhost?sasl=KERBEROS", "sasl is one of PLAIN"),
        ("kafka://user@localhost", "a user and a password, or neither"),
        ("kafka://localhost?replicas=0", "replicas is a whole number"),
        ("kafka://localhost?retention_seconds=60", "retention_seconds is a whole number"),
        ("kafka://localhost?partitions=3", "no option partitions"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, said: str) -> None:
    """What can't be meant is refused before anything is opened, in a line that says what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        kafka_broker(url, new_epoch=str, policy=lambda channel: Retention())
    assert "\n" not in str(raised.value)
    assert ":p@" not in str(raised.value)


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the error says what to install."""
    for name in [name for name in sys.modules if name.startswith("oncecast.brokers.kafka.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    from oncecast.brokers.kafka.broker import kafka_broker as fresh

    with pytest.raises(ConfigurationError, match=re.escape("pip install 'oncecast[kafka]'")):
        fresh("kafka://localhost", new_epoch=str, policy=lambda channel: Retention())


def start_once(url: str) -> None:
    """Start a broker and stop it."""
    driver = LoopDriver()
    broker = kafka_broker(url, new_epoch=lambda: "e", policy=lambda channel: Retention())
    try:
        driver.run(broker.start(BrokerBench(broker, Lab(lambda: broker))))
    finally:
        driver.run(broker.stop())
        driver.close()


@pytest.mark.parametrize(
    ("partitions", "settings", "said"),
    [
        (2, {}, "has 2 partitions"),
        (1, {}, "must have message.timestamp.type=LogAppendTime"),
        (
            1,
            {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"},
            "must have cleanup.policy=delete",
        ),
        (1, {"message.timestamp.type": "LogAppendTime", "retention.bytes": "100000"}, "must have retention.bytes=-1"),
        (1, {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000"}, "must have retention.ms=600000"),
    ],
)
def test_a_topic_with_other_settings_is_refused(
    servers: Servers, partitions: int, settings: dict[str, str], said: str
) -> None:
    """A topic that can't be the log is named, with what it must have."""
    server = servers("kafka")
    topic = f"t{next(_numbers)}"

    async def make() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=settings)])
        finally:
            await admin.close()

    asyncio.run(make())
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        start_once(url_of(server, topic))


def test_a_topic_that_cannot_be_made_says_why(servers: Servers) -> None:
    """More replicas than there are brokers is the server's error, in one line."""
    with pytest.raises(ConfigurationError, match="can't be made"):
        start_once(url_of(servers("kafka"), f"t{next(_numbers)}", replicas="3"))


def test_nobody_there_is_one_line() -> None:
    """Where no server listens the start fails with the host and the port."""
    with pytest.raises(ConfigurationError, match=r"broker: kafka://127\.0\.0\.1:9: .*127\.0\.0\.1"):
        start_once("kafka://127.0.0.1:9")


def test_a_small_topic_refuses_a_large_message(servers: Servers) -> None:
    """A topic that takes less is used as it is; what is too large for it is refused, and not retried for ever."""
    server = servers("kafka")
    topic = f"t{next(_numbers)}"

    async def make() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
        await admin.start()
        try:
            settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "5000"}
            await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
        finally:
            await admin.close()

    asyncio.run(make())
    driver = LoopDriver()
    broker = kafka_broker(url_of(server, topic), new_epoch=lambda: "e", policy=lambda channel: Retention())
    bench = BrokerBench(broker, Lab(lambda: broker, driver))
    bench.start()
    bench.want("a")
    refused, *taken = bench.publish(Draft("a", bytes(5000)), *(Draft("a", bytes(4000)) for _ in range(3)))
    bench.stop()
    driver.close()
    assert isinstance(refused, Refusal)
    assert refused.code == "body_too_large"
    assert [type(each) for each in taken] == [Receipt] * 3


def test_control_batches_and_old_formats_are_known() -> None:
    """A batch of the server's own takes its offsets; another format and a damaged batch end the session."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for number in range(3):
        builder.append(number, 5000, None, b"%d" % number, [])
    data = bytearray(builder.build())
    (chunk,) = read_batches(bytes(data) + bytes(data[:50]))
    assert (chunk.first, chunk.records, chunk.time) == (0, [b"0", b"1", b"2"], 5.0)
    with pytest.raises(Lost, match="damaged"):
        read_batches(bytes(data[:-1]) + b"\xff")
    control = bytes(data[:21]) + b"\x00\x20" + bytes(data[23:])
    control = control[:17] + calc_crc32c(control[21:]).to_bytes(4, "big") + control[21:]
    assert [list(each.records) for each in read_batches(control)] == [[b"", b"", b""]]
    with pytest.raises(Lost, match="format 1"):
        read_batches(bytes(data[:16]) + b"\x01" + bytes(data[17:]))
