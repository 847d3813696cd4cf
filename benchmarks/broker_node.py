"""One process of the benchmark of brokers: a node, or a bare client in its place. Commands by line, answers in JSON.

* `open URL` connects.
* `want PREFIX COUNT` wants COUNT channels; the answer has the `seconds` until the subscriptions stand.
* `one CHANNEL COUNT` publishes one after the other, `many CHANNEL COUNT` in batches; the answer has `seconds`, `cpu`.
* `stamps CHANNEL COUNT` publishes messages that hold the time of this machine's monotonic clock, 2 ms apart.
* `reset` begins to count, `await COUNT` waits for COUNT messages; the answer has the `cpu` seconds since `reset`, and
  the `micros` that each stamped message took.
* `cpu` answers with the seconds of CPU time since `reset`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping

import msgspec
import uvloop

from .base import BenchError
from .broker_peers import NodePeer, Peer, kind_of, remove

__all__: list[str] = []

COMMAND_SECONDS = 120.0
DATA = b"x" * 100
STAMP = b"t "
BATCH = 100
FLYING = 8  # batches under way
SPACING = 0.002

Answer = Mapping[str, object]


class Node:
    """The process."""

    def __init__(self, floor: bool) -> None:
        self._floor = floor
        self._peer: Peer | None = None
        self._count = 0
        self._micros: list[float] = []
        self._cpu = 0.0
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Answer commands until standard input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            sys.stdout.buffer.write(msgspec.json.encode(await self.answer(line.decode())) + b"\n")
            sys.stdout.flush()

    async def answer(self, line: str) -> Answer:
        """Do one command. What fails is its answer."""
        name, *arguments = line.split()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                answer: Answer = await getattr(self, f"do_{name}")(*arguments)
        except TimeoutError:
            return {"error": f"{name} took longer than {COMMAND_SECONDS:g} s"}
        except Exception as error:  # noqa: BLE001 - it is the run's answer
            return {"error": f"{name}: {error or type(error).__name__}"}
        peer = self._peer
        return {"error": peer.failed} if isinstance(peer, NodePeer) and peer.failed else answer

    async def do_open(self, url: str) -> Answer:
        """Connect."""
        floor = kind_of(url).floor
        peer: Peer = floor() if self._floor and floor is not None else NodePeer()
        await peer.open(url, self._received)
        self._peer = peer
        return {}

    @property
    def _open(self) -> Peer:
        if self._peer is None:
            raise BenchError("open comes first")
        return self._peer

    async def do_want(self, prefix: str, count: str) -> Answer:
        """Want channels."""
        names = [f"{prefix}{number}" for number in range(int(count))]
        began = time.perf_counter()
        await self._open.want(names)
        return {"seconds": time.perf_counter() - began}

    async def do_one(self, channel: str, count: str) -> Answer:
        """Publish one after the other."""
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(count)):
            await self._open.publish(channel, (DATA,))
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    async def do_many(self, channel: str, count: str) -> Answer:
        """Publish in batches, some at a time."""
        left = int(count) // BATCH
        batch = [DATA] * BATCH

        async def some() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self._open.publish(channel, batch)

        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(FLYING):
                group.create_task(some())
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    async def do_stamps(self, channel: str, count: str) -> Answer:
        """Publish the time."""
        for _ in range(int(count)):
            await self._open.publish(channel, (STAMP + b"%d" % time.monotonic_ns(),))
            await asyncio.sleep(SPACING)
        return {}

    async def do_reset(self) -> Answer:
        """Begin to count."""
        self._count, self._micros, self._cpu = 0, [], time.process_time()
        return {}

    async def do_cpu(self) -> Answer:
        """Return the CPU time since."""
        return {"cpu": time.process_time() - self._cpu}

    async def do_await(self, count: str) -> Answer:
        """Wait for messages."""
        while self._count < int(count):
            self._more.clear()
            await self._more.wait()
        return {"cpu": time.process_time() - self._cpu, "micros": self._micros}

    async def do_remove(self, url: str) -> Answer:
        """Delete the log."""
        await remove(url)
        return {}

    async def do_close(self) -> Answer:
        """Disconnect."""
        await self._open.close()
        return {}

    def _received(self, data: bytes) -> None:
        if data.startswith(STAMP):
            self._micros.append((time.monotonic_ns() - int(data[len(STAMP) :])) / 1000)
        self._count += 1
        self._more.set()


if __name__ == "__main__":
    uvloop.run(Node(sys.argv[1] == "floor").run())
