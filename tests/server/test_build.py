"""From settings to parts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from oncecast import message
from oncecast.brokers.base import Broker
from oncecast.brokers.memory import MemoryBroker
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.core.node import Node
from oncecast.core.subscription import Lag
from oncecast.errors import ConfigurationError, Refusal
from oncecast.http.bulletin import Bulletin
from oncecast.message import LATEST, Draft
from oncecast.policy.access import ALLOW_ALL
from oncecast.policy.identity import Identity
from oncecast.protocol.events import BARE
from oncecast.server import build
from oncecast.server.brokers import build_broker
from oncecast.server.build import build_app, build_node, build_policy, build_rules
from oncecast.server.framing.event_stream import event_blocks
from oncecast.server.settings import MEMORY, ChannelRule, Limits, RetentionSettings, Settings
from oncecast.testing.driver import run_now


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
    broker = build_broker(settings, lambda channel: policy(channel).retention)
    node = build_node(settings, broker, policy, monotonic=time.monotonic, schedule=schedule)
    if settings.broker == MEMORY:
        run_now(node.start())
    return node


def broker_of(url: str) -> Broker:
    """Return the broker that a URL names."""
    settings = Settings(broker=url, durability="fsync", retention=RetentionSettings(key_seconds=5))
    return build_broker(settings, lambda channel: message.Retention())


def test_the_memory_broker_has_a_new_epoch_each_time() -> None:
    """A restart is another life of the log: the cursors of the last one may not be taken for this one's."""
    first, second = broker_of("memory://"), broker_of("memory://")
    assert isinstance(first, MemoryBroker)
    assert isinstance(second, MemoryBroker)
    assert first.epoch != second.epoch


def test_an_unknown_broker_is_a_mistake_in_the_settings() -> None:
    """The error names the setting and what would do."""
    with pytest.raises(
        ConfigurationError, match=r"broker: ftp:// is not a broker's URL: use one of memory://, sqlite://"
    ):
        broker_of("ftp://h")


@pytest.mark.parametrize("url, path", [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////var/b.db", "/var/b.db")])
def test_a_file_is_a_broker(url: str, path: str) -> None:
    """After three slashes comes a path; a fourth begins one from the root."""
    broker = broker_of(url)
    assert isinstance(broker, SqliteBroker)
    assert (Path(path), "fsync") == (broker.path, broker.capabilities.durability)


def test_the_rules_of_channels_reach_the_log_and_the_hub() -> None:
    """Retention and lag are those of the channel's rule."""
    settings = Settings(
        retention=RetentionSettings(messages=3),
        channels={"t.*": ChannelRule(messages=1, lag="latest"), "d": ChannelRule(lag="disconnect")},
    )
    node = node_of(settings, lambda callback: None)
    node.publish([Draft(name, b"1") for name in ("a", "t.x") for _ in range(5)], lambda outcomes: None)
    held = [len(node.log.read_after((name,), 0, 10)) for name in ("a", "t.x")]
    assert [3, 1] == held
    form = event_blocks(BARE, chunked=True)
    lags = [node.subscribe((name,), LATEST, Nobody(), form, lambda place: None).lag for name in ("a", "t.x", "d")]
    assert [Lag.RESUME, Lag.LATEST, Lag.DISCONNECT] == lags


def test_the_limits_reach_what_holds_them() -> None:
    """Each limit of the settings arrives where it is kept."""
    limits = Limits(**dict.fromkeys(Limits.__struct_fields__, 2))
    settings = Settings(
        limits=limits, origins=("https://a.example",), dev=True, tls_cert=("c",), tls_key=("k",), deflate=True
    )
    app = build_app(
        settings, node_of(settings, lambda callback: None), monotonic=time.monotonic, schedule=lambda callback: None
    )
    others = {"deflate": True, "access": ALLOW_ALL, "quotas": None, "refused": None, "review": None}
    assert {**structs.asdict(limits), **others} == structs.asdict(app.settings)
    assert 2 == app.node.held.seconds
    assert ("https", True) == (app.scheme, app.origins.loopback)
    assert frozenset({"https://a.example"}) == app.origins.allowed
    assert "/docs/errors" in app.pages


def test_without_tls_pages_are_reached_by_http() -> None:
    """The scheme follows from the certificate; the loopback is let in only for development."""
    settings = Settings()
    app = build_app(
        settings, node_of(settings, lambda callback: None), monotonic=time.monotonic, schedule=lambda callback: None
    )
    assert ("http", False) == (app.scheme, app.origins.loopback)


def test_a_message_that_a_websocket_takes_can_be_posted() -> None:
    """`message_bytes` raises the bound on a body with it."""
    rules = build_rules(Settings(limits=Limits(message_bytes=4 << 20)))
    assert (4 << 20, 4 << 20) == (rules.settings.body_bytes, rules.settings.message_bytes)
    assert 9 << 20 == build_rules(Settings(limits=Limits(body_bytes=9 << 20))).settings.body_bytes


def bulletin_of(node: Node) -> Bulletin:
    """Return the end of a node that runs on this loop."""
    monotonic = asyncio.get_running_loop().time
    return Bulletin(node, time.time, monotonic, os.urandom, lambda subject: None, lambda line: None)


async def heard(desk: Bulletin, answers: asyncio.Queue[object]) -> bool:
    """Return whether a ticket that is issued now has come back, so that all before it was read."""
    known = len(desk._tickets)
    desk.tick()
    desk.issue(Identity("", "last", "token"), answers.put_nowait)
    await answers.get()
    return len(desk._tickets) > known


async def test_a_revocation_outlasts_any_number_of_tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that starts after more tickets and disconnections than the log keeps knows who was revoked before them."""
    monkeypatch.setattr(build, "TICKET_RETENTION", message.Retention(100, 60.0))
    settings = Settings(broker=f"sqlite:///{tmp_path}/log.db")
    call_soon = asyncio.get_running_loop().call_soon
    first = node_of(settings, call_soon)
    await first.start()
    desk = bulletin_of(first)
    answers: asyncio.Queue[object] = asyncio.Queue()
    desk.end("bob", answers.put_nowait, revoke=True)
    for number in range(300):
        desk.issue(Identity("", f"u{number}", "token"), answers.put_nowait)
        desk.end(f"u{number}", answers.put_nowait, revoke=False)
    async with asyncio.timeout(60):
        assert not any([isinstance(await answers.get(), Refusal) for _ in range(601)])
        second = node_of(settings, call_soon)
        await second.start()
        desk = bulletin_of(second)
        while not await heard(desk, answers):
            pass
        assert {"bob"} == {*desk.revoked}
    for node in (first, second):
        await node.stop()
