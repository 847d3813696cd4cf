"""An application beside the native server (`oncecast serve --app`): its own routes and the server's, each beside alone.

The application answers at once. So what the sharing of a port costs is as large a part of a request as it can be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from .base import Measured, Plan, Row, alternate, number
from .processes import Bench, Program, ServerProcess, free_port

__all__ = ["run"]

CONNECTIONS = 16
REQUESTS = 20_000
APP = "benchmarks.asgi_peers.plain:app"
UVICORN = ("--log-level", "warning", "--no-access-log", "--no-server-header", "--timeout-keep-alive", "3600")
OWN = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"
POLL = b"GET /v1/channels/news?after=earliest HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"
OURS = "oncecast serve --app"


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for a route of the application, and one for a poll of the server."""
    count = REQUESTS // 20 if plan.quick else REQUESTS
    unit, note = "µs CPU per request", f"{CONNECTIONS} connections kept alive; {OURS}; floor: "
    beside = bench.server(app=APP)
    measured = _beside(bench, plan, beside, _uvicorn(bench), OWN, count)
    yield measured.row("asgi, beside, the application's route", unit, note + "uvicorn alone", target=1.05)
    measured = _beside(bench, plan, beside, bench.server(), POLL, count)
    yield measured.row("asgi, beside, a poll", unit, note + "oncecast serve alone", target=1.05)
    bench.stop_all()


def _beside(bench: Bench, plan: Plan, one: ServerProcess, other: ServerProcess, request: bytes, count: int) -> Measured:
    loads = [bench.load(server.port, CONNECTIONS, request) for server in (one, other)]
    return alternate(lambda: _cost(one, loads[0], count), lambda: _cost(other, loads[1], count), plan.pairs)


def _cost(server: ServerProcess, load: Program, count: int) -> float:
    before = server.cpu_ns()
    done = load.command(f"run {count}")
    return (server.cpu_ns() - before) / number(done, "requests") / 1000


def _uvicorn(bench: Bench) -> ServerProcess:
    port = free_port()
    return bench.other_server([sys.executable, "-m", "uvicorn", "--port", str(port), *UVICORN, APP], port)
