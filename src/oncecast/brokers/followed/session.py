"""One session with a followed log: each node reads the whole log, and writes to its end.

Opening writes a probe and reads on until it comes back: then the node has all there is, and knows in which life of the
server it was written. If that life has no record yet, the node writes one and reads until one has come: its own or
another node's. Nothing is published before, so no message of a life precedes its record.

The ledger is kept from one session to the next, as long as the newest record that it has is still in the log. Otherwise
the log is another one, or an older copy of it, and is read again from its beginning.

Invariants
* A publish is answered when its records have been read back, after their messages were handed over.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec

from ...message import Draft, Page, Receipt, Retention, Start
from ..base import Outcome
from ..handover import Handover, Missed
from ..lives import Life, first_life
from ..operable import ChannelState, LogState
from ..probes import Probes
from ..session import GuardedSink, Lost, run_together
from .ledger import Fed, Ledger
from .pages import read_page
from .record import HEAD_SIZE, LIFE, LIVES, PROBE, TRIM, encode_trim
from .server import LogServer, Removed
from .writes import Numbers, Writes

OPEN_SECONDS = 600.0  # a log of 100 million records is read in this time
PING_SECONDS = 1.0
QUIET_SECONDS = 10.0  # without a record, after which a probe is written
SWEEP_SECONDS = 10.0
SWEPT = 500  # channels trimmed in one turn of the loop
LIST_RECORDS = 50_000  # and up to as many again, between two lists of the lives
LIST_SECONDS = 600.0
LIVES_TRIES = 5


class FollowedPlace(Handover):
    """What a node knows of the log, from one session to the next: the ledger too."""

    def __init__(self, node: bytes) -> None:
        super().__init__()
        self.numbers = Numbers(node)
        self.ledger: Ledger | None = None


class FollowedRules(msgspec.Struct, frozen=True):
    """What holds for each session: how the log is named, retention by channel, Unix seconds, the key window."""

    new_epoch: Callable[[], str]
    policy: Callable[[str], Retention]
    wall: Callable[[], float]
    key_seconds: float


class FollowedSession:
    """See the module."""

    open_seconds = OPEN_SECONDS

    def __init__(self, server: LogServer, sink: GuardedSink, place: FollowedPlace, rules: FollowedRules) -> None:
        self._server = server
        self._sink = sink
        self._place = place
        self._rules = rules
        self._writes = Writes(server, place.numbers)
        self._probes = Probes[int]()
        self._fresh: list[str] = []  # wanted and not confirmed
        self._asked = asyncio.Event()
        self._later = 1 + place.numbers.node[0] / 256  # 1 to 2, so that not all nodes list the lives at once

    # -- opening

    async def open(self, wanted: Sequence[str]) -> None:
        """Connect, read what is new, see to it that the server's life has a record, and hand over what was missed."""
        place, server = self._place, self._server
        await server.open(self._rules.new_epoch)
        probe, record = place.numbers.control(PROBE)
        await server.write([record])
        first, end = await server.bounds()
        old = place.ledger
        if old is not None and await self._still_there(old, first, end):
            ledger = old
            ledger.removed(first)
        else:
            ledger = self._new_ledger(first)
        self._ledger = ledger
        ledger.channels.want(place.last.keys() - set(wanted), False)
        ledger.channels.want(wanted, True)
        missed = Missed()
        await server.follow(ledger.last + 1)
        await self._read_until(probe, missed)
        if old is not None and ledger is not old:
            missed.give_up()
        if old is not None and ledger is not old and old.lives is not None and ledger.lives is not None:
            # The log lacks what was seen of it. If its newest life is an old one, only this node may know that.
            newest = ledger.lives.newest
            if ledger.current and any(
                (life.epoch, life.server, life.base) == (newest.epoch, newest.server, newest.base)
                for life in old.known_lives
            ):
                await self._begin_life(f"{ledger.incarnation} {place.numbers}", missed)
        for _ in range(LIVES_TRIES):
            if ledger.current:
                break
            await self._begin_life(str(ledger.incarnation), missed)
        else:
            raise Lost("its leader changes all the time, and no life of the log could begin")
        place.ledger = ledger
        lives = ledger.lives
        assert lives is not None  # as it is current
        if place.epoch != lives.epoch:
            place.begin(self._sink, lives.epoch, ledger.head, lives.holes(), wanted)
        else:
            place.catch_up(self._sink, missed, ledger.head, lives.holes(), wanted)

    async def _still_there(self, ledger: Ledger, first: int, end: int) -> bool:
        """Return whether the newest record that was read is still in the log, and what follows it too."""
        if not first <= ledger.last < end or ledger.lives is None:
            return False
        try:
            chunks = await self._server.read(ledger.last, 1)
        except Removed:
            return False
        for chunk in chunks:
            at = ledger.last - chunk.first
            if 0 <= at < len(chunk.records):
                return bytes(chunk.records[at][:HEAD_SIZE]) == ledger.last_record
        return False

    def _new_ledger(self, first: int) -> Ledger:
        rules = self._rules
        return Ledger(
            first,
            node=self._place.numbers.node,
            policy=rules.policy,
            key_seconds=rules.key_seconds,
            foreign=self._sink.foreign,
        )

    async def _read_until(self, probe: int, missed: Missed) -> None:
        """Read until a probe has come, and what came with it."""
        found = False
        while not found:
            try:
                chunks = await self._server.next()
            except Removed:
                raise Lost("its log was removed while it was read") from None
            for chunk in chunks:  # all of them: the next call goes on behind them
                fed = self._ledger.feed(chunk)
                missed.add(fed.messages)
                found = found or probe in fed.probes
                await asyncio.sleep(0)

    async def _begin_life(self, server: str, missed: Missed) -> None:
        """Write a record of a life, and read until it has come."""
        ledger, place, now = self._ledger, self._place, self._rules.wall()
        if ledger.lives is None:
            ledger.forget_held()
            life = first_life(self._rules.new_epoch(), server, now)
        else:
            life = ledger.lives.next(ledger.last, server, now)
            if life.epoch == place.epoch and life.base + ledger.last < place.seen:
                life = Life(0, life.epoch, life.born, server, place.seen + 1 - ledger.last)
        _, record = place.numbers.control(LIFE, life.record())
        number, probe = place.numbers.control(PROBE)
        await self._server.write([record, probe])
        await self._read_until(number, missed)

    # -- following

    async def follow(self) -> None:
        """Hand over what comes, until the connection is lost."""
        await run_together(self._confirm(), self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                chunks = await self._server.next()
            except Removed:
                raise Lost("its log lacks what was read of it") from None
            self._sink.probed()  # the log's end was read
            for chunk in chunks:
                self._hand_over(self._ledger.feed(chunk))
                await asyncio.sleep(0)  # others have their turn

    def _hand_over(self, fed: Fed) -> None:
        place, sink, ledger = self._place, self._sink, self._ledger
        messages = fed.messages
        for before, after in fed.holes:
            earlier = bisect_right(messages, before, key=attrgetter("seq"))
            if earlier:
                sink.receive(messages[:earlier])
                messages = messages[earlier:]
            sink.hole(before, after)
            place.holes.add((before, after))
        if messages:
            sink.receive(messages)
        head = ledger.head
        if head > place.seen and not fed.ahead:
            place.seen = head
            if not fed.messages or fed.messages[-1].seq < head:
                sink.advance(head)
        for number in fed.probes:
            self._probes.came(number)
        for number, offset in fed.own:
            receipt = None if offset is None else Receipt(place.epoch, ledger.seq_of(offset), "broker")
            self._writes.read_back(number, receipt)
        if fed.ahead:
            raise Lost("its leader has changed")

    # -- wanting

    def want(self, channels: Sequence[str]) -> None:
        """Hand over the messages of channels from the place that has been read on."""
        self._ledger.channels.want(channels, True)
        self._fresh += channels
        self._asked.set()

    def unwant(self, channels: Sequence[str]) -> None:
        """Hand over these channels no longer."""
        self._ledger.channels.want(channels, False)
        self._place.forget(channels)

    async def _confirm(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            fresh, self._fresh = self._fresh, []
            channels = [
                name for name in fresh if (found := self._ledger.channels.find(name)) is not None and found.wanted
            ]
            if channels:
                self._place.last.update(dict.fromkeys(channels, self._place.seen))
                self._sink.wanted(channels, self._place.seen)

    # -- publishing

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Write a batch; it is answered when all of it has been read back."""
        return self._writes.append(drafts)

    # -- reading

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page. A cursor above what was read may be of a node that has read more, so the rest is read first."""
        if start.cursor is not None and start.cursor.seq > self._ledger.head:
            await self._probe()
        return await read_page(self._ledger, self._server, channels, start, limit, max_bytes, self._rules.wall())

    # -- tending

    async def tend(self) -> None:
        """See that the server answers and that records come back; trim; list the lives from time to time."""
        loop, ledger = asyncio.get_running_loop(), self._ledger
        swept, heard = loop.time(), loop.time()
        last, listed, listed_at = ledger.last, ledger.listed, loop.time()
        while True:
            await self._server.ping()
            now = loop.time()
            if ledger.last != last:
                last, heard = ledger.last, now
            elif now - heard > QUIET_SECONDS:
                await self._probe()
            if ledger.listed != listed:
                listed, listed_at = ledger.listed, now
            elif ledger.last - listed > LIST_RECORDS * self._later or now - listed_at > LIST_SECONDS * self._later:
                _, record = self._place.numbers.control(LIVES, ledger.list_of_lives())
                await self._server.write([record])
                listed_at = now
            if now - swept > SWEEP_SECONDS:
                swept = now
                ledger.removed((await self._server.bounds())[0])
                for number, _ in enumerate(ledger.channels.sweep(self._rules.wall())):
                    if number % SWEPT == SWEPT - 1:
                        await asyncio.sleep(0)
            await asyncio.sleep(PING_SECONDS)

    async def _probe(self) -> None:
        """Write a probe, and return once it has come back."""
        number, record = self._place.numbers.control(PROBE)
        await self._probes.send(number, self._server.write([record]))

    # -- `operable.Operable`

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        await self._probe()
        lives = self._ledger.lives
        return LogState(self._server.name, 0 if lives is None else len(lives.holes()))

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        await self._probe()
        known = self._ledger.channels
        now = self._rules.wall()
        for channel in known.by_name.values():
            known.trim(channel, now)
        states = (self._state(channel.name) for channel in known.by_name.values() if channel.offsets)
        return sorted(states, key=attrgetter("name"))

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now, by a record that tells every node."""
        await self._probe()
        found = self._ledger.channels.find(channel)
        if found is not None and (count := found.over(retention, self._rules.wall())):
            data = encode_trim(channel, found.offsets[count - 1])
            _, record = self._place.numbers.control(TRIM, data)
            await self._server.write([record])
            await self._probe()
        return self._state(channel)

    def _state(self, name: str) -> ChannelState:
        channel, seq_of = self._ledger.channels.find(name), self._ledger.seq_of
        if channel is None or not channel.offsets:
            return ChannelState(name)
        return ChannelState(name, len(channel.offsets), seq_of(channel.offsets[0]), seq_of(channel.offsets[-1]))

    # -- the end

    async def close(self) -> None:
        """Close the connection."""
        await self._writes.close()
        await self._server.close()
