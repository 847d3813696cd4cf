"""The values of the domain: what is published and stored, a place in a log, a gap in it, and where to start.

`Draft`, `Message`, `Cursor`, `LogGap`, `Start`, and what a read of stored messages is answered with, `Page`.

All frozen: they cross rooms and are shared by every subscriber. As structs they are made in a third of the time that a
frozen dataclass takes, and cost the garbage collector nothing. The grammar of channel names, event
names and cursors stands here and nowhere else.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from .errors import Refusal

CHANNEL_CHARS = 128
NO_PATTERNS = " Name each channel: there are no patterns."
CHANNEL_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{CHANNEL_CHARS - 1}}}", re.ASCII)
# The channels by which nodes tell each other something; no client can name them. What has to be there for days has one
# of its own, so that what counts for seconds can't push it out.
REVOCATIONS = "_oncecast"
TICKETS = "_oncecast.tickets"  # and disconnections, and who is there
INTERNAL = (REVOCATIONS, TICKETS)
EVENT_CHARS = 128  # an event name is a label, not a payload
GAP_EVENT = "gap"  # how an SSE stream says that messages were missed
EXPIRING_EVENT = "expiring"  # that the token ends soon; a message of this name has an id, and this event has none
ERROR_EVENT = "error"  # why the stream ends; the same holds
STREAM_EVENTS = frozenset({GAP_EVENT, EXPIRING_EVENT, ERROR_EVENT})
KEY_CHARS = 255  # what the draft on Idempotency-Key implementations commonly accept
# An event name or a key: what a header, a batch, a frame and an event stream all carry unaltered. A header can't have
# control characters but HTAB, and its reader strips spaces and tabs around the value (RFC 9110 §5.5). A line break ends
# the field of an event stream and begins another (HTML Living Standard §9.2.6). A surrogate has no UTF-8.
LABEL_PATTERN = re.compile(r"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]+(?<![ \t])")
CURSOR_PATTERN = re.compile(r"([A-Za-z0-9_]{1,32})-(0|[1-9][0-9]{0,18})", re.ASCII)
# What of the grammar a JSON Schema can say, for the documents; `_LABEL` is `LABEL_PATTERN` in simpler words.
_LABEL = r"^[^\x00-\x20\x7f]([^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?$"
CHANNEL_SCHEMA = {"pattern": f"^{CHANNEL_PATTERN.pattern}$", "examples": ["news"]}
EVENT_SCHEMA = {"pattern": _LABEL, "maxLength": EVENT_CHARS, "not": {"const": GAP_EVENT}}
KEY_SCHEMA = {"pattern": _LABEL, "maxLength": KEY_CHARS}
CURSOR_SCHEMA = {"pattern": f"^{CURSOR_PATTERN.pattern}$", "examples": ["k3f9x2-42"]}
TRACE_BYTES = 16 + 8 + 1
MAX_SEQ = 2**63 - 1  # what SQLite and the brokers can number
NUMBER_DIGITS = 18  # of a number that a peer sends: any 64-bit integer holds it, so every reader reads the same
MAX_NUMBER = 10**NUMBER_DIGITS - 1


class Kind(enum.IntEnum):
    """What a message's data is: JSON text, plain text (both UTF-8), or bytes."""

    JSON = 0
    TEXT = 1
    BINARY = 2


# Names for the members: to look one up on its class costs several times the comparison, and each publish makes a few.
JSON, TEXT, BINARY = Kind


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message that is not yet in the log. `key` makes a repeated publish land once, `trace` is as in `Message`."""

    channel: str
    data: bytes
    kind: Kind = Kind.JSON
    event: str | None = None
    key: str | None = None
    trace: bytes | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message in the log.

    `seq` is its number in the shard, across channels. `data` is exactly what was published: UTF-8 for JSON and
    text. `time` is when the broker appended it, in Unix seconds, and never decreases along a shard. `trace` is the
    context that it was published in, `TRACE_BYTES` long: the trace's id, the span's id and the flags (W3C Trace
    Context §3.2.2).
    """

    seq: int
    channel: str
    data: bytes
    kind: Kind
    event: str | None
    time: float
    trace: bytes | None = None


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A place in a log: everything up to and including `seq`, in the life of the log that `epoch` names.

    Written `<epoch>-<seq>`, which stays inside `[A-Za-z0-9._-]`: a `Last-Event-ID` outside that makes a browser
    preflight each cross-origin reconnect.
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor. Raises `Refusal` (`cursor_invalid`) where the text can't be one that was ever handed out."""
        match = CURSOR_PATTERN.fullmatch(text)
        if match is None or (seq := int(match[2])) > MAX_SEQ:
            shown = text[:64].encode("ascii", "backslashreplace").decode()
            raise Refusal("cursor_invalid", f"{shown!r} is not a cursor: send back an id exactly as you received it.")
        return cls(match[1], seq)


class Reason(enum.StrEnum):
    """Why messages were missed."""

    EXPIRED = "expired"  # retention had trimmed them before the subscriber came back
    EPOCH = "epoch"  # the cursor is of another life of the log
    SLOW = "slow"  # the subscriber read too slowly and its place was trimmed, or its channel skips to the newest
    UNKNOWN = "unknown"  # the cursor is ahead of the log, which never handed it out


class LogGap(msgspec.Struct, frozen=True, gc=False):
    """Messages of `channel` that a subscriber has missed, and the cursor that its stream goes on from.

    `missed_from` and `missed_to` are the ends of the missing range, both included; `missed_to` is None where the log
    they were in is gone and its end is not known.
    """

    channel: str
    reason: Reason
    missed_from: Cursor
    missed_to: Cursor | None
    cursor: Cursor


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The last message that was trimmed from a channel: its `seq` and its wall-clock `time`."""

    seq: int = 0
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a channel is kept: at most `messages`, none older than `seconds`."""

    messages: int = 10_000
    seconds: float = 3600.0


RetentionPolicy = Callable[[str], Retention]  # the retention of a channel, by its name


class StartKind(enum.Enum):
    """Where a subscriber begins to read."""

    LATEST = "latest"
    EARLIEST = "earliest"
    CURSOR = "cursor"
    LAST = "last"
    SINCE = "since"


@dataclass(frozen=True, slots=True)
class Start:
    """A start: `cursor` with CURSOR, `number` with LAST (messages of each channel) and SINCE (Unix seconds).

    A read of history that goes on after a page with floors gives them with CURSOR, in the order of its channels.
    Messages at or below a channel's floor are left out.

    Raises `Refusal` where `number` is negative or not finite, or the cursor is not one that can be written.
    """

    kind: StartKind
    cursor: Cursor | None = None
    number: float = 0
    floors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.number < math.inf:  # NaN is neither
            raise Refusal("request_invalid", "last and since are numbers, 0 or more.")
        if self.cursor is not None and not 0 <= self.cursor.seq <= MAX_SEQ:
            raise Refusal("cursor_invalid", "The number of a cursor is at most 2^63 - 1: send back an id as received.")
        if self.kind is StartKind.LAST and self.number > MAX_SEQ:  # no log holds as many
            object.__setattr__(self, "number", MAX_SEQ)


LATEST = Start(StartKind.LATEST)
EARLIEST = Start(StartKind.EARLIEST)


class Page(msgspec.Struct, frozen=True, gc=False):
    """What a read of a broker's history found: the messages of the channels above `after`, in order, all up to `upto`.

    `after` is the place that the start came to. `marks` has each channel's trimmed mark. For `last=N`, `floors` has for
    each channel the number that its N newest messages are above.
    """

    after: int
    messages: list[Message]
    upto: int
    marks: Mapping[str, Mark]
    floors: Mapping[str, int] = {}


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to a publish: the message's id, and how durable it is.

    `memory`: until this process ends. `process`: it survives the end of every process, but perhaps not a power cut.
    `broker`: as durable as another server keeps it. `fsync`: on the disk.
    """

    epoch: str
    seq: int
    durability: str

    @property
    def id(self) -> str:
        """The message's id: the cursor right after it."""
        return f"{self.epoch}-{self.seq}"


def check_channel(name: str) -> str:
    """Return `name` if it is a channel name, else raise `Refusal` (`channel_invalid`)."""
    if CHANNEL_PATTERN.fullmatch(name) is None:
        shown = name[:140].encode("ascii", "backslashreplace").decode()
        raise Refusal(
            "channel_invalid",
            f"{shown!r} is not a channel name: use 1 to {CHANNEL_CHARS} of A-Z a-z 0-9 . _ : @ - and start with a "
            f"letter or digit.{NO_PATTERNS if '*' in name else ''}",
        )
    return name


def check_event(name: str) -> str:
    """Return `name` if it can be an event name, else raise `Refusal` (`event_invalid`)."""
    _check_label("event_invalid", "An event name", name, EVENT_CHARS)
    if name == GAP_EVENT:  # an EventSource could not tell it from a gap of its own stream
        raise Refusal("event_invalid", f"The event name {GAP_EVENT} is the stream's own: choose another.")
    return name


def check_key(key: str) -> str:
    """Return `key` if it can be an idempotency key, else raise `Refusal` (`key_invalid`)."""
    _check_label("key_invalid", "An Idempotency-Key", key, KEY_CHARS)
    return key


def _check_label(code: str, what: str, text: str, chars: int) -> None:
    if len(text) > chars or LABEL_PATTERN.fullmatch(text) is None:
        raise Refusal(
            code,
            f"{what} is 1 to {chars} characters without control characters, and has no space or tab at its ends: "
            "choose another.",
        )
