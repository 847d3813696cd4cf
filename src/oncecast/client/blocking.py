"""`Client`: the same as `AsyncClient`, for code that blocks.

A thin face: one thread runs an event loop with one `AsyncClient`, and every call is handed to it. Invariants:
* The thread starts with the first use, never before, so a process that has only imported or made a client may fork.
  In a forked child the client starts again with its own first use; the parent's subscriptions stay the parent's.
* Ctrl-C in a call that waits loses nothing: an item that was on its way is handed out by the next call.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypedDict, Unpack

from ..errors import UsageError
from .async_client import AsyncClient
from .blocking_messages import BlockingMessages
from .credentials import GetToken
from .engine import Engine
from .gaps import GapWatch, OnGap
from .ladder import TransportMemory
from .messages import Messages
from .notices import NoticeKind
from .publisher import PublishOutcome
from .timing import Timing
from .values import Ack, History, Outgoing

__all__ = ["Client", "Options"]


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


@dataclass(eq=False, slots=True)
class _Listener:
    """A callback of a client, and the function that removes it from the inner client."""

    kind: NoticeKind
    callback: Callable[[Any], object]
    off: Callable[[], None]


class Client:
    """A client of the server at `url`; the options are `AsyncClient`'s. Any thread may use it.

    Callbacks of `on` are called by the client's own thread and can't call the client.
    """

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        self._make: Callable[[], AsyncClient] = lambda: AsyncClient(url, **options)
        self._client = self._make()  # so that a mistake in the options is raised here; it does nothing yet
        self._listeners: list[_Listener] = []
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
        entry = _Listener(kind, callback, self._client.on(kind, callback))
        self._listeners.append(entry)

        def off() -> None:
            """Remove the callback, once."""
            if entry in self._listeners:
                self._listeners.remove(entry)
                entry.off()

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
        gaps = GapWatch(lambda gap: None, lambda: client.notices.wanted("gap"), on_gap)

        async def subscribe() -> Messages:
            return client.subscribe(*channels, after=after, last=last, since=since)

        engine = self._running()
        return BlockingMessages(self, engine, engine.call(subscribe()), gaps)

    def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message and return its acknowledgement; see `AsyncClient.publish`."""
        return self._running().call(self._client.publish(channel, data, event=event, key=key))

    def publish_many(self, messages: Iterable[Outgoing]) -> list[PublishOutcome]:
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
        for listener in self._listeners:
            listener.off = self._client.on(listener.kind, listener.callback)

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
