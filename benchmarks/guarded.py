"""What access rules, tokens and limits cost: fan-out and a poll of a server that has them, beside one without.

Both servers have the same listeners or connections. The guarded one has rules for several patterns, of which the last
decides, every rate of the channel and of the user, and users that are counted. No limit is reached.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jwt

from .arena import Arena
from .base import Plan, Row, alternate
from .processes import Bench, ServerProcess
from .requests import CONNECTIONS, REQUESTS, cost

SUBSCRIBERS = 1000
ROUNDS = 300  # the ratio is near 1, and so a pair has to be a longer one
TARGET = 1.05
SECRET = "a secret of this benchmark, of enough bytes for HS256"  # noqa: S105
MUCH = 1_000_000
RULES = """
[channels."news"]
subscribe = "public"

[channels."user.{sub}"]
subscribe = "token"
publish = "token"

[channels."chat.*"]
subscribe = "token"
publish = "token"

[channels."bench*"]
subscribe = "public"
publish = "token"
publishes_per_second = 10_000_000
bytes_per_second = 1_000_000_000
user_publishes_per_second = 10_000_000
user_bytes_per_second = 1_000_000_000
"""
LIMITS = dict.fromkeys(
    (
        "connections_in_all",
        "connections_per_address",
        "connections_per_user",
        "connects_per_second",
        "handshakes_per_address",
        "history_pages_per_second",
        "user_history_pages_per_second",
        "user_publishes_per_second",
    ),
    MUCH,
)


def run(bench: Bench, plan: Plan) -> Iterator[Row]:
    """Yield a row for each transport, and two for a poll: without a token, and with one."""
    for transport in plan.transports():
        yield _fanout(bench, plan, transport)
    yield _poll(bench, plan, "", "guarded poll")
    yield _poll(bench, plan, f"Authorization: Bearer {_token()}\r\n", "guarded poll, token")


def _fanout(bench: Bench, plan: Plan, transport: str) -> Row:
    head = f"Authorization: Bearer {_token()}"
    guarded, plain = Arena(bench, _guarded(bench), transport), Arena(bench, bench.server(), transport)
    for arena, headers in ((guarded, head), (plain, "")):
        arena.subscribe(plan.count(SUBSCRIBERS), headers=headers)
        arena.publisher(headers=headers)
    rounds = plan.rounds(ROUNDS)
    measured = alternate(lambda: guarded.cost(rounds), lambda: plain.cost(rounds), plan.pairs)
    bench.stop_all()
    return measured.row(
        f"guarded fanout, {transport}",
        "µs CPU per delivery",
        f"{guarded.count} subscribers with a token each, 60 bytes of JSON; floor: without rules and tokens",
        target=TARGET,
    )


def _poll(bench: Bench, plan: Plan, headers: str, name: str) -> Row:
    count = REQUESTS // 20 if plan.quick else 5 * REQUESTS
    sides = []
    for server, head in ((_guarded(bench), headers), (bench.server(), "")):
        cursor = server.request("GET", "/v1/channels/bench?after=latest")["cursor"]
        text = f"GET /v1/channels/bench?after={cursor} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n"
        sides.append((server, bench.load(server.port, CONNECTIONS, text.encode())))
    (ours, load), (plain, beside) = sides
    measured = alternate(lambda: cost(ours, load, count), lambda: cost(plain, beside, count), plan.pairs)
    bench.stop_all()
    return measured.row(
        name,
        "µs CPU per request",
        f"{CONNECTIONS} connections kept alive; floor: the same without rules{' and tokens' if headers else ''}",
        target=TARGET,
    )


def _guarded(bench: Bench) -> ServerProcess:
    limits: dict[str, Any] = {f"limits__{name}": value for name, value in LIMITS.items()}
    return bench.server(rules=RULES, auth__secret=SECRET, **limits)


def _token() -> str:
    """Return a token of a user who may do all of this, for an hour (RFC 7519 §3.1)."""
    now = int(time.time())
    rights = {"subscribe": ["bench*", "chat.*"], "publish": ["bench*"]}
    return jwt.encode({"sub": "ann", "iat": now, "exp": now + 3600, "oncecast": rights}, SECRET, "HS256")
