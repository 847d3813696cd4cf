"""The publishes that wait for a broker to write them, and how they are batched.

Invariants
* At most `PENDING_DRAFTS` drafts and `PENDING_BYTES` of their data wait, but for the one publish that crosses a bound;
  past either bound a publish is refused at once.
* A batch is answered once. What is answered later is dropped.

One thread puts and refuses, another may take: each counts for itself what it has put or taken.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from ..errors import Refusal
from ..message import Draft
from .base import Done, Outcome

logger = logging.getLogger("oncecast.brokers.intake")

BATCH_DRAFTS = 2000  # written together: some 20 ms for a disk
BATCH_BYTES = 8 << 20
PENDING_DRAFTS = 50_000
PENDING_BYTES = 64 << 20

_OVERRUN = Refusal("unavailable", "More is published than the broker takes: publish again in a moment.", retry_after=1)


class Batch:
    """Drafts that were published together. `answered` is set on the thread that puts, and read on either."""

    __slots__ = ("answered", "done", "drafts", "size")

    def __init__(self, drafts: Sequence[Draft], done: Done, size: int) -> None:
        self.drafts = drafts
        self.done = done
        self.size = size
        self.answered = False

    def answer(self, outcomes: Sequence[Outcome]) -> None:
        """Answer, unless that was done already."""
        if not self.answered:
            self.answered = True
            self.done(outcomes)

    def refuse(self, refusal: Refusal) -> None:
        """Answer every draft with a refusal."""
        self.answer([refusal] * len(self.drafts))


class Intake:
    """The publishes that wait. `most_drafts` are taken at once: fewer for a broker whose server limits a batch."""

    def __init__(self, most_drafts: int = BATCH_DRAFTS) -> None:
        self._most_drafts = most_drafts
        self._pending: deque[Batch] = deque()
        self._put = [0, 0]  # drafts and bytes that were ever put,
        self._taken = [0, 0]  # and those that were taken

    def __bool__(self) -> bool:
        """Return whether any wait."""
        return bool(self._pending)

    def __len__(self) -> int:
        """Return how many drafts wait."""
        return self._put[0] - self._taken[0]

    def put(self, drafts: Sequence[Draft], done: Done) -> bool:
        """Let a publish wait, and return True; or answer it: an empty one, and one past the bounds."""
        if not drafts:
            done([])
            return False
        put, taken = self._put, self._taken
        if put[0] - taken[0] >= PENDING_DRAFTS or put[1] - taken[1] >= PENDING_BYTES:
            done([_OVERRUN] * len(drafts))
            return False
        size = sum(len(draft.data) for draft in drafts)
        put[0] += len(drafts)
        put[1] += size
        self._pending.append(Batch(drafts, done, size))
        return True

    def take(self) -> list[Batch]:
        """Take what is written next: publishes in order, up to the bounds, and at least one if any wait."""
        batches: list[Batch] = []
        drafts = size = 0
        while self._pending and drafts < self._most_drafts and size < BATCH_BYTES:
            try:
                batch = self._pending.popleft()
            except IndexError:  # the other thread has refused it meanwhile
                break
            batches.append(batch)
            drafts += len(batch.drafts)
            size += batch.size
        self._taken[0] += drafts
        self._taken[1] += size
        return batches

    def refuse(self, refusal: Refusal) -> None:
        """Refuse all that wait. On the thread that puts."""
        while self._pending:
            try:
                batch = self._pending.popleft()
            except IndexError:
                break
            self._put[0] -= len(batch.drafts)
            self._put[1] -= batch.size
            refuse((batch,), refusal)


def refuse(batches: Sequence[Batch], refusal: Refusal) -> None:
    """Refuse batches. A callback that raises keeps no other from its answer."""
    for batch in batches:
        try:
            batch.refuse(refusal)
        except Exception:
            logger.exception("an answer failed; the others go on")
