"""The faults that a broker's server or the way to it can suffer, made on real processes and connections.

A fault is a coroutine that makes it, mends it, and returns once each node is ready again and delivers. It holds the
nodes to what they promise meanwhile: streams stay connected, what is in memory is served, and a publish is refused with
503 and `Retry-After`, or waits. To add a fault, write it here and name it in `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from scripts.broker_servers.kinds import Kafka, Redis
from scripts.broker_servers.system import asks

from .broker_cluster import READY_SECONDS, BrokerNode, Cluster, in_thread
from .broker_load import Listener, Load
from .client_oracle import Wrong

__all__ = ["Mischief"]

REPLICA_SECONDS = 30.0  # for a replica to have what its primary has
LEADER_SECONDS = {"rabbitmq": 3.0}  # a stream of RabbitMQ 3.10 that was made a second before a kill has no leader again
SHORT_PAUSES = (0.5, 6.0)
LONG_PAUSES = (0.5, 2.0, 6.0, 20.0)

Live: TypeAlias = Mapping[
    Listener, int
]  # streams that were live before a fault, and how often each was lost until then


class Mischief:
    """See the module.

    `gaps` says whether a fault has been made after which another life of the log begins, and `loss` whether one may
    have lost what was acknowledged. `stood` counts the streams that stayed connected at each fault, and `served` the
    messages that were read while the broker was away.
    """

    def __init__(self, cluster: Cluster, load: Load, rng: random.Random, *, long: bool) -> None:
        self.gaps = False
        self.loss = False
        self.stood = 0
        self.served = 0
        self._cluster = cluster
        self._load = load
        self._rng = rng
        self._long = long
        self._leader_seconds = LEADER_SECONDS.get(cluster.kind, 0.0)
        self._made = asyncio.get_running_loop().time()  # the log

    @property
    def faults(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Every fault that this kind of server can suffer, by name."""
        found: dict[str, Callable[[], Awaitable[None]]] = {
            "restarted whole": self.restarted,
            "restarted empty": self.emptied,
            "put back to an older copy": self.put_back,
            "stopped for a while": self.paused,
            "partitioned from a node": self.partitioned,
            "cut from a node": self.cut,
            "acknowledgement lost": self.unacknowledged,
        }
        if isinstance(self._cluster.primary, Redis):
            found |= {"subscription killed": self.unsubscribed, "replica promoted": self.promoted}
        return found

    # -- of the server

    async def restarted(self) -> None:
        """Kill the server, and start it on its data. That ends a life of the log, and loses nothing.

        With `everysec`, Redis may acknowledge while it syncs the file, and write later: so it syncs always here.
        """
        if isinstance(self._cluster.primary, Redis):
            await asyncio.to_thread(asks, self._cluster.primary.port, b"CONFIG SET appendfsync always\r\n")
        async with self._down():
            pass

    async def emptied(self) -> None:
        """Kill the server, and start it on an empty disk."""
        self.loss = True
        async with self._down():
            await in_thread(self._cluster.primary.wipe)
        self._made = asyncio.get_running_loop().time()

    async def put_back(self) -> None:
        """Start the server on an older copy of its data, which lacks what was acknowledged since."""
        server = self._cluster.primary
        await self._until_killable()
        await in_thread(lambda: server.copy("older"))
        await self._cluster.until_ready(self._cluster.seconds())
        self.loss = True
        await asyncio.sleep(self._rng.uniform(0.3, 1.0))
        async with self._down():
            await in_thread(lambda: server.restore("older"))

    async def paused(self) -> None:
        """Stop the server's process for a while, and let it go on. Nothing is lost; only Kafka makes a gap of it."""
        seconds = self._rng.choice(LONG_PAUSES if self._long else SHORT_PAUSES)
        if isinstance(self._cluster.primary, Kafka):
            self.gaps = True  # its controller makes it the leader again, which is another life of the log
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        live = self._load.live()
        await in_thread(self._cluster.primary.pause)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._cluster.primary.resume)
            held = []
            if seconds > READY_SECONDS:
                held = await self._check_away(live, self._cluster.nodes, stack)
            await asyncio.sleep(max(0.0, end - loop.time()))
            self._cluster.primary.resume()
            await self._recover(live, held)

    async def promoted(self) -> None:
        """Promote a replica that lacks what was acknowledged, in the place of the server."""
        replica = self._cluster.make()
        assert isinstance(replica, Redis)
        replica.replica_of = self._cluster.primary.port
        await in_thread(replica.start)
        async with asyncio.timeout(REPLICA_SECONDS):
            while b"master_link_status:up" not in await asyncio.to_thread(  # noqa: ASYNC110 - it is another process
                asks, replica.port, b"INFO replication\r\n"
            ):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(asks, replica.port, b"REPLICAOF NO ONE\r\n")
        replica.replica_of = None
        self.loss = True
        await asyncio.sleep(self._rng.uniform(0.1, 0.5))  # what comes now, it lacks
        async with self._down():
            self._cluster.replace(replica)

    # -- of the way to it

    async def partitioned(self) -> None:
        """Pass nothing on between one node and the server; the others go on, and do not notice."""
        node = self._rng.choice(self._cluster.nodes)
        up, down = self._rng.choice([(True, True), (True, False), (False, True)])
        live = self._load.live()
        async with contextlib.AsyncExitStack() as stack:
            with self._undisturbed(node):
                node.pipe.hold(up=up, down=down)
                held = await self._check_away(live, [node], stack)
                node.pipe.release()
                await self._recover(live, held)

    async def cut(self) -> None:
        """Cut the connections of one node; the others do not notice."""
        node = self._rng.choice(self._cluster.nodes)
        live, returns = self._load.live(), {node: node.server.node.returns}
        with self._undisturbed(node):
            node.pipe.cut(reset=self._rng.random() < 0.5)
            await self._recover(live, returns=returns)

    async def unacknowledged(self) -> None:
        """Swallow what the server answers one node for a moment, and cut it: publishes are repeated with their keys."""
        node = self._rng.choice(self._cluster.nodes)
        live, returns = self._load.live(), {node: node.server.node.returns}
        with self._undisturbed(node):
            node.pipe.hold(up=False)
            await asyncio.sleep(self._rng.uniform(0.1, 0.5))
            node.pipe.cut(reset=True)
            node.pipe.release()
            await self._recover(live, returns=returns)

    async def unsubscribed(self) -> None:
        """Kill the connections that have subscriptions."""
        live = self._load.live()
        returns = {node: node.server.node.returns for node in self._cluster.nodes}
        await asyncio.to_thread(asks, self._cluster.primary.port, b"CLIENT KILL TYPE pubsub\r\n")
        await self._recover(live, returns=returns)

    # -- helpers

    @contextlib.asynccontextmanager
    async def _down(self) -> AsyncIterator[None]:
        """Kill the server, hold the nodes to what they do without it, and start it again."""
        await self._until_killable()
        self.gaps = True
        live = self._load.live()
        async with contextlib.AsyncExitStack() as stack:
            await in_thread(self._cluster.primary.kill)
            held = await self._check_away(live, self._cluster.nodes, stack)
            await asyncio.sleep(self._rng.choice([0.0, 0.3, 1.5]))
            yield
            await in_thread(self._cluster.primary.start)
            await self._recover(live, held)

    async def _until_killable(self) -> None:
        """Wait until the log can be killed."""
        await asyncio.sleep(self._made + self._leader_seconds - asyncio.get_running_loop().time())

    async def _check_away(
        self, live: Live, nodes: Sequence[BrokerNode], stack: contextlib.AsyncExitStack
    ) -> list[asyncio.Task[None]]:
        """Hold nodes to what they promise without the broker: they say so, serve what they have, and refuse publishes.

        Returns publishes that may still wait; the stack ends them.
        """
        cluster = self._cluster
        await cluster.until_away(nodes)
        self._check_connected(live)
        held = [asyncio.create_task(cluster.publish_away(node)) for node in nodes]
        stack.push_async_callback(_end, held)
        self.served += await self._load.check_memory(live, nodes)
        await asyncio.gather(*(task for task, node in zip(held, nodes, strict=True) if not node.wait_seconds))
        return held

    async def _recover(
        self, live: Live, held: Sequence[asyncio.Task[None]] = (), *, returns: Mapping[BrokerNode, int] | None = None
    ) -> None:
        """Hold the nodes to their return, which was this moment: each is ready, no stream was lost, and news arrive.

        `returns` has those that must have noticed something, and how often the broker had returned to them before.
        """
        cluster, began = self._cluster, self._cluster.seconds()
        await cluster.until_returned(returns or {}, began)
        await cluster.until_ready(began)
        await cluster.until_delivered(self._load.reach(live), began)
        self._check_connected(live)
        self.stood += len(live)
        await asyncio.gather(*held)

    def _check_connected(self, live: Live) -> None:
        if left := [listener for listener, lost in live.items() if listener.lost > lost]:
            now = asyncio.get_running_loop().time()
            raise Wrong(f"listeners were disconnected by a fault of the broker, at {now:.3f}: {left}")

    @contextlib.contextmanager
    def _undisturbed(self, node: BrokerNode) -> Iterator[None]:
        """Hold the nodes other than this one to notice nothing."""
        others = [each.server.node for each in self._cluster.nodes if each is not node]
        before = [each.returns for each in others]
        yield
        if unready := [each.unready for each in others if each.unready is not None]:
            raise Wrong(f"another node is not ready: {unready[0]}")
        if before != [each.returns for each in others]:
            raise Wrong("another node has lost the broker meanwhile")


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
