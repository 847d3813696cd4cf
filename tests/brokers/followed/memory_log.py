"""A log server in memory: what Kafka and RabbitMQ are to a session, with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from oncecast.brokers.followed.ledger import Chunk
from oncecast.brokers.followed.server import Removed
from oncecast.brokers.session import Lost


class MemoryLog:
    """The log, which outlives connections. `restart` ends them all."""

    def __init__(self, *, first: int = 0) -> None:
        self.records: list[tuple[bytes, int, float]] = []  # with incarnation and time
        self.first = first
        self.incarnation = 3
        self.now = 1_000.0
        self.connections: list[MemoryServer] = []
        self.after_write: list[list[bytes]] = []  # what another node appends right after each next write
        self.opening: asyncio.Event | None = None  # what a connection waits for to be opened

    @property
    def end(self) -> int:
        """The next offset."""
        return self.first + len(self.records)

    def append(self, records: Sequence[bytes], incarnation: int | None = None) -> None:
        """Append records."""
        self.now += 0.001
        written = self.incarnation if incarnation is None else incarnation
        self.records += [(record, written, self.now) for record in records]
        for connection in self.connections:
            connection.grown.set()

    def remove(self, count: int) -> None:
        """Remove the oldest records."""
        del self.records[:count]
        self.first += count

    def lose(self, count: int) -> None:
        """Lose the newest records and begin another incarnation; connections are lost."""
        del self.records[len(self.records) - count :]
        self.restart()

    def wipe(self) -> None:
        """Be another log."""
        self.records, self.first = [], 0
        self.restart()
        self.incarnation = 0

    def restart(self) -> None:
        """Begin another incarnation."""
        self.incarnation += 1
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self.connections:
            connection.lost = True
            connection.grown.set()
        self.connections.clear()

    def chunks(self, offset: int, count: int) -> list[Chunk]:
        """Return the chunks with `count` records from an offset on, whole, as servers do."""
        if not self.first <= offset <= self.end:
            raise Removed
        chunks: list[Chunk] = []
        batch: list[bytes] = []
        for at in range(self.first, self.end + 1):
            here = self.records[at - self.first][1:] if at < self.end else None
            before = self.records[at - 1 - self.first][1:] if batch else None
            if before is not None and here != before:
                if at > offset:
                    chunks.append(Chunk(at - len(batch), batch, *before))
                batch = []
                if at >= offset + count:
                    break
            if at < self.end:
                batch.append(self.records[at - self.first][0])
        return chunks


class MemoryServer:
    """One connection to the log. See `LogServer`."""

    def __init__(self, log: MemoryLog, most_bytes: int = 8 << 20) -> None:
        self.log = log
        self.name = "a log in memory"
        self.most_bytes = most_bytes
        self.limit = "limit"
        self.lost = False
        self.silent = False  # writes do not come to the log
        self.closed = False
        self.grown = asyncio.Event()
        self.reads: list[tuple[int, int]] = []
        self._offset = 0

    async def open(self, begins: Callable[[], object]) -> None:
        """Connect."""
        if self.log.opening is not None:
            await self.log.opening.wait()
        self.log.connections.append(self)

    async def bounds(self) -> tuple[int, int]:
        """Return the first and the next offset."""
        self._check()
        return self.log.first, self.log.end

    async def write(self, records: Sequence[bytes]) -> None:
        """Append."""
        self._check()
        if not self.silent:
            self.log.append(records)
            if self.log.after_write:
                self.log.append(self.log.after_write.pop(0))

    async def follow(self, offset: int) -> None:
        """Begin there."""
        self._offset = offset

    async def next(self) -> Sequence[Chunk]:
        """Return what is next, once there is something."""
        while True:
            self._check()
            chunks = self.log.chunks(self._offset, 100)
            if chunks:
                self._offset = chunks[-1].first + len(chunks[-1].records)
                return chunks
            self.grown.clear()
            await self.grown.wait()

    async def read(self, offset: int, max_bytes: int) -> Sequence[Chunk]:
        """Return some."""
        self._check()
        self.reads.append((offset, max_bytes))
        return self.log.chunks(offset, 1 if max_bytes < 1 << 16 else 100)

    async def ping(self) -> None:
        """Answer."""
        self._check()

    async def close(self) -> None:
        """Close."""
        self.closed = True

    def _check(self) -> None:
        if self.lost:
            raise Lost("its connection was cut")
