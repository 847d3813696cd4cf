"""What the tests with other people's clients share: a server in this process, a pipe that cuts, and Node.

Invariant of `Story`: it publishes `MESSAGES` numbered messages while somebody listens through a pipe that cuts the
first connections, each after a number of bytes that the seed determines. A client that keeps its cursor gets all
messages, once, in order.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from oncecast.message import Draft, Kind, Receipt
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.pipe import NO_FAULTS, Faults, FaultyPipe, Plan

HERE = Path(__file__).parent
MESSAGES = 2000
BATCH = 20  # published together, so that blocks of many messages are cut in the middle too
PART = 500  # the publisher waits for the listener before each part, so that some is heard live and some caught up
CUTS = 8
CUT_BYTES = (10, 5_000)  # inside an answer's head or far behind it; all cuts fit into the shortest form of a story
SECONDS = 60.0  # for anything to happen: generous, as the machine may be busy
NODE_SECONDS = 60.0  # for a script to end


class Site:
    """A running server, its URLs, and a way to publish without a client."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    def url(self, channel: str = "news", *, scheme: str = "http", query: str = "", port: int | None = None) -> str:
        """Return a channel's URL, at the server itself or at a pipe's port."""
        return f"{scheme}://127.0.0.1:{port or self.port}/v1/channels/{channel}{query}"

    async def publish(self, *data: object, channel: str = "news") -> list[str]:
        """Publish JSON in the server's own process; return the ids."""
        receipts: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        def done(outcomes: Any) -> None:
            receipts.set_result([receipt.id for receipt in outcomes if isinstance(receipt, Receipt)])

        drafts = [Draft(channel, json.dumps(item).encode(), Kind.JSON) for item in data]
        self.server.node.publish(drafts, done)
        return await receipts

    async def until_subscribed(self, count: int) -> None:
        """Wait until so many subscriptions stand, or more: streams, and polls that wait."""
        async with asyncio.timeout(SECONDS):
            while self.server.node.hub.subscriptions < count:  # noqa: ASYNC110 - the hub tells nobody
                await asyncio.sleep(0.005)


class Story:
    """A pipe that cuts the first `cuts` connections, and a publisher that goes on meanwhile."""

    def __init__(self, site: Site, cuts: int = CUTS, seed: int | None = None) -> None:
        self.site = site
        self.messages = MESSAGES
        self.pipe = FaultyPipe(("127.0.0.1", site.port), self._plan, seed=seed)
        self._cuts = cuts
        self._heard = asyncio.Semaphore(0)
        self._publishing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Story:
        await self.pipe.start()
        print(f"{self.pipe!r}: give Story this seed to see the same cuts")  # noqa: T201 - shown where a test fails
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
        await self.pipe.close()

    def url(self, *, scheme: str = "http", query: str = "") -> str:
        """Return the channel's URL at the pipe."""
        return self.site.url(scheme=scheme, query=query, port=self.pipe.port)

    def begin(self) -> None:
        """Begin to publish: call it once the listener has its first cursor."""
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish())

    def check(self, heard: list[int]) -> None:
        """Hold what was heard against what was published."""
        assert list(range(MESSAGES)) == heard, repr(self.pipe)
        assert self._cuts == self.pipe.cuts, repr(self.pipe)

    async def _publish(self) -> None:
        for first in range(0, MESSAGES, BATCH):
            if first % PART == 0:
                await self.site.until_subscribed(1)
            await self.site.publish(*range(first, first + BATCH))
            for _ in range(3):  # turns of the loop, in which the listener reads, is cut, and comes back
                await asyncio.sleep(0)

    def _plan(self, number: int, rng: random.Random) -> Plan:
        if number >= self._cuts:
            return Plan()
        after = rng.randint(*CUT_BYTES)
        return Plan(NO_FAULTS, Faults(cut_after=after, reset=rng.random() < 0.5))


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    """A server with the default settings."""
    server = Server(Settings(port=0))
    await server.start()
    yield Site(server)
    await server.stop(0)


@pytest_asyncio.fixture
async def story(site: Site) -> AsyncIterator[Story]:
    """The story of a listener that is cut off again and again."""
    async with Story(site) as story:
        yield story


@pytest_asyncio.fixture
async def short_story(site: Site) -> AsyncIterator[Story]:
    """The same with fewer cuts, for listeners that rest two seconds before they come back."""
    async with Story(site, cuts=2) as story:
        yield story


@pytest.fixture
def node() -> Callable[..., Awaitable[Any]]:
    """Run a script of this directory with Node, and return what it prints, read as JSON."""
    program = shutil.which("node")
    if program is None:
        pytest.fail("there is no node on the PATH: run scripts/system-packages, or apt-get install nodejs")
    if not (HERE / "node_modules" / "ws").is_dir():
        pytest.fail("tests/peers/node_modules is missing: run npm ci --prefix tests/peers, as make test does")

    async def run(script: str, *arguments: object) -> Any:
        pipe = asyncio.subprocess.PIPE
        command = (program, str(HERE / script), *map(str, arguments))
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(NODE_SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert 0 == process.returncode, err.decode()
        return json.loads(out)

    return run
