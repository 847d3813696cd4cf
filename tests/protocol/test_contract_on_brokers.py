"""The transports' contract, over brokers that keep a history: in memory, in a file, and in a Redis server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from oncecast.brokers.base import Broker, Done
from oncecast.brokers.memory import MemoryBroker
from oncecast.brokers.redis.broker import redis_broker
from oncecast.brokers.sqlite.broker import SqliteBroker
from oncecast.message import Draft, Retention
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.history_broker import HistoryBroker
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS, SseSubscriber
from oncecast.testing.transport import CHECKS, check_transport
from oncecast.testing.transport_bench import EPOCH
from tests.brokers.servers import Servers

# A file and a Redis server trim in batches: a script of Redis once a channel is over by an eighth and 16, the writer of
# a file between its batches. A node that was delivered the messages has trimmed at the exact number, one that reads the
# history has not. So these clauses, which name that number, hold by chance; `marks_what_it_trims` of the brokers'
# contract has the rule.
TRIMMED = ("gap_of_what_expired", "gaps_of_several_channels", "gaps_since_a_time")
# What a cut at each byte does depends on the transport, and `test_contract.py` has it for all. One is enough here.
LONG = "cut_at_every_byte"
CASES = [(kind, name) for kind in SUBSCRIBERS for name in CHECKS if name != LONG or kind is SseSubscriber]
HELD = [(kind, name) for kind, name in CASES if name not in TRIMMED]

WINDOW_BYTES = 4000  # some ten messages


class Trimmed(HistoryBroker):
    """A broker with a history that keeps so many messages of each channel."""

    def __init__(self, broker: MemoryBroker, keep: int) -> None:
        super().__init__(broker.epoch, broker._wall)
        self.keep = keep

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Trim what is too much, too."""
        super().publish(drafts, done)
        for channel in {draft.channel for draft in drafts}:
            seqs = [message.seq for message in self.messages if message.channel == channel]
            if len(seqs) > self.keep:
                self.trim(channel, seqs[len(seqs) - self.keep - 1])


@pytest.mark.parametrize("kind, name", CASES, ids=[f"{kind.name}-{name}" for kind, name in CASES])
async def test_contract_on_a_history(kind: type[Subscriber], name: str) -> None:
    """Each transport keeps each clause where only the end of the log is in memory and the rest is in the history."""

    async def start(settings: Settings, broker: MemoryBroker) -> Server:
        retention = replace(settings.retention, bytes=WINDOW_BYTES)
        server = Server(replace(settings, retention=retention), broker=Trimmed(broker, settings.retention.messages))
        await server.start()
        return server

    await check_transport(kind, name, start=start)


@pytest.mark.parametrize("kind, name", HELD, ids=[f"{kind.name}-{name}" for kind, name in HELD])
async def test_contract_on_sqlite(kind: type[Subscriber], name: str, tmp_path: Path) -> None:
    """Each transport keeps each clause where a file orders and keeps the log."""

    async def start(settings: Settings, broker: MemoryBroker) -> Server:
        file = SqliteBroker(
            tmp_path / "log.db", epoch=EPOCH, wall=broker._wall, policy=lambda channel: _retention(settings)
        )
        return await _serve(settings, file)

    await check_transport(kind, name, start=start)


@pytest.mark.parametrize("kind, name", HELD, ids=[f"{kind.name}-{name}" for kind, name in HELD])
async def test_contract_on_redis(kind: type[Subscriber], name: str, servers: Servers) -> None:
    """Each transport keeps each clause where a Redis server orders and keeps the log."""
    url = servers.new_log("redis")

    async def start(settings: Settings, broker: MemoryBroker) -> Server:
        remote = redis_broker(url, new_epoch=lambda: EPOCH, policy=lambda channel: _retention(settings))
        return await _serve(settings, remote)

    await check_transport(kind, name, start=start, own_clock=True)


def _retention(settings: Settings) -> Retention:
    return Retention(messages=settings.retention.messages, seconds=settings.retention.seconds)


async def _serve(settings: Settings, broker: Broker) -> Server:
    server = Server(settings, broker=broker)
    await server.start()
    return server
