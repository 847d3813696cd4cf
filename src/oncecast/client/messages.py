"""What one application sees of a subscription: `Messages`, an ordered stream that outlives connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType

from .feed import Feed
from .gaps import GapWatch, OnGap
from .values import ClientMessage, Gap

__all__ = ["Messages"]

BATCH = 256  # messages taken out of the buffer at once


class Messages:
    """A subscription: an async iterator of messages, in order, each once, for as long as it is open.

    `async with` waits until every channel has its place, so that what is published from then on is received, and ends
    the subscription. Iterating alone begins at once and lasts until `close`, or until the client is closed. Several
    tasks may iterate: each message goes to one of them.

    Gaps: `events()` yields them between the messages, and `on_gap` is called with each. An application that has
    neither, nor a listener of the client for gaps, gets a warning in the log `oncecast.client` for each gap that its
    iteration passes; with `on_gap="raise"` the iteration raises `GapError`.
    """

    def __init__(self, feed: Feed, gaps: GapWatch) -> None:
        self._feed = feed
        self._gaps = gaps

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

    @property
    def on_gap(self) -> OnGap:
        """A function that is called with each gap, `"raise"`, or None. Setting another raises `UsageError`."""
        return self._gaps.on_gap

    @on_gap.setter
    def on_gap(self, on_gap: OnGap) -> None:
        self._gaps.on_gap = on_gap

    @property
    def gap_count(self) -> int:
        """How many gaps were taken out so far."""
        return self._gaps.count

    @property
    def last_gap(self) -> Gap | None:
        """The last gap that was taken out."""
        return self._gaps.last

    async def batch(self, limit: int = BATCH) -> list[ClientMessage | Gap]:
        """Wait for something, then return all that is there, up to `limit` messages and gaps; empty at the end.

        Raises `Refused` where the server refuses the subscription for good, `ClientFailed` where the client has failed.
        """
        _, items = await self.batch_from(limit)
        return items

    async def batch_from(self, limit: int = BATCH) -> tuple[dict[str, str], list[ClientMessage | Gap]]:
        """Return `cursors` as they were just before a batch, and the batch."""
        while True:
            await self._feed.wait()
            cursors, items = self.waiting(limit)
            if items or self._feed.ended:  # else another task was faster
                return cursors, items

    def waiting(self, limit: int = BATCH) -> tuple[dict[str, str], list[ClientMessage | Gap]]:
        """Return what `batch_from` does of what has arrived, without waiting."""
        cursors = self._feed.cursors
        items = self._feed.pop(limit)
        for item in items:
            if isinstance(item, Gap):
                self._gaps.taken(item)
        return cursors, items

    @property
    def ended(self) -> bool:
        """Whether it is closed; what had arrived before may still be there to take out."""
        return self._feed.ended

    def events(self) -> AsyncIterator[ClientMessage | Gap]:
        """Iterate over messages and gaps, in order, until the subscription is closed.

        A wait may be cancelled, by a timeout for instance: the next one goes on where it was.
        """
        return _Events(self)

    async def close(self) -> None:
        """End the subscription. What was not taken out is still yielded."""
        self._feed.end()

    def __aiter__(self) -> AsyncIterator[ClientMessage]:
        return self

    async def __anext__(self) -> ClientMessage:
        while items := await self.batch(1):
            if isinstance(item := items[0], ClientMessage):
                return item
            self._gaps.skipped(item)
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


class _Events:
    """The iterator of `Messages.events`: no generator, which a cancelled wait would end."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> ClientMessage | Gap:
        if items := await self._messages.batch(1):
            return items[0]
        raise StopAsyncIteration
