"""A burst: the CPU time of one delivery where 50 publishes arrive in one read, with the time to parse them."""

from __future__ import annotations

from collections.abc import Iterator

from .arena import Arena
from .base import Plan, Row, Transport, alternate
from .processes import Bench

SUBSCRIBERS = 1000
BATCH = 50
ROUNDS = 60
TARGET = 0.6


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for each transport: the floor is a C loop that sends the 50 messages as one block."""
    for transport in plan.transports():
        yield _row(bench, plan, transport)
        bench.stop_all()


def _row(bench: Bench, plan: Plan, transport: Transport) -> Row:
    arena = Arena(bench, bench.server(), transport)
    arena.subscribe(plan.count(SUBSCRIBERS))
    arena.publisher()
    arena.floor(batch=BATCH)
    rounds = plan.rounds(ROUNDS)
    measured = alternate(
        lambda: arena.cost(rounds, batch=BATCH), lambda: arena.floor_cost(rounds, batch=BATCH), plan.pairs
    )
    return measured.row(
        f"burst of {BATCH}, {transport}",
        "µs CPU per delivery",
        f"{arena.count} subscribers; floor: one send() in C of all {BATCH}, by the message",
        target=TARGET,
        judged="figure",
    )
