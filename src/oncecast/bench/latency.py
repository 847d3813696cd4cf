"""Latency: from the publish until the last of 1,000 subscribers has the message, beside one round of the C loop."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .arena import Arena
from .base import Measured, Plan, Row, percentile
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
    ours, floors = ([value for part in side for value in part] for side in zip(*pairs, strict=True))
    tails = Measured.of([(percentile(a, 99), percentile(b, 99)) for a, b in pairs])
    figure, floor = percentile(ours, 99), percentile(floors, 99)
    note = f"{arena.count} subscribers, {len(ours)} rounds; floor: a round of the C loop"
    yield Row(
        name="latency, p99",
        unit="µs until the last has it",
        figure=figure,
        floor=floor,
        ratio=figure / floor,
        low=tails.low,
        high=tails.high,
        target=TARGET,
        note=note,
    )
    means = Measured.of([(statistics.fmean(a), statistics.fmean(b)) for a, b in pairs])
    yield Row(
        name="latency, mean",
        unit="µs until the last has it",
        figure=means.figure,
        floor=means.floor,
        ratio=means.ratio,
        low=means.low,
        high=means.high,
        note=note,
    )
