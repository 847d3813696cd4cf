"""The subprotocol `oncecast.v1`: JSON frames, with a subscription for each channel.

Each channel has a subscription of its own, so that it can start and resume at its own cursor. To add a frame, add it to
`wire/envelope.py` and handle it in `V1Session._act`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import assert_never

from ..brokers.base import Outcome
from ..core.node import Node
from ..core.place import Place
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import LATEST, LogGap, Message, Start, check_channel
from ..policy.identity import Identity
from ..wire import v1_frames
from ..wire.v1_frames import Ref
from .base import DRAIN_MS, Carrier, TransportSettings
from .duplex import UNSUPPORTED, DuplexSession, SessionState
from .query import Query, check_count, parse_channels, parse_start

__all__ = ["ENCODER", "PROTOCOL", "V1Encoder", "V1Session"]

PROTOCOL = "oncecast.v1"


class V1Encoder:
    """A message as a `message` frame."""

    __slots__ = ()

    def payload(self, message: Message, epoch: str, /) -> bytes:
        """Return the frame's JSON."""
        return v1_frames.message_frame(message, epoch)

    def is_text(self, message: Message, /) -> bool:
        """Return True."""
        return True


ENCODER = V1Encoder()


class V1Session(DuplexSession):
    """A session of `oncecast.v1`. `channels` are subscribed at once, from the query's start.

    Raises `Refusal` before anything is sent.
    """

    __slots__ = ("_joined",)

    def __init__(
        self, node: Node, settings: TransportSettings, carrier: Carrier, channels: tuple[str, ...], query: Query
    ) -> None:
        check_count(channels, settings)
        super().__init__(node, settings, carrier)
        # A tuple, not a dictionary: most have one channel, and an idle subscriber is to be small.
        self._joined: tuple[Subscription, ...] = ()
        try:
            for channel in channels:
                self._subscribe(channel, query.start or LATEST, None)
        except Refusal:
            self.closed()  # end the subscriptions that have begun
            raise

    # -- what the hub calls

    def gap(self, gap: LogGap, /) -> None:
        """Send a `gap` frame."""
        self._carrier.send(v1_frames.gap_frame(gap))

    # -- what the carrier calls

    def expiring(self, seconds: float, /) -> None:
        """Send an `expiring` frame; an `auth` frame with another token answers it."""
        if self.state is SessionState.OPEN:
            self._say("expiring", expires_in_ms=int(seconds * 1000))

    def drain(self) -> None:
        """Say when to come back, then close."""
        if self.state is not SessionState.CLOSED:
            self._say("drain", retry_after_ms=DRAIN_MS)
        super().drain()

    # -- helpers

    def _subscriptions(self) -> Sequence[Subscription]:
        return self._joined

    def _beat(self) -> None:
        # The frame moves the cursor of every channel, so it waits until all are live.
        cursor = self._node.hub.heartbeat_cursor(self._joined)
        if cursor is not None:
            self._say("cursor", cursor=str(cursor))

    def _take(self, payload: bytes, is_text: bool) -> None:
        if not is_text:
            self._stop("wrong message", UNSUPPORTED, "oncecast.v1 takes JSON text frames")
            return
        frame = None
        try:
            frame = v1_frames.parse_frame(payload)
            self._act(frame)
        except Refusal as refusal:
            self._decline(refusal, v1_frames.ref_of(payload), getattr(frame, "channel", None))

    def _decline(self, refusal: Refusal, ref: Ref, channel: str | None = None) -> None:
        """Answer a frame with an error."""
        if self._spend():
            if self._settings.refused is not None:
                self._settings.refused(refusal.error, self._carrier.identity, channel, how="frame")
            self.flush()  # the answers come in the order of the frames
            self._carrier.send(v1_frames.error_frame(refusal, ref))

    def _act(self, frame: v1_frames.ClientFrame) -> None:
        if isinstance(frame, v1_frames.Publish):
            self._publish(frame.draft(), frame.ref)
            return
        if not self._spend():
            return
        self.flush()  # a message published before a subscription begins is before its start
        match frame:
            case v1_frames.Subscribe():
                start = parse_start(frame.after, frame.last, frame.since) or LATEST
                self._may_subscribe(frame.channel)
                self._subscribe(frame.channel, start, frame.ref)
            case v1_frames.Unsubscribe():
                subscription = self._joined_to(check_channel(frame.channel))
                if subscription is not None:
                    self._joined = tuple(other for other in self._joined if other is not subscription)
                    self._node.hub.detach(subscription)
                self._say("unsubscribed", channel=frame.channel, ref=frame.ref)
            case v1_frames.Auth():
                self._carrier.verify(frame.token, partial(self._verified, frame.ref))
            case other:
                assert_never(other)

    def _verified(self, ref: Ref, found: Identity | Refusal) -> None:
        """Replace the identity: of anybody by a user, or of a user by the same one."""
        if self.state is not SessionState.OPEN:  # it has ended while the carrier asked
            return
        if isinstance(found, Refusal):
            self._decline(found, ref)
            return
        try:
            self._become(found, ref)
        except Refusal as refusal:
            self._decline(refusal, ref)

    def _become(self, after: Identity, ref: Ref) -> None:
        before = self._carrier.identity
        if before.kind != "anybody" and (before.kind, before.subject) != (after.kind, after.subject):
            raise Refusal("forbidden", "This connection is another user's: open one of your own with this token.")
        self._carrier.identify(after)
        self._say("authenticated", sub=after.subject, expires=after.expires, ref=ref)
        try:
            for joined in self._joined:
                self._settings.access.subscribe(after, joined.channels)
        except Refusal as refusal:  # a message more would be one that this token does not grant
            self.refuse(refusal)

    def _may_subscribe(self, channel: str) -> None:
        check_channel(channel)
        if self._joined_to(channel) is not None:
            raise Refusal("request_invalid", f"You are subscribed to {channel} already: unsubscribe first.")
        check_count((*self._joined, channel), self._settings)
        self._settings.access.subscribe(self._carrier.identity, (channel,))

    def _joined_to(self, channel: str) -> Subscription | None:
        return next((joined for joined in self._joined if joined.channels[0] == channel), None)

    def _subscribe(self, channel: str, start: Start, ref: Ref) -> None:
        def attached(place: Place) -> None:
            self._say("subscribed", channel=channel, cursor=str(place.announced), ref=ref)
            self._node.count_gaps(place.gaps)
            for gap in place.gaps:
                self.gap(gap)

        subscription = self._node.subscribe(
            parse_channels(channel),
            start,
            self,
            self._carrier.format(ENCODER),
            attached,
            self._carrier.descriptor,
            self._carrier.may_read,
        )
        self._joined = (*self._joined, subscription)
        if len(self._joined) > 1:
            self._node.hub.gather(self._joined)
        if self._carrier.full:
            self._node.hub.block((subscription,))

    def _answer(self, ref: Ref, outcome: Outcome) -> None:
        if isinstance(outcome, Refusal):
            if self._settings.refused is not None:
                self._settings.refused(outcome.error, self._carrier.identity, how="frame")
            self._carrier.send(v1_frames.error_frame(outcome, ref))
        else:
            self._carrier.send(v1_frames.published_frame(outcome, ref))

    def _say(self, kind: str, **fields: str | float | None) -> None:
        self._carrier.send(v1_frames.server_frame(kind, **fields))
