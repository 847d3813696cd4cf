"""The broker's history as the node reads it: each read is answered once, and in time.

Invariant: a read that the broker does not answer within `ANSWER_SECONDS`, or can't begin, is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..brokers.base import Broker, Read
from ..errors import Refusal
from ..message import Start, StartKind
from .log import Log
from .waiting import OpenReads

logger = logging.getLogger("oncecast.core.history")

DEFECT = Refusal("internal", "The log could not be read: the server's log has the cause.")


class BrokerHistory:
    """What one broker keeps. `monotonic` gives seconds."""

    def __init__(self, broker: Broker, log: Log, monotonic: Callable[[], float]) -> None:
        self.reads = OpenReads()
        self.pages = 0  # asked for
        self._broker = broker
        self._log = log
        self._monotonic = monotonic

    def read(self, channels: tuple[str, ...], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Read on from a start, as `Broker.read` says."""
        self.pages += 1
        answer = self.reads.put(done, self._monotonic())
        try:
            self._broker.read(channels, start, limit, max_bytes, answer)
        except Exception:
            logger.exception("the broker could not begin a read")
            answer(DEFECT)

    def read_after(
        self, channels: tuple[str, ...], seq: int, floors: tuple[int, ...], limit: int, max_bytes: int, done: Read
    ) -> None:
        """Read on after a number, and of each channel above its floor."""
        self.read(channels, Start(StartKind.CURSOR, self._log.cursor(seq), floors=floors), limit, max_bytes, done)
