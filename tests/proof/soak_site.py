"""What the soak runs on: three nodes on one log of Redis, behind HAProxy with the file of `deploy/proxies`.

Owns these processes: what has started has ended when the `async with` is left. Redis is a primary and a replica that a
sentinel watches; `fail_over` kills the primary, and has it back as the replica of the other one. The nodes know the
sentinel alone, and everybody else knows HAProxy's port alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from scripts.broker_servers.base import BrokerServer
from scripts.broker_servers.kinds import Redis
from scripts.broker_servers.system import free_ports
from tests.brokers.certificates import Authority
from tests.brokers.redis.sites import Sentinel, client
from tests.proxies.programs import PROGRAMS, running, site_of

from .deployment import Deployment

__all__ = ["NODES", "RedisPair", "Site", "Usage"]

NODES = 3
SECONDS = 60.0  # of any wait: the machine may be busy
LOOK_SECONDS = 0.05  # other programs have no event to wait on
Server = TypeVar("Server", bound=BrokerServer)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a node takes: resident bytes, and open descriptors."""

    memory: int
    descriptors: int


class RedisPair:
    """A primary, its replica, and the sentinel that watches them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._primary, self._replica = self._made(Redis), self._made(Redis)
        self._replica.replica_of = self._primary.port
        self._sentinel = self._made(Sentinel)
        self._sentinel.primary = self._primary.port
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel.port}/mymaster/0"

    def start(self) -> None:
        """Start them, and wait until the sentinel knows the replica. It blocks."""
        for server in (self._primary, self._replica, self._sentinel):
            server.start()
        self._wait_for_replica()

    def fail_over(self) -> None:
        """Kill the primary, wait for the other one, and start the first as its replica. It blocks."""
        old, new = self._primary, self._replica
        old.kill()
        end = time.monotonic() + SECONDS
        while client(new.port).info("replication")["role"] != "master":
            _check(end, "the replica takes the primary's place")
        old.replica_of, new.replica_of = new.port, None
        old.start()
        self._primary, self._replica = new, old

    def _wait_for_replica(self) -> None:
        end = time.monotonic() + SECONDS
        while (
            client(self._replica.port).info("replication")["master_link_status"] != "up"
            or client(self._sentinel.port).info("sentinel")["master0"]["slaves"] != 1
        ):
            _check(end, "the sentinel knows the replica")

    def _made(self, kind: type[Server]) -> Server:
        folder = self._folder / f"{kind.name}-{len(os.listdir(self._folder))}"
        folder.mkdir()
        server = kind(folder, free_ports(kind.port_count))
        self._stack.callback(server.kill)
        return server


class Site:
    """All of it. `settings` are the nodes', as a `Deployment` takes them. `url` and `port` are HAProxy's."""

    def __init__(self, folder: Path, settings: dict[str, object]) -> None:
        self._folder = folder
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._proxy = contextlib.ExitStack()
        self.nodes: list[Deployment] = []
        self.port = 0

    async def __aenter__(self) -> Site:
        async with self._stack:
            servers = self._stack.enter_context(contextlib.ExitStack())
            (self._folder / "redis").mkdir()
            self.redis = RedisPair(self._folder / "redis", servers)
            await asyncio.to_thread(self.redis.start)
            for number, port in enumerate(free_ports(NODES)):
                folder = self._folder / f"node-{number}"
                folder.mkdir()
                settings = dict(self._settings)
                node = Deployment(folder, workers=1, settings=settings, broker=self.redis.url, port=port)
                self.nodes.append(node)
                self._stack.push_async_exit(node)
            await asyncio.gather(*(node.start() for node in self.nodes))
            pair = Authority(self._folder, "authority").issue("localhost", "localhost", "127.0.0.1")
            program = PROGRAMS["haproxy"]
            site = site_of(self._folder / "haproxy", [node.port for node in self.nodes], pair)
            self._stack.enter_context(self._proxy)
            self._proxy.enter_context(running(program, program.fitted(site), site))
            self.port = site.plain
            self._kept = self._stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._kept.aclose()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    def look(self, number: int) -> Usage | None:
        """Return what a node takes now; None while it restarts."""
        try:
            place = Path(f"/proc/{self.nodes[number].pid}")
            descriptors = len(os.listdir(place / "fd"))
            pages = int((place / "statm").read_text("ascii").split()[1])
        except (AssertionError, OSError):
            return None
        return Usage(pages * os.sysconf("SC_PAGE_SIZE"), descriptors) if pages else None

    async def roll(self, settle: float) -> None:
        """Stop and start one node after the other, each `settle` seconds after the one before was ready.

        HAProxy takes a node in again after two checks, which are two seconds apart.
        """
        for number, node in enumerate(self.nodes):
            if number:
                await asyncio.sleep(settle)
            if status := await node.stop():
                raise RuntimeError(f"node {number} ended with {status}:\n{node.log[-2000:]}")
            await node.start()

    def end_proxy(self) -> None:
        """End HAProxy, and with it every connection to the nodes."""
        self._proxy.close()


def _check(end: float, text: str) -> None:
    if time.monotonic() > end:
        raise RuntimeError(f"not within {SECONDS:g} s: {text}")
    time.sleep(LOOK_SECONDS)
