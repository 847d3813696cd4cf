"""Short polling: ask, take what is there, wait a moment, ask again.

The last resort: it works through anything that lets a GET pass.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from .base import StartQuery, TransportEvent
from .http import OverHttp
from .poll import PageReader

__all__ = ["ShortPollTransport"]


class ShortPollTransport(OverHttp):
    """The transport. `sleep` waits between polls that found nothing new."""

    async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = self._connection()
        try:
            poll = PageReader(connection, starts)
            while True:
                place = poll.start
                for event in await poll.page():
                    yield event
                if poll.pause or not poll.full or poll.start == place:  # a cache may repeat a full page
                    await self._sleep(max(poll.pause, self._timing.interval))
        finally:
            await connection.close()
