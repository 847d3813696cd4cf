"""Idle subscribers: the resident memory of each, with heartbeats."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from .arena import Arena
from .base import BenchError, Plan, Row, number
from .processes import Bench, free_port

SUBSCRIBERS = 10_000
HEARTBEAT_SECONDS = 2.0
TARGET = 2500.0
WARM = 50  # subscribers before the measurement, for what is loaded once


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for each transport."""
    count = plan.count(1000 if plan.quick else SUBSCRIBERS)
    heartbeat = HEARTBEAT_SECONDS / 4 if plan.quick else HEARTBEAT_SECONDS
    for transport in plan.transports():
        server = bench.server(limits__heartbeat_seconds=heartbeat)
        arena = Arena(bench, server, transport)
        arena.subscribe(WARM)
        before = server.resident()
        arena.subscribe(count)
        attached = number(arena.sink.command("check"), "bytes")
        time.sleep(2.5 * heartbeat)  # two heartbeats are sent before the memory is read
        after = arena.sink.command("check")
        if number(after, "closed") or number(after, "bytes") <= attached:
            raise BenchError(f"an idle subscriber was closed, or had no heartbeat; look into the server's log: {after}")
        figure, floor = (server.resident() - before) / count, _floor(bench, transport, count)
        yield Row(
            name=f"idle, {transport}",
            unit="resident bytes per subscriber",
            figure=figure,
            floor=floor,
            ratio=figure / floor if floor else None,
            judged="figure",
            target=TARGET,
            note=f"{count} subscribers of one channel, a heartbeat every {heartbeat:g} s;"
            " floor: what the event loop keeps of a connection that nobody serves",
        )
        bench.stop_all()


def _floor(bench: Bench, transport: str, count: int) -> float:
    port = free_port()
    server = bench.other_server([sys.executable, "-m", "benchmarks.bare", str(port)], port)
    arena = Arena(bench, server, transport)
    arena.subscribe(WARM)
    before = server.resident()
    arena.subscribe(count)
    return (server.resident() - before) / count
