"""A node whose broker has a history, under everything that can happen to it, in any order: the promise still holds.

The window in memory is tiny and moves on all the time. The history is read at one moment and answered at another, in
any order; other nodes append what this one hears later, or skips; retention trims what is read. Clients come
with every start, stall, drain, leave, and come back with the cursor that they saw last. See `test_hub_model.py` for
what sinks do from inside a write.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oncecast.core import pages as pages_module
from oncecast.core import replay as replay_module
from oncecast.core.entry import ENTRY_BYTES
from oncecast.core.node import ChannelPolicy, Node
from oncecast.core.place import Place, chain_gaps
from oncecast.core.polls import Poll
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Cursor, Draft, Kind, LogGap, Message, Reason, Retention, Start, StartKind
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import run_now
from oncecast.testing.history_broker import HistoryBroker
from oncecast.testing.witness import PublishedNumbers, Witness

CHANNELS = ("a", "b", "c")
SUBSETS = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True).map(tuple)
ENDLESS = 10**9
ROOMS = st.sampled_from([1, 2, 3, 6, ENDLESS, ENDLESS])
CROWD = 8  # more clients than this only hide one another


class Words:
    """A format that can be read back: `channel-seq`, one after another."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one word."""
        return b"%s-%d " % (message.channel.encode(), message.seq)

    def block(self, parts: list[bytes]) -> bytes:
        """Join words."""
        return b"".join(parts)


WORDS = Words()


@dataclass(slots=True, eq=False)
class Client:
    """A sink with one subscription, what its subscriber saw, and the cursor that it would come back with.

    `witness` is None until the subscription's place is known.
    """

    machine: NodeMachine
    start: Start
    room: int
    subscription: Subscription | None = None
    witness: Witness | None = None
    cursor: Cursor | None = None
    full: bool = False
    closed: bool = False
    never_given: bool = False  # the cursor that it comes with
    restarted: set[str] = field(default_factory=set)  # of an old life: owed what there was when it was first read

    def attached(self, place: Place) -> None:
        """Take the place, and the gaps that it implies."""
        assert not self.closed
        assert self.witness is None
        self.cursor = place.announced
        if self.subscription is None:  # from memory
            channels, known = self.machine.entering, self.machine.node.log.head
        else:
            channels, known = self.subscription.channels, self.machine.broker.head
        owed = {name: self.machine.owed(name, self.start, place, known) for name in channels}
        self.witness = Witness(self.machine.ledger, owed)
        for gap in chain_gaps(place.gaps, place.announced):
            if gap.reason is Reason.EPOCH:
                self.restarted.add(gap.channel)
                self.cursor = gap.cursor
            elif gap.reason is Reason.UNKNOWN:  # of numbers that were never given: nothing is owed for them
                assert self.never_given
                self.cursor = gap.cursor
            else:
                self.gap(gap)

    def write(self, block: bytes, /) -> None:
        """Take a block."""
        assert not self.closed
        assert self.witness is not None
        assert self.subscription is not None
        assert self.subscription.state in (State.LIVE, State.CATCHING_UP)
        for word in block.decode().split():
            channel, seq = word.split("-")
            self.begin_anew(channel, int(seq) - 1)
            self.witness.message(channel, int(seq))
            self.cursor = Cursor("e", int(seq))
            self.room -= 1
        if self.room <= 0 and not self.full:
            self.full = True
            self.machine.node.hub.block((self.subscription,))

    def gap(self, gap: LogGap, /) -> None:
        """Take a gap."""
        assert not self.closed
        assert self.witness is not None
        assert self.cursor is not None
        self.begin_anew(gap.channel, gap.missed_from.seq - 1)
        self.witness.gap(gap)
        assert self.cursor.epoch != "e" or self.cursor.seq <= gap.cursor.seq
        self.cursor = gap.cursor

    def begin_anew(self, channel: str, upto: int) -> None:
        """Where it is of an old life, what it is not given of a channel must be what has been trimmed."""
        assert self.witness is not None
        if channel in self.restarted:
            self.restarted.discard(channel)
            trimmed = self.machine.broker.mark(channel).seq
            before = max((n for n in self.machine.published[channel] if n <= upto), default=0)
            assert before <= trimmed
            self.witness.covered[channel] = before

    def refuse(self, refusal: Refusal, /) -> None:
        """Leave: the channel disconnects those who lag, or the history can't be read."""
        assert refusal.code in ("slow", "unavailable")
        self.leave()

    def leave(self) -> None:
        """Go away."""
        self.closed = True
        if self.subscription is not None:
            self.machine.node.hub.detach(self.subscription)


class NodeMachine(RuleBasedStateMachine):
    """Publishers here and elsewhere, clients, retention in memory and on the disk, and the loop's turns."""

    @initialize(
        window=st.integers(1, 4),
        max_bytes=st.sampled_from([1, 900, 2000, 1 << 20]),
        page=st.integers(1, 4),
        pages=st.integers(1, 3),
        found=st.integers(1, 3),
        lags=st.tuples(*(st.sampled_from(Lag) for _ in CHANNELS)),
        before=st.lists(st.sampled_from(CHANNELS), max_size=6),
        recent=st.integers(0, 3),
        hole=st.sampled_from([0, 5]),
        only_wanted=st.booleans(),
    )
    def begin(
        self,
        window: int,
        max_bytes: int,
        page: int,
        pages: int,
        found: int,
        lags: tuple[Lag, ...],
        before: list[str],
        recent: int,
        hole: int,
        only_wanted: bool,
    ) -> None:
        """Small windows and pages, so that every bound is met often; and some log from before, perhaps with a hole."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(replay_module, "PAGE_MESSAGES", page)
        self.patch.setattr(pages_module, "PAGE_MESSAGES", page)
        self.patch.setattr(replay_module, "PAGES_PER_TURN", pages)
        self.patch.setattr(pages_module, "PAGES_FOUND", found)
        self.clock = FakeClock()
        self.turns = Turns()
        recent = 0 if only_wanted else recent
        self.broker = HistoryBroker("e", self.clock.wall, at_once=False, recent=recent, only_wanted=only_wanted)
        self.ledger = PublishedNumbers()
        self.published: dict[str, list[int]] = {name: [] for name in CHANNELS}
        self.times: list[tuple[float, str, int]] = []
        self.clients: list[Client] = []
        self.entering: tuple[str, ...] = ()
        self.polls = 0
        self.append(before)
        if hole:
            self.broker.skip_numbers(hole)
        policies = {name: ChannelPolicy(Retention(window, 10.0), lag) for name, lag in zip(CHANNELS, lags, strict=True)}
        self.node = Node(
            self.broker,
            policy=policies.__getitem__,
            max_bytes=max_bytes,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
        )
        run_now(self.node.start())
        self.node.hub._delivery._on_fault = self.fault
        self.node.on_failure = self.failure

    def fault(self, error: Exception) -> None:
        """A client that breaks its promise ends the run, and is not only logged."""
        raise error

    def failure(self, reason: str) -> None:
        """A node that fails ends the run."""
        raise AssertionError(reason)

    # -- what the clients ask

    def append(self, channels: list[str]) -> None:
        """Let something be published somewhere, not handed over yet."""
        self.clock.advance(1)
        for channel in channels:
            self.broker.append(Draft(channel, b"", Kind.BINARY))
            self.ledger.publish(channel, self.broker.head)
            self.published[channel].append(self.broker.head)
            self.times.append((self.clock.wall(), channel, self.broker.head))

    def head_given(self, seq: int) -> int:
        """The last number up to `seq` that was ever given."""
        for before, after in self.broker.holes:
            if before < seq < after:
                return before
        return min(seq, self.broker.head)

    def owed(self, channel: str, start: Start, place: Place, known: int) -> int:
        """The number after which a subscriber is owed all of a channel; its place was found knowing the log so far."""
        match start.kind:
            case StartKind.SINCE:
                younger = [n for time, name, n in self.times if name == channel and time >= start.number]
                # Of what is trimmed only the last one is named, whichever channel puts the place before it.
                named = [gap.missed_from.seq - 1 for gap in place.gaps if gap.channel == channel]
                trimmed = named[0] if named else place.reported.get(channel, 0)
                assert trimmed <= max(self.broker.mark(channel).seq, place.seq)
                # What has not been handed over yet is as new as it gets: it counts as younger.
                return max(place.seq, trimmed, min([*younger, known + 1]) - 1)
            case StartKind.EARLIEST | StartKind.LAST:
                trimmed = place.reported.get(channel, 0)
                assert trimmed <= max(self.broker.mark(channel).seq, place.seq, *place.floors)
                return max(place.seq, trimmed)
            case _:
                return place.seq if place.gaps and place.gaps[0].reason is not Reason.EXPIRED else place.announced.seq

    def enter(self, channels: tuple[str, ...], start: Start, room: int) -> None:
        """Subscribe."""
        client = Client(self, start, room)
        if start.cursor is not None:
            client.never_given = start.cursor.seq > self.head_given(start.cursor.seq)
        self.clients.append(client)
        self.entering = channels
        client.subscription = self.node.subscribe(channels, start, client, WORDS, client.attached)

    def pending(self) -> list[str]:
        """The channels that the broker was asked for, and has not said to deliver."""
        return [name for name in dict.fromkeys(self.broker.wanted) if name not in self.broker._confirmed]

    def pick(self, which: int) -> Client:
        """One of the clients that are there."""
        return self.clients[which % len(self.clients)]

    # -- what happens

    @rule(channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=5))
    def publish_elsewhere(self, channels: list[str]) -> None:
        """Another node publishes."""
        self.append(channels)

    @rule(channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=5), ends=st.booleans())
    def publish(self, channels: list[str], ends: bool) -> None:
        """It is heard of at once, and the turn ends or goes on."""
        self.append(channels)
        self.broker.hand_over()
        if ends:
            self.flush()

    @rule(count=st.integers(1, 4))
    def fetch(self, count: int) -> None:
        """Some of what others published is on its way."""
        self.broker.fetch(count)

    @precondition(lambda self: self.broker._on_the_way)
    @rule()
    def arrive(self) -> None:
        """What was on its way is here."""
        self.broker.arrive()

    @precondition(lambda self: self.broker.capabilities.only_wanted and self.pending())
    @rule(count=st.integers(1, 3))
    def confirm(self, count: int) -> None:
        """Some of the wanted channels are delivered from here on."""
        self.broker.confirm(*self.pending()[:count])

    @rule()
    def skip(self) -> None:
        """The node goes on, without all that was before."""
        self.broker.skip()

    @rule(channel=st.sampled_from(CHANNELS), keep=st.integers(0, 6))
    def trim_on_disk(self, channel: str, keep: int) -> None:
        """The channel's retention trims all but its newest."""
        seqs = self.published[channel]
        if len(seqs) > keep:
            self.broker.trim(channel, seqs[len(seqs) - keep - 1])

    @rule(seconds=st.integers(0, 8))
    def trim_in_memory(self, seconds: int) -> None:
        """Time passes, and the window lets go of what is old."""
        self.clock.advance(seconds)
        self.node.tick()

    @precondition(lambda self: self.broker.reads)
    @rule(which=st.integers(0, 20))
    def look(self, which: int) -> None:
        """A read finds what there is, and is not yet answered."""
        self.broker.look(which % len(self.broker.reads))

    @precondition(lambda self: self.broker.reads)
    @rule(which=st.integers(0, 20))
    def answer(self, which: int) -> None:
        """One of the reads is answered."""
        self.broker.answer(which % len(self.broker.reads))

    @precondition(lambda self: self.broker.reads)
    @rule(which=st.integers(0, 20))
    def fail_to_read(self, which: int) -> None:
        """The disk fails one of the reads."""
        self.broker.answer(which % len(self.broker.reads), Refusal("unavailable", "broken"))

    @precondition(lambda self: len(self.clients) < CROWD)
    @rule(
        channels=SUBSETS,
        start=st.sampled_from([LATEST, EARLIEST]) | st.builds(Start, st.just(StartKind.LAST), number=st.integers(0, 9)),
        room=ROOMS,
    )
    def come(self, channels: tuple[str, ...], start: Start, room: int) -> None:
        """A new client subscribes."""
        self.enter(channels, start, room)

    @precondition(lambda self: len(self.clients) < CROWD)
    @rule(channels=SUBSETS, back=st.integers(0, 20), room=ROOMS)
    def come_since(self, channels: tuple[str, ...], back: int, room: int) -> None:
        """A client asks for what came since a time."""
        self.enter(channels, Start(StartKind.SINCE, number=self.clock.wall() - back), room)

    @precondition(lambda self: len(self.clients) < CROWD)
    @rule(channels=SUBSETS, back=st.integers(-3, 25), room=ROOMS)
    def resume(self, channels: tuple[str, ...], back: int, room: int) -> None:
        """A client comes with a cursor from somewhere: of another node that is ahead, or of nowhere."""
        self.enter(channels, Start(StartKind.CURSOR, Cursor("e", max(0, self.broker.head - back))), room)

    @precondition(lambda self: len(self.clients) < CROWD)
    @rule(channels=SUBSETS, seq=st.integers(0, 20), room=ROOMS)
    def resume_from_another_life(self, channels: tuple[str, ...], seq: int, room: int) -> None:
        """A client comes with a cursor of a log that is gone."""
        self.enter(channels, Start(StartKind.CURSOR, Cursor("old", seq)), room)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1))
    def stall(self, which: int) -> None:
        """A client's socket is full, though nothing was written."""
        client = self.pick(which)
        client.full = True
        assert client.subscription is not None
        self.node.hub.block((client.subscription,))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1), room=ROOMS)
    def drain(self, which: int, room: int) -> None:
        """A client's socket takes bytes again."""
        client = self.pick(which)
        client.room, client.full = room, False
        assert client.subscription is not None
        self.node.hub.unblock((client.subscription,))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1))
    def reconnect(self, which: int) -> None:
        """A client's connection is cut, and it comes back with its cursor, or as it came where it has none."""
        client = self.pick(which)
        client.leave()
        self.clients.remove(client)
        assert client.subscription is not None
        start = client.start if client.cursor is None else Start(StartKind.CURSOR, client.cursor)
        self.enter(client.subscription.channels, start, 3)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, CROWD - 1))
    def heartbeat(self, which: int) -> None:
        """A heartbeat moves the cursor of a client that is live, and never back."""
        client = self.pick(which)
        assert client.subscription is not None
        cursor = self.node.hub.heartbeat_cursor((client.subscription,))
        if cursor is not None and not client.closed:
            assert client.cursor is not None
            assert client.cursor.epoch != "e" or client.cursor.seq <= cursor.seq
            client.cursor = cursor

    @rule(channels=SUBSETS, back=st.integers(-3, 25), limit=st.integers(1, 4))
    def poll(self, channels: tuple[str, ...], back: int, limit: int) -> None:
        """A poll with a cursor gets what comes next, or a gap, and the cursor after them."""
        seq = max(0, self.broker.head - back)

        def done(poll: Poll | Refusal) -> None:
            self.polls -= 1
            if isinstance(poll, Refusal):
                return
            # A cursor that nobody had handed out when it was sent may be one by the time it is looked at.
            unknown = any(gap.reason is Reason.UNKNOWN for gap in poll.gaps)
            owed = poll.gaps[0].missed_from.seq - 1 if unknown else seq
            assert unknown or seq == self.head_given(seq)
            witness = Witness(self.ledger, dict.fromkeys(channels, owed))
            for gap in poll.gaps:
                if gap.reason is Reason.EXPIRED:
                    witness.gap(gap)
            for entry in poll.entries:
                witness.message(entry.message.channel, entry.seq)
            for name in channels:
                following = self.ledger.after(name, witness.covered[name])
                assert following is None or following > poll.cursor.seq

        self.polls += 1
        self.node.poll(channels, Start(StartKind.CURSOR, Cursor("e", seq)), limit, done)

    @rule()
    def flush(self) -> None:
        """The turn ends."""
        self.turns.run()
        self.clients = [client for client in self.clients if not client.closed]

    # -- what always holds

    @invariant()
    def keeps_its_books(self) -> None:
        """The live are in the audiences and have no place; each of the rest is queued, or waits for something."""
        if not hasattr(self, "node"):
            return
        hub = self.node.hub
        subscriptions = [client.subscription for client in self.clients if not client.closed]
        assert len(subscriptions) == hub.subscriptions
        live = {s for s in subscriptions if s and s.state is State.LIVE}
        listening = [[a] if isinstance(a, Subscription) else list(a) for a in hub._audiences.of.values()]
        assert live == {s for members in listening for s in members}
        replay, pages = hub._replay, hub._replay._history
        assert pages is not None
        unconfirmed = {s for waiting in replay._unconfirmed.values() for s in waiting}
        waiting = {*replay._queue, *replay._ahead.owners(), *pages._asking, *pages._later, *unconfirmed}
        for client in self.clients:
            subscription = client.subscription
            if client.closed or subscription is None:
                continue
            assert (subscription.place is None) == (subscription.state is State.LIVE or client.witness is None)
            if subscription.state is State.CATCHING_UP and subscription.place is not None:
                assert subscription in waiting
            if subscription.state is State.BLOCKED:
                assert client.full
        assert set(pages._kept) <= set(replay._queue)
        assert len(pages._asked) + len(pages._found) <= pages_module.PAGES_FOUND

    @invariant()
    def counts_what_it_holds(self) -> None:
        """The log's bytes are those of what is in its windows, and of their encodings."""
        if not hasattr(self, "node"):
            return
        log = self.node.log
        entries = [entry for window in log._windows.values() for entry in window.entries[window.first :]]
        held = [
            ENTRY_BYTES + len(e.message.data) + len(e.encoded) + sum(map(len, (e.others or {}).values()))
            for e in entries
        ]
        assert sum(held) == log.bytes
        assert len(entries) == log.count

    def teardown(self) -> None:
        """In the end all is heard, answered and taken: all are live, and nobody was cheated."""
        if hasattr(self, "patch"):
            try:
                self.end()
            finally:
                self.patch.undo()  # or a run that fails would change the pages of the tests after it

    def end(self) -> None:
        """Let it all come to rest, and judge."""
        if not hasattr(self, "node"):
            return
        for client in self.clients:
            client.room, client.full = ENDLESS, False
            if client.subscription is not None and not client.closed:
                self.node.hub.unblock((client.subscription,))
        self.run_all()
        self.append(list(CHANNELS))
        self.run_all()
        for client in self.clients:
            if client.closed:
                continue
            assert client.subscription is not None
            assert State.LIVE is client.subscription.state
            assert client.witness is not None
            for channel in client.subscription.channels:
                client.begin_anew(channel, self.broker.head)
            client.witness.finish()
        assert 0 == self.polls

    def run_all(self) -> None:
        """Hand over, answer and turn until nothing is left to do."""
        self.broker.hand_over()
        for _ in range(20_000):
            if self.broker.reads:
                self.broker.answer()
            elif self.pending() and self.broker.capabilities.only_wanted:
                self.broker.confirm(*self.pending())
            elif not self.turns.run():
                return
        raise AssertionError("it never comes to rest")


TestNodeKeepsThePromise = NodeMachine.TestCase
TestNodeKeepsThePromise.__doc__ = "Whatever happens in whatever order, every subscriber gets what it is owed."
TestNodeKeepsThePromise.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
