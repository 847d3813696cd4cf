"""The benchmarks by name, and running one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from . import (
    asgi,
    broker,
    burst,
    deflate,
    durable,
    fanout,
    guarded,
    idle,
    latency,
    poll,
    publish,
    scale,
    stalled,
    storm,
)
from .base import BenchError, Plan, Row
from .processes import Bench
from .tools import compiled

__all__ = ["BENCHMARKS", "run"]

BENCHMARKS: Mapping[str, Callable[[Bench, Plan], Iterator[Row]]] = {
    "fanout": fanout.run,
    "burst": burst.run,
    "deflate": deflate.run,
    "idle": idle.run,
    "latency": latency.run,
    "poll": poll.run,
    "publish": publish.run,
    "guarded": guarded.run,
    "stalled": stalled.run,
    "scale": scale.run,
    "storm": storm.run,
    "durable": durable.run,
    "asgi": asgi.run,
    "broker": broker.run,
}

WITH_TLS = ("fanout", "idle")


def run(name: str, plan: Plan) -> Iterator[Row]:
    """Run one benchmark in processes of its own, and yield each row once it is measured. Raises `BenchError`."""
    if plan.tls and name not in WITH_TLS:
        raise BenchError(f"--tls is for {' and '.join(WITH_TLS)}")
    with Bench(compiled(os.environ, tls=plan.tls)) as bench:
        yield from BENCHMARKS[name](bench, plan)
