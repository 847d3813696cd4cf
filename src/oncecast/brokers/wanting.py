"""The channels that a session follows, on servers that deliver only those that are subscribed to.

A channel is wanted, then subscribed to, then stands, then is confirmed to the sink. It is confirmed where a probe comes
back that was sent after its subscription stood: every message above that number will be handed over.

Invariants
* A channel is confirmed only while it is wanted, and while no other subscription to it is on its way.
* What is wanted and unwanted reaches the server in the order in which it was asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from .handover import Handover
from .probes import PROBE_SECONDS, Probes
from .session import GuardedSink


class ChannelFeed(Protocol):
    """What `Wanting` asks of a session's connection. Its methods raise `Lost`."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for channels. Once each stands, `Wanting.stands` is called."""
        ...

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Ask for channels no longer."""
        ...

    async def send_probe(self, token: bytes) -> None:
        """Write a probe that comes back to `Wanting.reached`, in the order of the log."""
        ...


class Wanting:
    """See the module. `node` begins each token, where probes of other nodes are heard too."""

    def __init__(self, feed: ChannelFeed, sink: GuardedSink, place: Handover, node: bytes = b"") -> None:
        self.channels: set[str] = set()
        self.probes = Probes[bytes]()
        self._feed = feed
        self._sink = sink
        self._place = place
        self._node = node
        self._token = 0
        self._changes: deque[tuple[bool, Sequence[str]]] = deque()
        self._changed = asyncio.Event()
        self._asked: dict[str, int] = {}  # subscriptions asked for that do not stand yet
        self._standing: list[str] = []  # to be confirmed by the next probe
        self._confirming: dict[bytes, Sequence[str]] = {}  # by token: what is confirmed where it comes back

    def want(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        fresh = [channel for channel in channels if channel not in self.channels]
        self.channels.update(fresh)
        for channel in fresh:
            self._asked[channel] = self._asked.get(channel, 0) + 1
        self._changes.append((True, fresh))
        self._changed.set()

    def unwant(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels."""
        self.channels.difference_update(channels)
        self._place.forget(channels)
        self._changes.append((False, channels))
        self._changed.set()

    def stands(self, channel: str) -> None:
        """Take note that one subscription to a channel stands."""
        left = self._asked.pop(channel, 1) - 1
        if left:
            self._asked[channel] = left
        elif channel in self.channels and channel not in self._place.last:
            self._standing.append(channel)
            self._changed.set()

    def new_token(self) -> bytes:
        """Return a token that no other probe of this node has."""
        self._token += 1
        return self._node + b"%d" % self._token

    def reached(self, token: bytes, seq: int) -> None:
        """Take a probe that has come back, and the number of the last message before it."""
        self._sink.probed()
        self._place.advance(self._sink, seq)
        confirmed = [
            channel
            for channel in dict.fromkeys(self._confirming.pop(token, ()))
            if channel in self.channels and channel not in self._asked and channel not in self._place.last
        ]
        if confirmed:
            self._place.last.update(dict.fromkeys(confirmed, seq))
            self._sink.wanted(confirmed, seq)
        self.probes.came(token)

    async def change(self) -> None:
        """Subscribe and unsubscribe as asked for, and confirm what stands, until the connection is lost."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._changes:
                wanted, channels = self._changes.popleft()
                await (self._feed.subscribe if wanted else self._feed.unsubscribe)(channels)
            if self._standing:
                standing, self._standing = self._standing, []
                await self.probe(standing)

    async def probe_on(self) -> None:
        """Probe each second until the connection is lost."""
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_SECONDS)

    async def probe(self, confirm: Sequence[str] = ()) -> None:
        """Probe, and confirm channels at the place in the log at which the probe comes back. Raises `Lost`."""
        token = self.new_token()
        if confirm:
            self._confirming[token] = confirm
        try:
            await self.probes.send(token, self._feed.send_probe(token))
        finally:
            self._confirming.pop(token, None)
