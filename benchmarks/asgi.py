"""Inside an application: the CPU time of a delivery over ASGI, beside the native server and other libraries.

Each library has a process of its own with uvicorn, on the same core, and the same number of listeners; they take turns
in each round of measurements, so that other work on the machine affects all alike. What uvicorn itself costs per
message is in each figure, ours included.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from . import beside
from .arena import CHANNEL, payload, request
from .base import BenchError, Measured, Plan, Row, number
from .processes import Bench, Program, ServerProcess, free_port

SUBSCRIBERS = (500, 2000)
ROUNDS = 24
READY_SECONDS = 60.0
DATA_BYTES = 60
MOUNT = "/rt"
UVICORN = ("--log-level", "warning", "--no-access-log", "--ws-ping-interval", "3600")
# A mask of zeroes leaves the bytes as they are. RFC 6455 §5.3 asks for another, which only a browser has use for.
JOIN = b"\x81\x82\0\0\0\0" + b"40"  # Socket.IO 5: connect to the main namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library and its application. `target` is the path of its listeners, `package` what has to be installed."""

    name: str
    module: str
    package: str
    target: str
    greeting: bytes = b""  # what a listener says after the handshake


OURS = "Oncecast under uvicorn"
LIBRARIES: Mapping[str, tuple[Library, ...]] = {
    "websocket": (
        Library(
            name="python-socketio",
            module="with_socketio",
            package="socketio",
            target="/socket.io/?EIO=4&transport=websocket",
            greeting=JOIN,
        ),
        Library(name="Channels", module="with_channels", package="channels", target="/listen"),
    ),
    "sse": (
        Library(name="sse-starlette", module="with_sse_starlette", package="sse_starlette", target="/events"),
        Library(name="fastapi.sse", module="with_fastapi_sse", package="fastapi", target="/events"),
    ),
}


@dataclass(slots=True)
class Side:
    """A server with its listeners and its publisher, and the CPU microseconds of a delivery in each measurement."""

    name: str
    server: ServerProcess
    sink: Program
    count: int
    costs: list[float] = field(default_factory=list)

    def measure(self, rounds: int) -> float:
        """Return the server's CPU microseconds for one delivery, with its share of the publishes."""
        before = self.server.cpu_ns()
        self.sink.command(f"rounds {rounds} 1 1 0")
        return (self.server.cpu_ns() - before) / rounds / self.count / 1000


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield rows for each transport and each number of listeners: each way beside the native one, and the cheapest.

    Then those of an application beside the native server.
    """
    for transport in plan.transports():
        for count in (plan.subscribers,) if plan.subscribers else SUBSCRIBERS:
            yield from _measure(bench, plan, transport, count)
    yield from beside.run(bench, plan)


def _measure(bench: Bench, plan: Plan, transport: str, count: int) -> Iterator[Row]:
    sides = [_native(bench, transport, count), _ours(bench, transport, count)]
    sides += [_of_library(bench, library, transport, count) for library in LIBRARIES[transport]]
    rounds = plan.rounds(ROUNDS)
    for side in sides:
        side.measure(rounds)  # not counted: it warms code, caches and socket buffers
    for _ in range(plan.pairs):
        for side in sides:
            side.costs.append(side.measure(rounds))
    bench.stop_all()
    native, ours, *others = sides
    about = f"{count} listeners, {DATA_BYTES} bytes of JSON"
    for side in (ours, *others):
        note = f"{about}; floor: oncecast serve"
        yield _beside(side, native).row(f"asgi, {transport}, {side.name}", "µs CPU per delivery", note)
    cheapest = min(others, key=lambda side: statistics.median(side.costs))
    note = f"{about}; {OURS}; floor: {cheapest.name}, the cheapest of the others"
    yield _beside(ours, cheapest).row(f"asgi, {transport}, cheapest", "µs CPU per delivery", note, target=1.0)


def _beside(side: Side, floor: Side) -> Measured:
    return Measured.of(list(zip(side.costs, floor.costs, strict=True)))


# -- the sides


def _native(bench: Bench, transport: str, count: int) -> Side:
    return _side(bench, "native", bench.server(), transport, count, f"/v1/channels/{CHANNEL}", "/v1/connect")


def _ours(bench: Bench, transport: str, count: int) -> Side:
    limits = {
        "ONCECAST_LIMITS__PUBLISHES_PER_SECOND": "10000000",
        "ONCECAST_LIMITS__FRAMES_PER_SECOND": "1000000",
        "ONCECAST_LIMITS__HEARTBEAT_SECONDS": "3600",
    }
    server = _uvicorn(bench, "ours", limits)
    return _side(bench, OURS, server, transport, count, f"{MOUNT}/v1/channels/{CHANNEL}", f"{MOUNT}/v1/connect")


def _of_library(bench: Bench, library: Library, transport: str, count: int) -> Side:
    if importlib.util.find_spec(library.package) is None:
        raise BenchError(f"{library.name} is not installed: run `make .make/dev`, which installs it")
    server = _uvicorn(bench, library.module, {})
    side = _side(bench, library.name, server, transport, count, library.target, "/publish")
    if library.greeting:
        side.sink.command(f"say {bench.file(library.greeting)}")
    end = time.monotonic() + READY_SECONDS
    while (ready := number(server.request("GET", "/ready"), "listeners")) != count:
        if time.monotonic() > end:
            raise BenchError(f"{library.name} has {ready:.0f} of {count} listeners after {READY_SECONDS:.0f} seconds")
        time.sleep(0.05)  # another process's set has no event to wait on
    return side


def _side(
    bench: Bench, name: str, server: ServerProcess, transport: str, count: int, target: str, publish: str
) -> Side:
    sink = bench.sink(server.port, transport)
    sink.command(f"subscribe {count} {bench.file(request(target, transport))} 1 0 0")
    sink.command(f"publisher {bench.file(request(publish, 'websocket'))} {bench.file(payload(DATA_BYTES))}")
    return Side(name, server, sink, count)


def _uvicorn(bench: Bench, module: str, environ: Mapping[str, str]) -> ServerProcess:
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "--port", str(port), *UVICORN, f"benchmarks.asgi_peers.{module}:app"]
    return bench.other_server(argv, port, environ)
