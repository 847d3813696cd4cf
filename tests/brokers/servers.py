"""Real servers of brokers for the tests: one of each kind for a session, on free ports, started when first asked for.

Where a server's program is missing, its tests are skipped by its name; in CI they fail.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from oncecast.message import Draft, Kind
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from scripts.broker_servers.base import BrokerServer
from scripts.broker_servers.kinds import KINDS
from scripts.broker_servers.system import Missing, free_ports

SECONDS = 60.0
LOGS = {  # what names a log in a URL, for each kind
    "redis": "prefix",
    "valkey": "prefix",
    "nats": "stream",
    "nats-newest": "stream",
    "kafka": "topic",
    "rabbitmq": "stream",
}
_numbers = itertools.count()


class Servers:
    """The servers that run."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._running: dict[str, BrokerServer] = {}

    def __call__(self, name: str) -> BrokerServer:
        """Return the server of a kind, running."""
        if name not in self._running:
            self._running[name] = self.own(name, self._stack)
        return self._running[name]

    def new_log(self, name: str) -> str:
        """Return the URL of a log that nothing else uses, on the server of a kind."""
        server, _, _ = self(name).url.partition("?")
        return f"{server}?{LOGS[name]}=log{os.getpid()}x{next(_numbers)}"

    def own(
        self, name: str, stack: ExitStack, kind: type[BrokerServer] | None = None, **options: object
    ) -> BrokerServer:
        """Start a server for one test, which the stack ends. `options` are for a `kind` of the test's own."""
        kind = kind or KINDS[name]
        require(name)
        directory = self._directory / f"{name}-{len(os.listdir(self._directory))}"
        directory.mkdir()
        server = kind(directory, free_ports(kind.port_count), **options)  # type: ignore[arg-type]
        stack.callback(server.kill)
        server.start()
        return server


def require(name: str) -> None:
    """Skip the test where the program of a kind of server is missing; in CI it fails."""
    try:
        KINDS[name].require()
    except Missing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{name}: {missing}")
        pytest.skip(f"{name}: {missing}")


async def leave_a_log(folder: Path, *channels: str) -> None:
    """Write `oncecast.db` with a message of each channel, as a server in that folder leaves it."""
    server = Server(Settings(port=0, broker=f"sqlite:///{folder}/oncecast.db"))
    await server.start()
    try:
        published = asyncio.Event()
        drafts = [Draft(name, b"kept", Kind.TEXT) for name in channels]
        server.node.publish(drafts, lambda outcomes: published.set())
        async with asyncio.timeout(SECONDS):
            await published.wait()
    finally:
        await server.stop(0)
