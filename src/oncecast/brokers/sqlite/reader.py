"""The thread that reads the history, in pages, so that no replay holds up a publish.

Invariant: each read is answered once, with a page or a refusal, whatever goes wrong with it; a fault in one is not the
others'.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from functools import partial

from ...errors import Refusal
from ...message import Page
from ..complaints import Complaints
from ..outbox import Outbox
from ..reads import DEFECT, LATE, SLICE_SECONDS, UNREADABLE, ReadQueue, ReadRequest
from .store import Store

logger = logging.getLogger("oncecast.brokers.sqlite.reader")


CLOSED = Refusal("unavailable", "The server is stopping: read on at another.", retry_after=1)


class HistoryReader:
    """What the thread runs: `run`."""

    def __init__(self, store: Store, queue: ReadQueue, outbox: Outbox, complaints: Complaints) -> None:
        self.under_way: ReadRequest | None = None
        self.ending = False  # set by the loop's thread: refuse what waits
        self._store = store
        self._queue = queue
        self._outbox = outbox
        self._complaints = complaints

    def run(self) -> None:
        """Serve reads until the queue is closed, and close the store."""
        try:
            while (request := self._queue.take()) is not None:
                self.under_way = request
                self._serve(request)
                self.under_way = None
        finally:
            self._store.close()

    def _serve(self, request: ReadRequest) -> None:
        answer: Page | Refusal | None
        try:
            late = request.expired(time.monotonic())
            answer = CLOSED if self.ending else LATE if late else self._slice(request)
        except sqlite3.Error as error:
            self._complaints.complain(f"can't be read: {error}; readers of the history are refused")
            answer = UNREADABLE
        except Exception:
            logger.exception("a read has failed: %s from %s", request.channels, request.start)
            answer = DEFECT
        if answer is None:
            self._queue.put_back(request)
            return
        self._outbox.answer(partial(request.answer, answer), partial(request.answer, UNREADABLE))
        self._outbox.wake()

    def _slice(self, request: ReadRequest) -> Page | None:
        """Read on for a slice of time; return the page, or None where there is more to do."""
        if request.work is None:
            request.work = self._store.pages.steps(request.channels, request.start, request.limit, request.max_bytes)
        until = time.monotonic() + SLICE_SECONDS
        while True:
            try:
                next(request.work)
            except StopIteration as stop:
                page: Page = stop.value
                return page
            if time.monotonic() >= until:
                return None
