"""One listener of a comparison: it stays on one transport, counts what comes, and comes back when it is cut off.

Invariant: it goes on from its cursor, so a cut loses nothing; it ends only where the server refuses, or by being
cancelled. It never turns to another transport: that one is measured beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable

from ..client.backoff import Backoff
from ..client.base import Authorize, CursorMoved, Received, StartQuery, Transport
from ..client.dialing import Endpoint
from ..client.failures import Broken, Refused
from ..client.timing import Timing
from ..client.transports import TRANSPORTS
from ..client.values import Gap
from .tally import CountedConnection, Tally

__all__ = ["ComparedListener"]

RETURN_SECONDS = 0.2  # the first pause after a cut, up to which it is random; it doubles
MOST_RETURN_SECONDS = 3.0


class ComparedListener:
    """A listener to `channel` over `transport`. `phase`, from 0 to 1, is where in the interval its first poll falls.

    `attached` is set once the server has answered, or has refused for good.
    """

    def __init__(
        self,
        transport: str,
        endpoint: Endpoint,
        channel: str,
        tally: Tally,
        *,
        timing: Timing,
        authorize: Authorize,
        phase: float = 1.0,
        failure: Callable[[], str] = str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._transport: Transport = TRANSPORTS[transport](
            endpoint,
            timing=timing,
            sleep=self._sleep,
            authorize=authorize,
            connection=functools.partial(CountedConnection, tally=tally, clock=clock),
        )
        self._channel = channel
        self._tally = tally
        self._seen = tally.listener()
        self._phase = phase
        self._failure = failure
        self._start = StartQuery("after", "latest")
        self._backoff = Backoff(rng=random.random, sleep=asyncio.sleep, base=RETURN_SECONDS, cap=MOST_RETURN_SECONDS)
        self.attached = asyncio.Event()

    async def run(self) -> None:
        """Listen until the server refuses."""
        while True:
            try:
                await self._listen()
            except Refused as error:
                self._tally.refused += 1
                self._tally.reason = str(error)
                self.attached.set()
                return
            except Broken as error:
                self._tally.broken += 1
                self._tally.reason = self._failure() or str(error)
                await self._backoff.sleep(self._backoff.next_delay(error.retry_after))

    async def _listen(self) -> None:
        async with contextlib.aclosing(self._transport({self._channel: self._start})) as events:
            async for event in events:
                if isinstance(event, Received):
                    self._tally.arrive(self._seen, event.message.data, self._clock())
                    self._start = StartQuery("after", event.message.id)
                elif isinstance(event, Gap):
                    self._tally.gaps += 1
                    self._start = StartQuery("after", event.cursor)
                elif isinstance(event, CursorMoved):
                    self._start = StartQuery("after", event.cursor)
                    self._attach()

    def _attach(self) -> None:
        self._backoff.reset()
        if not self.attached.is_set():
            self._tally.attached += 1
            self.attached.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait between polls. Only a first pause is shorter, so that listeners do not all poll at once."""
        seconds *= self._phase
        self._phase = 1.0
        await asyncio.sleep(seconds)
