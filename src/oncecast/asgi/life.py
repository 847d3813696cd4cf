"""What an `Oncecast` needs of a node on one event loop, whoever started that node.

`running.py` has the life that owns its node, `hosting/life.py` the one that has the node of a server around. Invariant:
what is called here is called on `loop`, unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

from ..brokers.base import STOPPING
from ..client.feed import Feed
from ..core.answers import settle
from ..core.node import Node
from ..errors import Refusal
from ..message import Draft, Receipt, Start
from ..policy.authority import is_loopback
from ..policy.hosts import Hosts
from ..policy.quotas import Quotas
from ..server.app import App
from ..server.settings import Settings
from .listener import OwnListener, as_failure
from .stopping import watch_hypercorn

__all__ = ["CUT_SECONDS", "AppLife"]

CUT_SECONDS = 0.5  # for the tasks of streams to send the last event


class AppLife(ABC):
    """A node on a loop. `app` is what requests over ASGI are answered from."""

    def __init__(
        self, settings: Settings, node: Node, app: App, quotas: Quotas, monotonic: Callable[[], float]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered = 0  # how often `async with` has entered it and not left
        self.pid = os.getpid()
        self.node = node
        self.app = app
        self.monotonic = monotonic
        self.listeners: set[OwnListener] = set()  # the application's own
        self._settings = settings
        self._quotas = quotas
        self._met = False

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Whether it runs, in this process and on a loop that goes on. From any thread."""

    @abstractmethod
    async def stop(self) -> None:
        """End what the application has begun with it."""

    @abstractmethod
    def leave(self) -> None:
        """Tell the streams that this process stops; their clients connect again, to another."""

    def look(self) -> None:
        """Do what is due."""
        self.app.tick()

    def publish(self, draft: Draft) -> asyncio.Future[Receipt | Refusal]:
        """Publish one message; the future has the outcome."""
        found: asyncio.Future[Receipt | Refusal] = self.loop.create_future()
        self.node.publish((draft,), lambda outcomes: settle(found, outcomes[0]))
        return found

    def listen(self, feed: Feed) -> None:
        """Fill a feed of the application."""
        listener = OwnListener(self.node, feed, self.listeners.discard)
        self.listeners.add(listener)
        listener.start()

    def end_listeners(self) -> None:
        """End the application's own subscriptions."""
        for listener in list(self.listeners):
            listener.end(as_failure(STOPPING))

    async def resolve_start(self, channels: tuple[str, ...], start: Start) -> Start:
        """Return a start that means the same later, see `Node.resolve_start`. Raises `Refusal`."""
        found: asyncio.Future[Start | Refusal] = self.loop.create_future()
        self.node.resolve_start(channels, start, partial(settle, found))
        resolved = await found
        if isinstance(resolved, Refusal):
            raise resolved
        return resolved

    def meet(self) -> None:
        """Find out once, at the first request, which server runs this."""
        if not self._met:
            self._met = True
            watch_hypercorn(self.leave)

    def address(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of the client whose request came from this peer, which may be a trusted proxy."""
        return self._quotas.client(peer, headers) if peer and self._quotas.is_proxy(peer) else peer

    def check_host(self, host: str | None, server: str) -> None:
        """Raise `Refusal` for a host that is not allowed: see `policy/hosts.py`. `server` is the address of the socket.

        A socket at loopback serves loopback names only, unless `hosts` names others.
        """
        settings = self._settings
        if not settings.hosts and not settings.dev and server and is_loopback(server):
            _LOOPBACK.check(host)


_LOOPBACK = Hosts((), ("127.0.0.1",))
