"""The part that both WebSocket sessions share: the flood guard, publishing in batches, and an end in order.

Invariants: the messages of one read are published as one batch, in order; what the peer sent before it closed or broke
the protocol is published, answered and delivered before the session closes, within `END_SECONDS`; after `close`
nothing is sent.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

from ..brokers.base import Outcome
from ..core.node import Node
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import Draft
from ..policy.access import ALLOW_ALL, Access
from ..policy.bucket import Bucket, PublishBuckets
from ..policy.identity import Identity
from ..policy.quotas import too_many
from ..wire.v1_frames import Ref
from .base import Carrier, TransportSettings, publish, with_access

__all__ = ["END_SECONDS", "MOVES", "NORMAL", "SERVICE_RESTART", "UNSUPPORTED", "DuplexSession", "SessionState"]

END_SECONDS = 5.0  # for the broker to answer what was published before the end
NORMAL, UNSUPPORTED, SERVICE_RESTART = 1000, 1003, 1012  # RFC 6455 §7.4.1, and IANA's registry


class SessionState(enum.Enum):
    """OPEN; ENDING: the peer's messages are read no more, its publishes are still to be answered; CLOSED."""

    OPEN = "open"
    ENDING = "ending"
    CLOSED = "closed"


OPEN, ENDING, CLOSED = SessionState

DuplexEvent: TypeAlias = Literal[
    "wrong message",
    "overload",
    "ended",
    "refuse",
    "drain",
    "closed",
    "delivered",
    "woken",
]

MOVES: Mapping[SessionState, Mapping[DuplexEvent, SessionState]] = {
    OPEN: {
        "wrong message": ENDING,  # one that this session does not take
        "overload": ENDING,
        "ended": ENDING,
        "refuse": CLOSED,
        "drain": CLOSED,
        "closed": CLOSED,
    },
    ENDING: {
        "delivered": CLOSED,  # the publishes are answered, and delivered
        "woken": CLOSED,  # END_SECONDS are over
        "refuse": CLOSED,
        "drain": CLOSED,
        "closed": CLOSED,
    },
    CLOSED: {},
}
"""Which event moves a session where; an event that is not named changes nothing."""


class DuplexSession(ABC):
    """A session that publishes what its peer sends."""

    __slots__ = (
        "_batch",
        "_carrier",
        "_end",
        "_frames",
        "_node",
        "_publishes",
        "_settings",
        "_unanswered",
        "state",
    )

    def __init__(self, node: Node, settings: TransportSettings, carrier: Carrier) -> None:
        self._node = node
        self._settings = settings
        self._carrier = carrier
        self.state = OPEN
        self._batch: list[tuple[Draft, Ref]] | None = None  # the publishes of this read
        self._unanswered = 0  # publishes that the broker has not answered
        self._end: tuple[int, str] | None = None  # the close code and reason, once ENDING
        self._frames: Bucket | None = None
        self._publishes: PublishBuckets | None = None
        carrier.wake_at(carrier.now() + settings.heartbeat_seconds)

    @property
    def identity(self) -> Identity:
        """Who listens."""
        return self._carrier.identity

    # -- for the two kinds

    @abstractmethod
    def _subscriptions(self) -> Sequence[Subscription]: ...

    @abstractmethod
    def _take(self, payload: bytes, is_text: bool) -> None:
        """Act on one message of the peer."""

    @abstractmethod
    def _beat(self) -> None:
        """Send what a heartbeat says."""

    @abstractmethod
    def _answer(self, ref: Ref, outcome: Outcome) -> None:
        """Send the answer to a publish."""

    # -- what the carrier calls

    def received(self, payload: bytes, is_text: bool, /) -> None:
        """Act on one message of the peer; a publish waits for `flush`."""
        if self.state is OPEN:
            self._take(payload, is_text)

    def flush(self) -> None:
        """Publish what has been collected, as one batch."""
        batch = self._batch
        if batch is not None:
            self._batch = None
            self._unanswered += len(batch)
            drafts, refs = zip(*batch, strict=True)
            done = partial(self._published, refs)
            publish(self._node, self._settings, self, self._carrier.identity, drafts, done)
        if self.state is ENDING:
            self._close_if_answered()

    def ended(self) -> None:
        """Close once everything that came before is answered and delivered."""
        self._stop("ended", NORMAL, "")
        self.flush()

    def count_frame(self) -> None:
        """Count a frame without a message: together with the messages that are no publishes."""
        self._spend()

    def blocked(self) -> None:
        """Stop writing messages; their places in the log are kept."""
        self._node.hub.block(self._subscriptions())

    def drained(self) -> None:
        """Read on from those places."""
        self._node.hub.unblock(self._subscriptions())

    def woken(self, now: float, /) -> None:
        """Send a heartbeat; close if the broker has not answered in time."""
        if self.state is ENDING:
            self._close_in_order("woken")
            return
        if not self._carrier.full:
            self._beat()
        self._carrier.wake_at(now + self._settings.heartbeat_seconds)

    def recheck(self, access: Access, identity: Identity, /) -> None:
        """Hold what is published and read to other access rules. A channel that is refused ends the connection."""
        self._settings = with_access(self._settings, access)
        try:
            for subscription in self._subscriptions():
                access.subscribe(identity, subscription.channels)
        except Refusal as refusal:
            self.refuse(refusal)

    def drain(self) -> None:
        """Tell the client to reconnect: to this server's successor or to another."""
        self._close("drain", SERVICE_RESTART, "restarting: reconnect and resume")

    def closed(self) -> None:
        """Forget the client."""
        self._move("closed")
        self._leave()
        if self._settings.review is not None:
            self._settings.review.leave(self)

    # -- what the hub calls

    def write(self, data: bytes, /) -> None:
        """Send a block."""
        self._carrier.write(data)  # to keep the carrier's own method would take an object for each subscriber

    def refuse(self, refusal: Refusal, /) -> None:
        """Close with the error's code."""
        self._close("refuse", refusal.error.close, refusal.message)

    # -- helpers

    def _spend(self) -> bool:
        """Count a message against the flood guard. Return False, and end the session, past its rate."""
        now = self._carrier.now()
        if self._frames is None:
            self._frames = Bucket.steady(self._settings.frames_per_second, now)
        if self._frames.take(now) == 0:
            return True
        self._overload("frames_per_second")
        return False

    def _overload(self, name: str) -> None:
        """End, as the peer sends faster than one connection may."""
        self._settings.note_limited(name)
        refusal = too_many(name, getattr(self._settings, name))
        self._stop("overload", refusal.error.close, refusal.message)

    def _publish(self, draft: Draft, ref: Ref) -> None:
        now = self._carrier.now()
        settings, size = self._settings, len(draft.data)
        if self._publishes is None:
            self._publishes = PublishBuckets(settings.publishes_per_second, settings.bytes_per_second, now)
        over, _ = self._publishes.take(now, 1, size)
        if over:
            self._overload(over)
            return
        if settings.access is not ALLOW_ALL:
            settings.access.publish(self._carrier.identity, draft.channel)
        if settings.quotas is not None:
            settings.quotas.publish(self._carrier.identity, draft.channel, size, now)
        if self._batch is None:
            self._batch = []
        self._batch.append((draft, ref))

    def _published(self, refs: Sequence[Ref], outcomes: Sequence[Outcome]) -> None:
        self._unanswered -= len(refs)
        for ref, outcome in zip(refs, outcomes, strict=True):
            if self.state is CLOSED:
                return
            self._answer(ref, outcome)
        if self.state is ENDING:
            self._close_if_answered()

    def _fail(self, refusal: Refusal) -> None:
        """End because of what the peer has sent, with the error's code."""
        self._stop("wrong message", refusal.error.close, refusal.message)

    def _stop(self, event: DuplexEvent, code: int, reason: str) -> None:
        """Read no more; close with this code once everything is answered."""
        if self._move(event):
            self._end = (code, reason)
            self._carrier.stop()
            self._carrier.wake_at(self._carrier.now() + END_SECONDS)

    def _close_if_answered(self) -> None:
        if not self._batch and not self._unanswered:
            self._node.after_delivery(partial(self._close_in_order, "delivered"))

    def _close_in_order(self, event: DuplexEvent) -> None:
        if self._end is not None:
            self._close(event, *self._end)

    def _close(self, event: DuplexEvent, code: int, reason: str) -> None:
        if self._move(event):
            self._leave()
            self._carrier.close(code, reason)

    def _leave(self) -> None:
        self._batch = None
        for subscription in self._subscriptions():
            self._node.hub.detach(subscription)

    def _move(self, event: DuplexEvent) -> bool:
        """Move as the table says; return whether that changes anything."""
        state = MOVES[self.state].get(event)
        if state is None:
            return False
        self.state = state
        return True
