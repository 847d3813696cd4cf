"""The broker on NATS, against real servers of two versions: the contract, and what is its own."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import ExitStack
from struct import Struct

import nats
import pytest

from oncecast.brokers.base import Broker
from oncecast.brokers.nats import session
from oncecast.brokers.nats.broker import nats_broker
from oncecast.message import Retention
from oncecast.testing.broker import CHECKS, Lab, check_broker
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from tests.brokers.servers import Servers

from .site import ask

RECORD = Struct("<IQQH")  # of a block of the stream's file: its length, number, time, and the length of its subject

_numbers = itertools.count()


def make_lab(servers: Servers, kind: str, *, own: bool = False) -> Lab:
    """A stream of its own, on a shared server or on one that is its own and can lose records."""
    stack = ExitStack()
    server = servers.own(kind, stack) if own else servers(kind)
    stream = f"t{next(_numbers)}"
    driver = LoopDriver()
    kept: dict[str, int] = {}

    def make() -> Broker:
        return nats_broker(
            f"{server.url}?stream={stream}",
            new_epoch=lambda: f"e{next(_numbers)}",
            policy=lambda channel: Retention(kept.get(channel, 10_000)),
        )

    def close() -> None:
        driver.close()
        stack.close()

    return Lab(
        make,
        driver,
        renew=lambda: asyncio.run(delete(server, stream)),
        lose=(lambda: lose_tail(server, stream)) if own else None,
        damage=lambda: driver.run(damage(server, stream)),
        trim=lambda channel, count: kept.update({channel: count}),
        close=close,
    )


async def delete(server: BrokerServer, stream: str) -> None:
    """Delete the stream."""
    await ask(server.port, f"STREAM.DELETE.{stream}")


def lose_tail(server: BrokerServer, stream: str) -> None:
    """Let the server lose what it had stored last, as a power cut may: from the third message of channel a on."""
    server.kill()
    (block,) = server.data.glob(f"jetstream/*/streams/{stream}/msgs/*.blk")
    data = block.read_bytes()
    at, found = 0, list[int]()
    while at < len(data):
        length, _, _, subject = RECORD.unpack_from(data, at)
        begin = at + RECORD.size + 4 * bool(length >> 31)  # the length of the headers
        if data[begin : begin + subject] == f"{stream}.m.a".encode():
            found.append(at)
        at += length & 0x7FFFFFFF
    block.write_bytes(data[: found[2]])
    for index in (*block.parent.glob("*.idx"), *block.parent.glob("*.fss"), *block.parent.glob("index.db")):
        index.unlink()
    server.start()


async def damage(server: BrokerServer, stream: str) -> None:
    """Add a record that is no message."""
    client = await nats.connect(server.url)
    try:
        await client.jetstream().publish(f"{stream}.m.a", b"foreign")
    finally:
        await client.close()


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", ["nats", "nats-newest"])
def test_it_keeps_the_contract(servers: Servers, monkeypatch: pytest.MonkeyPatch, kind: str, name: str) -> None:
    """It passes every check that a broker must pass."""
    monkeypatch.setattr(session, "SWEEP_SECONDS", 0.2)
    check_broker(lambda: make_lab(servers, kind, own=name == "tells_of_a_hole"), name)
