"""The contract between a TLS channel and the protocol that it serves.

Invariant: the end comes behind all that the peer has sent, and not while the protocol has paused reading.

To add a call, add it to each protocol that gets a channel: `connection.py`, and those of `asgi/hosting`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["TlsReader"]


class TlsReader(Protocol):
    """The protocol that a channel serves; all but `take` are as in `asyncio.Protocol`."""

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None:
        """Begin."""
        ...

    def take(self, data: bytes, /) -> None:
        """Handle decrypted bytes."""
        ...

    def eof_received(self) -> bool | None:
        """The peer sends nothing more. Return whether something is still to be sent to it.

        A protocol that has paused hears it once it resumes. One that resumes after it has heard it hears it again.
        """
        ...

    def pause_writing(self) -> None:
        """The socket is full."""
        ...

    def resume_writing(self) -> None:
        """The socket has taken everything."""
        ...

    def connection_lost(self, error: Exception | None, /) -> None:
        """Forget everything."""
        ...
