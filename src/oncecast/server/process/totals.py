"""What all workers have measured together, for the worker that is asked for `/metrics` or for the overview.

Invariant: one collection of each kind runs at a time, and answers every worker that has asked by its end. The views
with the listeners of a channel are a kind of their own.
What a worker measured last is kept beyond its end, so that no counter goes backwards.
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
        # Of the collections that run: whether they are of views, and of whose listeners.
        self._askers: dict[tuple[bool, str | None], list[Child]] = {}
        self._past = Measures()  # of workers that have ended
        self.restarts = 0

    def keep(self, child: Child) -> None:
        """Keep what a worker that has ended has measured."""
        self._past = add([self._past, lasting(child.measures)])

    def ask(self, child: Child, *, views: bool = False, channel: str | None = None) -> None:
        """Answer a worker with what all have measured; with `views` also with their views, and who is on `channel`."""
        if (views, channel) in self._askers:
            self._askers[views, channel].append(child)
            return
        self._askers[views, channel] = [child]
        what = "the views" if views else "the metrics"
        self._tasks.start(f"collecting {what}", self._collect(what, views, channel), may_end=True)

    async def _collect(self, what: str, views: bool, channel: str | None) -> None:
        try:
            begun = [child for child in self._children() if child.state in (WorkerState.SERVING, WorkerState.LEAVING)]
            total = await (self._looked(begun, channel) if views else self._measured(begun))
            for child in self._askers[views, channel]:
                child.tell(total)
        except Exception:  # then each asker answers with its own measures, after `worker.TOTAL_SECONDS`
            logger.exception("%s could not be collected", what)
        finally:
            del self._askers[views, channel]

    async def _measured(self, begun: list[Child]) -> Total:
        found = await asyncio.gather(*(child.measure() for child in begun))
        answered = [measures for measures in found if measures is not None]
        return Total(add([self._past, *answered]), self._crew(begun, len(found) - len(answered)))

    async def _looked(self, begun: list[Child], channel: str | None) -> Total:
        found = await asyncio.gather(*(child.look(channel) for child in begun))
        views = tuple(view for view in found if view is not None)
        measures = add([self._past, *(view.measures for view in views)])
        return Total(measures, self._crew(begun, len(found) - len(views)), views, channel)

    def _crew(self, begun: list[Child], silent: int) -> Crew:
        return Crew(sum(child.state is WorkerState.SERVING for child in begun), self.restarts, silent)
