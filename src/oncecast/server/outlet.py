"""The writing side of a connection, on an event loop's transport or a channel of TLS (`tls/channel.py`).

Where the socket is not TLS, bytes go straight to its descriptor: the transport's way there costs a microsecond more for
each write. What the socket does not take goes through the transport, which reports at its first unsent byte that it is
full. So the kernel's buffer is the only queue.

Invariant: bytes leave in the order of the writes. After `release` the descriptor is never written to again, as it may
be another connection's by then.

This is a base class and not an object of its own because an idle subscriber is to be small.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import termios

from ..core.subscription import Descriptor
from .tls.channel import TlsChannel

__all__ = ["Outlet"]

STUCK_HEARTBEATS = 2  # whole ones in which a full socket has taken nothing, until its peer is given up
SHARED_BYTES = 64 << 10  # unsent bytes that are not copied, unless they are the smaller part of what holds them
RELEASED = -1  # in the place of a descriptor that is written to no more


class _Taking:
    """How a peer takes what is written: `untaken` bytes at the last look, and the looks since it has taken any."""

    __slots__ = ("idle_looks", "untaken")

    def __init__(self, untaken: int) -> None:
        self.untaken = untaken
        self.idle_looks = 0


class Outlet(asyncio.BufferedProtocol):
    """`descriptor` is the socket's, where it is written to without TLS."""

    __slots__ = ("_descriptor", "_full", "_paused", "_taking", "_transport")

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._transport: asyncio.Transport | None = None
        self._full = False
        self._paused = False
        self._taking: _Taking | None = None  # of what the socket has not taken at once

    def attach(self, transport: asyncio.Transport) -> None:
        """Begin to write to a transport."""
        self._transport = transport
        # One unsent byte is enough to be full: the kernel's buffer is the queue, and there is no other.
        transport.set_write_buffer_limits(high=0)

    @property
    def descriptor(self) -> Descriptor | None:
        """What the hub sends to: the socket's descriptor, or the channel of TLS."""
        if self._descriptor is None and isinstance(self._transport, TlsChannel):
            return self._transport
        return None if self._descriptor == RELEASED else self._descriptor

    def write(self, data: bytes) -> None:
        """Send bytes. Never raises; what is written before the connection is open or after `release` is dropped."""
        if self._descriptor is not None and not self._full:  # else the transport holds bytes that come before these
            try:
                sent = os.write(self._descriptor, data)
            except OSError:  # full, or broken: the transport finds out which
                sent = 0
            if sent == len(data):
                return
            rest = len(data) - sent
            if rest >= SHARED_BYTES and rest >= sent and self._transport is not None and self._descriptor != RELEASED:
                self._transport.write(memoryview(data)[sent:])  # other connections may have the same bytes to send
                return
            data = data[sent:]
        if self._transport is not None and self._descriptor != RELEASED:
            self._transport.write(data)

    def release(self) -> None:
        """Forget the descriptor, which the transport closes: what is written from here on is dropped."""
        self._descriptor = RELEASED

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def finish(self, *, at_once: bool) -> None:
        """Send what is written, then say that nothing follows: by half closing, or by closing where `at_once`."""
        transport = self._transport
        assert transport is not None
        if at_once:
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # the peer has reset the connection, and the loop has not noticed yet
            transport.abort()

    def count_untaken(self) -> int:
        """Return how many bytes the peer has not acknowledged: the transport's unsent ones, and the kernel's."""
        assert self._transport is not None
        untaken = self._transport.get_write_buffer_size()
        shared = self._transport.get_extra_info("socket")
        if shared is not None:
            with contextlib.suppress(OSError):  # not every system counts them
                untaken += int.from_bytes(fcntl.ioctl(shared.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return untaken

    def watch_taking(self) -> None:
        """Begin to count what the peer takes of what is written by now."""
        self._taking = _Taking(self.count_untaken())

    def has_taken(self, least: int) -> bool:
        """Return whether the peer has taken `least` bytes since the last look, and has some left to take."""
        untaken = self.count_untaken()
        if self._taking is None or not 0 < untaken <= self._taking.untaken - least:
            return False
        self._taking.untaken = untaken
        return True

    def is_stuck(self) -> bool:
        """Look whether the peer has taken bytes since the last look; return whether it has not for too long.

        Call it at each heartbeat while the socket is full. The kernel's timeout (`set_send_timeout`) is not enough:
        what a peer sends puts Linux's timer off, so one that sends without a pause and never reads would stay.
        """
        untaken, taking = self.count_untaken(), self._taking
        if taking is None:
            taking = self._taking = _Taking(0)
        taking.idle_looks = taking.idle_looks + 1 if untaken >= taking.untaken else 1
        taking.untaken = untaken
        return taking.idle_looks > STUCK_HEARTBEATS

    def read_if(self, wanted: bool) -> None:
        """Let the transport read, or let it stop."""
        if wanted is self._paused and self._transport is not None:
            self._paused = not wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
