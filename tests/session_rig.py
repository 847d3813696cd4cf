"""What tests of sessions and carriers share: a node on a fake clock, a link that is a list of bytes, a peer on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from oncecast.brokers.base import Done, Outcome
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.node import ChannelPolicy, Node
from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.message import Draft, Kind, Receipt, Retention
from oncecast.policy.identity import Identity
from oncecast.protocol.base import Session, TransportSettings, Verified
from oncecast.protocol.query import parse_query
from oncecast.protocol.raw import RawSession
from oncecast.protocol.v1 import V1Session
from oncecast.server.framing.websocket import websocket_carrier
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import run_now
from oncecast.wire.ws_connection import CloseReceived, DataReceived, Role, WebSocketConnection
from oncecast.wire.ws_deflate import Parameters

OPENING = b"HTTP/1.1 101 opening\r\n\r\n"
BEAT = 15.0


class FakeLink:
    """A connection that takes everything, and is full or gone when the test says so."""

    descriptor = None

    def __init__(self, clock: FakeClock) -> None:
        self.identity = Identity(address="127.0.0.1")
        self.sent: list[bytes] = []
        self.wake: float | None = None
        self.state = "open"
        self.listener: Session | None = None
        self.fills = False  # the next write fills the socket
        self.full = False
        self.held = 0  # bytes of an unfinished message
        self.closing_with: tuple[int, bool] | None = None
        self.write: Callable[[bytes], None] = self._write
        self._clock = clock

    def _write(self, data: bytes) -> None:
        assert self.state == "open", "a write after the end"
        self.sent.append(data)
        if self.fills and self.listener is not None:
            self.fills = False
            self.block()

    def block(self) -> None:
        """Let the socket be full."""
        self.full = True
        assert self.listener is not None
        self.listener.blocked()

    def drain(self) -> None:
        """Let the socket take bytes again."""
        self.full = False
        assert self.listener is not None
        self.listener.drained()

    def verify(self, token: str, done: Verified) -> None:
        done(Refusal("request_invalid", "This link knows no keys."))

    def identify(self, identity: Identity) -> None:
        self.identity = identity

    def now(self) -> float:
        return self._clock.monotonic()

    def wake_at(self, when: float) -> None:
        self.wake = when

    def may_read(self) -> None:
        """Let the session read."""

    def hold(self, size: int) -> None:
        self.held = size

    def closing(self, code: int, *, ours: bool = True) -> None:
        self.closing_with = code, ours

    def end(self) -> None:
        self.state = "ended"

    def abort(self) -> None:
        self.state = "aborted"

    def take(self) -> bytes:
        """Return what has been sent since the last time."""
        data = b"".join(self.sent)
        self.sent.clear()
        return data


class Rig:
    """A node, a clock and the ends of the loop's turns; `settings` may be replaced before a transport is made."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.settings = TransportSettings()
        self.retention = Retention()
        self.lag = Lag.RESUME
        self.broker = MemoryBroker("e", self.clock.wall)
        self.node = Node(
            self.broker,
            policy=lambda channel: ChannelPolicy(self.retention, self.lag),
            max_bytes=1 << 30,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
        )
        run_now(self.node.start())

    def link(self) -> FakeLink:
        """Return a new connection."""
        return FakeLink(self.clock)

    def publish(self, *data: str | Draft, channel: str = "c") -> list[Outcome]:
        """Publish in one batch; a string is JSON."""
        answers: list[Outcome] = []

        def done(outcomes: Sequence[Outcome]) -> None:
            answers.extend(outcomes)

        drafts = [d if isinstance(d, Draft) else Draft(channel, d.encode(), Kind.JSON) for d in data]
        self.node.publish(drafts, done)
        assert len(drafts) == sum(isinstance(answer, Receipt) for answer in answers)
        return answers

    def run_turns(self) -> None:
        """Let the loop turn until nothing is left to do."""
        self.turns.run_all()

    def pass_time(self, link: FakeLink, listener: Session, seconds: float) -> None:
        """Let time pass; wake the listener where it asked for it."""
        self.clock.advance(seconds)
        if link.wake is not None and link.wake <= self.clock.monotonic():
            link.wake = None
            listener.woken(self.clock.monotonic())


class Peer:
    """A client of a WebSocket on a fake link: it speaks through our codec, and reads what the server wrote."""

    def __init__(
        self,
        rig: Rig,
        kind: type[V1Session | RawSession],
        query: str = "",
        channels: tuple[str, ...] = ("c",),
        deflate: Parameters | None = None,
    ) -> None:
        self.link = rig.link()
        self.socket = websocket_carrier(
            self.link,
            OPENING,
            lambda carrier: kind(rig.node, rig.settings, carrier, channels, parse_query(query)),
            settings=rig.settings,
            deflate=deflate,
        )
        self.link.listener = self.socket
        extension = None if deflate is None else deflate.client_codec(threshold=0)
        self.codec = WebSocketConnection(Role.CLIENT, max_message_bytes=64 << 20, extension=extension)
        opening = self.link.take()
        assert opening.startswith(OPENING)
        self._first = opening[len(OPENING) :]

    def events(self) -> list[Any]:
        """Return what the server has sent since the last time."""
        first, self._first = self._first, b""
        return list(self.codec.receive(first + self.link.take()))

    def frames(self) -> list[dict[str, Any]]:
        """Return the JSON frames that the server has sent since the last time, and nothing else."""
        events = self.events()
        assert all(isinstance(event, DataReceived) and event.is_text for event in events), events
        return [json.loads(event.data) for event in events]

    def frame(self) -> dict[str, Any]:
        """Return the one frame."""
        (frame,) = self.frames()
        return frame

    def close(self) -> tuple[int | None, str]:
        """Return the code and reason of the Close, the last thing sent."""
        event = self.events()[-1]
        assert isinstance(event, CloseReceived), event
        return event.code, event.reason

    def has_codec(self) -> bool:
        """Return whether the server keeps a codec for this peer."""
        return self.socket._codec is not None

    def say(self, **fields: object) -> None:
        """Send a JSON frame."""
        self.socket.received(self.codec.text(json.dumps(fields).encode()))

    def ask(self, **fields: object) -> dict[str, Any]:
        """Send a JSON frame and return the one that answers it."""
        self.say(**fields)
        return self.frame()


def v1(rig: Any, *channels: str, query: str = "") -> Peer:
    """Connect with `oncecast.v1`."""
    return Peer(rig, V1Session, query, channels)


def raw(rig: Any, *channels: str, query: str = "") -> Peer:
    """Connect without a subprotocol."""
    return Peer(rig, RawSession, query, channels or ("c",))


class SlowBroker:
    """A broker that answers when the test says so."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self.waiting: list[tuple[Any, Done]] = []

    def publish(self, drafts: Any, done: Done) -> None:
        """Keep the drafts until `answer`."""
        self.waiting.append((drafts, done))

    def answer(self) -> None:
        """Publish what is kept."""
        for drafts, done in self.waiting:
            self._broker.publish(drafts, done)
        self.waiting.clear()
