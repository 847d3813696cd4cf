"""What the nodes of one log tell each other by two internal channels: tickets, their use, disconnected users, and
who is there (`roll.py`).

A broker orders its log, and every node reads the same order. So the first record that redeems a ticket decides, on
every node alike, and a ticket is used once, whichever nodes are asked at the same moment. A ticket is a random text.
The log has its hash and what it grants. No client can name the channels, as their names begin with `_`. Revocations
have one of their own, as a node that starts days later has to find them.

Invariants: every callback is called once, within `ANSWER_SECONDS`; all that is kept has a bound. Records that were not
written here are skipped. Time is passed in: Unix seconds in records, and monotonic ones for what waits here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import floor

import msgspec

from ..brokers.base import Outcome
from ..core.node import Node
from ..core.place import Place
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import (
    EARLIEST,
    INTERNAL,
    JSON,
    REVOCATIONS,
    TICKETS,
    Cursor,
    Draft,
    LogGap,
    Receipt,
    Start,
    StartKind,
)
from ..policy.identity import Identity, grant_bytes
from .notices import LINES, Granted, NodeNotice, read_notice
from .roll import Roll

__all__ = ["LATE_SECONDS", "REVOCATION_RECORDS", "TICKET_SECONDS", "Bulletin"]

TICKET_SECONDS = 30.0
KNOWN_BYTES = 64 << 20  # of tickets at a time: 100,000, or 5,000 of the most patterns; past it the oldest are forgotten
TICKET_BYTES = 600  # the objects of a ticket without its texts, measured with tracemalloc
WAITING = 10_000  # requests that wait for a ticket to be heard of, and apart from them those that redeem a known one
NEWS_SECONDS = 2.0  # for a ticket that another node has just issued to be heard of here
ANSWER_SECONDS = 5.0  # for one's own record to come back
NOBODY = "-"  # has redeemed a ticket that was revoked; a nonce is hexadecimal
LATE_SECONDS = 60.0  # a record from before this node began to read disconnects nobody if it is older
REVOKED = 100_000  # users whose older tokens are refused; past it no more can be revoked, as one would be forgotten
REVOCATION_RECORDS = 2 * REVOKED  # kept in the log, as a user may be revoked again; past it no more can be either
REVOKED_SECONDS = 60.0  # the Retry-After when no more users can be revoked

_UNKNOWN = Refusal("unauthorized", "This ticket is not known, or was used, or has ended: get another one.")
_FULL = Refusal(
    "unavailable",
    "As many revocations stand as can be kept: let tokens end sooner (auth.max_token_seconds), or change the keys.",
    retry_after=REVOKED_SECONDS,
)
_NOWHERE = Cursor("", 0)
_LATE = Refusal("unavailable", "The ticket could not be looked up in time: try again.", retry_after=1)

Redeemed = Callable[[Identity | Refusal], None]
Published = Callable[[Receipt | Refusal], None]


@dataclass(slots=True)
class _Ticket:
    until: float
    granted: Granted
    winner: str | None = None  # the nonce of the first redemption

    def size(self) -> int:
        """Return about how many bytes it takes."""
        granted = self.granted
        return TICKET_BYTES + grant_bytes(granted.subject, granted.subscribe, granted.publish)


@dataclass(slots=True)
class _Redeeming:
    """One that redeems: it waits for the ticket to be heard of, or for its own record."""

    digest: str
    done: Redeemed
    until: float
    nonce: str = ""


@dataclass(slots=True, eq=False)
class Bulletin:
    """One node's end. `random` returns as many random bytes as it is asked for.

    `disconnect` is called with each user whose connections are to end. `revoked` has, by user, the time before which no
    token of that user may have been issued. `warn` takes a line for the log.
    """

    node: Node
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    random: Callable[[int], bytes]
    disconnect: Callable[[str], None]
    warn: Callable[[str], None]
    remember_seconds: float = 604_800.0
    revoked: dict[str, float] = field(default_factory=dict)
    forgotten: int = 0  # revocations that have been given up for newer ones
    written: int = 0  # records that were published here
    read: int = 0  # records that were delivered here
    _subscription: Subscription | None = None
    _begun: Cursor = _NOWHERE  # the log's head as it began to read: what comes later is news, whatever a clock says
    _place: Cursor | None = None  # of the last record that was read
    _standing: deque[float] = field(default_factory=deque)  # the times of the revocations that the log still has
    _tickets: dict[str, _Ticket] = field(default_factory=dict)
    _ticket_bytes: int = 0
    _unheard: dict[int, _Redeeming] = field(default_factory=dict)
    _redeeming: dict[str, _Redeeming] = field(default_factory=dict)
    roll: Roll = field(init=False)

    def __post_init__(self) -> None:
        self.roll = Roll(
            self.monotonic,
            lambda: self._tell(NodeNotice(self.wall(), call=True)),
            lambda presence: self._tell(NodeNotice(self.wall(), here=presence)),
        )

    def tick(self) -> None:
        """Begin to read, or go on; give up what has waited too long, and forget what has ended. Call it each second."""
        if self._subscription is None:
            start = EARLIEST if self._place is None else Start(StartKind.CURSOR, self._place)
            try:
                self._subscription = self.node.subscribe(INTERNAL, start, self, LINES, _ignore)
            except Refusal:
                return  # the node is not ready yet
            if not self._begun.epoch:
                self._begun = self.node.log.cursor(self.node.log.head)
        now, wall = self.monotonic(), self.wall()
        for request in [each for each in self._unheard.values() if now >= each.until]:
            del self._unheard[id(request)]
            request.done(_UNKNOWN)
        for request in [each for each in self._redeeming.values() if now >= each.until]:
            del self._redeeming[request.nonce]
            request.done(_LATE)
        while self._tickets and next(iter(self._tickets.values())).until < wall - LATE_SECONDS:
            self._forget_oldest()
        for subject in [each for each, since in self.revoked.items() if since + self.remember_seconds < wall]:
            del self.revoked[subject]
        while self._standing and self._standing[0] + self.remember_seconds < wall:
            self._standing.popleft()

    # -- what the routes call

    def issue(self, identity: Identity, done: Callable[[str | Refusal], None]) -> None:
        """Make a ticket that grants what an identity does, and call `done` with it once every node can know it."""
        ticket = self.random(24).hex()
        granted = Granted(identity.subject, identity.subscribe, identity.publish, identity.issued, identity.expires)
        record = NodeNotice(self.wall(), ticket=_digest(ticket), granted=granted)
        self._publish(TICKETS, record, lambda outcome: done(outcome if isinstance(outcome, Refusal) else ticket))

    def redeem(self, ticket: str, done: Redeemed) -> None:
        """Use a ticket, and call `done` with what it grants, or with why it does not."""
        digest = _digest(ticket)
        now = self.monotonic()
        known = self._tickets.get(digest)
        if known is not None and (known.winner or self.wall() >= known.until):
            done(_UNKNOWN)  # without a record, as the request has proved nothing
        elif len(self._unheard if known is None else self._redeeming) >= WAITING:  # made-up ones refuse no known one
            done(Refusal("unavailable", "Too many tickets are being looked up: try again.", retry_after=1))
        elif known is not None:
            self._begin(_Redeeming(digest, done, now + ANSWER_SECONDS))
        else:
            request = _Redeeming(digest, done, now + NEWS_SECONDS)
            self._unheard[id(request)] = request

    def end(self, subject: str, done: Published, *, revoke: bool) -> None:
        """Disconnect a user from every node; with `revoke` tokens that were issued before this second count no more.

        `done` gets a refusal where as many are revoked as can be kept.
        """
        if revoke and (
            len(self._standing) >= REVOCATION_RECORDS or (len(self.revoked) >= REVOKED and subject not in self.revoked)
        ):
            done(_FULL)
            return
        now = self.wall()
        record = NodeNotice(now, disconnect=subject, not_before=float(floor(now)) if revoke else None)
        self._publish(REVOCATIONS if revoke else TICKETS, record, done)

    # -- what the hub calls

    def write(self, block: bytes, /) -> None:
        """Read records."""
        for line in block.split(b"\n"):
            place, _, data = line.partition(b" ")
            if data:
                self.read += 1
                try:
                    self._place, record = Cursor.parse(place.decode()), read_notice(data)
                except (Refusal, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    self.warn("a record of the internal channel is skipped: it was not written by Oncecast")
                    continue
                is_news = self._place.epoch != self._begun.epoch or self._place.seq > self._begun.seq
                self._take(record, late=not is_news and record.at <= self.wall() - LATE_SECONDS)

    def gap(self, gap: LogGap, /) -> None:
        """Go on: a ticket that was missed is not known, and a revocation that was missed is in the log no more."""
        self.warn(f"records of the internal channel are gone ({gap.reason.value})")

    def refuse(self, refusal: Refusal, /) -> None:
        """Go on at the next tick, after the last record that was read: none counts twice."""
        if self._subscription is not None:
            self.node.hub.detach(self._subscription)
        self._subscription = None

    # -- helpers

    def _publish(self, channel: str, record: NodeNotice, done: Published) -> None:
        def answered(outcomes: Sequence[Outcome]) -> None:
            done(outcomes[0])

        self.written += 1
        self.node.publish((Draft(channel, msgspec.json.encode(record), JSON),), answered)

    def _tell(self, record: NodeNotice) -> None:
        """Write a call or an answer. While the broker is away nothing is written: it would wait among the publishes."""
        if self.node.unready is None:
            self._publish(TICKETS, record, _unheard_of)

    def _begin(self, request: _Redeeming) -> None:
        """Say that this node redeems; the first that says so wins."""
        request.nonce = self.random(16).hex()
        request.until = self.monotonic() + ANSWER_SECONDS
        self._redeeming[request.nonce] = request
        record = NodeNotice(self.wall(), redeem=request.digest, nonce=request.nonce)
        self._publish(TICKETS, record, partial(self._announced, request))

    def _announced(self, request: _Redeeming, outcome: Receipt | Refusal) -> None:
        if isinstance(outcome, Refusal) and self._redeeming.pop(request.nonce, None) is not None:
            request.done(outcome)

    def _take(self, record: NodeNotice, *, late: bool) -> None:
        if record.ticket is not None and record.granted is not None:
            self._hear(record.ticket, _Ticket(record.at + TICKET_SECONDS, record.granted))
        elif record.redeem is not None:
            self._redeemed(record.redeem, record.nonce)
        elif record.disconnect is not None:
            if record.not_before is not None:
                self._standing.append(record.at)
                self._revoke(record.disconnect, record.not_before)
            if not late:
                self.disconnect(record.disconnect)
        elif not late:
            if record.call:
                self.roll.called()
            elif record.here is not None:
                self.roll.heard(record.here)

    def _revoke(self, subject: str, since: float) -> None:
        since = max(since, self.revoked.pop(subject, 0.0))  # taken out, so that the oldest stand at the front
        if len(self.revoked) >= REVOKED:  # several nodes have passed the bound at once
            del self.revoked[next(iter(self.revoked))]
            self.forgotten += 1
            self.warn(f"a revocation was forgotten for a newer one, as more than {REVOKED} users are revoked")
        self.revoked[subject] = since
        for ticket in self._tickets.values():  # issued before, as the log has it
            if ticket.granted.subject == subject and ticket.winner is None:
                ticket.winner = NOBODY

    def _hear(self, digest: str, ticket: _Ticket) -> None:
        if ticket.until < self.wall() - LATE_SECONDS:
            return
        if digest not in self._tickets:
            self._ticket_bytes += ticket.size()
            while self._tickets and self._ticket_bytes > KNOWN_BYTES:
                self._forget_oldest()
            self._tickets[digest] = ticket
        for request in [each for each in self._unheard.values() if each.digest == digest]:
            del self._unheard[id(request)]
            self._begin(request)

    def _forget_oldest(self) -> None:
        self._ticket_bytes -= self._tickets.pop(next(iter(self._tickets))).size()

    def _redeemed(self, digest: str, nonce: str) -> None:
        ticket = self._tickets.get(digest)
        if ticket is not None and ticket.winner is None:
            ticket.winner = nonce
        request = self._redeeming.pop(nonce, None)
        if request is None:  # another node's
            return
        if ticket is None or ticket.winner != nonce or self.wall() >= ticket.until:
            request.done(_UNKNOWN)
            return
        granted = ticket.granted
        request.done(
            Identity("", granted.subject, "token", granted.subscribe, granted.publish, granted.issued, granted.expires)
        )


def _ignore(place: Place) -> None:
    """The place is the hub's."""


def _unheard_of(outcome: Receipt | Refusal) -> None:
    """A call or an answer that the broker did not take: the next look asks again."""


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()
