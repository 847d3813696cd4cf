"""The items of one connection that its server has not sent yet.

In ASGI a slow peer shows by a `send` that does not return. Invariant: past `ROOM` bytes that wait, those
that are being sent included, this is `full`; it stays so until all of them are sent.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

__all__ = ["ROOM", "Pending"]

ROOM = 64 << 10  # the size of a kernel's buffer: a `send` that waits briefly does not make the peer slow

Put = TypeVar("Put")


class Pending(Generic[Put]):
    """A queue with one reader, and one that waits for room. `ended`: nothing is put any more."""

    __slots__ = ("_items", "_room", "_size", "_taken", "_waiter", "ended", "full")

    def __init__(self) -> None:
        self._items: list[Put] = []
        self._size = 0
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.ended = False
        self.full = False

    def put(self, item: Put, size: int) -> bool:
        """Add an item, unless this has ended. Return whether it has become full by that."""
        if self.ended:
            return False
        self._items.append(item)
        self._size += size
        self._wake()
        if self._size <= ROOM or self.full:
            return False
        self.full = True
        return True

    def end(self) -> None:
        """Take no more items; those that were put can still be taken."""
        self.ended = True
        self._wake()
        self._make_room()

    def clear(self) -> None:
        """Forget what was not taken."""
        self._items.clear()

    def drop(self) -> None:
        """End, and forget what was not taken."""
        self.clear()
        self.end()

    async def take(self) -> list[Put]:
        """Wait for items, and return all there are; none at the end."""
        while not self._items and not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        items, self._items = self._items, []
        self._taken = self._size
        return items

    def sent(self) -> bool:
        """Note that the taken items are sent. Return whether it is no longer full by that."""
        self._size -= self._taken
        self._taken = 0
        if not self.full or self._items:
            return False
        self.full = False
        self._make_room()
        return True

    async def room(self) -> None:
        """Wait until this is not full, or has ended."""
        while self.full and not self.ended:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
