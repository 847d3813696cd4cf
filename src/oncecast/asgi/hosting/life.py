"""The life of an `Oncecast` on the node of the server around: it publishes and listens there, and owns none of it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...http.service import Rules
from ...server.build import build_app
from ...server.guest import AroundGuest
from ...server.logs.line import Value
from ...server.settings import Settings
from ..life import CUT_SECONDS, AppLife

__all__ = ["HostedLife"]


class HostedLife(AppLife):
    """One for each server. Requests that reach the realtime routes over ASGI are answered from its `app`."""

    def __init__(self, server: AroundGuest) -> None:
        monotonic, schedule = server.app.monotonic, server.loop.call_soon
        app = build_app(server.settings, server.node, monotonic=monotonic, schedule=schedule)
        app.bulletin = server.app.bulletin
        app.counters = server.app.counters
        app.wall = server.app.wall
        app.refusals = server.app.refusals
        app.listeners = server.app.listeners
        app.broker = server.app.broker
        super().__init__(server.settings, server.node, app, server.quotas, monotonic)
        self._server = server
        self._ended = False

    @property
    def usable(self) -> bool:
        """Whether the server runs, in this process."""
        return self.pid == os.getpid() and not self._ended and not self.loop.is_closed()

    def adopt(self, rules: Rules) -> None:
        """Hold what comes over ASGI to these rules, and to the settings that they are of."""
        self._settings = self._server.settings
        self.app.collect = self._server.app.collect
        self.app.overview = self._server.app.overview
        self.app.adopt(rules)

    @property
    def settings(self) -> Settings:
        """The server's settings."""
        return self._settings

    @property
    def logging(self) -> bool:
        """Whether requests are logged."""
        logs = self.app.logs
        return logs is not None and logs.accesses

    def log(self, fields: Mapping[str, Value]) -> None:
        """Log a request of the application's that has ended."""
        if self.app.logs is not None:
            self.app.logs.access(fields)

    def trusts(self, peer: str) -> bool:
        """Return whether an address is a trusted proxy's."""
        return self._quotas.is_proxy(peer)

    async def stop(self) -> None:
        """End the application's own subscriptions; the server goes on."""
        self.end_listeners()

    def leave(self) -> None:
        """Do nothing: the server says when it stops."""

    def drain(self) -> None:
        """Tell the streams over ASGI that the server stops."""
        self.app.leave(self._settings.limits.drain_per_second)

    async def end(self) -> None:
        """End everything."""
        self.drain()
        self._ended = True
        self.end_listeners()
        await self.app.wait_until_empty(CUT_SECONDS)
        for connection in list(self.app.connections):
            connection.abort()
