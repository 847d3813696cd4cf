"""An examination from beginning to end: the probes in their order, and a finding for each check.

Invariant: each check of `CHECKS` that was asked for has one finding, in that order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from ..client.failures import Refused, Unreachable
from .cures import proxy_of
from .findings import CHECKS, Finding, Judgement, unknown
from .judges import (
    judge_clock,
    judge_cors,
    judge_host,
    judge_lost,
    judge_one_log,
    judge_quiet,
    judge_ready,
    judge_rewriting,
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

Look = Callable[[], Awaitable[list[Finding]]]


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
    """Examine a server. `say` is called with what takes long.

    Raises `Unreachable` where the first connection can't be opened, and `Refused` for a certificate. A later one that
    can't be opened is a finding of `server`, and of the checks that needed it.
    """
    plain = await examinee.ask("GET", "/v1/connect")
    proxy = orders.proxy or proxy_of(plain.headers)
    found = {"server": judge_server(plain, proxy)}
    if found["server"].verdict is Judgement.WELL:
        found.update({each.check: each for each in (judge_version(plain, proxy), judge_clock(plain))})
        lost: list[str] = []
        for checks, look in _looks(examinee, orders, plain, proxy, say):
            try:
                findings = await look()
            except (Unreachable, Refused) as error:
                lost.append(str(error))
                findings = [unknown(check, str(error)) for check in checks]
            for each in findings:  # what an earlier look has found to be wrong stands
                if each.check not in found or found[each.check].verdict is not Judgement.WRONG:
                    found[each.check] = each
        if lost:
            found["server"] = judge_lost(lost, proxy)
    asked_for = [
        check for check in CHECKS if orders.origin is not None or check not in ("origin", "cors") or check in found
    ]
    return Diagnosis(proxy, tuple(found.get(each) or unknown(each, "Oncecast does not answer") for each in asked_for))


def _looks(
    examinee: Examinee, orders: Orders, plain: HttpAnswer, proxy: str | None, say: Callable[[str], None]
) -> Iterator[tuple[tuple[str, ...], Look]]:
    """Yield the checks that need a connection of their own together, and what makes their findings."""

    async def host() -> list[Finding]:
        own = await examinee.ask("GET", examinee.poll_path, (("Origin", examinee.origin),))
        rewriting = judge_rewriting(examinee.origin, own, proxy)  # found without --origin, too
        host = judge_host(plain, own, examinee.endpoint.url.authority, proxy, rewritten=rewriting is not None)
        return [host] if rewriting is None else [host, rewriting]

    async def ready() -> list[Finding]:
        return [judge_ready(await asyncio.gather(*(_ready(examinee) for _ in range(CONNECTIONS))), proxy)]

    async def token() -> list[Finding]:
        poll = await examinee.ask("GET", examinee.poll_path)
        return [judge_token(poll, given=orders.given, channel=examinee.channel)]

    async def upgrade() -> list[Finding]:
        return [judge_upgrade(await examinee.handshake(), proxy)]

    heartbeat = DEFAULT_HEARTBEAT

    async def stream() -> list[Finding]:
        nonlocal heartbeat
        streamed = await examinee.stream()
        heartbeat = _heartbeat_of(streamed.answer)
        delays = await examinee.delays() if orders.publish and streamed.began is not None else None
        return judge_stream(streamed, delays, BEGIN_SECONDS, proxy)

    async def quiet() -> list[Finding]:
        seconds = orders.quiet_seconds
        if seconds is None:
            seconds = min(MOST_QUIET, max(1.0, heartbeat * HEARTBEATS))
        if seconds:
            say(f"Holding quiet connections for {seconds:g} s; --quiet-seconds 0 leaves that out.")
        return [judge_quiet(await examinee.quiet(seconds) if seconds else [], seconds, proxy)]

    async def one_log() -> list[Finding]:
        readings = await examinee.readings(CONNECTIONS, publish=orders.publish)
        return [judge_one_log(readings, published=any(each.has_it is not None for each in readings))]

    yield ("host",), host
    yield ("ready",), ready
    yield ("token",), token
    if orders.origin is not None:
        page = orders.origin

        async def cors() -> list[Finding]:
            origin = (("Origin", page),)
            asked = await examinee.ask("GET", examinee.poll_path, origin)
            preflight = await examinee.ask("OPTIONS", examinee.poll_path, (*origin, *PREFLIGHT))
            return judge_cors(page, page == examinee.origin, asked, preflight, proxy)

        yield ("origin", "cors"), cors
    yield ("upgrade",), upgrade
    yield ("buffering", "compression"), stream
    yield ("quiet",), quiet
    yield ("one-log",), one_log


async def _ready(examinee: Examinee) -> HttpAnswer:
    try:
        return await examinee.ask("GET", "/readyz")
    except Unreachable as error:  # a proxy whose next server is away
        return HttpAnswer(trouble=str(error))


def _heartbeat_of(answer: HttpAnswer) -> float:
    """Return the seconds between heartbeats that a stream announces."""
    try:
        return float(answer.headers.get(HEARTBEAT, ""))
    except ValueError:
        return DEFAULT_HEARTBEAT
