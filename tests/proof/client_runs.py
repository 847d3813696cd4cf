"""Seeded runs of the Python client through a faulty pipe, between two nodes, judged by what the application received.

A run has two servers on one shared broker. Every connection of its clients goes through a pipe that cuts, stalls, slows
and swallows, and changes between the nodes. Some clients publish, some listen, some listen slowly. Then the faults end,
and everything has to arrive. `client_oracle` judges.

`python -m tests.proof.client_runs --runs 500` runs many and reports their faults; it fails with the seed of the first
wrong run. `--seed N --runs 1` repeats that run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oncecast import AsyncClient, Broken, ClientMessage, Gap, Messages, Moved, Timing
from oncecast.client.transports import TRANSPORTS
from oncecast.errors import OncecastError
from oncecast.message import Cursor, Message
from oncecast.server.server import Server
from oncecast.server.settings import Limits, RetentionSettings, Settings
from oncecast.testing.pipe import NO_PLAN, Faults, FaultyPipe, Plan

from .client_oracle import Wrong, judge, judge_log
from .shared_broker import SharedBroker

__all__ = ["Report", "main", "run"]

EPOCH = "k3f9x"  # and the number of the life
START = Cursor(f"{EPOCH}0", 0)
CHANNELS = ("a", "b", "c")
MESSAGES = 40  # in the faulty part of a run
SECONDS = 60.0  # until everything has arrived, once the pipe is healed
# A tenth of a client's real times or less, so that a second has the faults of hours. SLEEP_FACTOR shortens `interval`,
# which is slept.
TIMING = Timing(
    connect=1.0,
    answer=0.5,
    idle=0.4,
    wait=0.3,
    interval=1.0,
    attach=0.2,
    proof=0.15,
    probe=0.25,
    grace=0.03,
)
SLEEP_FACTOR = 0.02


@dataclass(slots=True)
class Report:
    """What runs met."""

    runs: int = 0
    messages: int = 0
    gaps: int = 0
    moves: int = 0
    connections: int = 0
    cuts: int = 0

    def add(self, other: Report) -> None:
        """Add another report's counts."""
        self.runs += other.runs
        self.messages += other.messages
        self.gaps += other.gaps
        self.moves += other.moves
        self.connections += other.connections
        self.cuts += other.cuts


# A run -----------------------------------------------------------------------------------------------------------


async def run(seed: int) -> Report:
    """Run once; everything that is drawn is drawn from the seed. Raises `Wrong`, or `TimeoutError` where it hangs."""
    rng = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        cluster = _Cluster(rng.choice([5, 10_000, 10_000]), stack)
        await cluster.begin_life()
        pipe = FaultyPipe(cluster.address(rng), _plan, seed=seed)
        await stack.enter_async_context(pipe)
        return await _Run(rng, cluster, pipe).play(stack)


class _Cluster:
    """Two nodes on one broker, which can lose its log: then two new ones begin another life of it."""

    def __init__(self, keep: int, stack: contextlib.AsyncExitStack) -> None:
        self.brokers: list[SharedBroker] = []
        self.trims = keep < MESSAGES
        self._settings = Settings(
            port=0,
            limits=Limits(heartbeat_seconds=0.1, drain_seconds=0),
            retention=RetentionSettings(messages=keep),
        )
        self._stack = stack
        self._servers: list[Server] = []

    async def begin_life(self) -> None:
        """Begin with an empty log; what was there before is gone."""
        broker = SharedBroker(f"{EPOCH}{len(self.brokers)}", time.time)
        old, self._servers = self._servers, []
        for _ in range(2):
            server = Server(self._settings, broker=broker.node())
            await server.start()
            self._stack.push_async_callback(server.stop, 0.05)
            self._servers.append(server)
        self.brokers.append(broker)
        for server in old:
            server.cut_off()

    def address(self, rng: random.Random) -> tuple[str, int]:
        """Return one of the nodes."""
        return "127.0.0.1", rng.choice(self._servers).port

    @property
    def lives(self) -> dict[str, Sequence[Message]]:
        """Every log there was."""
        return {broker.epoch: broker.messages for broker in self.brokers}


class _Run:
    def __init__(self, rng: random.Random, cluster: _Cluster, pipe: FaultyPipe) -> None:
        self._rng = rng
        self._cluster = cluster
        self._pipe = pipe
        self._report = Report(runs=1)
        self._acknowledged: dict[str, str] = {}
        self._others: list[str] = []

    async def play(self, stack: contextlib.AsyncExitStack) -> Report:
        """Publish and listen through the faults, heal, wait for everything, judge."""
        rng = self._rng
        for number in range(rng.randrange(4)):  # some are there before anybody listens
            await self._publish_directly(CHANNELS[number % 3], f"early {number}")
        listeners = [
            _Listener(self._client(stack, rng.choice([4, 1024])), channels, rng)
            for channels in (("a", "b"), ("b", "c", "a"))
        ]
        shared = self._client(stack, rng.choice([4, 1024]))
        listeners += [_Listener(shared, (channel,), rng) for channel in CHANNELS]
        listening = [asyncio.create_task(listener.listen()) for listener in listeners]
        publishing = [asyncio.create_task(self._publish(self._client(stack), n)) for n in range(2)]
        try:
            await asyncio.wait_for(self._disturb(publishing), 3 * SECONDS)
            self._pipe.plan = lambda number, rng: NO_PLAN
            self._pipe.cut()
            last = {channel: await self._publish_directly(channel, f"last {channel}") for channel in CHANNELS}
            for listener in listeners:
                try:
                    await asyncio.wait_for(listener.until(last), SECONDS)
                except TimeoutError:
                    raise Wrong(f"the last never came: {listener}") from None
        finally:
            for task in (*listening, *publishing):
                task.cancel()
            await asyncio.gather(*listening, *publishing, return_exceptions=True)
        lives = self._cluster.lives
        for listener in listeners:
            for channel in listener.channels:
                seen = [item for item in listener.seen if item.channel == channel]
                judge(channel, lives, START, seen, trimmed=self._cluster.trims)
            self._report.messages += sum(isinstance(item, ClientMessage) for item in listener.seen)
            self._report.gaps += sum(isinstance(item, Gap) for item in listener.seen)
        judge_log(lives, self._acknowledged, self._others)
        self._report.connections, self._report.cuts = self._pipe.connections, self._pipe.cuts
        return self._report

    def _client(self, stack: contextlib.AsyncExitStack, buffer: int = 1024) -> AsyncClient:
        rng = random.Random(self._rng.random())
        first = rng.randrange(len(TRANSPORTS))
        client = AsyncClient(
            f"http://127.0.0.1:{self._pipe.port}",
            transports=list(TRANSPORTS)[first:] if rng.random() < 0.5 else list(TRANSPORTS),
            buffer=buffer,
            timing=TIMING,
            rng=rng.random,
            sleep=_sleep,
        )
        client.on("transport", self._moved)
        stack.push_async_callback(client.close)
        return client

    def _moved(self, moved: Moved) -> None:
        self._report.moves += 1

    async def _publish(self, client: AsyncClient, number: int) -> None:
        for index in range(MESSAGES // 2):
            data = f"{number} {index}"
            try:
                ack = await client.publish(CHANNELS[(number + index) % 3], data)
            except OncecastError:
                self._others.append(data)
            else:
                self._acknowledged[data] = ack.id
            await asyncio.sleep(0)

    async def _publish_directly(self, channel: str, data: str) -> str:
        host, port = self._cluster.address(self._rng)
        async with AsyncClient(f"http://{host}:{port}") as client:
            ack = await client.publish(channel, data)
        self._acknowledged[data] = ack.id
        return ack.id

    async def _disturb(self, publishing: Sequence[asyncio.Task[None]]) -> None:
        """Move between the nodes, cut all at once, perhaps lose the log, until everything is published."""
        rng = random.Random(self._rng.random())
        pending = set(publishing)
        lives = 1 + (rng.random() < 0.25)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=rng.uniform(0.01, 0.15))
            for task in done:
                task.result()
            if len(self._cluster.brokers) < lives and rng.random() < 0.2:
                await self._cluster.begin_life()
            self._pipe.target = self._cluster.address(rng)
            if rng.random() < 0.3:
                self._pipe.cut(reset=rng.random() < 0.5)


class _Listener:
    """A subscription from the beginning, and what its application saw."""

    def __init__(self, client: AsyncClient, channels: tuple[str, ...], rng: random.Random) -> None:
        self.channels = channels
        self.seen: list[ClientMessage | Gap] = []
        self._ids: set[str] = set()
        self._client = client
        self._pauses = random.Random(rng.random())
        self._slow = rng.random() < 0.3
        self._late = rng.choice([0.0, 0.0, rng.uniform(0, 0.4)])  # seconds, when others listen on its connection
        self._more = asyncio.Event()

    async def listen(self) -> None:
        await asyncio.sleep(self._late)
        messages: Messages = self._client.subscribe(*self.channels, after=str(START))
        async for item in messages.events():
            self.seen.append(item)
            if isinstance(item, ClientMessage):
                self._ids.add(item.id)
            self._more.set()
            if self._slow and self._pauses.random() < 0.2:
                await asyncio.sleep(self._pauses.uniform(0, 0.1))

    def __repr__(self) -> str:
        return f"{self.channels} over {self._client.transport}, {len(self.seen)} seen, then {self.seen[-1:]}"

    async def until(self, last: Mapping[str, str]) -> None:
        """Wait until the last message of each channel was seen."""
        while any(last[channel] not in self._ids for channel in self.channels):
            self._more.clear()
            await self._more.wait()


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds * SLEEP_FACTOR)


def _plan(number: int, rng: random.Random) -> Plan:
    """Draw what a connection suffers."""
    at = rng.randrange(3000)
    match rng.randrange(10):
        case 0 | 1:
            return Plan(down=Faults(cut_after=at, reset=rng.random() < 0.5))
        case 2:
            return Plan(up=Faults(cut_after=rng.randrange(800), reset=rng.random() < 0.5))
        case 3:
            return Plan(down=Faults(stall_after=at))
        case 4:
            return Plan(up=Faults(stall_after=rng.randrange(800)))
        case 5:
            return Plan(down=Faults(swallow_after=at))  # acknowledgements too
        case 6:
            return Plan(down=Faults(piece_bytes=rng.randrange(1, 40)), up=Faults(piece_bytes=rng.randrange(1, 40)))
        case 7:
            return Plan(down=Faults(half_close_after=at))
        case _:
            return NO_PLAN


# The command -----------------------------------------------------------------------------------------------------


async def _many(seed: int, runs: int) -> Report:
    report = Report()
    for number in range(seed, seed + runs):
        try:
            report.add(await run(number))
        except (Wrong, TimeoutError, Broken) as error:
            raise Wrong(f"seed {number}: {error!r}") from error
        if report.runs % 50 == 0:
            sys.stderr.write(f"{report.runs} of {runs}\n")
    return report


def main(arguments: list[str]) -> int:
    """Run many; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.client_runs")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next ones follow")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    report = asyncio.run(_many(options.seed, options.runs))
    sys.stdout.write(
        f"{report.runs} runs from seed {options.seed} in {time.monotonic() - began:.0f} s: {report.messages} messages "
        f"seen once and in order, {report.gaps} gaps where they belong; {report.connections} connections, "
        f"{report.cuts} cut, {report.moves} changes of transport\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
