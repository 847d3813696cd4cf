"""Notices at the signal that the server around the application is to stop.

Servers end the app's lifespan last, and wait for open connections before that: uvicorn for ever, if it has no
`timeout_graceful_shutdown`. A stream that nobody ends would hold it up. ASGI does not say that a server stops, so its
handlers of SIGTERM and SIGINT are called by ours. uvicorn's are `signal.signal`'s. Those of an event loop, as hypercorn
and granian have them, are called by the loop in any case, which hears of signals by a file descriptor (signal(2) tells
Python, and Python writes to it before it calls any handler).

The workers of hypercorn's command get no signal: their master sets an event, on which a task of theirs waits. That task
is found by its name. Where a later hypercorn calls it otherwise, its `graceful_timeout` (3 s) ends the streams.

Invariant: a handler that was there is called as before. Where there was none (the process ends at the signal), or
outside of the main thread, nothing is changed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["StopSignals", "watch_hypercorn"]

NUMBERS = (signal.SIGTERM, signal.SIGINT)


def watch_hypercorn(stop: Callable[[], object]) -> None:
    """Call `stop` once hypercorn begins to shut down, if that serves on the running loop. Call it in a request."""
    if "hypercorn" not in sys.modules:
        return
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == "raise_shutdown":
            task.add_done_callback(lambda _: stop())


class StopSignals:
    """Calls `stop` in the main thread, between any two of its steps, when the process is to stop."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._handler = self._received  # one object, to be compared

    def listen(self) -> None:
        """Begin, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in NUMBERS:
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._handler)

    def ignore(self) -> None:
        """End. A handler that has been set since stays; it may call this one's, which calls the one before as ever."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, before in self._before.items():
            if signal.getsignal(number) is self._handler:
                signal.signal(number, before)

    @property
    def asked(self) -> bool:
        """Whether the server that was there stops without a signal, as uvicorn does at its `limit_max_requests`."""
        owners = (getattr(before, "__self__", None) for before in self._before.values())
        return any(getattr(owner, "should_exit", False) is True for owner in owners)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._stop()
        before = self._before.get(number)
        if before is not None:
            before(number, frame)
