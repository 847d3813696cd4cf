"""An examination from beginning to end: the probes in their order, and a finding for each check.

Invariant: each check of `CHECKS` that was asked for has one finding, in that order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..client.failures import Unreachable
from .cures import proxy_of
from .findings import CHECKS, Finding, Judgement, unknown
from .judges import (
    judge_clock,
    judge_cors,
    judge_host,
    judge_one_log,
    judge_quiet,
    judge_ready,
    judge_server,
    judge_stream,
    judge_token,
    judge_upgrade,
    judge_version,
)
from .observations import HttpAnswer
from .probes import BEGIN_SECONDS, HEARTBEAT, Examinee

__all__ = ["Diagnosis", "Orders", "examine"]

CONNECTIONS = 6  # to meet several nodes
HEARTBEATS = 1.25  # of quiet, without orders: then a heartbeat has come, or the connection was cut
DEFAULT_HEARTBEAT = 15.0
MOST_QUIET = 40.0  # without orders
PREFLIGHT = (("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type"))


@dataclass(frozen=True, slots=True)
class Orders:
    """What is asked for: an `origin` whose pages connect; `publish` to the channel; seconds of quiet, None for what the
    heartbeat needs; the `proxy`, where its headers do not say it; whether a token was `given`."""

    origin: str | None = None
    publish: bool = False
    quiet_seconds: float | None = None
    proxy: str | None = None
    given: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings, in the order of `CHECKS`. `proxy` is None where it is not known."""

    proxy: str | None
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """Those of something that is wrong."""
        return tuple(each for each in self.findings if each.verdict is Judgement.WRONG)


async def examine(examinee: Examinee, orders: Orders, say: Callable[[str], None] = lambda line: None) -> Diagnosis:
    """Examine a server. `say` is called with what takes long. Raises `Unreachable`, and `Refused` for a certificate."""
    plain = await examinee.ask("GET", "/v1/connect")
    proxy = orders.proxy or proxy_of(plain.headers)
    found: dict[str, Finding] = {}

    def add(findings: Iterable[Finding]) -> None:
        found.update({each.check: each for each in findings})

    add([judge_server(plain, proxy)])
    if found["server"].verdict is Judgement.WELL:
        own = await examinee.ask("GET", examinee.poll_path, (("Origin", examinee.origin),))
        add([judge_host(plain, own, examinee.endpoint.url.authority, proxy), judge_version(plain, proxy)])
        add([judge_ready(await asyncio.gather(*(_ready(examinee) for _ in range(CONNECTIONS))), proxy)])
        add([judge_clock(plain)])
        poll = await examinee.ask("GET", examinee.poll_path)
        add([judge_token(poll, given=orders.given, channel=examinee.channel)])
        if orders.origin is not None:
            origin = (("Origin", orders.origin),)
            asked = await examinee.ask("GET", examinee.poll_path, origin)
            preflight = await examinee.ask("OPTIONS", examinee.poll_path, (*origin, *PREFLIGHT))
            add(judge_cors(orders.origin, orders.origin == examinee.origin, asked, preflight, proxy))
        add([judge_upgrade(await examinee.handshake(), proxy)])
        streamed = await examinee.stream()
        delays = await examinee.delays() if orders.publish and streamed.began is not None else None
        add(judge_stream(streamed, delays, BEGIN_SECONDS, proxy))
        seconds = _quiet_seconds(orders, streamed.answer)
        if seconds:
            say(f"Holding quiet connections for {seconds:g} s; --quiet-seconds 0 leaves that out.")
        add([judge_quiet(await examinee.quiet(seconds) if seconds else [], seconds, proxy)])
        readings = await examinee.readings(CONNECTIONS, publish=orders.publish)
        published = any(each.has_it is not None for each in readings)
        add([judge_one_log(readings, published=published)])
    asked_for = [check for check in CHECKS if orders.origin is not None or check not in ("origin", "cors")]
    return Diagnosis(proxy, tuple(found.get(each) or unknown(each, "Oncecast does not answer") for each in asked_for))


async def _ready(examinee: Examinee) -> HttpAnswer:
    try:
        return await examinee.ask("GET", "/readyz")
    except Unreachable as error:  # a proxy whose next server is away
        return HttpAnswer(trouble=str(error))


def _quiet_seconds(orders: Orders, answer: HttpAnswer) -> float:
    if orders.quiet_seconds is not None:
        return orders.quiet_seconds
    try:
        heartbeat = float(answer.headers.get(HEARTBEAT, ""))
    except ValueError:
        heartbeat = DEFAULT_HEARTBEAT
    return min(MOST_QUIET, max(1.0, heartbeat * HEARTBEATS))
