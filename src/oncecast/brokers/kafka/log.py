"""Kafka as the server of a followed log: batches of records are written to one partition, and fetched from it.

A batch names the epoch of the leader that wrote it: a number that rises whenever another broker leads the partition, or
the same one after a restart. That is the log's incarnation. Batches are written once and never resent: a publish whose
answer is lost is answered with `unavailable`.

Each connection answers in order, so a fetch that waits for records has one of its own; so have writes, and pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from struct import Struct

from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from ..followed.ledger import Chunk
from ..followed.server import Removed
from ..session import Lost
from .client import Cluster, answer, check_code

WAIT_MILLISECONDS = 500  # for the next records
FOLLOW_BYTES = 1 << 20
WRITE_BYTES = 1 << 19  # of a batch; a larger record has a batch of its own
WRITE_MILLISECONDS = 10_000
OVERHEAD = 256  # of a batch with one record
RECORD_OVERHEAD = 32
EARLIEST, LATEST = -2, -1
ALL_REPLICAS = -1
NO_PRODUCER = -1
NOT_YET = (3, 5, 6, 78)  # codes of a broker that was named as the leader, and does not know it yet
LEADING_SECONDS = 2.0  # for it to know
LEADING_PAUSE = 0.05
BATCH = Struct(">qiibI")  # base offset, length of what follows it, leader's epoch, magic, checksum
LENGTH_FROM = 12  # where a batch's length counts from


class KafkaLog:
    """See the module, and `LogServer`."""

    def __init__(self, cluster: Cluster) -> None:
        self.name = "Kafka"
        self.most_bytes = 0
        self.limit = "max.message.bytes"
        self._cluster = cluster
        self._topic = cluster.topic.name
        self._following: AIOKafkaConnection
        self._writing: AIOKafkaConnection
        self._reading: AIOKafkaConnection
        self._offset = 0

    async def open(self, begins: Callable[[], object]) -> None:
        """Connect to the leader."""
        host, port, most = await self._cluster.leader(begins)
        self.most_bytes = most - OVERHEAD
        self._following = await self._cluster.connect(host, port)
        self._writing = await self._cluster.connect(host, port)
        self._reading = await self._cluster.connect(host, port)

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset, and the next."""
        return await self._bound(EARLIEST), await self._bound(LATEST)

    async def _bound(self, which: int) -> int:
        until = asyncio.get_running_loop().time() + LEADING_SECONDS
        while True:
            asked = OffsetRequest(-1, 0, [(self._topic, [(0, which)])])
            answered = await answer(self._reading.send(asked))
            _, code, _, offset, *_ = answered.topics[0][1][0]
            if code not in NOT_YET or asyncio.get_running_loop().time() >= until:
                check_code(code)
                return int(offset)
            await asyncio.sleep(LEADING_PAUSE)

    async def write(self, records: Sequence[bytes]) -> None:
        """Append records, in batches that are all sent before the first is acknowledged."""
        sent = []
        batch: list[bytes] = []
        size, most = 0, min(WRITE_BYTES, self.most_bytes)
        for record in records:
            if batch and size + len(record) > most:
                sent.append(self._send(batch))
                batch, size = [], 0
            batch.append(record)
            size += len(record) + RECORD_OVERHEAD
        sent.append(self._send(batch))
        for each in sent:
            answered = await answer(each)
            code = answered.topics[0][1][0][1]
            try:
                check_code(code)
            except Removed:
                raise Lost("it refuses records") from None

    def _send(self, records: Sequence[bytes]):  # type: ignore[no-untyped-def]
        builder = DefaultRecordBatchBuilder(2, 0, 0, NO_PRODUCER, NO_PRODUCER, NO_PRODUCER, 1 << 30)
        for number, record in enumerate(records):
            builder.append(number, 0, None, record, [])
        data = bytes(builder.build())
        return self._writing.send(ProduceRequest(None, ALL_REPLICAS, WRITE_MILLISECONDS, [(self._topic, [(0, data)])]))

    async def follow(self, offset: int) -> None:
        """Begin at an offset."""
        self._offset = offset

    async def next(self) -> Sequence[Chunk]:
        """Fetch the next records; the leader waits for some."""
        chunks = await self._fetch(self._following, self._offset, WAIT_MILLISECONDS, FOLLOW_BYTES)
        if chunks:
            self._offset = chunks[-1].first + len(chunks[-1].records)
        return chunks

    async def read(self, offset: int, max_bytes: int) -> Sequence[Chunk]:
        """Fetch from an offset that is there."""
        return await self._fetch(self._reading, offset, 0, max_bytes)

    async def ping(self) -> None:
        """Do nothing: `next` has an answer twice a second, or the connection is lost."""

    async def close(self) -> None:
        """Close the connections."""
        await self._cluster.close()

    async def _fetch(self, connection: AIOKafkaConnection, offset: int, wait: int, max_bytes: int) -> list[Chunk]:
        request = FetchRequest(wait, 1, max_bytes, 0, [(self._topic, [(0, offset, max_bytes)])])
        answered = await answer(connection.send(request))
        if not answered.topics:
            raise Lost("it answers without the topic")
        _, code, *_, data = answered.topics[0][1][0]
        check_code(code)
        return read_batches(data or b"")


def read_batches(data: bytes) -> list[Chunk]:
    """Return the records of the whole batches in a fetched piece of the log. A control batch has none."""
    chunks: list[Chunk] = []
    at = 0
    while at + BATCH.size <= len(data):
        first, length, epoch, magic, _ = BATCH.unpack_from(data, at)
        end = at + LENGTH_FROM + length
        if end > len(data):
            break  # the rest comes with the next fetch
        if magic != 2:
            raise Lost(f"the batch at offset {first} has the format {magic} of an old Kafka: use another topic")
        batch = DefaultRecordBatch(data[at:end])
        if not batch.validate_crc():
            raise Lost(f"the batch at offset {first} was damaged on its way")
        time = batch.max_timestamp / 1000
        if batch.is_control_batch:
            records = [b""] * (batch.next_offset - first)
        else:
            records = [record.value or b"" for record in batch]
        chunks.append(Chunk(first, records, epoch, time))
        at = end
    return chunks
