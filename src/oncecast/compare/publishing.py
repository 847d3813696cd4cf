"""The publisher of a comparison: it hands each message at its moment to every server, and notes when.

Invariant: a message's moment does not depend on what became of those before it, so a slow server is not asked less
often; how late a message was is kept in `late`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from ..client.async_client import AsyncClient
from ..client.credentials import GetToken
from ..client.failures import Broken, Refused
from ..client.url import ServerUrl
from .stopping import EarlyEnd
from .tally import PublishTimes, text_of

__all__ = ["OnProgress", "SchedulePublisher"]

PATIENCE = 2.0  # seconds that a publish is retried for
LAST_SECONDS = 5.0  # beyond that, for the last publishes
LOST_SECONDS = 10.0  # without a publish that succeeds, until the server counts as dead
UNDER_WAY = 256  # publishes at once; a later one waits, and is late
LOOK_SECONDS = 0.1  # between two reports of progress

OnProgress = Callable[[float, str], None]  # from 0 to 1, and what happens


class SchedulePublisher:
    """Publishes to `channel` on all `servers`. `times` are where it notes when, by the server's name."""

    def __init__(
        self,
        servers: Mapping[str, ServerUrl],
        times: Mapping[str, PublishTimes],
        channel: str,
        size: int,
        *,
        end: EarlyEnd,
        get_token: GetToken | None = None,
        proxy: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clients = {
            name: AsyncClient(str(url), get_token=get_token, proxy=proxy, patience=PATIENCE)
            for name, url in servers.items()
        }
        self._times = times
        self._channel = channel
        self._size = size
        self._end = end
        self._clock = clock
        self._places = asyncio.Semaphore(UNDER_WAY)
        self._succeeded = clock()
        self.published = 0
        self.unpublished = 0
        self.late = 0.0
        self.failure: Broken | Refused | None = None  # of the last publish that failed

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()

    async def check(self) -> None:
        """Publish to each server what no listener counts. Raises `Broken` or `Refused`: it shows what is wrong."""
        for name, client in self._clients.items():
            times = self._times[name]
            await client.publish(self._channel, text_of(times.run, len(times), self._size))

    async def warm_up(self, count: int) -> None:
        """Publish the messages before `count`, one after the other. Raises `Broken` or `Refused`."""
        for number in range(count):
            if not self._end.asked:
                await self._publish(number)
                if self.failure is not None:
                    raise self.failure
        self.published = 0

    async def follow(self, moments: Sequence[float], first: int, seconds: float, progress: OnProgress) -> None:
        """Publish the messages from `first` on at their moments, and go on until `seconds` have passed."""
        tasks: set[asyncio.Task[None]] = set()
        began = self._clock()

        async def sleep_until(moment: float) -> bool:
            while (left := began + moment - self._clock()) > 0 and not self._end.asked:
                progress(min(1.0, (self._clock() - began) / seconds), "publishing")
                await self._end.or_until(asyncio.sleep(min(left, LOOK_SECONDS)), 1.0)
            return not self._end.asked

        try:
            for number, moment in enumerate(moments, first):
                if not await sleep_until(moment):
                    break
                await self._places.acquire()
                self.late = max(self.late, self._clock() - began - moment)
                task = asyncio.create_task(self._publish_in_place(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await sleep_until(seconds)
            if tasks:
                await asyncio.wait(tasks, timeout=PATIENCE + LAST_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _publish_in_place(self, number: int) -> None:
        try:
            await self._publish(number)
        finally:
            self._places.release()

    async def _publish(self, number: int) -> None:
        """Hand a message to all servers at once, in an order that changes, so that none is always the last."""
        names = list(self._clients)
        turn = number % len(names)
        outcomes = await asyncio.gather(*(self._publish_to(name, number) for name in names[turn:] + names[:turn]))
        failures = [outcome for outcome in outcomes if outcome is not None]
        if not failures:
            self.published += 1
            self._succeeded = self._clock()
            return
        self.unpublished += 1
        self.failure = failures[0]
        if self._clock() - self._succeeded > LOST_SECONDS:
            self._end.ask(f"the server has taken no message for {LOST_SECONDS:g} s: {failures[0]}")

    async def _publish_to(self, name: str, number: int) -> Broken | Refused | None:
        times = self._times[name]
        times.sent[number] = self._clock()
        try:
            await self._clients[name].publish(self._channel, text_of(times.run, number, self._size))
        except (Broken, Refused) as error:
            return error
        return None
