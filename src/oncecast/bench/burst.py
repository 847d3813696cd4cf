"""A burst: the CPU time of one delivery where 50 publishes come in one piece, their parsing included."""

from __future__ import annotations

from collections.abc import Iterator

from .arena import Arena
from .base import Plan, Row, alternate
from .processes import Bench

SUBSCRIBERS = 1000
BATCH = 50
ROUNDS = 60
TARGET = 0.6


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield one row: the floor is a C loop that sends the 50 messages as one block."""
    arena = Arena(bench, bench.server(), plan.transport or "websocket")
    arena.subscribe(plan.count(SUBSCRIBERS))
    arena.publisher()
    arena.floor(batch=BATCH)
    rounds = plan.rounds(ROUNDS)
    measured = alternate(
        lambda: arena.cost(rounds, batch=BATCH), lambda: arena.floor_cost(rounds, batch=BATCH), plan.pairs
    )
    yield measured.row(
        f"burst of {BATCH}",
        "µs CPU per delivery",
        f"{arena.count} subscribers; floor: one send() in C of all {BATCH}, by the message",
        target=TARGET,
        judged="figure",
    )
