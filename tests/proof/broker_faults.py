"""Seeded schedules of faults of a real broker server, under load, judged by what applications saw.

A schedule has one server, two or three nodes, each on a connection of its own, publishers that retry until they are
acknowledged, and listeners over the four transports that go to another node with every connection. One fault after
another is made and mended. `broker_oracle` judges what was seen; the run itself holds the times: a node that can't
reach its broker says so on `/readyz` within `READY_SECONDS`, and is ready within `READY_SECONDS` of its return.

`python -m tests.proof.broker_faults --broker redis --schedules 50 --seed N` runs many, says what they met, and fails
with the seed of the first that is wrong. `--schedules 1` repeats one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from oncecast import AsyncClient, ClientMessage, Gap, LinkState, StateChanged
from oncecast.client.transports import TRANSPORTS
from oncecast.message import Cursor
from oncecast.server.server import Server
from oncecast.server.settings import Limits, RetentionSettings, Settings
from oncecast.testing.pipe import NO_PLAN, FaultyPipe, Plan
from scripts.broker_servers.base import BrokerServer
from scripts.broker_servers.kinds import KINDS, Redis
from scripts.broker_servers.system import HOST, asks, free_ports

from .broker_oracle import Acknowledged, judge
from .client_oracle import Wrong
from .http_ask import ask_http

__all__ = ["BrokerRun", "Report", "main", "run"]

CHANNELS = ("a", "b", "c")
READY_SECONDS = 5.0
AFTER_SECONDS = 30.0  # until everything has arrived
LAG_SECONDS = 2.0  # for which nothing may hold the loop, on a machine that is busy
PUBLISH_SECONDS = 0.03
STREAMS = ("sse", "websocket")
LAST = "the last"
PIPED = ("redis", "valkey", "nats", "nats-newest")  # whose clients stay with the address that they are given


@dataclass(slots=True)
class Report:
    """What schedules met. `ready` are the seconds from a server's return until each node was ready."""

    schedules: int = 0
    published: int = 0
    delivered: int = 0
    gaps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    noticed: float = 0.0
    ready: float = 0.0
    lag: float = 0.0

    def add(self, other: Report) -> None:
        """Add another report."""
        self.schedules += other.schedules
        self.published += other.published
        self.delivered += other.delivered
        self.gaps += other.gaps
        self.faults += other.faults
        self.noticed = max(self.noticed, other.noticed)
        self.ready = max(self.ready, other.ready)
        self.lag = max(self.lag, other.lag)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.schedules} schedules: {faults}; {self.published} messages acknowledged, {self.delivered} delivered "
            f"once and in order, {self.gaps} gaps where they belong; not ready after at most {self.noticed:.1f} s, "
            f"ready again after at most {self.ready:.1f} s; the loop was held for at most {self.lag:.2f} s"
        )


class BrokerNode:
    """One node, and the pipe through which it reaches the server, where the kind of server allows one."""

    def __init__(self, server: BrokerServer, piped: bool) -> None:
        self.pipe = FaultyPipe((HOST, server.port))
        self._piped = piped
        self._url = server.url
        self._port = server.port
        self.server: Server

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the node; the stack ends it."""
        await stack.enter_async_context(self.pipe)
        url = self._url.replace(f":{self._port}", f":{self.pipe.port}") if self._piped else self._url
        limits = Limits(heartbeat_seconds=0.5, drain_seconds=0)
        self.server = Server(Settings(port=0, broker=url, limits=limits, retention=RetentionSettings(messages=100_000)))
        await self.server.start()
        stack.push_async_callback(self.server.stop, 0.05)


class _Listener:
    """A subscription from the beginning, and what its application saw. Each connection goes to another node."""

    def __init__(self, pipe: FaultyPipe, transport: str, channels: Sequence[str]) -> None:
        self.transport = transport
        self.channels = channels
        self.pipe = pipe
        self.lost = 0
        self.moved = False  # after the last fault: it may still be behind, and is then refused what it has to read
        self.seen: list[ClientMessage | Gap] = []
        self._client = AsyncClient(f"http://{HOST}:{pipe.port}", transports=[transport])
        self._client.on("state", self._changed)
        self._more = asyncio.Event()

    async def listen(self, after: str) -> None:
        async for item in self._client.subscribe(*self.channels, after=after).events():
            self.seen.append(item)
            self._more.set()

    def _changed(self, change: StateChanged) -> None:
        self.lost += change.before is LinkState.LISTENING

    async def until(self, data: str) -> None:
        """Wait until the last message of each channel was seen."""
        while sum(isinstance(item, ClientMessage) and item.data == data for item in self.seen) < len(self.channels):
            self._more.clear()
            await self._more.wait()

    async def close(self) -> None:
        await self._client.close()


class BrokerRun:
    """One schedule. A fault is a coroutine that makes it, mends it, and returns once each node is ready."""

    def __init__(self, kind: str, seed: int, folder: Path, *, piped: bool, long: bool) -> None:
        self.rng = random.Random(seed)
        self.report = Report(schedules=1)
        self.nodes: list[BrokerNode] = []
        self._kind = kind
        self._folder = folder
        self._piped = piped
        self._long = long
        self._primary = self._make("primary")
        self._lossy = False
        self._acknowledged: list[Acknowledged] = []
        self._tried: dict[str, str] = {}  # by data, its channel
        self._stopping = asyncio.Event()
        self._listeners: list[_Listener] = []

    @property
    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every fault that this kind of server can suffer, by name."""
        found: dict[str, Callable[[], Awaitable[None]]] = {
            "restarted whole": self.restarted,
            "restarted empty": self.emptied,
            "put back to an older copy": self.put_back,
            "stopped for a while": self.paused,
        }
        if self._piped:
            found |= {
                "partitioned from a node": self.partitioned,
                "cut from a node": self.cut,
                "acknowledgement lost": self.unacknowledged,
            }
        if self._kind in ("redis", "valkey"):
            found |= {"subscription killed": self.unsubscribed, "replica promoted": self.promoted}
        return found

    async def play(self, count: int) -> Report:
        """Make `count` faults that are drawn. Raises `Wrong`."""
        return await self.play_these([self.rng.choice(sorted(self.faults)) for _ in range(count)])

    async def play_these(self, names: Sequence[str]) -> Report:
        """Start everything, make these faults in order, and judge. Raises `Wrong`."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, lambda: self._primary.kill())
            await asyncio.to_thread(self._primary.start)
            for _ in range(self.rng.choice([2, 3])):
                node = BrokerNode(self._primary, self._piped)
                await node.start(stack)
                self.nodes.append(node)
            start = Cursor(self.nodes[0].server.node.log.epoch, 0)
            tasks = await self._begin(stack, start)
            watched = asyncio.create_task(self._watch())
            stack.callback(watched.cancel)
            try:
                for name in names:
                    await self._drive(tasks, self._suffer(name))
                self._stopping.set()
                await self._drive(tasks, self._finish())
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        self._judge(start)
        return self.report

    # -- the load

    async def _begin(self, stack: contextlib.AsyncExitStack, start: Cursor) -> list[asyncio.Task[None]]:
        tasks = []
        for transport, _ in zip(cycle(TRANSPORTS), range(6), strict=False):
            pipe = await self._moving_pipe(stack)
            listener = _Listener(pipe, transport, self.rng.sample(CHANNELS, self.rng.randint(1, 3)))
            stack.push_async_callback(listener.close)
            self._listeners.append(listener)
            tasks.append(asyncio.create_task(listener.listen(str(start))))
        for number in range(2):
            pipe = await self._moving_pipe(stack)
            client = AsyncClient(f"http://{HOST}:{pipe.port}", patience=None, sleep=_sleep_less)
            stack.push_async_callback(client.close)
            tasks.append(asyncio.create_task(self._publish(client, number)))
        return tasks

    async def _moving_pipe(self, stack: contextlib.AsyncExitStack) -> FaultyPipe:
        """Return a pipe that takes each connection to a node that is drawn."""
        pipe = FaultyPipe((HOST, 0), seed=self.rng.getrandbits(32))

        def draw(number: int, rng: random.Random) -> Plan:
            pipe.target = (HOST, rng.choice(self.nodes).server.port)
            return NO_PLAN

        pipe.plan = draw
        await stack.enter_async_context(pipe)
        return pipe

    async def _publish(self, client: AsyncClient, number: int) -> None:
        rng = random.Random(self.rng.random())
        count = 0
        while not self._stopping.is_set():
            count += 1
            await self._acknowledge(client, rng.choice(CHANNELS), f"{number} {count}")
            await asyncio.sleep(PUBLISH_SECONDS * rng.uniform(0.3, 1.7))

    async def _acknowledge(self, client: AsyncClient, channel: str, data: str) -> None:
        self._tried[f"{channel} {data}"] = channel
        ack = await client.publish(channel, f"{channel} {data}")
        self._acknowledged.append(Acknowledged(channel, Cursor.parse(ack.id), f"{channel} {data}"))

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            self.report.lag = max(self.report.lag, time.monotonic() - began - 0.02)

    async def _drive(self, tasks: Sequence[asyncio.Task[None]], doing: Coroutine[Any, Any, None]) -> None:
        """Do something while the load runs. A task of the load that fails is the run's failure."""
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

    async def _finish(self) -> None:
        await self._until_ready(READY_SECONDS)
        async with AsyncClient(f"http://{HOST}:{self.nodes[0].server.port}") as client:
            for channel in CHANNELS:
                self._tried[LAST] = channel
                ack = await client.publish(channel, LAST)
                self._acknowledged.append(Acknowledged(channel, Cursor.parse(ack.id), LAST))
        for listener in self._listeners:
            try:
                await asyncio.wait_for(listener.until(LAST), AFTER_SECONDS)
            except TimeoutError:
                raise Wrong(f"the last never came: {listener.transport} {listener.channels}") from None

    def _judge(self, start: Cursor) -> None:
        if self.report.lag > LAG_SECONDS:
            raise Wrong(f"something held the loop for {self.report.lag:.1f} s")
        for listener in self._listeners:
            for channel in listener.channels:
                seen = [item for item in listener.seen if item.channel == channel]
                try:
                    judge(channel, start, seen, self._acknowledged, self._tried, lossy=self._lossy)
                except Wrong as error:
                    raise Wrong(f"{listener.transport}: {error}") from None
            self.report.delivered += sum(isinstance(item, ClientMessage) for item in listener.seen)
            self.report.gaps += sum(isinstance(item, Gap) for item in listener.seen)
        self.report.published += len(self._acknowledged)

    # -- the faults

    async def _suffer(self, name: str) -> None:
        await asyncio.sleep(self.rng.uniform(0.2, 0.8))
        try:
            await self.faults[name]()
        except Wrong as error:
            raise Wrong(f"{name}: {error}") from None
        self.report.faults[name] += 1
        for listener in self._listeners:
            listener.moved = self.rng.random() < 0.5
            if listener.moved:
                listener.pipe.cut(reset=self.rng.random() < 0.5)

    async def restarted(self) -> None:
        """Kill the server, and start it on its data."""
        async with self._down():
            pass

    async def emptied(self) -> None:
        """Kill the server, and start it on an empty disk."""
        async with self._down():
            await asyncio.to_thread(self._primary.wipe)

    async def put_back(self) -> None:
        """Start the server on an older copy of its data, which lacks what was acknowledged since."""
        async with self._down():
            await asyncio.to_thread(self._primary.save, "older")
        await asyncio.sleep(self.rng.uniform(0.3, 1.0))
        async with self._down():
            await asyncio.to_thread(self._primary.restore, "older")

    async def paused(self) -> None:
        """Stop the server's process for a while, and let it go on."""
        seconds = self.rng.choice([0.5, 2.0, 6.0, self.rng.uniform(10, 20)] if self._long else [0.5, 6.0])
        self._primary.pause()
        try:
            if seconds > READY_SECONDS:
                await self._until_away(self.nodes)
                await self._check_away()
            await asyncio.sleep(seconds - READY_SECONDS if seconds > READY_SECONDS else seconds)
        finally:
            self._primary.resume()
        await self._until_ready(READY_SECONDS)

    async def partitioned(self) -> None:
        """Pass nothing on between one node and the server; the others go on."""
        node = self.rng.choice(self.nodes)
        up, down = self.rng.choice([(True, True), (True, False), (False, True)])
        node.pipe.hold(up=up, down=down)
        await self._until_away([node])
        for other in self.nodes:
            if other is not node and other.server.node.unready is not None:
                raise Wrong(f"another node is not ready: {other.server.node.unready}")
        node.pipe.release()
        await self._until_ready(READY_SECONDS)

    async def cut(self) -> None:
        """Cut the connections of one node."""
        self.rng.choice(self.nodes).pipe.cut(reset=self.rng.random() < 0.5)
        await self._until_ready(READY_SECONDS)

    async def unacknowledged(self) -> None:
        """Swallow what the server answers one node for a moment, and cut it: publishes are repeated with their keys."""
        node = self.rng.choice(self.nodes)
        node.pipe.hold(up=False)
        await asyncio.sleep(self.rng.uniform(0.1, 0.5))
        node.pipe.cut(reset=True)
        node.pipe.release()
        await self._until_ready(READY_SECONDS)

    async def unsubscribed(self) -> None:
        """Kill the connections that have subscriptions."""
        await asyncio.to_thread(asks, self._primary.port, b"CLIENT KILL TYPE pubsub\r\n")
        await self._until_ready(READY_SECONDS)

    async def promoted(self) -> None:
        """Promote a replica that lacks what was acknowledged, in the place of the server."""
        replica = self._make(f"replica-{self.report.faults['replica promoted']}")
        assert isinstance(replica, Redis)
        replica.replica_of = self._primary.port
        await asyncio.to_thread(replica.start)
        async with asyncio.timeout(AFTER_SECONDS):
            while b"master_link_status:up" not in await asyncio.to_thread(  # noqa: ASYNC110 - it is another process
                asks, replica.port, b"INFO replication\r\n"
            ):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(asks, replica.port, b"REPLICAOF NO ONE\r\n")
        replica.replica_of = None
        await asyncio.sleep(self.rng.uniform(0.1, 0.5))  # what comes now, it lacks
        old = self._primary
        async with self._down():
            self._primary = replica
            for node in self.nodes:
                node.pipe.target = (HOST, replica.port)
        await asyncio.to_thread(old.kill)

    @contextlib.asynccontextmanager
    async def _down(self) -> AsyncIterator[None]:
        """Kill the server, hold the nodes to what they do without it, and start it again."""
        self._lossy = True
        await asyncio.to_thread(self._primary.kill)
        await self._until_away(self.nodes)
        streams = [each for each in self._listeners if each.transport in STREAMS and not each.moved]
        before = {listener: listener.lost for listener in streams}
        await self._check_away()
        await asyncio.sleep(self.rng.choice([0.0, 0.3, 1.5]))
        if left := [listener.transport for listener, lost in before.items() if listener.lost > lost]:
            raise Wrong(f"listeners were disconnected while the broker was away: {left}")
        yield
        await asyncio.to_thread(self._primary.start)
        await self._until_ready(READY_SECONDS)

    # -- the nodes meanwhile

    async def _until_away(self, nodes: Sequence[BrokerNode]) -> None:
        took = await self._until(lambda status: status == 503, nodes, READY_SECONDS, "says on /readyz that it is deaf")
        self.report.noticed = max(self.report.noticed, took)

    async def _until_ready(self, seconds: float) -> None:
        took = await self._until(lambda status: status == 200, self.nodes, seconds, "is ready")
        self.report.ready = max(self.report.ready, took)

    async def _until(
        self, held: Callable[[int], bool], nodes: Sequence[BrokerNode], seconds: float, clause: str
    ) -> float:
        began = time.monotonic()
        for node in nodes:
            while not held((await ask_http(node.server.port, "GET", "/readyz")).status):
                if time.monotonic() - began > seconds:
                    raise Wrong(f"not every node {clause} within {seconds:g} s: {node.server.node.unready}")
                await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def _check_away(self) -> None:
        """A publish is refused with 503 and when to try again."""
        for node in self.nodes:
            answer = await ask_http(node.server.port, "POST", "/v1/channels/away", b"1")
            if answer.status != 503 or b"retry-after:" not in answer.head.lower():
                raise Wrong(f"a publish was answered with {answer.head!r} while the broker was away")

    def _make(self, name: str) -> BrokerServer:
        kind = KINDS[self._kind]
        return kind(self._folder / name, free_ports(kind.port_count))


async def _sleep_less(seconds: float) -> None:
    """Sleep shorter than a publisher that is refused is asked to, so that there is a load at every moment."""
    await asyncio.sleep(min(seconds, 0.2))


async def run(kind: str, seed: int, *, faults: int = 3, long: bool = True) -> Report:
    """Run one schedule on a server of a kind. Raises `Wrong` with the seed and the end of the server's log."""
    with tempfile.TemporaryDirectory(prefix="oncecast-broker-", dir="/var/tmp") as folder:
        one = BrokerRun(kind, seed, Path(folder), piped=kind in PIPED, long=long)
        try:
            return await one.play(faults)
        except (Wrong, TimeoutError) as error:
            raise Wrong(f"{kind}, seed {seed}: {error!r}, after {dict(one.report.faults)}") from error


def main(arguments: list[str]) -> int:
    """Run many; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.broker_faults")
    parser.add_argument("--broker", choices=list(KINDS), default="redis")
    parser.add_argument("--schedules", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the next ones follow")
    options = parser.parse_args(arguments)
    KINDS[options.broker].install()
    report = Report()
    for number in range(options.seed, options.seed + options.schedules):
        report.add(asyncio.run(run(options.broker, number)))
        if report.schedules % 10 == 0:
            sys.stderr.write(f"{report.schedules} of {options.schedules}\n")
    sys.stdout.write(f"{options.broker}, from seed {options.seed}: {report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
