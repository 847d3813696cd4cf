"""The thread of a blocking client, its event loop, and the `AsyncClient` that lives on it.

Invariants: no call waits for a thread that has ended; start and stop have deadlines; a forked child has no engine.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..errors import UsageError
from .async_client import AsyncClient
from .failures import CLOSED, Broken, ClientFailed

__all__ = ["WAIT_SECONDS", "Engine"]

logger = logging.getLogger("oncecast.client")

T = TypeVar("T")

START_SECONDS = 10.0  # for a thread and its loop to start; they need some milliseconds
STOP_SECONDS = 10.0  # for the connections to be closed, each within two seconds, and all at once
# CPython does not interrupt a wait for a signal that came just before it, or to another thread; so waits are cut.
WAIT_SECONDS = 0.5


class Engine:
    """A running thread. Raises `ClientFailed` where it does not start."""

    def __init__(self, client: AsyncClient, *, start_seconds: float = START_SECONDS) -> None:
        self.client = client
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="oncecast-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise ClientFailed(f"the client's thread can't be started: {error}") from error
        if not self._started.wait(start_seconds):
            self._abandoned = True
            raise ClientFailed(f"the client's thread has not started within {start_seconds:g} s")
        if self._loop is None:
            raise ClientFailed(f"the client's event loop can't be started: {self._error!r}") from self._error

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that the thread runs in."""
        return self._pid != os.getpid()

    @property
    def usable(self) -> bool:
        """Whether the thread runs, in this process."""
        return not self.forked and self._thread.is_alive()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop. Raises `Broken` where that is closed; `UsageError` from a callback on it."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("a callback can't call the client that called it: hand the work to another thread")
        if not self.usable or self._loop is None:
            coroutine.close()
            raise Broken(CLOSED)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise Broken(CLOSED) from None

    def call(self, coroutine: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result; Ctrl-C cancels it.

        Raises `Broken` where the loop is closed, `TimeoutError` past `timeout` seconds.
        """
        future = self.submit(coroutine)
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                left = WAIT_SECONDS if until is None else min(WAIT_SECONDS, max(0.0, until - time.monotonic()))
                done, _ = concurrent.futures.wait((future,), left)
                if done:
                    return future.result()
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError
                if not self.usable:
                    raise Broken(CLOSED)
        except concurrent.futures.CancelledError:
            raise Broken(CLOSED) from None
        finally:
            future.cancel()  # which does nothing to one that is done

    def stop(self) -> None:
        """Close the client and end the thread. A forked child's copy is only forgotten."""
        if not self.usable or self._loop is None or self._stop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: the thread is about to end
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                logger.warning(
                    "the client's thread has not ended within %g s: a callback of the application holds it",
                    STOP_SECONDS,
                )

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # a thread's end: it is reported to the caller that waits, and logged
            self._error = error
            logger.exception("the client's thread has failed")
        finally:
            self._started.set()

    async def _main(self) -> None:
        if self._abandoned:
            return
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._stop.wait()
        await self.client.close()
