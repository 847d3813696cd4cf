"""The task that leads a client back to a better transport.

Owns the times of the probes, and the task. Invariant: whatever a probe does, the next one comes; where the task is
ended from outside, the next subscription starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from .base import Transport
from .ladder import Ladder
from .probe import best_proven
from .timing import Timing

__all__ = ["Prober"]

logger = logging.getLogger("oncecast.client")

PROBE_FIRST = 1 / 8  # of the longest pause between probes of a better transport; then twice as long each time


class Prober:
    """Probes the transports above the ladder's. `make` makes a transport; `channel` names one that is listened to."""

    def __init__(
        self, ladder: Ladder, timing: Timing, *, make: Callable[[str], Transport], channel: Callable[[], str | None]
    ) -> None:
        self._ladder = ladder
        self._timing = timing
        self._make = make
        self._channel = channel
        self._stepped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the task runs."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start the task, if it does not run."""
        if not self.running:
            self._task = asyncio.create_task(self._run())

    def moved(self) -> None:
        """Note that the ladder has moved."""
        self._stepped.set()

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        first = self._timing.probe * PROBE_FIRST
        pause, risen = first, 0.0  # `risen`: when a probe last got through
        while True:
            better = self._ladder.better
            try:
                async with asyncio.timeout(pause if better else None):
                    await self._stepped.wait()
            except TimeoutError:
                pass
            else:  # a new choice is given a moment; one that does not last is not tried again at once
                self._stepped.clear()
                if time.monotonic() - risen > self._timing.probe:
                    pause = first
                continue
            began = time.monotonic()
            if await self._probe(better):
                risen = time.monotonic()
            pause = min(max(pause, first) * 2, self._timing.probe)
            pause = max(0.0, pause - (time.monotonic() - began))

    async def _probe(self, better: Sequence[str]) -> bool:
        """Probe these transports; say whether one got through."""
        channel = self._channel()
        if channel is None:
            return False
        try:
            name = await best_proven(better, self._make, channel, self._timing)
        except Exception:
            logger.exception("a probe has failed, which is a defect of the client")
            return False
        if name is None or name not in self._ladder.better:
            return False
        self._ladder.works(name)
        return True
