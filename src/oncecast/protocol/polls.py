"""Polls, short and long: read the log now, or wait up to `wait` seconds for the next message.

A short poll is one call, `answer_poll`. A long poll is a session, `WaitingPoll`: while it waits it has a subscription
whose blocks are empty, so that the hub's write only says that there is something to read.

Invariants: a poll is answered once, and a long poll within its wait and `READ_SECONDS` for each reading of the log.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias

from ..core.entry import Entry
from ..core.node import Node
from ..core.place import Place
from ..core.polls import MayRead, Poll
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import EARLIEST, Cursor, LogGap, Message, Start
from ..policy.access import Access
from ..policy.identity import ANYBODY, Identity
from ..wire import envelope
from .base import JSON_HEADERS, TAGS, Clock, Reply, TransportSettings
from .query import Query, after_cursor, check_count

__all__ = ["MOVES", "PollRequest", "PollState", "WaitingPoll", "answer_poll", "parse_wait"]


READ_SECONDS = 30.0  # for a page of the broker's history: past it a long poll is answered 503


class MessageJson:
    """The encoding of a message in a poll's answer."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the message's JSON."""
        return envelope.message_json(message, epoch)


MESSAGE_JSON = MessageJson()


class PollRequest:
    """What a poll asks for: the channels, the start, and what the client has already (`If-None-Match`).

    `here` is how far the log had been read when there was nothing new.
    """

    __slots__ = ("channels", "here", "known", "limit", "node", "start")

    def __init__(
        self,
        node: Node,
        settings: TransportSettings,
        channels: tuple[str, ...],
        query: Query,
        if_none_match: str | None,
    ) -> None:
        check_count(channels, settings)
        self.node = node
        self.channels = channels
        self.start = query.start or EARLIEST
        self.limit = min(query.limit or settings.poll_messages, settings.poll_messages)
        self.known = _etag_cursors(if_none_match)
        self.here = node.log.cursor(node.log.head)

    def answer(
        self,
        done: Callable[[Reply | Refusal | None], None],
        *,
        even_if_nothing: bool = True,
        may_read: MayRead | None = None,
    ) -> None:
        """Read the log now, and call `done` once. `may_read` is asked before the broker's history is read.

        With nothing new the answer is 304 for a client that has it, or None unless `even_if_nothing`.
        """

        # What is published while the log is read may be missing in the answer, so the head is taken before.
        head = self.node.log.cursor(self.node.log.head)

        def polled(poll: Poll | Refusal) -> None:
            if isinstance(poll, Refusal):
                done(poll)
            elif poll.is_large:
                self.node.bulk.add(partial(self._answer_large, poll, even_if_nothing, head, done))
            else:
                done(self._reply(poll, even_if_nothing, head))

        self.node.poll(self.channels, self.start, self.limit, polled, may_read)

    def _answer_large(
        self, poll: Poll, even_if_nothing: bool, head: Cursor, done: Callable[[Reply | Refusal | None], None]
    ) -> None:
        done(self._reply(poll, even_if_nothing, head))

    def _reply(self, poll: Poll, even_if_nothing: bool, head: Cursor) -> Reply | None:
        self.node.count_gaps(poll.gaps)
        nothing = not (poll.entries or poll.gaps)
        known = not poll.gaps and self._has(poll.entries, poll.cursor.epoch)
        if (nothing or known) and not even_if_nothing:
            if nothing:
                self.start = after_cursor(poll.cursor)  # `latest` must not move on while this waits
            self.here = max(poll.cursor, head, key=lambda cursor: cursor.seq)
            return None
        if known:
            return Reply(304, (("ETag", f'"{poll.cursor}"'), ("Cache-Control", "no-store")), b"")
        return Reply(200, (("ETag", f'"{poll.cursor}"'), *JSON_HEADERS), self._body(poll))

    def _body(self, poll: Poll) -> bytes:
        """Return the answer's body: one object for all that wait for the same large one."""
        if poll.gaps or not poll.is_large:
            return self._encode(poll)
        key = (self.channels, poll.cursor, tuple([entry.seq for entry in poll.entries]))
        return self.node.bulk.share(key, partial(self._encode, poll))

    def _encode(self, poll: Poll) -> bytes:
        messages = [self.node.encode(entry, MESSAGE_JSON) for entry in poll.entries]
        return envelope.poll_json(messages, poll.cursor, poll.gaps, several=len(self.channels) > 1) + b"\n"

    def _has(self, entries: list[Entry], epoch: str) -> bool:
        newest = entries[-1].seq if entries else 0
        return any(cursor.epoch == epoch and cursor.seq >= newest for cursor in self.known)


def _etag_cursors(header: str | None) -> tuple[Cursor, ...]:
    """Return the cursors in an If-None-Match (RFC 9110 §13.1.2); a tag that is no cursor matches nothing.

    Nor does one after the first TAGS, which costs no more than an answer that the client has.
    """
    cursors = []
    for tag in (header or "").split(",", TAGS)[:TAGS]:
        try:
            cursors.append(Cursor.parse(tag.strip().removeprefix("W/").strip('"')))
        except Refusal:
            continue
    return tuple(cursors)


def answer_poll(
    node: Node,
    settings: TransportSettings,
    channels: tuple[str, ...],
    query: Query,
    if_none_match: str | None,
    done: Callable[[Reply | Refusal], None],
    may_read: MayRead | None = None,
) -> None:
    """Answer a short poll: `200` with what there is, or `304` to a client that has it.

    `done` is called once: at once, unless the start lies in the broker's history. Raises `Refusal`.
    """

    def answered(reply: Reply | Refusal | None) -> None:
        assert reply is not None
        done(reply)

    PollRequest(node, settings, channels, query, if_none_match).answer(answered, may_read=may_read)


# -- long polls


class PollState(enum.Enum):
    """Where a long poll stands."""

    READING = "reading"  # the log, for what there is already
    WAITING = "waiting"  # for the next message, with a subscription
    ANSWERING = "answering"  # reading the log for the answer
    DONE = "done"


READING, WAITING, ANSWERING, DONE = PollState

PollEvent: TypeAlias = Literal[
    "nothing",
    "too late",
    "answer",
    "woken",
    "closed",
    "write",
    "gap",
    "drain",
    "refuse",
]

MOVES: Mapping[PollState, Mapping[PollEvent, PollState]] = {
    READING: {
        "nothing": WAITING,  # was found
        "too late": ANSWERING,  # nothing was found, and the wait is over
        "answer": DONE,
        "woken": DONE,  # READ_SECONDS are over
        "closed": DONE,
    },
    WAITING: {
        "write": ANSWERING,
        "gap": ANSWERING,
        "woken": ANSWERING,  # the wait is over
        "drain": ANSWERING,
        "refuse": DONE,
        "closed": DONE,
    },
    ANSWERING: {
        "answer": DONE,
        "woken": DONE,  # READ_SECONDS are over
        "closed": DONE,
    },
    DONE: {},
}
"""Which event moves a long poll where; an event that is not named changes nothing."""


class _Signal:
    """The format of a subscription that only says that there is something to read."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return nothing."""
        return b""

    def block(self, parts: list[bytes]) -> bytes:
        """Return nothing."""
        return b""


_SIGNAL = _Signal()


def _announce_nothing(place: Place) -> None:
    """The answer will have the place."""


def parse_wait(settings: TransportSettings, query: Query) -> float:
    """Return for how many seconds a poll waits. Raises `Refusal` for more than the limit."""
    wait = query.wait or 0.0
    if wait > settings.wait_seconds:
        raise Refusal("request_invalid", f"wait is at most {settings.wait_seconds:g} seconds: ask again after it.")
    return wait


class WaitingPoll:
    """One long poll. `done` is called once, with the reply or the refusal, unless the connection closes before.

    `longest` is how many seconds it may wait, whatever it asks for: until its token ends, so that the next renews it.
    `identity` is who has asked.
    Raises `Refusal`.
    """

    __slots__ = ("_clock", "_done", "_node", "_request", "_subscription", "_until", "identity", "state")

    def __init__(
        self,
        node: Node,
        settings: TransportSettings,
        clock: Clock,
        channels: tuple[str, ...],
        query: Query,
        if_none_match: str | None,
        done: Callable[[Reply | Refusal], None],
        may_read: MayRead | None = None,
        *,
        longest: float = math.inf,
        identity: Identity = ANYBODY,
    ) -> None:
        wait = min(parse_wait(settings, query), max(0.0, longest))
        self.identity = identity
        self._node = node
        self._clock = clock
        self._done = done
        self._request = PollRequest(node, settings, channels, query, if_none_match)
        self._subscription: Subscription | None = None
        self.state = READING
        self._until = clock.now() + wait
        self._request.answer(self._first, even_if_nothing=wait == 0, may_read=may_read)
        self._limit_the_read()

    # -- what the hub calls

    def write(self, block: bytes, /) -> None:
        """There is something to read."""
        self._read_answer("write")

    def gap(self, gap: LogGap, /) -> None:
        """There is a gap: the answer will have it, and count it."""
        self._node.hub.counters.gaps[gap.reason] -= 1
        self._read_answer("gap")

    def refuse(self, refusal: Refusal, /) -> None:
        """Answer with an error."""
        self._reply(refusal, "refuse" if self.state is WAITING else "answer")

    # -- what the connection calls

    def blocked(self) -> None:
        """An answer before this one fills the socket; this one waits behind it."""

    def drained(self) -> None:
        """See `blocked`."""

    def woken(self, now: float, /) -> None:
        """The wait is over, or the log could not be read in time."""
        if self.state is WAITING:
            self._read_answer("woken")
        else:
            late = Refusal("unavailable", "The log could not be read in time: try again.", retry_after=1)
            self._reply(late, "woken")

    def recheck(self, access: Access, identity: Identity, /) -> None:
        """Answer with the refusal where other access rules refuse the poll."""
        try:
            access.subscribe(identity, self._request.channels)
        except Refusal as refusal:
            self.refuse(refusal)

    def expiring(self, seconds: float, /) -> None:
        """Say nothing: the poll ends before its token."""

    def drain(self) -> None:
        """Answer now: the next poll goes to another server."""
        self._until = 0.0
        self._read_answer("drain")

    def closed(self) -> None:
        """The client has gone: forget the poll."""
        self._move("closed")
        self._leave()

    # -- helpers

    def _first(self, reply: Reply | Refusal | None) -> None:
        """Take the answer of the first read; with nothing new, wait."""
        if reply is not None:
            self._reply(reply)
        elif self._clock.now() >= self._until:  # the read has taken all of the wait
            self._read_answer("too late")
        elif self._move("nothing"):
            self._clock.wake_at(self._until)
            self._subscribe(after_cursor(self._request.here))

    def _subscribe(self, start: Start) -> None:
        try:
            self._subscription = self._node.subscribe(self._request.channels, start, self, _SIGNAL, _announce_nothing)
        except Refusal as refusal:
            self._reply(refusal, "refuse")

    def _read_answer(self, event: PollEvent) -> None:
        if self._move(event):
            self._leave()
            self._request.answer(self._reply)
            self._limit_the_read()

    def _limit_the_read(self) -> None:
        if self.state in (READING, ANSWERING):
            self._clock.wake_at(self._clock.now() + READ_SECONDS)

    def _reply(self, reply: Reply | Refusal | None, event: PollEvent = "answer") -> None:
        if self._move(event):
            assert reply is not None
            self._leave()
            self._done(reply)

    def _leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.hub.detach(subscription)

    def _move(self, event: PollEvent) -> bool:
        """Move as the table says; return whether that changes anything."""
        state = MOVES[self.state].get(event)
        if state is None:
            return False
        self.state = state
        return True
