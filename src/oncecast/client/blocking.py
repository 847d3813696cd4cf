"""`Client`: the same as `AsyncClient`, for code that blocks.

A thin face: one thread runs an event loop with one `AsyncClient`, and every call is handed to it. Invariants:
* The thread starts with the first use, never before, so a process that has only imported or made a client may fork.
  In a forked child the client starts anew with its own first use; the parent's subscriptions stay the parent's.
* Ctrl-C in a call that waits loses nothing: what was on its way is handed out by the next call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, TypedDict, TypeVar, Unpack

from ..errors import UsageError
from .async_client import AsyncClient, Kind
from .base import Broken, ClientMessage, Gap, Timing
from .credentials import GetToken
from .ladder import Memory
from .messages import Messages
from .publisher import Ack

__all__ = ["BlockingMessages", "Client", "Options"]

T = TypeVar("T")
CLOSED = "the client was closed"
WAIT_SECONDS = 0.5  # at most so long after it a signal is heard that came just before a wait began


class Options(TypedDict, total=False):
    """What `AsyncClient` takes besides the URL."""

    transports: Sequence[str]
    get_token: GetToken | None
    debug: bool
    buffer: int
    patience: float | None
    memory: Memory | None
    timing: Timing


class _Engine:
    """The thread, its loop, and the client that lives on it."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), name="oncecast-client", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def usable(self) -> bool:
        """Whether it runs, in this process."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop. Raises `UsageError` from a callback, which would wait for itself."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("a callback can't call the client that called it: hand the work to another thread")
        assert self._loop is not None
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise Broken(CLOSED) from None

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result; Ctrl-C cancels it. Raises `Broken` where it is closed."""
        future = self.submit(coroutine)
        try:
            return _result(future, None)
        except concurrent.futures.CancelledError:
            raise Broken(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Close the client and end the thread. A forked child's copy is only forgotten."""
        if self.usable and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            if threading.current_thread() is not self._thread:
                self._thread.join()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._stop.wait()
        await self.client.close()


def _result(future: concurrent.futures.Future[T], timeout: float | None) -> T:
    """Wait, in turns: CPython does not interrupt a wait for a signal that came just before it, or to another thread."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left = WAIT_SECONDS if until is None else min(WAIT_SECONDS, max(0.0, until - time.monotonic()))
        done, _ = concurrent.futures.wait((future,), left)
        if done or (until is not None and time.monotonic() >= until):
            return future.result(0)


class BlockingMessages:
    """A subscription: an iterator of messages, in order, each once. It ends when it or its client is closed.

    Several threads may iterate: each message goes to one of them. `with` waits until every channel has its place.
    `on_gap` is called with each `Gap`, by the thread that iterates; `events()` yields gaps between the messages.
    """

    def __init__(self, client: Client, engine: _Engine, messages: Messages) -> None:
        self._client = client  # which would be closed if nobody held it
        self.on_gap: Callable[[Gap], object] | None = None
        self._engine = engine
        self._messages = messages
        self._lock = threading.Lock()
        self._items: deque[ClientMessage | Gap] = deque()
        self._cursors: dict[str, str] = {}
        self._filling: asyncio.Future[tuple[dict[str, str], list[ClientMessage | Gap]]] | None = None  # the loop's own

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels, each once."""
        return self._messages.channels

    @property
    def cursors(self) -> dict[str, str]:
        """For each channel that has a place, the cursor after the last message that was handed out."""
        if self._items or not self._engine.usable:
            return dict(self._cursors)
        return self._engine.call(self._look())

    def receive(self, timeout: float | None = None) -> ClientMessage:
        """Return the next message. Raises `TimeoutError` after `timeout` seconds, `StopIteration` at the end."""
        while True:
            item = self._next(timeout)
            if isinstance(item, ClientMessage):
                return item

    def events(self) -> Iterator[ClientMessage | Gap]:
        """Yield messages and gaps, in order, until the subscription is closed."""
        while True:
            try:
                yield self._next(None)
            except StopIteration:
                return

    def close(self) -> None:
        """End the subscription."""
        if self._engine.usable:
            self._engine.call(self._messages.close())

    def __iter__(self) -> BlockingMessages:
        return self

    def __next__(self) -> ClientMessage:
        return self.receive()

    def __enter__(self) -> BlockingMessages:
        self._engine.call(self._messages.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, timeout: float | None) -> ClientMessage | Gap:
        with self._lock:
            if not self._items:
                self._fetch(timeout)
            item = self._items.popleft()
            self._cursors[item.channel] = item.id if isinstance(item, ClientMessage) else item.cursor
        if isinstance(item, Gap) and self.on_gap is not None:
            self.on_gap(item)
        return item

    def _fetch(self, timeout: float | None) -> None:
        """Wait for the next items."""
        if not self._engine.usable:
            raise StopIteration
        future = self._engine.submit(self._fill())
        try:
            _result(future, timeout)
        except concurrent.futures.CancelledError:  # the client was closed
            raise StopIteration from None
        except BaseException:
            future.cancel()
            raise
        if not self._items:
            raise StopIteration

    async def _fill(self) -> None:
        """Put the next items where the iterating threads find them, on the loop.

        Nothing passes through the hands of whoever waits: a Ctrl-C may come at any of its instructions, and what it
        held then would be lost. What is under way when it gives up goes on, and is waited for by the next call.
        """
        if self._filling is None:
            self._filling = asyncio.ensure_future(self._messages.batch_from())
        filling = self._filling
        await asyncio.wait({filling})
        if self._filling is filling:
            self._filling = None
            cursors, items = filling.result()
            self._cursors.update(cursors)
            self._items.extend(items)

    async def _look(self) -> dict[str, str]:
        return self._messages.cursors


class Client:
    """A client of the server at `url`; the options are `AsyncClient`'s. Any thread may use it.

    Callbacks of `on` are called by the client's own thread and can't call the client.
    """

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        self._make: Callable[[], AsyncClient] = lambda: AsyncClient(url, **options)
        self._client = self._make()  # so that a mistake in the options is raised here; it does nothing yet
        self._listeners: list[tuple[Kind, Callable[[Any], object]]] = []
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._closed = False
        _clients.add(self)

    @property
    def transport(self) -> str:
        """The transport in use, or to be used next."""
        return self._client.transport

    def on(self, kind: Kind, callback: Callable[[Any], object]) -> None:
        """Call back with each notice of a kind; see `AsyncClient.on`."""
        self._client.on(kind, callback)
        self._listeners.append((kind, callback))

    def subscribe(
        self, *channels: str, after: str | None = None, last: int | None = None, since: float | None = None
    ) -> BlockingMessages:
        """Subscribe to channels; see `AsyncClient.subscribe`. Iterate over it, in one thread or in several."""

        async def subscribe() -> Messages:
            return self._client.subscribe(*channels, after=after, last=last, since=since)

        engine = self._running()
        return BlockingMessages(self, engine, engine.call(subscribe()))

    def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message and return its acknowledgement; see `AsyncClient.publish`."""
        return self._running().call(self._client.publish(channel, data, event=event, key=key))

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

    def _running(self) -> _Engine:
        with self._lock:
            if self._closed:
                raise UsageError("the client is closed")
            if self._engine is None:
                self._engine = _Engine(self._client)
                weakref.finalize(self, self._engine.stop)  # also when the process exits
            return self._engine

    def _forked(self) -> None:
        """Begin anew: a child has none of its parent's threads, and a lock may have been held by one of them."""
        self._lock = threading.Lock()
        if self._engine is not None:
            self._engine = None
            self._client = self._make()
            for kind, callback in self._listeners:
                self._client.on(kind, callback)


_clients: weakref.WeakSet[Client] = weakref.WeakSet()  # for the hook below, which can't be taken back


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)
