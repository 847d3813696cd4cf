"""The contract of an application that is served beside the realtime routes, on the same port and by the same loop.

A `Guest` answers the requests that are not the server's. Invariant: it starts before the first connection is accepted,
with a node that serves, and stops after the last connection has gone, with the same node. The one implementation is
`asgi/hosting/`; this room knows nothing of ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..core.node import Node
from ..http.service import Rules
from ..policy.identity import Identity
from ..policy.quotas import Quotas
from .app import App
from .connection import Connection
from .settings import Settings

__all__ = ["AroundGuest", "Guest", "Hosting"]


class AroundGuest(Protocol):
    """The server, as its guest sees it; `addresses` are those that it listens on."""

    settings: Settings
    node: Node
    app: App
    quotas: Quotas
    loop: asyncio.AbstractEventLoop

    @property
    def addresses(self) -> list[str]: ...  # noqa: D102 - see above


class Guest(Protocol):
    """An application beside the server."""

    def adapt(self, settings: Settings) -> Settings:
        """Return the server's settings with what the application says itself. Raises `ConfigurationError`."""
        ...

    def rules(self, rules: Rules, settings: Settings) -> Rules:
        """Return the rules that hold for the server's own routes: never more open than the application's."""
        ...

    def adopted(self, rules: Rules) -> None:
        """The server's routes are held to these rules from now on."""
        ...

    def connection(self, app: App, descriptor: int | None, identity: Identity) -> Connection:
        """Return what serves an accepted socket."""
        ...

    async def start(self, server: AroundGuest) -> None:
        """Start the application. Raises `ConfigurationError` where it does not start; then nothing is left of it."""
        ...

    def leave(self) -> None:
        """Begin to stop: what the application streams ends."""
        ...

    async def stop(self) -> None:
        """Stop the application. Ends, whatever that does, and does not raise."""
        ...


@dataclass(frozen=True, slots=True)
class Hosting:
    """How processes come to their guest: `load` makes that of this process, `worker` is the program of a worker's.

    `load` raises `ConfigurationError` where there is no such application.
    """

    load: Callable[[str], Guest]
    worker: str
