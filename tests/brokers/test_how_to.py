"""The how-to page of each broker is followed: its commands, in its order, with a real server of that kind.

The page's installation is left out, as the packages are here. The log and the ports are the test's own. A block that
moves a log comes first, as the page says that it has to.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import ClientSession

from benchmarks.processes import environment, free_port
from tests.brokers.servers import Servers, leave_a_log
from tests.docs_rig import ROOT, bash, blocks

SECONDS = 120.0
PROGRAM = "oncecast/bin/oncecast "
LOG = re.compile(r"'(?:redis|nats|amqp|kafka)://[^']+'")


def lines_of(kind: str) -> list[str]:
    """Return the lines of the page that begin with Oncecast's own program."""
    shell = [block.text for block in blocks(ROOT / "docs" / "how-to" / f"{kind}.md") if block.language == "sh"]
    return [line for text in shell for line in text.splitlines() if line.startswith(PROGRAM)]


class Terminals:
    """Runs lines of the page in a folder, with another log and other ports than the page's."""

    def __init__(self, folder: Path, url: str) -> None:
        self.ports = {"8001": str(free_port()), "8002": str(free_port())}
        self._folder = folder
        self._url = url
        self._stack = contextlib.AsyncExitStack()

    async def open(self, line: str) -> asyncio.subprocess.Process:
        """Begin a command, which is ended with the terminals."""
        line = line.replace(PROGRAM, f"{Path(sys.executable).parent / 'oncecast'} ")
        line = LOG.sub(f"'{self._url}'", line)
        for shown, own in self.ports.items():
            line = re.sub(rf"\b{shown}\b", own, line)
        return await self._stack.enter_async_context(bash(line, self._folder, environment()))

    async def run(self, line: str) -> str:
        """Run a command to its end, and return what it has printed."""
        process = await self.open(line)
        printed, _ = await process.communicate()
        assert 0 == process.returncode, (line, printed.decode())
        return printed.decode()

    async def aclose(self) -> None:
        """End what still runs."""
        await self._stack.aclose()


async def is_ready(port: str) -> None:
    """Wait until a node serves."""
    async with ClientSession() as session:
        while True:
            with contextlib.suppress(OSError):
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["redis", "nats", "rabbitmq", "kafka"])
async def test_the_page_is_followed(kind: str, servers: Servers, tmp_path: Path) -> None:
    """Two nodes share the log: one is listened at, the other is published at. The log is moved, and looked into."""
    found = lines_of(kind)
    served = [line for line in found if " serve " in line]
    (moved,) = [line for line in found if " import " in line]
    (heard,) = [line for line in found if " sub " in line]
    (said,) = [line for line in found if " pub " in line]
    (status,) = [line for line in found if "broker status" in line]
    (channels,) = [line for line in found if "broker channels" in line]
    assert 2 == len(served)
    assert {*found} == {*served, moved, heard, said, status, channels}
    url = await asyncio.to_thread(servers.new_log, kind)
    async with asyncio.timeout(SECONDS), aclosing(Terminals(tmp_path, url)) as terminal:
        await leave_a_log(tmp_path, "old")
        await terminal.run(moved)
        for line in served:
            await terminal.open(line)
        for port in terminal.ports.values():
            await is_ready(port)
        listener = await terminal.open(heard)
        assert listener.stdout is not None
        assert (await listener.stdout.readline()).startswith(b"listening to news over ")
        await terminal.run(said)
        assert b"hello\n" == await listener.stdout.readline()
        assert kind in (await terminal.run(status)).lower()
        listed = await terminal.run(channels)
        assert {"news", "old"} <= {*listed.split()}
