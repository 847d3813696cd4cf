"""Items on their way from the thread of a client's loop to the threads that iterate.

Invariant: an item is in the queue, or was handed out; nothing holds it in between, where a Ctrl-C could lose it.
"""

from __future__ import annotations

from collections import deque

from .messages import Messages
from .values import ClientMessage, Gap

__all__ = ["Inbox"]


class Inbox:
    """The queue of one subscription, which the loop's thread fills. `cursors` are those after what was taken out.

    It refers to no client: while a fetch waits on the loop, the application may drop its last reference to the client.
    """

    def __init__(self) -> None:
        self.items: deque[ClientMessage | Gap] = deque()
        self.cursors: dict[str, str] = {}

    async def fill(self, messages: Messages) -> bool:
        """Wait for the next items and put them in; return False at the end."""
        return self._put(*await messages.batch_from())

    async def look(self, messages: Messages) -> bool:
        """Put in what has arrived, without waiting; return False at the end."""
        return bool(self.items) or self._put(*messages.waiting()) or not messages.ended

    def _put(self, cursors: dict[str, str], items: list[ClientMessage | Gap]) -> bool:
        self.cursors.update(cursors)
        self.items.extend(items)
        return bool(items)
