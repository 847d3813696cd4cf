"""How long the connections of a process may read in one turn of the event loop, all together.

A turn's reads are counted by the time that they take, as bytes differ: a byte of a large body costs a thousandth of one
in a flood of tiny frames. Once the reads since the last turn have taken `TURN_SECONDS`, the budget is spent: from then
on a connection that becomes readable keeps the few bytes it has read, is not read further, and waits in a queue. The
next turns take from the queue in order, for `TURN_SECONDS` each. What the loop has to do besides (deliveries, new
connections, timers) comes in between.

Invariant: reads hold the loop for less than `TURN_SECONDS` and one slice of work; every reader in the queue has its
turn, the oldest first; of each at most `SHORT_BYTES` are held, or the rest of one read.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["READ_BYTES", "SHORT_BYTES", "TURN_SECONDS", "BudgetedReader", "ReadBudget"]

logger = logging.getLogger("oncecast.server")

TURN_SECONDS = 0.01
READ_BYTES = 32 << 10  # in one read
SHORT_BYTES = 1 << 10  # in one read once the budget is spent


class BudgetedReader(Protocol):
    """A connection that waits for its turn."""

    def go_on(self) -> None:
        """Take what was left over, and read on."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class ReadBudget:
    """`monotonic` returns seconds; `schedule` runs a callable in the loop's next turn (`loop.call_soon`).

    `buffer` is what every connection reads into: it is shorter while the budget is `spent`. A connection adds to
    `seconds` what its read took, and then calls `exhaust` if need be: a call less on the way of each request.
    """

    def __init__(self, monotonic: Callable[[], float], schedule: Callable[[Callable[[], None]], object]) -> None:
        self._whole = memoryview(bytearray(READ_BYTES))
        self._short = self._whole[:SHORT_BYTES]
        self._monotonic = monotonic
        self._schedule = schedule
        self.seconds = 0.0
        self._queue: deque[BudgetedReader] = deque()
        self._scheduled = False
        self.buffer = self._whole
        self.spent = False

    @property
    def left(self) -> float:
        """Return for how many seconds reads may still go on in this turn."""
        return TURN_SECONDS - self.seconds

    def exhaust(self) -> None:
        """End this turn's reads, as `seconds` has come to `TURN_SECONDS`."""
        if not self.spent:
            self.spent = True
            self.buffer = self._short
            self._turn_later()

    def wait(self, reader: BudgetedReader) -> None:
        """Let a reader go on in a later turn."""
        self._queue.append(reader)
        self._turn_later()

    def _turn_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._turn)

    def _turn(self) -> None:
        """Begin another turn with those that wait."""
        self._scheduled = False
        self.seconds = 0.0
        began = self._monotonic()
        for _ in range(len(self._queue)):
            reader = self._queue.popleft()
            try:
                reader.go_on()
            except Exception:
                logger.exception("a connection failed as it read on")
                reader.abort()
            now = self._monotonic()
            self.seconds += now - began
            began = now
            if self.seconds >= TURN_SECONDS:
                break
        self.spent = self.seconds >= TURN_SECONDS or bool(self._queue)
        self.buffer = self._short if self.spent else self._whole
        if self.spent:
            self._turn_later()
