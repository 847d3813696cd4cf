"""Calls that wait for the broker, each with a deadline: publishes while it is away, and reads of its history.

Invariants
* Each call is answered once: by the broker, or with `unavailable` after its deadline. A callback that raises is logged,
  and ends nothing.
* At most `HELD_DRAFTS` drafts and `HELD_BYTES` of their data wait; past either a publish is refused.

Time is passed in: `expire` is called about once a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..brokers.base import ANSWER_SECONDS, Done, Read
from ..errors import Refusal
from ..message import Draft, Page
from .answers import answer

HELD_DRAFTS = 10_000
HELD_BYTES = 16 << 20

_LATE = Refusal("unavailable", "The log was not read in time: try again in a moment.", retry_after=5)
_LATE_PUBLISH = Refusal(
    "unavailable", "The broker has not come back in time: publish again in a moment.", retry_after=5
)
_FULL = Refusal("unavailable", "The broker is away, and enough publishes wait for it: try again later.", retry_after=5)


@dataclass(frozen=True, slots=True)
class _Held:
    """A publish that waits."""

    drafts: Sequence[Draft]
    done: Done
    size: int
    deadline: float


class HeldPublishes:
    """The publishes that wait for a broker to come back, at most `seconds` each, in order."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._held: deque[_Held] = deque()
        self._drafts = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many drafts wait."""
        return self._drafts

    def put(self, drafts: Sequence[Draft], done: Done, now: float) -> None:
        """Let a publish wait, or refuse it."""
        size = sum(len(draft.data) for draft in drafts)
        if self._drafts + len(drafts) > HELD_DRAFTS or self._bytes + size > HELD_BYTES:
            done([_FULL] * len(drafts))
            return
        self._drafts += len(drafts)
        self._bytes += size
        self._held.append(_Held(drafts, partial(answer, done), size, now + self.seconds))

    def expire(self, now: float) -> None:
        """Refuse what has waited for too long."""
        while self._held and self._held[0].deadline <= now:
            held = self._pop()
            held.done([_LATE_PUBLISH] * len(held.drafts))

    def publish(self, publish: Callable[[Sequence[Draft], Done], None]) -> None:
        """Publish what waits, and what is put in meanwhile."""
        while self._held:
            held = self._pop()
            publish(held.drafts, held.done)

    def refuse(self, refusal: Refusal) -> None:
        """Refuse what waits."""
        self.publish(lambda drafts, done: done([refusal] * len(drafts)))

    def _pop(self) -> _Held:
        held = self._held.popleft()
        self._drafts -= len(held.drafts)
        self._bytes -= held.size
        return held


class OpenReads:
    """The reads that a broker has not answered. What it answers after the deadline is dropped."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[float, Read]] = {}  # the oldest first, as all have the same time
        self._last = 0

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def put(self, done: Read, now: float) -> Read:
        """Take note of a read, and return what the broker is to call instead of `done`."""
        self._last += 1
        self._open[self._last] = (now + ANSWER_SECONDS, done)
        return partial(self._answer, self._last)

    def expire(self, now: float) -> None:
        """Refuse what has not been answered in time."""
        for number, (deadline, _) in list(self._open.items()):
            if deadline > now:
                return
            self._answer(number, _LATE)

    def refuse(self, refusal: Refusal) -> None:
        """Refuse all that are open."""
        for number in list(self._open):
            self._answer(number, refusal)

    def _answer(self, number: int, found: Page | Refusal) -> None:
        read = self._open.pop(number, None)
        if read is not None:
            answer(read[1], found)
