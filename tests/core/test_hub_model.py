"""The hub under everything that can happen to it, in any order: the promise holds for each subscriber.

Clients come with any start, stall, drain, leave and come back with the cursor they saw last; their sinks fill up,
publish, leave or fail from inside a write; the log is trimmed between any two steps. A witness for each subscription
judges what it saw. See `oncecast.testing.witness`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oncecast.core import replay as replay_module
from oncecast.core.hub import Hub
from oncecast.core.log import Log
from oncecast.core.place import chain_gaps, resolve
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Cursor, Kind, LogGap, Message, Reason, Retention, Start, StartKind
from oncecast.testing.clock import Turns
from oncecast.testing.witness import PublishedNumbers, Witness

CHANNELS = ("a", "b", "c")
SUBSETS = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True).map(tuple)
ENDLESS = 10**9
ROOMS = st.sampled_from([1, 2, 3, 6, ENDLESS, ENDLESS])
MOODS = ("publish", "publish", "flap", "flap", "leave", "fail", "return", "cut", "cut")
CROWD = 8  # more clients than this only hide one another


class Words:
    """A format that can be read back: `channel-seq`, one after another."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one word."""
        return b"%s-%d " % (message.channel.encode(), message.seq)

    def block(self, parts: list[bytes]) -> bytes:
        """Join words."""
        return b"".join(parts)


FORMATS = (Words(), Words())


def members(hub: Hub, channel: str) -> set[Subscription]:
    """The audience of a channel: one subscription by itself, or an `Audience` that is not empty."""
    audience = hub._audiences.of[channel]
    if isinstance(audience, Subscription):
        return {audience}
    alone = {s for group in audience.alone.values() for s in (*group.descriptors, *group.sinks)}
    assert alone or audience.gathered
    return alone | set(audience.gathered)


@dataclass(slots=True, eq=False)
class Held:
    """A subscription, what its subscriber saw, and the cursor it would come back with."""

    subscription: Subscription
    witness: Witness
    cursor: Cursor


@dataclass(slots=True, eq=False)
class Client:
    """A sink with one subscription of its channels, or, like a socket, with one for each of them."""

    machine: HubMachine
    lag: Lag
    socket: bool
    room: int
    mood: str = "calm"
    full: bool = False
    closed: bool = False
    held: list[Held] = field(default_factory=list)

    def subscriptions(self) -> list[Subscription]:
        """All that it holds."""
        return [held.subscription for held in self.held]

    def holder(self, channel: str) -> Held:
        """What holds a channel."""
        return next(held for held in self.held if channel in held.subscription.channels)

    def write(self, block: bytes, /) -> None:
        """Take a block, and do what the mood says, once."""
        assert not self.closed
        for word in block.decode().split():
            channel, seq = word.split("-")
            held = self.holder(channel)
            assert held.subscription.state in (State.LIVE, State.CATCHING_UP)
            held.witness.message(channel, int(seq))
            held.cursor = Cursor("e", int(seq))
            self.room -= 1
        mood, self.mood = self.mood, "calm"
        hub = self.machine.hub
        if self.room <= 0 and not self.full:
            self.full = True
            hub.block(self.subscriptions())
        match mood:
            case "publish":
                self.machine.publish([CHANNELS[self.room % 3]])
            case "leave":
                self.leave()
            case "return":
                self.machine.come_back(self)
            case "flap":
                hub.block(self.subscriptions())
                hub.unblock(self.subscriptions())
                self.full = False
            case "fail":
                raise RuntimeError("a sink with a defect")

    def gap(self, gap: LogGap, /) -> None:
        """Take a gap."""
        assert not self.closed
        assert Reason.EPOCH != gap.reason
        held = self.holder(gap.channel)
        held.witness.gap(gap)
        assert held.cursor.seq <= gap.cursor.seq
        held.cursor = gap.cursor
        if self.mood == "cut":
            self.machine.come_back(self)

    def refuse(self, refusal: Refusal, /) -> None:
        """Leave: the channel disconnects slow subscribers."""
        assert ("slow", Lag.DISCONNECT) == (refusal.code, self.lag)
        self.leave()

    def leave(self) -> None:
        """Go away."""
        self.closed = True
        for subscription in self.subscriptions():
            self.machine.hub.detach(subscription)


class HubMachine(RuleBasedStateMachine):
    """Publishers, clients, retention and the loop's turns."""

    @initialize(
        limits=st.tuples(*(st.integers(1, 6) for _ in CHANNELS)), page=st.integers(1, 4), pages=st.integers(1, 3)
    )
    def begin(self, limits: tuple[int, ...], page: int, pages: int) -> None:
        """Small windows and pages, so that every bound is met often."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(replay_module, "PAGE_MESSAGES", page)
        self.patch.setattr(replay_module, "PAGES_PER_TURN", pages)
        kept = {name: Retention(limit, 10.0) for name, limit in zip(CHANNELS, limits, strict=True)}
        self.log = Log("e", kept.__getitem__)
        self.turns = Turns()
        self.faults: list[Exception] = []
        self.hub = Hub(self.log, self.turns.schedule, self.faults.append)
        self.ledger = PublishedNumbers()
        self.clients: list[Client] = []
        self.now = 0.0

    def pick(self, which: int) -> Client:
        """One of the clients that are there."""
        return self.clients[which % len(self.clients)]

    def enter(self, client: Client, channels: tuple[str, ...], start: Start) -> None:
        """Subscribe, as the node does: what is owed is what the start says."""
        for names in [(name,) for name in channels] if client.socket else [channels]:
            place = resolve(self.log, names, start)
            match start.kind:
                case StartKind.EARLIEST:
                    owed = {name: self.log.mark(name).seq for name in names}
                case StartKind.LAST:
                    owed = {name: max(place.seq, place.reported.get(name, 0)) for name in names}
                case _:
                    owed = dict.fromkeys(names, place.announced.seq)
            format_ = FORMATS[len(self.clients) % 2]
            held = Held(
                Subscription(names, format_, client, place, client.lag), Witness(self.ledger, owed), place.announced
            )
            client.held.append(held)
            self.hub.attach(held.subscription)
            for gap in chain_gaps(place.gaps, place.announced):
                assert Reason.EXPIRED == gap.reason
                client.gap(gap)

    def come_back(self, client: Client) -> None:
        """Leave, and return on a new connection with the cursors seen last."""
        client.leave()
        self.clients = [other for other in self.clients if other is not client]
        again = Client(self, client.lag, client.socket, room=3)
        self.clients.append(again)
        for held in client.held:
            self.enter(again, held.subscription.channels, Start(StartKind.CURSOR, held.cursor))

    # -- what happens

    @rule(channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=5), ends=st.booleans())
    def publish_and_flush(self, channels: list[str], ends: bool) -> None:
        """A batch comes from the broker, and the turn ends or goes on."""
        self.publish(channels)
        if ends:
            self.flush()

    def publish(self, channels: list[str]) -> None:
        """Hand a batch to the hub."""
        messages = []
        for seq, channel in enumerate(channels, self.log.head + 1):
            messages.append(Message(seq, channel, b"", Kind.BINARY, None, float(seq)))
            self.ledger.publish(channel, seq)
        self.hub.append(messages, self.now)

    @precondition(lambda self: len(self.clients) < CROWD)
    @rule(
        channels=SUBSETS,
        start=st.sampled_from([LATEST, EARLIEST]) | st.builds(Start, st.just(StartKind.LAST), number=st.integers(0, 9)),
        lag=st.sampled_from(Lag),
        socket=st.booleans(),
        room=ROOMS,
    )
    def arrive(self, channels: tuple[str, ...], start: Start, lag: Lag, socket: bool, room: int) -> None:
        """A new client subscribes."""
        client = Client(self, lag, socket, room)
        self.clients.append(client)
        self.enter(client, channels, start)

    @precondition(lambda self: len(self.clients) < CROWD)
    @rule(channels=SUBSETS, back=st.integers(0, 20), lag=st.sampled_from(Lag), room=ROOMS)
    def resume(self, channels: tuple[str, ...], back: int, lag: Lag, room: int) -> None:
        """A client comes with a cursor from somewhere."""
        cursor = Cursor("e", max(0, self.log.head - back))
        self.clients.append(Client(self, lag, False, room))
        self.enter(self.clients[-1], channels, Start(StartKind.CURSOR, cursor))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1), mood=st.sampled_from(MOODS))
    def upset(self, which: int, mood: str) -> None:
        """A client will do something from inside its next write."""
        self.pick(which).mood = mood

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1))
    def stall(self, which: int) -> None:
        """A client's socket is full, though nothing was written."""
        client = self.pick(which)
        client.full = True
        self.hub.block(client.subscriptions())

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1), room=ROOMS)
    def drain(self, which: int, room: int) -> None:
        """A client's socket takes bytes again."""
        client = self.pick(which)
        client.room, client.full = room, False
        self.hub.unblock(client.subscriptions())

    @rule(room=ROOMS)
    def drain_all(self, room: int) -> None:
        """All sockets take bytes again."""
        for which in range(len(self.clients)):
            self.drain(which, room)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1))
    def reconnect(self, which: int) -> None:
        """A client's connection is cut, and it comes back."""
        self.come_back(self.pick(which))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1))
    def heartbeat(self, which: int) -> None:
        """A heartbeat moves the cursors of a client whose subscriptions are all live, and never back."""
        client = self.pick(which)
        cursor = self.hub.heartbeat_cursor(client.subscriptions())
        if cursor is not None and not client.closed:
            for held in client.held:
                assert held.cursor.seq <= cursor.seq
                held.cursor = cursor

    @rule(seconds=st.integers(0, 8))
    def wait_and_trim(self, seconds: int) -> None:
        """Time passes, and the log lets go of what is old."""
        self.now += seconds
        self.log.trim(self.now)

    @rule()
    def flush(self) -> None:
        """The turn ends."""
        self.turns.run()
        self.clients = [client for client in self.clients if not client.closed]

    # -- what always holds

    @invariant()
    def keeps_its_books(self) -> None:
        """The live are in the audiences and have no place; the rest is counted, and queued at most once."""
        if not hasattr(self, "hub"):
            return
        subscriptions = [s for client in self.clients if not client.closed for s in client.subscriptions()]
        assert len(subscriptions) == self.hub.subscriptions
        live = {s for s in subscriptions if s.state is State.LIVE}
        heard = {channel: members(self.hub, channel) for channel in self.hub._audiences.of}
        assert heard == {c: here for c in CHANNELS if (here := {s for s in live if c in s.channels})}
        assert all((s.place is None) == (s.state is State.LIVE) for s in subscriptions)
        assert set(self.hub._replay._queue) == {s for s in subscriptions if s.state is State.CATCHING_UP}
        assert all(client.full for client in self.clients for s in client.subscriptions() if s.state is State.BLOCKED)

    def teardown(self) -> None:
        """In the end every socket takes bytes and every turn ends: all are live, and each has got what it was owed."""
        if not hasattr(self, "hub"):
            return
        for client in self.clients:
            if not client.closed:
                client.room, client.full, client.mood = ENDLESS, False, "calm"
                self.hub.unblock(client.subscriptions())
        self.turns.run_all()
        self.publish(list(CHANNELS))
        self.turns.run_all()
        for client in self.clients:
            for held in client.held if not client.closed else ():
                assert State.LIVE is held.subscription.state
                held.witness.finish()
        assert all(isinstance(fault, RuntimeError) for fault in self.faults), self.faults
        self.patch.undo()


TestHubKeepsThePromise = HubMachine.TestCase
TestHubKeepsThePromise.__doc__ = "Whatever happens in whatever order, every subscriber gets what it is owed."
TestHubKeepsThePromise.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
