"""What the benchmark of brokers measures with: a node's broker, and the floor under it, a bare client library.

A floor sends and receives the same number of messages of the same size by the library's own means, with the same
promise of the server: what is acknowledged is stored. It numbers nothing, trims nothing and looks for no loss.

To add a kind of broker, write its floor in `broker_floors.py` and give it a row in `KINDS`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oncecast.brokers.base import Broker, Opening, Outcome
from oncecast.errors import Refusal
from oncecast.message import Draft, Kind, Message, Retention
from oncecast.server.brokers import build_broker
from oncecast.server.settings import Settings

from .base import BenchError
from .broker_floors import KafkaFloor, NatsFloor, RabbitFloor, Received, RedisFloor, option_of

__all__ = ["KINDS", "Floor", "NodePeer", "Peer", "isolated", "kind_of"]

KEPT = Retention(1_000_000, 3600.0)


class Peer(Protocol):
    """One client of a broker's server. Its methods raise what the library raises."""

    async def open(self, url: str, received: Received) -> None:
        """Connect; `received` is called with the data of each message of a wanted channel."""
        ...

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Publish together, and return once all are acknowledged."""
        ...

    async def want(self, channels: Sequence[str]) -> None:
        """Subscribe, and return once the subscriptions stand."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Floor(Peer, Protocol):
    """A bare client library. `remove` deletes the log at a URL, which the benchmark has made."""

    async def remove(self, url: str) -> None:
        """Delete what was made at the URL. Called between `open` and `close`."""
        ...


class NodePeer:
    """The broker as a node of Oncecast has it."""

    def __init__(self) -> None:
        self._broker: Broker
        self._received: Received
        self._waiting: set[str] = set()
        self._stand = asyncio.Event()
        self.failed = ""

    async def open(self, url: str, received: Received) -> None:
        """Start the broker."""
        self._received = received
        self._broker = build_broker(Settings(broker=url), lambda channel: KEPT)
        await self._broker.start(self)

    async def publish(self, channel: str, data: Sequence[bytes]) -> None:
        """Publish as one request of a client would."""
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._broker.publish([Draft(channel, each, Kind.TEXT) for each in data], answered.set_result)
        for outcome in await answered:
            if isinstance(outcome, Refusal):
                raise BenchError(f"a publish was refused: {outcome.message}")

    async def want(self, channels: Sequence[str]) -> None:
        """Want channels, and return once each is confirmed."""
        if not self._broker.capabilities.only_wanted:
            return
        self._waiting = set(channels)
        self._stand.clear()
        self._broker.want(channels)
        await self._stand.wait()

    async def close(self) -> None:
        """Stop the broker."""
        await self._broker.stop()

    # -- `brokers.base.Sink`

    def begin(self, opening: Opening, /) -> None:
        """Do nothing."""

    def receive(self, messages: Sequence[Message], /) -> None:
        """Hand the data on."""
        for message in messages:
            self._received(message.data)

    def advance(self, seq: int, /) -> None:
        """Do nothing."""

    def skip(self, seq: int, /) -> None:
        """Note a fault: the figures would be of fewer messages."""
        self._fault("the broker skipped messages")

    def hole(self, before: int, after: int, /) -> None:
        """Note a fault."""
        self._fault("the broker had a hole")

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Note what is confirmed."""
        self._waiting.difference_update(channels)
        if not self._waiting:
            self._stand.set()

    def away(self, reason: str, /) -> None:
        """Note a fault."""
        self._fault(f"the broker was away: {reason}")

    def back(self) -> None:
        """Do nothing."""

    def fail(self, reason: str, /) -> None:
        """Note a fault."""
        self._fault(reason)

    def _fault(self, text: str) -> None:
        self.failed = self.failed or text


@dataclass(frozen=True, slots=True)
class BrokerKind:
    """One kind: the option of its URL that names a log of its own, its floor, and the most ms that a delivery takes."""

    option: str | None
    floor: Callable[[], Floor] | None
    delivery_ms: float


KINDS: Mapping[str, BrokerKind] = {
    **dict.fromkeys(("redis", "rediss"), BrokerKind("prefix", RedisFloor, 3.0)),
    **dict.fromkeys(("nats", "natss"), BrokerKind("stream", NatsFloor, 3.0)),
    "kafka": BrokerKind("topic", KafkaFloor, 15.0),
    "amqp": BrokerKind("stream", RabbitFloor, 15.0),
    "sqlite": BrokerKind(None, None, 3.0),
}


def kind_of(url: str) -> BrokerKind:
    """Return the kind of a URL. Raises `BenchError`."""
    scheme = url.partition("://")[0]
    if scheme not in KINDS:
        known = ", ".join(f"{name}://" for name in KINDS)
        raise BenchError(f"there is no benchmark for {scheme[:40]}://: give one of {known}")
    return KINDS[scheme]


def isolated(url: str) -> str:
    """Return the URL of a log that is the benchmark's own, on the server of this URL. Raises `BenchError`."""
    kind = kind_of(url)
    name = f"bench{os.getpid()}x{time.monotonic_ns() % 1_000_000}"
    if kind.option is None:
        folder = Path(f"{url.partition(':///')[2]}.{name}")
        folder.mkdir()
        return f"sqlite:///{folder}/log.db"
    if option_of(url, kind.option):
        raise BenchError(f"leave {kind.option} out of the URL: the benchmark takes a log of its own, and deletes it")
    return f"{url}{'&' if '?' in url else '?'}{kind.option}={name}"


async def remove(url: str) -> None:
    """Delete the log of `isolated`."""
    floor = kind_of(url).floor
    if floor is None:
        shutil.rmtree(Path(url.partition(":///")[2]).parent)
        return
    peer = floor()
    await peer.open(url, lambda data: None)
    try:
        await peer.remove(url)
    finally:
        await peer.close()
