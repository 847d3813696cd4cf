"""From settings to a server's parts; the broker is `brokers.py`'s."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from ..brokers.base import Broker
from ..core.node import ChannelPolicy, Node
from ..core.subscription import Lag
from ..http.service import Rules
from ..message import Retention
from ..policy.origin import Origins
from ..protocol.base import Settings as TransportSettings
from .app import App
from .metrics import measure, render
from .pages import load_pages
from .settings import Settings, rule_for

Policy = Callable[[str], ChannelPolicy]


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
