"""The sockets of a server: on each address, in each slot, and what connections inherit from them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from oncecast.server import listening
from oncecast.server.listening import (
    LONG_HEARTBEAT,
    PORT_TRIES,
    TCP_NOTSENT_LOWAT,
    bind,
    bind_slots,
    set_send_timeout,
)
from oncecast.server.settings import Limits, Settings

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 60.0
SIOCOUTQNSD = 0x894B  # of Linux
LOCALHOST = ["127.0.0.1", "::1"]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every name stand for the addresses given."""

    def resolve(*addresses: str) -> None:
        def found(host: str, port: int, **kwargs: object) -> list[Any]:
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return resolve


def bound(host: str, port: int = 0) -> list[tuple[str, int]]:
    """Bind, and return the addresses and ports. The sockets are closed."""
    sockets = bind(host, port)
    try:
        return [sock.getsockname()[:2] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


# -- sockets


def test_a_name_is_bound_at_each_of_its_addresses(resolve: Any) -> None:
    """`localhost` is 127.0.0.1 to some clients and ::1 to others: both reach the same port."""
    resolve(*LOCALHOST, "127.0.0.1")
    addresses = bound("localhost")
    assert LOCALHOST == [host for host, _ in addresses]
    assert 1 == len({port for _, port in addresses})
    assert 0 not in {port for _, port in addresses}


@pytest.mark.parametrize("addresses", [("203.0.113.1", "127.0.0.1"), ("127.0.0.1", "203.0.113.1")])
def test_an_address_that_is_not_here_is_left_out(resolve: Any, addresses: tuple[str, str]) -> None:
    """A machine without IPv6 serves `localhost` all the same, whichever address is named first."""
    resolve(*addresses)
    assert ["127.0.0.1"] == [host for host, _ in bound("localhost")]


def test_without_any_address_of_this_machine(resolve: Any) -> None:
    """Where nothing can be bound, the system's reason is raised."""
    resolve("203.0.113.1", "203.0.113.7")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        bind("elsewhere", 0)
    assert errno.EADDRNOTAVAIL == caught.value.errno


def test_a_port_that_is_taken_on_one_address(resolve: Any) -> None:
    """A port is ours on each address or not at all, and what was bound already is let go."""
    resolve(*LOCALHOST)
    with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            bind("localhost", port)
        resolve("127.0.0.1")
        assert [("127.0.0.1", port)] == bound("localhost", port)


def test_a_free_port_is_looked_for_on_each_address(resolve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was free on the first address and taken on the next is given up for another, a few times."""
    resolve(*LOCALHOST)
    tries: Iterator[int] = iter(range(PORT_TRIES - 1))
    bind_one = listening._bind

    def taken(family: int, address: Any, shared: bool) -> socket.socket:
        if address[1] and next(tries, None) is not None:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return bind_one(family, address, shared)

    monkeypatch.setattr(listening, "_bind", taken)
    assert LOCALHOST == [host for host, _ in bound("localhost")]
    tries = iter(range(PORT_TRIES))
    with pytest.raises(OSError, match="in use"):
        bind("localhost", 0)


def test_ipv6_leaves_ipv4_to_its_own_socket(resolve: Any) -> None:
    """The wildcards of both families can be bound side by side."""
    resolve("0.0.0.0", "::")
    assert ["0.0.0.0", "::"] == [host for host, _ in bound("everywhere")]


async def test_each_address_is_served(resolve: Any, open_site: Open) -> None:
    """A server of two addresses answers at both, and has gone from both when it has stopped."""
    resolve(*LOCALHOST)
    site = await open_site(Settings(host="localhost", port=0))
    loop = asyncio.get_running_loop()
    for host in LOCALHOST:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, site.server.port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200 OK\r\n" == await asyncio.wait_for(reader.readline(), SECONDS)
        writer.close()
        await writer.wait_closed()
    await site.server.stop()
    for host in LOCALHOST:
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as sock:
            assert errno.ECONNREFUSED == sock.connect_ex((host, site.server.port))


# -- slots


def test_each_slot_has_sockets_of_its_own_on_one_port(resolve: Any) -> None:
    """Every slot listens at every address; what waits at a socket is there for whoever holds it next."""
    resolve(*LOCALHOST)
    slots = bind_slots("localhost", 0, 3)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(closing(sock)) for sockets in slots for sock in sockets]
        assert [LOCALHOST] * 3 == [[sock.getsockname()[0] for sock in sockets] for sockets in slots]
        assert 1 == len({sock.getsockname()[1] for sock in held})
        address = held[0].getsockname()
        peers = [stack.enter_context(closing(socket.socket())) for _ in range(60)]
        for peer in peers:
            peer.connect(address)
        waiting = []
        for sock, _ in slots:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting.append(stack.enter_context(closing(sock.accept()[0])).getpeername())
        assert sorted(peer.getsockname() for peer in peers) == sorted(waiting)


def test_a_port_that_others_share_is_in_use_all_the_same() -> None:
    """Another server's slots are not joined, though the kernel would let us in beside them."""
    (theirs,) = bind_slots("127.0.0.1", 0, 1)
    with closing(theirs[0]), pytest.raises(OSError, match="in use"):
        bind_slots("127.0.0.1", theirs[0].getsockname()[1], 1)


@pytest.mark.parametrize("heartbeat, expected", [(15.0, 30_000), (0.1, 200), (LONG_HEARTBEAT + 1, 0)])
def test_connections_inherit_the_timeout_of_their_socket(heartbeat: float, expected: int) -> None:
    """A peer that takes nothing has two heartbeats; where these are rare, the system's own time."""
    with closing(bind("127.0.0.1", 0)[0]) as sock:
        sock.listen()
        set_send_timeout([sock], heartbeat)
        with closing(socket.create_connection(sock.getsockname())), closing(sock.accept()[0]) as accepted:
            assert expected == accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_the_kernel_holds_little_for_a_peer_that_reads_nothing(open_site: Open) -> None:
    """It takes what the peer's window takes, and the bound; the peer is behind then, and reads on from the log."""
    size = 64 << 10
    site = await open_site(Settings(port=0, limits=Limits(unsent_bytes=size)))
    with closing(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", site.server.port))) as peer:
        peer.sendall(b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        await site.until(lambda: site.server.node.hub.subscriptions == 1)
        for _ in range(40):  # four megabytes, which the kernel would take otherwise
            site.publish("a", b"x" * 100_000)
            await asyncio.sleep(0)
        assert 1 == site.server.node.hub.counters.blocked
        (connection,) = site.server.app.connections
        sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert size == sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT)
        assert not_sent(sock) <= 4 * size  # the last pieces that the kernel takes may pass the bound


def not_sent(sock: Any) -> int:
    """Return the bytes that the kernel holds of a connection and has not sent."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), SIOCOUTQNSD, bytes(4)), sys.byteorder)
