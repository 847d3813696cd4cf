"""A short poll that finds nothing new: the usual request of a browser that polls."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Plan, Row
from .processes import Bench
from .requests import compare

TARGET = 2.0


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield one row."""
    server = bench.server()
    for _ in range(3):
        server.request("POST", "/v1/channels/bench", b'{"t":1}')
    cursor = server.request("GET", "/v1/channels/bench?after=latest")["cursor"]
    request = f"GET /v1/channels/bench?after={cursor} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    yield compare(bench, plan, server, request, name="poll", target=TARGET)
