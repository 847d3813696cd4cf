"""Tasks that run for as long as their owner does, and whose end is noticed.

A task whose exception nobody awaits dies in silence: deadlines no longer pass, or a worker is no longer watched. Every
lasting task of the server is started here.

Invariant: where a task ends before `stop`, by an exception, by being cancelled or (unless it `may_end`) by returning,
the log says so and `fail` is called once for it. After `stop` none runs, or the log names it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial

__all__ = ["Tasks"]

logger = logging.getLogger("oncecast.server")

STOP_SECONDS = 5.0  # for a task to end that has been cancelled


class Tasks:
    """The tasks of one owner, on the running loop. `fail` takes the reason, one line, and must not raise."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """Return the tasks that have not ended."""
        return frozenset(self._tasks)

    def start(self, name: str, work: Coroutine[object, object, None], *, may_end: bool = False) -> asyncio.Task[None]:
        """Start a task. `name` says in the log what it does."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, may_end))
        return task

    async def stop(self) -> None:
        """Cancel every task, and wait until they have ended, for at most `STOP_SECONDS`."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in stuck:
                logger.error("the task %s does not end", task.get_name())

    def _ended(self, may_end: bool, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        name = task.get_name()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("the task %s failed", name, exc_info=error)
        elif self._stopping or (may_end and not task.cancelled()):
            return
        if not self._stopping:
            what = "ended" if error is None else f"failed ({type(error).__name__}: {error})"
            self._fail(f"a task of the server has {what}: {name}")
