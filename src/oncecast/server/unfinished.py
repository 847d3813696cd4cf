"""The memory that unfinished requests and messages take, all connections together.

A request is held until it is whole, and so is a WebSocket message in fragments. Each has a limit of its own, but a
thousand unfinished bodies of 1 MiB would take a gigabyte.

Invariant: after each `set` the total is within `limit`, or one owner alone is above it. Where it would be above, the
owner that has been unfinished for the longest is refused first: an honest sender is done in a moment.
"""

from __future__ import annotations

import logging
from typing import Protocol

__all__ = ["Unfinished", "UnfinishedOwner"]

logger = logging.getLogger("oncecast.server")


class UnfinishedOwner(Protocol):
    """A connection that holds an unfinished request or message."""

    def overflow(self) -> None:
        """Refuse what is unfinished, and give its memory back."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Unfinished:
    """Bytes held by owner, the one that began first in front. `refused` counts the owners that had to give way."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.total = 0
        self.refused = 0
        self._held: dict[UnfinishedOwner, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def set(self, owner: UnfinishedOwner, size: int) -> None:
        """Say how many bytes an owner holds now, 0 for none. The oldest owners overflow until the rest fits."""
        before = self._held.get(owner, 0)
        if size:
            self._held[owner] = size
        else:
            self._held.pop(owner, None)
        self.total += size - before
        while self.total > self.limit:
            oldest = next(iter(self._held))
            self.total -= self._held.pop(oldest)
            self.refused += 1
            try:
                oldest.overflow()
            except Exception:
                logger.exception("a connection failed as its unfinished request was refused")
                oldest.abort()
