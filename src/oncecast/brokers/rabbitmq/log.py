"""RabbitMQ as the server of a followed log: records are published to one stream, and delivered in chunks.

A chunk names the epoch of the leader that wrote it, which rises with each election, so with each restart too. That is
the log's incarnation. A record counts when it is delivered back: the server delivers what a majority has.

What is followed, written and read in pages has a connection each: a server that writes for a connection delivers to it
later, by some 2 ms a record (3.10).

A subscription that asks for an offset that is gone begins at the next one, so what is delivered is compared with what
was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from rstream import exceptions, schema
from rstream.constants import OffsetType

from ...errors import ConfigurationError
from ..address import Address
from ..followed.ledger import Chunk
from ..followed.server import Removed
from ..session import Lost
from .client import ANSWER_SECONDS, PUBLISHER, StreamConnection, why

WAIT_SECONDS = 0.5  # for the next records
CREDIT = 20  # chunks on their way
PAGE_CREDIT = 64
SPARSE_BYTES = 1 << 15  # up to this many bytes of a page, one chunk is asked for
WRITE_BYTES = 1 << 19  # of a frame; a larger record has a frame of its own
RECORD_OVERHEAD = 16
OVERHEAD = 64  # of a frame with one record
FOLLOWING = 0  # the number of the subscription that follows; pages have the others
PAGES = 255


class RabbitStream(msgspec.Struct, frozen=True):
    """The stream of a log, made with this if it is not there."""

    name: str
    replicas: int
    retention_seconds: int


class RabbitLog:
    """See the module, and `LogServer`."""

    def __init__(self, address: Address, stream: RabbitStream) -> None:
        self.name = "RabbitMQ"
        self.most_bytes = 0
        self.limit = "stream.frame_max"
        self._address = address
        self._stream = stream
        self._opened: list[StreamConnection] = []
        self._following: StreamConnection
        self._writing: StreamConnection
        self._reading: StreamConnection
        self._chunks: asyncio.Queue[Chunk] = asyncio.Queue()  # bounded by the credit
        self._offset = 0  # that is delivered next
        self._pages: dict[int, asyncio.Queue[Chunk]] = {}
        self._page = 0

    async def open(self, begins: Callable[[], object]) -> None:
        """Connect to the leader, make the stream if it is not there, and declare a publisher."""
        place = await self._leader(begins)
        self._following = await self._connect(*place)
        self._writing = await self._connect(*place)
        self._reading = await self._connect(*place)
        self.name = self._writing.name
        self.most_bytes = self._writing.frame_bytes - OVERHEAD
        declare = schema.DeclarePublisher(self._writing.number(), PUBLISHER, "", self._stream.name)
        await self._ask(self._writing, declare, schema.DeclarePublisherResponse)

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset, and the one after the last."""
        first = await self._some(schema.OffsetSpec(OffsetType.FIRST), 1)
        last = await self._some(schema.OffsetSpec(OffsetType.LAST), 1)
        return first[0].first, last[-1].first + len(last[-1].records)

    async def write(self, records: Sequence[bytes]) -> None:
        """Publish records, in frames that the server takes."""
        batch: list[bytes] = []
        size, most = 0, min(WRITE_BYTES, self.most_bytes)
        frames = [batch]
        for record in records:
            if batch and size + len(record) > most:
                batch = []
                frames.append(batch)
                size = 0
            batch.append(record)
            size += len(record) + RECORD_OVERHEAD
        await asyncio.gather(*(self._writing.publish(each) for each in frames))

    async def follow(self, offset: int) -> None:
        """Begin at an offset."""
        self._offset = offset
        await self._subscribe(self._following, FOLLOWING, schema.OffsetSpecOffset(OffsetType.OFFSET, offset), CREDIT)

    async def next(self) -> Sequence[Chunk]:
        """Return what was delivered, or nothing after a moment."""
        following = self._following
        if self._chunks.empty():
            getting = asyncio.ensure_future(self._chunks.get())
            lost = [each.lost for each in (following, self._writing, self._reading)]
            waits: set[asyncio.Future[Any]] = {getting, *lost}
            try:
                await asyncio.wait(waits, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for each in lost:
                    if each.done():
                        each.result()
                if not getting.done():
                    return ()
                chunk = getting.result()
            finally:
                getting.cancel()
        else:
            chunk = self._chunks.get_nowait()
        if chunk.first > self._offset:
            raise Removed
        self._offset = chunk.first + len(chunk.records)
        await following.send(schema.Credit(FOLLOWING, 1))
        return (chunk,)

    async def read(self, offset: int, max_bytes: int) -> Sequence[Chunk]:
        """Return the chunk of an offset, and some after it where many bytes are asked for."""
        chunks = await self._some(schema.OffsetSpecOffset(OffsetType.OFFSET, offset), max_bytes)
        if chunks[0].first > offset:
            raise Removed
        return chunks

    async def ping(self) -> None:
        """Ask where the stream is, on each connection."""
        for connection in (self._following, self._writing, self._reading):
            await self._find(connection)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(each.close() for each in self._opened))

    # -- connections

    async def _connect(self, host: str, port: int) -> StreamConnection:
        connection = StreamConnection(self._address, self._delivered)
        self._opened.append(connection)
        await connection.open(host, port, self._address.context())
        return connection

    async def _leader(self, begins: Callable[[], object]) -> tuple[str, int]:
        """Return where the stream's leader is."""
        first, lost = None, Lost("")
        for place in self._address.hosts:
            try:
                first = await self._connect(*place)
                break
            except Lost as error:
                lost = error
        if first is None:
            raise lost
        leader = await self._find(first)
        if leader is None:
            begins()
            await self._make(first)
            leader = await self._find(first)
        if leader is None:
            raise Lost(f"the stream {self._stream.name} was made and is not there")
        await first.close()
        return leader

    async def _find(self, connection: StreamConnection) -> tuple[str, int] | None:
        """Return where the stream's leader is, None without such a stream."""
        asked = schema.Metadata(connection.number(), [self._stream.name])
        found = await connection.ask(asked, schema.MetadataResponse)
        (stream,) = found.metadata
        if stream.response_code == exceptions.StreamDoesNotExist.code:
            return None
        places = {broker.reference: (broker.host, broker.port) for broker in found.brokers}
        if stream.leader_ref not in places:
            raise Lost(f"the stream {self._stream.name} has no leader now: if that lasts, name another by ?stream=NAME")
        return places[stream.leader_ref]

    async def _make(self, connection: StreamConnection) -> None:
        stream = self._stream
        settings = {"max-age": f"{stream.retention_seconds}s", "initial-cluster-size": str(stream.replicas)}
        properties = [schema.Property(*each) for each in settings.items()]
        try:
            await self._ask(
                connection, schema.Create(connection.number(), stream.name, properties), schema.CreateResponse
            )
        except exceptions.StreamAlreadyExists:
            return  # another node's
        except exceptions.PreconditionFailed:
            said = f"{stream.name} is a queue that is no stream, or has other settings: name another by ?stream=NAME"
            raise ConfigurationError(f"broker: {self._address}: {said}") from None

    async def _ask(self, connection: StreamConnection, frame: schema.Frame, kind: type[schema.Frame]) -> schema.Frame:
        try:
            return await connection.ask(frame, kind)
        except exceptions.AccessRefused:
            said = f"this user may not use the stream {self._stream.name}: allow configure, write and read"
            raise ConfigurationError(f"broker: {self._address}: {said}") from None
        except (exceptions.StreamAlreadyExists, exceptions.PreconditionFailed):
            raise
        except exceptions.ServerError as error:
            raise Lost(f"the stream {self._stream.name}: {why(error)}") from None

    # -- subscriptions

    def _delivered(self, frame: schema.Deliver) -> None:
        queue = self._chunks if frame.subscription_id == FOLLOWING else self._pages.get(frame.subscription_id)
        if queue is not None:
            records = frame.get_messages()
            queue.put_nowait(Chunk(frame.chunk_first_offset, records, frame.epoch, frame.timestamp / 1000))

    async def _subscribe(
        self, connection: StreamConnection, number: int, place: schema.OffsetSpec, credit: int
    ) -> None:
        request = schema.Subscribe(connection.number(), number, self._stream.name, place, credit, [])
        await self._ask(connection, request, schema.SubscribeResponse)

    async def _some(self, place: schema.OffsetSpec, max_bytes: int) -> list[Chunk]:
        """Return some chunks from a place on: one, or up to a size or the end of the log that is known."""
        while self._page in self._pages or self._page == 0:
            self._page = self._page % PAGES + 1
        number, reading = self._page, self._reading
        queue = self._pages[number] = asyncio.Queue[Chunk]()
        chunks: list[Chunk] = []
        size = 0
        try:
            await self._subscribe(reading, number, place, 1 if max_bytes <= SPARSE_BYTES else PAGE_CREDIT)
            async with asyncio.timeout(ANSWER_SECONDS):
                while not chunks or (
                    SPARSE_BYTES < max_bytes > size
                    and len(chunks) < PAGE_CREDIT
                    and chunks[-1].first + len(chunks[-1].records) < self._offset
                ):
                    chunks.append(await queue.get())
                    size += sum(map(len, chunks[-1].records))
            return chunks
        except TimeoutError:
            raise Lost(f"a page did not come within {ANSWER_SECONDS:g} s") from None
        finally:
            del self._pages[number]
            if not reading.lost.done():
                await reading.send(schema.Unsubscribe(reading.number(), number))
