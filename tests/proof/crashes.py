"""Crashes and restarts of a real deployment under load, judged by the applications' messages and by the log's file.

A deployment has workers on one file, publishers that retry until the acknowledgement, and subscribers over the four
transports. `kills` repeatedly SIGKILLs a worker at a random moment; `pauses` stops one for a second or two; `wipes`
SIGKILLs everything and starts it again; `rolls` replaces every worker in turn. At the end each subscriber has each
message of its channels once and in order, without a gap, and each acknowledged message is in the file once.

`python -m tests.proof.crashes --kills 200` runs it. `--seed N` repeats the random choices, but not the moments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, zip_longest
from pathlib import Path

from benchmarks.base import percentile
from oncecast import AsyncClient, Gap, LinkState, StateChanged
from oncecast.client.transports import TRANSPORTS

from .client_oracle import Wrong
from .deployment import Deployment, Stored

__all__ = ["Load", "Report", "judge_log", "judge_seen", "kills", "main", "pauses", "rolls", "wipes"]

WORKERS = 4
PUBLISHERS = 4
SUBSCRIBERS = 40
CHANNELS = ("a", "b", "c", "d")
INTERVAL = 0.05  # seconds between two messages of a publisher
ARRIVAL_SECONDS = 60.0  # until everything has arrived
LIVE_SECONDS = 2.0  # the target, at the 99th percentile


@dataclass(slots=True)
class Report:
    """What a run met. `outages` are the seconds from a lost connection until a subscriber listens again."""

    name: str
    times: int = 0
    published: int = 0
    delivered: int = 0
    outages: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def outage(self, percent: float) -> float:
        """Return a percentile of the outages, or 0 where there was none."""
        return percentile(self.outages, percent) if self.outages else 0.0

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.times} times in {self.seconds:.0f} s; {self.published} messages, {self.delivered} "
            f"deliveries, each once and in order; {len(self.outages)} connections lost, live again after "
            f"{self.outage(50):.2f} s (median), {self.outage(99):.2f} s (p99), {self.outage(100):.2f} s (worst)"
        )


class Load:
    """Publishers and subscribers of a deployment, from `begin` to `judge`."""

    def __init__(self, deployment: Deployment, rng: random.Random, report: Report, *, subscribers: int) -> None:
        self._deployment = deployment
        self._rng = rng
        self._report = report
        self._acknowledged: dict[str, bytes] = {}
        self._listeners = [
            _Listener(deployment.url, transport, rng.sample(CHANNELS, 2), report)
            for _, transport in zip(range(subscribers), cycle(TRANSPORTS), strict=False)
        ]
        self._publishers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def begin(self) -> None:
        """Wait until all subscribers are attached, then publish."""
        await asyncio.gather(*(listener.begin() for listener in self._listeners))
        self._publishers = [asyncio.create_task(self._publish(number)) for number in range(PUBLISHERS)]

    async def end(self) -> None:
        """Stop the publishers, wait until everything has arrived, and judge. Raises `Wrong`."""
        self._stopping.set()
        await asyncio.wait_for(asyncio.gather(*self._publishers), ARRIVAL_SECONDS)
        stored = self._deployment.stored()
        by_channel: dict[str, list[Stored]] = defaultdict(list)
        for message in stored:
            by_channel[message.channel].append(message)
        judge_log(stored, self._acknowledged)
        for listener in self._listeners:
            await listener.judge(by_channel)
        self._report.published += len(stored)
        self._report.delivered += sum(len(listener.seen) for listener in self._listeners)

    async def close(self) -> None:
        """End what still runs."""
        for task in self._publishers:
            task.cancel()
        await asyncio.gather(*self._publishers, return_exceptions=True)
        await asyncio.gather(*(listener.close() for listener in self._listeners))

    async def _publish(self, number: int) -> None:
        rng = random.Random(self._rng.random())
        async with AsyncClient(self._deployment.url, patience=None) as client:
            count = 0
            while not self._stopping.is_set():
                count += 1
                data = f"{number} {count}"
                ack = await client.publish(rng.choice(CHANNELS), data)
                self._acknowledged[ack.id] = data.encode()
                await asyncio.sleep(INTERVAL * rng.uniform(0.5, 1.5))


class _Listener:
    """A subscriber over one transport, and what its application saw."""

    def __init__(self, url: str, transport: str, channels: Sequence[str], report: Report) -> None:
        self.seen: list[Stored] = []
        self._transport = transport
        self._channels = channels
        self._report = report
        self._client = AsyncClient(url, transports=[transport])
        self._client.on("state", self._changed)
        self._lost_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    async def begin(self) -> None:
        messages = self._client.subscribe(*self._channels, after="earliest")
        await messages.__aenter__()
        self._task = asyncio.create_task(self._listen(messages.events()))

    async def _listen(self, events: AsyncIterator[object]) -> None:
        async for item in events:
            if isinstance(item, Gap):
                raise Wrong(f"{self._transport}: a gap where nothing is missing: {item}")
            data = item.data if isinstance(item.data, bytes) else str(item.data).encode()  # type: ignore[attr-defined]
            self.seen.append(Stored(item.id, item.channel, data))  # type: ignore[attr-defined]
            self._more.set()

    def _changed(self, change: StateChanged) -> None:
        now = time.monotonic()
        if change.before is LinkState.LISTENING and self._lost_at is None:
            self._lost_at = now
        elif change.after is LinkState.LISTENING and self._lost_at is not None:
            self._report.outages.append(now - self._lost_at)
            self._lost_at = None

    async def judge(self, stored: Mapping[str, Sequence[Stored]]) -> None:
        """Wait for the last of each channel, then compare all. Raises `Wrong`."""
        wanted = sum(len(stored[channel]) for channel in self._channels)
        assert self._task is not None
        end = time.monotonic() + ARRIVAL_SECONDS
        while len(self.seen) < wanted and not self._task.done() and time.monotonic() < end:
            self._more.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), 1)
        if self._task.done():
            self._task.result()
        for channel in self._channels:
            judge_seen(
                self._transport, channel, [each for each in self.seen if each.channel == channel], stored[channel]
            )

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()


# -- the oracle


def judge_log(stored: Sequence[Stored], acknowledged: Mapping[str, bytes]) -> None:
    """Hold the log against what was acknowledged, by id; each publisher numbers its data. Raises `Wrong`."""
    by_id = {message.id: message.data for message in stored}
    if lost := [key for key, data in acknowledged.items() if by_id.get(key) != data]:
        raise Wrong(f"acknowledged, and not in the log: {lost[:3]}")
    if twice := [data for data, count in Counter(message.data for message in stored).items() if count > 1]:
        raise Wrong(f"in the log more than once: {twice[:3]}")
    last: dict[bytes, int] = {}
    for message in stored:
        publisher, count = message.data.split()
        if int(count) <= last.get(publisher, 0):
            raise Wrong(f"out of order in the log: {message}")
        last[publisher] = int(count)


def judge_seen(name: str, channel: str, seen: Sequence[Stored], stored: Sequence[Stored]) -> None:
    """Hold what a subscriber saw of a channel against all that is in the log of it. Raises `Wrong`."""
    pairs = enumerate(zip_longest(seen, stored))
    at = next((number for number, (each, other) in pairs if each != other), None)
    if at is not None:
        raise Wrong(
            f"{name}, {channel}: {len(seen)} seen of {len(stored)}; at {at} {seen[at : at + 2]} and not "
            f"{stored[at : at + 2]}"
        )


# -- the runs


async def kills(times: int, seed: int, *, workers: int = WORKERS, subscribers: int = SUBSCRIBERS) -> Report:
    """SIGKILL a random worker, so many times, at random moments. Raises `Wrong`."""
    async with _loaded("SIGKILL of a worker", seed, workers, subscribers) as (deployment, rng, report):
        while report.times < times:
            await asyncio.sleep(rng.uniform(0.1, 1.9))
            if deployment.kill_worker(rng) is not None:
                report.times += 1
    return report


async def pauses(times: int, seed: int, *, workers: int = WORKERS, subscribers: int = SUBSCRIBERS) -> Report:
    """SIGSTOP a random worker for a second or two, so many times. Raises `Wrong`."""
    async with _loaded("SIGSTOP of a worker", seed, workers, subscribers) as (deployment, rng, report):
        for _ in range(times):
            await asyncio.sleep(rng.uniform(0.1, 0.9))
            stopped = deployment.kill_worker(rng, signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(0.5, 2.0))
            if stopped is not None:
                os.kill(stopped, signal.SIGCONT)
                report.times += 1
    return report


async def wipes(times: int, seed: int, *, workers: int = WORKERS, subscribers: int = SUBSCRIBERS) -> Report:
    """SIGKILL everything and start it again, so many times. Raises `Wrong`."""
    async with _loaded("SIGKILL of everything", seed, workers, subscribers) as (deployment, rng, report):
        for _ in range(times):
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            await deployment.kill_all()
            await deployment.start()
            report.times += 1
    return report


async def rolls(times: int, seed: int, *, workers: int = WORKERS, subscribers: int = SUBSCRIBERS) -> Report:
    """Replace every worker in turn, so many times; a strict client meanwhile meets no error. Raises `Wrong`."""
    async with _loaded("rolling restart", seed, workers, subscribers) as (deployment, _, report):
        strict = asyncio.create_task(_connect_again_and_again(deployment.port))
        try:
            for _ in range(times):
                await deployment.roll()
                report.times += 1
                if strict.done():
                    break
        finally:
            strict.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await strict
    return report


async def _connect_again_and_again(port: int) -> None:
    """Poll on a new connection each time: none may be refused, reset or answered with an error."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            writer.write(b"GET /v1/channels/a?last=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Wrong(f"a new connection was answered with {answer[:100]!r}")
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def _loaded(
    name: str, seed: int, workers: int, subscribers: int
) -> AsyncIterator[tuple[Deployment, random.Random, Report]]:
    """A deployment under load; on the way out everything has to arrive, and is judged."""
    rng = random.Random(seed)
    report = Report(name)
    settings = {
        "retention__messages": 1_000_000,
        "limits__drain_seconds": 5,
        "limits__frames_per_second": 10_000,
    }
    with tempfile.TemporaryDirectory(prefix="oncecast-crashes-", dir="/var/tmp") as folder:
        async with Deployment(Path(folder), workers=workers, settings=settings) as deployment:
            load = Load(deployment, rng, report, subscribers=subscribers)
            try:
                await load.begin()
                began = time.monotonic()
                yield deployment, rng, report
                report.seconds = time.monotonic() - began
                await load.end()
            except Wrong as error:
                raise Wrong(f"seed {seed}: {error}\n{deployment.log[-2000:]}") from error
            finally:
                await load.close()


def main(arguments: list[str]) -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.crashes")
    parser.add_argument("--kills", type=int, default=0, help="how often to SIGKILL a random worker")
    parser.add_argument("--pauses", type=int, default=0, help="how often to stop a random worker for a moment")
    parser.add_argument("--wipes", type=int, default=0, help="how often to SIGKILL everything and start it again")
    parser.add_argument("--rolls", type=int, default=0, help="how often to replace every worker in turn")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    for run in (kills, pauses, wipes, rolls):
        times = getattr(options, run.__name__)
        if times:
            report = asyncio.run(run(times, options.seed))
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
            if run is kills and report.outage(99) > LIVE_SECONDS:
                sys.stdout.write(f"missed: live again within {LIVE_SECONDS:g} s at the 99th percentile\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
