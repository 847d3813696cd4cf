"""Stalled readers: what a thousand that read nothing cost the thousand that read, and the server's memory.

Two servers, each with readers; one has as many stalled readers besides, with a small receive buffer. There many
messages go by first, so that the stalled are full, and the log at its bound. Then the latency of the readers is
measured in turns with the other server. At last the stalled read on: each must see every message, or a gap where some
are missing.
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
    """Yield the readers' latency, the memory per stalled reader, and what the stalled missed without a word."""
    count = plan.count(100 if plan.quick else READERS)
    messages = 30_000 if plan.quick else MESSAGES
    retained = min(RETAINED, messages // 4)
    without = _arena(bench, count, retained)
    beside = _arena(bench, count, retained)
    beside.rounds(2 * retained // BATCH, batch=BATCH)  # from here on the log grows no more
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
        unit="stalled readers wronged",
        figure=number(seen, "holes") + number(seen, "behind") + number(seen, "closed"),
        judged="figure",
        target=0.0,
        note=f"having read on, {number(seen, 'told'):.0f} of {count} were told of a gap, the others had every message",
    )


def _arena(bench: Bench, readers: int, retained: int) -> Arena:
    arena = Arena(bench, bench.server(retention__messages=retained), "websocket")
    arena.subscribe(readers)
    arena.publisher()
    return arena
