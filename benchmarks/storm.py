"""The storm after an outage: 15,000 subscribers reconnect at once, each 1,000 messages behind.

All connect together, with their cursors. The storm ends when each has every message that it missed. Meanwhile 100
subscribers listen to another channel, to which a message is published every 50 ms. Its latency counts from the time at
which the publish was due.
"""

from __future__ import annotations

from collections.abc import Iterator

from .arena import Arena, fill, subscriber_request
from .base import BenchError, Plan, Row, Transport, number, numbers, percentile
from .processes import Bench

SUBSCRIBERS = 15_000
BEHIND = 1000
LIVE = 100
EVERY_MICROS = 50_000
MOST_ROUNDS = 4000  # 200 seconds: longer than the deadline of the storm
SECONDS = 100.0
SECONDS_TARGET = 20.0
LATENCY_TARGET = 250.0
CHANNEL = "storm@@@@@"


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield, for each transport, the length of the storm, and the latency of the live subscribers during it."""
    for transport in plan.transports():
        yield from _rows(bench, plan, transport)
        bench.stop_all()


def _rows(bench: Bench, plan: Plan, transport: Transport) -> Iterator[Row]:
    count = plan.count(500 if plan.quick else SUBSCRIBERS)
    behind = BEHIND // 10 if plan.quick else BEHIND
    server = bench.server()
    live = Arena(bench, server, "websocket")
    live.subscribe(min(LIVE, count))
    live.publisher()
    storm = Arena(bench, server, transport, channel=CHANNEL)
    cursor = fill(bench, server, CHANNEL, behind)

    live.sink.begin(f"rounds {MOST_ROUNDS} 1 1 {EVERY_MICROS}")
    request = bench.file(subscriber_request(transport, CHANNEL, query=f"?after={cursor}"))
    connected = storm.sink.command(f"storm {count} {request} {behind}")
    done = storm.sink.command(f"await {SECONDS}")
    live.sink.begin("stop")
    rounds = live.sink.answer()
    if number(done, "holes") or number(done, "gaps") or number(done, "closed"):
        raise BenchError(f"in the storm, messages were lost: {done}")
    lost = number(done, "behind")
    seconds = number(connected, "seconds") + max(0.0, number(done, "seconds")) if not lost else SECONDS
    yield Row(
        name=f"storm, {transport}",
        unit="seconds until all are live",
        figure=seconds,
        judged="figure",
        target=SECONDS_TARGET,
        note=f"{count} subscribers, each {behind} messages behind, connected after {number(connected, 'seconds'):.1f} s"
        + (f"; {lost:.0f} were not live in time" if lost else ""),
    )
    late = numbers(rounds, "micros")
    yield Row(
        name=f"storm latency p99, {transport}",
        unit="ms until the last of the live has it",
        figure=percentile(late, 99) / 1000,
        judged="figure",
        target=LATENCY_TARGET,
        note=f"{live.count} live subscribers of another channel, {len(late)} messages meanwhile, worst"
        f" {max(late) / 1000:.0f} ms",
    )
