"""What all workers have measured together, for the worker that is asked for `/metrics`.

Invariant: one collection runs at a time, and answers every worker that has asked by its end. What a worker measured
last is kept beyond its end, so that no counter goes backwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from ..measures import Crew, Measures, add, lasting
from ..tasks import Tasks
from .child import Child, WorkerState
from .control import Total

__all__ = ["Totals"]

logger = logging.getLogger("oncecast.server")


class Totals:
    """`children` returns the workers that live. A collection is a task of `tasks`."""

    def __init__(self, tasks: Tasks, children: Callable[[], Iterable[Child]]) -> None:
        self._tasks = tasks
        self._children = children
        self._collecting = False
        self._askers: list[Child] = []
        self._past = Measures()  # of workers that have ended
        self.restarts = 0

    def keep(self, child: Child) -> None:
        """Keep what a worker that has ended has measured."""
        self._past = add([self._past, lasting(child.measures)])

    def ask(self, child: Child) -> None:
        """Answer a worker with what all have measured."""
        self._askers.append(child)
        if not self._collecting:
            self._collecting = True
            self._tasks.start("collecting the metrics", self._collect(), may_end=True)

    async def _collect(self) -> None:
        try:
            begun = [child for child in self._children() if child.state in (WorkerState.SERVING, WorkerState.LEAVING)]
            found = await asyncio.gather(*(child.measure() for child in begun))
            answered = [measures for measures in found if measures is not None]
            serving = sum(child.state is WorkerState.SERVING for child in begun)
            total = Total(add([self._past, *answered]), Crew(serving, self.restarts, len(found) - len(answered)))
            for child in self._askers:
                child.tell(total)
        except Exception:  # then each asker answers with its own measures, after `worker.TOTAL_SECONDS`
            logger.exception("the metrics could not be collected")
        finally:
            self._askers.clear()
            self._collecting = False
