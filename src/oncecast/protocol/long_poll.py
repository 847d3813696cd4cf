"""Long polling: read the log now, or wait up to `wait` seconds for the next message.

While it waits it is a subscription whose blocks are empty: the hub's write is only the news that there is something
to read. Invariant: it answers once.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.node import Node
from ..core.place import Place
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import Gap, Message, Start
from .base import Link, PollRequest, Query, Reply, Settings, after_cursor


class _Nudge:
    """The format of a subscriber that only wants to know that there is something."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return nothing."""
        return b""

    def block(self, parts: list[bytes]) -> bytes:
        """Return nothing."""
        return b""


_NUDGE = _Nudge()


def _announce_nothing(place: Place) -> None:
    """Say nothing: the answer will."""


def parse_wait(settings: Settings, query: Query) -> float:
    """Return for how many seconds a poll waits. Raises `Refusal` where that is too long."""
    wait = query.wait or 0.0
    if wait > settings.wait_seconds:
        raise Refusal("request_invalid", f"wait is at most {settings.wait_seconds:g} seconds: ask again after it.")
    return wait


class LongPoll:
    """One waiting request. `done` is called once, with the reply or the refusal, unless the link closes before."""

    __slots__ = ("_done", "_link", "_node", "_request", "_subscription", "_until", "_waiting")

    def __init__(
        self,
        node: Node,
        settings: Settings,
        link: Link,
        channels: tuple[str, ...],
        query: Query,
        if_none_match: str | None,
        done: Callable[[Reply | Refusal], None],
    ) -> None:
        wait = parse_wait(settings, query)
        self._node = node
        self._link = link
        self._done = done
        self._request = PollRequest(node, settings, channels, query, if_none_match)
        self._subscription: Subscription | None = None
        self._waiting = True
        self._until = link.now() + wait
        self._request.answer(self._read, even_if_nothing=wait == 0)

    # -- what the hub calls

    def write(self, block: bytes, /) -> None:
        """There is something to read."""
        self._answer()

    def gap(self, gap: Gap, /) -> None:
        """The answer will have the gap."""
        self._answer()

    def refuse(self, refusal: Refusal, /) -> None:
        """Answer with an error."""
        self._leave()
        self._reply(refusal)

    # -- what the link calls

    def received(self, data: bytes, /) -> None:
        """The link keeps what comes meanwhile for the next request."""

    def blocked(self) -> None:
        """An answer before this one fills the socket; this one will wait behind it."""

    def drained(self) -> None:
        """See `blocked`."""

    def woken(self, now: float, /) -> None:
        """The wait is over."""
        self._answer()

    def drain(self) -> None:
        """Answer now: the next poll goes to another server."""
        self._until = 0.0
        self._answer()

    def closed(self) -> None:
        """Nobody waits any more."""
        self._waiting = False
        self._leave()

    # -- helpers

    def _read(self, reply: Reply | Refusal | None) -> None:
        """Take the first answer; with nothing new, wait."""
        if not self._waiting:
            return
        if reply is not None:
            self._reply(reply)
        elif self._link.now() >= self._until:  # reading took that long
            self._request.answer(self._reply)
        else:
            self._link.wake_at(self._until)
            self._subscribe(after_cursor(self._request.here))

    def _subscribe(self, start: Start) -> None:
        try:
            self._subscription = self._node.subscribe(self._request.channels, start, self, _NUDGE, _announce_nothing)
        except Refusal as refusal:
            self._reply(refusal)

    def _answer(self) -> None:
        if self._leave():
            self._request.answer(self._reply)

    def _reply(self, reply: Reply | Refusal | None) -> None:
        if self._waiting:
            assert reply is not None
            self._waiting = False
            self._done(reply)

    def _leave(self) -> bool:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return False
        self._node.hub.detach(subscription)
        return True
