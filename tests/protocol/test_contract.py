"""The transports' contract, over each of ours; `test_contract_on_brokers.py` has it over other brokers."""

from __future__ import annotations

import pytest

from oncecast.core.pages import PAGE_BYTES
from oncecast.server.server import Server
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


@pytest.mark.parametrize("kind", [kind for kind in SUBSCRIBERS if kind.streams], ids=lambda kind: kind.name)
async def test_a_stalled_reader_costs_little(kind: type[Subscriber]) -> None:
    """The server holds a page of the log at most for a reader that stalls, however much the reader misses."""
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
