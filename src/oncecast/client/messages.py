"""What one application sees of a subscription: `Messages`, an ordered stream that outlives connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType

from .base import ClientMessage, Gap
from .feed import Feed

__all__ = ["Messages"]

BATCH = 256  # messages taken out of the buffer at once


class Messages:
    """A subscription: an async iterator of messages, in order, each once, for as long as it is open.

    `async with` waits until every channel has its place, so that what is published from then on is received, and ends
    the subscription. Iterating alone begins at once and lasts until `close`, or until the client is closed. `on_gap`
    is called with each `Gap`; `events()` yields gaps between the messages instead.
    """

    def __init__(self, feed: Feed, tell: Callable[[Gap], None]) -> None:
        self.on_gap: Callable[[Gap], object] | None = None
        self._feed = feed
        self._tell = tell

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels, each once."""
        return self._feed.channels

    @property
    def cursors(self) -> dict[str, str]:
        """For each channel that has a place, the cursor after the last message that was taken out.

        Store it, and give it as `after` to go on from there another day, in another process.
        """
        return self._feed.cursors

    async def batch(self, limit: int = BATCH) -> list[ClientMessage | Gap]:
        """Wait for something, then return all that is there, up to `limit` messages and gaps; empty at the end.

        Raises `Refused` where the server refuses the subscription for good.
        """
        await self._feed.wait()
        items = self._feed.pop(limit)
        for item in items:
            if isinstance(item, Gap):
                self._tell(item)
                if self.on_gap is not None:
                    self.on_gap(item)
        return items

    async def batch_from(self, limit: int = BATCH) -> tuple[dict[str, str], list[ClientMessage | Gap]]:
        """Return `cursors` as they were just before a batch, and the batch."""
        await self._feed.wait()
        cursors = self._feed.cursors
        return cursors, await self.batch(limit)

    async def events(self) -> AsyncGenerator[ClientMessage | Gap, None]:
        """Yield messages and gaps, in order, until the subscription is closed."""
        while items := await self.batch(1):
            yield items[0]

    async def close(self) -> None:
        """End the subscription. What was not taken out is still yielded."""
        self._feed.end()

    def __aiter__(self) -> AsyncIterator[ClientMessage]:
        return self

    async def __anext__(self) -> ClientMessage:
        while items := await self.batch(1):
            if isinstance(item := items[0], ClientMessage):
                return item
        raise StopAsyncIteration

    async def __aenter__(self) -> Messages:
        try:
            await self._feed.attached()
        except BaseException:
            self._feed.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
