"""A publish by POST to a channel without subscribers: to parse the request, append the message, and answer."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Plan, Row
from .processes import Bench
from .requests import compare

TARGET = 2.5
DATA = b'{"n":12345678,"text":"the quick brown fox jumps over a dog"}'  # 60 bytes
HEAD = b"POST /v1/channels/bench HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield one row."""
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(DATA) + DATA
    yield compare(bench, plan, bench.server(), request, name="publish", target=TARGET)
