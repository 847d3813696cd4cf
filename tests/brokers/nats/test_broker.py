"""The broker on NATS, against real servers of two versions: the contract, and what is its own."""

from __future__ import annotations

import itertools

import pytest

from oncecast.brokers.base import Broker
from oncecast.brokers.nats.broker import nats_broker
from oncecast.message import Retention
from oncecast.testing.broker import CHECKS, Lab, check_broker
from oncecast.testing.driver import LoopDriver
from tests.brokers.servers import Servers

_numbers = itertools.count()


def make_lab(servers: Servers, kind: str) -> Lab:
    """A stream of its own on a shared server."""
    server = servers(kind)
    stream = f"t{next(_numbers)}"
    driver = LoopDriver()

    def make() -> Broker:
        return nats_broker(
            f"{server.url}?stream={stream}",
            new_epoch=lambda: f"e{next(_numbers)}",
            policy=lambda channel: Retention(),
        )

    return Lab(make, driver, close=driver.close)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", ["nats", "nats-newest"])
def test_it_keeps_the_contract(servers: Servers, kind: str, name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: make_lab(servers, kind), name)
