"""The part that both native carriers share, and the connection below them as they see it.

A carrier stands between a connection, which moves bytes, and a session, which says messages: to the connection it is a
`Listener`, to the session a `protocol.base.Carrier`. Invariant: what the session sends in one call goes out in one
write, after that call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ...core.subscription import Descriptor, Format
from ...errors import Refusal
from ...policy.access import Access
from ...policy.identity import Identity
from ...protocol.base import Carrier, Encoder, Session, Verified

__all__ = ["Link", "Listener", "NativeCarrier"]


class Link(Protocol):
    """A connection: bytes out, and the time."""

    @property
    def identity(self) -> Identity:
        """The subject and the address of the peer."""
        ...

    def verify(self, token: str, done: Verified, /) -> None:
        """Call `done` with the identity that a token stands for."""
        ...

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity. Raises `Refusal` where that user has too many connections."""
        ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send bytes. Never raises; where the socket is full, it calls the listener's `blocked`."""
        ...

    @property
    def descriptor(self) -> Descriptor | None:
        """What the hub's `send` takes, or None. It may be sent to as long as the listener is not `blocked`."""
        ...

    @property
    def full(self) -> bool:
        """Whether the socket takes no more bytes at the moment."""
        ...

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        ...

    def wake_at(self, when: float) -> None:
        """Call `woken` at this time, once; a later call replaces an earlier one."""
        ...

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history. Return why it may read none now, or None."""
        ...

    def hold(self, size: int, /) -> None:
        """Count `size` bytes as those of this connection's unfinished message; 0 once it is whole."""
        ...

    def closing(self, code: int, /, *, ours: bool = True) -> None:
        """The carrier closes, with this code of a Close: `ours`, or the peer's."""
        ...

    def end(self) -> None:
        """Send what is written, then close, reading no more."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Listener(Session, Protocol):
    """What a connection calls on the carrier that it is given to."""

    def received(self, data: bytes, /) -> None:
        """Bytes have come from the peer."""
        ...

    def refuse(self, refusal: Refusal, /) -> None:
        """The server can't serve this connection any longer: close with the error's code."""
        ...

    @property
    def slice_bytes(self) -> int:
        """How many bytes to hand over in one call: small enough that a flood of them takes a few milliseconds."""
        ...


S = TypeVar("S", bound=Session)


class NativeCarrier(ABC, Generic[S]):
    """A carrier on a connection. `head` goes out first, in one write with what the session sends as it is made.

    `make` makes the session. Its `Refusal` passes, and nothing has been written then.
    """

    __slots__ = ("_link", "_out", "_session")

    def __init__(self, link: Link, head: bytes, make: Callable[[Carrier], S]) -> None:
        self._link = link
        self._out: list[bytes] | None = []  # what is sent in this call; None between the calls
        self._session = make(self)
        self._write_out(head)

    # -- for the two kinds

    @abstractmethod
    def format(self, encoder: Encoder, /) -> Format:
        """Return the hub's format for an encoder."""

    @abstractmethod
    def send(self, payload: bytes, /) -> None:
        """Send one text message."""

    @abstractmethod
    def stop(self) -> None:
        """Read nothing more."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """End the connection after what was sent."""

    @abstractmethod
    def _framed(self, out: list[bytes]) -> bytes:
        """Return the bytes for what was sent in one call."""

    @abstractmethod
    def _end_if_closed(self) -> None:
        """End the connection if nothing more is to be said on it."""

    # -- the carrier of a session

    @property
    def identity(self) -> Identity:
        """The subject and the address of the peer."""
        return self._link.identity

    def verify(self, token: str, done: Verified, /) -> None:
        """Call `done` with the identity that a token stands for."""
        self._link.verify(token, done)

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity."""
        self._link.identify(identity)

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send a block of the format at once."""
        return self._link.write

    @property
    def descriptor(self) -> Descriptor | None:
        """What the hub sends to."""
        return self._link.descriptor

    @property
    def full(self) -> bool:
        """Whether the socket takes no more bytes."""
        return self._link.full

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        return self._link.now()

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history."""
        return self._link.may_read()

    def wake_at(self, when: float) -> None:
        """Call the session's `woken` at this time."""
        self._link.wake_at(when)

    # -- the listener of a connection

    def blocked(self) -> None:
        """The socket is full."""
        self._session.blocked()

    def drained(self) -> None:
        """The socket takes bytes again."""
        self._session.drained()

    def recheck(self, access: Access, identity: Identity, /) -> None:
        """Other access rules hold."""
        self._out = []
        self._session.recheck(access, identity)
        self._write_out()

    def expiring(self, seconds: float, /) -> None:
        """The peer's token ends soon."""
        self._out = []
        self._session.expiring(seconds)
        self._write_out()

    def drain(self) -> None:
        """The server is stopping."""
        self._out = []
        self._session.drain()
        self._write_out()

    def refuse(self, refusal: Refusal, /) -> None:
        """The server can't serve this connection any longer."""
        self.stop()
        self._out = []
        self._session.refuse(refusal)
        self._write_out()

    def closed(self) -> None:
        """The connection is gone."""
        self._session.closed()

    # -- helpers

    def _write_out(self, head: bytes = b"") -> None:
        out, self._out = self._out, None
        data = self._framed(out or [])
        if head:
            data = head + data
        if data:
            self._link.write(data)
        self._end_if_closed()
