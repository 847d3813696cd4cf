"""Idle subscribers: the resident memory of each, with heartbeats."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from .arena import GREETING, Arena
from .base import BenchError, Plan, Row, number
from .processes import Bench, Process, free_port

SUBSCRIBERS = 10_000
HEARTBEAT_SECONDS = 2.0
TLS_HEARTBEAT_SECONDS = 10.0  # the handshakes of all take longer, and no subscriber may be silent meanwhile
TARGET = 2500.0
TLS_TARGET = 1.35  # times what OpenSSL and Python's `ssl` keep of a connection
WARM = 1000  # subscribers before the measurement: they fill the memory that the start has left free


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for each transport."""
    for transport in plan.transports():
        for tls in plan.ways():
            yield _measure(bench, plan, transport, tls)


def _measure(bench: Bench, plan: Plan, transport: str, tls: bool) -> Row:
    count, warm = plan.count(1000 if plan.quick else SUBSCRIBERS), WARM // 10 if plan.quick else WARM
    heartbeat = (TLS_HEARTBEAT_SECONDS if tls else HEARTBEAT_SECONDS) / (2 if plan.quick else 1)
    server = bench.server(tls=tls, limits__heartbeat_seconds=heartbeat)
    arena = Arena(bench, server, transport, tls=tls)
    arena.subscribe(warm)
    before = server.resident()
    arena.subscribe(count)
    attached = number(arena.sink.command("check"), "bytes")
    time.sleep(2.5 * heartbeat)  # two heartbeats are sent before the memory is read
    after = arena.sink.command("check")
    if number(after, "closed") or number(after, "bytes") <= attached:
        raise BenchError(f"an idle subscriber was closed, or had no heartbeat; look into the server's log: {after}")
    figure = (server.resident() - before) / count
    floor = _tls_floor(bench, transport, count) if tls else _floor(bench, transport, count)
    bench.stop_all()
    kept = "what Python's ssl keeps of a connection" if tls else "what the event loop keeps of a connection"
    return Row(
        name=f"idle, {transport}{', TLS' if tls else ''}",
        unit="resident bytes per subscriber",
        figure=figure,
        floor=floor,
        ratio=figure / floor if floor else None,
        judged="ratio" if tls else "figure",
        target=TLS_TARGET if tls else TARGET,
        note=f"{count} subscribers of one channel, a heartbeat every {heartbeat:g} s; floor: {kept} that nobody serves",
    )


def _floor(bench: Bench, transport: str, count: int) -> float:
    port = free_port()
    server = bench.other_server([sys.executable, "-m", "benchmarks.bare", str(port)], port)
    return _kept(Arena(bench, server, transport), server, count)


def _tls_floor(bench: Bench, transport: str, count: int) -> float:
    floor = bench.floor(WARM + count, tls=True)
    port = int(number(floor.answer(), "port"))
    floor.command(f"greeting {bench.file(GREETING)}")
    sink = bench.sink(port, transport, tls=True)
    request = bench.file(GREETING)  # the floor answers any request
    sink.command(f"subscribe {WARM} {request} 1 0 0")
    before = floor.resident()
    sink.command(f"subscribe {count} {request} 1 0 0")
    return (floor.resident() - before) / count


def _kept(arena: Arena, server: Process, count: int) -> float:
    arena.subscribe(WARM)
    before = server.resident()
    arena.subscribe(count)
    return (server.resident() - before) / count
