"""Servers of Redis that a test has for itself, with settings of its own; and nodes on them, without HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from oncecast.message import Draft, Receipt
from oncecast.testing.broker_bench import BrokerBench
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.kinds import KINDS, Redis
from scripts.broker_servers.system import HOST, free_ports
from tests.brokers.starting import bench_at

SECONDS = 60.0  # of any wait: the machine may be busy


class Sentinel(Redis):
    """A sentinel that watches one primary, called `mymaster`."""

    name = "sentinel"
    primary = 0  # its port
    quorum = 1
    down_seconds = 1.5

    def command(self) -> list[str]:
        """Return the command; writes the configuration, which the sentinel writes over."""
        settings = self.directory / "sentinel.conf"
        if not settings.exists():
            settings.write_text(
                f"bind {HOST}\nport {self.port}\ndir {self.data}\n"
                f"sentinel monitor mymaster {HOST} {self.primary} {self.quorum}\n"
                f"sentinel down-after-milliseconds mymaster {self.down_seconds * 1000:.0f}\n"
                "sentinel failover-timeout mymaster 5000\n"
            )
        return [self.program or self.require(), str(settings), "--sentinel", *self.options]


class ClusterNode(Redis):
    """A node of a Cluster, which has no slots yet. Its second port is that of the Cluster itself."""

    name = "cluster-node"
    port_count = 2

    def command(self) -> list[str]:
        """Add what makes it one."""
        return [*super().command(), "--cluster-enabled", "yes", "--cluster-port", str(self.ports[1])]


class Sites:
    """Makes servers in a folder; the stack ends them, and the nodes."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.driver = LoopDriver(SECONDS)
        self._stack = stack
        self._count = 0
        stack.callback(self.driver.close)

    def server(self, kind: str = "redis", *options: str, replica_of: int | None = None) -> Redis:
        """Return a server that runs."""
        made = self.make(KINDS[kind], *options)
        assert isinstance(made, Redis)
        made.replica_of = replica_of
        made.start()
        return made

    def make(self, kind: type[Any], *options: str) -> Any:
        """Return a server that does not run yet."""
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        made = kind(folder, free_ports(kind.port_count))
        made.options = options
        self._stack.callback(made.kill)
        return made

    def node(self, url: str) -> BrokerBench:
        """Return a node, not started."""
        bench = bench_at(url, self.driver)
        self._stack.callback(bench.stop)
        return bench

    def started(self, url: str, *channels: str) -> BrokerBench:
        """Return a node that has started, and follows channels."""
        bench = self.node(url)
        bench.start()
        bench.want(*channels)
        return bench

    def wait(self, condition: Callable[[], bool], text: str) -> None:
        """Wait until something holds."""
        self.driver.wait(condition)
        if not condition():
            pytest.fail(f"not within {SECONDS:g} s: {text}")

    def until_away(self, node: BrokerBench) -> None:
        """Wait until a node says that it is not ready."""
        self.wait(lambda: node.unready is not None, "the node is away")

    def until_back(self, node: BrokerBench) -> None:
        """Wait until a node says that it is ready."""
        self.wait(lambda: node.unready is None, "the node is back")


def client(port: int, password: str | None = None) -> Any:
    """Return the library's own connection to a server, for what a test does there."""
    return redis.Redis(port=port, password=password, socket_timeout=SECONDS)


def works(node: BrokerBench, channel: str = "a") -> Receipt:
    """Publish a message, and hold that it is delivered. Returns its receipt."""
    (receipt,) = node.receipts(Draft(channel, b"works"))
    assert node.messages[-1].seq == receipt.seq
    return receipt


def sites_of(folder: Path) -> Iterator[Sites]:
    """Yield sites, and end what they have made."""
    with contextlib.ExitStack() as stack:
        yield Sites(folder, stack)
