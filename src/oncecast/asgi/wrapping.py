"""The lifespan of ASGI, and an application beside the realtime routes in one ASGI application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from .scopes import AsgiSend, Event, Receive, Scope

__all__ = ["AsgiApp", "Beside", "live"]

logger = logging.getLogger("oncecast.asgi")

AsgiApp = Callable[[Scope, Receive, AsgiSend], Awaitable[None]]


async def live(
    receive: Receive, send: AsgiSend, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> None:
    """Answer the events of a lifespan."""
    while True:
        event = await receive()
        name = event["type"].removeprefix("lifespan.")
        try:
            await (start if name == "startup" else stop)()
        except Exception as error:
            logger.exception("the %s failed", name)
            await send({"type": f"lifespan.{name}.failed", "message": str(error)})
            return
        await send({"type": f"lifespan.{name}.complete"})
        if name == "shutdown":
            return


class Beside:
    """An ASGI application that answers below `path` by `realtime`, and everything else by `app`.

    The lifespan is that of both; an `app` without one, as Django's, does not keep it from this one.
    """

    def __init__(
        self,
        app: AsgiApp,
        realtime: AsgiApp,
        path: str,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._realtime = realtime
        self._path = path
        self._start = start
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Answer a scope."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        root = scope.get("root_path", "").rstrip("/")
        path: str = scope["path"]
        below = path[len(root) :] if root and path.startswith(root + "/") else path
        if below == self._path or below.startswith(self._path + "/"):
            scope = {**scope, "root_path": root + self._path}
            await self._realtime(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        spoken = False
        failed = False

        async def watch() -> Event:
            nonlocal spoken, failed
            event = await receive()
            spoken = True
            if event["type"] == "lifespan.startup":
                try:
                    await self._start()
                except Exception as error:
                    failed = True
                    logger.exception("the startup failed")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return event

        async def answer(event: Event) -> None:
            if failed:  # it was answered
                return
            if event["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._stop()
            await send(event)

        try:
            await self._app(scope, watch, answer)
        except Exception:
            if failed:
                return
            if spoken:
                await self._stop()
                raise
            await live(receive, send, self._start, self._stop)
