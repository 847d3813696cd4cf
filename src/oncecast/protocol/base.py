"""The contract of a transport: what it is given, what it is asked, and how a request says where to start.

A transport is one subscriber's life. It talks to the node above it and to a `Link` below it, the connection that
carries its bytes; the link calls its `Listener` methods. A transport holds no timer and no task: it asks the link to
be woken at a time. To add one, write a file beside this one, run `oncecast.testing.check_transport` over it, and route
to it in `http/listening.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from urllib.parse import parse_qsl

import msgspec

from ..core.entry import Entry
from ..core.node import Node, Poll
from ..errors import Refusal
from ..message import EARLIEST, LATEST, Cursor, Gap, Message, Start, StartKind, check_channel
from ..policy.access import ALLOW_ALL, Access
from ..policy.identity import Identity
from ..policy.limits import Limits
from ..wire import envelope
from ..wire.ws_frames import REASON_BYTES

HEARTBEAT_HEADER = "Oncecast-Heartbeat"  # of the answer that opens a stream or a socket: seconds between heartbeats
DRAIN_MS = 1000  # when to come back to a server that stops: time enough for a successor to be ready
QUERY_FIELDS = 32  # a URL of 16 KiB could hold thousands of empty ones
# Not what `float` takes, which no other language reads alike: 1_0, white space, 1e3, inf. 18 digits keep it finite.
_SECONDS = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")


class Link(Protocol):
    """What carries a transport's bytes: a connection of the server, or one of another server's."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send bytes. Never raises; past what the socket holds, the listener is told that it is `blocked`."""
        ...

    @property
    def identity(self) -> Identity:
        """Who the connection speaks for, and from where. `Settings.access` is asked with it."""
        ...

    @property
    def descriptor(self) -> int | None:
        """The socket's, or None. It may be written to as long as the listener is not `blocked`."""
        ...

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        ...

    def wake_at(self, when: float) -> None:
        """Call `woken` at this time, once; a later call replaces an earlier one."""
        ...

    def end(self) -> None:
        """Send what is written, then close, reading no more."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Listener(Protocol):
    """What a link calls."""

    def received(self, data: bytes, /) -> None:
        """Bytes have come from the subscriber."""
        ...

    def blocked(self) -> None:
        """The socket is full."""
        ...

    def drained(self) -> None:
        """The socket takes bytes again."""
        ...

    def woken(self, now: float, /) -> None:
        """The time asked for has come."""
        ...

    def closed(self) -> None:
        """The connection is gone. Nothing is called after this."""
        ...

    def drain(self) -> None:
        """The server is stopping: say so, and end."""
        ...


class Settings(Limits, frozen=True, kw_only=True):
    """What the transports are set to: the limits, whether WebSockets may compress messages, and the access rules."""

    deflate: bool = False
    access: Access = ALLOW_ALL


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer to a request that is not a stream."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


JSON_HEADERS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))


def json_reply(status: int, body: bytes, *headers: tuple[str, str]) -> Reply:
    """Return an answer in JSON. It ends its line, so that a terminal's prompt does not follow it on the same one."""
    return Reply(status, headers + JSON_HEADERS, body + b"\n")


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a subscription's URL. `start` and `wait` are None where it has none."""

    start: Start | None
    wait: float | None
    limit: int | None
    envelope: bool


class MessageJson:
    """The format of a message in a poll's answer."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the message's JSON."""
        return envelope.message_json(message, epoch)


MESSAGE_JSON = MessageJson()


# -- reading a request


@lru_cache(maxsize=1024)  # a pure function of what clients repeat
def parse_channels(names: str) -> tuple[str, ...]:
    """Read the channels of a path: names separated by commas, each once, in the order given. Raises `Refusal`."""
    return tuple(dict.fromkeys(check_channel(name) for name in names.split(",")))


@lru_cache(maxsize=1024)
def parse_query(query: str) -> Query:
    """Read `after`, `last`, `since`, `wait`, `limit`, `envelope`; other fields are ignored. Raises `Refusal`."""
    try:
        fields = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise Refusal("request_invalid", f"The query is not UTF-8 or has over {QUERY_FIELDS} fields.") from None
    known: dict[str, str] = {}
    for name, value in fields:
        if name in known:
            raise Refusal("request_invalid", f"{name} stands twice in the query: give it once.")
        if name in ("after", "last", "since", "wait", "limit", "envelope"):
            known[name] = value
    after = known.get("after")
    return Query(
        start=parse_start(after, _whole("last", known.get("last"), 0), _seconds("since", known.get("since"))),
        wait=_seconds("wait", known.get("wait")),
        limit=_whole("limit", known.get("limit"), 1),
        envelope=known.get("envelope", "0") not in ("0", "false", ""),
    )


def parse_start(after: str | None, last: int | None, since: float | None) -> Start | None:
    """Turn one of `after`, `last`, `since` into a start; None where none is given. Raises `Refusal`."""
    if (after is not None) + (last is not None) + (since is not None) > 1:
        raise Refusal("request_invalid", "Give one of after, last and since, not several.")
    if last is not None:
        if last < 0:
            raise Refusal("request_invalid", "last is a number of messages, 0 or more.")
        return Start(StartKind.LAST, number=last)
    if since is not None:
        if since < 0:
            raise Refusal("request_invalid", "since is a number of seconds, 0 or more.")
        return Start(StartKind.SINCE, number=since)
    match after:
        case None:
            return None
        case "latest":
            return LATEST
        case "earliest":
            return EARLIEST
        case _:
            return after_cursor(Cursor.parse(after))


def after_cursor(cursor: Cursor) -> Start:
    """Return the start that is right after a cursor."""
    return Start(StartKind.CURSOR, cursor)


def check_count(channels: Sequence[object], limit: int) -> None:
    """Raise `Refusal` where there are more channels than a subscription may have."""
    if len(channels) > limit:
        raise Refusal("request_invalid", f"A subscription has at most {limit} channels: open another for the rest.")


# -- polls, short and long


class PollRequest:
    """What a poll asks for: the channels, the start, and what the client has already (`If-None-Match`).

    `here` is how far the log had been read when there was nothing new.
    """

    __slots__ = ("channels", "here", "known", "limit", "node", "start")

    def __init__(
        self, node: Node, settings: Settings, channels: tuple[str, ...], query: Query, if_none_match: str | None
    ) -> None:
        check_count(channels, settings.channels_per_subscription)
        self.node = node
        self.channels = channels
        self.start = query.start or EARLIEST
        self.limit = min(query.limit or settings.poll_messages, settings.poll_messages)
        self.known = _etag_cursors(if_none_match)
        self.here = node.log.cursor(node.log.head)

    def answer(self, done: Callable[[Reply | Refusal | None], None], *, even_if_nothing: bool = True) -> None:
        """Read the log now, and call `done` once.

        With nothing new the answer is 304 to whoever has it, or None unless `even_if_nothing`.
        """

        head = self.node.log.cursor(self.node.log.head)  # what comes while it is read may not be in the answer

        def polled(poll: Poll | Refusal) -> None:
            done(poll if isinstance(poll, Refusal) else self._reply(poll, even_if_nothing, head))

        self.node.poll(self.channels, self.start, self.limit, polled)

    def _reply(self, poll: Poll, even_if_nothing: bool, head: Cursor) -> Reply | None:
        nothing = not (poll.entries or poll.gaps)
        known = not poll.gaps and self._has(poll.entries, poll.cursor.epoch)
        if (nothing or known) and not even_if_nothing:
            if nothing:
                self.start = after_cursor(poll.cursor)  # `latest` must not move on while this waits
            self.here = max(poll.cursor, head, key=lambda cursor: cursor.seq)
            return None
        if known:
            return Reply(304, (("ETag", f'"{poll.cursor}"'), ("Cache-Control", "no-store")), b"")
        messages = [self.node.encode(entry, MESSAGE_JSON) for entry in poll.entries]
        body = envelope.poll_json(messages, poll.cursor, poll.gaps, several=len(self.channels) > 1)
        return json_reply(200, body, ("ETag", f'"{poll.cursor}"'))

    def _has(self, entries: list[Entry], epoch: str) -> bool:
        newest = entries[-1].seq if entries else 0
        return any(cursor.epoch == epoch and cursor.seq >= newest for cursor in self.known)


def _etag_cursors(header: str | None) -> tuple[Cursor, ...]:
    """Return the cursors in an If-None-Match (RFC 9110 §13.1.2); a tag that is none of ours matches nothing."""
    cursors = []
    for tag in (header or "").split(","):
        try:
            cursors.append(Cursor.parse(tag.strip().removeprefix("W/").strip('"')))
        except Refusal:
            continue
    return tuple(cursors)


# -- helpers


def gap_text(gap: Gap) -> str:
    """Say a gap in one short line, for a close frame's reason: what would not fit is taken from the channel's name."""
    before, after = f"gap ({gap.reason.value}) on ", f"; go on from {gap.cursor}"
    room = REASON_BYTES - len(before) - len(after)
    return before + (gap.channel if len(gap.channel) <= room else f"{gap.channel[: room - 3]}...") + after


def _whole(name: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= least):
        raise Refusal("request_invalid", f"{name} is a whole number, {least} or more.")
    return int(text)


def _seconds(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    if _SECONDS.fullmatch(text) is None:
        raise Refusal("request_invalid", f"{name} is a number of seconds, 0 or more, in digits: 25 or 0.5.")
    return float(text)
