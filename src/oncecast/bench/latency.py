"""Latency: from the publish until the last of 1,000 subscribers has the message, beside one round of the C loop."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .arena import Arena
from .base import Measured, Plan, Row
from .processes import Bench

SUBSCRIBERS = 1000
ROUNDS = 200  # in each of the pairs: 1,000 together
TARGET = 1.5


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield the 99th percentile and the mean. The same process sends, receives and holds the clock."""
    arena = Arena(bench, bench.server(), plan.transport or "websocket")
    arena.subscribe(plan.count(SUBSCRIBERS))
    arena.publisher()
    arena.floor()
    rounds = plan.rounds(ROUNDS)
    arena.rounds(rounds)
    arena.floor_rounds(rounds)
    pairs = [(arena.rounds(rounds).micros, arena.floor_rounds(rounds).micros) for _ in range(plan.pairs)]
    count = sum(len(ours) for ours, _ in pairs)
    unit, note = "µs until the last has it", f"{arena.count} subscribers, {count} rounds; floor: a round of the C loop"
    yield Measured.tails(pairs, 99).row("latency, p99", unit, note, target=TARGET)
    means = Measured.of([(statistics.fmean(ours), statistics.fmean(floors)) for ours, floors in pairs])
    yield means.row("latency, mean", unit, note)
