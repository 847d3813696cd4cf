"""Requests on persistent connections: the CPU time of one, beside nginx's for the same request."""

from __future__ import annotations

from .base import Plan, Row, alternate, number
from .processes import Bench, Program, ServerProcess
from .rival import MISSING, nginx

__all__ = ["CONNECTIONS", "REQUESTS", "compare", "cost"]

CONNECTIONS = 16
REQUESTS = 20_000


def compare(bench: Bench, plan: Plan, server: ServerProcess, request: bytes, *, name: str, target: float) -> Row:
    """Return the row of one kind of request."""
    ours = bench.load(server.port, CONNECTIONS, request)
    body = server.body(request)
    count = REQUESTS // 20 if plan.quick else REQUESTS
    rival = nginx(bench, body)
    unit, note = "µs CPU per request", f"{CONNECTIONS} connections kept alive, {len(body)} bytes of answer"
    if rival is None:
        cost(server, ours, count)
        figure = cost(server, ours, count)
        return Row(name=name, unit=unit, figure=figure, target=target, note=f"{note}; {MISSING}")
    theirs = bench.load(rival.port, CONNECTIONS, request)
    measured = alternate(lambda: cost(server, ours, count), lambda: cost(rival, theirs, count), plan.pairs)
    return measured.row(name, unit, f"{note}; floor: nginx, `return 200`", target=target)


def cost(server: ServerProcess, load: Program, count: int) -> float:
    """Return the server's CPU microseconds for one of `count` requests."""
    before = server.cpu_ns()
    done = load.command(f"run {count}")
    return (server.cpu_ns() - before) / number(done, "requests") / 1000
