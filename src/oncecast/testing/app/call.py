"""One call of an ASGI application, in a task of its own, for a peer that is a test.

Invariant: after `close` the task has ended, and what the application has raised was raised to the test, once. What a
kind of call says is in its subclass: `conversation.py` has requests, `socket.py` WebSockets.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from ...errors import UsageError

__all__ = ["ANSWER_SECONDS", "UNREAD", "AsgiApplication", "AsgiCall", "ScopeDict"]

logger = logging.getLogger("oncecast.testing")

UNREAD = 16  # pieces of an answer, or messages; then the application's send waits, as for a slow peer
END_SECONDS = 2.0  # for an application to end after its peer has gone; then it is cancelled
ANSWER_SECONDS = 10.0  # for the application to answer, or to send what is next

# What ASGI says that an application is; the frameworks spell these types in their own ways.
AsgiApplication: TypeAlias = Callable[..., Awaitable[Any]]
ScopeDict: TypeAlias = MutableMapping[str, Any]


class AsgiCall(ABC):
    """A call on a scope. It is opened once, and `close`d in any case."""

    def __init__(self, app: AsgiApplication, scope: ScopeDict) -> None:
        self.status = 0  # of the answer, 0 before it has begun
        self.headers: list[tuple[bytes, bytes]] = []
        self._app = app
        self._scope = scope
        self._changed = asyncio.Event()  # the answer has begun, something has come, or the end
        self._room = asyncio.Event()
        self._gone = asyncio.Event()
        self._raised = False
        self._task: asyncio.Task[None] | None = None

    # -- the two functions of ASGI

    @abstractmethod
    async def _receive(self) -> ScopeDict:
        """Return the next event of the peer."""

    @abstractmethod
    async def _send(self, event: ScopeDict) -> None:
        """Take an event of the application."""

    # -- for the kinds

    async def _begin(self, seconds: float | None) -> None:
        """Call the application, and return once its answer has begun. Raises what it raises until then."""
        if self._task is not None:
            raise UsageError("A conversation is opened once: make one for each request.")
        task = asyncio.get_running_loop().create_task(self._run(), name="oncecast.testing: an ASGI application")
        task.add_done_callback(lambda _: self._changed.set())
        self._task = task
        try:
            async with asyncio.timeout(seconds):
                while not self.status and not task.done():
                    await self._change()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"the application did not begin its answer within {seconds:g} s") from None
            raise
        if not self.status:
            self._raise()
            raise UsageError("The application has returned without an answer.")

    async def close(self) -> None:
        """Disconnect, and wait until the application has ended. Raises what it raises meanwhile."""
        self._gone.set()
        self._room.set()
        task = self._task
        if task is None:
            return
        if not task.done():
            await asyncio.wait({task}, timeout=END_SECONDS)
        if not task.done():
            logger.warning("an application did not end %g s after its peer had gone: it is cancelled", END_SECONDS)
            task.cancel()
            await asyncio.wait({task})
        self._raise()

    @property
    def _returned(self) -> bool:
        return self._task is None or self._task.done()

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _wait_for_room(self, unread: Callable[[], int]) -> None:
        while unread() >= UNREAD and not self._gone.is_set():
            self._room.clear()
            await self._room.wait()

    def _raise(self) -> None:
        """Raise what the application has raised, once."""
        task = self._task
        if self._raised or task is None or not task.done() or task.cancelled():
            return
        self._raised = True
        if (error := task.exception()) is not None:
            raise error
