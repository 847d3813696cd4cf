"""The `Guest` of a server: an application of ASGI, run by uvicorn, and the `Oncecast` that it has made.

Whatever the application has made of an `Oncecast` when its module is imported shares the node of the server, and says
who may do what on the server's own routes, as it would inside of the application. Invariants: those routes are never
more open than that; the application's lifespan begins before the first connection and ends after the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Coroutine
from typing import Any

import uvicorn
from msgspec import structs

from ...errors import ConfigurationError
from ...http.routes import CHANNELS
from ...http.service import Rules
from ...policy.authority import is_loopback
from ...policy.identity import Identity
from ...policy.origin import Origins
from ...server.app import App
from ...server.config.contradictions import OPEN_CURE, check_together
from ...server.connection import Connection
from ...server.guest import AroundGuest
from ...server.settings import DEFAULT_BROKER, MEMORY, AuthSettings, Settings, may_be_reached
from ...server.tasks import Tasks
from ...server.wheel import RESOLUTION
from ..review import PublishReview
from ..scopes import AsgiSend, Receive, Scope
from ..serving import serve_scope
from ..wrapping import AsgiApp
from .application import find_cast, load_application
from .gate import NativeGate
from .life import HostedLife
from .native import Lendable, LoggedSharedConnection, SharedConnection
from .outside import Outside
from .split import Split
from .uvicorn_side import AppProtocol

__all__ = ["AppGuest"]

logger = logging.getLogger("oncecast.server")

TASK_SECONDS = 5  # for requests of the application whose clients have gone, before they are cancelled
STOP_SECONDS = 30.0  # for the application's shutdown
SAME = {  # what the server and the Oncecast may each say; where both do, they say the same
    "broker": (DEFAULT_BROKER, MEMORY),
    "channels": ({},),
    "auth": (AuthSettings(),),
    "origins": ((),),
    "hosts": ((),),
}


class AppGuest:
    """The application of `MODULE:NAME`. Raises `ConfigurationError` where there is none."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._app = load_application(target)
        self._cast = find_cast()
        self._own = Settings() if self._cast is None else self._cast.settings
        self._rules: Rules | None = None
        self._life: HostedLife | None = None
        self._review: PublishReview | None = None
        self._gate: NativeGate | None = None
        self._uvicorn: uvicorn.Server | None = None
        self._tasks: Tasks | None = None
        self._limits = Settings().limits
        self._pass_on = self._app
        self._answer: AsgiApp = self._own_answer
        self.split = Split(())

    # -- the guest of a server

    def adapt(self, settings: Settings) -> Settings:
        """Return the server's settings with what the `Oncecast` says itself. Raises `ConfigurationError`."""
        changed = {}
        for name, defaults in SAME.items():
            mine, own = getattr(settings, name), getattr(self._own, name)
            if own == mine or own in defaults:
                continue
            if mine not in defaults:
                text = (
                    f"the application's Oncecast and the server have different settings ({name}): give it in one place"
                )
                raise ConfigurationError(text)
            changed[name] = own
        if changed:
            settings = structs.replace(settings, **changed)
            check_together(settings, defaultdict(lambda: "the application's Oncecast"))
        self._limits = settings.limits
        if self._cast is not None:
            self._cast.embed(settings, self._current)
        return settings

    def rules(self, rules: Rules, settings: Settings) -> Rules:
        """Return the rules with those of the `Oncecast`; `dev` of the server opens nothing of these."""
        cast = self._cast
        if cast is None:
            return rules
        if self._review is None and cast.checks:
            quotas = rules.settings.quotas  # the same as long as the server runs
            assert quotas is not None
            self._review = PublishReview(
                cast.checks, cast.handler_seconds, lambda: self._limits.message_bytes, quotas.publisher
            )
        access = cast.rules_of(structs.replace(settings, dev=self._own.dev))
        return Rules(
            settings=structs.replace(rules.settings, access=access, review=self._review),
            hosts=rules.hosts,
            origins=Origins(frozenset(settings.origins), loopback=settings.dev and self._own.dev),
            authenticator=rules.authenticator,
            cookie=rules.cookie,
            asked=cast.authorizer is not None,
            open=rules.open and self._own.dev,
        )

    def adopted(self, rules: Rules) -> None:
        """Hold requests over ASGI to the same rules."""
        self._rules = rules
        if self._life is not None:
            self._life.adopt(rules)
            changes = self._life.logging or self._life.settings.trusted_proxies
            self._pass_on = Outside(self._app, self._life).serve if changes else self._app
            self._answer = Outside(self._own_answer, self._life).serve if changes else self._own_answer

    def connection(self, app: App, descriptor: int | None, identity: Identity) -> Connection:
        """Return what serves an accepted socket, until a request of the application comes."""
        kind = LoggedSharedConnection if app.logs is not None and app.logs.accesses else SharedConnection
        return kind(app, descriptor, identity, self)

    async def start(self, server: AroundGuest) -> None:
        """Start the application. Raises `ConfigurationError`."""
        self._check_open(server)
        life = self._life = HostedLife(server)
        self.split = Split(server.app.pages)
        assert self._rules is not None
        self.adopted(self._rules)
        cast = self._cast
        if cast is not None and cast.authorizer is not None:
            self._gate = NativeGate(cast.authorizer, cast.handler_seconds)
            server.app.handle = self._gate.handle
        bulletin = server.app.bulletin
        if bulletin is not None:
            native = bulletin.disconnect

            def disconnect(subject: str) -> None:
                native(subject)
                life.app.disconnect(subject)

            bulletin.disconnect = disconnect
        self._uvicorn = await self._start_uvicorn(server.settings)
        self._tasks = Tasks(server.node.fail)
        self._tasks.start("uvicorn's clock", self._uvicorn.main_loop())
        self._tasks.start("the deadlines of what is asked over ASGI", self._tick(life))

    def leave(self) -> None:
        """Let streams over ASGI end."""
        if self._life is not None:
            self._life.drain()

    async def stop(self) -> None:
        """Stop the application."""
        running, self._uvicorn = self._uvicorn, None
        if running is not None:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await running.shutdown(sockets=[])
            except TimeoutError:
                logger.error("the application did not shut down within %g s: it is left", STOP_SECONDS)
            except Exception:
                logger.exception("the application's shutdown failed")
        if self._gate is not None:
            await self._gate.stop()
        if self._review is not None:
            await self._review.stop()
        if self._life is not None:
            await self._life.end()
        if self._tasks is not None:
            await self._tasks.stop()

    # -- the sharing of connections

    def borrow(self, connection: Lendable, transport: asyncio.Transport, data: bytes) -> AppProtocol:
        """Give a transport to uvicorn, with what has come of a request."""
        running = self._uvicorn
        assert running is not None
        protocol = AppProtocol(connection, self.split, running.config, running.server_state, running.lifespan.state)
        protocol.connection_made(transport)
        transport.pause_reading()  # uvloop reads in another way for this kind of protocol
        transport.set_protocol(protocol)
        transport.resume_reading()
        protocol.data_received(data)
        return protocol

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what the application is asked in a task."""
        assert self._gate is not None
        self._gate.run(work)

    # -- helpers

    def _current(self) -> HostedLife | None:
        return self._life

    def _check_open(self, server: AroundGuest) -> None:
        """Refuse to open a server without access rules to other machines, as the settings' check does."""
        settings = structs.replace(server.settings, app=None)
        if self._cast is not None or may_be_reached(settings):
            return
        for address in server.addresses:
            if not is_loopback(address):
                raise ConfigurationError(
                    f"listening on {address} lets anyone publish who can reach it, as there are no access rules and "
                    f"the application has no Oncecast: {OPEN_CURE}"
                )

    def _serve(self, scope: Scope, receive: Receive, send: AsgiSend) -> Awaitable[None]:
        """Answer a scope: what is the server's comes here where it was not seen by how it began."""
        path: str = scope.get("path", "")  # a lifespan has none
        if path in self.split.exact or path.startswith(CHANNELS):
            return self._answer(scope, receive, send)
        return self._pass_on(scope, receive, send)

    def _own_answer(self, scope: Scope, receive: Receive, send: AsgiSend) -> Awaitable[None]:
        assert self._life is not None
        cast = self._cast
        authorize, seconds = (None, 0.0) if cast is None else (cast.authorizer, cast.handler_seconds)
        return serve_scope(self._life, scope, receive, send, authorize, seconds)

    async def _start_uvicorn(self, settings: Settings) -> uvicorn.Server:
        config = uvicorn.Config(
            self._serve,
            http="httptools",
            interface="asgi3",
            lifespan="auto",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=math.ceil(settings.limits.keep_alive_seconds),
            timeout_graceful_shutdown=TASK_SECONDS,
        )
        config.load()
        running = uvicorn.Server(config)
        running.lifespan = config.lifespan_class(config)
        failed = f"--app {self._target}: the application's start has failed, as the lines above say"
        try:
            await running.startup(sockets=[])
        except SystemExit:  # what uvicorn raises
            raise ConfigurationError(failed) from None
        try:
            if find_cast() is not self._cast:
                text = "the application has made its Oncecast as it started: make it where the module is imported"
                raise ConfigurationError(text)
        except ConfigurationError:
            with contextlib.suppress(Exception):
                await running.shutdown(sockets=[])
            raise
        return running

    async def _tick(self, life: HostedLife) -> None:
        while True:
            await asyncio.sleep(RESOLUTION)
            life.look()
