"""Seeded schedules of faults of a real broker server, under load, judged by what applications saw.

A schedule has one server (`broker_cluster`), two or three nodes, each on a connection of its own, publishers and
listeners (`broker_load`). At some nodes a publish waits for the broker's return. One fault after another is made and
mended (`broker_mischief`). `broker_oracle` judges what was seen and what is in the log; the run itself holds the times:
a node that can't reach its broker says so on `/readyz` within `READY_SECONDS`, and is ready and delivers within
`READY_SECONDS` of its return.

Where this is milder than it might be:
* A stream is held to stay connected, if it had all that was acknowledged 0.2 s before. One that is behind needs the
  history, and is sent to another node.
* A second during which the machine did not let this process run is no second of a node (`Cluster.seconds`).
* A log of RabbitMQ is not killed within 3 s after it was made: `LEADER_SECONDS` of `broker_mischief` says why.

`python -m tests.proof.broker_faults --help` says how to run many. A schedule ends within `SCHEDULE_SECONDS`. Its
servers end with it, also when the program is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncecast.message import Cursor
from scripts.broker_servers.kinds import KINDS

from .broker_cluster import Cluster
from .broker_load import Load
from .broker_mischief import Mischief
from .client_oracle import Wrong

__all__ = ["BrokerRun", "Report", "main", "run"]

FAULTS = 3  # of a schedule
SCHEDULE_SECONDS = 300.0
WAITS = (0.0, 2.0)  # seconds that a publish waits at a node
TICK_SECONDS = 0.02
BUSY_SECONDS = 0.3  # of the processor in one turn of the loop, which has all nodes and clients of three schedules
LAG_SECONDS = 2.0  # for which nothing may hold the loop, on a machine that is busy
AT_ONCE = 3  # schedules: most of their time is waiting
LOG_LINES = 100  # shown of a schedule that is wrong, and the end of its server's logs
HELP = """\
Each schedule starts a server of its own, makes three faults under load and prints a line. The last line has the totals.
The exit status is 1 if any was wrong; `--schedules 1 --seed N` repeats one. 50 schedules, three at a time, on two
cores: about 3 minutes with Redis, Valkey or NATS; about 10 with RabbitMQ or Kafka, whose servers take 3 to 6 seconds
to start, and up to three times as long where the machine is busy."""

_log: ContextVar[deque[str]] = ContextVar("log")  # of the schedule that logs


@dataclass(slots=True)
class Report:
    """What schedules met.

    `stood` counts the streams that were live before a fault, and stayed connected, at each fault. `served` are the
    messages that were polled while the broker was away. `ready` are the seconds from a server's return until each node
    was ready and what was then published had come to each of those streams. `busy` are seconds of the processor in one
    turn of the loop, `lag` the seconds on the clock.
    """

    schedules: int = 0
    published: int = 0
    delivered: int = 0
    gaps: int = 0
    stood: int = 0
    served: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    noticed: float = 0.0
    ready: float = 0.0
    busy: float = 0.0
    lag: float = 0.0

    def add(self, other: Report) -> None:
        """Add another report."""
        self.schedules += other.schedules
        self.published += other.published
        self.delivered += other.delivered
        self.gaps += other.gaps
        self.stood += other.stood
        self.served += other.served
        self.faults += other.faults
        self.noticed = max(self.noticed, other.noticed)
        self.ready = max(self.ready, other.ready)
        self.busy = max(self.busy, other.busy)
        self.lag = max(self.lag, other.lag)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{faults}; {self.published} messages acknowledged, {self.delivered} delivered once and in order, "
            f"{self.gaps} gaps where they belong; {self.stood} streams stayed connected, {self.served} messages were "
            f"polled while the broker was away; not ready after at most {self.noticed:.1f} s, ready again and "
            f"delivering after at most {self.ready:.1f} s; the loop was busy for at most {self.busy:.2f} s, and held "
            f"for at most {self.lag:.2f} s"
        )


class BrokerRun:
    """One schedule, on a server of a kind whose files are in `folder`. Without `long` it makes no long pause."""

    def __init__(self, kind: str, seed: int, folder: Path, *, long: bool) -> None:
        self.report = Report(schedules=1)
        self.drawn: Sequence[str] = ()
        self._rng = random.Random(seed)
        self._cluster = Cluster(kind, folder)
        self._long = long

    async def play(self, names: Sequence[str] | None = None) -> Report:
        """Start everything, make these faults in order, or some that are drawn, and judge. Raises `Wrong`."""
        rng, cluster, report = self._rng, self._cluster, self.report
        async with contextlib.AsyncExitStack() as stack:
            await cluster.start([rng.choice(WAITS) for _ in range(rng.choice([2, 3]))], stack)
            start = Cursor(cluster.nodes[0].server.node.log.epoch, 0)
            load = Load(cluster.nodes, start, rng)
            mischief = Mischief(cluster, load, rng, long=self._long)
            self.drawn = names or [rng.choice(sorted(mischief.faults)) for _ in range(FAULTS)]
            await load.begin(stack)
            watched = asyncio.create_task(self._watch())
            try:
                for name in self.drawn:
                    await _drive(load.tasks, self._suffer(name, mischief, load))
                await _drive(load.tasks, load.finish())
            finally:
                for task in (watched, *load.tasks):
                    task.cancel()
                await asyncio.gather(watched, *load.tasks, return_exceptions=True)
                report.published, report.delivered, report.gaps = load.counts()
                report.noticed, report.ready = cluster.noticed, cluster.ready
                report.stood, report.served = mischief.stood, mischief.served
        load.judge(gaps=mischief.gaps, loss=mischief.loss)
        if report.busy > BUSY_SECONDS:
            raise Wrong(f"something computed in the loop for {report.busy:.2f} s")
        if report.lag > LAG_SECONDS:
            raise Wrong(f"something held the loop for {report.lag:.1f} s")
        return report

    def tail(self) -> str:
        """Return the end of the server's logs."""
        return self._cluster.primary.tail()

    async def _suffer(self, name: str, mischief: Mischief, load: Load) -> None:
        await asyncio.sleep(self._rng.uniform(0.2, 0.8))
        try:
            await mischief.faults[name]()
        except Wrong as error:
            raise Wrong(f"{name}: {error}") from None
        self.report.faults[name] += 1
        load.shake()

    async def _watch(self) -> None:
        while True:
            began, busy = time.monotonic(), time.thread_time()
            await asyncio.sleep(TICK_SECONDS)
            lag, busy = time.monotonic() - began - TICK_SECONDS, time.thread_time() - busy
            self.report.busy = max(self.report.busy, busy)
            self.report.lag = max(self.report.lag, lag)
            if lag - busy > TICK_SECONDS:  # this process did not run
                self._cluster.starved += lag - busy


async def _drive(tasks: Sequence[asyncio.Task[None]], doing: Coroutine[Any, Any, None]) -> None:
    """Do something while the load runs. A task of the load that fails is the schedule's failure."""
    task = asyncio.create_task(doing)
    try:
        ended, _ = await asyncio.wait((task, *tasks), return_when=asyncio.FIRST_COMPLETED)
        while task not in ended:
            for each in ended:
                each.result()
            left = [each for each in (task, *tasks) if not each.done()]
            ended, _ = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run(kind: str, seed: int, *, names: Sequence[str] | None = None, long: bool = True) -> Report:
    """Run one schedule on a server of a kind. Raises `Wrong`, which says what it had made until then."""
    place = os.environ.get("TMPDIR", "/var/tmp")  # not /tmp, which may be memory
    with tempfile.TemporaryDirectory(prefix="oncecast-broker-", dir=place) as folder:
        one = BrokerRun(kind, seed, Path(folder), long=long)
        try:
            async with asyncio.timeout(SCHEDULE_SECONDS):
                return await one.play(names)
        except (Exception, TimeoutError) as error:
            if (lines := _log.get(None)) is not None:
                lines.extend(one.tail().splitlines())
            said = str(error) if isinstance(error, Wrong) else repr(error)
            raise Wrong(f"{said} ({', '.join(one.drawn)}; {one.report})") from error


# The command -----------------------------------------------------------------------------------------------------


class _Memory(logging.Handler):
    """Keeps the last lines that were logged in the course of a schedule."""

    def emit(self, record: logging.LogRecord) -> None:
        if (lines := _log.get(None)) is not None:
            lines.append(f"{record.relativeCreated / 1000:.3f} {self.format(record)}")


async def _one(kind: str, seed: int, turns: asyncio.Semaphore, total: Report) -> bool:
    """Run a schedule, print its line, and return whether it was right."""
    async with turns:
        _log.set(deque(maxlen=LOG_LINES))
        began = time.monotonic()
        try:
            report = await run(kind, seed)
        except Wrong as error:
            lines = "".join(f"  {line}\n" for line in _log.get())
            _print(f"{lines}{kind}, seed {seed}: WRONG after {time.monotonic() - began:.1f} s: {error}")
            return False
        _print(f"{kind}, seed {seed}: right, {time.monotonic() - began:.1f} s: {report}")
        total.add(report)
        return True


async def _many(kind: str, seeds: Sequence[int], at_once: int) -> int:
    loop, task, began = asyncio.get_running_loop(), asyncio.current_task(), time.monotonic()
    assert task is not None

    def interrupt() -> None:
        _print("interrupted: its servers are ended, which takes as long as one needs to start")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    turns, total = asyncio.Semaphore(at_once), Report()
    async with asyncio.TaskGroup() as group:
        running = {seed: group.create_task(_one(kind, seed, turns, total)) for seed in seeds}
    wrong = [seed for seed, one in running.items() if not one.result()]
    said = f"; wrong: {', '.join(map(str, wrong))}" if wrong else ""
    _print(
        f"{kind}: {total.schedules} of {len(seeds)} schedules right, seeds {seeds[0]} to {seeds[-1]}{said}, in "
        f"{time.monotonic() - began:.0f} s: {total}"
    )
    return 1 if wrong else 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run many; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.broker_faults", description=HELP, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--broker", choices=list(KINDS), default="redis")
    parser.add_argument("--schedules", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the next ones follow")
    parser.add_argument(
        "--at-once", type=int, default=AT_ONCE, help=f"schedules that run at once, {AT_ONCE} by default"
    )
    options = parser.parse_args(arguments)
    KINDS[options.broker].install()
    logging.getLogger().addHandler(_Memory(logging.WARNING))
    seeds = range(options.seed, options.seed + options.schedules)
    try:
        return asyncio.run(_many(options.broker, seeds, options.at_once))
    except asyncio.CancelledError:
        _print("interrupted: its servers have ended")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
