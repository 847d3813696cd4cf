"""Drivers: they run a broker for a check, without or with an event loop.

`run_now` runs a coroutine that never suspends, such as those of the memory broker. A `Driver` runs the coroutines of a
broker and waits for its callbacks: `AtOnce` is for brokers that need no loop, `LoopDriver` for the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from ..errors import UsageError

__all__ = ["AtOnce", "Driver", "LoopDriver", "run_now"]

T = TypeVar("T")

SECONDS = 20.0  # of a wait, then the check fails
STEP_SECONDS = 0.001


class Driver(Protocol):
    """Runs a broker for a check."""

    def run(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        """Run a coroutine to its end and return its result."""
        ...

    def wait(self, condition: Callable[[], bool], /) -> None:
        """Return once the condition holds, or after a deadline."""
        ...


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without a loop. Raises `UsageError` if it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise UsageError("This coroutine suspends: run it on an event loop.")


class AtOnce:
    """For a broker whose coroutines never suspend. `turn` runs what is due, and returns how many calls that was."""

    def __init__(self, turn: Callable[[], int] = lambda: 0) -> None:
        self._turn = turn

    def run(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        """Do as `run_now`."""
        return run_now(coroutine)

    def wait(self, condition: Callable[[], bool], /) -> None:
        """Run what is due until the condition holds or nothing is due."""
        while not condition() and self._turn():
            pass


class LoopDriver:
    """For a broker on an event loop of its own, which `close` closes. Each wait lasts at most `seconds`."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.loop = asyncio.new_event_loop()
        self._seconds = seconds

    def run(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        """Run a coroutine. Raises `TimeoutError` at the deadline."""
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, self._seconds))

    def wait(self, condition: Callable[[], bool], /) -> None:
        """Run the loop until the condition holds, or until the deadline."""
        self.loop.run_until_complete(self._wait(condition))

    def close(self) -> None:
        """Close the loop."""
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + self._seconds
        await asyncio.sleep(0)
        while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(STEP_SECONDS)
