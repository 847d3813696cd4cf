"""Holds a server with slow connections, and measures how late its other listeners get their messages.

`python -m tests.proof.slow_peers --peers 2000`. A third each are heads that dribble in, bodies that never end and
answers that are never read. A connection that the server cuts is opened anew, so that their number stays. Meanwhile
one publisher sends to honest listeners; the time from a publish to the listener's end of the socket is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from .deployment import Deployment
from .http_ask import ask_http

__all__ = ["Report", "run"]

LISTENERS = 100
P99_SECONDS = 0.1
DEADLINE_SECONDS = 60.0
DRIBBLE_SECONDS = 2.0  # between two bytes of one peer
REST_SECONDS = 0.5  # before a peer that was cut comes back
PUBLISH_SECONDS = 0.05
AT_ONCE = 50  # peers that connect at the same time
LARGE_BYTES, LARGE = 50_000, 40  # what an unread answer is made of
HOST = b"Host: 127.0.0.1\r\n"
GET_LARGE = b"GET /v1/channels/large?last=40 HTTP/1.1\r\n" + HOST + b"\r\n"


class WrongError(AssertionError):
    """A listener missed a message, or got one too late."""


@dataclass
class Report:
    """What was met. Times are in seconds."""

    peers: int = 0  # slow connections that were open when the measurement began
    left: int = 0  # and when it ended
    opened: int = 0
    cut: int = 0  # by the server
    published: int = 0
    delays: list[float] = field(default_factory=list)

    def late(self, share: float) -> float:
        """Return the delay that this share of the deliveries does not exceed."""
        delays = sorted(self.delays)
        return delays[min(len(delays) - 1, int(len(delays) * share))]

    def __str__(self) -> str:
        return (
            f"{self.peers} slow peers ({self.left} at the end, {self.opened} opened, {self.cut} cut), "
            f"{self.published} published, {len(self.delays)} delivered; delay p50 {self.late(0.5) * 1e3:.1f} ms, "
            f"p99 {self.late(0.99) * 1e3:.1f} ms, most {self.late(1) * 1e3:.1f} ms"
        )


async def _dribble(sock: socket.socket, first: bytes, piece: bytes) -> None:
    """Send the beginning, then a piece now and then, until the server closes."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, first)
    while True:
        with contextlib.suppress(TimeoutError):
            if not await asyncio.wait_for(loop.sock_recv(sock, 4096), DRIBBLE_SECONDS):
                return
        await loop.sock_sendall(sock, piece)


async def _head(sock: socket.socket) -> None:
    await _dribble(sock, b"GET /v1/channels/a HTTP/1.1\r\n" + HOST + b"X: ", b"x")


async def _body(sock: socket.socket) -> None:
    await _dribble(sock, b"POST /v1/channels/a HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n", b"x")


async def _unread(sock: socket.socket) -> None:
    """Ask for much, read nothing, and ask for more until the server closes."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(loop.sock_sendall(sock, GET_LARGE), DRIBBLE_SECONDS)
        await asyncio.sleep(DRIBBLE_SECONDS)


KINDS: tuple[Callable[[socket.socket], Awaitable[None]], ...] = (_head, _body, _unread)


@dataclass
class Crowd:
    """The slow peers of one server."""

    port: int
    report: Report
    open: int = 0
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def one(self, kind: Callable[[socket.socket], Awaitable[None]]) -> None:
        """Be one slow peer for ever."""
        while True:
            with contextlib.suppress(OSError):
                await self._connection(kind)
            await asyncio.sleep(REST_SECONDS)

    async def _connection(self, kind: Callable[[socket.socket], Awaitable[None]]) -> None:
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            async with self.gate:
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            self.report.opened += 1
            self.open += 1
            try:
                await kind(sock)
            except OSError:
                pass
            finally:
                self.open -= 1
            self.report.cut += 1


@contextlib.asynccontextmanager
async def crowd(port: int, peers: int, report: Report) -> AsyncIterator[Crowd]:
    """Open the slow peers, and cut them at the end."""
    slow = Crowd(port, report)
    tasks = [asyncio.create_task(slow.one(kind)) for kind, _ in zip(itertools.cycle(KINDS), range(peers), strict=False)]
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while slow.open < peers * 0.9:  # noqa: ASYNC110 - some are always about to come back
                await asyncio.sleep(0.05)
        yield slow
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ended:
        if not isinstance(end, asyncio.CancelledError):
            raise WrongError(f"a slow peer failed: {end!r}")


async def _listen(port: int, ready: asyncio.Semaphore, count: int, report: Report) -> None:
    """Get each message once and in order, and note how late it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /v1/channels/honest HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n")
        if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 "):
            raise WrongError("a listener is refused")
        ready.release()
        for number in range(count):
            while not (line := await reader.readline()).startswith(b"data:"):
                if not line:
                    raise WrongError("a listener was cut off")
            now = time.monotonic_ns()
            got, sent = line.removeprefix(b"data:").strip(b' "\n').split(b" ")
            if int(got) != number:
                raise WrongError(f"a listener got {int(got)} and not {number}")
            report.delays.append((now - int(sent)) / 1e9)
    finally:
        writer.transport.abort()


async def _publish(port: int, ready: asyncio.Semaphore, listeners: int, count: int, report: Report) -> None:
    """Publish once everybody listens, at a steady rate."""
    for _ in range(listeners):
        await ready.acquire()
    for number in range(count):
        body = b'"%d %d"' % (number, time.monotonic_ns())
        answer = await ask_http(port, "POST", "/v1/channels/honest", body, seconds=DEADLINE_SECONDS)
        if answer.status != 201:
            raise WrongError(f"a publish is answered with {answer.status}")
        report.published += 1
        await asyncio.sleep(PUBLISH_SECONDS)


async def run(peers: int, seconds: float, listeners: int = LISTENERS) -> Report:
    """Measure for some seconds, on a server of its own. Raises `WrongError`."""
    report = Report()
    count = max(1, int(seconds / PUBLISH_SECONDS))
    with tempfile.TemporaryDirectory() as folder:
        async with Deployment(Path(folder), workers=1, settings={"dev": "true"}) as server:
            for _ in range(LARGE):
                answer = await ask_http(server.port, "POST", "/v1/channels/large", b'"%b"' % (b"x" * LARGE_BYTES))
                if answer.status != 201:
                    raise WrongError(f"a publish is answered with {answer.status}")
            async with crowd(server.port, peers, report) as slow:
                report.peers = slow.open
                ready = asyncio.Semaphore(0)
                async with asyncio.timeout(DEADLINE_SECONDS + 10 * seconds), asyncio.TaskGroup() as group:
                    for _ in range(listeners):
                        group.create_task(_listen(server.port, ready, count, report))
                    group.create_task(_publish(server.port, ready, listeners, count, report))
                report.left = slow.open
            if "Traceback" in server.log:
                raise WrongError(server.log[-4000:])
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run the command. The status is 1 where p99 is not below `P99_SECONDS`."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.slow_peers", description=__doc__)
    parser.add_argument("--peers", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args(arguments)
    report = asyncio.run(run(options.peers, options.seconds))
    sys.stdout.write(f"{report}\n")
    return 0 if report.late(0.99) < P99_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
