"""Fan-out, one message at a time: the CPU time of a delivery, beside a send() of the same bytes in a bare C loop."""

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
        arena = Arena(bench, bench.server(), transport)
        arena.subscribe(plan.count(SUBSCRIBERS))
        arena.publisher()
        arena.floor()
        rounds = plan.rounds(ROUNDS)
        measured = alternate(lambda: arena.cost(rounds), lambda: arena.floor_cost(rounds), plan.pairs)  # noqa: B023 - called here
        yield measured.row(
            f"fanout, {transport}",
            "µs CPU per delivery",
            f"{arena.count} subscribers, 60 bytes of JSON; floor: one send() in C",
            target=TARGET,
        )
        bench.stop_all()
