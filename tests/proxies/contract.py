"""The transports' contract through a proxy: `keeps` checks one clause of one transport.

Three nodes stand behind the proxy, on one Redis, and each connection goes to the next one, so a subscriber that resumes
does so at another node. The nodes of a clause take over the listening sockets of the one before: the proxy sees three
servers all the time.

The clauses `OF_ONE_NODE` have one node, in memory, on all three sockets. What they name exactly is what one node has
trimmed, which Redis does in batches, or that one node's socket is full, and a proxy hides which node's it is.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from oncecast.brokers.memory import MemoryBroker
from oncecast.brokers.redis.broker import redis_broker
from oncecast.core.node import Node
from oncecast.message import Retention
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.transport import check_transport
from oncecast.testing.transport_bench import EPOCH
from tests.brokers.certificates import Pair

from .programs import PROGRAMS, listening_sockets, running, site_of

__all__ = ["OF_ONE_NODE", "QUICK", "Front", "fronted", "keeps"]

NODES = 3
SECONDS = 600.0  # of a clause: one cuts a thousand connections, each through a pipe, a proxy and Redis
OF_ONE_NODE = (
    *("gap_of_what_expired", "gaps_of_several_channels", "gaps_since_a_time"),
    *("stalled_reader", "stalled_past_the_retention", "lag_policy_latest", "lag_policy_disconnect"),
)
# Those that a proxy is most likely to break, and that are quick. `tests/proof/proxies.py` checks all of them.
QUICK = (
    *("latest", "kinds_of_data", "several_channels", "empty_channel", "heartbeats", "limits", "malformed"),
    *("gap_of_what_expired", "gap_of_another_epoch", "byte_by_byte"),
)

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Front:
    """A running proxy: its port, and the sockets that it has the connections from."""

    port: int
    sockets: Sequence[socket.socket]


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Servers behind a proxy on `port`. Messages are published to the first."""

    port: int
    servers: Sequence[Server]

    @property
    def node(self) -> Node:
        """The node that is published to."""
        return self.servers[0].node

    async def stop(self, seconds: float) -> None:
        """Stop all of them."""
        for server in self.servers:
            await server.stop(seconds)


@contextmanager
def fronted(name: str, folder: Path, pair: Pair) -> Iterator[Front]:
    """Run a proxy with its file of `deploy/proxies` until the `with` is left."""
    program = PROGRAMS[name]
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in listening_sockets(NODES)]
        site = site_of(folder / name, [each.getsockname()[1] for each in sockets], pair)
        stack.enter_context(running(program, program.fitted(site), site))
        yield Front(site.plain, sockets)


async def keeps(kind: type[Subscriber], clause: str, front: Front, redis_url: str) -> None:
    """Check one clause of one transport through a proxy. Raises `TransportFailed`."""
    url = f"{redis_url}?prefix=proxied{next(_numbers)}"

    async def three(settings: Settings, broker: MemoryBroker) -> _Nodes:
        def policy(channel: str) -> Retention:
            return Retention(messages=settings.retention.messages, seconds=settings.retention.seconds)

        servers: list[Server] = []
        for each in front.sockets:
            shared = redis_broker(url, new_epoch=lambda: EPOCH, policy=policy)
            servers.append(Server(replace(settings, port=_port(each)), broker=shared, sockets=[each.dup()]))
            await servers[-1].start()
        return _Nodes(front.port, servers)

    async def one(settings: Settings, broker: MemoryBroker) -> _Nodes:
        sockets = [each.dup() for each in front.sockets]
        server = Server(replace(settings, port=_port(sockets[0])), broker=broker, sockets=sockets)
        await server.start()
        return _Nodes(front.port, [server])

    if clause in OF_ONE_NODE:
        await check_transport(kind, clause, start=one, seconds=SECONDS)
    else:
        await check_transport(kind, clause, start=three, own_clock=True, seconds=SECONDS)


def _port(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port
