"""Publishing: a batch goes by several scripts, all sent at once, so in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from ...errors import Refusal
from ...message import Draft, Receipt, RetentionPolicy
from ..base import Outcome
from ..complaints import Complaints
from ..stored import stored_data, stored_kind
from ..wanting import Wanting
from . import scripts
from .faults import of_publishing
from .line import RedisLine, answer_of

SCRIPT_DRAFTS = 200  # published by one script: it holds the server for some 2 ms


class _Part(msgspec.Struct, frozen=True):
    """One script of a batch: how many drafts, its answer, and the token whose return says that the sink has them."""

    drafts: int
    asked: asyncio.Future[Any]
    token: bytes
    reached: asyncio.Future[None] | None


class RedisWrites:
    """The publishes of one session. `policy` gives a channel's retention by its name; keys are known for a time."""

    def __init__(
        self, line: RedisLine, wanting: Wanting, own: str, *, policy: RetentionPolicy, key_seconds: float
    ) -> None:
        self._line = line
        self._wanting = wanting
        self._own = own
        self._policy = policy
        self._key_seconds = max(1, int(key_seconds))
        self._complaints = Complaints("redis:", time.monotonic)

    def append(self, drafts: Sequence[Draft], life: bytes, epoch: str) -> asyncio.Future[Sequence[Outcome]]:
        """Publish a batch in a life of the log: it is sent when this returns. The answer comes after the messages."""
        parts = [self._send(drafts[at : at + SCRIPT_DRAFTS], life) for at in range(0, len(drafts), SCRIPT_DRAFTS)]
        return asyncio.ensure_future(self._acknowledged(parts, epoch))

    def _send(self, drafts: Sequence[Draft], life: bytes) -> _Part:
        token, reached = b"", None
        if any(draft.channel in self._wanting.channels for draft in drafts):
            token = self._wanting.new_token()
            reached = self._wanting.probes.expect(token)
        arguments: list[bytes | str | int] = ["" if reached is None else self._own, token, self._key_seconds]
        for draft in drafts:
            keep = max(1, self._policy(draft.channel).messages)
            kind, data = stored_kind(draft), stored_data(draft)
            arguments += [draft.channel, kind, draft.event or "", draft.key or "", keep, data]
        return _Part(len(drafts), self._line.ask_script(scripts.PUBLISH, life, *arguments), token, reached)

    async def _acknowledged(self, parts: Sequence[_Part], epoch: str) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        try:
            for part in parts:
                try:
                    answer = await answer_of(part.asked, of_publishing)
                except Refusal as refusal:
                    self._complaints.complain(refusal.message)
                    outcomes += [refusal] * part.drafts
                    continue
                self._complaints.recover("The broker takes messages again.")
                if part.reached is not None:
                    await part.reached
                outcomes += [Receipt(epoch, int(number), "broker") for number in answer]
        finally:
            for part in parts:
                self._wanting.probes.drop(part.token)
        return outcomes
