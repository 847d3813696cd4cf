"""The raw socket: a WebSocket without a subprotocol, whose messages are the data alone.

It has one subscription. Its messages have no room for a cursor or a gap, so a gap closes it, with 4410 and the place to
go on from. What its peer sends is published to the one channel of the URL.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..brokers.base import Outcome
from ..core.node import Node
from ..core.place import Place
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import BINARY, LATEST, TEXT, Draft, LogGap, Message
from ..wire.v1_frames import Ref
from ..wire.ws_frames import REASON_BYTES
from .base import Carrier, TransportSettings
from .duplex import DuplexSession
from .query import Query, check_count

__all__ = ["ENCODER", "RawEncoder", "RawSession", "gap_text"]


class RawEncoder:
    """A message as its data."""

    __slots__ = ()

    def payload(self, message: Message, epoch: str, /) -> bytes:
        """Return the data."""
        return message.data

    def is_text(self, message: Message, /) -> bool:
        """Return whether the message is no binary one."""
        return message.kind is not BINARY


ENCODER = RawEncoder()


class RawSession(DuplexSession):
    """A raw socket of one channel, or of several, to which it can't publish.

    Raises `Refusal` before anything is sent.
    """

    __slots__ = ("_channels", "_subscription")

    def __init__(
        self, node: Node, settings: TransportSettings, carrier: Carrier, channels: tuple[str, ...], query: Query
    ) -> None:
        check_count(channels, settings)
        super().__init__(node, settings, carrier)
        self._channels = channels
        self._subscription: Subscription | None = None
        places: list[Place] = []

        def attached(place: Place) -> None:
            places.append(place)
            if self._subscription is not None:
                self._check(place)

        self._subscription = node.subscribe(
            channels,
            query.start or LATEST,
            self,
            carrier.format(ENCODER),
            attached,
            carrier.descriptor,
            carrier.may_read,
        )
        for place in places:  # known at once; else it comes later
            self._check(place)

    # -- what the carrier calls

    def expiring(self, seconds: float, /) -> None:
        """Send nothing: it would be taken for a message."""

    # -- what the hub calls

    def gap(self, gap: LogGap, /) -> None:
        """Close: no message of this socket could say it."""
        assert self._subscription is not None
        place = self._subscription.place
        assert place is not None  # it is catching up
        self._close_at(gap, place)

    # -- helpers

    def _check(self, place: Place) -> None:
        if place.gaps:
            self._node.count_gaps(place.gaps)
            self._close_at(place.gaps[0], place)

    def _close_at(self, gap: LogGap, place: Place) -> None:
        here = self._node.log.cursor(place.seq)  # past the gaps of all its channels, of which this may be the first
        self.refuse(Refusal("gap", gap_text(msgspec.structs.replace(gap, cursor=here))))

    def _subscriptions(self) -> Sequence[Subscription]:
        return () if self._subscription is None else (self._subscription,)

    def _beat(self) -> None:
        """Send nothing: it would be taken for a message. The carrier's ping is the heartbeat."""

    def _take(self, payload: bytes, is_text: bool) -> None:
        if len(self._channels) > 1:
            self._fail(Refusal("request_invalid", "To publish, open the URL of one channel."))
            return
        try:
            self._publish(Draft(self._channels[0], payload, TEXT if is_text else BINARY), None)
        except Refusal as refusal:
            self._fail(refusal)

    def _answer(self, ref: Ref, outcome: Outcome) -> None:
        if isinstance(outcome, Refusal):
            self.refuse(outcome)


def gap_text(gap: LogGap) -> str:
    """Say a gap in one short line, for a close frame's reason: a long channel name is cut to what fits."""
    before, after = f"gap ({gap.reason.value}) on ", f"; go on from {gap.cursor}"
    room = REASON_BYTES - len(before) - len(after)
    return before + (gap.channel if len(gap.channel) <= room else f"{gap.channel[: room - 3]}...") + after
