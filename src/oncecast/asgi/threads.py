"""An event loop in a thread, for programs that have none: WSGI applications, workers of a queue, scripts.

Invariant: it is of one process. After a fork the child has neither the thread nor the loop, and makes its own; it
does not close what it has inherited, as closing a parent's file or connection would disturb the parent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..client.failures import Unavailable
from .running import Running

__all__ = ["LoopThread", "run_on", "running_loop"]

logger = logging.getLogger("oncecast.asgi")

T = TypeVar("T")

STOP_SECONDS = 5.0
LATE = "the broker did not answer in time: it may have the message or not; publish again with the same key"


class LoopThread:
    """A thread that runs a life. It begins with the first `life`, and ends with `stop` or the process."""

    def __init__(self, make: Callable[[], Awaitable[Running]]) -> None:
        self.pid = os.getpid()
        self._make = make
        self._loop = asyncio.new_event_loop()
        self._life: Running | None = None
        self._starting = asyncio.Lock()
        self._thread = threading.Thread(target=self._run, name="oncecast", daemon=True)
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether it runs, in this process."""
        return self.pid == os.getpid() and self._thread.is_alive()

    @property
    def running(self) -> Running | None:
        """What runs in the thread, if it has begun."""
        return self._life

    def life(self, seconds: float) -> Running:
        """Return the running life. Raises what its start raises."""
        life = self._life
        return life if life is not None and life.usable else run_on(self._loop, self._start(), seconds)

    async def _start(self) -> Running:
        async with self._starting:  # several threads may ask at once
            if self._life is None or not self._life.usable:
                self._life = await self._make()
            return self._life

    def stop(self) -> None:
        """Stop the life and the thread."""
        if not self.usable:
            return
        try:
            if self._life is not None:
                run_on(self._loop, self._life.stop(), STOP_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, None where none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Run a coroutine on the loop of another thread, and return its result. Raises `Unavailable` past the deadline."""
    found = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return found.result(seconds)
    except TimeoutError:
        found.cancel()
        raise Unavailable(LATE, status=503) from None
