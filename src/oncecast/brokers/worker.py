"""The threads of a broker: the end of each is noticed, whatever its cause, and to wait for it never blocks the loop.

A thread that hangs in a system call cannot be ended. It is then left behind, as a daemon, and what it would have given
is undone when it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger("oncecast.brokers.worker")

T = TypeVar("T")


class Worker:
    """A thread that runs `run` once. `ended` is called on the loop's thread at its end, with what it raised or None."""

    def __init__(self, name: str, run: Callable[[], None], ended: Callable[[BaseException | None], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._run = run
        self._ended = ended
        self._over = asyncio.Event()
        self.thread = threading.Thread(target=self._main, name=f"oncecast-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    async def wait(self, seconds: float) -> bool:
        """Wait for its end, and return whether it came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), max(0.0, seconds))
        return self._over.is_set()

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            self._run()
        except BaseException as raised:
            logger.exception("the thread %s has failed", self.thread.name)
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._finish, error)

    def _finish(self, error: BaseException | None) -> None:
        self._over.set()
        self._ended(error)


async def run_in_thread(name: str, function: Callable[[], T], seconds: float, undo: Callable[[T], None]) -> T:
    """Run a function that may block in a thread of its own, and return what it returns.

    Raises what it raises, and `TimeoutError` where it does not return within `seconds`. What it returns after that, or
    after a cancellation, is given to `undo`, in its thread.
    """
    loop = asyncio.get_running_loop()
    given: asyncio.Future[T] = loop.create_future()

    def main() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(fail, error)
            return
        try:
            loop.call_soon_threadsafe(finish, result)
        except RuntimeError:
            undo(result)

    def finish(result: T) -> None:
        if given.done():  # the waiting task has given up
            _start(name, lambda: undo(result))
        else:
            given.set_result(result)

    def fail(error: BaseException) -> None:
        if not given.done():
            given.set_exception(error)

    _start(name, main)
    try:
        return await asyncio.wait_for(asyncio.shield(given), seconds)
    except BaseException:
        if not given.cancel() and not given.cancelled() and given.exception() is None:
            result = given.result()
            _start(name, lambda: undo(result))
        raise


def _start(name: str, run: Callable[[], None]) -> None:
    threading.Thread(target=run, name=f"oncecast-{name}", daemon=True).start()
