"""Short polling: ask, take what is there, wait a moment, ask again.

The last resort: it works through anything that lets a GET pass.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from .base import Authorize, Event, Start, Timing, anonymous
from .http import Connection, Server
from .poll import Poll

__all__ = ["ShortPoll"]


class ShortPoll:
    """The transport. `sleep` waits between polls that found nothing new."""

    def __init__(
        self,
        server: Server,
        *,
        timing: Timing,
        sleep: Callable[[float], Awaitable[object]],
        authorize: Authorize = anonymous,
    ) -> None:
        self._server = server
        self._timing = timing
        self._authorize = authorize
        self._sleep = sleep

    async def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = Connection(self._server, timing=self._timing, authorize=self._authorize)
        try:
            poll = Poll(connection, starts)
            while True:
                for event in await poll.page():
                    yield event
                if not poll.full:
                    await self._sleep(self._timing.interval)
        finally:
            await connection.close()
