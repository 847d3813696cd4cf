"""The running part of an `Oncecast`: one node on one event loop, and the one task that owns it.

Invariant: when the task ends, however it does, the streams end and the node is stopped. So a loop that cancels its
tasks at its end, as `asyncio.run` does, stops the node in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from msgspec import structs

from ..http.bulletin import Bulletin
from ..http.service import Rules
from ..policy.access import Access
from ..server.app import UNLIMITED
from ..server.brokers import build_broker
from ..server.build import build_app, build_node, build_policy, build_quotas, build_rules
from ..server.capacity import Capacity
from ..server.jwks import RemoteKeys
from ..server.overview import join_the_roll
from ..server.settings import Settings, revocation_seconds
from ..server.tasks import Tasks
from ..server.tracing import SpanTracing
from ..server.wheel import RESOLUTION
from .life import CUT_SECONDS, AppLife
from .logs import AppLogs
from .review import Check, PublishReview
from .stopping import StopSignals
from .surroundings import Surroundings

__all__ = ["Running"]

logger = logging.getLogger("oncecast.asgi")

SECOND = 1.0
LEAVE_SECONDS = 3.0  # in which streams end, before the node stops


class Running(AppLife):
    """One life: `start` it once, on the loop that it is for. `app` is what the requests are answered from."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        checks: Sequence[tuple[str, Check]],
        handler_seconds: float,
        *,
        signals: bool,
        surroundings: Surroundings | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._access = access
        policy = build_policy(lambda: settings)
        monotonic = loop.time if surroundings is None else surroundings.monotonic
        build = build_broker if surroundings is None else surroundings.build_broker
        broker = build(settings, lambda channel: policy(channel).retention)
        node = build_node(
            structs.replace(settings, tls_cert=()),
            broker,
            policy,
            monotonic=monotonic,
            schedule=loop.call_soon,
            tracing=SpanTracing() if settings.tracing else None,
        )
        app = build_app(settings, node, monotonic=monotonic, schedule=loop.call_soon)
        super().__init__(settings, node, app, build_quotas(settings), monotonic)
        self.node.on_failure = self._failed
        self._review: PublishReview | None = None
        if checks:
            self._review = PublishReview(
                checks, handler_seconds, lambda: settings.limits.message_bytes, self._quotas.publisher
            )
        if surroundings is not None:
            self.app.wall = surroundings.wall
        limits = settings.limits
        self.app.admission.capacity = Capacity(limits.connections or UNLIMITED.ceiling, UNLIMITED.ceiling)
        self.app.admission.room = self._quotas.room
        self.app.logs = AppLogs(monotonic)
        self.app.bulletin = Bulletin(
            self.node,
            self.app.wall,
            self.monotonic,
            os.urandom,
            self.app.disconnect,
            logger.warning,
            revocation_seconds(settings.auth),
        )
        join_the_roll(self.app, f", application {os.getpgrp()}")
        self._issuer = RemoteKeys(self._adopt)
        self._issuer.use(settings.auth)
        self._tasks = Tasks(self.node.fail)
        self._signals = StopSignals(self._signalled) if signals else None
        self._adopt()
        self._owner: asyncio.Task[None] | None = None
        self._trimmed = self.monotonic()

    @property
    def usable(self) -> bool:
        """Whether it runs, in this process and on a loop that goes on."""
        return (
            self.pid == os.getpid() and not self.loop.is_closed() and self._owner is not None and not self._owner.done()
        )

    async def start(self) -> None:
        """Start the node. Raises `ConfigurationError` where it can't be; then nothing is left open."""
        started: asyncio.Future[None] = self.loop.create_future()
        self._owner = self.loop.create_task(self._own(started), name="oncecast")
        try:
            await started
        except asyncio.CancelledError:  # nobody would stop it
            self._owner.cancel()
            await asyncio.wait({self._owner})
            raise

    async def stop(self) -> None:
        """End the streams, then the node."""
        owner = self._owner
        if owner is None or owner.done():
            return
        self.leave()
        await self.app.wait_until_empty(LEAVE_SECONDS)
        owner.cancel()
        await asyncio.wait({owner})

    def leave(self) -> None:
        """Tell the streams that this process stops; their clients connect again, to another."""
        if self.app.leaving is None:
            self.app.leave(self._settings.limits.drain_per_second)

    # -- helpers

    def _adopt(self) -> None:
        noted = self.app.refusals.note
        limits_and_more = build_rules(self._settings, ("0.0.0.0",), self._quotas, self._issuer.keys, noted)  # noqa: S104
        rules = Rules(
            settings=structs.replace(limits_and_more.settings, access=self._access, review=self._review, deflate=False),
            hosts=limits_and_more.hosts,
            origins=limits_and_more.origins,
            authenticator=limits_and_more.authenticator,
            cookie=limits_and_more.cookie,
            asked=True,  # `gate.py` finds the identity before the routes answer
        )
        self.app.adopt(rules)
        if self.app.authenticator is not None:
            self.app.authenticator.on_unknown_key = self._issuer.hurry

    def _signalled(self) -> None:
        if self.usable:  # a child of a fork has inherited the handler, and a loop may have been left without an end
            self.loop.call_soon_threadsafe(self.leave)

    def _failed(self, reason: str) -> None:
        logger.critical("realtime has failed in this process (%s): restart it; its streams are sent away", reason)
        self.leave()

    async def _own(self, started: asyncio.Future[None]) -> None:
        try:
            await self.node.start()
            owner = asyncio.current_task()
            if owner is not None and owner.cancelling():  # a wait that ended in the same turn has lost that
                raise asyncio.CancelledError
            if self._signals is not None:
                self._signals.listen()
        except BaseException as error:
            await self.node.stop()
            if not started.done():
                started.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        try:
            if self._settings.auth.jwks_url is not None:
                self._tasks.start("fetching the issuer's keys", self._issuer.run())
            if not started.done():
                started.set_result(None)
            await self._tick()
        except Exception as error:
            logger.exception("the task that drives deadlines has failed")
            self.node.fail(f"the task that drives deadlines has failed: {error!r}")
        finally:
            await self._end()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(RESOLUTION)
            self.look()

    def look(self) -> None:
        """Do what is due: wake connections at their deadlines, and trim the log about once a second."""
        self.app.tick()
        now = self.monotonic()
        if now - self._trimmed >= SECOND:
            self._trimmed = now
            self.node.tick()
            if self._signals is not None and self._signals.asked:
                self.leave()
            if self.app.bulletin is not None and self._uses_bulletin:
                self.app.bulletin.tick()

    @property
    def _uses_bulletin(self) -> bool:
        """Whether nodes tell each other something, or anybody can be a user of this app, and so be disconnected."""
        return self.app.confers or self.names_users

    names_users = False  # whether the application identifies callers

    async def _end(self) -> None:
        if self._signals is not None:
            self._signals.ignore()
        self.leave()
        for connection in list(self.app.connections):
            connection.drain()
        self.end_listeners()
        if self._review is not None:
            await self._review.stop()
        await self.app.wait_until_empty(CUT_SECONDS)
        for connection in list(self.app.connections):
            connection.abort()
        await self._tasks.stop()
        await self.node.stop()
