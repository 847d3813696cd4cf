"""The transports' contract, over brokers that answer later and keep a history: a file, and a Redis server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncecast.brokers.base import Broker
from oncecast.brokers.memory import MemoryBroker
from oncecast.brokers.redis.broker import redis_broker
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.message import Retention
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS
from oncecast.testing.transport import CHECKS, check_transport
from oncecast.testing.transport_bench import EPOCH
from tests.brokers.servers import Servers, run_servers

_numbers = itertools.count()
# A Redis server has a clock of its own: `finds_every_start` of the brokers' contract holds it to `since`.
CLOCKED = ("earliest_last_and_since",)
# The channels of one WebSocket are looked up one by one there, so one may have its cursor before another is refused.
LATER = ("limits",)
# These brokers trim in batches, so that a gap is not of the number that these clauses name: `marks_what_it_trims`.
TRIMMED = ("gap_of_what_expired", "gaps_of_several_channels", "gaps_since_a_time", "stalled_past_the_retention")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Real servers by their kind."""
    yield from run_servers(tmp_path_factory.mktemp("servers"))


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in TRIMMED])
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract_on_sqlite(kind: type[Subscriber], name: str, tmp_path: Path) -> None:
    """Each transport keeps each clause where a file orders and keeps the log."""

    async def start(settings: Settings, broker: MemoryBroker) -> Server:
        file = SqliteBroker(
            tmp_path / "log.db", epoch=EPOCH, wall=broker._wall, policy=lambda channel: _retention(settings)
        )
        return await _serve(settings, file)

    await check_transport(kind, name, start=start)


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in CLOCKED + LATER + TRIMMED])
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract_on_redis(kind: type[Subscriber], name: str, servers: Servers) -> None:
    """Each transport keeps each clause where a Redis server orders and keeps the log."""
    url = f"{servers('redis').url}?prefix=t{next(_numbers)}"

    async def start(settings: Settings, broker: MemoryBroker) -> Server:
        remote = redis_broker(url, new_epoch=lambda: EPOCH, policy=lambda channel: _retention(settings))
        return await _serve(settings, remote)

    await check_transport(kind, name, start=start)


def _retention(settings: Settings) -> Retention:
    return Retention(messages=settings.retention.messages, seconds=settings.retention.seconds)


async def _serve(settings: Settings, broker: Broker) -> Server:
    server = Server(settings, broker=broker)
    await server.start()
    return server
