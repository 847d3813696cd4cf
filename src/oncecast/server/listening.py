"""The sockets that a server listens with.

Invariant: every address of the host is bound, with one port, or `OSError` is raised and nothing stays bound. A port on
which another server listens is in use, whether or not that server would share it. What each accepted connection
inherits from its socket is set here (`set_send_timeout`, `bound_unsent`).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Any

BACKLOG = 4096  # connections that wait to be accepted: all clients reconnect at once after a restart
LONG_HEARTBEAT = 600.0  # seconds
TCP_NOTSENT_LOWAT = 25  # of Linux; `socket` has it from Python 3.12 on
PORT_TRIES = 8  # for a port that is free on each address; nearly always the first one is
ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # as of ::1 where there is no IPv6

_Address = tuple[int, tuple[Any, ...]]  # the family, and what `socket.bind` takes


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Return a bound socket for each address of `host`, all with the same port, which for 0 is any free one.

    An address that this machine does not have is left out where there is another. With `shared`, other processes of
    this user may bind the same address (`SO_REUSEPORT`, socket(7)). Raises `OSError`.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[_Address] = list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
    tries = 1 if port else PORT_TRIES
    while True:
        tries -= 1
        try:
            return _bind_all(addresses, port, shared)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or tries == 0:
                raise


def bind_slots(host: str, port: int, slots: int) -> list[list[socket.socket]]:
    """Return, for each of several processes, sockets of its own on every address of `host`, all with one port.

    They listen already. The kernel spreads connections evenly over them (`SO_REUSEPORT`, socket(7)), and as each has a
    queue of its own, what waits in it stays there while its process is replaced. Raises `OSError`.
    """
    probe = bind(host, port)  # `SO_REUSEPORT` alone would allow this port beside another server of the same user
    port = probe[0].getsockname()[1]
    for sock in probe:
        sock.close()
    bound = [bind(host, port, shared=True) for _ in range(slots)]
    for sock in (sock for sockets in bound for sock in sockets):
        sock.listen(BACKLOG)
    return bound


def set_send_timeout(sockets: Iterable[socket.socket], heartbeat_seconds: float) -> None:
    """Let the kernel end a connection whose peer acknowledges nothing for two heartbeats (`TCP_USER_TIMEOUT`, tcp(7)).

    Each connection inherits it. A stream of events whose socket is not full has no other way to find that its peer is
    dead; `Outlet.is_stuck` looks at a full one. Where heartbeats are rarer than `LONG_HEARTBEAT` seconds, the system's
    own timeout holds, about 15 minutes.
    """
    seconds = 0.0 if heartbeat_seconds > LONG_HEARTBEAT else 2 * heartbeat_seconds
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def bound_unsent(sockets: Iterable[socket.socket], size: int) -> None:
    """Let the kernel take no more for a connection while `size` bytes are unsent (`TCP_NOTSENT_LOWAT`, tcp(7)).

    Each connection inherits it. Without it the kernel takes megabytes for a peer that reads nothing. What is on its way
    to a peer that reads is not counted, so that a long line is as fast as it was; a smaller `SO_SNDBUF` would slow it.
    """
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, size)


# Helpers ---------------------------------------------------------------------------------------------------------


def _bind_all(addresses: Sequence[_Address], port: int, shared: bool) -> list[socket.socket]:
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, (host, _, *rest) in addresses:
            try:
                bound.append(_bind(family, (host, port, *rest), shared))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
            else:
                port = bound[-1].getsockname()[1]
        if absent is not None and not bound:
            raise absent
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bind(family: int, address: tuple[Any, ...], shared: bool) -> socket.socket:
    # The protocol is named: asyncio sets TCP_NODELAY on no other socket.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # IPv4 has a socket of its own, whatever this system's default is
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
