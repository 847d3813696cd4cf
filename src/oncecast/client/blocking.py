"""`Client`: the same as `AsyncClient`, for code that blocks.

A thin face: one thread runs an event loop with one `AsyncClient`, and every call is handed to it. Invariants:
* The thread starts with the first use, never before, so a process that has only imported or made a client may fork.
  In a forked child the client starts again with its own first use; the parent's subscriptions stay the parent's.
* Ctrl-C in a call that waits loses nothing: an item that was on its way is handed out by the next call.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypedDict, Unpack

from ..errors import UsageError
from .async_client import AsyncClient, NoticeKind
from .credentials import GetToken
from .engine import WAIT_SECONDS, Engine
from .failures import Broken, SubscriptionEnded
from .gaps import GapWatch, OnGap
from .ladder import TransportMemory
from .messages import Messages
from .publisher import Outcome
from .timing import Timing
from .values import Ack, ClientMessage, Gap, History, Outgoing

__all__ = ["BlockingMessages", "Client", "Options"]

LOOK_SECONDS = 1.0  # for the client's thread to say what has arrived; it needs some microseconds


class Options(TypedDict, total=False):
    """What `AsyncClient` takes besides the URL."""

    transports: Sequence[str]
    get_token: GetToken | None
    headers: Mapping[str, str] | None
    ssl_context: ssl.SSLContext | None
    proxy: str | None
    debug: bool
    buffer: int
    patience: float | None
    memory: TransportMemory | None
    timing: Timing


class _Inbox:
    """Items on their way from the loop's thread, which puts them in, to the threads that iterate.

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


class BlockingMessages:
    """A subscription: an iterator of messages, in order, each once. It ends when it or its client is closed.

    Several threads may iterate: each message goes to one of them. `with` waits until every channel has its place.
    `on_gap` is called with each `Gap`, by the thread that iterates; `events()` yields gaps between the messages.
    Without either each gap is a warning in the log `oncecast.client`; with `on_gap="raise"` it is a `GapError`.
    """

    def __init__(self, client: Client, engine: Engine, messages: Messages, gaps: GapWatch) -> None:
        self._client = client  # which would be closed if nothing referred to it
        self._engine = engine
        self._messages = messages
        self._gaps = gaps
        self._lock = threading.Lock()  # held for some instructions, never while waiting
        self._inbox = _Inbox()
        self._fetch: concurrent.futures.Future[bool] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels, each once."""
        return self._messages.channels

    @property
    def cursors(self) -> dict[str, str]:
        """For each channel that has a place, the cursor after the last message that was handed out."""
        if not self._inbox.items and self._engine.usable:
            with contextlib.suppress(Broken):  # it has just been closed
                return self._engine.call(self._look())
        return dict(self._inbox.cursors)

    @property
    def on_gap(self) -> OnGap:
        """A function that is called with each gap, `"raise"`, or None. Setting another raises `UsageError`."""
        return self._gaps.on_gap

    @on_gap.setter
    def on_gap(self, on_gap: OnGap) -> None:
        self._gaps.on_gap = on_gap

    @property
    def gap_count(self) -> int:
        """How many gaps were handed out so far."""
        return self._gaps.count

    @property
    def last_gap(self) -> Gap | None:
        """The last gap that was handed out."""
        return self._gaps.last

    def receive(self, timeout: float | None = None) -> ClientMessage:
        """Return the next message, waiting up to `timeout` seconds; with 0 only if one has arrived already.

        Raises `TimeoutError`; `SubscriptionEnded` at the end; `Refused` where the server refuses the subscription.
        """
        if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
            raise UsageError(f"timeout: give seconds from 0 on, or None, not {timeout!r}")
        until = None if timeout is None or math.isinf(timeout) else time.monotonic() + timeout
        while True:
            item = self._next(until)
            if isinstance(item, ClientMessage):
                return item
            self._gaps.skipped(item)

    def events(self) -> Iterator[ClientMessage | Gap]:
        """Iterate over messages and gaps, in order, until the subscription is closed."""
        return _BlockingEvents(lambda: self._next(None))

    def close(self) -> None:
        """End the subscription."""
        if self._engine.usable:
            with contextlib.suppress(Broken):  # the client is being closed, which ends it too
                self._engine.call(self._messages.close())

    def __iter__(self) -> BlockingMessages:
        return self

    def __next__(self) -> ClientMessage:
        try:
            return self.receive()
        except SubscriptionEnded:
            raise StopIteration from None

    def __enter__(self) -> BlockingMessages:
        self._engine.call(self._messages.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, until: float | None) -> ClientMessage | Gap:
        """Return the next item; `until` is a moment of the monotonic clock."""
        while True:
            if self._engine.forked:  # the parent's: it hands out the items, and another thread of it may hold the lock
                raise SubscriptionEnded("this subscription is another process's: subscribe again in this one")
            with self._lock:
                item = self._pop()
                fetch = None if item is not None else self._fetching(until)
            if item is not None:
                if isinstance(item, Gap):
                    self._gaps.taken(item)
                return item
            if fetch is None:
                self._look_once()
                continue
            left = WAIT_SECONDS if until is None else min(WAIT_SECONDS, max(0.0, until - time.monotonic()))
            done, _ = concurrent.futures.wait((fetch,), left)
            if done:
                self._conclude(fetch)
            elif not self._engine.usable:
                raise SubscriptionEnded("the client was closed")

    def _pop(self) -> ClientMessage | Gap | None:
        if not self._inbox.items:
            return None
        item = self._inbox.items.popleft()
        self._inbox.cursors[item.channel] = item.id if isinstance(item, ClientMessage) else item.cursor
        return item

    def _fetching(self, until: float | None) -> concurrent.futures.Future[bool] | None:
        """Return the fetch to wait for, one for all threads; None where the time is over."""
        if until is not None and time.monotonic() >= until:
            return None
        if self._fetch is None or self._fetch.done():
            try:
                self._fetch = self._engine.submit(self._inbox.fill(self._messages))
            except Broken:
                raise SubscriptionEnded("the client was closed") from None
        return self._fetch

    def _look_once(self) -> None:
        """Fetch what has arrived. Raises `TimeoutError` where that is nothing, and as `_conclude`."""
        try:
            goes_on = self._engine.call(self._inbox.look(self._messages), timeout=LOOK_SECONDS)
        except Broken:
            goes_on = False
        if not goes_on:
            raise SubscriptionEnded("the subscription was closed")
        if not self._inbox.items:
            raise TimeoutError("no message has arrived in time")

    def _conclude(self, fetch: concurrent.futures.Future[bool]) -> None:
        """Raise how a fetch ended, if it brought nothing: `SubscriptionEnded`, or what the subscription failed with."""
        if fetch.cancelled():
            raise SubscriptionEnded("the client was closed")
        if not fetch.result() and not self._inbox.items:
            raise SubscriptionEnded("the subscription was closed")

    async def _look(self) -> dict[str, str]:
        return self._messages.cursors


class _BlockingEvents:
    """The iterator of `BlockingMessages.events`: no generator, which an exception from a wait would end."""

    def __init__(self, take: Callable[[], ClientMessage | Gap]) -> None:
        self._take = take

    def __iter__(self) -> _BlockingEvents:
        return self

    def __next__(self) -> ClientMessage | Gap:
        try:
            return self._take()
        except SubscriptionEnded:
            raise StopIteration from None


class Client:
    """A client of the server at `url`; the options are `AsyncClient`'s. Any thread may use it.

    Callbacks of `on` are called by the client's own thread and can't call the client.
    """

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        self._make: Callable[[], AsyncClient] = lambda: AsyncClient(url, **options)
        self._client = self._make()  # so that a mistake in the options is raised here; it does nothing yet
        self._listeners: list[tuple[NoticeKind, Callable[[Any], object]]] = []
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._closed = False
        _clients.add(self)

    @property
    def transport(self) -> str:
        """The transport in use, or to be used next."""
        return self._client.transport

    def on(self, kind: NoticeKind, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call back with each notice of a kind; see `AsyncClient.on`."""
        self._client.on(kind, callback)
        entry = (kind, callback)
        self._listeners.append(entry)

        def off() -> None:
            """Take the callback off again."""
            if entry in self._listeners:
                self._listeners.remove(entry)
                self._client.off(kind, callback)

        return off

    def subscribe(
        self,
        *channels: str | Sequence[str],
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
        on_gap: OnGap = None,
    ) -> BlockingMessages:
        """Subscribe to channels; see `AsyncClient.subscribe`. Iterate over it, in one thread or in several."""
        client = self._client
        gaps = GapWatch(lambda gap: None, lambda: client.has_listener("gap"), on_gap)

        async def subscribe() -> Messages:
            return client.subscribe(*channels, after=after, last=last, since=since)

        engine = self._running()
        return BlockingMessages(self, engine, engine.call(subscribe()), gaps)

    def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message and return its acknowledgement; see `AsyncClient.publish`."""
        return self._running().call(self._client.publish(channel, data, event=event, key=key))

    def publish_many(self, messages: Iterable[Outgoing]) -> list[Outcome]:
        """Publish messages in batches and return an outcome for each; see `AsyncClient.publish_many`."""
        given = list(messages)  # by the caller's thread: an iterator may block
        return self._running().call(self._client.publish_many(given))

    def history(
        self,
        *channels: str | Sequence[str],
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> History:
        """Return what channels hold; see `AsyncClient.history`."""
        return self._running().call(self._client.history(*channels, after=after, last=last, since=since, limit=limit))

    def close(self) -> None:
        """End the subscriptions, the connections and the thread. Closing twice is fine."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> Engine:
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed")
            if self._engine is not None and not self._engine.usable:  # its thread has failed
                self._engine = None
                self._renew()
            if self._engine is None:
                self._engine = Engine(self._client)
                weakref.finalize(self, self._engine.stop)  # also when the process exits
            return self._engine

    def _renew(self) -> None:
        """Make the inner client again, with the same listeners."""
        self._client = self._make()
        for kind, callback in self._listeners:
            self._client.on(kind, callback)

    def _forked(self) -> None:
        """Begin again: a child has none of its parent's threads, and a lock may have been held by one of them."""
        self._lock = threading.Lock()
        if self._engine is not None:
            self._engine = None
            self._renew()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()  # for the hook below, which can't be taken back


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)
