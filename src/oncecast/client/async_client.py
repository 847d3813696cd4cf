"""`AsyncClient`: subscribe and publish, and never lose your place.

Owns its links (connections), the publishers that wait for work, and the task that probes for better transports.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Literal

import msgspec

from ..errors import UsageError
from ..message import check_channel
from .base import Backoff, Gap, Start, Timing, Transport
from .credentials import Credentials, GetToken
from .feed import Feed
from .http import Server
from .ladder import Ladder, Memory, Moved
from .link import LINK_CHANNELS, Link, LinkState, StateChanged
from .messages import Messages
from .probe import best_proven
from .publisher import Ack, Publisher
from .transports import TRANSPORTS

__all__ = ["AsyncClient", "Messages", "Notice", "encode_data", "start_of"]

logger = logging.getLogger("oncecast.client")

BUFFER = 1024  # messages that wait for the application, per subscription
PATIENCE = 60.0  # seconds that a publish is retried for: longer than a restart takes
PUBLISHERS = 8  # connections that publish at once; further publishes wait for one
PROBE_FIRST = 1 / 8  # of the longest pause between looks for a better transport; then twice as long each time
_CURSOR = re.compile(r"[A-Za-z0-9._~-]{1,1024}", re.ASCII)  # opaque to us, but it goes into a URL

Notice = Moved | StateChanged | Gap
Kind = Literal["transport", "state", "gap"]
KINDS: dict[str, type] = {"transport": Moved, "state": StateChanged, "gap": Gap}


class AsyncClient:
    """A client of the server at `url` (`http[s]://host[:port][/prefix]`).

    `transports` are tried in their order; it goes back up by itself. `get_token` returns a token, or a coroutine that
    does; it is called again after a 401. `debug` says in the log `oncecast.client` what happens. `buffer` is how many
    messages wait for a slow application, per subscription. `patience` is how many seconds a publish is retried for,
    None for ever. `memory` lets several clients share what they find out about the way to a server. `sleep` waits
    between attempts and between polls. Use it on one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        transports: Sequence[str] = tuple(TRANSPORTS),
        get_token: GetToken | None = None,
        debug: bool = False,
        buffer: int = BUFFER,
        patience: float | None = PATIENCE,
        memory: Memory | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        rng: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if not transports or not set(transports) <= set(TRANSPORTS) or len(set(transports)) < len(transports):
            raise UsageError(f"transports: name some of {', '.join(TRANSPORTS)}, each once, not {list(transports)}")
        if buffer < 1:
            raise UsageError("buffer: at least one message must fit")
        self.server = Server.parse(url)
        self._names = tuple(transports)
        self._credentials = Credentials(get_token)
        self._buffer = buffer
        self._patience = patience
        self._memory = memory
        self._timing = timing
        self._rng = rng
        self._sleep = sleep
        self._listeners: dict[type, list[Callable[[Any], object]]] = {}
        self._links: list[Link] = []
        self._publishers = asyncio.Semaphore(PUBLISHERS)
        self._idle: list[Publisher] = []
        self._stepped = asyncio.Event()
        self._prober: asyncio.Task[None] | None = None
        self._closed = False
        self._ladder = Ladder(
            self._names,
            proof=timing.proof,
            on_move=self._moved,
            start=None if memory is None else memory.get(str(self.server)),
        )
        if debug:
            _log_aloud()

    @property
    def transport(self) -> str:
        """The transport in use, or to be used next."""
        return self._ladder.current

    def on(self, kind: Kind, callback: Callable[[Any], object]) -> None:
        """Call back with each notice of a kind: `transport` (`Moved`), `state` (`StateChanged`), `gap` (`Gap`)."""
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of notice: use {', '.join(KINDS)}")
        self._listeners.setdefault(KINDS[kind], []).append(callback)

    def subscribe(
        self, *channels: str, after: str | None = None, last: int | None = None, since: float | None = None
    ) -> Messages:
        """Subscribe to channels. Use it with `async with`, or iterate; see `Messages`.

        It begins `after` a cursor, or `latest` (the default), or `earliest`; or with the `last` N messages of each
        channel; or with those `since` a Unix time. Raises `Refusal` for a name that is no channel's, `UsageError`.
        """
        self._check_open()
        if not channels:
            raise UsageError("a subscription needs a channel")
        start = start_of(after, last, since)
        feed = Feed([check_channel(channel) for channel in channels], start, limit=self._buffer)
        self._link_for(feed).add(feed)
        if self._prober is None and len(self._names) > 1:
            self._prober = asyncio.create_task(self._probe())
        return Messages(feed, self._tell)

    async def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message and return its acknowledgement (`id`, `durability`).

        A `str` is published as text, `bytes` as binary data, anything else as JSON. It is retried with one key, of its
        own if none is given, so it is in the log once however many acknowledgements are lost. Raises `Refused`;
        `Broken` past the patience, and then it may or may not be in the log; `Unreachable` where no attempt has reached
        a server; `Refusal` or `UsageError` for what can't be sent.
        """
        self._check_open()
        content, content_type = encode_data(data)
        async with self._publishers:
            publisher = self._idle.pop() if self._idle else self._new_publisher()
            try:
                return await publisher.publish(channel, content, content_type=content_type, event=event, key=key)
            finally:
                if self._closed:
                    await publisher.close()
                else:
                    self._idle.append(publisher)

    async def close(self) -> None:
        """End the subscriptions and close the connections. Closing twice is fine."""
        self._closed = True
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.wait({self._prober})
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

    def _link_for(self, feed: Feed) -> Link:
        """Return the first connection that has room and none of the feed's channels: none carries a channel twice."""
        wanted = set(feed.channels)
        for link in self._links:
            carried = link.channels
            if not wanted & carried and len(wanted | carried) <= LINK_CHANNELS:
                return link
        link = Link(
            self.server,
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

    def _transport(self, name: str) -> Transport:
        return TRANSPORTS[name](
            self.server, timing=self._timing, sleep=self._sleep, authorize=self._credentials.headers
        )

    def _backoff(self) -> Backoff:
        return Backoff(rng=self._rng, sleep=self._sleep)

    def _new_publisher(self) -> Publisher:
        return Publisher(
            self.server,
            timing=self._timing,
            backoff=self._backoff(),
            patience=self._patience,
            credentials=self._credentials,
        )

    # Going back up

    async def _probe(self) -> None:
        """Look for a better transport, for as long as there is one and somebody listens."""
        first = self._timing.probe * PROBE_FIRST
        pause, risen = first, 0.0  # `risen`: when a probe last got through
        while True:
            better = self._ladder.better
            try:
                async with asyncio.timeout(pause if better else None):
                    await self._stepped.wait()
            except TimeoutError:
                pass
            else:  # a new choice is given a moment; one that does not last is not tried again at once
                self._stepped.clear()
                if time.monotonic() - risen > self._timing.probe:
                    pause = first
                continue
            channel = next((name for link in self._links for name in sorted(link.channels)), None)
            if channel is None:
                continue
            began = time.monotonic()
            name = await best_proven(better, self._transport, channel, self._timing)
            if name is not None and name in self._ladder.better:
                risen = time.monotonic()
                self._ladder.works(name)
            pause = min(max(pause, first) * 2, self._timing.probe)
            pause = max(0.0, pause - (time.monotonic() - began))

    # Notices

    def _moved(self, moved: Moved) -> None:
        logger.info("%s: from %s to %s: %s", self.server, moved.before, moved.after, moved.reason)
        if self._memory is not None:
            self._memory.put(str(self.server), moved.after)
        self._stepped.set()
        self._tell(moved)
        for link in self._links:
            link.wake()

    def _state_changed(self, change: StateChanged) -> None:
        match change.after:
            case LinkState.LISTENING:
                logger.info("%s: listening over %s", self.server, change.reason)
            case LinkState.WAITING:
                logger.info("%s: %s; trying again in %.1f s", self.server, change.reason, change.seconds)
            case state:
                logger.debug("%s: %s %s", self.server, state.value, change.reason)
        self._tell(change)

    def _tell(self, notice: Notice) -> None:
        for callback in self._listeners.get(type(notice), ()):
            try:
                callback(notice)
            except Exception:
                logger.exception("a callback for notices has failed")


def start_of(after: str | None, last: int | None, since: float | None) -> Start:
    """Return where a subscription begins. Raises `UsageError`."""
    if (after is not None) + (last is not None) + (since is not None) > 1:
        raise UsageError("give one of after, last and since")
    if last is not None:
        if last < 0:
            raise UsageError("last: a number of messages is not below 0")
        return Start("last", str(last))
    if since is not None:
        if not 0 <= since < math.inf:
            raise UsageError("since: give Unix seconds")
        return Start("since", f"{since:.3f}")
    if after is not None and _CURSOR.fullmatch(after) is None:
        raise UsageError(f"{after!r} is not a cursor: give a message's id, or latest, or earliest")
    return Start("after", "latest" if after is None else after)


def encode_data(data: Any) -> tuple[bytes, str]:
    """Return a message's bytes and content type. Raises `UsageError` for what JSON can't say."""
    if isinstance(data, str):
        return data.encode(), "text/plain; charset=utf-8"
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), "application/octet-stream"
    try:
        return msgspec.json.encode(data), "application/json"
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the data can't be written as JSON: {error}") from None


def _log_aloud() -> None:
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)
