"""A proxy that serves a server below a path, as an ingress does that strips its prefix."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType


class Prefix:
    """Serve what a port of this machine serves below `path`, which begins and ends with a slash; other paths are 404.

    Each connection has one request, so that only its first line has to be rewritten; an upgrade is passed on whole.
    """

    def __init__(self, path: str, target: int) -> None:
        self.path = path.encode()
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Prefix:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # it was accepted as the server was closed
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._pass_on(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, rest = head.split(b" ", 2)
        if not target.startswith(self.path):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if b"\r\nUpgrade: websocket" not in head:
            rest = rest.replace(b"Connection: keep-alive", b"Connection: close")
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            back.write(b" ".join([method, b"/" + target.removeprefix(self.path), rest]))
            up = asyncio.create_task(_copy(reader, back))
            try:
                await _copy(there, writer)
            finally:
                up.cancel()
                await asyncio.gather(up, return_exceptions=True)
        finally:
            back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
