"""The log against a naive model: a list of everything that was ever appended, and retention computed from it each time.

The model says what must be held; a witness per reader says whether what it reads keeps the promise.
"""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oncecast.core.entry import ENTRY_BYTES
from oncecast.core.log import Log
from oncecast.core.place import Place, pass_gaps, resolve
from oncecast.message import EARLIEST, LATEST, Cursor, Kind, Message, Reason, Retention, Start, StartKind
from oncecast.testing.witness import PublishedNumbers, Witness

CHANNELS = ("a", "b", "c")
SUBSETS = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True).map(tuple)


class Digits:
    """A format that makes each message somewhat longer."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the data and the number."""
        return message.data + b"%d" % message.seq


@dataclass(slots=True)
class Item:
    """One message of the model: `weight` is None once it is gone."""

    seq: int
    channel: str
    time: float
    appended: float
    weight: int | None


@dataclass(slots=True)
class Reader:
    """One that reads on from its place."""

    channels: tuple[str, ...]
    place: Place
    witness: Witness


class LogMachine(RuleBasedStateMachine):
    """Appends, trims, and readers that come, read on, and come back with any cursor."""

    @initialize(
        limits=st.tuples(*(st.integers(0, 6) for _ in CHANNELS)),
        ages=st.tuples(*(st.integers(1, 20) for _ in CHANNELS)),
        max_bytes=st.integers(1, 20).map(lambda n: n * (ENTRY_BYTES + 10)),
    )
    def begin(self, limits: tuple[int, ...], ages: tuple[int, ...], max_bytes: int) -> None:
        """Each channel has its own retention."""
        pairs = zip(CHANNELS, limits, ages, strict=True)
        self.retention = {name: Retention(limit, age) for name, limit, age in pairs}
        self.max_bytes = max_bytes
        self.log = Log("e", self.retention.__getitem__, max_bytes=max_bytes)
        self.items: list[Item] = []
        self.ledger = PublishedNumbers()
        self.readers: list[Reader] = []
        self.now = 100.0
        self.format = Digits()

    # -- the model

    def held(self, *channels: str) -> list[Item]:
        """What is held of the channels, or of all."""
        return [i for i in self.items if i.weight is not None and (not channels or i.channel in channels)]

    def drop_aged(self, channel: str) -> None:
        """Retention by number and age, of one channel."""
        kept = self.retention[channel]
        held = self.held(channel)
        for index, item in enumerate(held):
            if len(held) - index > kept.messages or item.appended < self.now - kept.seconds:
                item.weight = None

    def drop_heavy(self) -> None:
        """Retention by bytes, of the whole log."""
        while len(held := self.held()) > 1 and sum(item.weight or 0 for item in held) > self.max_bytes:
            held[0].weight = None

    def trimmed(self, channel: str) -> int:
        """The last number that is gone from a channel."""
        return max((i.seq for i in self.items if i.channel == channel and i.weight is None), default=0)

    # -- what happens

    @rule(channel=st.sampled_from(CHANNELS), size=st.integers(0, 40), skip=st.integers(1, 3), late=st.booleans())
    def append(self, channel: str, size: int, skip: int, late: bool) -> None:
        """A message comes; numbers may have holes, and a wall clock may stand still."""
        seq = self.log.head + skip
        time = (self.items[-1].time if self.items else 1000.0) + late
        self.log.append(Message(seq, channel, bytes(size), Kind.BINARY, None, time), self.now)
        self.items.append(Item(seq, channel, time, self.now, ENTRY_BYTES + size))
        self.ledger.publish(channel, seq)
        self.drop_aged(channel)
        self.drop_heavy()

    @rule(seconds=st.integers(0, 8))
    def wait_and_trim(self, seconds: int) -> None:
        """Time passes, then the sweep comes by."""
        self.now += seconds
        self.log.trim(self.now)
        for channel in CHANNELS:
            self.drop_aged(channel)
        self.drop_heavy()

    @rule(channels=SUBSETS, at=st.integers(0, 10))
    def encode(self, channels: tuple[str, ...], at: int) -> None:
        """An entry is encoded; a second time its bytes are not counted again."""
        for entry in self.log.read_after(channels, self.log.head - at, 2):
            item = next(item for item in self.items if item.seq == entry.seq)
            data = self.log.encode(entry, self.format)
            item.weight = ENTRY_BYTES + len(entry.message.data) + len(data)

    @rule(channels=SUBSETS, back=st.integers(0, 30))
    def resume(self, channels: tuple[str, ...], back: int) -> None:
        """A reader comes with a cursor: it is owed all that came after it."""
        seq = max(0, self.log.head - back)
        place = resolve(self.log, channels, Start(StartKind.CURSOR, Cursor("e", seq)))
        assert Cursor("e", seq) == place.announced
        self.enter(channels, place, dict.fromkeys(channels, seq))

    @rule(channels=SUBSETS, start=st.sampled_from([LATEST, EARLIEST]))
    def start(self, channels: tuple[str, ...], start: Start) -> None:
        """A reader comes for what is to come, or for all that there is."""
        place = resolve(self.log, channels, start)
        owed = {c: self.log.head if start is LATEST else self.trimmed(c) for c in channels}
        assert [] == place.gaps
        self.enter(channels, place, owed)

    @rule(channels=SUBSETS, count=st.integers(0, 8))
    def start_last(self, channels: tuple[str, ...], count: int) -> None:
        """A reader comes for the newest messages of each of its channels."""
        place = resolve(self.log, channels, Start(StartKind.LAST, number=count))
        wanted = {c: self.held(c)[-count:] if count else [] for c in channels}
        found = self.log.read_after(channels, place.seq, 1000, floors=place.floors)
        assert sorted(item.seq for items in wanted.values() for item in items) == [entry.seq for entry in found]
        assert [] == place.gaps
        self.enter(channels, place, {c: items[0].seq - 1 if items else self.log.head for c, items in wanted.items()})

    @rule(channels=SUBSETS, back=st.integers(-1, 20))
    def start_since(self, channels: tuple[str, ...], back: int) -> None:
        """A reader comes for a time and what follows: all that is held of it comes, with a gap if some is not."""
        time = (self.items[-1].time if self.items else 1000.0) - back
        place = resolve(self.log, channels, Start(StartKind.SINCE, number=time))
        asked = [item for item in self.items if item.channel in channels and item.time >= time]
        gone = {item.channel for item in asked if item.weight is None}
        entries = self.log.read_after(channels, place.seq, 1000)
        assert [item.seq for item in asked if item.weight is not None] == [entry.seq for entry in entries]
        assert gone == {gap.channel for gap in place.gaps}
        owed = {c: self.trimmed(c) - 1 if c in gone else max(place.announced.seq, self.trimmed(c)) for c in channels}
        self.enter(channels, place, owed)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 100), limit=st.integers(1, 5), max_bytes=st.integers(0, 100))
    def read(self, which: int, limit: int, max_bytes: int) -> None:
        """A reader reads a page: gaps for what was trimmed ahead of it come first."""
        reader = self.readers[which % len(self.readers)]
        for gap in pass_gaps(self.log, reader.channels, reader.place, Reason.SLOW):
            assert Reason.SLOW == gap.reason
            reader.witness.gap(gap)
        place = reader.place
        entries = self.log.read_after(reader.channels, place.seq, limit, max_bytes, place.floors)
        floors = dict(zip(reader.channels, place.floors or (0,) * len(reader.channels), strict=True))
        waiting = [item for item in self.held(*reader.channels) if item.seq > max(place.seq, floors[item.channel])]
        assert bool(waiting) == bool(entries)
        assert len(entries) <= limit
        assert sum(len(entry.message.data) for entry in entries[1:]) <= max_bytes
        for entry in entries:
            reader.witness.message(entry.message.channel, entry.seq)
            reader.place.advance(entry.seq)

    def enter(self, channels: tuple[str, ...], place: Place, owed: dict[str, int]) -> None:
        """Keep a reader, and judge the gaps that it begins with."""
        witness = Witness(self.ledger, owed)
        for gap in place.gaps:
            assert Reason.EXPIRED == gap.reason
            assert place.seq == gap.cursor.seq
            witness.gap(gap)
        self.readers.append(Reader(channels, place, witness))

    # -- what always holds

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        """The entries, their number, their weight, the newest and the marks are the model's."""
        if not hasattr(self, "log"):
            return
        held = self.held()
        assert [item.seq for item in held] == [entry.seq for entry in self.log.read_after(CHANNELS, 0, 1000)]
        assert len(held) == self.log.count
        assert sum(item.weight or 0 for item in held) == self.log.bytes
        for channel in CHANNELS:
            assert self.trimmed(channel) == self.log.mark(channel).seq
            assert max((item.seq for item in self.held(channel)), default=0) == self.log.newest((channel,))

    def teardown(self) -> None:
        """In the end each reader reads until there is nothing more, and has got all that it was owed."""
        for which in range(len(getattr(self, "readers", ()))):
            for _ in range(1 + len(self.items)):
                self.read(which, 5, 100)
            self.readers[which].witness.finish()


TestLogAgainstTheModel = LogMachine.TestCase
TestLogAgainstTheModel.__doc__ = (
    "Whatever happens in whatever order, the log holds what it should and keeps the promise."
)
TestLogAgainstTheModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
