"""A broker with a history that a test controls: its deliveries, its trims, and the time of each answer to a read.

With it a test makes messages of other nodes late, lets time pass between the look of a read and its answer, and fails a
read. Invariant: the broker delivers, trims and answers only by calls of the test, or with `at_once`. An answer is found
by a search through a list, the definition of `Broker.read`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..brokers.base import Capabilities, Done, Opening, Outcome, Sink
from ..errors import Refusal
from ..message import Draft, Mark, Message, Page, Receipt, Start, StartKind

__all__ = ["HistoryBroker", "OpenRead"]


@dataclass(slots=True, eq=False)
class OpenRead:
    """A read without an answer. `page` is its result, once `look` has found it."""

    channels: tuple[str, ...]
    start: Start
    limit: int
    max_bytes: int
    done: Callable[[Page | Refusal], None]
    page: Page | None = None


class HistoryBroker:
    """The log in a list. `reads` are those without an answer; `handed` is the last number that the sink knows.

    With `at_once` each publish is delivered, and each read answered, before the call returns. An opening has the newest
    `recent` messages. With `only_wanted` a channel is delivered after `confirm`.
    """

    def __init__(
        self, epoch: str, wall: Callable[[], float], *, at_once: bool = True, recent: int = 0, only_wanted: bool = False
    ) -> None:
        self.epoch = epoch
        self.at_once = at_once
        self.recent = recent
        self.capabilities = Capabilities("process", history=True, only_wanted=only_wanted, shared=False)
        self.wanted: list[str] = []
        self.head = self.handed = 0
        self.messages: list[Message] = []
        self.marks: dict[str, Mark] = {}
        self.holes: tuple[tuple[int, int], ...] = ()
        self.reads: list[OpenRead] = []
        self._wall = wall
        self._time = 0.0
        self._fetched = 0
        self._on_the_way: list[tuple[int, list[Message] | None]] = []
        self._keys: dict[tuple[str, str], Receipt] = {}
        self._sink: Sink | None = None
        self._closed = False
        self._confirmed: set[str] = set()

    # -- the broker's contract

    async def start(self, sink: Sink) -> None:
        """Deliver to `sink` from here on."""
        self._sink = sink
        sink.begin(self.opening())

    def opening(self) -> Opening:
        """Return the opening of the log."""
        self.handed = self._fetched = self.head
        recent = tuple(self.messages[len(self.messages) - self.recent :] if self.recent else ())
        before = recent[0].seq - 1 if recent else self.head
        time = max((m.time for m in (recent[:1] or self.messages[-1:])), default=self._time)
        marks = {name: mark for name, mark in self.marks.items() if mark.seq > before}
        return Opening(self.epoch, self.head, Mark(before, time), recent, marks, self.holes)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts, deliver them and all messages before them, and answer."""
        if self._closed or self._sink is None:
            done([_refusal()] * len(drafts))
            return
        outcomes: list[Outcome] = []
        for draft in drafts:
            receipt = None if draft.key is None else self._keys.get((draft.channel, draft.key))
            if receipt is None:
                receipt = self._append(draft)
                if draft.key is not None:
                    self._keys[draft.channel, draft.key] = receipt
            outcomes.append(receipt)
        self.hand_over()
        done(outcomes)

    def read(
        self,
        channels: Sequence[str],
        start: Start,
        limit: int,
        max_bytes: int,
        done: Callable[[Page | Refusal], None],
    ) -> None:
        """Queue the read; with `at_once`, answer it."""
        if self._closed:
            done(_refusal())
            return
        self.reads.append(OpenRead(tuple(channels), start, limit, max_bytes, done))
        if self.at_once:
            self.answer(len(self.reads) - 1)

    def want(self, channels: Sequence[str]) -> None:
        """Record the channels, and confirm them at once if `at_once`."""
        self.wanted.extend(channels)
        if self.at_once:
            self.confirm(*channels)

    def unwant(self, channels: Sequence[str]) -> None:
        """Stop the delivery of these channels."""
        for channel in channels:
            self.wanted.remove(channel)
            self._confirmed.discard(channel)

    async def stop(self) -> None:
        """Refuse publishes and reads from here on."""
        self._closed = True

    # -- calls of the test

    def confirm(self, *channels: str) -> None:
        """Confirm that these channels are delivered from here on."""
        if self._sink is not None and self.capabilities.only_wanted:
            self._confirmed.update(channels)
            self._sink.wanted(channels, self.handed)

    def lose(self, count: int) -> None:
        """Lose the newest messages, as a failover may, and continue 100 numbers later."""
        before = self.head - count
        self.messages = [message for message in self.messages if message.seq <= before]
        self._on_the_way.clear()
        self.head += 100
        self.holes = (*self.holes, (before, self.head))
        self.handed = self._fetched = self.head
        if self._sink is not None:
            self._sink.hole(before, self.head)

    def renew(self, epoch: str) -> None:
        """Replace the log by an empty one with another epoch."""
        self.epoch = epoch
        self.head = 0
        self.messages, self.marks, self.holes = [], {}, ()
        self._on_the_way.clear()
        self._keys.clear()
        self._confirmed.clear()
        if self._sink is not None:
            self._sink.begin(self.opening())
            if self.at_once:
                self.confirm(*self.wanted)

    def append(self, *drafts: Draft) -> None:
        """Append drafts of another node. They are delivered by `hand_over` or `arrive`."""
        for draft in drafts:
            self._append(draft)

    def skip_numbers(self, count: int) -> None:
        """Skip these numbers, as between two lives of a log. To be called before the start."""
        self.holes = (*self.holes, (self.head, self.head + count))
        self.head += count
        self._fetched = self.handed = self.head

    def fetch(self, count: int | None = None) -> None:
        """Take the next undelivered messages, `count` or all; they are on their way to the sink."""
        ahead = [message for message in self.messages if message.seq > self._fetched]
        if len(ahead) != self.head - self._fetched:  # a part of the range has been trimmed
            self._fetched = self.head
            self._on_the_way.append((self.head, None))
        elif ahead := ahead[:count]:
            self._fetched = ahead[-1].seq
            self._on_the_way.append((self._fetched, ahead))

    def hand_over(self) -> None:
        """Deliver all undelivered messages, or call `skip` where some of them are trimmed."""
        self.fetch()
        while self._on_the_way:
            self.arrive()

    def arrive(self) -> None:
        """Deliver the messages of the oldest `fetch`."""
        self.handed, messages = self._on_the_way.pop(0)
        if self._sink is None:
            return
        if messages is None:
            self._sink.skip(self.handed)
        else:
            if self.capabilities.only_wanted:
                messages = [message for message in messages if message.channel in self._confirmed]
            if messages:
                self._sink.receive(messages)
            self._sink.advance(self.handed)

    def skip(self) -> None:
        """Call the sink's `skip` up to the head, as a node does that is too far behind."""
        self._fetched = self.head
        self._on_the_way.append((self.head, None))
        while self._on_the_way:
            self.arrive()

    def trim(self, channel: str, upto: int) -> None:
        """Trim a channel's messages up to a number."""
        gone = [m for m in self.messages if m.channel == channel and m.seq <= upto]
        if gone:
            self.marks[channel] = Mark(gone[-1].seq, gone[-1].time)
            self.messages = [m for m in self.messages if m.channel != channel or m.seq > upto]

    def look(self, index: int) -> None:
        """Find the page of a queued read in the log of now."""
        read = self.reads[index]
        if read.page is None:
            read.page = self.find(read.channels, read.start, read.limit, read.max_bytes)

    def answer(self, index: int = 0, refusal: Refusal | None = None) -> None:
        """Answer a queued read: with its page of `look`, with a page of now, or with a refusal."""
        self.look(index)
        read = self.reads.pop(index)
        assert read.page is not None
        read.done(refusal or read.page)

    def mark(self, channel: str) -> Mark:
        """Return a channel's trimmed mark."""
        return self.marks.get(channel, Mark())

    def find(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Return the page that a read would find now."""
        kept = [message for message in self.messages if message.channel in channels]
        marks = {name: self.mark(name) for name in channels}
        floors: dict[str, int] = {}
        match start.kind:
            case StartKind.CURSOR:
                assert start.cursor is not None
                after = min(start.cursor.seq, self.head)
                above = dict(zip(channels, start.floors, strict=False))
                kept = [message for message in kept if message.seq > above.get(message.channel, 0)]
            case StartKind.LATEST:
                after = self.head
            case StartKind.EARLIEST:
                after = kept[0].seq - 1 if kept else self.head
            case StartKind.LAST:
                count = int(start.number)
                kept = [m for name in set(channels) for m in [m for m in kept if m.channel == name][::-1][:count]]
                kept.sort(key=lambda message: message.seq)
                for name in channels:
                    floors[name] = min((m.seq - 1 for m in kept if m.channel == name), default=self.head)
                after = min(floors.values())
            case StartKind.SINCE:
                young = [m.seq for m in self.messages if m.time >= start.number][:1]
                trimmed = [m.seq for m in marks.values() if m.seq and m.time >= start.number]
                after = min([*young, *trimmed, self.head + 1]) - 1
        found: list[Message] = []
        size = 0
        for message in (m for m in kept if m.seq > after):
            size += len(message.data)
            if len(found) >= limit or (found and size > max_bytes):
                return Page(after, found, found[-1].seq if found else after, marks, floors)
            found.append(message)
        return Page(after, found, max(self.head, after) if limit else after, marks, floors)

    # -- helpers

    def _append(self, draft: Draft) -> Receipt:
        self.head += 1
        self._time = max(self._time, round(self._wall(), 3))
        message = Message(self.head, draft.channel, draft.data, draft.kind, draft.event, self._time, draft.trace)
        self.messages.append(message)
        return Receipt(self.epoch, self.head, "process")


def _refusal() -> Refusal:
    return Refusal("unavailable", "The broker is closed.", retry_after=1)
