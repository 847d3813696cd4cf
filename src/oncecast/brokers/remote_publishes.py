"""The publishes on their way to a broker on another machine: how they are sent in batches, and how they are answered.

`Remote.publish` puts them into an `Intake` and sets `waiting`; one task of the session that runs calls `send`.

Invariants
* Batches are sent in the order of their publishes, and at most `FLYING` are sent and not yet answered.
* A publish is answered once: with the session's outcomes, after its messages have reached the sink, or with a refusal.
* A batch is answered within `APPEND_SECONDS` of being sent. A batch that is not ends `send`, and so the session: what
  became of its messages is not known, so the publishers are told to publish again with the same key.
* When `send` ends, for whatever reason, it has answered all that it has sent. What still waits stays in the intake.

To change how much is sent together, edit `intake.py`; to change what is known of a batch that failed, edit `send`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from ..errors import Refusal
from ..message import Receipt
from .base import Outcome
from .intake import Batch, Intake, refuse
from .meters import Meters
from .session import CLOSE_SECONDS, Lost, RemoteSession

logger = logging.getLogger("oncecast.brokers.remote_publishes")

FLYING = 4  # batches sent and not yet answered
APPEND_SECONDS = 10.0  # for one batch

UNKNOWN = Refusal(
    "unavailable",
    "The connection to the broker was lost before it answered: publish again with the same key.",
    retry_after=1,
)


class RemotePublishes:
    """The publishes of one broker. Whoever puts one into `intake` sets `waiting`."""

    def __init__(self, intake: Intake, meters: Meters) -> None:
        self.intake = intake
        self.waiting = asyncio.Event()  # something was put or answered: there may be a batch to send
        self._meters = meters

    async def send(self, session: RemoteSession) -> None:
        """Send batches until one fails, and raise its error."""
        flying: dict[asyncio.Future[Sequence[Outcome]], list[Batch]] = {}
        lost: list[BaseException] = []

        def finished(
            batches: list[Batch], deadline: asyncio.TimerHandle, sent: asyncio.Future[Sequence[Outcome]]
        ) -> None:
            deadline.cancel()
            del flying[sent]
            error = Lost("it did not acknowledge in time") if sent.cancelled() else sent.exception()
            if error is None:
                self._answer(batches, sent.result())
            else:
                lost.append(error)
                self._refuse(batches, UNKNOWN)
            self.waiting.set()

        loop = asyncio.get_running_loop()
        try:
            while not lost:
                if not self.intake or len(flying) >= FLYING:
                    self.waiting.clear()
                    await self.waiting.wait()
                    continue
                batches = self.intake.take()
                try:
                    sent = session.append([draft for batch in batches for draft in batch.drafts])
                except BaseException:
                    self._refuse(batches, UNKNOWN)
                    raise
                flying[sent] = batches
                deadline = loop.call_later(APPEND_SECONDS, sent.cancel)
                sent.add_done_callback(partial(finished, batches, deadline))
            raise lost[0]
        finally:
            for sent in list(flying):
                sent.cancel()
            if flying:
                await asyncio.wait(list(flying), timeout=CLOSE_SECONDS)
                await asyncio.sleep(0)  # for the callbacks that answer

    def refuse(self, refusal: Refusal) -> None:
        """Refuse all that wait."""
        self._meters.refused += len(self.intake)
        self.intake.refuse(refusal)

    def _answer(self, batches: list[Batch], outcomes: Sequence[Outcome]) -> None:
        if outcomes and isinstance(newest := outcomes[-1], Receipt) and newest.seq > self._meters.head:
            self._meters.head = newest.seq
        self._meters.refused += sum(isinstance(outcome, Refusal) for outcome in outcomes)
        at = 0
        for batch in batches:
            try:
                batch.answer(outcomes[at : at + len(batch.drafts)])
            except Exception:
                logger.exception("an answer could not be delivered; the others go on")
            at += len(batch.drafts)

    def _refuse(self, batches: list[Batch], refusal: Refusal) -> None:
        self._meters.refused += sum(len(batch.drafts) for batch in batches)
        refuse(batches, refusal)
