"""Stalled readers: the effect of 1,000 sockets that read nothing on 1,000 that read, and on the server's memory.

There are two servers with readers. One of them has as many stalled readers too, with a small receive buffer. First it
gets so many messages that the stalled sockets are full and the log is at its bound. Then the latency of the readers of
both servers is measured alternately. At the end the stalled readers read on: each must get every message, or a gap that
covers the missing ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from .arena import Arena
from .base import Measured, Plan, Row, number
from .processes import Bench

READERS = 1000
MESSAGES = 1_000_000
BATCH = 50
ROUNDS = 200
RETAINED = 10_000
RECEIVE_BYTES = 4096
CATCH_UP_SECONDS = 60.0
LATENCY_TARGET = 1.2
MEMORY_TARGET = 64.0 * 1024


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield the readers' latency, the memory per stalled reader, and the stalled readers that missed one silently."""
    count = plan.count(100 if plan.quick else READERS)
    messages = 30_000 if plan.quick else MESSAGES
    retained = min(RETAINED, messages // 4)
    without = _arena(bench, count, retained)
    beside = _arena(bench, count, retained)
    beside.rounds(2 * retained // BATCH, batch=BATCH)  # the log is at its bound from here on
    beside.stalled(count, RECEIVE_BYTES)
    before = beside.server.resident()
    beside.rounds(messages // BATCH, batch=BATCH)
    grown = (beside.server.resident() - before) / count

    rounds = plan.rounds(ROUNDS)
    without.rounds(rounds)
    pairs = [(beside.rounds(rounds).micros, without.rounds(rounds).micros) for _ in range(plan.pairs)]
    measured = Measured.tails(pairs, 99)
    timed = sum(len(ours) for ours, _ in pairs)
    yield measured.row(
        "stalled, latency p99",
        "µs until the last reader has it",
        f"{count} readers beside {count} stalled, {timed} rounds; floor: without the stalled",
        target=LATENCY_TARGET,
    )
    yield Row(
        name="stalled, memory",
        unit="resident bytes per stalled reader",
        figure=grown,
        judged="figure",
        target=MEMORY_TARGET,
        note=f"grown while {messages:,} messages went by",
    )
    beside.sink.command("resume")
    seen = beside.sink.command(f"await {CATCH_UP_SECONDS}")
    yield Row(
        name="stalled, silent loss",
        unit="stalled readers with a silent loss",
        figure=number(seen, "holes") + number(seen, "behind") + number(seen, "closed"),
        judged="figure",
        target=0.0,
        note=f"having read on, {number(seen, 'with_gaps'):.0f} of {count} had a gap, the others every message",
    )


def _arena(bench: Bench, readers: int, retained: int) -> Arena:
    arena = Arena(bench, bench.server(retention__messages=retained), "websocket")
    arena.subscribe(readers)
    arena.publisher()
    return arena
