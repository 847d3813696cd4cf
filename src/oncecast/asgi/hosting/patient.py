"""A session of a WebSocket that waits while the application decides about a token: what comes behind it counts after.

Invariant: what the peer says reaches the session in its order. While it waits the socket is not read, so what is kept
is at most what one read has brought.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from ...protocol.base import Duplex

__all__ = ["Patient"]


class Patient:
    """A `Duplex` around another one."""

    __slots__ = (
        "_kept",
        "_session",
        "blocked",
        "closed",
        "count_frame",
        "drain",
        "drained",
        "expiring",
        "flush",
        "recheck",
        "refuse",
        "woken",
    )

    def __init__(self, session: Duplex) -> None:
        self._session = session
        self._kept: deque[Callable[[], None]] | None = None
        self.blocked = session.blocked
        self.closed = session.closed
        self.count_frame = session.count_frame
        self.drain = session.drain
        self.drained = session.drained
        self.expiring = session.expiring
        self.flush = session.flush
        self.recheck = session.recheck
        self.refuse = session.refuse
        self.woken = session.woken

    @property
    def waiting(self) -> bool:
        """Whether it waits."""
        return self._kept is not None

    def wait(self) -> None:
        """Keep what comes from now on."""
        self._kept = deque()

    def go_on(self) -> None:
        """Hand over what was kept, until the session waits again."""
        kept = self._kept or deque()
        self._kept = None
        while kept:
            if self.waiting:  # another token was among it
                self._kept = kept
                return
            kept.popleft()()
        self._session.flush()

    def received(self, payload: bytes, is_text: bool, /) -> None:
        """Hand a message over, or keep it."""
        if self._kept is None:
            self._session.received(payload, is_text)
        else:
            self._kept.append(partial(self._session.received, payload, is_text))

    def ended(self) -> None:
        """Say that nothing more comes, behind what is kept."""
        if self._kept is None:
            self._session.ended()
        else:
            self._kept.append(self._session.ended)
