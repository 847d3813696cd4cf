"""Starting a node on a broker's URL: within the test, and as the command `oncecast serve`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import oncecast
from oncecast.brokers.base import Broker
from oncecast.errors import ConfigurationError
from oncecast.message import Draft, Receipt, Retention
from oncecast.server.brokers import build_broker
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.broker_bench import BrokerBench, Lab
from oncecast.testing.driver import LoopDriver

SECONDS = 60.0  # for a command to end: CI has two busy cores


def broker_at(url: str) -> Broker:
    """Return the broker of a URL, as `serve` makes it. Raises `ConfigurationError`."""
    return build_broker(Settings(broker=url), lambda channel: Retention())


def bench_at(url: str, driver: LoopDriver) -> BrokerBench:
    """Return a node on a URL, not started."""
    broker = broker_at(url)
    return BrokerBench(broker, Lab(lambda: broker, driver))


def publish_once(url: str, data: bytes = b"1") -> bytes:
    """Start a node, publish, read it back, and stop. Return what was read."""
    driver = LoopDriver()
    bench: BrokerBench | None = None
    try:
        bench = bench_at(url, driver)
        bench.start()
        bench.want("a")
        (receipt,) = bench.publish(Draft("a", data))
        assert isinstance(receipt, Receipt), receipt
        page = bench.page("a", bench.after(0))
        assert page is not None
        return page.messages[-1].data
    finally:
        if bench is not None:
            bench.stop()
        driver.close()


def refusal_at(url: str) -> str:
    """Start a node that can't be started; return the line that says why."""
    try:
        publish_once(url)
    except ConfigurationError as error:
        line = str(error)
        assert "\n" not in line
        assert line.startswith("broker: ")
        return line
    raise AssertionError(f"it was started: {url}")


@dataclass
class Served:
    """How a command has ended."""

    status: int
    lines: list[str] = field(default_factory=list)


def serve(url: str, *, options: Sequence[str] = (), first: Sequence[str] = ()) -> Served:
    """Run `oncecast serve` on a URL that can't be served; return its status and the lines of its standard error.

    Modules in the folders `first` hide others.
    """
    path = os.pathsep.join([*first, os.path.dirname(os.path.dirname(oncecast.__file__))])
    done = subprocess.run(
        [sys.executable, "-m", "oncecast", "serve", "--port", "0", *options],
        env={**os.environ, "PYTHONPATH": path, "ONCECAST_BROKER": url},  # a password in a flag is warned of
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.stdout == ""
    return Served(done.returncode, done.stderr.splitlines())


async def readiness(server: Server) -> tuple[int, str]:
    """Return the status of `/readyz`, and its text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def until_ready(server: Server, holds: Callable[[int, str], bool]) -> tuple[int, str]:
    """Wait until `/readyz` answers so; return its answer."""
    end = time.monotonic() + SECONDS
    while not holds(*(found := await readiness(server))):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)
    return found
