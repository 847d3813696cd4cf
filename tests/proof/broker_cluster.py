"""A real broker server and the nodes on it, for the schedules of faults: how they start, and what they are held to.

The cluster owns every server that it makes and ends all of them in `close`, whatever has failed meanwhile. The times of
the nodes are bounds of `READY_SECONDS`: until `/readyz` says that the broker is away, and that it is back. They are
counted by `seconds`, which stands still while the machine does not let this process run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from oncecast.brokers.base import BrokerUnreachable
from oncecast.server.server import Server
from oncecast.server.settings import Limits, RetentionSettings, Settings
from oncecast.testing.pipe import FaultyPipe
from scripts.broker_servers.base import BrokerServer
from scripts.broker_servers.kinds import KINDS
from scripts.broker_servers.system import HOST, free_ports

from .client_oracle import Wrong
from .http_ask import HttpAnswer, ask_http

__all__ = ["BrokerNode", "Cluster", "in_thread"]

READY_SECONDS = 5.0
START_SECONDS = 30.0  # for a new server to take a first node: RabbitMQ and Kafka listen before they answer
LOOK_SECONDS = 0.02

T = TypeVar("T")


async def in_thread(do: Callable[[], T]) -> T:
    """Do something that blocks. If this is cancelled it is done first: a server is never left half started."""
    doing = asyncio.ensure_future(asyncio.to_thread(do))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        raise


class BrokerNode:
    """One node, and the pipe through which it reaches the server. A publish waits `wait_seconds` for the broker."""

    def __init__(self, server: BrokerServer, wait_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        self.pipe = FaultyPipe((HOST, server.port), rewrite=self._readdress)
        self.server: Server
        self._broker = server

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the node; the stack ends it."""
        await stack.enter_async_context(self.pipe)
        url = self._broker.url.replace(f":{self._broker.port}", f":{self.pipe.port}")
        limits = Limits(
            heartbeat_seconds=2, drain_seconds=0, publish_wait_seconds=self.wait_seconds
        )  # a peer that is silent for two is cut, and the loop is shared
        settings = Settings(port=0, broker=url, limits=limits, retention=RetentionSettings(messages=100_000))
        end = time.monotonic() + START_SECONDS
        while True:
            self.server = Server(settings)
            try:
                await self.server.start()
                break
            except BrokerUnreachable:
                await self.server.stop(0)
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)
        stack.push_async_callback(self.server.stop, 0.05)

    def _readdress(self, data: bytes) -> bytes:
        """Put the pipe where a server of Kafka or RabbitMQ names its own address, or its clients would go past it."""
        host = len(HOST).to_bytes(2, "big") + HOST.encode()
        return data.replace(host + self._broker.port.to_bytes(4, "big"), host + self.pipe.port.to_bytes(4, "big"))


class Cluster:
    """One server of a kind in a folder, and its nodes. Another server may take its place: see `make`.

    `starved` are the seconds for which the machine did not let this process run, as the owner has measured them.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.nodes: list[BrokerNode] = []
        self.noticed = 0.0  # the longest until a node said that it is deaf
        self.ready = 0.0  # the longest from a server's return until each node was ready and delivered
        self.starved = 0.0
        self._folder = folder
        self._made: list[BrokerServer] = []
        self.primary = self.make()

    def make(self) -> BrokerServer:
        """Return one more server, which is not started."""
        kind = KINDS[self.kind]
        server = kind(self._folder / f"server-{len(self._made)}", free_ports(kind.port_count))
        self._made.append(server)
        return server

    async def start(self, waits: Sequence[float], stack: contextlib.AsyncExitStack) -> None:
        """Start the server, and a node for each of these seconds that a publish waits. The stack ends all of them."""
        stack.push_async_callback(self.close)
        await in_thread(self.primary.start)
        for seconds in waits:
            node = BrokerNode(self.primary, seconds)
            await node.start(stack)
            self.nodes.append(node)

    def replace(self, server: BrokerServer) -> None:
        """Have the nodes reach another server from now on."""
        self.primary = server
        for node in self.nodes:
            node.pipe.target = (HOST, server.port)

    async def close(self) -> None:
        """Kill every server."""
        for server in self._made:
            await in_thread(server.kill)

    # -- what the nodes are held to

    def seconds(self) -> float:
        """Return the time by which the nodes are held to their bounds."""
        return time.monotonic() - self.starved

    async def until_away(self, nodes: Sequence[BrokerNode]) -> None:
        """Wait until these nodes say that they are deaf. Raises `Wrong` if one does not in time."""
        began = self.seconds()
        await self._until(503, nodes, began, "says on /readyz that it is deaf")
        self.noticed = max(self.noticed, self.seconds() - began)

    async def until_ready(self, began: float) -> None:
        """Wait until each node is ready. Raises `Wrong` if one is not in time."""
        await self._until(200, self.nodes, began, "is ready")

    async def until_returned(self, returns: Mapping[BrokerNode, int], began: float) -> None:
        """Wait until the broker has returned to these nodes once more. Raises `Wrong` if it has not in time."""
        while late := [node for node, count in returns.items() if node.server.node.returns == count]:
            if self.seconds() - began > READY_SECONDS:
                raise Wrong(f"a node whose connection was cut is not back: {late[0].server.node.unready}")
            await asyncio.sleep(LOOK_SECONDS)

    async def until_delivered(self, doing: Coroutine[Any, Any, None], began: float) -> None:
        """Wait for a publish and its deliveries. Raises `Wrong` if these are not done in time."""
        task = asyncio.create_task(doing)
        try:
            while not task.done():
                if self.seconds() - began > READY_SECONDS:
                    raise Wrong(f"what was published is not delivered within {READY_SECONDS:g} s of the return")
                await asyncio.wait((task,), timeout=LOOK_SECONDS)
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.ready = max(self.ready, self.seconds() - began)

    async def publish_away(self, node: BrokerNode) -> None:
        """Publish while the broker is away. It is refused with when to try again, after it has waited as is set.

        Raises `Wrong`. It ends when the publish is answered: if it waits, the broker may have returned.
        """
        wait, began = node.wait_seconds, time.monotonic()
        seconds = wait + 2 * READY_SECONDS
        answer = await ask_http(node.server.port, "POST", "/v1/channels/away", b"1", seconds=seconds)
        took = time.monotonic() - began
        if _is_refused(answer) and took >= wait:
            return
        if answer.status >= 300 or not wait:
            raise Wrong(f"a publish that may wait {wait:g} s was answered after {took:.1f} s with {answer.head!r}")

    async def _until(self, status: int, nodes: Sequence[BrokerNode], began: float, clause: str) -> None:
        for node in nodes:
            while (await ask_http(node.server.port, "GET", "/readyz")).status != status:
                if self.seconds() - began > READY_SECONDS:
                    raise Wrong(f"not every node {clause} within {READY_SECONDS:g} s: {node.server.node.unready}")
                await asyncio.sleep(LOOK_SECONDS)


def _is_refused(answer: HttpAnswer) -> bool:
    return answer.status == 503 and b"retry-after:" in answer.head.lower()
