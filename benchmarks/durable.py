"""A log on disk, and two workers: messages a second beside the disk's own rate, and the gain of a second core.

There are four publishers on persistent connections. Each sends its next message when the last one is acknowledged. Wall
time is measured here, so the load and the server share the cores.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .arena import Arena, fill, subscriber_request
from .base import BenchError, Plan, Row, alternate, number, numbers, percentile
from .processes import Bench, Program
from .publish import DATA, HEAD

PUBLISHERS = 4
REQUESTS = 20_000
PROCESS_TARGET = 5000.0
FSYNC_TARGET = 3.0
WORKERS_TARGET = 0.65
SUBSCRIBERS = 2000
ROUNDS = 200
DISK_SECONDS = 1.0
REPLAYED = 1_000_000
REPLAY = "replay@@@@@"
REPLAY_SECONDS = 300.0
LIVE = 100
EVERY_MICROS = 20_000
MOST_ROUNDS = 20_000
COMMIT_BYTES = 2 * (4096 + 24)  # what a commit writes: two pages of the write-ahead log, with their headers


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield the rates of publishing, the wall time of a fan-out with two workers, and the figures of a long replay."""
    with tempfile.TemporaryDirectory(prefix="oncecast-bench-", dir=Path.cwd()) as folder:
        yield _process(bench, plan, Path(folder))
        yield _fsync(bench, plan, Path(folder))
        yield _workers(bench, plan, Path(folder))
        yield from _replay(bench, plan, Path(folder))


def _process(bench: Bench, plan: Plan, folder: Path) -> Row:
    load = _publishers(bench, folder, "process")
    rates = [_rate(load, REQUESTS // 20 if plan.quick else REQUESTS) for _ in range(plan.pairs + 1)][1:]
    bench.stop_all()
    figure = statistics.median(rates)
    return Row(
        name="publish, process",
        unit="messages per second",
        figure=figure,
        low=min(rates),
        high=max(rates),
        met=figure >= PROCESS_TARGET,
        note=f"{PUBLISHERS} publishers, two workers and the load on {len(os.sched_getaffinity(0))} cores; "
        f"target: at least {PROCESS_TARGET:,.0f}",
    )


def _fsync(bench: Bench, plan: Plan, folder: Path) -> Row:
    load = _publishers(bench, folder, "fsync")
    count = REQUESTS // (100 if plan.quick else 5)
    seconds = DISK_SECONDS / (5 if plan.quick else 1)
    measured = alternate(lambda: _disk(folder, seconds) / 1000, lambda: _rate(load, count) / 1000, plan.pairs)
    bench.stop_all()
    return measured.row(
        "publish, fsync",
        "thousand batches per second of the disk",
        f"floor: thousand messages per second of {PUBLISHERS} publishers, each acknowledged after an fsync; "
        f"a batch is {COMMIT_BYTES} bytes and fdatasync(2)",
        target=FSYNC_TARGET,
    )


def _workers(bench: Bench, plan: Plan, folder: Path) -> Row:
    count = plan.count(200 if plan.quick else SUBSCRIBERS)
    rounds = plan.rounds(ROUNDS)
    arenas = {}
    for workers in (2, 1):
        server = bench.server(pinned=False, workers=workers, broker=f"sqlite:///{folder}/fan-{workers}.db")
        arena = arenas[workers] = Arena(bench, server, "websocket")
        arena.subscribe(count)
        arena.publisher()
        arena.arrivals(5)
    measured = alternate(
        lambda: statistics.fmean(arenas[2].arrivals(rounds).micros),
        lambda: statistics.fmean(arenas[1].arrivals(rounds).micros),
        plan.pairs,
    )
    bench.stop_all()
    return measured.row(
        "two workers",
        "µs until the last has it",
        f"{count} subscribers of one channel on one log, {rounds} rounds; floor: one worker",
        target=WORKERS_TARGET,
    )


def _replay(bench: Bench, plan: Plan, folder: Path) -> Iterator[Row]:
    """Read a long log from its beginning, with live subscribers on another channel."""
    count = REPLAYED // 100 if plan.quick else REPLAYED
    server = bench.server(broker=f"sqlite:///{folder}/replay.db", retention__messages=2 * REPLAYED)
    live = Arena(bench, server, "websocket")
    live.subscribe(LIVE)
    live.publisher()
    first = fill(bench, server, REPLAY, count)
    alone = live.rounds(ROUNDS).micros
    reader = bench.sink(server.port, "websocket")
    request = bench.file(subscriber_request("websocket", REPLAY, query=f"?after={first}"))
    live.sink.begin(f"rounds {MOST_ROUNDS} 1 1 {EVERY_MICROS}")
    reader.command(f"storm 1 {request} {count}")
    done = reader.command(f"await {REPLAY_SECONDS}")
    live.sink.begin("stop")
    beside = numbers(live.sink.answer(), "micros")
    bench.stop_all()
    if number(done, "holes") or number(done, "gaps") or number(done, "closed") or number(done, "behind"):
        raise BenchError(f"in the replay, messages were lost or late: {done}")
    yield Row(
        name="replay",
        unit="thousand messages per second",
        figure=count / number(done, "seconds") / 1000,
        note=f"{count:,} messages of one channel, from the first on, by one subscriber",
    )
    yield Row(
        name="replay, latency p99",
        unit="ms until the last of the live has it",
        figure=percentile(beside, 99) / 1000,
        floor=percentile(alone, 99) / 1000,
        ratio=percentile(beside, 99) / percentile(alone, 99),
        note=f"{LIVE} live subscribers of another channel, {len(beside)} messages meanwhile; floor: without the replay",
    )


def _publishers(bench: Bench, folder: Path, durability: str) -> Program:
    """Return four publishers of a server with two workers."""
    broker = f"sqlite:///{folder}/{durability}.db"
    server = bench.server(pinned=False, workers=2, broker=broker, durability=durability)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(DATA) + DATA
    return bench.load(server.port, PUBLISHERS, request, spin=False)


def _rate(load: Program, count: int) -> float:
    """Return the number of acknowledged messages per second."""
    began = time.monotonic()
    done = load.command(f"run {count}")
    return number(done, "requests") / (time.monotonic() - began)


def _disk(folder: Path, seconds: float) -> float:
    """Return how many writes of a commit's bytes, each followed by fdatasync, the disk completes in a second.

    It measures for `seconds`.
    """
    data = os.urandom(COMMIT_BYTES)
    file = os.open(folder / "disk", os.O_RDWR | os.O_CREAT)
    try:
        os.write(file, bytes(8 << 20))  # the write-ahead log is overwritten too
        os.fsync(file)
        times = 0
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            os.pwrite(file, data, times * COMMIT_BYTES % (4 << 20))
            os.fdatasync(file)
            times += 1
        return times / (time.monotonic() - began)
    finally:
        os.close(file)
