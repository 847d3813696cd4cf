"""A queue for each listener, as the documents of the event-stream libraries have it: they bring no fan-out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

__all__ = ["Queues"]


class Queues:
    """What is published goes into the queue of each listener, with its number."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[tuple[str, str]]] = set()
        self._last = 0

    def __len__(self) -> int:
        return len(self._queues)

    async def publish(self, text: str) -> None:
        """Hand a message to all listeners."""
        self._last += 1
        numbered = str(self._last), text
        for queue in self._queues:
            queue.put_nowait(numbered)

    async def listen(self) -> AsyncIterator[tuple[str, str]]:
        """Yield the number and the text of each message."""
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
