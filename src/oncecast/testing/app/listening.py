"""A listener of a test: the messages that it has received, and a connection that the test drops and resumes.

It reads the log of the test directly, in the thread that publishes. Invariant: `items` has each message after its start
once and in order, or a gap; while it is dropped it gets nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import msgspec

from ...asgi.listener import LINES, MessageLines
from ...asgi.threads import running_loop
from ...client.values import ClientMessage, Gap
from ...core.place import Place, chain_gaps
from ...core.subscription import Subscription
from ...errors import Refusal, UsageError
from ...message import Cursor, LogGap, Start
from ...protocol.query import after_cursor
from ...wire import envelope
from .shared_log import SharedLog

__all__ = ["WAIT_SECONDS", "FixtureListener", "shown"]

WAIT_SECONDS = 10.0  # for a message of another thread or task


class FixtureListener:
    """A listener of `channels`. `items` are the messages and gaps that it has received, in order."""

    def __init__(self, log: SharedLog, channels: tuple[str, ...], start: Start) -> None:
        self.channels = channels
        self.items: list[ClientMessage | Gap] = []
        self.received: Counter[str] = Counter()  # how often each message has come, by its id; `clear` keeps it
        self.cursor = ""
        self.began = 0  # the number of the log after which it began
        self._log = log
        self._changed = threading.Condition(log.lock)
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._subscription: Subscription | None = None
        self._connect(start)
        self.began = Cursor.parse(self.cursor).seq

    # -- what it has received

    @property
    def messages(self) -> list[ClientMessage]:
        """The messages."""
        return [item for item in self.items if isinstance(item, ClientMessage)]

    @property
    def data(self) -> list[Any]:
        """The data of each message: the value of its JSON, a `str`, or `bytes`."""
        return [message.data for message in self.messages]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps: what was trimmed before this listener had it."""
        return [item for item in self.items if isinstance(item, Gap)]

    def clear(self) -> None:
        """Empty `items`. The listener stays where it is in the log."""
        with self._log.lock:
            self.items.clear()

    def wait(self, count: int = 1, *, seconds: float = WAIT_SECONDS) -> list[ClientMessage]:
        """Wait until there are `count` messages, for what another thread publishes, and return them all.

        Raises `AssertionError` past the deadline, and `UsageError` on an event loop, which it would block.
        """
        if running_loop() is not None:
            raise UsageError("listener.wait() would block the event loop: use await listener.arrival()")
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.messages) >= count, seconds):
                raise self._late(count, seconds)
            return self.messages

    async def arrival(self, count: int = 1, *, seconds: float = WAIT_SECONDS) -> list[ClientMessage]:
        """Wait as `wait` does, in a coroutine: for what a task of the application publishes."""
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        self._tasks.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                while len(self.messages) < count:
                    waiter[1].clear()
                    await waiter[1].wait()
        except TimeoutError:
            raise self._late(count, seconds) from None
        finally:
            self._tasks.remove(waiter)
        return self.messages

    # -- its connection

    @property
    def connected(self) -> bool:
        """Whether it is connected."""
        return self._subscription is not None

    def drop(self) -> None:
        """Lose the connection, and keep the cursor."""
        with self._log.lock:
            subscription, self._subscription = self._subscription, None
            if subscription is not None:
                self._log.node.hub.detach(subscription)

    def resume(self) -> None:
        """Connect again at the cursor: what was missed has arrived when this returns, or a gap where it was trimmed."""
        with self._log.lock:
            if self._subscription is None:
                self._connect(after_cursor(Cursor.parse(self.cursor)))

    def _connect(self, start: Start) -> None:
        with self._log.lock:
            self._subscription = self._log.node.subscribe(self.channels, start, self, LINES, self._attached)
            self._log.deliver()

    # -- what the hub calls, with the log's lock held

    def write(self, block: bytes, /) -> None:
        """Take messages."""
        for message in MessageLines.parse(block):
            self.cursor = message.id
            self.received[message.id] += 1
            self._take(message)

    def gap(self, gap: LogGap, /) -> None:
        """Take a gap."""
        found = msgspec.json.decode(envelope.gap_json(gap), type=Gap)
        self.cursor = found.cursor
        self._take(found)

    def refuse(self, refusal: Refusal, /) -> None:
        """Lose the connection, as a channel's `lag` or the end of the log says."""
        self.drop()

    def _attached(self, place: Place) -> None:
        self.cursor = str(place.announced)
        for gap in chain_gaps(place.gaps, place.announced):
            self.gap(gap)

    def _take(self, item: ClientMessage | Gap) -> None:
        self.items.append(item)
        self._changed.notify_all()
        for loop, event in self._tasks:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def _late(self, count: int, seconds: float) -> AssertionError:
        state = "" if self.connected else "; it is dropped, and nothing arrives before resume()"
        held = shown(self.messages)
        return AssertionError(
            f"{', '.join(self.channels)}: {count} messages were expected within {seconds:g} s, and {held}{state}"
        )


def shown(messages: list[ClientMessage]) -> str:
    """Say which messages there are, the last ten at most."""
    if not messages:
        return "there is none"
    listed = ", ".join(f"{m.data!r}" if m.event is None else f"{m.data!r} (event {m.event})" for m in messages[-10:])
    return f"there are {len(messages)}: {'…, ' if len(messages) > 10 else ''}{listed}"
