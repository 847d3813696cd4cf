"""The transports' contract, over each of ours."""

from __future__ import annotations

import pytest

from oncecast.hub import PAGE_BYTES
from oncecast.server.server import Server
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS
from oncecast.testing.transport import CHECKS, check_transport
from oncecast.testing.transport_bench import Bench
from oncecast.testing.transport_faults import BIG, stall


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract(kind: type[Subscriber], name: str) -> None:
    """Each transport keeps each clause of the contract."""
    await check_transport(kind, name)


@pytest.mark.parametrize("kind", [kind for kind in SUBSCRIBERS if kind.streams], ids=lambda kind: kind.name)
async def test_a_stalled_reader_costs_little(kind: type[Subscriber]) -> None:
    """What the server holds for a reader that stalls is a page of the log at most, however much it misses."""
    bench = Bench(kind)
    try:
        await bench.serve()
        await stall(bench, "c")
        server = bench.served
        assert isinstance(server, Server)
        held = [connection._transport.get_write_buffer_size() for connection in server.app.connections]  # type: ignore[attr-defined]
        assert max(held) <= PAGE_BYTES + BIG
    finally:
        await bench.close()
