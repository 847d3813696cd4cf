"""The reads of the history that a broker on another machine has to answer: how they wait, and how a session answers.

Reads of the same channels wait in one line, and the lines take turns, so that one channel does not hold up the others.
`READERS` tasks of the session that runs call `answer`, and one task calls `expire`; `remote.py` owns them.

Invariants
* A read is answered once, with a page or with a refusal. It waits for `ANSWER_SECONDS` at most, and for `READ_SECONDS`
  once a session is asked.
* At most `PENDING_READS` reads wait; past that a read is refused at once. A line without a read is not kept.
* When `answer` ends, the read that the session was asked for is refused. Those that wait are kept, until `refuse`.

To change the order of reads, edit `put` and `_take`; to change what an error of a session means, edit `answer`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from ..errors import Refusal
from ..message import Page, Start
from .base import AWAY, Read
from .reads import DEFECT, LATE, OVERRUN, PENDING_READS, ReadRequest, refuse_read
from .session import Lost, RemoteSession

logger = logging.getLogger("oncecast.brokers.remote_reads")

READERS = 4  # pages asked for at once
READ_SECONDS = 10.0  # for one page
EXPIRE_SECONDS = 1.0  # between two looks for reads that have waited too long


class RemoteReads:
    """The reads of one broker that wait. `name` is the broker's, for the log; `now` counts the seconds of deadlines."""

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._now = now
        self._lines: OrderedDict[tuple[str, ...], deque[ReadRequest]] = OrderedDict()
        self._count = 0
        self._asked = asyncio.Event()

    def put(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Let a read wait at the end of its line, or refuse it. The parameters are those of `Broker.read`."""
        if self._count >= PENDING_READS:
            done(OVERRUN)
            return
        line = self._lines.setdefault(tuple(channels), deque())
        line.append(ReadRequest(channels, start, limit, max_bytes, done, self._now()))
        self._count += 1
        self._asked.set()

    async def answer(self, session: RemoteSession) -> None:
        """Answer one read after the other from a session. Raises `Lost`, once the read is refused."""
        while True:
            asked = self._take()
            if asked is None:
                self._asked.clear()
                await self._asked.wait()
                continue
            if asked.expired(self._now()):
                refuse_read(asked, LATE)
                continue
            answer: Page | Refusal = AWAY
            try:
                async with asyncio.timeout(READ_SECONDS):
                    answer = await session.page(asked.channels, asked.start, asked.limit, asked.max_bytes)
            except TimeoutError:
                answer = LATE
            except Refusal as refusal:
                answer = refusal.as_value()
            except Lost:
                raise
            except Exception:
                logger.exception("the broker %s could not read a page", self._name)
                answer = DEFECT
            finally:
                _call_back(asked, answer)

    async def expire(self) -> None:
        """Refuse the reads that have waited too long; a line is in the order of its deadlines."""
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            now = self._now()
            for channels, line in list(self._lines.items()):
                while line and line[0].expired(now):
                    self._count -= 1
                    refuse_read(line.popleft(), LATE)
                if not line:
                    del self._lines[channels]

    def refuse(self, refusal: Refusal) -> None:
        """Refuse all that wait."""
        while (asked := self._take()) is not None:
            refuse_read(asked, refusal)

    def _take(self) -> ReadRequest | None:
        """Take the first of the next line, and put that line behind the others."""
        if not self._lines:
            return None
        channels, line = self._lines.popitem(last=False)
        asked = line.popleft()
        if line:
            self._lines[channels] = line
        self._count -= 1
        return asked


def _call_back(asked: ReadRequest, answer: Page | Refusal) -> None:
    """Answer a read; a fault in the callback is logged, and keeps no other read from its answer."""
    try:
        asked.answer(answer)
    except Exception:
        logger.exception("an answer could not be delivered")
