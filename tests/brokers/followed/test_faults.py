"""Faults of real servers under Kafka and RabbitMQ: what the nodes report is what has happened to their messages.

Two nodes listen while one publishes with a key each, and publishes again what was not taken. Then each acknowledged
message was delivered to both, or is in a hole that both reported, or in the history after a skip, or of an epoch
that has ended; and nothing else was delivered, nothing twice.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from functools import partial

import pytest

from oncecast.brokers.base import Broker, BrokerUnreachable, Opening, Outcome
from oncecast.message import Cursor, Draft, Kind, Message, Page, Receipt, Retention, Start, StartKind
from oncecast.server.brokers import build_broker
from oncecast.server.settings import Settings
from scripts.broker_servers.base import BrokerServer
from tests.brokers.servers import Servers

KINDS = {"kafka": "topic", "rabbitmq": "stream"}
DEADLINE = 30.0  # for what is waited for
NOTICE_SECONDS = 5.0  # in which a node notices that its server is silent
PAUSE_SECONDS = 10.0
PACE = 0.005
_numbers = itertools.count()


class Node:
    """A node: a broker and its sink, which keeps what the broker reports."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.broker = self._make()
        self.epochs: list[str] = []
        self.messages: list[tuple[str, Message]] = []  # with the epoch
        self.holes: list[tuple[int, int]] = []
        self.skips: list[int] = []
        self.confirmed = False
        self.unready: str | None = None
        self.failed: str | None = None

    async def start(self) -> None:
        """Start, once the server has a leader for the log, and want the channel."""
        async with asyncio.timeout(DEADLINE):
            while not self.epochs:
                try:
                    await self.broker.start(self)
                except BrokerUnreachable:
                    self.broker = self._make()
                    await asyncio.sleep(0.1)
        self.broker.want(("a",))
        await until(lambda: self.confirmed)

    def _make(self) -> Broker:
        return build_broker(Settings(broker=self._url), lambda channel: Retention(100_000))

    def has(self, receipt: Receipt) -> bool:
        """Whether it was handed this message, or a later one of its epoch."""
        return bool(self.messages) and self.epochs[-1] == receipt.epoch and self.messages[-1][1].seq >= receipt.seq

    # -- the sink

    def begin(self, opening: Opening, /) -> None:
        """Another log."""
        self.epochs.append(opening.epoch)
        self.holes, self.skips = list(opening.holes), []

    def receive(self, messages: Sequence[Message], /) -> None:
        """Messages of it."""
        self.messages += [(self.epochs[-1], message) for message in messages]

    def advance(self, seq: int, /) -> None:
        """Nothing to keep."""

    def skip(self, seq: int, /) -> None:
        """What is before is in the history."""
        self.skips.append(seq)

    def hole(self, before: int, after: int, /) -> None:
        """What is between may be lost."""
        self.holes.append((before, after))

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """All from here on."""
        self.confirmed = True

    def away(self, reason: str, /) -> None:
        """Not ready."""
        self.unready = reason

    def back(self) -> None:
        """Ready."""
        self.unready = None

    def fail(self, reason: str, /) -> None:
        """The end."""
        self.failed = reason


class Trial:
    """A server of its own, two nodes, and a publisher that runs until `quiet`."""

    def __init__(self, server: BrokerServer, url: str) -> None:
        self.server = server
        self.nodes = [Node(url), Node(url)]
        self.receipts: dict[bytes, Receipt] = {}
        self.refused = 0
        self._publishing: asyncio.Task[None] | None = None

    def publish(self) -> None:
        """Publish from now on."""
        self._publishing = asyncio.create_task(self._publish())

    async def quiet(self) -> None:
        """Publish no more; what is under way is taken first."""
        publishing, self._publishing = self._publishing, None
        assert publishing is not None
        self._ending = True
        await publishing

    async def taken(self, count: int) -> None:
        """Wait until as many more are taken."""
        count += len(self.receipts)
        await until(lambda: len(self.receipts) >= count)

    async def restart(self, between: Callable[[], None] = lambda: None) -> float:
        """Start the server that is stopped; return the seconds until both nodes are live."""
        between()
        await asyncio.to_thread(self.server.start)
        begun = time.monotonic()
        await until(self.live)
        return time.monotonic() - begun

    def live(self) -> bool:
        """Whether both nodes are ready."""
        return all(node.unready is None for node in self.nodes)

    async def end(self) -> None:
        """Stop the nodes."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
        for node in self.nodes:
            await node.broker.stop()

    async def _publish(self) -> None:
        self._ending = False
        loop = asyncio.get_running_loop()
        while not self._ending:
            number = next(_numbers)
            draft = Draft("a", b"%d" % number, Kind.JSON, None, f"key-{number}")
            while True:
                answered: asyncio.Future[Sequence[Outcome]] = loop.create_future()
                self.nodes[0].broker.publish([draft], answered.set_result)
                (outcome,) = await answered
                if isinstance(outcome, Receipt):
                    self.receipts[draft.data] = outcome
                    break
                assert outcome.code == "unavailable"
                self.refused += 1
                await asyncio.sleep(0.05)
            await asyncio.sleep(PACE)

    async def judge(self) -> None:
        """Compare what the sinks got with what was acknowledged."""
        last = max(self.receipts.values(), key=lambda receipt: (receipt.epoch == self.nodes[0].epochs[-1], receipt.seq))
        for node in self.nodes:
            await until(partial(node.has, last))
            assert node.failed is None
            seen = {(epoch, message.seq): message.data for epoch, message in node.messages}
            assert len(seen) == len(node.messages)
            assert len(set(seen.values())) == len(seen), "delivered twice"
            for epoch in node.epochs:
                seqs = [message.seq for each, message in node.messages if each == epoch]
                assert seqs == sorted(seqs)
            assert set(seen.values()) == set(self.receipts) & set(seen.values()), "delivered and never acknowledged"
            history = {message.seq: message.data for message in await self.history(node)}
            for data, receipt in self.receipts.items():
                if receipt.epoch != node.epochs[-1]:
                    continue
                found = seen.get((receipt.epoch, receipt.seq))
                missed = any(before < receipt.seq < after for before, after in node.holes)
                skipped = any(receipt.seq <= skip for skip in node.skips) and history.get(receipt.seq) == data
                assert found == data or (found is None and (missed or skipped)), (data, receipt, found, node.holes)
            for seq, data in history.items():
                assert self.receipts[data].seq == seq, "the history has what was not acknowledged under this number"
        assert self.nodes[0].holes == self.nodes[1].holes
        assert self.nodes[0].epochs[-1] == self.nodes[1].epochs[-1]

    async def history(self, node: Node) -> list[Message]:
        """Return all that the server has."""
        found: list[Message] = []
        after = 0
        while True:
            answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            start = Start(StartKind.CURSOR, Cursor(node.epochs[-1], after))
            node.broker.read(("a",), start, 1000, 1 << 20, answered.set_result)
            page = await answered
            assert isinstance(page, Page), page
            if not page.messages:
                return found
            found += page.messages
            after = page.upto


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.01)


@pytest.fixture(params=KINDS)
async def trial(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Trial]:
    """Two nodes on a server of their own."""
    kind: str = request.param
    with ExitStack() as stack:
        server = servers.own(kind, stack)
        url = f"{server.url.partition('?')[0]}?{KINDS[kind]}=faults"
        if kind == "rabbitmq":  # a stream that was made just before its server is killed never has a leader again
            first = Node(url)
            await first.start()
            await first.broker.stop()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
        made = Trial(server, url)
        try:
            for node in made.nodes:
                await node.start()
            yield made
        finally:
            await made.end()


async def test_a_server_that_is_killed_and_comes_back_whole(trial: Trial) -> None:
    """Twice in the middle of publishes: each node has one hole for each, and every message once."""
    trial.publish()
    for _ in range(2):
        await trial.taken(50)
        await asyncio.to_thread(trial.server.kill)
        await until(lambda: all(node.unready is not None for node in trial.nodes))
        await trial.restart()
    await trial.taken(50)
    await trial.quiet()
    assert trial.refused > 0
    await trial.judge()
    assert [len(node.epochs) for node in trial.nodes] == [1, 1]
    assert len(trial.nodes[0].holes) >= 2


async def test_a_server_that_comes_back_empty(trial: Trial) -> None:
    """Another log begins for both nodes, and all that is published then is delivered."""
    trial.publish()
    await trial.taken(50)
    await trial.quiet()
    before = trial.nodes[0].epochs[-1]
    await asyncio.to_thread(trial.server.stop)
    await until(lambda: all(node.unready is not None for node in trial.nodes))
    await trial.restart(trial.server.wipe)
    assert [node.epochs[0] for node in trial.nodes] == [before, before]
    trial.publish()
    await trial.taken(50)
    await trial.quiet()
    await trial.judge()
    assert [len(node.epochs) for node in trial.nodes] == [2, 2]
    assert len({trial.nodes[0].epochs[-1], before}) == 2


async def test_an_older_copy_that_is_put_back(trial: Trial) -> None:
    """What was acknowledged after the copy is in a hole; its numbers are never given to other messages."""
    trial.publish()
    await trial.taken(50)
    await trial.quiet()
    await asyncio.to_thread(trial.server.stop)
    trial.server.save("older")
    await trial.restart()
    trial.publish()
    await trial.taken(50)
    await trial.quiet()
    lost = list(trial.receipts.items())[50:]
    await asyncio.to_thread(trial.server.stop)
    await until(lambda: all(node.unready is not None for node in trial.nodes))
    await trial.restart(lambda: trial.server.restore("older"))
    trial.publish()
    await trial.taken(100)
    await trial.quiet()
    gone = {receipt.seq for _, receipt in lost if receipt.seq > min(lost, key=lambda each: each[1].seq)[1].seq}
    given = {receipt.seq for data, receipt in trial.receipts.items() if data not in dict(lost)}
    assert gone.isdisjoint(given)
    for data, receipt in lost:
        assert any(before < receipt.seq < after for before, after in trial.nodes[0].holes) or receipt.seq in {
            message.seq for message in await trial.history(trial.nodes[0])
        }, (data, receipt)
    await trial.judge()


async def test_a_server_that_stands_still(trial: Trial) -> None:
    """It is away after at most 5 s, and when it goes on nothing is lost and nothing comes twice."""
    trial.publish()
    await trial.taken(50)
    begun = time.monotonic()
    trial.server.pause()
    try:
        await until(lambda: all(node.unready is not None for node in trial.nodes))
        noticed = time.monotonic() - begun
        await asyncio.sleep(max(0.0, PAUSE_SECONDS - noticed))  # how long it stands still is the fault itself
    finally:
        trial.server.resume()
    assert noticed <= NOTICE_SECONDS
    await until(trial.live)
    await trial.taken(50)
    await trial.quiet()
    await trial.judge()
    assert [len(node.epochs) for node in trial.nodes] == [1, 1]
