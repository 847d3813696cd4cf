"""A running server: the sockets it listens on, and the few tasks it owns.

`Server.start` binds, `Server.stop` drains: no new connections, each transport says goodbye at its moment (`drain.py`),
and whoever has not gone after that is cut off. Everything else happens in callbacks of the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Sequence

import msgspec

from ..brokers.base import Broker
from ..message import Draft, Kind
from .app import REMIND_SECONDS, App
from .build import build_app, build_broker, build_node, build_policy, build_rules
from .connection import Connection
from .listening import BACKLOG, bind, has_room, set_patience
from .machine import CHANNEL, SECONDS, Machine
from .settings import Settings
from .tls import Tls
from .wheel import RESOLUTION

logger = logging.getLogger("oncecast.server")

TRIM_SECONDS = 1.0
CUT_SECONDS = 1.0  # for the loop to let go of what was cut off: a turn or two
ACCEPT_AT_ONCE = 64  # connections in a turn of the loop; and, on asyncio, tries where there is no descriptor left
ACCEPT_TURNS = 4  # of the loop, in which what it has accepted becomes a connection
GOODBYE_SECONDS = 5.0  # for the last who is told to go
STOP_SECONDS = 3.0  # for the goodbyes to be heard


class Server:
    """One server in one process, on the running loop. `port` is known once it has started.

    `sockets` are those to listen on, if they are bound already. `share` is this process's part of what all of them do
    together, which is how many connections a second are let go; and one of them has the `demo`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        broker: Broker | None = None,
        sockets: Sequence[socket.socket] = (),
        share: float = 1.0,
        demo: bool = True,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.settings = settings
        self._share = share
        self._demonstrates = settings.dev and demo
        self._said = -REMIND_SECONDS
        self._sockets = list(sockets)
        self._tls: Tls | None = None
        self.port = settings.port
        policy = build_policy(lambda: self.settings)
        self.node = build_node(
            settings,
            broker or build_broker(settings, policy),
            policy,
            monotonic=loop.time,
            schedule=loop.call_soon,
        )
        self.app: App = build_app(settings, self.node, monotonic=loop.time)
        self._loop = loop
        self._listening: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Bind, start the broker, and serve.

        Raises `OSError` where the address is taken, `ConfigurationError` for a certificate or a broker that can't
        serve; then nothing is left open.
        """
        self._tls = None if self.settings.tls_cert is None else Tls(self.settings)
        self._sockets = self._sockets or bind(self.settings.host, self.settings.port)
        self.port = self._sockets[0].getsockname()[1]
        try:
            await self.node.start()
            await self._listen()
        except BaseException:
            for server in self._listening:
                server.close()
            for sock in self._sockets:
                sock.close()
            await self.node.stop()
            raise

    async def _listen(self) -> None:
        set_patience(self._sockets, self.settings.limits.heartbeat_seconds)
        for sock in self._sockets:
            server = await self._loop.create_server(
                lambda: Connection(self.app),
                sock=sock,
                ssl=None if self._tls is None else self._tls.context,
                backlog=ACCEPT_AT_ONCE,
                ssl_handshake_timeout=None if self._tls is None else self.settings.limits.head_seconds,
            )
            self._listening.append(server)
            sock.listen(BACKLOG)  # asyncio takes one number for this and for how many it accepts in a turn
        self._tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._trim())]
        if self._demonstrates:
            self._tasks.append(asyncio.create_task(self._demo()))

    def reload(self, settings: Settings) -> None:
        """Take on settings that differ in nothing that `reload.FIXED` names. Whoever is connected stays.

        What a connection was begun with, such as a stream's heartbeats, it keeps. Raises `ConfigurationError` for a
        certificate that can't serve; then nothing has changed.
        """
        if self._tls is not None:
            self._tls.renew(settings)
        self.settings = settings
        self.app.adopt(build_rules(settings))
        self.node.change(settings.retention.bytes)
        if self.app.ready:
            set_patience(self._sockets, settings.limits.heartbeat_seconds)

    def pace(self, share: float) -> None:
        """Take on another part of what all processes do together."""
        self._share = share
        if self.app.leaving is not None:
            self.app.leaving.change(self._per_second(), self._loop.time())

    def _per_second(self) -> float:
        return self.settings.limits.drain_per_second * self._share

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop: take no more connections, let the transports end, then cut off who is left. Ends its tasks."""
        leaving = self.app.leave(self._per_second())
        await self._stop_accepting()
        if leaving.seconds > seconds:
            logger.warning(
                "%d connections leave, which takes %.0f s at limits.drain_per_second = %g: raise that, or "
                "limits.drain_seconds (%g).",
                len(self.app.connections),
                leaving.seconds,
                self.settings.limits.drain_per_second,
                seconds,
            )
        goodbye = min(seconds, GOODBYE_SECONDS)
        await self._wait_until_empty(max(seconds, leaving.seconds + goodbye))
        while leaving:  # the rate was lowered meanwhile
            await self._wait_until_empty(leaving.seconds + goodbye)
        self.cut_off()
        await self._wait_until_empty(CUT_SECONDS)
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                logger.error("a task of the server had failed", exc_info=ended)
        for server in self._listening:
            await server.wait_closed()
        await self.node.stop()

    async def _stop_accepting(self) -> None:
        for server in self._listening:
            for sock in server.sockets:
                # What asyncio has accepted, and its server is closed before it gets to it, would be left open for ever.
                self._loop.remove_reader(sock)
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for server in self._listening:
            server.close()

    async def _wait_until_empty(self, seconds: float) -> None:
        if self.app.connections:
            empty = asyncio.Event()
            self.app.when_empty = empty.set
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(empty.wait(), seconds)

    def cut_off(self) -> None:
        """Close every connection at once."""
        for connection in list(self.app.connections):
            connection.abort()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(RESOLUTION)
            self.app.tick()

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            self.node.tick()
            if not has_room():
                self._say_no_room()

    def _say_no_room(self) -> None:
        """Say, now and then, what is behind connections that are not accepted: the loops spin, or say nothing."""
        if self._loop.time() - self._said >= REMIND_SECONDS:
            self._said = self._loop.time()
            logger.warning(
                "this process has no file descriptor left, so nobody can connect; %d connections are served on. Raise "
                "the limit of open files (ulimit -n), or lower limits.connections.",
                len(self.app.connections),
            )

    async def _demo(self) -> None:
        """Publish this machine's load for the start page."""
        machine = Machine()
        at = self._loop.time()
        while self.app.ready:
            try:
                sample = machine.sample(self._loop.time(), time.time())
            except OSError as error:
                logger.warning("no machine load for the start page: %s", error)
                return
            self.node.publish((Draft(CHANNEL, msgspec.json.encode(sample), Kind.JSON),), lambda outcomes: None)
            at += SECONDS
            await asyncio.sleep(max(0.0, at - self._loop.time()))
