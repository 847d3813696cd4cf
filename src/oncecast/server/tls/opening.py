"""From an accepted socket to a TLS channel: the handshake, and the answer to a client that speaks plain HTTP.

A connection that is refused before its handshake is told so after it: see `refuse`.

Invariant: a step of a handshake takes the time for reads (`read_budget.py`), as it is a millisecond of arithmetic or
more: a flood of handshakes holds up the loop no longer than a flood of requests. The caller has the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from .channel import TlsChannel
from .reader import TlsReader
from .shared import Shared

__all__ = ["REFUSED_ALERT", "PlainHttpError", "discard", "open_channel", "refuse"]

HELLO_BYTES = 4 << 10  # read at once during the handshake
RECORD_OF_HANDSHAKE = 0x16  # RFC 8446 §5.1: how a ClientHello begins
DISCARD_BYTES = 64 << 10  # of a connection that is not served, at a time
DISCARD_SECONDS = 2.0
FIRST_READS = 16  # for the first bytes of a request that is refused

# RFC 8446 §6.2: fatal, internal_error. It is the alert of a server that can't go on for a reason of its own.
REFUSED_ALERT = b"\x15\x03\x03\x00\x02\x02\x50"

PLAIN_HTTP_TEXT = b"This port speaks HTTPS: ask for https:// and not http://, or for wss:// and not ws://.\n"
PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(PLAIN_HTTP_TEXT), PLAIN_HTTP_TEXT)
)


class PlainHttpError(OSError):
    """The client has sent a request that is not encrypted, and was answered 400."""


async def open_channel(shared: Shared, sock: socket.socket, context: ssl.SSLContext, reader: TlsReader) -> None:
    """Shake hands on a socket that does not block, and give the channel to `reader`.

    Raises `OSError` where that fails: `ssl.SSLError` for what the client has sent, which an alert answers,
    `ConnectionError` where it has gone, and `PlainHttpError`. The socket is the caller's to close then.
    """
    TlsChannel(shared, sock, *await _shake_hands(shared, sock, context), reader).start()


async def refuse(
    shared: Shared, sock: socket.socket, context: ssl.SSLContext, answer: Callable[[bytes], bytes]
) -> None:
    """Shake hands, and answer the first bytes of the first request with `answer` of them; then end the connection.

    Raises `OSError` as `open_channel` does. The socket is the caller's to close.
    """
    tls, incoming, outgoing = await _shake_hands(shared, sock, context)
    request = await _first_bytes(shared.loop, sock, tls, incoming)
    tls.write(answer(request))
    with contextlib.suppress(ssl.SSLError):  # the client has not said close_notify, or has sent more than was read
        tls.unwrap()
    await _end(shared.loop, sock, outgoing.read())


async def _first_bytes(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO
) -> bytes:
    """Read the first bytes of a request, in `FIRST_READS` at most: a peer may send records without data for ever."""
    for _ in range(FIRST_READS):
        try:
            request = tls.read(DISCARD_BYTES)
        except ssl.SSLWantReadError:
            if not (sealed := await loop.sock_recv(sock, HELLO_BYTES)):
                break
            incoming.write(sealed)
            await asyncio.sleep(0)  # `sock_recv` returns at once where there is something to read
        else:
            if not request:  # close_notify
                break
            return request
    raise ConnectionResetError("the client has gone before its request")


def discard(sock: socket.socket) -> bytes:
    """Return what has come on a socket that does not block. Unread at the close, it would make that a reset.

    The kernel may drop an answer with a reset. Raises `OSError` where the peer has done so.
    """
    with contextlib.suppress(BlockingIOError):
        return sock.recv(DISCARD_BYTES)
    return b""


async def _shake_hands(
    shared: Shared, sock: socket.socket, context: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    loop = shared.loop
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the loops do for their own transports
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    hello = await loop.sock_recv(sock, HELLO_BYTES)
    if hello[:1].isalpha() and hello[:1].isascii():  # a method (RFC 9110 §9.1); no record of TLS begins so
        await _end(loop, sock, PLAIN_HTTP_ANSWER)
        raise PlainHttpError("plain HTTP on a port of TLS")
    done = False
    while not done:
        if not hello:
            raise ConnectionResetError("the client has gone during the handshake")
        incoming.write(hello)
        try:
            done = await _Step(shared, tls).taken
        finally:
            if outgoing.pending:  # an alert too
                await loop.sock_sendall(sock, outgoing.read())
        if not done:
            hello = await loop.sock_recv(sock, HELLO_BYTES)
    return tls, incoming, outgoing


class _Step:
    """One step of a handshake: now, or when its turn comes. `taken` says whether it was the last."""

    def __init__(self, shared: Shared, tls: ssl.SSLObject) -> None:
        self._tls = tls
        self.taken: asyncio.Future[bool] = shared.loop.create_future()
        if shared.budget.spent:
            shared.budget.wait(self)
            return
        began = shared.monotonic()
        self.go_on()
        shared.spend(began)

    def go_on(self) -> None:
        """Take the step."""
        if self.taken.cancelled():  # its time was over
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.taken.set_result(False)
        except OSError as error:
            self.taken.set_exception(error)
        else:
            self.taken.set_result(True)

    def abort(self) -> None:
        """Give up: the step has failed by a defect."""
        self.taken.cancel()


async def _end(loop: asyncio.AbstractEventLoop, sock: socket.socket, answer: bytes) -> None:
    """Answer, and discard what comes until the client closes: bytes that are unread at the close make it a reset."""
    await loop.sock_sendall(sock, answer)
    sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while await loop.sock_recv(sock, DISCARD_BYTES):  # noqa: ASYNC110 - no event is waited for
                await asyncio.sleep(0)  # it returns at once where there is something to read
