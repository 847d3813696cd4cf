"""What the threads of a broker have for the loop's thread: deliveries to the sink, and answers.

Invariants
* Steps run on the loop's thread, in the order in which they were put in.
* A delivery that raises is the last one. `failed` is called with the reason, and every answer behind it is replaced by
  its refusal: nothing is acknowledged that the sink has not got.
* An answer that raises is logged, and the steps behind it run.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("oncecast.brokers.outbox")

Step = Callable[[], None]


class Outbox:
    """`call` runs a callable on the loop's thread (`loop.call_soon_threadsafe`)."""

    def __init__(self, call: Callable[[Step], object], failed: Callable[[str], None]) -> None:
        self._call = call
        self._failed = failed
        self._steps: deque[tuple[Step, Step | None]] = deque()  # an answer has what runs in its place
        self._broken = False

    def __len__(self) -> int:
        """Return how many steps wait."""
        return len(self._steps)

    def deliver(self, step: Step) -> None:
        """Put in a call of the sink."""
        self._steps.append((step, None))

    def answer(self, step: Step, refuse: Step) -> None:
        """Put in an answer, and the refusal to run in its place if a delivery before it fails."""
        self._steps.append((step, refuse))

    def wake(self) -> None:
        """Let the loop's thread run what was put in."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._call(self.run)

    def run(self) -> None:
        """Run what was put in. On the loop's thread."""
        while self._steps:
            step, refuse = self._steps.popleft()
            if refuse is not None:
                self._answer(refuse if self._broken else step)
            elif not self._broken:
                self._deliver(step)

    def _deliver(self, step: Step) -> None:
        try:
            step()
        except Exception as error:
            logger.exception("a delivery failed: nothing more is delivered")
            self._broken = True
            self._failed(f"a delivery failed: {error!r}")

    def _answer(self, step: Step) -> None:
        try:
            step()
        except Exception:
            logger.exception("an answer failed; the others go on")
