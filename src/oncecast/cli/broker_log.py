"""A log as the commands of `oncecast broker` use it: opened, read in order, added to, and closed.

Nothing is trimmed by opening a log here: the retention that the broker is given keeps everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from ..brokers.base import Broker, BrokerUnreachable, Opening, Outcome
from ..brokers.operable import Operable
from ..core.answers import settle
from ..errors import ConfigurationError, Refusal, UsageError
from ..message import Cursor, Draft, Message, Page, Retention, Start, StartKind
from ..server.brokers import build_broker, random_epoch
from ..server.settings import MEMORY, SQLITE, Settings
from .base import FAILED, MISUSED, Failure, warn

__all__ = ["KEPT", "OpenLog", "open_log"]

KEPT = Retention(100_000_000, 315_360_000.0)
GROUP = 64  # channels of one page
PAGE_MESSAGES = 1_000
PAGE_BYTES = 1 << 18  # of each group: 10,000 channels are 157 groups


class OpenLog:
    """A log that is open. Of what a broker hands over, it keeps the epoch and the head."""

    def __init__(self, broker: Broker) -> None:
        if not isinstance(broker, Operable):
            raise Failure("this kind of broker can't be asked for its log", MISUSED)
        self.operable: Operable = broker
        self.epoch = ""
        self.head = 0
        self.broker = broker

    # -- `brokers.base.Sink`

    def begin(self, opening: Opening, /) -> None:
        """Note the log's name and head; fail where it is another one than before."""
        if self.epoch and opening.epoch != self.epoch:
            raise UsageError(f"the log {self.epoch} is gone, and {opening.epoch} is in its place")
        self.epoch, self.head = opening.epoch, opening.head

    def receive(self, messages: Sequence[Message], /) -> None:
        """Do nothing: the log is read in pages."""

    def advance(self, seq: int, /) -> None:
        """Do nothing."""

    def skip(self, seq: int, /) -> None:
        """Do nothing."""

    def hole(self, before: int, after: int, /) -> None:
        """Do nothing."""

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Do nothing: no channel is wanted."""

    def away(self, reason: str, /) -> None:
        """Do nothing: the next read or publish is refused."""

    def back(self) -> None:
        """Do nothing."""

    def fail(self, reason: str, /) -> None:
        """Do nothing: the next read or publish is refused."""

    # -- what the commands need

    async def publish(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        """Append drafts, and return what came of each."""
        answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self.broker.publish(drafts, partial(settle, answer))
        return await answer

    async def read(self, channels: Sequence[str], after: int) -> Page:
        """Read one page after a number. Raises `Refusal`."""
        answer: asyncio.Future[Page | Refusal] = asyncio.get_running_loop().create_future()
        start = Start(StartKind.CURSOR, Cursor(self.epoch, after))
        self.broker.read(channels, start, PAGE_MESSAGES, PAGE_BYTES, partial(settle, answer))
        page = await answer
        if isinstance(page, Refusal):
            raise page
        return page

    async def messages(self) -> AsyncIterator[Message]:
        """Yield each message up to the head, in order, across all channels."""
        names = [channel.name for channel in await self.operable.channels()]
        groups = [_Group(self, names[at : at + GROUP]) for at in range(0, len(names), GROUP)]
        heap = []
        for index, group in enumerate(groups):
            if await group.fill():
                heap.append((group.waiting[0].seq, index))
        heapq.heapify(heap)
        while heap:
            _, index = heap[0]
            group = groups[index]
            yield group.waiting.popleft()
            if group.waiting or await group.fill():
                heapq.heapreplace(heap, (group.waiting[0].seq, index))
            else:
                heapq.heappop(heap)


class _Group:
    """Some channels of a log, read in pages."""

    def __init__(self, log: OpenLog, channels: Sequence[str]) -> None:
        self.waiting: deque[Message] = deque()
        self._log = log
        self._channels = channels
        self._after = 0

    async def fill(self) -> bool:
        """Read on until there is a message; return whether there is one."""
        head = self._log.head
        while not self.waiting and self._after < head:
            page = await self._log.read(self._channels, self._after)
            trimmed = [name for name, mark in page.marks.items() if self._after and mark.seq > self._after]
            if trimmed:
                warn([f"messages of {name} were trimmed while they were read" for name in trimmed])
            if page.upto <= self._after:
                raise Failure(f"the log can't be read on after {self._after}: see the broker's own log", FAILED)
            self._after = page.upto
            self.waiting.extend(message for message in page.messages if message.seq <= head)
        return bool(self.waiting)


@contextlib.asynccontextmanager
async def open_log(url: str, *, create: bool = False) -> AsyncIterator[OpenLog]:
    """Open the log at a URL, and close it. Without `create` it has to be there. Raises `Failure`."""
    try:
        log = OpenLog(_build(url, create=create))
        try:
            await log.broker.start(log)
            yield log
        finally:
            await log.broker.stop()
    except (BrokerUnreachable, Refusal) as error:
        raise Failure(str(error), FAILED) from None
    except (ConfigurationError, UsageError) as error:
        raise Failure(str(error), MISUSED) from None


def _build(url: str, *, create: bool) -> Broker:
    if url.startswith(MEMORY):
        raise UsageError(f"{MEMORY} is the memory of one server: name the broker that keeps the log")
    path = Path(url.removeprefix(SQLITE))
    if url.startswith(SQLITE) and not create and not path.is_file():
        raise UsageError(f"there is no log at {path}: name the file that a server has made")

    def none() -> str:
        raise ConfigurationError(
            "the broker answers, and there is no log: check the prefix, the stream or the topic in the URL"
        )

    return build_broker(Settings(broker=url), lambda channel: KEPT, random_epoch if create else none)
