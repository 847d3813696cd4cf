"""`AsyncClient`: subscribe and publish, and never lose your place.

Owns its links (connections), its publishers, the requests under way, and the prober. Invariant: after `close` none of
them is left, and no call waits for one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from ..errors import UsageError
from .attempts import Attempts
from .backoff import Backoff
from .base import StartQuery, Transport
from .credentials import Credentials, GetToken
from .dialing import Endpoint, checked_headers
from .encoding import content_of
from .failures import CLOSED, Broken
from .feed import Feed
from .gaps import GapWatch, OnGap
from .history import check_limit, read_history
from .http import HttpConnection
from .ladder import Ladder, Moved, TransportMemory
from .link import LINK_CHANNELS, ClientLink, LinkState, StateChanged
from .messages import Messages
from .notices import NoticeKind, Notices
from .prober import Prober
from .publisher import Publisher, PublishOutcome
from .starts import channels_of, start_of
from .timing import Timing
from .transports import TRANSPORTS
from .url import ProxyUrl, ServerUrl
from .values import Ack, History, Outgoing

__all__ = ["AsyncClient"]

logger = logging.getLogger("oncecast.client")

T = TypeVar("T")

BUFFER = 1024  # messages that wait for the application, per subscription
BUFFER_MOST = 1_000_000  # more is a mistake: each message takes memory
PATIENCE = 60.0  # seconds that a publish is retried for: longer than a restart takes
PUBLISHERS = 8  # connections that publish at once; further publishes wait for one
LINK_NAME_CHARS = 6000  # of the channels on one connection: a poll has all their names in a URL of at most 8,192


class AsyncClient:
    """A client of the server at `url` (`http[s]://host[:port][/prefix]`, with or without `/v1` at its end).

    `transports` are tried in their order; it goes back up by itself. `get_token` returns a token, or a coroutine that
    does; it is called again after a 401. `headers` go with each request, `ssl_context` is for https, `proxy` is the URL
    of an HTTP proxy that opens tunnels. `debug` logs each step in `oncecast.client`. `buffer` is how many messages wait
    for a slow application, per subscription. `patience` is how many seconds a request is retried for, None for ever.
    `memory` lets several clients share which transport works. `sleep` waits between attempts and between polls. Use it
    on one event loop. Raises `UsageError`.
    """

    def __init__(
        self,
        url: str,
        *,
        transports: Sequence[str] = tuple(TRANSPORTS),
        get_token: GetToken | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        debug: bool = False,
        buffer: int = BUFFER,
        patience: float | None = PATIENCE,
        memory: TransportMemory | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        rng: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if not transports or not set(transports) <= set(TRANSPORTS) or len(set(transports)) < len(transports):
            raise UsageError(f"transports: name some of {', '.join(TRANSPORTS)}, each once, not {list(transports)}")
        if not isinstance(buffer, int) or isinstance(buffer, bool) or not 1 <= buffer <= BUFFER_MOST:
            raise UsageError(f"buffer: give a number of messages from 1 to {BUFFER_MOST}, not {buffer!r}")
        if patience is not None and (isinstance(patience, bool) or not 0 <= patience < math.inf):
            raise UsageError(f"patience: give seconds from 0 on, or None, not {patience!r}")
        self._endpoint = Endpoint(
            ServerUrl.parse(url),
            checked_headers(headers),
            ssl_context,
            None if proxy is None else ProxyUrl.parse(proxy),
        )
        self._names = tuple(transports)
        self._credentials = Credentials(get_token, seconds=timing.token)
        self._buffer = buffer
        self._patience = patience
        self._memory = memory
        self._timing = timing
        self._rng = rng
        self._sleep = sleep
        self.notices = Notices()
        self._links: list[ClientLink] = []
        self._publishers = asyncio.Semaphore(PUBLISHERS)
        self._idle: list[Publisher] = []
        self._under_way: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._ladder = Ladder(
            self._names,
            proof=timing.proof,
            on_move=self._moved,
            start=None if memory is None else memory.get(str(self._endpoint.url)),
        )
        self._prober = Prober(self._ladder, timing, make=self._transport, channel=self._a_channel)
        if debug:
            _enable_debug_log()

    @property
    def url(self) -> str:
        """The server's URL, without `/v1`."""
        return str(self._endpoint.url)

    @property
    def transport(self) -> str:
        """The transport in use, or to be used next."""
        return self._ladder.current

    def on(self, kind: NoticeKind, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call back with each notice of a kind: `transport` (`Moved`), `state` (`StateChanged`), `gap` (`Gap`).

        Returns a function that takes the callback off again. Raises `UsageError` for a kind or a callback that is none.
        """
        return self.notices.on(kind, callback)

    def subscribe(
        self,
        *channels: str | Sequence[str],
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
        on_gap: OnGap = None,
    ) -> Messages:
        """Subscribe to one or more channels, or lists of them. Use it with `async with`, or iterate; see `Messages`.

        It begins `after` a cursor, or `latest` (the default), or `earliest`; or with the `last` N messages of each
        channel; or with those `since` a Unix time. `on_gap` is a function that is called with each gap, or `"raise"`.
        Raises `Refused` for a name that is no channel's, `UsageError`.
        """
        names, start = channels_of(channels), start_of(after, last, since)
        gaps = GapWatch(self.notices.send, lambda: self.notices.wanted("gap"), on_gap)
        self._check_open()
        feed = Feed(names, start, limit=self._buffer)
        self._link_for(feed).add(feed)
        if len(self._names) > 1:
            self._prober.start()
        return Messages(feed, gaps)

    async def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message and return its acknowledgement (`id`, `durability`).

        A `str` is published as text, bytes-like data as binary, anything else as JSON. It is retried with one key, of
        its own if none is given, so it is in the log once however many acknowledgements are lost. Raises `Refused`,
        before anything is sent for data, names, events or keys that can't be sent exactly as they are; `Broken` past
        the patience or once the client is closed, and then it may or may not be in the log; `PublishFailed` where it
        fails in the same way again and again; `Unreachable` where no attempt has reached a server.
        """
        self._check_open()
        content = content_of(data)

        async def publish(publisher: Publisher) -> Ack:
            return await publisher.publish(channel, content, event=event, key=key)

        return await self._owned(self._with_publisher(publish))

    async def publish_many(self, messages: Iterable[Outgoing]) -> list[PublishOutcome]:
        """Publish messages to any channels, in order, in batches; return an outcome for each.

        An outcome is an `Ack`, or the `Refused` or `Broken` that `publish` would have raised; it is not raised, and
        the other messages are published all the same. Each message keeps its key over all retries.
        """
        self._check_open()

        async def publish(publisher: Publisher) -> list[PublishOutcome]:
            return await publisher.publish_many(messages)

        return await self._owned(self._with_publisher(publish))

    async def history(
        self,
        *channels: str | Sequence[str],
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> History:
        """Return what the log of channels holds from a start on (`earliest` by default), without a subscription.

        `limit` bounds the messages: 1,000, or `last`, if it is not given. The result's `cursor` goes on after it. It is
        retried like a publish, and raises the same, but for `PublishFailed`.
        """
        names, start = channels_of(channels), start_of(after, last, since, default="earliest")
        limit = check_limit(limit, last)
        self._check_open()
        return await self._owned(self._history(dict.fromkeys(names, start), limit))

    async def close(self) -> None:
        """End the subscriptions, the requests under way and the connections. Closing twice is fine."""
        self._closed = True
        await self._prober.close()
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        links, self._links = self._links, []
        idle, self._idle = self._idle, []
        await asyncio.gather(*[link.close() for link in links], *[publisher.close() for publisher in idle])

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Parts

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the client is closed")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError("an AsyncClient is used on an event loop: call it from a coroutine") from None
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise UsageError("an AsyncClient belongs to one event loop: make another client for this one")

    async def _owned(self, request: Coroutine[Any, Any, T]) -> T:
        """Run a request that `close` ends, which the caller sees as `Broken`."""
        task = asyncio.ensure_future(request)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._closed and task.cancelled() and not (current is not None and current.cancelling()):
                raise Broken(CLOSED) from None
            raise

    async def _with_publisher(self, use: Callable[[Publisher], Awaitable[T]]) -> T:
        async with self._publishers:
            publisher = self._idle.pop() if self._idle else self._new_publisher()
            try:
                return await use(publisher)
            finally:
                if self._closed:
                    await publisher.close()
                else:
                    self._idle.append(publisher)

    async def _history(self, starts: Mapping[str, StartQuery], limit: int) -> History:
        connection = HttpConnection(self._endpoint, timing=self._timing, authorize=self._credentials.headers)
        attempts = Attempts(backoff=self._backoff(), credentials=self._credentials, serves=_never)
        try:
            return await attempts.run(lambda: read_history(connection, starts, limit), patience=self._patience)
        finally:
            await connection.close()

    def _link_for(self, feed: Feed) -> ClientLink:
        """Return the first connection that has room and none of the feed's channels: none carries a channel twice."""
        wanted = set(feed.channels)
        for link in self._links:
            carried = link.channels
            fits = len(carried) + len(wanted) <= LINK_CHANNELS and sum(map(len, carried | wanted)) <= LINK_NAME_CHARS
            if fits and not wanted & carried:
                return link
        link = ClientLink(
            self._endpoint,
            {name: self._transport(name) for name in self._names},
            self._ladder,
            self._credentials,
            timing=self._timing,
            backoff=self._backoff(),
            clock=time.monotonic,
            on_state=self._state_changed,
        )
        self._links.append(link)
        return link

    def _a_channel(self) -> str | None:
        return next((name for link in self._links for name in sorted(link.channels)), None)

    def _transport(self, name: str) -> Transport:
        return TRANSPORTS[name](
            self._endpoint, timing=self._timing, sleep=self._sleep, authorize=self._credentials.headers
        )

    def _backoff(self) -> Backoff:
        return Backoff(rng=self._rng, sleep=self._sleep)

    def _new_publisher(self) -> Publisher:
        return Publisher(
            self._endpoint,
            timing=self._timing,
            backoff=self._backoff(),
            patience=self._patience,
            credentials=self._credentials,
        )

    # Notices

    def _moved(self, moved: Moved) -> None:
        logger.info("%s: from %s to %s: %s", self.url, moved.before, moved.after, moved.reason)
        if self._memory is not None:
            self._memory.put(self.url, moved.after)
        self._prober.moved()
        self.notices.send(moved)
        for link in self._links:
            link.wake()

    def _state_changed(self, change: StateChanged) -> None:
        match change.after:
            case LinkState.LISTENING:
                logger.info("%s: listening over %s", self.url, change.reason)
            case LinkState.WAITING:
                logger.info("%s: %s; trying again in %.1f s", self.url, change.reason, change.seconds)
            case state:
                logger.debug("%s: %s %s", self.url, state.value, change.reason)
        self.notices.send(change)


async def _never() -> bool:
    return False


def _enable_debug_log() -> None:
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)
