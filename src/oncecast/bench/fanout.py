"""Fan-out, one message at a time: the CPU time of a delivery, beside one send() of the same bytes in a bare C loop."""

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
        yield Row(
            name=f"fanout, {transport}",
            unit="µs CPU per delivery",
            figure=measured.figure,
            floor=measured.floor,
            ratio=measured.ratio,
            low=measured.low,
            high=measured.high,
            target=TARGET,
            note=f"{arena.count} subscribers, 60 bytes of JSON; floor: one send() in C",
        )
        bench.stop_all()
