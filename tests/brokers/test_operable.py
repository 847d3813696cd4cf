"""The state of a log, its channels and trimming, over every broker that has them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from oncecast.brokers.base import Broker, Outcome, Sink
from oncecast.brokers.memory import MemoryBroker
from oncecast.brokers.meters import Metered
from oncecast.brokers.operable import ChannelState, LogState, Operable
from oncecast.brokers.session import Lost
from oncecast.errors import ConfigurationError, Refusal, UsageError
from oncecast.message import Cursor, Draft, Page, Receipt, Retention, Start, StartKind
from oncecast.server.brokers import build_broker
from oncecast.server.settings import Settings
from tests.brokers.servers import LOGS, Servers

EVERYTHING = Retention(100_000_000, 315_360_000.0)
_numbers = itertools.count()


class QuietSink:
    """Takes all, and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


@pytest.fixture(params=["sqlite", *LOGS])
def url(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> str:
    """Where a log of its own is."""
    kind: str = request.param
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return servers.new_log(kind)


def make(url: str, epoch: Callable[[], str] | None = None) -> Broker:
    """Return a broker, not started, that trims nothing by itself."""
    return build_broker(Settings(broker=url), lambda channel: EVERYTHING, epoch)


async def publish(broker: Broker, *drafts: Draft) -> list[int]:
    """Publish, and return the numbers."""
    answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
    broker.publish(drafts, answered.set_result)
    outcomes = await answered
    assert all(isinstance(each, Receipt) for each in outcomes), outcomes
    return [each.seq for each in outcomes if isinstance(each, Receipt)]


async def read(broker: Broker, channel: str, after: int) -> Page:
    """Read a page after a number."""
    answered: asyncio.Future[Page | Refusal] = asyncio.get_running_loop().create_future()
    start = Start(StartKind.CURSOR, Cursor("e", after))
    broker.read((channel,), start, 100, 1 << 20, answered.set_result)
    page = await answered
    assert isinstance(page, Page), page
    return page


async def test_the_state_and_the_channels(url: str) -> None:
    """Each channel with a message is listed once, by name, with its count and its first and last number."""
    broker = make(url)
    assert isinstance(broker, Operable)
    await broker.start(cast(Sink, QuietSink()))
    try:
        assert [] == await broker.channels()
        numbers = await publish(broker, Draft("b.", b"1"), Draft("a..b", b"2"), Draft("b.", b"3"))
        expected = [ChannelState("a..b", 1, numbers[1], numbers[1]), ChannelState("b.", 2, numbers[0], numbers[2])]
        assert expected == await broker.channels()
        state = await broker.inspect()
        assert 0 == state.holes
        assert state.server.split()[0] in ("SQLite", "Redis", "Valkey", "NATS", "Kafka", "RabbitMQ")
        assert (state.bytes is None) == (state.server.split()[0] in ("Kafka", "RabbitMQ"))
        assert state.bytes is None or state.bytes > 0
        assert bool(state.measure) == (state.bytes is not None)
    finally:
        await broker.stop()


async def test_more_channels_than_are_asked_for_at_once(url: str) -> None:
    """All of them are listed."""
    broker = make(url)
    assert isinstance(broker, Operable)
    await broker.start(cast(Sink, QuietSink()))
    try:
        await publish(broker, *(Draft(f"c{number:03}", b"1") for number in range(250)))
        assert [f"c{number:03}" for number in range(250)] == [each.name for each in await broker.channels()]
    finally:
        await broker.stop()


async def test_trimming_by_count(url: str) -> None:
    """Exactly the newest are left, the mark says what is gone, and another channel is as it was."""
    broker = make(url)
    assert isinstance(broker, Operable)
    await broker.start(cast(Sink, QuietSink()))
    try:
        drafts = [Draft(channel, b"%d" % number) for number in range(100) for channel in ("a", "b")]
        numbers = await publish(broker, *drafts)
        left = await broker.trim("a", Retention(3, EVERYTHING.seconds))
        assert ChannelState("a", 3, numbers[194], numbers[198]) == left
        page = await read(broker, "a", 0)
        assert [b"97", b"98", b"99"] == [message.data for message in page.messages]
        assert numbers[192] == page.marks["a"].seq
        assert [100] == [each.messages for each in await broker.channels() if each.name == "b"]
        assert ChannelState("a") == await broker.trim("a", Retention(0, EVERYTHING.seconds))
        assert numbers[198] == (await read(broker, "a", 0)).marks["a"].seq
        assert ChannelState("none") == await broker.trim("none", Retention(0, 1.0))
    finally:
        await broker.stop()


async def test_trimming_by_age(url: str) -> None:
    """Younger messages stay."""
    broker = make(url)
    assert isinstance(broker, Operable)
    await broker.start(cast(Sink, QuietSink()))
    try:
        await publish(broker, Draft("a", b"1"))
        assert 1 == (await broker.trim("a", Retention(EVERYTHING.messages, 3600.0))).messages
        await asyncio.sleep(0.02)  # the message is of the past
        assert 0 == (await broker.trim("a", Retention(EVERYTHING.messages, 0.001))).messages
    finally:
        await broker.stop()


@pytest.mark.parametrize("kind", LOGS)
async def test_no_log_begins_where_none_may(kind: str, servers: Servers) -> None:
    """If `epoch` raises, the server is not changed."""
    url = servers.new_log(kind)

    def none() -> str:
        raise ConfigurationError("there is no log")

    for _ in range(2):  # the first has made nothing that the second could find
        with pytest.raises(ConfigurationError, match="there is no log"):
            await make(url, none).start(cast(Sink, QuietSink()))
    broker = make(url)
    await broker.start(cast(Sink, QuietSink()))
    await broker.stop()
    again = make(url, none)
    await again.start(cast(Sink, QuietSink()))
    await again.stop()


async def test_a_log_in_memory_keeps_nothing() -> None:
    """It has no channel to list or to trim."""
    broker = MemoryBroker("e", wall=lambda: 0.0)
    await broker.start(cast(Sink, QuietSink()))
    await publish(broker, Draft("a", b"1"))
    assert LogState("memory") == await broker.inspect()
    assert [] == await broker.channels()
    assert ChannelState("a") == await broker.trim("a", Retention(0))


@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_before_the_start_it_is_away(kind: str, servers: Servers) -> None:
    """The refusal is `unavailable`, at once."""
    broker = make(servers(kind).url)
    assert isinstance(broker, Operable)
    with pytest.raises(Refusal) as caught:
        await broker.channels()
    assert "unavailable" == caught.value.code


async def test_a_session_without_these_three(servers: Servers) -> None:
    """The error names the broker."""
    broker = make(servers("redis").url)
    assert isinstance(broker, Operable)
    broker._session = object()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="can't be asked for the state"):
        await broker.inspect()


@pytest.mark.parametrize("kind", LOGS)
async def test_its_meters(kind: str, servers: Servers) -> None:
    """The head is the last acknowledged number, and a probe that has come back is noted."""
    broker = make(servers.new_log(kind))
    assert isinstance(broker, Metered)
    assert (0, 0.0) == (broker.meters.head, broker.meters.seconds(time.monotonic()))
    await broker.start(cast(Sink, QuietSink()))
    try:
        numbers = await publish(broker, Draft("a", b"1"), Draft("a", b"2"))
        assert (numbers[-1], 0) == (broker.meters.head, broker.meters.refused)
        async with asyncio.timeout(60):
            while broker.meters.heard is None:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.01)
        assert 0 < broker.meters.seconds(broker.meters.heard + 2) <= 2
    finally:
        await broker.stop()
    answered: list[Sequence[Outcome]] = []
    broker.publish([Draft("a", b"1")], answered.append)
    assert (1, 1) == (broker.meters.refused, len(answered))


class FailingSession:
    """A session whose server has gone: each question ends with `error`, or never."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def inspect(self) -> LogState:
        """Fail, or wait for an answer that does not come."""
        if self._error is not None:
            raise self._error
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing ends this wait but its deadline")

    async def channels(self) -> list[ChannelState]:
        """Return none."""
        return []

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Return nothing of interest."""
        return ChannelState(channel)


@pytest.mark.parametrize(
    "error, text", [(Lost("its connection was closed"), "its connection was closed"), (None, "within 0.01 s")]
)
async def test_a_question_that_is_not_answered(
    error: Exception | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with a refusal that names the broker."""
    monkeypatch.setattr("oncecast.brokers.remote.OPERATE_SECONDS", 0.01)
    broker = make("redis://127.0.0.1:1")
    assert isinstance(broker, Operable)
    broker._session = FailingSession(error)  # type: ignore[attr-defined]
    with pytest.raises(Refusal) as caught:
        await broker.inspect()
    assert "unavailable" == caught.value.code
    assert "redis://127.0.0.1:1" in caught.value.message
    assert text in caught.value.message
