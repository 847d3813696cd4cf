"""The broker on Kafka, against a real server: the contract, and what is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from oncecast.brokers.followed.record import MAGIC, NO_KEY
from oncecast.brokers.kafka.broker import kafka_broker
from oncecast.brokers.kafka.log import read_batches
from oncecast.brokers.session import Lost
from oncecast.errors import Refusal
from oncecast.message import Draft, Receipt, Retention
from oncecast.server.brokers import build_broker
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.broker import CHECKS, check_broker
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from tests.brokers.followed.lab import FollowedKind, numbers
from tests.brokers.servers import Servers
from tests.brokers.starting import bench_at, refusal_at, until_ready


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


async def remove(server: BrokerServer, topic: str) -> None:
    """Delete the topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def make_topic(server: BrokerServer, topic: str, partitions: int, settings: dict[str, str]) -> None:
    """Make a topic as somebody else would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=settings)])
    finally:
        await admin.close()


async def damage(server: BrokerServer, topic: str) -> None:
    """Add records that are no messages."""
    producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{server.port}")
    await producer.start()
    try:
        head = MAGIC + b"\0" + bytes(16) + NO_KEY
        for value in (b"", b"foreign", head, head + b"\xff\xff\xff", head + b"\x01\0\0*", MAGIC + b"\x10" * 40):
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


KIND = FollowedKind("kafka", "topic", kafka_broker, remove, damage, lose_tail)


@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_the_contract(servers: Servers, name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: KIND.lab(servers, own=name == "tells_of_a_hole"), name)


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
    server, topic = servers("kafka"), f"t{next(numbers)}"
    asyncio.run(make_topic(server, topic, partitions, settings))
    assert said in refusal_at(KIND.url(server, topic))


def test_a_topic_that_cannot_be_made_says_why(servers: Servers) -> None:
    """More replicas than there are brokers is the server's error, in one line."""
    assert "can't be made" in refusal_at(KIND.url(servers("kafka"), f"t{next(numbers)}", replicas="3"))


def test_nobody_there_is_one_line() -> None:
    """Where no server listens the start fails with the host and the port."""
    assert "broker: kafka://127.0.0.1:9: 127.0.0.1:9: " in refusal_at("kafka://127.0.0.1:9")


def test_a_small_topic_refuses_a_large_message(servers: Servers) -> None:
    """A topic that takes less is used as it is; what is too large for it is refused, and not retried for ever."""
    server, topic = servers("kafka"), f"t{next(numbers)}"
    settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "5000"}
    asyncio.run(make_topic(server, topic, 1, settings))
    driver = LoopDriver()
    bench = bench_at(KIND.url(server, topic), driver)
    bench.start()
    bench.want("a")
    refused, *taken = bench.publish(Draft("a", bytes(5000)), *(Draft("a", bytes(4000)) for _ in range(3)))
    bench.stop()
    driver.close()
    assert isinstance(refused, Refusal)
    assert refused.code == "body_too_large"
    assert "max.message.bytes" in refused.message
    assert [type(each) for each in taken] == [Receipt] * 3


async def test_a_topic_that_is_changed_later(servers: Servers) -> None:
    """A topic that is compacted while a node runs takes nothing: `/readyz` says what it must have, until it has it."""
    server, topic = servers("kafka"), f"t{next(numbers)}"
    settings = Settings(broker=KIND.url(server, topic), port=0)
    broker = build_broker(settings, lambda channel: Retention())
    node = Server(settings, broker=broker)
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{server.port}")
    await admin.start()

    async def change(policy: str) -> None:
        kept = {"message.timestamp.type": "LogAppendTime", "retention.bytes": "-1", "cleanup.policy": policy}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=kept)])

    try:
        await node.start()
        await until_ready(node, lambda status, text: status == 200)
        await change("compact")
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        broker.publish([Draft("a", b"1")], answered.set_result)
        (outcome,) = await answered
        assert isinstance(outcome, Refusal)
        status, _ = await until_ready(node, lambda status, text: "must have cleanup.policy=delete" in text)
        assert status == 503
        await change("delete")
        await until_ready(node, lambda status, text: status == 200)
    finally:
        await node.stop()
        await admin.close()


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
