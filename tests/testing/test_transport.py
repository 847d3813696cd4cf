"""The judge of transports: each kind of broken server or subscriber is found out, with the clause that it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from oncecast.brokers.memory import MemoryBroker
from oncecast.core.entry import Entry
from oncecast.message import Draft, Mark
from oncecast.server.settings import Limits, Settings
from oncecast.testing import transport, transport_faults
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import (
    LongPollSubscriber,
    RawSubscriber,
    ShortPollSubscriber,
    SseSubscriber,
    V1Subscriber,
)
from oncecast.testing.transport import CHECKS, TransportFailed, check_transport
from oncecast.testing.transport_bench import Served, TransportBench, serve

ONE_OF_EACH = (ShortPollSubscriber, SseSubscriber, V1Subscriber)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a check that waits for what never comes little time."""
    monkeypatch.setattr(transport, "SECONDS", 0.3)


async def read_otherwise(settings: Settings, broker: MemoryBroker, step: int, lost: int) -> Served:
    """Start a server whose log is read from `step` further on, and that has lost one message."""
    served = await serve(settings, broker)
    log: Any = served.node.log
    real = log.read_after

    def read_after(channels: Sequence[str], seq: int, *bounds: int) -> list[Entry]:
        return [entry for entry in real(channels, max(0, seq + step), *bounds) if entry.seq != lost]

    log.read_after = read_after
    return served


async def repeats(settings: Settings, broker: MemoryBroker) -> Served:
    """Each read begins one message too early."""
    return await read_otherwise(settings, broker, -1, 0)


async def loses(settings: Settings, broker: MemoryBroker) -> Served:
    """Message 17 is never delivered."""
    return await read_otherwise(settings, broker, 0, 17)


async def hides_gaps(settings: Settings, broker: MemoryBroker) -> Served:
    """The log does not remember what it trimmed."""
    served = await serve(settings, broker)
    log: Any = served.node.log
    log.mark = lambda channel: Mark()
    return served


async def without_policies(settings: Settings, broker: MemoryBroker) -> Served:
    """Every channel has the default policy."""
    return await serve(msgspec.structs.replace(settings, channels={}), broker)


async def without_limits(settings: Settings, broker: MemoryBroker) -> Served:
    """Every limit has its default."""
    return await serve(msgspec.structs.replace(settings, limits=Limits()), broker)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_a_repeated_message_is_found(kind: type[Subscriber]) -> None:
    """A read that begins too early breaks the first clause."""
    with pytest.raises(TransportFailed, match="come the next"):
        await check_transport(kind, start=repeats)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_a_lost_message_is_found(kind: type[Subscriber], hurry: None) -> None:
    """The clause is named also where the check would wait for ever."""
    with pytest.raises(TransportFailed, match=r"The cursor of each message(.|\n)*nothing came for 0.3 seconds"):
        await check_transport(kind, "every_position", start=loses)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
async def test_a_gap_that_is_not_sent_is_found(kind: type[Subscriber], hurry: None) -> None:
    """Silence about what expired breaks the promise."""
    with pytest.raises(TransportFailed, match="one gap, of exactly the missed messages"):
        await check_transport(kind, "gap_of_what_expired", start=hides_gaps)


@pytest.mark.parametrize("kind", [SseSubscriber, V1Subscriber, RawSubscriber])
async def test_a_policy_that_is_not_kept_is_found(kind: type[Subscriber]) -> None:
    """A reader that should have been disconnected, and was served."""
    with pytest.raises(TransportFailed, match="a reader that lags is disconnected"):
        await check_transport(kind, "lag_policy_disconnect", start=without_policies)


@pytest.mark.parametrize("kind", [*ONE_OF_EACH, LongPollSubscriber])
async def test_a_limit_that_is_not_kept_is_found(kind: type[Subscriber]) -> None:
    """The contract finds a server that accepts what its limits refuse."""
    with pytest.raises(TransportFailed, match="is refused: request_invalid"):
        await check_transport(kind, "limits", start=without_limits)


async def test_a_subscriber_that_never_blocks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps all for a reader that stalls does not pass for one that holds it up."""
    monkeypatch.setattr(transport_faults, "MOST_BIG", 5)
    with pytest.raises(TransportFailed, match="it never did"):
        await check_transport(SseSubscriber, "stalled_reader")


async def test_a_connection_cut_without_resume_is_an_error() -> None:
    """A bench that is not asked to resume does not hide a cut, and a refused publish is raised."""
    broker = MemoryBroker("life1", lambda: 0.0)
    bench = TransportBench(SseSubscriber, lambda settings, _: serve(settings, broker))
    try:
        await bench.serve()
        await broker.stop()
        with pytest.raises(Exception, match="stopping"):
            bench.publish(Draft("c", b"1"))
    finally:
        await bench.close()
    await TransportBench(SseSubscriber).close()


def test_every_check_says_its_clause() -> None:
    """A failure is explained by the check's first line."""
    assert all((check.__doc__ or "").strip().endswith(".") for check in CHECKS.values())
    assert 22 == len(CHECKS)


def test_a_long_difference_is_shortened() -> None:
    """A failure's text stays readable."""
    from oncecast.testing.transport_bench import expect

    with pytest.raises(TransportFailed) as failure:
        expect(list(range(1000)), [], "clause")
    assert len(str(failure.value)) < 1000
