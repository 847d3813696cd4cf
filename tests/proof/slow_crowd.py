"""The slow peers of `slow_peers.py`, in a process of their own: what they cost delays no measurement.

`python -m tests.proof.slow_crowd PORT PEERS [KIND]`. Says how many are open once most are; at the end of its
input it cuts them, and says how many were open then, how many were opened in all, and how many the server has cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

DEADLINE_SECONDS = 60.0
DRIBBLE_SECONDS = 2.0  # between two bytes of one peer
REST_SECONDS = 0.5  # before a peer that was cut comes back
AT_ONCE = 50  # peers that connect at the same time
NICENESS = 10  # the server and the measuring process have priority
HOST = b"Host: 127.0.0.1\r\n"
GET_LARGE = b"GET /v1/channels/large?last=40 HTTP/1.1\r\n" + HOST + b"\r\n"


async def _dribble(sock: socket.socket, first: bytes, piece: bytes) -> None:
    """Send the beginning, then a piece now and then, until the server closes."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, first)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRIBBLE_SECONDS):  # `wait_for` may swallow the end of the task (Python 3.11)
                if not await loop.sock_recv(sock, 4096):
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
            async with asyncio.timeout(DRIBBLE_SECONDS):
                await loop.sock_sendall(sock, GET_LARGE)
        await asyncio.sleep(DRIBBLE_SECONDS)


KINDS: Mapping[str, Callable[[socket.socket], Awaitable[None]]] = {"head": _head, "body": _body, "unread": _unread}


@dataclass
class Crowd:
    """The slow peers of one server."""

    port: int
    open: int = 0
    opened: int = 0
    cut: int = 0
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
            self.opened += 1
            self.open += 1
            try:
                await kind(sock)
            except OSError:
                pass
            finally:
                self.open -= 1
            self.cut += 1


async def run(port: int, peers: int, kind: str) -> None:
    """Open the slow peers, and cut them at the end of the input."""
    slow = Crowd(port)
    kinds = itertools.cycle(KINDS.values() if kind == "all" else (KINDS[kind],))
    tasks = [asyncio.create_task(slow.one(each)) for each, _ in zip(kinds, range(peers), strict=False)]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while slow.open < peers * 0.9:  # noqa: ASYNC110 - some are always about to come back
            await asyncio.sleep(0.05)
    sys.stdout.write(f"{slow.open}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    left = slow.open
    for task in tasks:
        task.cancel()
    for end in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(end, asyncio.CancelledError):
            raise RuntimeError(f"a slow peer failed: {end!r}")
    sys.stdout.write(f"{left} {slow.opened} {slow.cut}\n")


if __name__ == "__main__":
    os.nice(NICENESS)
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:4]) or "all"))
