"""The broker on Redis, against real servers: the contract, and what is its own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import redis

from oncecast.brokers.base import Broker
from oncecast.brokers.redis.broker import redis_broker
from oncecast.message import Retention
from oncecast.testing.broker import CHECKS, Lab, check_broker
from oncecast.testing.driver import LoopDriver
from tests.brokers.servers import Servers

_numbers = itertools.count()


def make_lab(servers: Servers, kind: str) -> Lab:
    """A log of its own on a shared server."""
    server = servers(kind)
    prefix = f"t{next(_numbers)}"
    client: Any = redis.Redis(port=server.port)
    key = prefix + "{oncecast}:"
    driver = LoopDriver()
    kept: dict[str, int] = {}

    def make() -> Broker:
        return redis_broker(
            f"{server.url}?prefix={prefix}",
            new_epoch=lambda: f"e{next(_numbers)}",
            policy=lambda channel: Retention(kept.get(channel, 10_000)),
        )

    def renew() -> None:
        for name in client.scan_iter(f"{key}*"):
            client.delete(name)

    def lose() -> None:
        """Be another server, which lacks the newest messages of each channel."""
        left = 0
        for name in client.zrange(f"{key}c", 0, -1):
            stream = f"{key}s:".encode() + name
            newest, *rest = client.xrevrange(stream, count=2)
            client.xdel(stream, newest[0])
            left = max(left, *(int(entry[0].partition(b"-")[0]) for entry in rest), 0)
        client.hset(f"{key}h", mapping={"life": "0" * 40, "seq": left})

    def damage() -> None:
        seq = client.hincrby(f"{key}h", "seq", 1)
        client.xadd(f"{key}s:a", {"foreign": "1"}, id=f"{seq}-0")
        client.publish(f"{key}p:a", "foreign")

    def close() -> None:
        client.close()
        driver.close()

    def trim(channel: str, count: int) -> None:
        kept[channel] = count

    return Lab(make, driver, renew=renew, lose=lose, damage=damage, trim=trim, close=close)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_it_keeps_the_contract(servers: Servers, kind: str, name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: make_lab(servers, kind), name)
