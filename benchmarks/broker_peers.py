"""What the benchmark of brokers measures with: a node's broker, and the floor under it, a bare client library.

A floor sends and receives the same number of messages of the same size by the library's own means, with the same
promise of the server: what is acknowledged is stored. It numbers nothing, trims nothing and looks for no loss.

To add a kind of broker, write its floor here and give it a row in `KINDS`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from oncecast.brokers.base import Broker, Opening, Outcome
from oncecast.errors import Refusal
from oncecast.message import Draft, Kind, Message, Retention
from oncecast.server.brokers import build_broker
from oncecast.server.settings import Settings

from .base import BenchError

__all__ = ["KINDS", "Floor", "NodePeer", "Peer", "isolated", "kind_of"]

Received = Callable[[bytes], None]
KEPT = Retention(1_000_000, 3600.0)


class Peer(Protocol):
    """One client of a broker's server. Its methods raise what the library raises."""

    async def open(self, url: str, received: Received) -> None:
        """Connect; `received` is called with the data of each message of a wanted channel."""
        ...

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Publish together, and return once all are acknowledged."""
        ...

    async def want(self, channels: Sequence[str]) -> None:
        """Subscribe, and return once the subscriptions stand."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Floor(Peer, Protocol):
    """A bare client library. `remove` deletes the log at a URL, which the benchmark has made."""

    async def remove(self, url: str) -> None:
        """Delete what was made at the URL. Called between `open` and `close`."""
        ...


class NodePeer:
    """The broker as a node of Oncecast has it."""

    def __init__(self) -> None:
        self._broker: Broker
        self._received: Received
        self._waiting: set[str] = set()
        self._stand = asyncio.Event()
        self.failed = ""

    async def open(self, url: str, received: Received) -> None:
        """Start the broker."""
        self._received = received
        self._broker = build_broker(Settings(broker=url), lambda channel: KEPT)
        await self._broker.start(self)

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Publish as one request of a client would."""
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._broker.publish([Draft(channel, each, Kind.TEXT) for each in data], answered.set_result)
        for outcome in await answered:
            if isinstance(outcome, Refusal):
                raise BenchError(f"a publish was refused: {outcome.message}")

    async def want(self, channels: Sequence[str]) -> None:
        """Want channels, and return once each is confirmed."""
        if not self._broker.capabilities.only_wanted:
            return
        self._waiting = set(channels)
        self._stand.clear()
        self._broker.want(channels)
        await self._stand.wait()

    async def close(self) -> None:
        """Stop the broker."""
        await self._broker.stop()

    # -- `brokers.base.Sink`

    def begin(self, opening: Opening, /) -> None:
        """Do nothing."""

    def receive(self, messages: Sequence[Message], /) -> None:
        """Hand the data on."""
        for message in messages:
            self._received(message.data)

    def advance(self, seq: int, /) -> None:
        """Do nothing."""

    def skip(self, seq: int, /) -> None:
        """Note a fault: the figures would be of fewer messages."""
        self._fault("the broker skipped messages")

    def hole(self, before: int, after: int, /) -> None:
        """Note a fault."""
        self._fault("the broker had a hole")

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Note what is confirmed."""
        self._waiting.difference_update(channels)
        if not self._waiting:
            self._stand.set()

    def away(self, reason: str, /) -> None:
        """Note a fault."""
        self._fault(f"the broker was away: {reason}")

    def back(self) -> None:
        """Do nothing."""

    def fail(self, reason: str, /) -> None:
        """Note a fault."""
        self._fault(reason)

    def _fault(self, text: str) -> None:
        self.failed = self.failed or text


class RedisFloor:
    """redis-py: XADD to a stream and PUBLISH in one pipeline, and a pub/sub connection that listens."""

    def __init__(self) -> None:
        self._client: Any = None
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None
        self._received: Received
        self._stand = asyncio.Event()
        self._waiting = 0

    async def open(self, url: str, received: Received) -> None:
        """Make a pool of connections."""
        import redis.asyncio

        self._received = received
        self._prefix = f"{_option(url, 'prefix')}floor"
        self._client = redis.asyncio.from_url(url.partition("?")[0], protocol=2)
        self._pubsub = self._client.pubsub()

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Send one pipeline."""
        name = f"{self._prefix}:{channel}"
        async with self._client.pipeline(transaction=False) as pipeline:
            for each in data:
                pipeline.xadd(name, {"d": each})
                pipeline.publish(name, each)
            await pipeline.execute()

    async def want(self, channels: Sequence[str]) -> None:
        """Subscribe, 1,000 channels with a command, and wait for the confirmations."""
        self._waiting = len(channels)
        self._stand.clear()
        names = [f"{self._prefix}:{channel}" for channel in channels]
        for at in range(0, len(names), 1_000):
            await self._pubsub.subscribe(*names[at : at + 1_000])
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        await self._stand.wait()

    async def _listen(self) -> None:
        while True:
            pushed = await self._pubsub.parse_response(block=True)
            if pushed[0] == b"message":
                self._received(pushed[2])
            elif pushed[0] == b"subscribe":
                self._waiting -= 1
                if self._waiting <= 0:
                    self._stand.set()

    async def remove(self, url: str) -> None:
        """Delete the keys of the prefix."""
        prefix = _option(url, "prefix")
        found = [name async for name in self._client.scan_iter(f"{prefix}*", count=1_000)]
        for at in range(0, len(found), 500):
            await self._client.unlink(*found[at : at + 500])

    async def close(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pubsub.aclose()
        await self._client.aclose()


class NatsFloor:
    """nats-py: JetStream publishes to a file stream that republishes, and core subscriptions."""

    def __init__(self) -> None:
        self._client: Any = None
        self._stream: Any = None
        self._received: Received

    async def open(self, url: str, received: Received) -> None:
        """Connect, and make the stream if it is not there."""
        import nats
        from nats.js.api import RePublish, StreamConfig

        self._received = received
        self._name = f"{_option(url, 'stream')}_floor"
        self._client = await nats.connect(url.partition("?")[0], allow_reconnect=False)
        self._stream = self._client.jetstream()
        settings = StreamConfig(
            name=self._name,
            subjects=[f"{self._name}.m.>"],
            republish=RePublish(src=f"{self._name}.m.>", dest=f"{self._name}.r.>"),
        )
        await self._stream.add_stream(settings)

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Publish each, and wait for all acknowledgements."""
        subject = f"{self._name}.m.{channel}"
        await asyncio.gather(*(self._stream.publish(subject, each) for each in data))

    async def want(self, channels: Sequence[str]) -> None:
        """Subscribe, and wait for the server to have come to the last."""

        async def came(message: Any) -> None:
            self._received(message.data)

        for channel in channels:
            await self._client.subscribe(f"{self._name}.r.{channel}", cb=came)
        await self._client.flush(30)

    async def remove(self, url: str) -> None:
        """Delete both streams."""
        from nats.js.errors import NotFoundError

        for name in (_option(url, "stream"), self._name):
            try:
                await self._stream.delete_stream(name)
            except NotFoundError:
                continue

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


class KafkaFloor:
    """aiokafka: its idempotent producer, and its consumer on the one partition, without a group."""

    def __init__(self) -> None:
        self._producer: Any = None
        self._consumer: Any = None
        self._task: asyncio.Task[None] | None = None
        self._received: Received

    async def open(self, url: str, received: Received) -> None:
        """Connect, and make the topic if it is not there."""
        from aiokafka import AIOKafkaProducer
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        self._received = received
        self._servers = urlsplit(url).netloc
        self._topic = f"{_option(url, 'topic')}_floor"
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(self._topic, 1, 1)])
        finally:
            await admin.close()
        self._producer = AIOKafkaProducer(bootstrap_servers=self._servers, acks="all", enable_idempotence=True)
        await self._producer.start()

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Send each, and wait for all acknowledgements."""
        sent = [await self._producer.send(self._topic, each, channel.encode(), partition=0) for each in data]
        await asyncio.gather(*sent)

    async def want(self, channels: Sequence[str]) -> None:
        """Consume the topic from its end: Kafka sends every channel."""
        from aiokafka import AIOKafkaConsumer, TopicPartition

        if self._consumer is None:
            partition = TopicPartition(self._topic, 0)
            self._consumer = AIOKafkaConsumer(bootstrap_servers=self._servers, enable_auto_commit=False)
            await self._consumer.start()
            self._consumer.assign([partition])
            await self._consumer.seek_to_end(partition)
            self._task = asyncio.create_task(self._listen(channels[0].encode()))

    async def _listen(self, wanted: bytes) -> None:
        async for record in self._consumer:
            if record.key == wanted:
                self._received(record.value)

    async def remove(self, url: str) -> None:
        """Delete both topics."""
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        try:
            await admin.delete_topics([_option(url, "topic"), self._topic])
        finally:
            await admin.close()

    async def close(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._consumer.stop()
        await self._producer.stop()


class RabbitFloor:
    """rstream: its producer, raw bytes, and its consumer of the stream."""

    def __init__(self) -> None:
        self._producer: Any = None
        self._consumer: Any = None
        self._task: asyncio.Task[None] | None = None
        self._received: Received

    async def open(self, url: str, received: Received) -> None:
        """Connect, and make the stream if it is not there."""
        from rstream import Producer

        self._received = received
        parts = urlsplit(url)
        self._server: dict[str, Any] = {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 5552,
            "username": parts.username or "guest",
            "password": parts.password or "guest",
        }
        self._stream = f"{_option(url, 'stream')}_floor"
        self._producer = Producer(**self._server)
        await self._producer.start()
        await self._producer.create_stream(self._stream, exists_ok=True)

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Send one batch, each message with its channel before it, and wait for all confirmations."""
        left = len(data)
        confirmed = asyncio.Event()

        def came(status: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                confirmed.set()

        records = [channel.encode() + b" " + each for each in data]
        await self._producer.send_batch(self._stream, records, on_publish_confirm=came)
        await confirmed.wait()

    async def want(self, channels: Sequence[str]) -> None:
        """Consume the stream from its end: RabbitMQ sends every channel."""
        from rstream import Consumer, ConsumerOffsetSpecification, OffsetType

        if self._consumer is not None:
            return
        wanted = channels[0].encode() + b" "

        def came(record: Any, context: Any) -> None:
            if record.startswith(wanted):
                self._received(record[len(wanted) :])

        self._consumer = Consumer(**self._server)
        await self._consumer.start()
        start = ConsumerOffsetSpecification(OffsetType.NEXT, None)
        await self._consumer.subscribe(self._stream, came, decoder=bytes, offset_specification=start)
        self._task = asyncio.create_task(self._consumer.run())

    async def remove(self, url: str) -> None:
        """Delete both streams."""
        for name in (_option(url, "stream"), self._stream):
            await self._producer.delete_stream(name, missing_ok=True)

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._producer.close()


@dataclass(frozen=True, slots=True)
class BrokerKind:
    """One kind: the option of its URL that names a log of its own, its floor, and the most ms that a delivery takes."""

    option: str | None
    floor: Callable[[], Floor] | None
    delivery_ms: float


KINDS: Mapping[str, BrokerKind] = {
    **dict.fromkeys(("redis", "rediss"), BrokerKind("prefix", RedisFloor, 3.0)),
    **dict.fromkeys(("nats", "natss"), BrokerKind("stream", NatsFloor, 3.0)),
    "kafka": BrokerKind("topic", KafkaFloor, 15.0),
    "amqp": BrokerKind("stream", RabbitFloor, 15.0),
    "sqlite": BrokerKind(None, None, 3.0),
}


def kind_of(url: str) -> BrokerKind:
    """Return the kind of a URL. Raises `BenchError`."""
    scheme = url.partition("://")[0]
    if scheme not in KINDS:
        known = ", ".join(f"{name}://" for name in KINDS)
        raise BenchError(f"there is no benchmark for {scheme[:40]}://: give one of {known}")
    return KINDS[scheme]


def isolated(url: str) -> str:
    """Return the URL of a log that is the benchmark's own, on the server of this URL. Raises `BenchError`."""
    kind = kind_of(url)
    name = f"bench{os.getpid()}x{time.monotonic_ns() % 1_000_000}"
    if kind.option is None:
        folder = Path(f"{url.partition(':///')[2]}.{name}")
        folder.mkdir()
        return f"sqlite:///{folder}/log.db"
    if _option(url, kind.option):
        raise BenchError(f"leave {kind.option} out of the URL: the benchmark takes a log of its own, and deletes it")
    return f"{url}{'&' if '?' in url else '?'}{kind.option}={name}"


async def remove(url: str) -> None:
    """Delete the log of `isolated`."""
    floor = kind_of(url).floor
    if floor is None:
        shutil.rmtree(Path(url.partition(":///")[2]).parent)
        return
    peer = floor()
    await peer.open(url, lambda data: None)
    try:
        await peer.remove(url)
    finally:
        await peer.close()


def _option(url: str, name: str) -> str:
    for each in urlsplit(url).query.split("&"):
        key, _, value = each.partition("=")
        if key == name:
            return value
    return ""
