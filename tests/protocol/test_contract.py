"""The transports' contract, over each of ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from oncecast.brokers.base import Done
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.pages import PAGE_BYTES
from oncecast.message import Draft
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.history_broker import HistoryBroker
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS
from oncecast.testing.transport import CHECKS, check_transport
from oncecast.testing.transport_bench import TransportBench
from oncecast.testing.transport_faults import BIG, stall


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract(kind: type[Subscriber], name: str) -> None:
    """Each transport keeps each clause of the contract."""
    await check_transport(kind, name)


WINDOW_BYTES = 4000  # some ten messages


class Trimmed(HistoryBroker):
    """A broker with a history that keeps so many messages of each channel."""

    def __init__(self, broker: MemoryBroker, keep: int) -> None:
        super().__init__(broker.epoch, broker._wall)
        self.keep = keep

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Trim what is too much, too."""
        super().publish(drafts, done)
        for channel in {draft.channel for draft in drafts}:
            seqs = [message.seq for message in self.messages if message.channel == channel]
            if len(seqs) > self.keep:
                self.trim(channel, seqs[len(seqs) - self.keep - 1])


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract_on_a_history(kind: type[Subscriber], name: str) -> None:
    """So it does where memory holds only the end of the log, and the rest is read from the broker's history."""

    async def start(settings: Settings, broker: MemoryBroker) -> Server:
        retention = replace(settings.retention, bytes=WINDOW_BYTES)
        server = Server(replace(settings, retention=retention), broker=Trimmed(broker, settings.retention.messages))
        await server.start()
        return server

    await check_transport(kind, name, start=start)


@pytest.mark.parametrize("kind", [kind for kind in SUBSCRIBERS if kind.streams], ids=lambda kind: kind.name)
async def test_a_stalled_reader_costs_little(kind: type[Subscriber]) -> None:
    """What the server holds for a reader that stalls is a page of the log at most, however much it misses."""
    bench = TransportBench(kind)
    try:
        await bench.serve()
        await stall(bench, "c")
        server = bench.served
        assert isinstance(server, Server)
        held = [connection._transport.get_write_buffer_size() for connection in server.app.connections]  # type: ignore[attr-defined]
        assert max(held) <= PAGE_BYTES + BIG
    finally:
        await bench.close()


RESUMING = [kind for kind in SUBSCRIBERS if kind.resumes]


@pytest.mark.parametrize("first", RESUMING, ids=lambda kind: kind.name)
async def test_a_cursor_of_one_transport_resumes_on_every_other(first: type[Subscriber]) -> None:
    """Falling back to another transport is resuming: the cursor means the same to all of them."""
    bench = TransportBench(first)
    try:
        await bench.serve()
        bench.publish_numbers(5)
        subscriber = bench.subscriber()
        await bench.listen(subscriber, 5)
        cursor = subscriber.cursors["c"]
        subscriber.cut()
        bench.publish_numbers(5)
        for kind in RESUMING:
            bench.kind = kind
            other = bench.subscriber(start="after=latest")
            other.seek(cursor)
            assert bench.shown(other, 6) == (await bench.listen(other, 5)).data, kind.name
    finally:
        await bench.close()
