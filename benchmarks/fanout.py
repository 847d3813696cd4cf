"""Fan-out, one message at a time: the CPU time of a delivery, beside a send() of the same bytes in a bare loop.

The floor is a loop in C. With TLS it is one in Python over the `send` of its `ssl` module's sockets.
"""

from __future__ import annotations

from collections.abc import Iterator

from .arena import Arena
from .base import Plan, Row, alternate
from .processes import Bench

SUBSCRIBERS = 1000
ROUNDS = 60
TARGET = 1.25


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for each transport."""
    for transport in plan.transports():
        for tls in plan.ways():
            yield _measure(bench, plan, transport, tls)


def _measure(bench: Bench, plan: Plan, transport: str, tls: bool) -> Row:
    arena = Arena(bench, bench.server(tls=tls), transport, tls=tls)
    arena.subscribe(plan.count(SUBSCRIBERS))
    arena.publisher()
    arena.floor()
    rounds = plan.rounds(ROUNDS)
    measured = alternate(lambda: arena.cost(rounds), lambda: arena.floor_cost(rounds), plan.pairs)
    bench.stop_all()
    floor = "a loop over SSLSocket.send" if tls else "one send() in C"
    return measured.row(
        f"fanout, {transport}{', TLS' if tls else ''}",
        "µs CPU per delivery",
        f"{arena.count} subscribers, 60 bytes of JSON; floor: {floor}",
        target=TARGET,
    )
