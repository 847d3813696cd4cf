"""From settings to a server's parts; the broker is `brokers.py`'s."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence

from msgspec import structs

from ..brokers.base import Broker
from ..core.delays import Delays
from ..core.node import ChannelPolicy, Node
from ..core.subscription import Lag
from ..core.tracing import Tracing
from ..http.bulletin import LATE_SECONDS, REVOCATION_RECORDS, TICKET_SECONDS
from ..http.overview import Overview, OverviewRequest
from ..http.service import Rules
from ..message import REVOCATIONS, TICKETS, Retention
from ..policy.authority import is_loopback
from ..policy.channels import ChannelRules
from ..policy.forwarded import TrustedProxies
from ..policy.hosts import Hosts
from ..policy.keys import VerifyingKey
from ..policy.origin import Origins
from ..policy.quotas import ChannelQuota, Quotas, channel_quotas
from ..policy.sketch import SECRET_BYTES, Hasher
from ..protocol.base import NoteRefusal, TransportSettings
from .app import App
from .auth import build_authenticator
from .exposition import render
from .measures import ALONE, measure
from .overview import View, compose, look, others
from .pages import load_pages
from .quota_memory import QuotaMemory
from .settings import Settings, access_rules, channel_rules, revocation_seconds
from .tls.channel import TlsChannel

QUOTA_FIELDS = tuple(field.name for field in dataclasses.fields(ChannelQuota))

TICKET_RECORDS = 200_000  # kept: each ticket has two
TICKET_RETENTION = Retention(TICKET_RECORDS, TICKET_SECONDS + LATE_SECONDS)  # past that a record changes nothing

ChannelPolicies = Callable[[str], ChannelPolicy]


def build_policy(settings: Callable[[], Settings]) -> ChannelPolicies:
    """Return what gives a channel's policy, by the settings as they are when it is asked."""

    compiled: tuple[Settings, ChannelRules[ChannelPolicy]] | None = None

    def policy(channel: str) -> ChannelPolicy:
        nonlocal compiled
        now = settings()
        if channel == REVOCATIONS:  # they have to be there for as long as a token may live
            return ChannelPolicy(Retention(REVOCATION_RECORDS, revocation_seconds(now.auth)))
        if channel == TICKETS:
            return ChannelPolicy(TICKET_RETENTION)
        if compiled is None or compiled[0] is not now:
            compiled = now, channel_rules(now, _policy_of)
        return compiled[1].find(channel)

    return policy


def _policy_of(messages: int, seconds: float, lag: str) -> ChannelPolicy:
    return ChannelPolicy(Retention(messages, seconds), Lag(lag))


def build_node(
    settings: Settings,
    broker: Broker,
    policy: ChannelPolicies,
    *,
    monotonic: Callable[[], float],
    schedule: Callable[[Callable[[], None]], object],
    tracing: Tracing | None = None,
) -> Node:
    """Return the node."""
    return Node(
        broker,
        policy=policy,
        max_bytes=settings.retention.bytes,
        monotonic=monotonic,
        schedule=schedule,
        publish_wait_seconds=settings.limits.publish_wait_seconds,
        send=TlsChannel.send if settings.tls_cert else os.write,
        delays=Delays(monotonic, time.time),
        tracing=tracing,
    )


def build_app(
    settings: Settings,
    node: Node,
    *,
    monotonic: Callable[[], float],
    schedule: Callable[[Callable[[], None]], object],
) -> App:
    """Return what the connections share."""
    app = App(
        node,
        rules=build_rules(settings),
        pages=load_pages(),
        monotonic=monotonic,
        schedule=schedule,
        scheme="https" if settings.tls_cert else "http",
    )
    app.broker = settings.broker.partition(":")[0]
    app.collect = lambda done: done(render(measure(app)))  # a worker collects from all processes instead

    def overview(asked: OverviewRequest, done: Callable[[Overview], None]) -> None:
        def seen(view: View) -> None:
            done(compose(view.measures, ALONE, [view], asked, now=app.wall(), name=app.name, present=others(app)))

        look(app, asked.channel, seen)

    app.overview = overview
    return app


def build_quotas(settings: Settings, memory: QuotaMemory | None = None, region: int | None = None) -> Quotas:
    """Return the quotas of a process, which counts in this region of a memory, or alone."""
    if memory is None or region is None:
        quotas = Quotas(settings.limits, hasher=Hasher(os.urandom(SECRET_BYTES)))
    else:
        quotas = Quotas(settings.limits, hasher=memory.hasher(), rates=memory.rates(), counts=memory.counts(region))
    adopt_quotas(quotas, settings)
    return quotas


def adopt_quotas(quotas: Quotas, settings: Settings) -> None:
    """Hold to the limits of these settings from now on."""
    channels = {
        pattern: ChannelQuota(**{name: getattr(rule, name) for name in QUOTA_FIELDS})
        for pattern, rule in settings.channels.items()
    }
    proxies = TrustedProxies(settings.trusted_proxies, settings.forwarded_header)
    quotas.adopt(settings.limits, channel_quotas(channels), proxies)


def build_rules(
    settings: Settings,
    bound: Sequence[str] | None = None,
    quotas: Quotas | None = None,
    fetched: Sequence[VerifyingKey] = (),
    refused: NoteRefusal | None = None,
) -> Rules:
    """Return what of the settings the connections are held to. Raises `ConfigurationError` for keys that can't serve.

    `bound` has the addresses of the sockets that the server listens on; before they are known, `settings.host` counts.
    """
    limits = settings.limits
    # A message that a WebSocket takes fits a POST too; `config` refuses a smaller body_bytes that was given.
    limits = structs.replace(limits, body_bytes=max(limits.body_bytes, limits.message_bytes))
    addresses = (settings.host,) if bound is None else bound
    return Rules(
        settings=TransportSettings(
            **structs.asdict(limits),
            deflate=settings.deflate,
            access=access_rules(settings),
            quotas=quotas,
            refused=refused,
        ),
        hosts=Hosts(settings.hosts, addresses, settings.host),
        origins=Origins(frozenset(settings.origins), loopback=settings.dev),
        authenticator=build_authenticator(settings.auth, fetched),
        cookie=settings.auth.cookie,
        open=settings.dev and not settings.hosts and all(map(is_loopback, addresses)),
    )
