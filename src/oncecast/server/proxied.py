"""Reads the header of the PROXY protocol from a new connection, before anything else is read, TLS too.

Invariant: no byte behind the header is taken from the socket. It is looked at where the kernel holds it (`MSG_PEEK`,
recv(2)), and the socket counts as readable only once more has come (`SO_RCVLOWAT`, socket(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from ..errors import Refusal
from ..wire.proxy_protocol import MOST_BYTES, ProxyHeader, parse_proxy_header

__all__ = ["ProxyHeaderError", "read_proxy_header"]


class ProxyHeaderError(ConnectionError):
    """The connection has no header that can be taken: it is closed without an answer."""


async def read_proxy_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> ProxyHeader:
    """Take the header. Raises `ProxyHeaderError`; the caller has the deadline."""
    size = 0
    try:
        while True:
            await _readable(loop, sock)
            data = _peek(sock)
            if data is None:
                continue
            if len(data) <= size:  # nothing more has come: the peer has closed
                raise ProxyHeaderError("the connection ended before its header of the PROXY protocol was whole")
            header = parse_proxy_header(data)
            if header is not None:
                sock.recv(header.size)
                return header
            size = len(data)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size + 1)
    except Refusal as refusal:
        raise ProxyHeaderError(refusal.message) from None
    finally:
        with contextlib.suppress(OSError):  # it has been closed meanwhile
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _peek(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(MOST_BYTES, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return None


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
