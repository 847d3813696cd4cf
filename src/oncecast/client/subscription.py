"""A subscription that does not end: it reconnects and resumes from its cursors, whichever transport it has.

Invariant: to whoever iterates, each channel's messages come once and in order, or a `Gap` says what is missing
(`places.py`).

`oncecast sub` stands on it: one subscription, on a connection of its own. An application has `AsyncClient`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..message import check_channel
from .base import (
    UNREACHABLE_CAP_SECONDS,
    Backoff,
    Broken,
    ChannelRefused,
    ClientMessage,
    Gap,
    Received,
    RetryHint,
    Start,
    Timing,
    Transport,
    Unreachable,
    Unsuited,
)
from .http import Server
from .places import Places
from .transports import TRANSPORTS

__all__ = ["TRANSPORTS", "Attached", "Lost", "Subscription", "subscribe"]

PATIENCE = 2  # attempts that break before they attach, until `auto` turns to the next transport


@dataclass(frozen=True, slots=True)
class Attached:
    """The subscription listens, over this transport."""

    transport: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke, or was not made; the next attempt follows in `seconds`."""

    reason: str
    seconds: float


Notice = ClientMessage | Gap | Attached | Lost


class Subscription:
    """Channels, a place in each, and the transports to read them with, best first."""

    def __init__(
        self,
        channels: Sequence[str],
        transports: Mapping[str, Transport],
        *,
        start: Start,
        backoff: Backoff,
    ) -> None:
        self._places = Places(channels, start)
        self._transports = tuple(transports.items())
        self._backoff = backoff
        self._chosen = 0

    @property
    def places(self) -> dict[str, Start]:
        """Where each channel would be read from next."""
        return self._places.starts

    async def notices(self) -> AsyncGenerator[Notice, None]:
        """Yield messages and gaps, and between them what becomes of the connection, for ever.

        Close the generator to leave. Raises `Refused` where no attempt can succeed.
        """
        early = 0  # breaks before attaching, one after another
        while True:
            name, transport = self._transports[self._chosen]
            seen, hint = 0, None
            try:
                async with contextlib.aclosing(transport(self.places)) as events:
                    async for event in events:
                        if isinstance(event, RetryHint):
                            hint = event.seconds
                            continue
                        seen += 1
                        if seen == 1:
                            early = 0
                            yield Attached(name)
                        # A server that lets go of everyone who has just attached is not asked again at once.
                        if isinstance(event, Received) or seen > len(self.places):
                            self._backoff.reset()
                        if isinstance(event, ChannelRefused):
                            raise event.error
                        if notice := self._places.take(event):
                            yield notice
            except Unsuited as error:
                if self._chosen + 1 == len(self._transports):
                    raise
                self._chosen, early = self._chosen + 1, 0
                yield Lost(f"{name} does not work here: {error}", 0.0)
                continue
            except Broken as error:
                wait = hint if error.retry_after is None else error.retry_after
                cap = UNREACHABLE_CAP_SECONDS if isinstance(error, Unreachable) else math.inf
                delay = self._backoff.next_delay(wait, cap=cap)
                yield Lost(str(error), delay)
                if not seen and wait is None and not isinstance(error, Unreachable):
                    early += 1
                if early == PATIENCE:
                    self._chosen, early = (self._chosen + 1) % len(self._transports), 0
                await self._backoff.sleep(delay)


def subscribe(
    server: Server,
    channels: Sequence[str],
    *,
    transport: str = "auto",
    start: Start,
    timing: Timing,
    rng: Callable[[], float] = random.random,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Subscription:
    """Return a subscription over one transport, or over all of them in turn (`auto`).

    Raises `Refusal` for a channel name that is none, `UsageError` for a transport that is not known.
    """
    if not channels:
        raise UsageError("a subscription needs a channel")
    names = list(TRANSPORTS) if transport == "auto" else [transport]
    if not set(names) <= set(TRANSPORTS):
        raise UsageError(f"{transport!r} is not a transport: use auto, {', '.join(TRANSPORTS)}")
    return Subscription(
        [check_channel(channel) for channel in channels],
        {name: TRANSPORTS[name](server, timing=timing, sleep=sleep) for name in names},
        start=start,
        backoff=Backoff(rng=rng, sleep=sleep),
    )
