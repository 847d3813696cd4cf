"""Long polling: ask, and let the server hold the answer until there is a message.

The first request never waits: it fetches the cursor, without which a break before the first message would lose it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from .base import StartQuery, TransportEvent
from .http import OverHttp
from .poll import PageReader

__all__ = ["LongPollTransport"]


class LongPollTransport(OverHttp):
    """The transport. A server that answers early with nothing new is asked again after `sleep`."""

    async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        loop = asyncio.get_running_loop()
        connection = self._connection()
        try:
            poll = PageReader(connection, starts)
            wait = 0.0
            while True:
                asked, place = loop.time(), poll.start
                events = await poll.page(wait=wait)
                took = loop.time() - asked  # the server's time: what the events are used for is the application's
                for event in events:
                    yield event
                pause = poll.pause
                if (wait or poll.full) and poll.start == place and took < self._timing.interval:
                    pause = max(pause, self._timing.interval)  # a server that won't wait, or a cache before it
                if pause:
                    await self._sleep(pause)
                wait = 0.0 if poll.full else self._timing.wait
        finally:
            await connection.close()
