"""The sessions that publish: batches, the end in order, the flood guard, and the access rules. Without framing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from oncecast.brokers.base import Done
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.node import Node
from oncecast.errors import Refusal
from oncecast.message import Draft
from oncecast.policy.access import Access
from oncecast.policy.identity import Identity
from oncecast.protocol.base import TransportSettings
from oncecast.protocol.duplex import END_SECONDS, MOVES, NORMAL, SessionState
from oncecast.protocol.query import parse_query
from oncecast.protocol.raw import RawSession
from oncecast.protocol.v1 import V1Session
from oncecast.testing.carrier import ListCarrier, memory_node
from oncecast.testing.clock import FakeClock, Turns

PUBLISH = b'{"type":"publish","channel":"c","data":1,"ref":%d}'


class Batches(MemoryBroker):
    """Keeps how many drafts came together; `held` publishes wait until `answer`."""

    def __init__(self) -> None:
        super().__init__("e", lambda: 0.0)
        self.sizes: list[int] = []
        self.held: list[Callable[[], None]] | None = None

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Publish now, or later."""
        self.sizes.append(len(drafts))
        if self.held is None:
            super().publish(drafts, done)
        else:
            self.held.append(lambda: MemoryBroker.publish(self, drafts, done))

    def answer(self) -> None:
        """Publish what is held."""
        held, self.held = self.held or [], None
        for publish in held:
            publish()


class Rules(Access):
    """Allows what is not named `secret`, and keeps the identity and the question of each call."""

    def __init__(self) -> None:
        self.asked: list[tuple[Identity, str, object]] = []

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        """Refuse the secret channel."""
        self.asked.append((identity, "subscribe", channels))
        self._check(channels)

    def publish(self, identity: Identity, channel: str, /) -> None:
        """Refuse the secret channel."""
        self.asked.append((identity, "publish", channel))
        self._check((channel,))

    def _check(self, channels: tuple[str, ...]) -> None:
        if "secret" in channels:
            raise Refusal("forbidden", "This channel is secret: use another.")


@dataclass
class Scene:
    """A node, its broker and its turns; `open` makes a session on a carrier of its own."""

    clock: FakeClock = field(default_factory=FakeClock)
    broker: Batches = field(default_factory=Batches)
    settings: TransportSettings = field(default_factory=TransportSettings)
    node: Node = field(init=False)
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.node, self.turns = memory_node("e", self.clock, self.broker)

    def open(self, kind: type[V1Session | RawSession], *channels: str) -> tuple[Any, ListCarrier]:
        """Return a session, live on channel `c` unless others are named, and its carrier."""
        carrier = ListCarrier(self.clock)
        session = kind(self.node, self.settings, carrier, channels or ("c",), parse_query(""))
        self.turns.run_all()
        carrier.take()
        return session, carrier


@pytest.fixture
def scene() -> Scene:
    """A node with an empty log."""
    return Scene()


def kinds(frames: list[bytes]) -> list[tuple[str, Any]]:
    """Return the type and the ref of each frame."""
    return [(frame["type"], frame.get("ref")) for frame in map(json.loads, frames)]


def closed(carrier: ListCarrier) -> int | None:
    """Return the code that the session has closed with."""
    return None if carrier.closed_with is None else carrier.closed_with[0]


# -- batches


def test_the_publishes_of_a_read_are_one_batch(scene: Scene) -> None:
    """The broker is asked once, and each publish is answered with its ref, in order."""
    session, carrier = scene.open(V1Session, "d")
    for number in range(5):
        session.received(PUBLISH % number, True)
    assert ([], []) == (scene.broker.sizes, carrier.take())
    session.flush()
    session.flush()
    assert [5] == scene.broker.sizes
    assert [("published", number) for number in range(5)] == kinds(carrier.take())


def test_other_frames_keep_their_place_between_publishes(scene: Scene) -> None:
    """A subscription begins after what was published before it, and before what comes after; so do errors."""
    session, carrier = scene.open(V1Session, "d")
    session.received(PUBLISH % 1, True)
    session.received(b'{"type":"subscribe","channel":"c","ref":2}', True)
    session.received(PUBLISH % 3, True)
    session.received(b"nonsense", True)
    session.received(PUBLISH % 4, True)
    session.flush()
    scene.turns.run_all()
    expected = [("published", 1), ("subscribed", 2), ("published", 3), ("error", None), ("published", 4)]
    frames = carrier.take()
    assert expected == kinds(frames)[:5]
    assert ["e-2", "e-3"] == [json.loads(frame)["id"] for frame in frames[5:]]
    assert [1, 1, 1] == scene.broker.sizes


def test_one_refused_draft_does_not_harm_the_others(scene: Scene) -> None:
    """A draft that can't be published is answered with an error, and the others are published."""
    session, carrier = scene.open(V1Session, "d")
    session.received(PUBLISH % 1, True)
    session.received(b'{"type":"publish","channel":"-","data":1,"ref":2}', True)
    session.received(PUBLISH % 3, True)
    session.flush()
    assert [("published", 1), ("error", 2), ("published", 3)] == kinds(carrier.take())


# -- the end


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_the_end_waits_for_the_answers_and_the_delivery(scene: Scene, kind: type[V1Session | RawSession]) -> None:
    """With publishes on their way, a session whose peer has ended closes after their answers and their delivery."""
    scene.broker.held = []
    session, carrier = scene.open(kind)
    session.received(PUBLISH % 1, True)
    session.ended()
    session.received(PUBLISH % 2, True)
    session.flush()
    assert (SessionState.ENDING, True) == (session.state, carrier.stopped)
    scene.broker.answer()
    assert None is closed(carrier)
    scene.turns.run_all()
    assert (NORMAL, 0) == (closed(carrier), scene.node.hub.subscriptions)
    frames = carrier.take()
    if kind is V1Session:
        assert [("published", 1), ("message", None)] == kinds(frames)
    else:
        assert [PUBLISH % 1] == frames
    session.closed()


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_the_end_does_not_wait_for_ever(scene: Scene, kind: type[V1Session | RawSession]) -> None:
    """A broker that does not answer within END_SECONDS is not waited for, and its late answer finds nobody."""
    scene.broker.held = []
    session, carrier = scene.open(kind)
    session.received(PUBLISH % 1, True)
    session.ended()
    assert scene.clock.monotonic() + END_SECONDS == carrier.wake
    scene.clock.advance(END_SECONDS)
    session.woken(scene.clock.monotonic())
    assert (NORMAL, "") == carrier.closed_with
    scene.broker.answer()
    scene.turns.run_all()
    assert [] == carrier.take()


@pytest.mark.parametrize("event", ["drain", "refuse", "closed"])
@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_an_end_that_waits_can_be_cut_short(scene: Scene, kind: type[V1Session | RawSession], event: str) -> None:
    """The server stops, a channel refuses its slow reader, or the client goes: the session ends at once, and once."""
    scene.broker.held = []
    session, carrier = scene.open(kind)
    session.received(PUBLISH % 1, True)
    session.ended()
    if event == "refuse":
        session.refuse(Refusal("slow", "too slow"))
    else:
        getattr(session, event)()
    expected = {"drain": 1012, "refuse": 4409, "closed": None}[event]
    assert expected == closed(carrier)
    carrier.take()
    scene.broker.answer()
    scene.turns.run_all()
    session.flush()
    assert (SessionState.CLOSED, [], 0) == (session.state, carrier.take(), scene.node.hub.subscriptions)


def test_a_refused_raw_publish_of_several_closes_once(scene: Scene) -> None:
    """The broker refuses both: the first closes, the second finds a closed session."""
    session, carrier = scene.open(RawSession)
    scene.broker.held = []
    session.received(b"1", True)
    session.received(b"2", True)
    session.flush()
    refusal = Refusal("unavailable", "not now")
    session._published([None, None], [refusal, refusal])
    assert (1013, "not now") == carrier.closed_with


def test_what_is_no_message_of_the_transport_ends_it_in_order(scene: Scene) -> None:
    """A binary message on oncecast.v1, and any on a raw socket of two channels: what came before is answered first."""
    session, carrier = scene.open(V1Session)
    session.received(PUBLISH % 1, True)
    session.received(b"\0", False)
    session.received(PUBLISH % 2, True)
    session.flush()
    scene.turns.run_all()
    assert [("published", 1), ("message", None)] == kinds(carrier.take())
    assert (1003, True) == (closed(carrier), carrier.stopped)
    session, carrier = scene.open(RawSession, "c", "d")
    session.received(b"1", True)
    session.flush()
    assert 4400 == closed(carrier)


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_an_overload_ends_the_session_in_order(scene: Scene, kind: type[V1Session | RawSession]) -> None:
    """Past the rate the session closes with 4429; what was within it is published."""
    scene.settings = TransportSettings(publishes_per_second=3)
    session, carrier = scene.open(kind)
    for number in range(20):
        session.received(PUBLISH % number, True)
    session.flush()
    scene.turns.run_all()
    assert (4429, 6) == (closed(carrier), scene.node.log.head)


def test_each_event_of_the_table_leads_where_it_says() -> None:
    """Nothing leads back, CLOSED is the end, and every state can be closed."""
    order = list(SessionState)
    assert set(order) == set(MOVES)
    for state, row in MOVES.items():
        assert all(order.index(new) > order.index(state) for new in row.values())
        assert (SessionState.CLOSED if row else None) is row.get("closed")


# -- the access rules


def test_the_rules_are_asked_for_each_frame(scene: Scene) -> None:
    """A refusal is an error frame with the ref, and harms nothing else."""
    rules = Rules()
    scene.settings = TransportSettings(access=rules)
    session, carrier = scene.open(V1Session, "d")
    session.received(b'{"type":"subscribe","channel":"secret","ref":1}', True)
    session.received(b'{"type":"publish","channel":"secret","data":1,"ref":2}', True)
    session.received(b'{"type":"subscribe","channel":"open","ref":3}', True)
    session.received(b'{"type":"publish","channel":"open","data":1,"ref":4}', True)
    session.flush()
    frames = carrier.take()
    assert [("error", 1), ("error", 2), ("subscribed", 3), ("published", 4)] == kinds(frames)
    assert ["forbidden", "forbidden"] == [json.loads(frame)["code"] for frame in frames[:2]]
    who = Identity(address="127.0.0.1")
    assert [
        (who, "subscribe", ("secret",)),
        (who, "publish", "secret"),
        (who, "subscribe", ("open",)),
        (who, "publish", "open"),
    ] == rules.asked


def test_a_raw_publish_that_the_rules_refuse_closes(scene: Scene) -> None:
    """There is no frame to say it in."""
    scene.settings = TransportSettings(access=Rules())
    session, carrier = scene.open(RawSession, "secret")
    session.received(b"1", True)
    session.flush()
    assert ((4403, "This channel is secret: use another."), 0) == (carrier.closed_with, scene.node.log.head)


# -- absurd frames

ABSURD: list[Any] = [
    -1, 0, 1.5, 10**15, 2**63 - 1, 2**63, -(2**63), 2**64, 10**26, -(10**26), 1e308, -1e308, 5e-324, True, None,
    "", "\0", "x" * 10_000, "e-" + "9" * 400, "e-" + str(2**63), [], {}, [[]] * 100, {"base64": 5}, {"base64": "!"},
]  # fmt: skip
LITERALS = [b"1e999", b"-1e999", b"1" * 5000, b"0." + b"1" * 5000, b"1e-99999", b"[" * 5000, b'"\\ud800"', b"NaN"]
FIELDS = {
    "subscribe": ["channel", "after", "last", "since", "ref", "type"],
    "unsubscribe": ["channel", "ref"],
    "publish": ["channel", "data", "data64", "event", "key", "ref"],
    "auth": ["token", "ref"],
}


def absurd() -> list[bytes]:
    """Return frames with each absurd value in each field."""
    frames = []
    for kind, names in FIELDS.items():
        base = {"type": kind, "channel": "c"} if kind != "auth" else {"type": kind, "token": "t"}
        if kind == "publish":
            base["data"] = "1"
        for name in names:
            for value in ABSURD:
                frames.append(json.dumps({**base, name: value}).encode())
            for literal in LITERALS:
                rest = json.dumps({key: base[key] for key in base if key != name}).encode()[1:-1]
                frames.append(b'{"%b":%b%b}' % (name.encode(), literal, b"," + rest if rest else b""))
    return frames


def test_absurd_values_are_answered_and_harm_nothing(scene: Scene) -> None:
    """Whatever a field holds, the frame is answered once, in order, and the next one is served."""
    scene.settings = TransportSettings(frames_per_second=1e6, publishes_per_second=1e6)
    carrier = ListCarrier(scene.clock)
    session = V1Session(scene.node, scene.settings, carrier, (), parse_query(""))
    for frame in absurd():
        session.received(frame, True)
        session.flush()
        scene.turns.run_all()
        answers = [answer for answer in kinds(carrier.take()) if answer[0] not in ("message", "gap")]
        assert 1 == len(answers), frame[:200]
        session.received(b'{"type":"unsubscribe","channel":"c","ref":"next"}', True)
        assert [("unsubscribed", "next")] == kinds(carrier.take()), frame[:200]
    assert carrier.closed_with is None
