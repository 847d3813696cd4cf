"""WebSocket: the subprotocol `oncecast.v1`, and the raw socket for whoever needs only the data.

Both live on one codec, which exists only while something is half read: an idle subscriber has none. To add a frame to
`oncecast.v1`, add it to `wire/envelope.py` and handle it in `V1Socket._frame`.

A `V1Socket` has a subscription for each channel, so that each can start and resume at its own cursor. A `RawSocket` has
one; its frames have no room for a cursor or a gap, so a gap closes it, with 4410 and the place to go on from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

import msgspec

from ..brokers.base import Outcome
from ..core.node import Node
from ..core.place import Place
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import LATEST, Cursor, Draft, Gap, Kind, Start, check_channel
from ..policy.bucket import Bucket
from ..wire import envelope
from ..wire.ws_connection import (
    DataReceived,
    Event,
    PingReceived,
    PongReceived,
    Role,
    State,
    WebSocketConnection,
)
from ..wire.ws_deflate import Deflate, Parameters
from ..wire.ws_frames import Opcode, encode_frame
from .base import DRAIN_MS, Link, Query, Settings, check_count, gap_text, parse_channels, parse_start
from .websocket_formats import formats

PROTOCOL = "oncecast.v1"
CLOSE_SECONDS = 5.0  # how long a peer may take to answer a Close (RFC 6455 §7.1.1 leaves it to us)
READ_BYTES = 64 << 10  # read at once: so much of empty frames takes 15 ms, and what comes after a flood is not read
DEFLATED_READ_BYTES = 1 << 10  # the same where the peer may compress: deflate makes at most 1,032 bytes out of one
INFLATED_BYTES = 16 << 20  # the most that one read may inflate to, in 35 ms; 64 KiB could be 64 MiB
DEFLATE = Deflate()  # no context is taken over: messages are shared, and an idle subscriber needs no inflater
UNSUPPORTED, SERVICE_RESTART = 1003, 1012  # RFC 6455 §7.4.1, and IANA's registry


PING = encode_frame(Opcode.PING, b"")


def cursor_frame(cursor: Cursor) -> bytes:
    """Return a `cursor` frame: the heartbeat of `oncecast.v1`."""
    return encode_frame(Opcode.TEXT, envelope.server_frame("cursor", cursor=str(cursor)))


class _Socket(ABC):
    """What both sockets share: the codec, liveness, the flood guard, and the close.

    `opening` is the answer to the handshake: it goes out with what `_begin` sends, in one write. Raises `Refusal`
    before anything is written.
    """

    __slots__ = (
        "_bucket",
        "_codec",
        "_deflate",
        "_full",
        "_heard",
        "_link",
        "_node",
        "_out",
        "_publishes",
        "_settings",
        "write",
    )

    def __init__(
        self,
        node: Node,
        settings: Settings,
        link: Link,
        channels: tuple[str, ...],
        query: Query,
        opening: bytes,
        deflate: Parameters | None = None,
    ) -> None:
        check_count(channels, settings.channels_per_subscription)
        self._node = node
        self._settings = settings
        self._link = link
        self.write: Callable[[bytes], None] = link.write
        self._codec: WebSocketConnection | None = None
        self._deflate = deflate
        self._bucket: Bucket | None = None
        self._publishes: Bucket | None = None
        self._heard = True
        self._full = False
        self._out: list[bytes] | None = [opening]
        link.wake_at(link.now() + settings.heartbeat_seconds)
        try:
            self._begin(channels, query.start or LATEST)
        except Refusal:
            self._leave()  # those of its channels that it has joined already
            raise
        self._write_out()

    # -- for the two kinds

    @abstractmethod
    def _begin(self, channels: tuple[str, ...], start: Start) -> None: ...

    @abstractmethod
    def _subscriptions(self) -> Sequence[Subscription]: ...

    @abstractmethod
    def _data(self, event: DataReceived) -> None: ...

    @abstractmethod
    def _heartbeat(self) -> bytes: ...

    @abstractmethod
    def _published(self, ref: str | int | None, outcomes: Sequence[Outcome]) -> None: ...

    # -- what the link calls

    def received(self, data: bytes, /) -> None:
        """Read frames; what they are answered with goes out in one write."""
        self._heard = True
        codec = self._codec = self._codec or self._new_codec()
        self._out = []
        opened = codec.state is State.OPEN
        step = READ_BYTES if self._deflate is None else DEFLATED_READ_BYTES
        read = made = 0
        while read < len(data) and (read == 0 or codec.state is State.OPEN):
            for event in codec.receive(data[read : read + step]):
                # What came before the peer's Close or fault still counts; what came after our own Close does not.
                if opened and codec.state is not State.CLOSING:
                    self._event(event)
                if isinstance(event, DataReceived):
                    made += len(event.data)
            read += step
            if self._deflate is not None and made > max(INFLATED_BYTES, self._settings.message_bytes):
                self.refuse(Refusal("too_many_requests", "What you send inflates to too much at once."))
        self._send(codec.data_to_send())
        self._write_out()
        if codec.idle:
            self._codec = None
        elif codec.state is State.CLOSED or read < len(data):  # of a flood, nothing more is read after our Close
            self._leave()
            self._link.end()

    def blocked(self) -> None:
        """Stop writing messages; their places in the log are kept."""
        self._full = True
        self._node.hub.block(self._subscriptions())

    def drained(self) -> None:
        """Read on from those places."""
        self._full = False
        self._node.hub.unblock(self._subscriptions())

    def woken(self, now: float, /) -> None:
        """Send a heartbeat; end a peer that has not answered the last one, or not our Close."""
        if self._closing() or not (self._heard or self._full):
            self._link.abort()
            return
        self._heard = False
        if not self._full:
            self.write(self._heartbeat())
        self._link.wake_at(now + self._settings.heartbeat_seconds)

    def drain(self) -> None:
        """Tell the client to come back, to this server's successor or to another."""
        self._close(SERVICE_RESTART, "restarting: reconnect and resume")

    def closed(self) -> None:
        """The client is gone."""
        self._leave()

    # -- what the hub calls

    def refuse(self, refusal: Refusal, /) -> None:
        """Close with the error's code."""
        self._close(refusal.error.close, refusal.message)

    # -- helpers

    def _new_codec(self) -> WebSocketConnection:
        extension = None if self._deflate is None else self._deflate.server_codec()
        return WebSocketConnection(Role.SERVER, max_message_bytes=self._settings.message_bytes, extension=extension)

    def _event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, PingReceived | PongReceived):
            self._spend()

    def _send(self, frame: bytes) -> None:
        """Send a frame of our own: with the other answers of this read, or at once."""
        if self._out is None:
            self.write(frame)
        else:
            self._out.append(frame)

    def _write_out(self) -> None:
        out, self._out = self._out, None
        if data := b"".join(out or ()):
            self.write(data)

    def _spend(self) -> bool:
        """Count a frame against the flood guard; past it the socket is closed and False returned."""
        now = self._link.now()
        if self._bucket is None:
            self._bucket = Bucket.steady(self._settings.frames_per_second, now)
        return self._spent(self._bucket, now, "frames")

    def _spend_publish(self) -> bool:
        now = self._link.now()
        if self._publishes is None:
            self._publishes = Bucket.steady(self._settings.publishes_per_second, now)
        return self._spent(self._publishes, now, "publishes")

    def _spent(self, bucket: Bucket, now: float, what: str) -> bool:
        if bucket.take(now) == 0:
            return True
        self.refuse(Refusal("too_many_requests", f"Send at most {bucket.rate:g} {what} a second."))
        return False

    def _publish(self, draft: Draft, ref: str | int | None) -> None:
        if self._spend_publish():
            self._node.publish((draft,), partial(self._published, ref))

    def _close(self, code: int, reason: str) -> None:
        if self._closing():
            return
        codec = self._codec = self._codec or self._new_codec()
        self._leave()
        self._send(codec.close(code, reason))
        self._link.wake_at(self._link.now() + CLOSE_SECONDS)

    def _closing(self) -> bool:
        return self._codec is not None and self._codec.state is not State.OPEN

    def _leave(self) -> None:
        for subscription in self._subscriptions():
            self._node.hub.detach(subscription)


class V1Socket(_Socket):
    """A connection of `oncecast.v1`. `channels` are subscribed at once, from the query's start."""

    __slots__ = ("_joined",)

    def _begin(self, channels: tuple[str, ...], start: Start) -> None:
        # A tuple, not a dictionary: most have one channel, and an idle subscriber is to be small.
        self._joined: tuple[Subscription, ...] = ()
        for channel in channels:
            self._subscribe(channel, start, None)

    def gap(self, gap: Gap, /) -> None:
        """Send a `gap` frame."""
        self._send(encode_frame(Opcode.TEXT, envelope.gap_frame(gap)))

    def drain(self) -> None:
        """Say when to come back, then close."""
        if not self._closing():  # RFC 6455 §5.5.1: nothing after a Close
            self._say("drain", retry_after_ms=DRAIN_MS)
        super().drain()

    def _subscriptions(self) -> Sequence[Subscription]:
        return self._joined

    def _heartbeat(self) -> bytes:
        cursor = self._node.hub.heartbeat_cursor(self._subscriptions())
        # The frame moves the cursor of every channel, so it waits until all are live. The ping asks for a pong.
        return PING if cursor is None else PING + cursor_frame(cursor)

    def _data(self, event: DataReceived) -> None:
        if not event.is_text:
            self._close(UNSUPPORTED, "oncecast.v1 takes JSON text frames")
            return
        try:
            self._frame(envelope.parse_frame(event.data))
        except Refusal as refusal:
            if self._spend():
                self._send(encode_frame(Opcode.TEXT, envelope.error_frame(refusal, envelope.ref_of(event.data))))

    def _frame(self, frame: envelope.ClientFrame) -> None:
        match frame:
            case envelope.Publish():
                self._publish(frame.draft(), frame.ref)
            case _ if not self._spend():
                return
            case envelope.Subscribe():
                start = parse_start(frame.after, frame.last, frame.since) or LATEST
                self._may_subscribe(frame.channel)
                self._subscribe(frame.channel, start, frame.ref)
            case envelope.Unsubscribe():
                subscription = self._joined_to(check_channel(frame.channel))
                if subscription is not None:
                    self._joined = tuple(other for other in self._joined if other is not subscription)
                    self._node.hub.detach(subscription)
                self._say("unsubscribed", channel=frame.channel, ref=frame.ref)
            case envelope.Auth():
                raise Refusal("request_invalid", "This server has no access rules, so it takes no token: leave it out.")
            case other:
                assert_never(other)

    def _may_subscribe(self, channel: str) -> None:
        check_channel(channel)
        if self._joined_to(channel) is not None:
            raise Refusal("request_invalid", f"You are subscribed to {channel} already: unsubscribe first.")
        check_count((*self._joined, channel), self._settings.channels_per_subscription)

    def _joined_to(self, channel: str) -> Subscription | None:
        return next((joined for joined in self._joined if joined.channels[0] == channel), None)

    def _subscribe(self, channel: str, start: Start, ref: str | int | None) -> None:
        def attached(place: Place) -> None:
            self._say("subscribed", channel=channel, cursor=str(place.announced), ref=ref)
            for gap in place.gaps:
                self.gap(gap)

        subscription = self._node.subscribe(
            parse_channels(channel), start, self, formats(self._deflate)[0], attached, self._link.descriptor
        )
        self._joined = (*self._joined, subscription)
        if len(self._joined) > 1:
            self._node.hub.gather(self._joined)
        if self._full:
            self._node.hub.block((subscription,))

    def _published(self, ref: str | int | None, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                data = envelope.error_frame(outcome, ref)
            else:
                data = envelope.published_frame(outcome, ref)
            if self._out is not None or not self._closing():  # of this read, it goes out before our Close
                self._send(encode_frame(Opcode.TEXT, data))

    def _say(self, kind: str, **fields: str | int | None) -> None:
        self._send(encode_frame(Opcode.TEXT, envelope.server_frame(kind, **fields)))


class RawSocket(_Socket):
    """A socket without a subprotocol: data out, and what comes in is published to the one channel of the URL."""

    __slots__ = ("_channels", "_subscription")

    def _begin(self, channels: tuple[str, ...], start: Start) -> None:
        self._channels = channels
        self._subscription: Subscription | None = None
        places: list[Place] = []

        def attached(place: Place) -> None:
            places.append(place)
            if self._subscription is not None:
                self._announce(place)

        self._subscription = self._node.subscribe(
            channels, start, self, formats(self._deflate)[1], attached, self._link.descriptor
        )
        for place in places:  # else it comes later
            self._announce(place)

    def gap(self, gap: Gap, /) -> None:
        """Close: no frame of this socket could say it."""
        assert self._subscription is not None
        place = self._subscription.place
        assert place is not None  # it is catching up
        self._end_at(gap, place)

    def _announce(self, place: Place) -> None:
        if place.gaps:
            self._end_at(place.gaps[0], place)

    def _end_at(self, gap: Gap, place: Place) -> None:
        here = self._node.log.cursor(place.seq)  # past the gaps of all its channels, of which this may be the first
        self.refuse(Refusal("gap", gap_text(msgspec.structs.replace(gap, cursor=here))))

    def _subscriptions(self) -> Sequence[Subscription]:
        return () if self._subscription is None else (self._subscription,)

    def _heartbeat(self) -> bytes:
        return PING

    def _data(self, event: DataReceived) -> None:
        if len(self._channels) > 1:
            self.refuse(Refusal("request_invalid", "To publish, open the URL of one channel."))
            return
        kind = Kind.TEXT if event.is_text else Kind.BINARY
        self._publish(Draft(self._channels[0], event.data, kind), None)

    def _published(self, ref: str | int | None, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                self.refuse(outcome)
