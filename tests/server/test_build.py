"""From settings to parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from oncecast.brokers.base import Broker
from oncecast.brokers.memory import MemoryBroker
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.core.node import Node
from oncecast.core.subscription import Lag
from oncecast.errors import ConfigurationError
from oncecast.message import LATEST, Draft
from oncecast.protocol.events import sse_format
from oncecast.server.build import build_app, build_broker, build_node, build_policy
from oncecast.server.settings import ChannelRule, Limits, Retention, Settings
from oncecast.wire.http1 import Limits as HttpLimits


class Nobody:
    """A subscriber that does not listen."""

    def write(self, block: bytes, /) -> None:
        """Drop it."""

    def gap(self, gap: object, /) -> None:
        """Drop it."""

    def refuse(self, refusal: object, /) -> None:
        """Drop it."""


def node_of(settings: Settings, schedule: Callable[[Callable[[], None]], object]) -> Node:
    """Return a node for these settings."""
    policy = build_policy(lambda: settings)
    broker = build_broker(settings, policy, schedule)
    return build_node(settings, broker, policy, monotonic=time.monotonic, schedule=schedule)


def broker_of(url: str) -> Broker:
    """Return the broker that a URL names."""
    settings = Settings(broker=url, durability="fsync", retention=Retention(key_seconds=5))
    return build_broker(settings, build_policy(lambda: settings), lambda callback: None)


def test_the_memory_broker_has_a_new_epoch_each_time() -> None:
    """A restart is another life of the log: the cursors of the last one may not be taken for this one's."""
    first, second = broker_of("memory://"), broker_of("memory://")
    assert isinstance(first, MemoryBroker)
    assert first.epoch != second.epoch


def test_an_unknown_broker_is_a_mistake_in_the_settings() -> None:
    """The error names the setting and what would do."""
    with pytest.raises(ConfigurationError, match=r"broker: kafka://h .* use sqlite:///oncecast.db"):
        broker_of("kafka://h")


@pytest.mark.parametrize("url, path", [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////var/b.db", "/var/b.db")])
def test_a_file_is_a_broker(url: str, path: str) -> None:
    """After three slashes comes a path; a fourth begins one from the root."""
    broker = broker_of(url)
    assert isinstance(broker, SqliteBroker)
    assert (Path(path), "fsync") == (broker.path, broker.durability)


def test_the_rules_of_channels_reach_the_log_and_the_hub() -> None:
    """Retention and lag are those of the channel's rule."""
    settings = Settings(
        retention=Retention(messages=3),
        channels={"t.*": ChannelRule(messages=1, lag="latest"), "d": ChannelRule(lag="disconnect")},
    )
    node = node_of(settings, lambda callback: None)
    node.publish([Draft(name, b"1") for name in ("a", "t.x") for _ in range(5)], lambda outcomes: None)
    held = [len(node.log.read_after((name,), 0, 10)) for name in ("a", "t.x")]
    assert [3, 1] == held
    form = sse_format(enveloped=False, chunked=True)
    lags = [node.subscribe((name,), LATEST, Nobody(), form, lambda place: None).lag for name in ("a", "t.x", "d")]
    assert [Lag.RESUME, Lag.LATEST, Lag.DISCONNECT] == lags


def test_the_limits_reach_what_holds_them() -> None:
    """Each limit of the settings arrives where it is kept."""
    limits = Limits(
        header_bytes=2000,
        header_count=9,
        url_bytes=200,
        body_bytes=300,
        message_bytes=250,
        head_seconds=1,
        body_seconds=2,
        keep_alive_seconds=3,
        wait_seconds=4,
        heartbeat_seconds=5,
        channels_per_subscription=6,
        poll_messages=7,
        connections=8,
        frames_per_second=90,
        publishes_per_second=91,
    )
    settings = Settings(limits=limits, origins=("https://a.example",), dev=True, tls_cert="c", tls_key="k")
    app = build_app(settings, node_of(settings, lambda callback: None), monotonic=time.monotonic)
    assert HttpLimits(2000, 9, 200, 300) == app.limits
    assert (1, 2, 3) == (app.deadlines.head, app.deadlines.body, app.deadlines.keep_alive)
    assert (4, 5, 250, 6, 7, 90, 91) == (
        app.settings.wait_seconds, app.settings.heartbeat_seconds, app.settings.message_bytes,
        app.settings.channels_per_subscription, app.settings.poll_messages, app.settings.frames_per_second,
        app.settings.publishes_per_second,
    )  # fmt: skip
    assert (8, "https", True) == (app.ceiling, app.scheme, app.origins.loopback)
    assert frozenset({"https://a.example"}) == app.origins.allowed
    assert "/docs/errors" in app.pages


def test_without_tls_pages_are_reached_by_http() -> None:
    """The scheme follows from the certificate; the loopback is let in only for development."""
    settings = Settings()
    app = build_app(settings, node_of(settings, lambda callback: None), monotonic=time.monotonic)
    assert ("http", False) == (app.scheme, app.origins.loopback)
    assert app.ceiling > 0
