"""The floors of the benchmark of brokers: bare client libraries, by the means of their own.

To add one, write its class here with the methods of `Floor`, and name it in `broker_peers.KINDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

__all__ = ["KafkaFloor", "NatsFloor", "RabbitFloor", "Received", "RedisFloor", "option_of"]

Received = Callable[[bytes], None]


class _Listening:
    """The task in which a floor listens."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return self._task is not None

    def begin(self, listening: Any) -> None:
        """Listen from now on."""
        self._task = asyncio.create_task(listening)

    async def end(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class RedisFloor:
    """redis-py: XADD to a stream and PUBLISH in one pipeline, and a pub/sub connection that listens."""

    def __init__(self) -> None:
        self._client: Any = None
        self._pubsub: Any = None
        self._listening = _Listening()
        self._received: Received
        self._stand = asyncio.Event()
        self._waiting = 0

    async def open(self, url: str, received: Received) -> None:
        """Make a pool of connections."""
        import redis.asyncio

        self._received = received
        self._prefix = f"{option_of(url, 'prefix')}floor"
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
        if not self._listening:
            self._listening.begin(self._listen())
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
        prefix = option_of(url, "prefix")
        found = [name async for name in self._client.scan_iter(f"{prefix}*", count=1_000)]
        for at in range(0, len(found), 500):
            await self._client.unlink(*found[at : at + 500])

    async def close(self) -> None:
        """Disconnect."""
        await self._listening.end()
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
        self._name = f"{option_of(url, 'stream')}_floor"
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

        for name in (option_of(url, "stream"), self._name):
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
        self._listening = _Listening()
        self._received: Received

    async def open(self, url: str, received: Received) -> None:
        """Connect, and make the topic if it is not there."""
        from aiokafka import AIOKafkaProducer
        from aiokafka.admin import NewTopic

        self._received = received
        self._servers = urlsplit(url).netloc
        self._topic = f"{option_of(url, 'topic')}_floor"
        async with self._admin() as admin:
            await admin.create_topics([NewTopic(self._topic, 1, 1)])
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
            self._listening.begin(self._listen(channels[0].encode()))

    async def _listen(self, wanted: bytes) -> None:
        async for record in self._consumer:
            if record.key == wanted:
                self._received(record.value)

    async def remove(self, url: str) -> None:
        """Delete both topics."""
        async with self._admin() as admin:
            await admin.delete_topics([option_of(url, "topic"), self._topic])

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def close(self) -> None:
        """Disconnect."""
        await self._listening.end()
        if self._consumer is not None:
            await self._consumer.stop()
        await self._producer.stop()


class RabbitFloor:
    """rstream: its producer, raw bytes, and its consumer of the stream."""

    def __init__(self) -> None:
        self._producer: Any = None
        self._consumer: Any = None
        self._listening = _Listening()
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
        self._stream = f"{option_of(url, 'stream')}_floor"
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
        self._listening.begin(self._consumer.run())

    async def remove(self, url: str) -> None:
        """Delete both streams."""
        for name in (option_of(url, "stream"), self._stream):
            await self._producer.delete_stream(name, missing_ok=True)

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.close()
        await self._listening.end()
        await self._producer.close()


def option_of(url: str, name: str) -> str:
    """Return an option of a URL, or an empty text."""
    for each in urlsplit(url).query.split("&"):
        key, _, value = each.partition("=")
        if key == name:
            return value
    return ""
