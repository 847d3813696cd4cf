"""What the tests of the core share: a format, sinks, sockets, and a hub with its log and its turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oncecast.core.entry import Entry
from oncecast.core.hub import Hub
from oncecast.core.log import Log
from oncecast.core.place import Place, resolve
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.errors import Refusal
from oncecast.message import LATEST, Cursor, Kind, LogGap, Mark, Message, Page, Reason, Retention, Start, StartKind
from oncecast.testing.clock import Turns


class Words:
    """A format that can be read back, and counts what it makes."""

    def __init__(self) -> None:
        self.made = 0
        self.poison = 0

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the number and a space; fail on the poisoned one."""
        self.made += 1
        if message.seq == self.poison:
            raise ValueError("damaged")
        return b"%d " % message.seq

    def block(self, parts: list[bytes]) -> bytes:
        """Join them."""
        return b"".join(parts)


class FakeSink:
    """A sink that keeps its blocks; `on_write` runs inside the next write, once."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.gaps: list[LogGap] = []
        self.refusals: list[str] = []
        self.on_write: Callable[[], object] | None = None
        self.on_gap: Callable[[], object] | None = None
        self.on_refuse: Callable[[], object] | None = None

    def write(self, block: bytes, /) -> None:
        """Keep the block."""
        self.blocks.append(block)
        call, self.on_write = self.on_write, None
        if call:
            call()

    def gap(self, gap: LogGap, /) -> None:
        """Keep the gap."""
        self.gaps.append(gap)
        if self.on_gap:
            self.on_gap()

    def refuse(self, refusal: Refusal, /) -> None:
        """Keep the code."""
        self.refusals.append(refusal.code)
        if self.on_refuse:
            self.on_refuse()

    @property
    def seqs(self) -> list[int]:
        """All the numbers that came."""
        return [int(word) for word in b"".join(self.blocks).split()]

    @property
    def missed(self) -> list[tuple[str, Reason, int, int]]:
        """All the gaps that came."""
        return [(g.channel, g.reason, g.missed_from.seq, g.missed_to.seq if g.missed_to else -1) for g in self.gaps]


class FakeSocket:
    """A socket that takes `room` bytes, then raises as a full one does."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def send(self, data: bytes, /) -> int:
        """Take what there is room for."""
        if self.room == 0:
            raise BlockingIOError
        taken, self.room = data[: self.room], max(0, self.room - len(data))
        self.taken += taken
        return len(taken)


class Bench:
    """A hub with its log, its turns and the faults it reports."""

    def __init__(self, messages: int = 1000) -> None:
        self.sockets: list[FakeSocket] = []
        self.log = Log("e", lambda channel: Retention(messages, 1e9))
        self.turns = Turns()
        self.faults: list[str] = []
        self.hub = Hub(self.log, self.turns.schedule, lambda error: self.faults.append(str(error)), self.send)
        self.format = Words()

    def send(self, descriptor: int, data: bytes) -> int:
        """Write to a socket; its descriptor is its place in the list."""
        return self.sockets[descriptor].send(data)

    def append(self, channels: str) -> None:
        """Append a message for each letter."""
        first = self.log.head + 1
        self.hub.append([Message(n, c, b"x", Kind.JSON, None, float(n)) for n, c in enumerate(channels, first)], 0.0)

    def attach(
        self, channels: str = "a", start: Start = LATEST, *, lag: Lag = Lag.RESUME, sink: FakeSink | None = None
    ) -> tuple[FakeSink, Subscription]:
        """Attach a subscription of channels with a letter each."""
        sink = sink or FakeSink()
        subscription = Subscription(tuple(channels), self.format, sink, resolve(self.log, channels, start), lag)
        self.hub.attach(subscription)
        return sink, subscription

    def plug(self, channels: str = "a", room: int = 100) -> tuple[FakeSink, FakeSocket, Subscription]:
        """Attach a subscription with a socket, and let it go live."""
        sink, socket = FakeSink(), FakeSocket(room)
        self.sockets.append(socket)
        place, descriptor = resolve(self.log, channels, LATEST), len(self.sockets) - 1
        subscription = Subscription(tuple(channels), self.format, sink, place, Lag.RESUME, descriptor)
        self.hub.attach(subscription)
        self.turns.run_all()
        return sink, socket, subscription

    def live(self, channels: str = "a", *, lag: Lag = Lag.RESUME) -> tuple[FakeSink, Subscription]:
        """Attach a subscription and let it go live."""
        sink, subscription = self.attach(channels, lag=lag)
        self.turns.run_all()
        assert State.LIVE is subscription.state
        return sink, subscription


@dataclass(slots=True)
class Asked:
    """A page of history that the hub has asked for."""

    channels: tuple[str, ...]
    seq: int
    floors: tuple[int, ...]
    limit: int
    max_bytes: int
    done: Callable[[Page | Refusal], None]


class HistoryBench(Bench):
    """A hub whose log has a history: `stored` are its messages, and it answers as the test says."""

    def __init__(self, stored: str = "", *, messages: int = 2, lossy_holes: bool = False) -> None:
        super().__init__(messages)
        self.stored = [Message(n, c, b"x", Kind.JSON, None, float(n)) for n, c in enumerate(stored, 1)]
        self.asked: list[Asked] = []
        head = Mark(len(stored), float(len(stored)))
        retention = Retention(messages, 1e9)
        self.log = Log("e", lambda channel: retention, history=True, floor=head, lossy_holes=lossy_holes)
        self.hub = Hub(
            self.log, self.turns.schedule, lambda error: self.faults.append(str(error)), self.send, self.read
        )

    def read(
        self,
        channels: tuple[str, ...],
        seq: int,
        floors: tuple[int, ...],
        limit: int,
        max_bytes: int,
        done: Callable[[Page | Refusal], None],
    ) -> None:
        """Keep the question."""
        self.asked.append(Asked(channels, seq, floors, limit, max_bytes, done))

    def append(self, channels: str) -> None:
        """Append a message for each letter, which is stored too."""
        first = self.log.head + 1
        messages = [Message(n, c, b"x", Kind.JSON, None, float(n)) for n, c in enumerate(channels, first)]
        self.stored += messages
        self.hub.append(messages, 0.0)

    def behind(self, channels: str, seq: int, *, floors: tuple[int, ...] = ()) -> tuple[FakeSink, Subscription]:
        """Attach a subscription at a place."""
        sink = FakeSink()
        place = Place(seq, self.log.cursor(seq), floors=floors)
        subscription = Subscription(tuple(channels), self.format, sink, place, Lag.RESUME)
        self.hub.attach(subscription)
        return sink, subscription

    def page(self, asked: Asked, **marks: int) -> Page:
        """Return what the history has of what was asked, without regard to floors."""
        found = [m for m in self.stored if m.channel in asked.channels and m.seq > asked.seq][: asked.limit]
        newest = max([self.log.head, asked.seq, *(message.seq for message in self.stored)])
        upto = found[-1].seq if len(found) == asked.limit else newest
        return Page(asked.seq, found, upto, {name: Mark(marks.get(name, 0)) for name in asked.channels})

    def answer(self, **marks: int) -> None:
        """Answer the oldest question, with these trimmed marks."""
        asked = self.asked.pop(0)
        asked.done(self.page(asked, **marks))

    def finish(self) -> None:
        """Answer and turn until nothing is left to do."""
        while self.turns.run() or self.asked:
            if self.asked:
                self.answer()


def make(retention: Retention | None = None, max_bytes: int = 1 << 20) -> Log:
    """A log whose every channel is kept alike."""
    kept = Retention() if retention is None else retention
    return Log("e", lambda channel: kept, max_bytes=max_bytes)


def fill(log: Log, channels: str, *, now: float = 0.0, data: bytes = b"1") -> Log:
    """Append one message for each letter, to the channel of that letter; its time is its number."""
    for channel in channels:
        seq = log.head + 1
        log.append(Message(seq, channel, data, Kind.JSON, None, float(seq)), now)
    return log


def seqs(entries: list[Entry]) -> list[int]:
    """The numbers of entries."""
    return [entry.seq for entry in entries]


def after(seq: int, epoch: str = "e") -> Start:
    """The start right after a cursor."""
    return Start(StartKind.CURSOR, Cursor(epoch, seq))


def last(count: float) -> Start:
    """The start that yields the last `count` messages."""
    return Start(StartKind.LAST, number=count)


def since(time: float) -> Start:
    """The start at a time."""
    return Start(StartKind.SINCE, number=time)


def read(log: Log, channels: tuple[str, ...], place: Place) -> list[int]:
    """All that a reader gets from a place, as numbers."""
    return seqs(log.read_after(channels, place.seq, 1000, floors=place.floors))


def plain(gaps: list[LogGap]) -> list[tuple[str, Reason, int, int | None, int]]:
    """Gaps as plain tuples: channel, reason, from, to, and where the stream goes on."""
    return [
        (g.channel, g.reason, g.missed_from.seq, g.missed_to.seq if g.missed_to else None, g.cursor.seq) for g in gaps
    ]
