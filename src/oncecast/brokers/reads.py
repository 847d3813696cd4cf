"""The reads of the history that wait, in an order that lets no costly read hold up the others.

A read is served in slices of about `SLICE_SECONDS`. One that is not finished after its first slice waits behind those
that are new, and so does one that asks for more than `COSTLY_MESSAGES`. So a page that costs little is served within a
few slices, whatever else is asked. After `NEW_IN_A_ROW` new reads a costly one is served, so these end as well.

Invariants
* At most `PENDING_READS` reads wait; past that a read is refused.
* A read is served or refused. `expired` says that its time is over: its page is not needed any more.

One thread puts, another takes.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from ..errors import Refusal
from ..message import Page, Start, StartKind
from .base import ANSWER_SECONDS, Read

logger = logging.getLogger("oncecast.brokers.reads")

PENDING_READS = 20_000
SLICE_SECONDS = 0.002
COSTLY_MESSAGES = 10_000  # that a read of `last` has to count
NEW_IN_A_ROW = 4

OVERRUN = Refusal("unavailable", "More is read than the broker gives: try again in a moment.", retry_after=1)
LATE = Refusal("unavailable", "The log was not read in time: try again in a moment.", retry_after=5)
UNREADABLE = Refusal("unavailable", "The log can't be read now: try again in a moment.", retry_after=5)
DEFECT = Refusal("internal", "The log could not be read: the server's log has the cause.")


class ReadRequest:
    """A read that waits. `work` belongs to the thread that serves it: the state of a read that is not finished."""

    __slots__ = ("answered", "channels", "costly", "deadline", "done", "limit", "max_bytes", "start", "work")

    def __init__(
        self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read, now: float
    ) -> None:
        self.channels = channels
        self.start = start
        self.limit = limit
        self.max_bytes = max_bytes
        self.done = done
        self.deadline = now + ANSWER_SECONDS
        self.costly = start.kind is StartKind.LAST and start.number * len(channels) > COSTLY_MESSAGES
        self.work: Any = None
        self.answered = False

    def expired(self, now: float) -> bool:
        """Return whether its time is over."""
        return now >= self.deadline

    def answer(self, answer: Page | Refusal) -> None:
        """Call back, unless that was done already. On the thread that puts."""
        if not self.answered:
            self.answered = True
            self.done(answer)


class ReadQueue:
    """The reads of one broker that wait."""

    def __init__(self) -> None:
        self._new: SimpleQueue[ReadRequest | None] = SimpleQueue()
        self._costly: deque[ReadRequest] = deque()
        self._in_a_row = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._new.qsize() + len(self._costly)

    def put(self, request: ReadRequest) -> None:
        """Let a read wait, or refuse it."""
        if len(self) >= PENDING_READS:
            request.answer(OVERRUN)
        else:
            self._new.put(request)

    def put_back(self, request: ReadRequest) -> None:
        """Let a read wait for its next slice."""
        self._costly.append(request)

    def take(self) -> ReadRequest | None:
        """Return the read that is served next; waits for one. None after `close`."""
        while True:
            if self._in_a_row < NEW_IN_A_ROW or not self._costly:
                with contextlib.suppress(Empty):
                    request = self._new.get(block=not self._costly)
                    if request is not None and request.costly:
                        self._costly.append(request)
                        continue
                    self._in_a_row += 1
                    return request
            self._in_a_row = 0
            with contextlib.suppress(IndexError):  # the other thread has refused it meanwhile
                return self._costly.popleft()

    def close(self) -> None:
        """Let `take` return None, once it comes to it."""
        self._new.put(None)

    def refuse(self, refusal: Refusal) -> None:
        """Refuse all that wait. On the thread that puts."""
        waiting: list[ReadRequest] = []
        closed = False
        with contextlib.suppress(Empty):
            while True:
                request = self._new.get_nowait()
                if request is None:
                    closed = True
                else:
                    waiting.append(request)
        with contextlib.suppress(IndexError):
            while True:
                waiting.append(self._costly.popleft())
        if closed:
            self.close()
        for request in waiting:
            refuse_read(request, refusal)


def refuse_read(request: ReadRequest, refusal: Refusal) -> None:
    """Refuse a read. A callback that raises is logged, and keeps no other from its answer."""
    try:
        request.answer(refusal)
    except Exception:
        logger.exception("an answer failed; the others go on")
