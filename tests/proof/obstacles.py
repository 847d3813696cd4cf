"""A proxy on loopback that obstructs like real proxies: it refuses, holds, buffers or cuts, by kind of request.

It works on requests, where the faulty pipe works on bytes. Invariant: a request without a rule is forwarded unchanged
except for `Connection: close`, and a connection has one request. `rules` may change at any time, for later requests;
`unblock` removes all. To add an obstacle, add a field to `Obstacle` and apply it in `_serve`.

From a shell, for clients in other languages: `python -m tests.proof.obstacles --target PORT --row NAME`. Each line on
standard input is the next row, `none` for no obstacle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import enum
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

__all__ = ["MATRIX", "Kind", "Obstacle", "Obstacles", "scaled"]

READ_BYTES = 64 << 10
HEAD_BYTES = 64 << 10


class Kind(enum.Enum):
    """What a request asks for."""

    WEBSOCKET = "websocket"
    SSE = "sse"
    LONG_POLL = "long-poll"
    SHORT_POLL = "short-poll"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What the proxy does with a request: the first of these that is set, in this order.

    `status`: the proxy answers itself, with a page. `silent`: it reads the request and never answers. `strips_upgrade`:
    it forwards the request without the upgrade. `buffered`: the client gets the answer once it is whole. `cut_after`:
    the connection is closed that number of seconds after the request, also in the middle of the answer.
    """

    status: int | None = None
    silent: bool = False
    strips_upgrade: bool = False
    buffered: bool = False
    cut_after: float | None = None


Rules = Mapping[Kind, Obstacle]

# What clients are tried against, by name.
_REFUSED = Obstacle(status=403)
MATRIX: Mapping[str, Rules] = {
    "none": {},
    "websocket-403": {Kind.WEBSOCKET: _REFUSED},
    "websocket-400": {Kind.WEBSOCKET: Obstacle(status=400)},
    "websocket-stripped": {Kind.WEBSOCKET: Obstacle(strips_upgrade=True)},
    "websocket-silent": {Kind.WEBSOCKET: Obstacle(silent=True)},
    "websocket-cut": {Kind.WEBSOCKET: Obstacle(cut_after=2.0)},
    "sse-buffered": {Kind.WEBSOCKET: _REFUSED, Kind.SSE: Obstacle(buffered=True)},
    "sse-cut": {Kind.WEBSOCKET: _REFUSED, Kind.SSE: Obstacle(cut_after=5.0)},
    "all-silent": {Kind.WEBSOCKET: Obstacle(silent=True), Kind.SSE: Obstacle(silent=True)},
    "short-only": {
        Kind.WEBSOCKET: _REFUSED,
        Kind.SSE: Obstacle(buffered=True),
        Kind.LONG_POLL: Obstacle(cut_after=2.0),
    },
}


def scaled(rules: Rules, factor: float) -> Rules:
    """Return rules whose times are multiplied."""
    return {
        kind: Obstacle(
            status=each.status,
            silent=each.silent,
            strips_upgrade=each.strips_upgrade,
            buffered=each.buffered,
            cut_after=None if each.cut_after is None else each.cut_after * factor,
        )
        for kind, each in rules.items()
    }


class Obstacles:
    """Listens on `port` of 127.0.0.1 and passes requests on to `target` (host and port), where `rules` let it.

    `seen` counts the requests of each kind.
    """

    def __init__(self, target: tuple[str, int], rules: Rules | None = None) -> None:
        self.target = target
        self.rules: Rules = rules or {}
        self.port = 0
        self.seen: Counter[Kind] = Counter()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def unblock(self) -> None:
        """Open the way for every request that follows."""
        self.rules = {}

    async def start(self, port: int = 0) -> None:
        """Begin to listen; `port` is known from then on."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, limit=HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Cut every connection that is open."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cut every connection and stop listening."""
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def __aenter__(self) -> Obstacles:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                await self._serve(reader, writer)
            except asyncio.CancelledError:  # by `close`; the connection's task ends well, or asyncio would log it
                writer.transport.abort()
            finally:
                self._tasks.discard(task)
                writer.close()
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        kind = kind_of(head)
        self.seen[kind] += 1
        obstacle = self.rules.get(kind, Obstacle())
        if obstacle.status is not None:
            page = b"<html>the proxy does not like this</html>"
            head = b"HTTP/1.1 %d No\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % (obstacle.status, len(page)) + page)
            await writer.drain()
        elif obstacle.silent:
            while await reader.read(READ_BYTES):
                pass
        else:
            try:
                async with asyncio.timeout(obstacle.cut_after):
                    await self._pass_on(head, body, obstacle, kind, reader, writer)
            except TimeoutError:
                pass

    async def _pass_on(
        self,
        head: bytes,
        body: bytes,
        obstacle: Obstacle,
        kind: Kind,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        upstream, downstream = await asyncio.open_connection(*self.target)
        try:
            if kind is not Kind.WEBSOCKET or obstacle.strips_upgrade:
                head = re.sub(rb"(?i)\r\n(?:connection|upgrade):[^\r]*", b"", head)
                head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            downstream.write(head + body)
            up = asyncio.create_task(_copy(reader, downstream))
            down = asyncio.create_task(_copy(upstream, writer, whole=obstacle.buffered))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in (up, down):
                    way.cancel()
                await asyncio.wait({up, down})
        finally:
            downstream.close()
            with contextlib.suppress(OSError):
                await downstream.wait_closed()


def kind_of(head: bytes) -> Kind:
    """Say what a request asks for."""
    first = head.partition(b"\r\n")[0]
    if re.search(rb"(?i)\r\nupgrade: *websocket", head):
        return Kind.WEBSOCKET
    if first.startswith(b"POST"):
        return Kind.PUBLISH
    if re.search(rb"(?i)\r\naccept:[^\r]*text/event-stream", head):
        return Kind.SSE
    return Kind.LONG_POLL if re.search(rb"[?&]wait=(?!0(?:[& ]|$))", first) else Kind.SHORT_POLL


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, whole: bool = False) -> None:
    """Pass bytes on until the end; `whole`: only then."""
    with contextlib.suppress(OSError):
        held = b""
        while data := await reader.read(READ_BYTES):
            if whole:
                held += data
            else:
                writer.write(data)
                await writer.drain()
        writer.write(held)
        await writer.drain()


async def _main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.obstacles", description=__doc__)
    parser.add_argument("--target", type=int, required=True, help="the server's port on this machine")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--row", choices=MATRIX, default="none")
    parser.add_argument("--scale", type=float, default=1.0, help="times are multiplied by it")
    options = parser.parse_args(arguments)
    proxy = Obstacles(("127.0.0.1", options.target), scaled(MATRIX[options.row], options.scale))
    await proxy.start(options.port)
    sys.stdout.write(f"{proxy.port}\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        proxy.rules = scaled(MATRIX[line.strip()], options.scale)
    await proxy.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
