"""One TLS connection after its handshake: a transport, as the event loop's are, that encrypts.

The loops' own TLS keeps buffers of 256 KiB for each connection, and queues what a slow reader does not take. Here
OpenSSL reads and writes memory, in slices, so that it keeps little of it, and the socket's bytes pass through buffers
that all connections share. A slice is read in bounded time: OpenSSL answers records that bring no data (RFC 8446
§4.6.3) by itself, and would do so for as long as a peer sends them.

Invariants: bytes leave in the order of the writes. Of what a socket does not take, one sealed piece is kept with what
OpenSSL says by itself, at most 64 KiB in all, and otherwise the plain bytes, which are those of all the block's
readers. What OpenSSL has read is handed over at once, so a connection that does not read holds no plain bytes. The
peer's end comes behind all that it has sent: a reader that has paused hears of it when it resumes. After the end
nothing is written, and the protocol's `connection_lost` is called once.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
import ssl
from collections import deque
from typing import cast

from .reader import TlsReader
from .shared import Shared

__all__ = ["SLICE_BYTES", "TlsChannel"]

SLICE_BYTES = 4 << 10  # sealed or opened in one call: OpenSSL keeps a buffer of the longest slice
PIECE_SLICES = 4  # in one write to the socket
# Unsent, with which the socket is still read. OpenSSL answers a KeyUpdate with a record as long (RFC 8446 §4.6.3), so
# that a peer which reads nothing could make it seal without end.
SEALED_UNREAD_BYTES = 48 << 10


class ChannelEnd(enum.Enum):
    """How far this side ends the connection."""

    EOF = "nothing more is to be sent"
    CLOSE = "nothing more is to be read, too"


EOF, CLOSE = ChannelEnd


class TlsChannel(asyncio.Transport):
    """`tls` has shaken hands over `incoming` and `outgoing`, and `sock` does not block. `start` begins."""

    __slots__ = (
        "_descriptor",
        "_end",
        "_ended",
        "_fault",
        "_full",
        "_goodbye_said",
        "_incoming",
        "_lost",
        "_outgoing",
        "_polled",
        "_reader",
        "_sealed",
        "_shared",
        "_sock",
        "_tls",
        "_unsent",
        "_waiting",
        "_wanted",
    )

    def __init__(
        self,
        shared: Shared,
        sock: socket.socket,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        reader: TlsReader,
    ) -> None:
        super().__init__()
        self._shared = shared
        self._sock = sock
        self._descriptor = sock.fileno()
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._reader = reader
        self._sealed = b""  # the rest of a piece that the socket has not taken whole
        self._unsent: deque[memoryview] | None = None  # plain bytes behind that piece
        self._full = False  # and the reader knows it
        self._wanted = True  # the reader reads
        self._waiting = False  # for its turn
        self._polled = False  # the loop looks whether there is something to read
        self._ended = False  # the peer sends nothing more
        self._fault: ssl.SSLError | None = None  # of the peer's: OpenSSL opens and seals nothing more
        self._end: ChannelEnd | None = None
        self._goodbye_said = False
        self._lost = False

    def start(self) -> None:
        """Begin, with what has come behind the handshake."""
        try:
            self._reader.connection_made(self)
        except Exception as error:  # a defect of the reader's, which must not leave the socket open
            self._lose(error)
            raise
        self._poll()
        self._receive(0)

    # -- what the reader calls

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return the socket for `socket`, the TLS of it for `ssl_object` and `sslcontext`; nothing else is known."""
        if name == "socket":
            return self._sock
        if name in ("ssl_object", "sslcontext"):
            return self._tls if name == "ssl_object" else self._tls.context
        return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the reader."""
        return cast(asyncio.BaseProtocol, self._reader)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another reader, which must be a `TlsReader`."""
        self._reader = cast(TlsReader, protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: one unsent byte is always enough to be full."""

    def get_write_buffer_size(self) -> int:
        """Return the number of unsent bytes; those that are not sealed yet count as they are."""
        return len(self._sealed) + sum(map(len, self._unsent or ()))

    def is_closing(self) -> bool:
        """Whether the connection is closed, or closes once everything is sent."""
        return self._lost or self._end is CLOSE

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes. What is written after the end, or after a fault of the peer's, is dropped."""
        if self._lost or self._end is not None or self._fault is not None:
            return
        if not data:  # see `send`
            self._wait_for_room()
            return
        if self._sealed or len(data) > SLICE_BYTES:
            if self._unsent is None:
                self._unsent = deque()
            self._unsent.append(memoryview(data))
            if not self._sealed:
                self._send_on()
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._lose(error)
            return
        self._push(self._outgoing.read())

    def send(self, block: bytes) -> int:
        """Send a block as `Send` of the hub does: without a call of the reader. Raises `OSError`."""
        if self._sealed or len(block) > SLICE_BYTES or self._lost or self._end is not None:
            return 0
        self._tls.write(block)
        sealed = self._outgoing.read()
        try:
            sent = os.write(self._descriptor, sealed)
        except OSError:  # full, or broken: the next write finds out which
            sent = 0
        if sent == len(sealed):
            return len(block)
        self._sealed = sealed[sent:]
        return len(block) + 1

    def can_write_eof(self) -> bool:
        """Return True: each direction ends for itself (RFC 8446 §6.1)."""
        return True

    def write_eof(self) -> None:
        """Send what is written, and then that nothing follows."""
        self._begin_end(EOF)

    def close(self) -> None:
        """Read nothing more, send what is written, and then close."""
        self._begin_end(CLOSE)

    def abort(self) -> None:
        """Close at once."""
        self._lose(None)

    def pause_reading(self) -> None:
        """Read nothing more for now."""
        self._wanted = False
        self._poll()

    def resume_reading(self) -> None:
        """Read again."""
        self._wanted = True
        self._poll()
        if self._ended:  # later, as a loop would: the caller may be about to handle what it holds
            self._shared.loop.call_soon(self._hand_over)

    # -- what the read budget calls

    def go_on(self) -> None:
        """Read, as this connection's turn has come."""
        self._waiting = False
        self._poll()
        if self._polled:
            self._read()

    # -- helpers: reading

    def _poll(self) -> None:
        """Let the loop look at the socket, or let it stop, as is wanted."""
        wanted = (
            self._wanted
            and not (self._waiting or self._ended or self._lost or self._end is CLOSE)
            and len(self._sealed) <= SEALED_UNREAD_BYTES
        )
        if wanted is not self._polled:
            self._polled = wanted
            if wanted:
                self._shared.loop.add_reader(self._descriptor, self._readable)
            else:
                self._shared.loop.remove_reader(self._descriptor)

    def _readable(self) -> None:
        if self._shared.budget.spent:
            self._waiting = True
            self._poll()
            self._shared.budget.wait(self)
        else:
            self._read()

    def _read(self) -> None:
        try:
            size = self._sock.recv_into(self._shared.sealed)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if size == 0:  # also without a close_notify: RFC 9112 §9.8. What it has cut off shows that by its length.
            self._ended = True
            self._poll()
            self._hand_over()
        elif self._fault is None:
            self._receive(size)

    def _receive(self, size: int) -> None:
        """Open what has come, and hand it over. Without a size, look what OpenSSL has already."""
        shared = self._shared
        began = shared.monotonic()
        opened = 0
        for at in range(0, size or 1, SLICE_BYTES):
            self._incoming.write(shared.sealed[at : min(at + SLICE_BYTES, size)])
            opened = self._open(opened)
            if self._fault is not None:
                break
        shared.spend(began)
        if self._outgoing.pending:  # answers of OpenSSL, or the alert of a fault (RFC 8446 §6.2)
            self._push(self._outgoing.read())
        self._poll()
        self._hand_over(opened)

    def _open(self, opened: int) -> int:
        """Open whole records into the shared buffer behind `opened` bytes. Returns how many bytes are there now."""
        plain = self._shared.plain
        try:
            while more := self._tls.read(len(plain) - opened, plain[opened:]):
                opened += cast(int, more)  # typeshed knows the call without a buffer alone
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._fault, self._unsent = error, None
            # Once the answer is sent, what comes is of no interest; to close would make the kernel reset it.
            self._ended = self._end is None
        return opened

    def _hand_over(self, opened: int = 0) -> None:
        """Give the reader what is opened, and then the peer's end, unless it has paused: see `resume_reading`."""
        try:
            if opened and not self._lost:
                self._reader.take(bytes(self._shared.plain[:opened]))
            if self._ended and self._wanted and not self.is_closing():
                if self._fault is not None:
                    self._lose(self._fault)
                elif not self._reader.eof_received():
                    self.close()
        except Exception as error:  # noqa: BLE001 - a defect of the reader's, which must not leave the socket open
            self._shared.loop.call_exception_handler(
                {"message": "a connection failed", "exception": error, "transport": self}
            )
            self._lose(error)

    # -- helpers: writing

    def _push(self, sealed: bytes) -> None:
        """Send a piece, and keep what the socket does not take."""
        if self._sealed:
            self._sealed += sealed
            return
        try:
            sent = os.write(self._descriptor, sealed)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent == len(sealed):
            return
        self._sealed = sealed[sent:]
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Send the rest once the socket takes it, and tell the reader that it is full."""
        if not self._sealed:
            return
        self._shared.loop.add_writer(self._descriptor, self._writable)
        if not self._full and self._end is None:
            self._full = True
            self._reader.pause_writing()

    def _send_on(self) -> None:
        """Seal plain bytes and send them, until none are left or the socket is full."""
        while self._unsent and not (self._sealed or self._lost):
            data = self._unsent.popleft()
            piece = data[: PIECE_SLICES * SLICE_BYTES]
            if len(piece) < len(data):
                self._unsent.appendleft(data[len(piece) :])
            try:
                for at in range(0, len(piece), SLICE_BYTES):
                    self._tls.write(piece[at : at + SLICE_BYTES])
            except ssl.SSLError as error:
                self._lose(error)
                return
            self._push(self._outgoing.read())

    def _writable(self) -> None:
        sealed, self._sealed = self._sealed, b""
        self._shared.loop.remove_writer(self._descriptor)
        self._push(sealed)
        self._poll()
        self._send_on()
        if self._sealed or self._lost:
            return
        self._unsent = None
        if self._end is not None:
            self._finish()
        elif self._full:
            self._full = False
            self._reader.resume_writing()

    # -- helpers: the end

    def _begin_end(self, end: ChannelEnd) -> None:
        if self._lost or self._end in (end, CLOSE):
            return
        self._end = end
        self._poll()
        if not self._sealed:
            self._finish()

    def _finish(self) -> None:
        """Go on with the end, as everything is sent."""
        if not self._goodbye_said:
            self._goodbye_said = True
            with contextlib.suppress(ssl.SSLError):  # the peer's own goodbye is missing yet
                self._tls.unwrap()
            self._push(self._outgoing.read())
            if self._sealed or self._lost:
                return
        if self._end is CLOSE:
            self._lose(None)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # the peer has reset the connection
            self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        """Close the socket in the next turn of the loop, so that no caller is called back while it runs."""
        if self._lost:
            return
        self._lost = True
        self._poll()
        if self._sealed:
            self._shared.loop.remove_writer(self._descriptor)
        self._sealed, self._unsent = b"", None
        self._shared.loop.call_soon(self._report, error)

    def _report(self, error: Exception | None) -> None:
        try:
            self._reader.connection_lost(error)
        finally:
            self._sock.close()
