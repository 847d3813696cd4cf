"""A comparison as it runs: attach all listeners, warm up, publish by the schedule, wait for the last, count.

Owns the relays, the listeners' tasks and the publisher. Invariant: it ends: each step has a deadline, and what is
missing by then is said in the report.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from ..client.credentials import Credentials, GetToken
from ..client.dialing import Endpoint
from ..client.timing import Timing
from ..client.url import ProxyUrl
from .advice import equivalent_of, verdict_of
from .counters import LaneCounters, beyond_nobody, compared_lane
from .grounds import ALL, CompareGround
from .listener import ComparedListener
from .plan import ComparePlan
from .publishing import OnProgress, SchedulePublisher
from .relay import Relay
from .report import ORDER, ComparisonReport, LaneMarks
from .stopping import EarlyEnd
from .tally import PublishTimes, Tally

__all__ = ["Measurement"]

T = TypeVar("T")

WARM = 3  # messages before the first that counts: connections are open and code is loaded then
ATTACH_SECONDS = 15.0  # for a listener to be attached, beyond a few round trips
ARRIVE_SECONDS = 5.0  # for a message to arrive, beyond a poll's interval and a few round trips
LOOK_SECONDS = 0.05  # between two looks at what has arrived
SILENT_SECONDS = 60.0  # without a byte of a stream, until it counts as broken: a server's heartbeats are more often
A_SECOND = 40  # listeners of a transport that connect: a server bounds the connections of one address
MOST_MARKS = 4000  # of a lane in a picture


class Measurement:
    """One comparison. `run` returns the report, `marks` then has what a picture needs. `stop` ends it early."""

    def __init__(
        self,
        plan: ComparePlan,
        ground: CompareGround,
        *,
        channel: str | None = None,
        get_token: GetToken | None = None,
        through: str | None = None,
        on_progress: OnProgress = lambda _done, _what: None,
    ) -> None:
        run = secrets.token_hex(3)
        self._plan = plan
        self._ground = ground
        self._channel = channel or f"compare-{run}"
        self._get_token = get_token
        self._through = None if through is None else ProxyUrl.parse(through)
        self._progress = on_progress
        self._clock = time.perf_counter  # a loop's own time may be in whole milliseconds
        self._moments = plan.moments()
        self._numbers = range(WARM, WARM + len(self._moments))
        times = {name: PublishTimes(run, self._numbers.stop) for name in ground.servers}
        self._end = EarlyEnd()
        self._publisher = SchedulePublisher(
            ground.servers, times, self._channel, plan.bytes, end=self._end, get_token=get_token, proxy=through
        )
        self._tallies = {each: Tally(times[ground.server_of(each)]) for each in ORDER}
        self._relays: dict[str, Relay] = {}
        self._listeners: list[ComparedListener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = 0.0

    def stop(self, reason: str) -> None:
        """End it now; the report has what there is. Of several reasons the first one counts."""
        self._end.ask(reason)

    async def run(self) -> ComparisonReport:
        """Measure. Raises `Broken` or `Refused` where the first publishes fail, as then nothing can be compared."""
        plan, publisher = self._plan, self._publisher
        watch = asyncio.create_task(self._watch())
        try:
            self._progress(0.0, "connecting")
            await publisher.check()
            await self._listen()
            connected = self._read()
            self._progress(0.0, "warming up")
            await publisher.warm_up(WARM)
            await self._await_arrivals(range(WARM))
            cpu_before = await self._ground.cpu()
            before = self._read()
            self._began = self._clock()
            await publisher.follow(self._moments, self._numbers.start, plan.seconds, self._progress)
            await self._await_arrivals(self._numbers)
            after = self._read()
            elapsed = self._clock() - self._began
            cpu_after = await self._ground.cpu()
        finally:
            watch.cancel()
            await asyncio.wait({watch})
            await self._close()
        lanes = [
            compared_lane(
                name,
                self._tallies[name],
                (connected[name], before[name], after[name]),
                self._numbers,
                publisher.published,
                ours=self._ground.ours,
                cpu_seconds=beyond_nobody(cpu_before, cpu_after, name),
            )
            for name in ORDER
        ]
        of_all = cpu_after[ALL] - cpu_before[ALL] if ALL in cpu_before and ALL in cpu_after else None
        return ComparisonReport(
            schedule=plan.schedule if plan.rate is None else f"{plan.rate:g} a second",
            describes=plan.describe(),
            server=self._ground.name,
            seconds=elapsed,
            listeners=plan.listeners,
            size=plan.bytes,
            poll_interval=plan.poll_interval,
            rtt_ms=plan.rtt_ms,
            through="" if self._through is None else str(self._through),
            published=publisher.published,
            unpublished=publisher.unpublished,
            publish_failure="" if publisher.failure is None else str(publisher.failure),
            late=publisher.late,
            ended=self._end.reason,
            cpu_of_all=of_all,
            lanes=lanes,
            equivalent=equivalent_of(lanes, elapsed),
            verdict=verdict_of(lanes, plan),
        )

    def marks(self) -> Mapping[str, LaneMarks]:
        """Return what a picture shows of each transport, thinned to a bounded number of marks."""
        found = {}
        for name, tally in self._tallies.items():
            pairs = [
                (at - self._began, delay)
                for at, delay in zip(tally.arrived, tally.delays, strict=True)
                if at - delay >= self._began
            ]
            empty = [at - self._began for at in tally.empty if at >= self._began]
            found[name] = LaneMarks(_thinned(pairs), _thinned(empty))
        return found

    async def _watch(self) -> None:
        self._end.ask(await self._ground.ended())

    async def _listen(self) -> None:
        """Start a relay for each transport and its listeners behind it; wait until each is attached or refused."""
        plan, credentials = self._plan, Credentials(self._get_token)
        timing = Timing(interval=plan.poll_interval, idle=SILENT_SECONDS + 2 * plan.rtt)
        for name in ORDER:
            url = self._ground.servers[self._ground.server_of(name)]
            relay = self._relays[name] = Relay(url, through=self._through, rtt=plan.rtt)
            await relay.start()
            for number in range(plan.listeners):
                listener = ComparedListener(
                    name,
                    Endpoint(url, proxy=relay.proxy),
                    self._channel,
                    self._tallies[name],
                    timing=timing,
                    authorize=credentials.headers,
                    phase=(number + 1) / plan.listeners,
                    failure=functools.partial(getattr, relay, "failure"),
                )
                self._listeners.append(listener)
                self._tasks.add(asyncio.create_task(_later(number / A_SECOND, listener.run)))
        await self._end.or_until(self._attached(), ATTACH_SECONDS + 8 * plan.rtt + plan.listeners / A_SECOND)

    async def _attached(self) -> None:
        for listener in self._listeners:
            await listener.attached.wait()

    async def _await_arrivals(self, numbers: range) -> None:
        """Wait until these messages have come to all who are attached, but not for ever."""
        publisher = self._publisher
        end = self._clock() + ARRIVE_SECONDS + self._plan.poll_interval + 4 * self._plan.rtt
        wanted = len(numbers) - publisher.unpublished
        while self._clock() < end and not self._end.asked:
            tallies = self._tallies.values()
            if all(tally.received(numbers.start, numbers.stop) >= tally.attached * wanted for tally in tallies):
                return
            await self._end.or_until(asyncio.sleep(LOOK_SECONDS), 1.0)

    def _read(self) -> Mapping[str, LaneCounters]:
        now = self._clock()
        return {
            name: LaneCounters(relay.traffic.at(now), self._tallies[name].requests, self._tallies[name].page_bytes)
            for name, relay in self._relays.items()
        }

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._publisher.close()
        for relay in self._relays.values():
            await relay.close()
        for task in self._tasks:
            if not task.cancelled():
                task.result()  # a defect of a listener is raised here


def _thinned(values: Sequence[T]) -> Sequence[T]:
    return values[:: max(1, -(-len(values) // MOST_MARKS))]


async def _later(seconds: float, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await asyncio.sleep(seconds)
    await run()
