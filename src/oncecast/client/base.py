"""The client's contract: what a transport is given, what it yields, how it ends; and the backoff between attempts.

A transport is a function from *a start for each channel* to an async iterator of events. It keeps nothing: when it
breaks, the next one, of the same kind or another, is given the starts that follow from the events so far. It ends by
raising `Broken` (resume later) or `Refused` (do not), never by returning.

To add a transport, write a module with such a function, and name it in `transports.TRANSPORTS`.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import msgspec

from ..errors import ERRORS, OncecastError, Refusal
from ..message import Cursor

__all__ = [
    "MALFORMED",
    "MESSAGE_BYTES",
    "Adjustable",
    "Authorize",
    "Backoff",
    "Broken",
    "ChannelRefused",
    "ClientMessage",
    "CursorMoved",
    "Drained",
    "Event",
    "Gap",
    "Received",
    "Refused",
    "RetryHint",
    "Start",
    "Timing",
    "Transport",
    "Unreachable",
    "Unsuited",
    "anonymous",
    "common_start",
    "parse_cursor",
    "parse_gap",
    "parse_message",
    "pause_of",
    "refusal",
]

BASE_SECONDS = 0.5  # the ceiling of the first delay; it doubles with each failure
CAP_SECONDS = 30.0  # a server that is back is found within this time
UNREACHABLE_CAP_SECONDS = 5.0  # where nothing listens an attempt costs nobody anything, so look again sooner
MESSAGE_BYTES = 128 * 1024 * 1024  # the largest message that a server may be set to allow, in base64, fits
RETRY_AFTER_CAP = 3600.0  # a Retry-After past an hour is a mistake, or hostile
# What reading a server's JSON may raise: msgspec's errors are ValueErrors, and what is nested too deeply overflows.
MALFORMED = (ValueError, RecursionError)


# Data ------------------------------------------------------------------------------------------------------------


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A message as a listener sees it.

    `data` is the decoded JSON, a `str`, or `bytes`. `id` is the cursor right after it. `time` is in Unix seconds.
    `raw_data` is the JSON of the data as it came, for what no value of Python's keeps: `1.10`, `1e999`, a key given
    twice; it is `b""` where the data is binary. Messages that differ in it alone are equal.
    """

    id: str
    channel: str
    data: Any
    event: str | None = None
    time: float
    raw_data: bytes = b""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClientMessage):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash((self.id, self.channel))

    def _content(self) -> tuple[object, ...]:
        return self.id, self.channel, self.data, self.event, self.time


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that were missed: both ends of the range are included; `cursor` is where the stream goes on from.

    `reason` is `expired`, `epoch`, `slow` or `unknown`. `missed_to` is None where the end is not known.
    """

    channel: str
    reason: str
    cursor: str
    missed_from: str | None = None
    missed_to: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A message has arrived; its channel's place is now right after it."""

    message: ClientMessage


@dataclass(frozen=True, slots=True)
class CursorMoved:
    """The place of one channel, or of all where `channel` is None, is now `cursor`; no message goes with it."""

    cursor: str
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class RetryHint:
    """The server asks to stay away for `seconds` once this connection has ended."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ChannelRefused:
    """The server refuses this channel, for good; the connection and its other channels live on."""

    channel: str
    error: Refused


Event = Received | Gap | CursorMoved | RetryHint | ChannelRefused


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read a channel from: `after` a cursor, `latest` or `earliest`; or `last` N; or `since` Unix seconds."""

    name: str
    value: str

    @property
    def cursor(self) -> Cursor | None:
        """The cursor, where it is one that can be compared."""
        return parse_cursor(self.value) if self.name == "after" else None


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a client waits, in seconds."""

    connect: float = 10.0  # for TCP and TLS
    answer: float = 15.0  # for the head of an answer beyond what was asked to wait, and for an attachment
    idle: float = 37.5  # for the next byte of a stream: two and a half heartbeats at the server's default
    wait: float = 25.0  # asked for in a long poll: below the 30 s at which some proxies cut
    interval: float = 1.0  # between short polls that found nothing new
    attach: float = 2.5  # for a transport's first sign of life, while there is another to turn to
    proof: float = 10.0  # a connection that is cut sooner was cut early; one that a probe has kept for so long works
    probe: float = 40.0  # at most, between two looks whether a better transport works again
    grace: float = 1.0  # that a full subscription may hold up the others on its connection


Authorize = Callable[[], Awaitable[Sequence[tuple[str, str]]]]  # the headers that say who asks


async def anonymous() -> Sequence[tuple[str, str]]:
    """Return no headers: nobody in particular asks."""
    return ()


class Transport(Protocol):
    """One way to listen: yields events from `starts` on, until it raises `Broken` or `Refused`."""

    def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Connect and attach each channel at its start."""
        ...


@runtime_checkable
class Adjustable(Protocol):
    """What a transport is that can change its channels while it listens; any other is called again."""

    async def adjust(self, join: Mapping[str, Start], leave: Collection[str]) -> None:
        """Leave channels, then attach others; one that is in both is attached anew. Never raises `Broken`."""
        ...


# Ends ------------------------------------------------------------------------------------------------------------


class Broken(OncecastError):
    """The connection ended or failed; the same again can succeed, not before `retry_after` seconds if it is given."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unreachable(Broken):
    """Nothing listens there, or the name has no address."""


class Drained(Broken):
    """The server is about to stop: its successor, or another, can be asked."""


class Refused(OncecastError):
    """The server refuses, and will again. `code` is one of `errors.ERRORS`, or `""` where the answer had none."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Unsuited(Refused):
    """This transport can't work here, as a proxy or the server does not let it through; another one may."""


class _Error(msgspec.Struct):
    code: str
    message: str


class _Answer(msgspec.Struct):
    error: _Error


def refusal(status: int, body: bytes, retry_after: float | None, *, opening: bool = False) -> Broken | Refused:
    """Return what an HTTP answer other than success means.

    `opening` is for transports that others can stand in for: what did not come from our server is then `Unsuited`.
    """
    code, message = "", f"the server answers {status}"
    try:
        error = msgspec.json.decode(body, type=_Answer).error
        code, message = error.code, error.message
    except MALFORMED:
        pass  # a proxy's answer, or another server's
    if status in (408, 425, 429) or status >= 500:
        return Broken(message, retry_after=retry_after)
    if opening and code not in ERRORS:
        return Unsuited(message)
    return Refused(message, code=code)


# Behaviour -------------------------------------------------------------------------------------------------------


def pause_of(retry_after: float | None) -> float:
    """Return for how many seconds to stay away where a server asks for so many, or for nothing."""
    return min(max(retry_after or 0.0, 0.0), RETRY_AFTER_CAP)


class Backoff:
    """Full jitter: a random delay below a ceiling that doubles with each failure, up to `cap` seconds.

    `rng` returns a float in [0, 1); `sleep` waits that many seconds.
    """

    def __init__(
        self,
        *,
        rng: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        base: float = BASE_SECONDS,
        cap: float = CAP_SECONDS,
    ) -> None:
        self._rng = rng
        self.sleep = sleep
        self._base = base
        self._cap = cap
        self._failures = 0

    def next_delay(self, retry_after: float | None = None, *, cap: float = math.inf) -> float:
        """Count a failure and return the seconds to wait: at least `retry_after`, which the jitter then spreads.

        `cap` bounds the jitter of this delay, beside the cap that bounds all.
        """
        # The exponent is bounded before the ceiling is, so that a long outage doesn't overflow a float.
        ceiling = min(cap, self._cap, self._base * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return pause_of(retry_after) + self._rng() * ceiling

    def reset(self) -> None:
        """Begin again with the smallest ceiling, since something worked."""
        self._failures = 0


def common_start(starts: Mapping[str, Start]) -> Start:
    """Return one start from which no channel misses anything; what others have seen already is dropped as a repeat.

    `starts` is in the order in which the places last moved, so where epochs differ the first is of the oldest.
    """
    distinct = set(starts.values())
    if len(distinct) == 1:
        return distinct.pop()
    for start in distinct:
        if start.value == "earliest" or start.name == "since":
            return start  # the others began there too, and have moved on
    cursors = [cursor for start in starts.values() if (cursor := start.cursor)]
    if not cursors:
        return next(iter(starts.values()))
    oldest = min((c for c in cursors if c.epoch == cursors[0].epoch), key=lambda c: c.seq)
    return Start("after", str(oldest))


# Helpers ---------------------------------------------------------------------------------------------------------


def parse_cursor(text: str | None) -> Cursor | None:
    """Read a cursor; None where it is of a form that can't be compared."""
    try:
        return None if text is None else Cursor.parse(text)
    except Refusal:
        return None


class _Envelope(msgspec.Struct):
    id: str
    channel: str
    time: float
    event: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")  # left out; `null` is data
    data64: str | dict[str, str] | None = None


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_gap = msgspec.json.Decoder(Gap).decode


def parse_message(text: bytes | str) -> ClientMessage:
    """Read the JSON of a message. Raises `Broken` where it is none."""
    raw = b""
    try:
        fields = _read_envelope(text)
        if fields.data64 is not None:
            encoded = fields.data64["base64"] if isinstance(fields.data64, dict) else fields.data64
            data: Any = base64.b64decode(encoded, validate=True)
        elif raw := bytes(fields.data):
            data = _read_data(raw)
        else:
            raise Broken("the server sent a message without data")
    except (KeyError, *MALFORMED):  # what binascii raises is a ValueError too
        raise Broken("the server sent a message that is malformed") from None
    return ClientMessage(
        id=fields.id, channel=fields.channel, data=data, event=fields.event, time=fields.time, raw_data=raw
    )


def _read_data(data: bytes) -> Any:
    """Return the value of a message's JSON; its text, where no value of Python's can hold it.

    This must not fail: the message would be read again, and fail again, for ever.
    """
    try:
        return msgspec.json.decode(data)
    except MALFORMED:
        pass  # a number past a float's range, or very deep
    try:
        return json.loads(data)
    except MALFORMED:
        return data.decode("utf-8", "replace")


def parse_gap(text: bytes | str) -> Gap:
    """Read the JSON of a gap. Raises `Broken` where it is none."""
    try:
        return _read_gap(text)
    except MALFORMED:
        raise Broken("the server sent a gap that is malformed") from None
