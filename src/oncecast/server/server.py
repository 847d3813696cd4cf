"""A running server: the sockets it listens on, its broker, and the few tasks it owns.

`Server.start` binds, starts the broker and accepts. `Server.stop` drains: it accepts no more connections, tells each
transport to say goodbye at the rate that `process/drain.py` gives, and then cuts the connections that are left.
Everything else happens in callbacks of the connections.

Invariant: a start that fails leaves nothing open. A task that ends fails the node (`tasks.py`), and a stop ends even
then: without the task that drives the deadlines it cuts all connections at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence

import msgspec

from ..brokers.base import Broker
from ..http.bulletin import Bulletin
from ..http.service import Rules
from ..message import Draft, Kind
from ..policy.quotas import Quotas
from .accepting import Acceptor
from .app import App
from .brokers import build_broker
from .build import adopt_quotas, build_app, build_node, build_policy, build_quotas, build_rules
from .capacity import Capacity, own_files, plan
from .guest import Guest
from .jwks import RemoteKeys
from .listening import BACKLOG, bind, bound_unsent, set_send_timeout
from .logs import Logs
from .machine import CHANNEL, SECONDS, Machine
from .overview import join_the_roll
from .settings import Settings, revocation_seconds
from .tasks import Tasks
from .tls import Tls
from .tracing import ServerTracing
from .wheel import RESOLUTION

logger = logging.getLogger("oncecast.server")

TRIM_SECONDS = 1.0
LOOK_SECONDS = 60.0  # between two looks at the files of TLS: a renewed certificate has weeks
FEW_CONNECTIONS = 500  # a server that has room for fewer, without being set to that, warns of it
CUT_SECONDS = 1.0  # for the loop to close the connections that were cut: a turn or two
GOODBYE_SECONDS = 5.0  # for the last connection to leave
STOP_SECONDS = 3.0  # for connections to close after their goodbye


class Server:
    """One server in one process, on the running loop. `port` is known once it has started.

    `sockets` are those to listen on, if they are bound already. `share` is this process's part of
    `limits.drain_per_second`, which holds for all processes together. One of the processes publishes the `demo`.
    `quotas` count what the clients of all processes do; without them this process counts for itself. `logs` are where
    `access_log` and `audit_log` are written; without them nowhere, as a program that holds a server has its own output.
    A `guest` is served beside the server's own routes. `given` are the settings without what the guest has added.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        broker: Broker | None = None,
        sockets: Sequence[socket.socket] = (),
        share: float = 1.0,
        demo: bool = True,
        quotas: Quotas | None = None,
        logs: Logs | None = None,
        guest: Guest | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.given = settings
        self._guest = guest
        self.settings = settings = settings if guest is None else guest.adapt(settings)
        self._share = share
        self.quotas = quotas or build_quotas(settings)
        self._demonstrates = settings.dev and demo
        self._sockets = list(sockets)
        self._tls: Tls | None = None
        self._tracing = ServerTracing() if settings.tracing else None
        self.port = settings.port
        policy = build_policy(lambda: self.settings)
        self.node = build_node(
            settings,
            broker or build_broker(settings, lambda channel: policy(channel).retention),
            policy,
            monotonic=loop.time,
            schedule=loop.call_soon,
            tracing=self._tracing,
        )
        self.app: App = build_app(settings, self.node, monotonic=loop.time, schedule=loop.call_soon)
        self.app.admission.room = self.quotas.room
        self.app.bulletin = Bulletin(
            self.node,
            self.app.wall,
            loop.time,
            os.urandom,
            self.app.disconnect,
            logger.warning,
            revocation_seconds(settings.auth),
        )
        self._issuer = self.app.issuer = RemoteKeys(self._adopt)
        self._issuer.use(settings.auth)
        self.app.logs = logs
        if logs is not None:
            logs.adopt(settings)
        self.loop = loop
        self._acceptor: Acceptor | None = None
        self._own_files = 0
        self._ticking: asyncio.Task[None] | None = None
        self._tasks = Tasks(self.node.fail)

    async def start(self) -> None:
        """Bind, open the broker, and accept. Raises `OSError` where the address is taken, and `ConfigurationError`.

        The address comes first, so that a server that can't have it opens no broker. Where one step fails, the steps
        before it are undone.
        """
        self._tls = Tls(self.settings, meters=self.app.tls) if self.settings.tls_cert else None
        self._sockets = self._sockets or bind(self.settings.host, self.settings.port)
        try:
            self._adopt()
            if self._guest is None:
                self._listen()
            await self.node.start()
            self._ticking = self._tasks.start("deadlines", self._tick())
            self._tasks.start("trimming the log", self._trim())
            self.port = self._sockets[0].getsockname()[1]
            join_the_roll(self.app, f":{self.port}")
            if self._guest is not None:
                await self._guest.start(self)
                self._listen()  # only now: nobody waits for an application that may not start
            if self._tracing is not None:
                self._tracing.start()  # after the guest: an application may have set a provider
            self._own_files = own_files(len(self.app.connections))
            self.app.admission.capacity = self._planned(self.settings)
        except BaseException:
            self._close_sockets()
            if self._guest is not None:
                await self._guest.stop()
            await self._tasks.stop()
            await self.node.stop()
            await self._stop_tracing()
            raise
        self._tasks.start("fetching the issuer's keys", self._issuer.run())
        if self._tls is not None:
            self._tasks.start("looking at the certificates", self._look_at(self._tls))
        if self._demonstrates:
            self._tasks.start("the demonstration", self._demo(), may_end=True)
        self._acceptor = Acceptor(
            self.app,
            self._sockets,
            tls=self._tls,
            proxied=self.settings.proxy_protocol,
            make=None if self._guest is None else self._guest.connection,
        )
        self._acceptor.start()

    def _listen(self) -> None:
        for sock in self._sockets:
            sock.listen(BACKLOG)
        set_send_timeout(self._sockets, self.settings.limits.heartbeat_seconds)
        bound_unsent(self._sockets, self.settings.limits.unsent_bytes)

    @property
    def addresses(self) -> list[str]:
        """The addresses that it listens on."""
        return [str(sock.getsockname()[0]) for sock in self._sockets]

    def _planned(self, settings: Settings) -> Capacity:
        """Return how many connections may be open. Raises `ConfigurationError`: see `plan`."""
        wanted = settings.limits.connections
        capacity = plan(wanted, self._own_files)
        if capacity.ceiling < (wanted or FEW_CONNECTIONS):
            logger.warning(
                "the limit of open files leaves room for %d connections%s, and %d more for publishes and probes: raise "
                "it (ulimit -n)",
                capacity.ceiling,
                f" (limits.connections is {wanted})" if wanted else "",
                capacity.reserve,
            )
        return capacity

    def reload(self, settings: Settings) -> None:
        """Apply settings that differ in nothing that `reload.FIXED` names. Connections stay open.

        A connection keeps what it began with, such as a stream's heartbeats. Raises `ConfigurationError` for a
        certificate that can't serve or a limit of open files that is too low; then nothing has changed.
        """
        given = settings
        if self._guest is not None:
            settings = self._guest.adapt(settings)
        capacity = self._planned(settings) if self.app.ready else self.app.admission.capacity
        if self._tls is not None:
            self._tls.renew(settings)
        self.app.admission.capacity = capacity
        self.given, self.settings = given, settings
        if self.app.logs is not None:
            self.app.logs.adopt(settings)
        adopt_quotas(self.quotas, settings)
        self._issuer.use(settings.auth)
        if self.app.bulletin is not None:
            self.app.bulletin.remember_seconds = revocation_seconds(settings.auth)
        self._adopt()
        self.node.change(settings.retention.bytes, settings.limits.publish_wait_seconds)
        if self.app.ready:
            set_send_timeout(self._sockets, settings.limits.heartbeat_seconds)
            bound_unsent(self._sockets, settings.limits.unsent_bytes)

    def _rules(self) -> Rules:
        """Return the rules of the settings and of the addresses that are bound."""
        rules = build_rules(self.settings, self.addresses, self.quotas, self._issuer.keys, self.app.refusals.note)
        return rules if self._guest is None else self._guest.rules(rules, self.settings)

    def _adopt(self) -> None:
        rules = self._rules()
        self.app.adopt(rules)
        if self._guest is not None:
            self._guest.adopted(rules)
        if self.app.authenticator is not None:
            self.app.authenticator.on_unknown_key = self._issuer.hurry

    def pace(self, share: float) -> None:
        """Drain at another part of `limits.drain_per_second`."""
        self._share = share
        if self.app.leaving is not None:
            self.app.leaving.change(self._per_second(), self.loop.time())

    def _per_second(self) -> float:
        return self.settings.limits.drain_per_second * self._share

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Accept no more connections, let the transports end, cut the rest, end the tasks, and stop the broker."""
        leaving = self.app.leave(self._per_second())
        if self._guest is not None:
            self._guest.leave()
        if self._acceptor is None:
            self._close_sockets()
        else:
            await self._acceptor.stop()
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
        if self._is_ticking():
            await self.app.wait_until_empty(max(seconds, leaving.seconds + goodbye))
        while leaving and self._is_ticking():  # the rate was lowered meanwhile
            await self.app.wait_until_empty(leaving.seconds + goodbye)
        if self._acceptor is not None:
            await self._acceptor.cancel()
        self.cut_off()
        await self.app.wait_until_empty(CUT_SECONDS)
        if self._guest is not None:
            await self._guest.stop()
        await self._tasks.stop()
        await self.node.stop()
        await self._stop_tracing()
        if self.app.logs is not None:
            await self.app.logs.close()

    async def _stop_tracing(self) -> None:
        if self._tracing is not None:
            await self._tracing.close()

    def _is_ticking(self) -> bool:
        """Whether deadlines pass, and draining goes on."""
        return self._ticking is not None and not self._ticking.done()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def cut_off(self) -> None:
        """Close every connection at once."""
        for connection in list(self.app.connections):
            connection.abort()

    async def _tick(self) -> None:
        while True:
            due = self.loop.time() + RESOLUTION
            await asyncio.sleep(RESOLUTION)
            self.app.stalls.observe(self.loop.time() - due)
            self.app.tick()

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            self.node.tick()
            if self.app.bulletin is not None and self.app.confers:
                self.app.bulletin.tick()

    async def _look_at(self, tls: Tls) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            tls.look()

    async def _demo(self) -> None:
        """Publish this machine's load for the start page."""
        machine = Machine()
        at = self.loop.time()
        while self.app.ready:
            try:
                sample = machine.sample(self.loop.time(), time.time())
            except OSError as error:
                logger.warning("no machine load for the start page: %s", error)
                return
            self.node.publish((Draft(CHANNEL, msgspec.json.encode(sample), Kind.JSON),), lambda outcomes: None)
            at += SECONDS
            await asyncio.sleep(max(0.0, at - self.loop.time()))
