"""What an application is handed and hands over: messages, gaps, acknowledgements, messages to publish, history.

All frozen, so that they can cross tasks and threads.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Ack", "ClientMessage", "Gap", "History", "Outgoing"]


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A message as a listener sees it.

    `data` is the decoded JSON, a `str`, or `bytes`. `id` is the cursor right after it. `time` is in Unix seconds.
    `raw_data` is the JSON of the data as it came, for what no value of Python's keeps: `1.10`, `1e999`, a key given
    twice; it is `b""` where the data is binary. `traceparent` is the context that it was published in, where its
    publisher or the server traces (W3C Trace Context §3.2). Messages that differ in these two alone are equal.
    """

    id: str
    channel: str
    data: Any
    event: str | None = None
    time: float
    raw_data: bytes = b""
    traceparent: str | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClientMessage):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash((self.id, self.channel))

    def _content(self) -> tuple[object, ...]:
        return self.id, self.channel, self.data, self.event, self.time


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were missed. Both ends of the range are included; `cursor` is where the stream goes on from.

    `reason` is `expired`, `epoch`, `slow` or `unknown`; a later server may have others. `missed_to` is None where the
    end is not known.
    """

    channel: str
    reason: str
    cursor: str
    missed_from: str | None = None
    missed_to: str | None = None


class Ack(msgspec.Struct, frozen=True):
    """The acknowledgement of a publish: the message's id, and how durable it is.

    `durability` is `memory`, `process`, `broker` or `fsync`, as in the wire's specification.
    """

    id: str
    durability: str


class Outgoing(msgspec.Struct, frozen=True):
    """A message for `publish_many`; the fields are the arguments of `publish`."""

    channel: str
    data: Any
    event: str | None = None
    key: str | None = None


class History(msgspec.Struct, frozen=True):
    """What a channel's log holds after a start: `messages` in order, `gaps` before them.

    `cursor` is the place after all of it: given as `after`, to `history` or `subscribe`, it goes on there.
    """

    messages: list[ClientMessage]
    gaps: list[Gap]
    cursor: str

    @property
    def gap(self) -> Gap | None:
        """The first gap, if there is one."""
        return self.gaps[0] if self.gaps else None
