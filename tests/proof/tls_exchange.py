"""One connection over TLS that sends what it is told, ends its half and reads to the end: asyncio's own has no halves.

It ends its half with close_notify (RFC 8446 §6.1), as a client does that has no more to ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable

__all__ = ["exchange", "trusting"]

READ_BYTES = 1 << 16


def trusting(cert: str | None = None) -> ssl.SSLContext:
    """Return a client's context that trusts a certificate, or any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if cert is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cert)
    return context


async def exchange(port: int, context: ssl.SSLContext, pieces: Iterable[bytes], damaged: int | None = None) -> bytes:
    """Send each piece in records of its own, and return all that comes back.

    The piece of the number `damaged` has one bit wrong on its way. Raises `OSError` where the server breaks off.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                sealed = await reader.read(READ_BYTES)
                if not sealed:
                    raise ConnectionResetError("the server has closed during the handshake") from None
                incoming.write(sealed)
        for number, piece in enumerate(pieces):
            if writer.is_closing():
                raise ConnectionResetError("the server has closed")
            tls.write(piece)
            sealed = outgoing.read()
            if number == damaged:
                sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
            writer.write(sealed)
            await asyncio.sleep(0)
        with contextlib.suppress(ssl.SSLWantReadError):  # the server has more to say
            tls.unwrap()
        writer.write(outgoing.read())
        with contextlib.suppress(OSError):  # it has reset the connection: the reader says so
            writer.write_eof()
        return b"".join([data async for data in _opened(tls, reader, incoming)])
    finally:
        writer.transport.abort()


async def _opened(tls: ssl.SSLObject, reader: asyncio.StreamReader, incoming: ssl.MemoryBIO) -> AsyncIterator[bytes]:
    while True:
        try:
            data = tls.read(READ_BYTES)
        except ssl.SSLWantReadError:
            sealed = await reader.read(READ_BYTES)
            if not sealed:
                return
            incoming.write(sealed)
        except ssl.SSLZeroReturnError:
            return
        else:
            if not data:
                return
            yield data
