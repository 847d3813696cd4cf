"""Publishing: one message at a time, acknowledgements gathered. A batch is answered after the sink has its messages."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Callable, Sequence

from ...errors import Refusal
from ...message import Draft, Receipt
from ..base import Outcome
from ..lives import Lives
from .client import Answer, OrderedClient
from .stream import Stream, encode_draft, key_of, refusal_of

HEADERS = 256  # bytes, at most, of what goes with a message's data


class NatsWrites:
    """The publishes of one session. `followed` are the channels whose messages the sink gets, `wall` Unix seconds."""

    def __init__(
        self,
        client: OrderedClient,
        stream: Stream,
        lives: Lives,
        followed: set[str],
        *,
        wall: Callable[[], float],
        max_payload: int,
    ) -> None:
        self._client = client
        self._stream = stream
        self._lives = lives
        self._followed = followed
        self._wall = wall
        self._max_payload = max_payload
        self._offset = 0
        self._behind: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: the batches that wait for an offset

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Publish a batch. It is answered once the sink has the messages of the channels that it follows."""
        return asyncio.ensure_future(self._append(drafts))

    def reached(self, offset: int) -> None:
        """Note that the sink has all records up to an offset."""
        self._offset = offset
        self._stream.knows(offset)
        while self._behind and self._behind[0][0] <= offset:
            _, _, waiting = heapq.heappop(self._behind)
            if not waiting.done():
                waiting.set_result(None)

    async def _append(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(drafts)
        left = len(drafts)
        all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def set_outcome(at: int, outcome: Outcome) -> None:
            nonlocal left
            if outcomes[at] is None:
                outcomes[at] = outcome
                left -= 1
                if left == 0 and not all_in.done():
                    all_in.set_result(None)

        def expect(at: int) -> Callable[[Answer], None]:
            return lambda answer: set_outcome(at, self._outcome(answer))

        replies: list[str] = []
        stamp = int(self._wall() * 1000)
        try:
            for at, draft in enumerate(drafts):
                data = encode_draft(draft, stamp)
                if len(data) + HEADERS > self._max_payload:
                    text = f"The broker takes at most {self._max_payload} bytes: raise its max_payload or max_msg_size."
                    set_outcome(at, Refusal("body_too_large", text))
                    continue
                headers = None if draft.key is None else {"Nats-Msg-Id": key_of(draft)}
                subject = self._stream.subject(draft.channel)
                replies.append(await self._client.send(subject, data, headers, expect(at)))
            if left:
                await all_in
            await self._followed_up_to(self._highest(drafts, outcomes))
        finally:
            for reply in replies:
                self._client.forget(reply)
        return [outcome for outcome in outcomes if outcome is not None]

    def _highest(self, drafts: Sequence[Draft], outcomes: Sequence[Outcome | None]) -> int:
        """Return the offset of the last message that the sink gets."""
        numbers = [
            outcome.seq
            for draft, outcome in zip(drafts, outcomes, strict=True)
            if isinstance(outcome, Receipt) and draft.channel in self._followed
        ]
        return self._lives.offset_of(max(numbers)) if numbers else 0

    async def _followed_up_to(self, offset: int) -> None:
        if offset > self._offset:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._behind, (offset, id(waiting), waiting))
            await waiting

    def _outcome(self, answer: Answer) -> Outcome:
        refused = refusal_of(answer)
        if refused is not None:
            return Refusal("unavailable", f"The broker refuses it: {refused}", retry_after=5)
        offset = int(json.loads(answer.data)["seq"])
        self._stream.knows(offset)
        return Receipt(self._lives.epoch, self._lives.seq_of(offset), "broker")
