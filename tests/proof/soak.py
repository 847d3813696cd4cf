"""A day in the life of three nodes: a load that does not end, restarts, a failover, and nothing lost or leaked.

`python -m tests.proof.soak --minutes 60`. Three nodes on Redis, with a replica and a sentinel, stand behind HAProxy
with the file of `deploy/proxies`. Subscribers of all four transports drop their connections at random times. The nodes
restart one after the other every five minutes, or every quarter of a shorter run. In the middle between two of these
the primary of Redis is killed. Each subscriber has to have each message of its channel once and in order. What the
failover itself loses, as a Redis replica is asynchronous, has to be in a gap. `soak_report` says how memory and
descriptors are judged. The status is 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from oncecast import AsyncClient
from oncecast.message import Cursor

from .client_oracle import Wrong
from .soak_crowd import ARRIVAL_SECONDS, Crowd, Second, Verdict, channel_name
from .soak_graph import render_soak
from .soak_judge import lost_in
from .soak_report import Mark, Moment, Report, merged
from .soak_site import Site

__all__ = ["Plan", "main", "run"]

ROOT = Path(__file__).parents[2]
SUBSCRIBERS, RATE = 3000, 300.0
PROCESSES = 2  # of subscribers
PUBLISHERS = 64  # each has one publish under way, and 0.2 s for it
BEHIND_SECONDS = 1.0  # that a publisher makes up for; a longer pause is lost time
RESTART_SECONDS = 300.0
CHECKS_SECONDS = 6.0  # between two nodes of a restart: HAProxy takes a node in after two checks, two seconds apart
IDLE_SECONDS = 20.0  # for a node to close the connections of a proxy that has ended


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run. `seconds` is how long is published; the other times follow from it, and from `every`.

    `every` is the time from the begin of one rolling restart to the next.
    """

    seconds: float
    subscribers: int = SUBSCRIBERS
    rate: float = RATE
    failover: bool = True
    seed: int = 1
    every: float | None = None
    processes: int = PROCESSES

    @property
    def between(self) -> float:
        """Seconds from the begin of one rolling restart to the next."""
        return self.every or min(RESTART_SECONDS, self.seconds / 4)

    @property
    def settle(self) -> float:
        """Seconds between two nodes of a restart."""
        return min(CHECKS_SECONDS, self.between / 15)

    @property
    def retention(self) -> float:
        """Seconds that a message is kept: with it the log is full before the nodes are judged."""
        return max(min(60.0, self.between / 3), 30.0)  # no less: a failover takes several seconds

    @property
    def channels(self) -> int:
        """Ten subscribers have each channel, on average."""
        return max(self.subscribers // 10, 4)

    def events(self) -> list[tuple[float, str]]:
        """Return when what happens."""
        times = [number * self.between for number in range(1, int(self.seconds / self.between) + 1)]
        found = [(at, "restart") for at in times if at < self.seconds - self.between / 2]
        if self.failover:
            found.append(((int(self.seconds / 2 / self.between) + 0.5) * self.between, "failover"))
        return sorted(found)


class _Publishers:
    """Publish at a steady rate, each message until it is acknowledged; a long pause is not made up for.

    `acknowledged` has, for each channel, the log's number of each of its messages.
    """

    def __init__(self, url: str, plan: Plan) -> None:
        self.acknowledged = [array("q") for _ in range(plan.channels)]
        self.silent = 0.0  # the longest time without an acknowledgement
        self._url = url
        self._count = min(PUBLISHERS, plan.channels)
        self._interval = self._count / plan.rate
        self._last = time.monotonic()
        self._ending = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish until the block is left, and then until the last is acknowledged."""
        self._last = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._publish(number))
            yield
            self._ending.set()

    async def _publish(self, number: int) -> None:
        due = time.monotonic() + self._interval * number / self._count
        async with AsyncClient(self._url, patience=None) as client:
            while not self._ending.is_set():
                for channel in range(number, len(self.acknowledged), self._count):
                    await asyncio.sleep(max(due - time.monotonic(), 0))
                    if self._ending.is_set():
                        return
                    own = self.acknowledged[channel]
                    ack = await client.publish(channel_name(channel), [channel, len(own) + 1, time.monotonic_ns()])
                    now = time.monotonic()
                    own.append(Cursor.parse(ack.id).seq)
                    self.silent, self._last = max(self.silent, now - self._last), now
                    due = max(due + self._interval, now - BEHIND_SECONDS)


class _Crowds:
    """The processes of subscribers, and what they say."""

    def __init__(self, port: int, plan: Plan, report: Report) -> None:
        self._report = report
        life = min(40.0, max(plan.between / 4, 1.0))
        self._crowds = [
            Crowd(
                port=port,
                first=number,
                end=plan.subscribers,
                step=plan.processes,
                channels=plan.channels,
                life=life,
                rest=min(2.0, life / 2),
                poll=min(3.0, life / 4),
                seed=plan.seed,
            )
            for number in range(plan.processes)
        ]
        self._processes: list[asyncio.subprocess.Process] = []
        self._reading: list[asyncio.Task[Verdict]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start them, and wait until each subscriber has begun. Ends them."""
        pipe = asyncio.subprocess.PIPE
        try:
            for crowd in self._crowds:
                arguments = ("-m", "tests.proof.soak_crowd", msgspec.json.encode(crowd).decode())
                self._processes.append(
                    await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe, cwd=ROOT)
                )
            for process in self._processes:
                assert process.stdout is not None
                if not await asyncio.wait_for(process.stdout.readline(), 2 * ARRIVAL_SECONDS):
                    raise Wrong("a process of subscribers ended before they had begun")
            self._reading = [asyncio.create_task(self._read(process)) for process in self._processes]
            yield
        finally:
            for task in self._reading:
                task.cancel()
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await asyncio.gather(*self._reading, return_exceptions=True)

    async def judge(self, lasts: Sequence[int]) -> Verdict:
        """Tell them the last number of each channel, and return what they have seen once they have it."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(lasts) + b"\n")
            await process.stdin.drain()
        return merged(await asyncio.wait_for(asyncio.gather(*self._reading), 2 * ARRIVAL_SECONDS))

    def check(self) -> None:
        """Raise what one of them has failed with."""
        for task in self._reading:
            if task.done():
                task.result()

    async def _read(self, process: asyncio.subprocess.Process) -> Verdict:
        assert process.stdout is not None
        text = b""
        while chunk := await process.stdout.read(1 << 16):
            *lines, text = (text + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b'{"subscribers"'):
                    return msgspec.json.decode(line, type=Verdict)
                self._count(msgspec.json.decode(line, type=Second))
        raise Wrong("a process of subscribers ended")

    def _count(self, second: Second) -> None:
        if moments := self._report.moments:
            moments[-1].deliveries += second.deliveries
            moments[-1].delays.update(second.delays)


async def run(plan: Plan, folder: Path) -> Report:
    """Run a plan, its files in `folder`, and judge. The report has what did not hold; raises where there is none."""
    report = Report(plan.subscribers, plan.channels, plan.rate, plan.seed, 0.4 * plan.between)
    settings: dict[str, object] = {
        "retention__seconds": plan.retention,
        "retention__key_seconds": 300,
        "limits__drain_seconds": 10,
    }
    async with Site(folder, settings) as site:
        before = [usage.descriptors if (usage := site.look(number)) else 0 for number in range(len(site.nodes))]
        publishers = _Publishers(site.url, plan)
        crowds = _Crowds(site.port, plan, report)
        async with crowds.running():
            began = time.monotonic()
            async with publishers.running():
                watching = asyncio.create_task(_watch(site, report, began))
                try:
                    await _happen(plan, site, report, crowds, began)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
            report.seconds, report.outage = time.monotonic() - began, publishers.silent
            report.verdict = await crowds.judge([len(each) for each in publishers.acknowledged])
        site.end_proxy()
        report.idle = await _idle(site, before)
    report.published = sum(map(len, publishers.acknowledged))
    report.verdict.first_gap -= began if report.verdict.gaps else 0
    report.wrongs = list(report.verdict.wrongs)
    try:
        report.lost = len(lost_in(report.verdict.skips, publishers.acknowledged))
    except Wrong as wrong:
        report.wrongs.append(str(wrong))
    report.wrongs += [
        f"node {number} logged an exception" for number, node in enumerate(site.nodes, 1) if "Traceback" in node.log
    ]
    return report


async def _happen(plan: Plan, site: Site, report: Report, crowds: _Crowds, began: float) -> None:
    """Restart and fail over at the plan's times, and return at its end."""
    for at, kind in [*plan.events(), (plan.seconds, "end")]:
        while (left := began + at - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 1.0))
            crowds.check()
        if kind == "end":
            return
        since = time.monotonic() - began
        await (site.roll(plan.settle) if kind == "restart" else asyncio.to_thread(site.redis.fail_over))
        report.marks.append(Mark(kind, since, time.monotonic() - began))


async def _watch(site: Site, report: Report, began: float) -> None:
    """Note each second what the nodes take."""
    for second in range(1, 1 << 20):
        await asyncio.sleep(max(began + second - time.monotonic(), 0))
        nodes = [site.look(number) for number in range(len(site.nodes))]
        report.moments.append(Moment(time.monotonic() - began, nodes))


async def _idle(site: Site, before: Sequence[int]) -> list[tuple[int, int]]:
    """Wait until the nodes have no more descriptors than before, for a while; return both."""
    end = time.monotonic() + IDLE_SECONDS
    while True:
        after = [usage.descriptors if (usage := site.look(number)) else 0 for number in range(len(before))]
        if all(now <= then for now, then in zip(after, before, strict=True)) or time.monotonic() > end:
            return list(zip(before, after, strict=True))
        await asyncio.sleep(0.1)


def main(arguments: list[str]) -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long is published (60)")
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS, help=f"of all transports ({SUBSCRIBERS})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"publishes a second ({RATE:g})")
    parser.add_argument("--restart-minutes", type=float, metavar="N", help="between restarts (5, or a quarter of all)")
    parser.add_argument("--seed", type=int, default=1, help="repeats the random choices, but not the moments")
    parser.add_argument("--graph", type=Path, default=Path("build/soak.svg"), metavar="FILE", help="(build/soak.svg)")
    options = parser.parse_args(arguments)
    every = options.restart_minutes and options.restart_minutes * 60
    plan = Plan(options.minutes * 60, options.subscribers, options.rate, seed=options.seed, every=every)
    place = os.environ.get("TMPDIR", "/var/tmp")  # not /tmp, which may be memory
    with tempfile.TemporaryDirectory(prefix="oncecast-soak-", dir=place) as name:
        report = asyncio.run(run(plan, Path(name)))
    options.graph.parent.mkdir(parents=True, exist_ok=True)
    options.graph.write_text(render_soak(report), "utf-8")
    sys.stdout.write(f"{report}\nthe graph: {options.graph}\n")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
