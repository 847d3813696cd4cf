"""From settings to a server's parts: the only place that knows the concrete brokers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from ..brokers.base import Broker
from ..brokers.memory import MemoryBroker, new_epoch
from ..brokers.sqlite.broker import SqliteBroker
from ..core.node import ChannelPolicy, Node
from ..core.subscription import Lag
from ..errors import ConfigurationError
from ..http.service import Rules
from ..message import Retention
from ..policy.origin import Origins
from ..protocol.base import Settings as TransportSettings
from .app import App
from .metrics import measure, render
from .pages import load_pages
from .settings import MEMORY, SQLITE, Settings, rule_for

Policy = Callable[[str], ChannelPolicy]


def build_broker(settings: Settings, policy: Policy) -> Broker:
    """Return the broker that the settings name, not started."""
    epoch = new_epoch(os.urandom(8))
    key_seconds = settings.retention.key_seconds
    if settings.broker == MEMORY:
        return MemoryBroker(epoch, time.time, key_seconds=key_seconds)
    if settings.broker.startswith(SQLITE):
        return SqliteBroker(
            Path(settings.broker.removeprefix(SQLITE)),
            epoch=epoch,
            wall=time.time,
            policy=lambda channel: policy(channel).retention,
            durability=settings.durability,
            key_seconds=key_seconds,
        )
    raise ConfigurationError(f"broker: {settings.broker} is not one that this version knows: use {SQLITE}oncecast.db")


def build_policy(settings: Callable[[], Settings]) -> Policy:
    """Return what gives a channel's policy, by the settings as they are when it is asked."""

    def policy(channel: str) -> ChannelPolicy:
        rule = rule_for(settings(), channel)
        assert rule.messages is not None
        assert rule.seconds is not None
        return ChannelPolicy(Retention(rule.messages, rule.seconds), Lag(rule.lag))

    return policy


def build_node(
    settings: Settings,
    broker: Broker,
    policy: Policy,
    *,
    monotonic: Callable[[], float],
    schedule: Callable[[Callable[[], None]], object],
) -> Node:
    """Return the node."""
    return Node(broker, policy=policy, max_bytes=settings.retention.bytes, monotonic=monotonic, schedule=schedule)


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
    app.collect = lambda done: done(render(measure(app)))  # a worker collects from all processes instead
    return app


def build_rules(settings: Settings) -> Rules:
    """Return what of the settings the connections are held to."""
    limits = settings.limits
    return Rules(
        settings=TransportSettings(**structs.asdict(limits), deflate=settings.deflate),
        origins=Origins(frozenset(settings.origins), loopback=settings.dev),
    )
