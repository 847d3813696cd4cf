"""What the contract needs of a server with one ordered log: a log of its own, and the faults of that server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from oncecast.brokers.base import Broker
from oncecast.message import Retention, RetentionPolicy
from oncecast.testing.broker_bench import Lab
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from tests.brokers.servers import Servers

numbers = itertools.count()
Act = Callable[[BrokerServer, str], Coroutine[Any, Any, None]]  # on a server, with the name of a log


class MakeBroker(Protocol):
    """`kafka_broker` and `rabbitmq_broker`."""

    def __call__(self, url: str, *, new_epoch: Callable[[], str], policy: RetentionPolicy) -> Broker:
        """Return a broker that is not started."""
        ...


@dataclass(frozen=True)
class FollowedKind:
    """One kind of server: how a log is named in its URL, removed, damaged, and loses its newest records."""

    name: str
    option: str
    make: MakeBroker
    remove: Act
    damage: Act
    lose: Callable[[BrokerServer, str], None]

    def url(self, server: BrokerServer, log: str, **options: str) -> str:
        """Return the URL of a log."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"{server.url.partition('?')[0]}?{self.option}={log}{more}"

    def lab(self, servers: Servers, *, own: bool = False) -> Lab:
        """Return a log of its own, on a shared server or on one that is its own and can lose records."""
        stack = ExitStack()
        server = servers.own(self.name, stack) if own else servers(self.name)
        log = f"t{next(numbers)}"
        driver = LoopDriver()
        kept: dict[str, int] = {}

        def make() -> Broker:
            return self.make(
                self.url(server, log),
                new_epoch=lambda: f"e{next(numbers)}",
                policy=lambda channel: Retention(kept.get(channel, 10_000)),
            )

        def close() -> None:
            driver.close()
            stack.close()

        return Lab(
            make,
            driver,
            renew=lambda: driver.run(self.remove(server, log)),
            lose=(lambda: self.lose(server, log)) if own else None,
            damage=lambda: driver.run(self.damage(server, log)),
            trim=lambda channel, count: kept.update({channel: count}),
            close=close,
        )
