"""The test subscribers of our own transports: short poll, long poll, SSE in two ways, and WebSocket in two.

Each has what a client needs to keep the promise, and no more. To add one, see `subscriber.py`. Those of WebSocket are
in `socket_subscribers.py`.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from ..message import Draft, Kind
from ..wire import http1_client, sse
from .socket_subscribers import RawSubscriber, V1Subscriber
from .subscriber import (
    MAX_MESSAGE_BYTES,
    CursorSeen,
    Cut,
    GapSeen,
    MessageSeen,
    Seen,
    Subscriber,
    message_of,
    refused,
    shown_in_json,
)

__all__ = [
    "SUBSCRIBERS",
    "LongPollSubscriber",
    "RawSubscriber",
    "ShortPollSubscriber",
    "SseEnvelopeSubscriber",
    "SseSubscriber",
    "V1Subscriber",
]

POLL_WAIT = 5.0  # seconds of a long poll: longer than the time of any expected message


class ShortPollSubscriber(Subscriber):
    """Polls repeatedly on one connection. An answer without a message is a `CursorSeen`."""

    name = "short_poll"
    streams = False
    polls = True

    def shows(self, draft: Draft) -> object:
        """Return the data of the message's JSON."""
        return shown_in_json(draft)

    async def connect(self) -> None:
        """Open the connection. The first poll is sent by `receive`."""
        await self.open()

    async def receive(self) -> list[Seen]:
        """Poll once."""
        self.send(self.get(self.query()))
        parser = http1_client.ResponseParser("GET")
        body = bytearray()
        status = 0
        while True:
            for event in parser.receive(await self.read()):
                match event:
                    case http1_client.ResponseHead():
                        status = event.status
                    case http1_client.Body():
                        body += event.data
                    case end:
                        if not end.keep_alive:
                            self.cut()
                        return self._answer(status, bytes(body))

    def _answer(self, status: int, body: bytes) -> list[Seen]:
        if status != 200:
            raise refused(status, body)
        answer = msgspec.json.decode(body)
        gaps = answer["gaps"] if "gaps" in answer else list(filter(None, [answer["gap"]]))
        seen: list[Seen] = [GapSeen(**gap) for gap in gaps]
        seen += map(message_of, answer["messages"])
        self.seek(answer["cursor"])
        return seen or [CursorSeen(answer["cursor"])]


class LongPollSubscriber(ShortPollSubscriber):
    """Polls without a wait first, for its cursor, then repeatedly with a wait."""

    name = "long_poll"
    waits = True

    def query(self) -> str:
        """Return the query: where to begin, and the seconds to wait."""
        return super().query() if self.cursor is None else f"{super().query()}&wait={POLL_WAIT:g}"


class SseSubscriber(Subscriber):
    """An `EventSource`. With one channel it sees the data alone, with several the message's JSON."""

    name = "sse"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._response = http1_client.ResponseParser("GET")
        self._events = sse.EventParser()
        self._status = 0
        self._error = bytearray()

    def shows(self, draft: Draft) -> object:
        """Return the data as a stream of text shows it."""
        if self._enveloped:
            return shown_in_json(draft)
        if draft.kind is Kind.BINARY:
            return base64.b64encode(draft.data).decode()
        return draft.data.decode().replace("\r\n", "\n").replace("\r", "\n")  # HTML Living Standard §9.2.6

    async def connect(self) -> None:
        """Connect as a browser does: the URL stays as it first was, `Last-Event-ID` has the cursor."""
        await self.open()
        last = (("Last-Event-ID", self.cursor),) if self.cursor else ()
        self.send(self.get(self.start, ("Accept", "text/event-stream"), *last))
        self._response = http1_client.ResponseParser("GET")
        self._events = sse.EventParser(last_event_id=self.cursor or "", max_event_bytes=MAX_MESSAGE_BYTES)

    async def receive(self) -> list[Seen]:
        """Return the next events."""
        seen: list[Seen] = []
        while not seen:
            try:
                parts = self._response.receive(await self.read())
            except http1_client.ResponseFailed:
                self.cut()
                raise Cut from None
            for part in parts:
                match part:
                    case http1_client.ResponseHead():
                        self._status = part.status
                        self._error.clear()
                    case http1_client.Body() if self._status == 200:
                        seen += map(self._event, self._events.receive(part.data))
                    case http1_client.Body():
                        self._error += part.data
                    case _:  # the end
                        self.cut()
                        if self._status != 200:
                            raise refused(self._status, bytes(self._error))
            last = self._events.last_event_id
            if last and last != self.cursor:
                if not seen or self._id_of(seen[-1]) != last:
                    seen.append(CursorSeen(last))
                self.seek(last)
            if self._writer is None and not seen:
                raise Cut
        return seen

    def _event(self, event: sse.SseEvent) -> Seen:
        name = None if event.event == "message" else event.event
        if name == "gap":
            fields = msgspec.json.decode(event.data)
            if isinstance(fields, dict) and "missed_from" in fields:
                return GapSeen(**fields)
        if self._enveloped:
            message = message_of(msgspec.json.decode(event.data))
            assert message.id == event.id, "the event's id and its message's id differ"
            return message
        return MessageSeen(event.id, self.channels[0], event.data, name)

    @property
    def _enveloped(self) -> bool:
        return len(self.channels) > 1 or "envelope=1" in self.extra

    @staticmethod
    def _id_of(seen: Seen) -> str | None:
        return seen.id if isinstance(seen, MessageSeen) else seen.cursor


class SseEnvelopeSubscriber(SseSubscriber):
    """SSE with `envelope=1`: it shows the message's JSON with one channel too."""

    name = "sse_envelope"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = "&".join(filter(None, (self.extra, "envelope=1")))


SUBSCRIBERS: tuple[type[Subscriber], ...] = (
    ShortPollSubscriber,
    LongPollSubscriber,
    SseSubscriber,
    SseEnvelopeSubscriber,
    V1Subscriber,
    RawSubscriber,
)
"""One for each way to listen that the server has."""
