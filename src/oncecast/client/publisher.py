"""Publishing by POST, repeated with the same key until it is acknowledged.

Invariant: a message that was given a key is sent with that key every time, so that it is in the log at most once
whichever of its acknowledgements were lost.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable

import msgspec

from ..message import check_channel, check_event, check_key
from .base import MALFORMED, Backoff, Broken, Refused, Timing, Unreachable, refusal
from .credentials import Credentials
from .http import Connection, Server, retry_after

__all__ = ["Ack", "Publisher"]


class Ack(msgspec.Struct, frozen=True):
    """The acknowledgement: the message's id, and how durable it is: `memory`, `broker` or `fsync`."""

    id: str
    durability: str


class Publisher:
    """Publishes on one kept-alive connection, one message at a time, in order.

    `patience` is how many seconds one message is retried for, None for ever. Where no attempt has ever reached the
    server, `Unreachable` is raised at once: then most often its address is wrong. `clock` is monotonic, in seconds;
    `new_key` makes a key that nobody else makes.
    """

    def __init__(
        self,
        server: Server,
        *,
        timing: Timing,
        backoff: Backoff | None = None,
        patience: float | None = None,
        credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_key: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._credentials = credentials or Credentials(None)
        self._connection = Connection(server, timing=timing, authorize=self._credentials.headers)
        self._backoff = backoff or Backoff(rng=random.random, sleep=asyncio.sleep)
        self._patience = patience
        self._clock = clock
        self._new_key = new_key
        self._reached = False

    async def publish(
        self, channel: str, data: bytes, *, content_type: str, event: str | None = None, key: str | None = None
    ) -> Ack:
        """Publish one message and return its acknowledgement.

        `content_type` decides its kind: `application/json`, `text/*` or any other for binary. Raises `Refused`,
        `Broken` past the patience, and `Refusal` or `UsageError` for a name or key that can't be sent.
        """
        headers = [
            ("Content-Type", content_type),
            ("Idempotency-Key", check_key(self._new_key() if key is None else key)),
        ]
        if event is not None:
            headers.append(("Oncecast-Event", check_event(event)))
        path = f"/v1/channels/{check_channel(channel)}"
        began = self._clock()
        self._backoff.reset()
        renewed = False
        while True:
            try:
                return await self._attempt(path, headers, data)
            except Refused as error:
                if error.code != "unauthorized" or renewed or not self._credentials.renewable:
                    raise
                renewed = True
                self._credentials.expire()
            except Broken as error:
                if isinstance(error, Unreachable) and not self._reached:
                    raise
                self._reached = True
                delay = self._backoff.next_delay(error.retry_after)
                if self._patience is not None and self._clock() - began + delay > self._patience:
                    raise
                await self._backoff.sleep(delay)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _attempt(self, path: str, headers: list[tuple[str, str]], data: bytes) -> Ack:
        answer = await self._connection.request("POST", path, headers, data)
        self._reached = True
        if answer.status not in (200, 201):
            raise refusal(answer.status, answer.body, retry_after(answer.headers, time.time))
        try:
            return msgspec.json.decode(answer.body, type=Ack)
        except MALFORMED:
            raise Refused("the answer is not an acknowledgement: is this an Oncecast server?") from None
