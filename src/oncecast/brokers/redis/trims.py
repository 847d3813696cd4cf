"""Trimming: one node at a time looks at the channels, one after the other; a script removes what is over."""

from __future__ import annotations

import asyncio

from ...message import Retention, RetentionPolicy
from . import scripts
from .line import RedisLine

SWEEP_SECONDS = 10.0
SWEEP_CHANNELS = 200
LEASE = "lease"


class RedisTrims:
    """The trimming of one node. `own` names it; `policy` gives a channel's retention by its name."""

    def __init__(self, line: RedisLine, own: str, policy: RetentionPolicy) -> None:
        self._line = line
        self._own = own
        self._policy = policy
        self._next = b"0"

    async def sweep_on(self) -> None:
        """Trim from time to time, until the connection is lost."""
        while True:
            await self._sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def trim(self, channel: str, retention: Retention) -> None:
        """Trim a channel to what is to be kept, by the server's clock."""
        seconds, micros = await self._line.command("TIME")
        oldest = f"{max(0.0, int(seconds) + int(micros) / 1e6 - retention.seconds) * 1000:.0f}"
        while await self._line.script(scripts.TRIM, channel, retention.messages, oldest):
            pass  # each round gives other commands a turn

    async def _sweep(self) -> None:
        """Trim the next channels, if no other node does."""
        line = self._line
        lease = ("SET", f"{line.prefix}:{LEASE}", self._own, "NX", "PX", int(SWEEP_SECONDS * 900))
        if await line.command(*lease) is None:
            return
        self._next, found = await line.command("ZSCAN", f"{line.prefix}:c", self._next, "COUNT", SWEEP_CHANNELS)
        for name in found[0::2]:
            channel = name.decode(errors="replace")
            retention = self._policy(channel)
            await self.trim(channel, Retention(max(1, retention.messages), retention.seconds))
