"""Work that takes long for one peer, such as an answer of 1 MiB: a little of it in each turn of the loop.

Large work waits here in a queue, and each turn works on its front for `TURN_SECONDS`. So small requests are answered at
once and messages are delivered, however much large work waits. Requests for much at the same moment are mostly equal,
as after a restart: a result that is built for one is shared by all (`share`).

Invariant: each piece of work is done once, in the order of `add`, and never in the turn that added it. The queue has at
most one piece for each connection, as a connection's next request is read after the answer. What is shared is kept only
while something waits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable

__all__ = ["LARGE_BYTES", "LARGE_MESSAGES", "SHARED", "TURN_SECONDS", "Bulk"]

logger = logging.getLogger("oncecast.core.bulk")

TURN_SECONDS = 0.005
LARGE_BYTES = 64 << 10  # to build less, and to write it, takes a tenth of a millisecond
LARGE_MESSAGES = 256  # joining so many takes as long
SHARED = 4  # of what is built, a MiB each


class Bulk:
    """The large work of one node. `monotonic` gives seconds, `schedule` runs a callable in the loop's next turn."""

    def __init__(self, monotonic: Callable[[], float], schedule: Callable[[Callable[[], None]], object]) -> None:
        self._monotonic = monotonic
        self._schedule = schedule
        self._queue: deque[Callable[[], None]] = deque()
        self._shared: dict[Hashable, bytes] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, work: Callable[[], None]) -> None:
        """Do this in one of the next turns. An exception is logged; the waiting request has a deadline."""
        self._queue.append(work)
        if len(self._queue) == 1:
            self._schedule(self._turn)

    def share(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return what was made for this key, while something waits. Equal keys must stand for equal bytes."""
        found = self._shared.get(key)
        if found is None:
            found = make()
            if len(self._shared) >= SHARED:
                del self._shared[next(iter(self._shared))]
            self._shared[key] = found
        return found

    def _turn(self) -> None:
        until = self._monotonic() + TURN_SECONDS
        queue = self._queue
        while True:
            try:
                queue[0]()
            except Exception:
                logger.exception("a large answer has failed")
            queue.popleft()
            if not queue or self._monotonic() >= until:
                break
        if queue:
            self._schedule(self._turn)
        else:
            self._shared.clear()
