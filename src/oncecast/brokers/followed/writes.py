"""What a node writes to a followed log, and what of it has not been read back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...errors import Refusal
from ...message import Draft, Receipt
from ..base import Outcome
from ..session import Lost
from .record import encode_control, encode_draft
from .server import LogServer


class Numbers:
    """The numbers of a node's records, which tell it its own. They go on from one session to the next."""

    def __init__(self, node: bytes) -> None:
        self.node = node
        self._number = 0

    def __str__(self) -> str:
        return f"{self.node.hex()}-{self._number}"

    def next(self) -> int:
        """Return the number of the next record."""
        self._number += 1
        return self._number

    def control(self, kind: int, data: bytes = b"") -> tuple[int, bytes]:
        """Return the number and the bytes of a record that is no message."""
        number = self.next()
        return number, encode_control(kind, self.node, number, data)


class WrittenBatch:
    """Drafts whose outcomes have not all come."""

    __slots__ = ("_left", "_outcomes", "future")

    def __init__(self, future: asyncio.Future[Sequence[Outcome]], count: int) -> None:
        self.future = future
        self._left = count
        self._outcomes: list[Outcome | None] = [None] * count

    def answer(self, at: int, outcome: Outcome) -> None:
        """Note an outcome; the last one answers the batch."""
        self._outcomes[at] = outcome
        self._left -= 1
        if self._left == 0 and not self.future.done():
            self.future.set_result([each for each in self._outcomes if each is not None])

    def fail(self, error: BaseException) -> None:
        """Answer the batch with an error."""
        if not self.future.done():
            self.future.set_exception(error)


class Writes:
    """The publishes of one session. At most those that `Remote` lets be under way are held."""

    def __init__(self, server: LogServer, numbers: Numbers) -> None:
        self._server = server
        self._numbers = numbers
        self._pending: dict[int, tuple[WrittenBatch, int]] = {}  # by the record's number: its place in a batch
        self._tasks: set[asyncio.Task[None]] = set()

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Write a batch. Its future has the outcomes when `read_back` was called for each record, or an error."""
        numbers, most = self._numbers, self._server.most_bytes
        batch = WrittenBatch(asyncio.get_running_loop().create_future(), len(drafts))
        records: list[bytes] = []
        for at, draft in enumerate(drafts):
            number = numbers.next()
            record = encode_draft(draft, numbers.node, number)
            if len(record) > most:
                text = f"The broker takes at most {most} bytes with a message's names: raise its {self._server.limit}."
                batch.answer(at, Refusal("body_too_large", text))
            else:
                self._pending[number] = (batch, at)
                records.append(record)
        if records:
            self._write(records, batch)
        return batch.future

    def read_back(self, number: int, receipt: Receipt | None) -> None:
        """Take the receipt of a record; None if it does not count."""
        batch, at = self._pending.pop(number, (None, 0))
        if batch is not None and receipt is not None:
            batch.answer(at, receipt)
        elif batch is not None:
            batch.fail(Lost("its leader has changed"))

    async def close(self) -> None:
        """End what is being written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _write(self, records: Sequence[bytes], batch: WrittenBatch) -> None:
        task = asyncio.create_task(self._server.write(records), name="oncecast-followed-write")
        self._tasks.add(task)

        def written(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = Lost("its connection was closed") if task.cancelled() else task.exception()
            if error is not None:
                batch.fail(error)

        task.add_done_callback(written)
