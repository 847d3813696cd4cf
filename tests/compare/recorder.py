"""A pipe that keeps every byte, for what counts them to be held to, and for proofs that count themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Recorder"]


class Recorder:
    """A pipe to a port that keeps every byte: `up` and `down`. `refuses` looks at a connection's first bytes."""

    def __init__(self, target: int, refuses: Callable[[bytes], bool] = lambda _first: False) -> None:
        self.up = bytearray()
        self.down = bytearray()
        self.port = 0
        self._target = target
        self._refuses = refuses
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Recorder:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other: asyncio.StreamWriter | None = None
        try:
            first = await reader.read(65536)
            self.up += first
            if self._refuses(first):
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            far, other = await asyncio.open_connection("127.0.0.1", self._target)
            other.write(first)
            await asyncio.wait(
                {
                    asyncio.create_task(self._carry(reader, other, self.up)),
                    asyncio.create_task(self._carry(far, writer, self.down)),
                },
            )
        except OSError:
            pass
        finally:
            writer.transport.abort()
            if other is not None:
                other.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        try:
            while data := await reader.read(65536):
                kept += data
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()
