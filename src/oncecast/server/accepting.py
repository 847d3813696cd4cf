"""Accepts connections on the sockets that a server listens on, and hands each to a `Connection`.

Invariant: no more connections are held than `Admission` has places for. One without a place is answered 503, one past a
limit of its address 429, and it is closed before the next is accepted, or soon after its handshake where it is one of
the few that `tls/farewells.py` answers: refused connections never pile up. Where the system has no descriptor left,
accepting pauses for `PAUSE_SECONDS`, as the log says; open connections are served on.

Only a connection that waits for its peer is cut: for a header of the PROXY protocol, or in a TLS handshake. While the
loop opens it, in a turn or two, it is not: uvloop would call its `connection_made`, and never its `connection_lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from ..errors import Refusal
from ..http.replies import encode_fault
from ..policy.identity import Identity
from ..wire import http1
from .admission import FULL, REMIND_SECONDS
from .app import App
from .connection import Connection
from .logged import LoggedConnection
from .presence import arrive
from .proxied import ProxyHeaderError, read_proxy_header
from .tls import Tls
from .tls.farewells import Farewells
from .tls.opening import PlainHttpError, discard, open_channel
from .tls.shared import Shared

__all__ = ["Acceptor", "Make", "make_connection"]

logger = logging.getLogger("oncecast.server")

ACCEPT_AT_ONCE = 64  # connections in a turn of the loop, for each socket
REFUSE_AT_ONCE = 8  # of these; a connection that was evicted for another closes in the next turn, see `SPARE_FILES`
PAUSE_SECONDS = 0.2
OPEN_SECONDS = 1.0  # for accepted connections to open when the server stops; a TLS handshake may take longer

Make = Callable[[App, int | None, Identity], Connection]


def make_connection(app: App, descriptor: int | None, identity: Identity) -> Connection:
    """Return what serves an accepted socket."""
    kind = LoggedConnection if app.logs is not None and app.logs.accesses else Connection
    return kind(app, descriptor, identity)


class Acceptor:
    """Accepts on `sockets`, which listen already, from `start` to `stop`. With `tls`, after a handshake in time.

    With `proxied`, a connection comes from a trusted proxy, and a header of the PROXY protocol says whose it is. `make`
    makes the connections, where an application is served beside the server.
    """

    def __init__(
        self,
        app: App,
        sockets: Sequence[socket.socket],
        *,
        tls: Tls | None,
        proxied: bool = False,
        make: Make | None = None,
    ) -> None:
        self._app = app
        self._sockets = list(sockets)
        self._tls = tls
        self._proxied = proxied
        self._make = make or make_connection
        self._at_once = tls is None and not proxied  # a connection is open in the turn after it was accepted
        self._loop = asyncio.get_running_loop()
        self._meters = app.tls
        self._shared = Shared(self._loop, app.reading, app.monotonic)
        self._farewells = None if tls is None else Farewells(self._shared, tls, self._meters)
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: dict[Connection, asyncio.Task[None]] = {}  # of these, for their peers; the oldest first
        self._pause: asyncio.TimerHandle | None = None
        self._reminded = -REMIND_SECONDS

    def start(self) -> None:
        """Begin to accept."""
        self._pause = None
        for sock in self._sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._accept, sock)

    async def stop(self) -> None:
        """Accept no more, close the sockets, and wait for the connections that are being opened, at most a second."""
        if self._pause is not None:
            self._pause.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        if self._opening:
            await asyncio.wait(self._opening, timeout=OPEN_SECONDS)

    async def cancel(self) -> None:
        """Give up on the connections that wait for their peers, or that are told why they are refused.

        The others that are being opened are open then.
        """
        refused = set() if self._farewells is None else self._farewells.tasks
        for task in (*self._waiting.values(), *refused):
            task.cancel()
        if tasks := self._opening | refused:
            await asyncio.wait(tasks, timeout=OPEN_SECONDS)

    def _accept(self, sock: socket.socket) -> None:
        admission = self._app.admission
        refused = admission.turned_away + REFUSE_AT_ONCE
        limited = 0
        for _ in range(ACCEPT_AT_ONCE):
            if self._at_once and self._opening and admission.full:
                return  # one in a turn: it is open in the next, and can give way to those behind it
            try:
                accepted, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # the peer has closed it again (accept(2))
                continue
            except OSError as error:
                self._pause_accepting(error)
                return
            accepted.setblocking(False)
            descriptor = None if self._tls is not None else accepted.fileno()
            connection = self._make(self._app, descriptor, _identify(address[0]))
            try:
                self._admit(connection)
            except Refusal as refusal:
                limited += refusal is not FULL
                self._refuse(accepted, refusal, connection)
            else:
                self._begin(connection, accepted)
            if admission.turned_away + limited >= refused:
                return

    def _admit(self, connection: Connection) -> None:
        """Count a connection by its address, and take a place for it. Raises `Refusal`."""
        admission = self._app.admission
        if not self._proxied:  # else its address is not known yet
            self._count(connection)
        if not (admission.take() or self._give_up_oldest()):
            connection.forget()
            admission.turn_away()
            raise FULL.with_traceback(None)

    def _count(self, connection: Connection) -> None:
        """Count a connection by its address. Raises `Refusal`."""
        quotas = self._app.settings.quotas
        if quotas is not None:
            connection.presence = arrive(quotas, connection.identity.address, self._app.monotonic())

    async def _learn(self, connection: Connection, accepted: socket.socket, until: float) -> bool:
        """Learn from its proxy whose connection it is, and count it. Returns False where it was refused, and closed.

        `until` is by the loop's clock. Raises `ProxyHeaderError`.
        """
        quotas = self._app.settings.quotas
        if quotas is None or not quotas.is_proxy(connection.identity.address):
            raise ProxyHeaderError(f"{connection.identity.address} is not one of trusted_proxies")
        try:
            async with asyncio.timeout_at(until):
                header = await read_proxy_header(self._loop, accepted)
        except OSError as error:  # it is no header, or late, or the proxy has gone
            raise ProxyHeaderError(str(error) or "late") from None
        if header.address is not None:
            connection.identity = _identify(header.address)
        try:
            self._count(connection)
        except Refusal as refusal:
            self._refuse(accepted, refusal, connection)
            return False
        return True

    def _begin(self, connection: Connection, accepted: socket.socket) -> None:
        if len(self._waiting) >= self._app.settings.handshakes:
            self._cut_oldest()
        task = self._loop.create_task(self._open(connection, accepted))
        self._opening.add(task)
        if not self._at_once:
            self._waiting[connection] = task
        self._meters.handshakes = 0 if self._tls is None else len(self._waiting)
        task.add_done_callback(partial(self._opened, connection, accepted))

    async def _open(self, connection: Connection, accepted: socket.socket) -> None:
        until = self._loop.time() + self._app.settings.head_seconds
        if self._proxied and not await self._learn(connection, accepted, until):
            return
        if self._tls is not None:
            async with asyncio.timeout_at(until):
                await open_channel(self._shared, accepted, self._tls.context, connection)
            return
        self._waiting.pop(connection, None)
        await self._loop.connect_accepted_socket(lambda: connection, accepted)

    def _opened(self, connection: Connection, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._waiting.pop(connection, None)
        self._meters.handshakes = 0 if self._tls is None else len(self._waiting)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ProxyHeaderError):
            self._unnamed(error)
            self._note("proxy_header_missing", connection)
        elif isinstance(error, PlainHttpError):
            self._meters.plain += 1
        elif isinstance(error, OSError):  # a handshake that failed or was late
            self._meters.failed += 1
            self._note("tls_failed", connection)
        elif error is not None:
            logger.error("a connection could not be opened", exc_info=error)
        if not connection.opened:
            accepted.close()
            connection.forget()
            self._app.admission.give_back()

    def _give_up_oldest(self) -> bool:
        """Let a new connection have the place of the oldest TLS handshake. Return False where none is under way."""
        if not self._cut_oldest():
            return False
        self._app.admission.take_over()
        return True

    def _unnamed(self, error: ProxyHeaderError) -> None:
        """Count a connection that was closed as nothing says whose it is, and log it once a minute."""
        self._app.admission.unnamed += 1
        now = self._loop.time()
        if now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            logger.warning("a connection was closed that has no header of the PROXY protocol: %s", error)

    def _cut_oldest(self) -> bool:
        """End the oldest TLS handshake, or wait for a PROXY header, that is under way. Return False without one."""
        if not self._waiting:
            return False
        connection = next(iter(self._waiting))
        self._waiting.pop(connection).cancel()
        self._meters.cut += 1
        self._note("handshake_cut", connection)
        return True

    def _note(self, code: str, connection: Connection) -> None:
        """Let the audit log have a connection that has failed before its first request."""
        if self._app.logs is not None:
            self._app.logs.note(code, connection.identity)

    def _refuse(self, accepted: socket.socket, refusal: Refusal, connection: Connection) -> None:
        """Answer with an error and close, without waiting for the peer; over TLS see `Farewells`."""
        if self._app.logs is not None:
            self._app.logs.refuse(refusal.error, connection.identity, how="connect")

        def answer(request: bytes) -> bytes:
            return encode_fault(self._app, http1.glimpse_fields(request, len(request)), refusal)

        if self._farewells is not None:
            if refusal is FULL and self._proxied:  # its handshake comes behind a header that has not been read
                self._farewells.alert(accepted)
            else:
                self._farewells.say(accepted, answer)
            return
        with accepted, contextlib.suppress(OSError):
            accepted.setblocking(False)
            accepted.send(answer(discard(accepted)))

    def _pause_accepting(self, error: OSError) -> None:
        """Wait for descriptors or memory: the socket stays readable, so to go on at once would be a busy loop."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self.start)
        now = self._loop.time()
        if now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            logger.warning(
                "no connection can be accepted (%s), and %d are served on: raise the limit of open files (ulimit -n), "
                "or lower limits.connections",
                error.strerror,
                len(self._app.connections),
            )


@lru_cache(maxsize=1024)  # many connections come from one address, as through a proxy: they share the object
def _identify(address: str) -> Identity:
    return Identity(address)
