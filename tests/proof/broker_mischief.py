"""The faults that a broker's server or the way to it can suffer, made on real processes and connections.

A fault is a coroutine that makes it, mends it, and returns once each node is ready again. To add one, write it here and
name it in `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from scripts.broker_servers.kinds import Kafka, Redis
from scripts.broker_servers.system import asks

from .broker_cluster import READY_SECONDS, Cluster, in_thread
from .broker_load import Listener, Load
from .client_oracle import Wrong

__all__ = ["Mischief"]

REPLICA_SECONDS = 30.0  # for a replica to have what its primary has
LEADER_SECONDS = {"rabbitmq": 3.0}  # a stream of RabbitMQ 3.10 that was made a second before a kill has no leader again
SHORT_PAUSES = (0.5, 6.0)
LONG_PAUSES = (0.5, 2.0, 6.0, 20.0)


class Mischief:
    """See the module.

    `lossy` says whether a fault has been made that may lose what was acknowledged; `stood` counts the streams that
    stayed connected while the broker was away.
    """

    def __init__(self, cluster: Cluster, load: Load, rng: random.Random, *, long: bool) -> None:
        self.lossy = False
        self.stood = 0
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
        """Kill the server, and start it on its data."""
        async with self._down():
            pass

    async def emptied(self) -> None:
        """Kill the server, and start it on an empty disk."""
        async with self._down():
            await in_thread(self._cluster.primary.wipe)
        self._made = asyncio.get_running_loop().time()

    async def put_back(self) -> None:
        """Start the server on an older copy of its data, which lacks what was acknowledged since."""
        server = self._cluster.primary
        await self._until_killable()
        await in_thread(lambda: server.copy("older"))
        await self._cluster.until_ready()
        await asyncio.sleep(self._rng.uniform(0.3, 1.0))
        async with self._down():
            await in_thread(lambda: server.restore("older"))

    async def paused(self) -> None:
        """Stop the server's process for a while, and let it go on. Nothing is lost; only Kafka makes a gap of it."""
        seconds = self._rng.choice(LONG_PAUSES if self._long else SHORT_PAUSES)
        if isinstance(self._cluster.primary, Kafka):
            self.lossy = True  # its controller makes it the leader again, which is another life of the log
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        live = self._load.live()
        await in_thread(self._cluster.primary.pause)
        try:
            if seconds > READY_SECONDS:
                async with self._held_together(live):
                    await asyncio.sleep(max(0.0, end - loop.time()))
            else:
                await asyncio.sleep(seconds)
        finally:
            self._cluster.primary.resume()
        await self._cluster.until_ready()

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
        await asyncio.sleep(self._rng.uniform(0.1, 0.5))  # what comes now, it lacks
        async with self._down():
            self._cluster.replace(replica)

    # -- of the way to it

    async def partitioned(self) -> None:
        """Pass nothing on between one node and the server; the others go on."""
        node = self._rng.choice(self._cluster.nodes)
        up, down = self._rng.choice([(True, True), (True, False), (False, True)])
        node.pipe.hold(up=up, down=down)
        await self._cluster.until_away([node])
        for other in self._cluster.nodes:
            if other is not node and other.server.node.unready is not None:
                raise Wrong(f"another node is not ready: {other.server.node.unready}")
        node.pipe.release()
        await self._cluster.until_ready()

    async def cut(self) -> None:
        """Cut the connections of one node."""
        self._rng.choice(self._cluster.nodes).pipe.cut(reset=self._rng.random() < 0.5)
        await self._cluster.until_ready()

    async def unacknowledged(self) -> None:
        """Swallow what the server answers one node for a moment, and cut it: publishes are repeated with their keys."""
        node = self._rng.choice(self._cluster.nodes)
        node.pipe.hold(up=False)
        await asyncio.sleep(self._rng.uniform(0.1, 0.5))
        node.pipe.cut(reset=True)
        node.pipe.release()
        await self._cluster.until_ready()

    async def unsubscribed(self) -> None:
        """Kill the connections that have subscriptions."""
        await asyncio.to_thread(asks, self._cluster.primary.port, b"CLIENT KILL TYPE pubsub\r\n")
        await self._cluster.until_ready()

    # -- helpers

    @contextlib.asynccontextmanager
    async def _down(self) -> AsyncIterator[None]:
        """Kill the server, hold the nodes to what they do without it, and start it again."""
        await self._until_killable()
        self.lossy = True
        live = self._load.live()
        await in_thread(self._cluster.primary.kill)
        async with self._held_together(live):
            await asyncio.sleep(self._rng.choice([0.0, 0.3, 1.5]))
        yield
        await in_thread(self._cluster.primary.start)
        await self._cluster.until_ready()

    async def _until_killable(self) -> None:
        """Wait until the log can be killed."""
        await asyncio.sleep(self._made + self._leader_seconds - asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def _held_together(self, live: Mapping[Listener, int]) -> AsyncIterator[None]:
        """Hold all nodes to what they promise while the broker is away: they say so, and listeners stay connected.

        `live` has those that were live before, and how often each was lost until then.
        """
        began = asyncio.get_running_loop().time()
        await self._cluster.until_away(self._cluster.nodes)
        await self._cluster.check_away()
        yield
        if left := [listener for listener, lost in live.items() if listener.lost > lost]:
            now = asyncio.get_running_loop().time()
            raise Wrong(f"listeners were disconnected while the broker was away, {began:.3f} to {now:.3f}: {left}")
        self.stood += len(live)
