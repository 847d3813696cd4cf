"""What every process of a server does alike: its event loop, its end, and its notifications to systemd's watchdog."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..server import Server
from .systemd import Notifier

__all__ = ["drain", "keep_alive", "run_loop", "tune_interpreter"]

T = TypeVar("T")

SWITCH_SECONDS = 0.0005  # a tenth of CPython's default
GC_OBJECTS = 20_000  # new ones, net of those freed, before the collector looks at them


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the fastest loop there is."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: the same, slower
        return asyncio.run(main)
    return uvloop.run(main)


def tune_interpreter() -> None:
    """Tune the garbage collector and the interpreter's thread switching, once everything is built.

    Objects that exist now are never collected again. Those that come and go with each message can't be part of a cycle,
    so looking for cycles as often as the defaults do would cost a tenth of a publish, and more the longer the log is.

    A thread that reads the history holds the interpreter for up to a switch interval while live messages wait.
    """
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)


async def drain(server: Server, cut_off: asyncio.Event, on_left: Callable[[], None] = lambda: None) -> int:
    """Stop a server within its time for draining; the event cuts that short. Returns the process's exit status.

    `on_left` is called once the server accepts no connections any more.
    """
    drained = asyncio.create_task(server.stop(server.settings.limits.drain_seconds))
    await asyncio.sleep(0)  # the server closes its listening sockets before it waits for anything
    on_left()
    again = asyncio.create_task(cut_off.wait())
    await asyncio.wait({drained, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not drained.done():
        server.cut_off()
    await drained
    return 1 if server.node.failed else 0


async def keep_alive(notifier: Notifier) -> None:
    """Notify systemd's watchdog that the loop turns, twice as often as it asks for. Ends where there is none."""
    while notifier.watchdog:
        notifier.alive()
        await asyncio.sleep(notifier.watchdog / 2)
