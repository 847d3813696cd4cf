"""Publishing by POST, repeated with the same key until it is acknowledged.

Invariant: a message is sent with one key every time, so that it is in the log at most once whichever of its
acknowledgements were lost; and it is sent exactly as it was given, or not at all.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from ..errors import ERRORS
from .attempts import Attempts, OnRetry
from .backoff import Backoff
from .base import StartQuery
from .credentials import Credentials
from .dialing import Endpoint
from .encoding import CONTENT_TYPES, Content, batch_line, check_names, content_of, fits_header
from .failures import MALFORMED, Broken, PublishFailed, Refused, Unavailable, Unsuited, failure_of_answer, refused_here
from .http import HttpConnection
from .poll import PageReader
from .timing import Timing
from .trace import current_traceparent
from .values import Ack, Outgoing

__all__ = ["PublishOutcome", "Publisher"]

# Of one request: below what a server takes by default, 4,000 lines and 1 MiB, so that one refused line costs little.
BATCH_LINES = 1000
BATCH_BYTES = 512 * 1024

PublishOutcome = Ack | Refused | Broken


@dataclass(frozen=True, slots=True)
class _Draft:
    """A message that can be sent, with its line of a batch."""

    channel: str
    content: Content
    event: str | None
    key: str
    line: bytes


class _LineError(msgspec.Struct):
    code: str
    message: str


class _LineAnswer(msgspec.Struct):
    id: str = ""
    durability: str = ""
    error: _LineError | None = None


_read_line = msgspec.json.Decoder(_LineAnswer).decode


class Publisher:
    """Publishes on one kept-alive connection, one request at a time, in order.

    `patience` is how many seconds one request is retried for, None for ever; see `Attempts`. `clock` is monotonic;
    `new_key` makes a unique key. `on_retry` is as in `Attempts`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timing: Timing,
        backoff: Backoff | None = None,
        patience: float | None = None,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_key: Callable[[], str] = lambda: uuid.uuid4().hex,
        on_retry: OnRetry | None = None,
    ) -> None:
        credentials = credentials or Credentials(None)
        self._endpoint = endpoint
        self._timing = timing
        self._authorize = credentials.headers
        self._connection = HttpConnection(endpoint, timing=timing, authorize=self._authorize)
        self._patience = patience
        self._new_key = new_key
        self._channel = ""  # of the request that is being sent
        self._attempts = Attempts(
            backoff=backoff or Backoff(rng=random.random, sleep=asyncio.sleep),
            credentials=credentials,
            serves=self._serves,
            clock=clock,
            on_retry=on_retry,
        )

    async def publish(self, channel: str, content: Content, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message and return its acknowledgement.

        Raises `Refused`, also for a name, event or key that can't be one; `Broken` past the patience; its kinds
        `Unreachable` and `PublishFailed`.
        """
        check_names(channel, event, key)
        key = self._new_key() if key is None else key
        if not (fits_header(event) and fits_header(key)):
            outcome = (await self._send([_draft(channel, content, event, key)], self._patience))[0]
            if isinstance(outcome, Ack):
                return outcome
            raise outcome
        headers = [("Content-Type", CONTENT_TYPES[content.kind]), ("Idempotency-Key", key)]
        if event is not None:
            headers.append(("Oncecast-Event", event))
        if (trace := current_traceparent()) is not None:
            headers.append(("traceparent", trace))
        self._channel = channel
        return await self._attempts.run(lambda: self._post(channel, headers, content.data), patience=self._patience)

    async def publish_many(self, messages: Iterable[Outgoing]) -> list[PublishOutcome]:
        """Publish messages in batches; return for each, in order, its acknowledgement or why it has none.

        Raises nothing that is about one message: a message that is refused or given up leaves the others alone. Once
        a batch has outlasted the patience, each further batch is tried only once, until one gets through.
        """
        outcomes: list[PublishOutcome] = []
        patience = self._patience
        for batch in _batches(messages, self._new_key):
            drafts = [each for each in batch if isinstance(each, _Draft)]
            sent = iter(await self._send_or_split(drafts, patience) if drafts else ())
            found = [next(sent) if isinstance(each, _Draft) else each for each in batch]
            outcomes += found
            away = any(isinstance(each, Broken) and not isinstance(each, PublishFailed) for each in found)
            patience = 0.0 if away else self._patience
        return outcomes

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    # One request

    async def _post(self, channel: str, headers: list[tuple[str, str]], data: bytes) -> Ack:
        answer = await self._connection.request("POST", f"/v1/channels/{channel}", headers, data)
        if answer.status not in (200, 201):
            raise failure_of_answer(answer.status, answer.body, answer.retry_after)
        try:
            return msgspec.json.decode(answer.body, type=Ack)
        except MALFORMED:
            raise Refused(
                "the answer is not an acknowledgement: is this an Oncecast server?", status=answer.status
            ) from None

    async def _post_lines(self, drafts: Sequence[_Draft]) -> list[PublishOutcome]:
        body = b"".join(draft.line for draft in drafts)
        headers = [("Content-Type", "application/x-ndjson")]
        answer = await self._connection.request("POST", "/v1/publish", headers, body)
        if answer.status != 200:
            raise failure_of_answer(answer.status, answer.body, answer.retry_after)
        try:
            outcomes = [_outcome(_read_line(line)) for line in answer.body.splitlines()]
        except MALFORMED:
            outcomes = []
        if len(outcomes) != len(drafts):
            raise Refused(
                "the answer has no acknowledgement for each line: is this an Oncecast server?", status=answer.status
            )
        return outcomes

    # One batch

    async def _send(self, drafts: Sequence[_Draft], patience: float | None) -> list[PublishOutcome]:
        """Send lines until each has an outcome that a retry does not change. Raises `Refused` or `Broken` for all."""
        outcomes: list[PublishOutcome | None] = [None] * len(drafts)

        async def attempt() -> None:
            """Send the lines that are still open; raise where one of them may succeed later."""
            left = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Ack | Refused)]
            for n, outcome in zip(left, await self._post_lines([drafts[n] for n in left]), strict=True):
                outcomes[n] = outcome
            if again := [outcome for outcome in outcomes if isinstance(outcome, Broken)]:
                raise again[0]

        self._channel = drafts[0].channel
        try:
            await self._attempts.run(attempt, patience=patience)
        except (Broken, Refused) as error:
            if not any(isinstance(outcome, Ack | Refused) for outcome in outcomes):
                raise
            return [error if not isinstance(outcome, Ack | Refused) else outcome for outcome in outcomes]
        return [outcome for outcome in outcomes if outcome is not None]

    async def _send_or_split(self, drafts: Sequence[_Draft], patience: float | None) -> list[PublishOutcome]:
        """Send lines; where they are too much for one request, or one of them makes it fail, in two halves."""
        try:
            return await self._send(drafts, patience)
        except (Broken, Refused) as error:
            divisible = isinstance(error, PublishFailed) or (isinstance(error, Refused) and error.status == 413)
            if len(drafts) == 1 or not divisible:
                return [error] * len(drafts)
        half = len(drafts) // 2
        return [
            *await self._send_or_split(drafts[:half], patience),
            *await self._send_or_split(drafts[half:], patience),
        ]

    async def _serves(self) -> bool:
        """Say whether the server answers an ordinary request now, on a connection of its own."""
        connection = HttpConnection(self._endpoint, timing=self._timing, authorize=self._authorize)
        try:
            await PageReader(connection, {self._channel: StartQuery("after", "latest")}).page(limit=1)
        except Refused as error:
            return not isinstance(error, Unsuited)
        except Broken:
            return False
        finally:
            await connection.close()
        return True


def _outcome(answer: _LineAnswer) -> PublishOutcome:
    """Return what a line of an answer says. Raises `ValueError` where it says nothing."""
    if answer.error is not None:
        row = ERRORS.get(answer.error.code)
        if row is not None and row.retry:
            return Unavailable(answer.error.message, status=row.status)
        return Refused(answer.error.message, code=answer.error.code, status=None if row is None else row.status)
    if not answer.id:
        raise ValueError("neither an acknowledgement nor an error")
    return Ack(answer.id, answer.durability)


def _draft(channel: str, content: Content, event: str | None, key: str) -> _Draft:
    return _Draft(channel, content, event, key, batch_line(channel, content, event, key))


def _batches(messages: Iterable[Outgoing], new_key: Callable[[], str]) -> Iterator[list[_Draft | Refused]]:
    """Yield the messages in batches; in place of what can't be sent, the refusal."""
    batch: list[_Draft | Refused] = []
    size = 0
    for message in messages:
        try:
            if not isinstance(message, Outgoing):
                raise refused_here("request_invalid", f"publish_many: give Outgoing(…), not {type(message).__name__}")
            check_names(message.channel, message.event, message.key)
            key = new_key() if message.key is None else message.key
            each: _Draft | Refused = _draft(message.channel, content_of(message.data), message.event, key)
        except Refused as refused:
            each = refused
        length = len(each.line) if isinstance(each, _Draft) else 0
        if batch and (len(batch) == BATCH_LINES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += length
    if batch:
        yield batch
