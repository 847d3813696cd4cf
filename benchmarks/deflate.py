"""permessage-deflate: the CPU time of one delivery where every subscriber has negotiated it, and where none has."""

from __future__ import annotations

from collections.abc import Iterator

from oncecast.server.settings import Settings

from .arena import Arena
from .base import BenchError, Plan, Row, alternate
from .processes import Bench

SUBSCRIBERS = 1000
ROUNDS = 60
DATA_BYTES = 500
TARGET = 1.5
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"  # as browsers offer it


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield one row; the floor is the same server without the extension."""
    if "deflate" not in Settings.__struct_fields__:
        raise BenchError("this server has no setting `deflate`: nothing to measure")
    count = plan.count(SUBSCRIBERS)
    with_it = _arena(bench, count, OFFER)
    without = _arena(bench, count, "")
    rounds = plan.rounds(ROUNDS)
    measured = alternate(lambda: with_it.cost(rounds), lambda: without.cost(rounds), plan.pairs)
    sent = [done.bytes / done.deliveries for done in (with_it.rounds(2), without.rounds(2))]
    yield measured.row(
        "deflate",
        "µs CPU per delivery",
        f"{count} subscribers, {sent[1]:.0f} bytes become {sent[0]:.0f}; floor: the server without the extension",
        target=TARGET,
    )


def _arena(bench: Bench, count: int, headers: str) -> Arena:
    """Return a server with raw sockets. `sink` counts their frames without reading them."""
    arena = Arena(bench, bench.server(deflate="true"), "frames", data_bytes=DATA_BYTES)
    answer = arena.subscribe(count, headers=headers)
    if answer["deflate"] is not bool(headers):
        raise BenchError(f"permessage-deflate: offered {bool(headers)}, but the server's answer is {answer['deflate']}")
    arena.publisher()
    return arena
