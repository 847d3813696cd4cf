"""Latency: the time from a publish to the last of 1,000 deliveries, beside one round of the C loop."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .arena import Arena
from .base import Measured, Plan, Row, Transport
from .processes import Bench

SUBSCRIBERS = 1000
ROUNDS = 200  # in each of the pairs: 1,000 together
TARGET = 1.5


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield the 99th percentile and the mean for each transport. One process sends, receives and holds the clock."""
    for transport in plan.transports():
        yield from _rows(bench, plan, transport)
        bench.stop_all()


def _rows(bench: Bench, plan: Plan, transport: Transport) -> Iterator[Row]:
    arena = Arena(bench, bench.server(), transport)
    arena.subscribe(plan.count(SUBSCRIBERS))
    arena.publisher()
    arena.floor()
    rounds = plan.rounds(ROUNDS)
    arena.rounds(rounds)
    arena.floor_rounds(rounds)
    pairs = [(arena.rounds(rounds).micros, arena.floor_rounds(rounds).micros) for _ in range(plan.pairs)]
    count = sum(len(ours) for ours, _ in pairs)
    unit, note = "µs until the last has it", f"{arena.count} subscribers, {count} rounds; floor: a round of the C loop"
    yield Measured.tails(pairs, 99).row(f"latency p99, {transport}", unit, note, target=TARGET)
    means = Measured.of([(statistics.fmean(ours), statistics.fmean(floors)) for ours, floors in pairs])
    yield means.row(f"latency mean, {transport}", unit, note)
