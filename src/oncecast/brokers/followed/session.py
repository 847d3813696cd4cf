"""One session with a followed log: each node reads the whole log, and writes to its end.

Opening writes a probe and reads on until it comes back: then the node has all there is, and knows in which life of the
server it was written. If that life has no record yet, the node writes one and reads until one has come: its own or
another node's. Nothing is published before, so no message of a life precedes its record.

The ledger is kept from one session to the next, as long as the newest record that it has is still in the log. Otherwise
the log is another one, or an older copy of it, and is read again from its beginning.

Invariants
* `FollowedPlace.seen` is the number up to which the sink has everything that it wants; it never goes back in one epoch.
* A publish is answered when its records have been read back, after their messages were handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec

from ...message import Draft, Mark, Message, Page, Receipt, Retention, Start
from ..base import Opening, Outcome
from ..lives import Life, first_life
from ..operable import ChannelState, LogState
from ..session import GuardedSink, Lost
from .ledger import Fed, Ledger
from .pages import read_page
from .record import HEAD_SIZE, LIFE, LIVES, PROBE, TRIM, encode_trim
from .server import LogServer, Removed
from .writes import Numbers, Writes

OPEN_SECONDS = 600.0  # a log of 100 million records is read in this time
PING_SECONDS = 1.0
SILENT_SECONDS = 3.0  # for a probe to come back
QUIET_SECONDS = 10.0  # without a record, after which a probe is written
SWEEP_SECONDS = 10.0
SWEPT = 500  # channels trimmed in one turn of the loop
LIST_RECORDS = 50_000  # and up to as many again, between two lists of the lives
LIST_SECONDS = 600.0
CAUGHT_UP = 5_000  # messages handed over after a pause; what is more is left to the history
LIVES_TRIES = 5


class FollowedPlace:
    """What a node knows of the log, from one session to the next."""

    def __init__(self, node: bytes) -> None:
        self.numbers = Numbers(node)
        self.ledger: Ledger | None = None
        self.epoch = ""
        self.seen = 0
        self.holes: set[tuple[int, int]] = set()
        self.confirmed: set[str] = set()


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
        self._probes: dict[int, asyncio.Future[None]] = {}
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
        ledger.channels.want(place.confirmed.difference(wanted), False)
        ledger.channels.want(wanted, True)
        place.confirmed.intersection_update(wanted)
        missed: list[Message] = []
        await server.follow(ledger.last + 1)
        too_much = await self._read_until(probe, missed) or (old is not None and ledger is not old)
        if old is not None and ledger is not old and old.lives is not None and ledger.lives is not None:
            # The log lacks what was seen of it. If its newest life is an old one, only this node may know that.
            newest = ledger.lives.newest
            if ledger.current and any(
                (life.server, life.base) == (newest.server, newest.base) for life in old.known_lives
            ):
                await self._begin_life(f"{ledger.incarnation} {place.numbers}", missed)
        for _ in range(LIVES_TRIES):
            if ledger.current:
                break
            await self._begin_life(str(ledger.incarnation), missed)
        else:
            raise Lost("its leader changes all the time, and no life of the log could begin")
        place.ledger = ledger
        self._catch_up(wanted, missed, too_much)

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
        return Ledger(first, node=self._place.numbers.node, policy=rules.policy, key_seconds=rules.key_seconds)

    async def _read_until(self, probe: int, missed: list[Message]) -> bool:
        """Read until a probe has come, and what came with it. Return whether there are too many messages."""
        too_much = found = False
        while not found:
            try:
                chunks = await self._server.next()
            except Removed:
                raise Lost("its log was removed while it was read") from None
            for chunk in chunks:  # all of them: the next call goes on behind them
                fed = self._ledger.feed(chunk)
                missed += fed.messages
                if len(missed) > CAUGHT_UP:
                    too_much = True
                    missed.clear()
                found = found or probe in fed.probes
                await asyncio.sleep(0)
        return too_much

    async def _begin_life(self, server: str, missed: list[Message]) -> None:
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

    def _catch_up(self, wanted: Sequence[str], missed: list[Message], too_much: bool) -> None:
        """Hand over what has come since the last session, in order."""
        place, ledger, sink = self._place, self._ledger, self._sink
        assert ledger.lives is not None
        head, holes = ledger.head, set(ledger.lives.holes())
        if place.epoch != ledger.lives.epoch:
            place.epoch, place.seen, place.holes, place.confirmed = ledger.lives.epoch, head, holes, set(wanted)
            sink.begin(Opening(place.epoch, head, Mark(head, float("inf")), holes=tuple(sorted(holes))))
            if wanted:
                sink.wanted(wanted, head)
            return
        for before, after in sorted(holes - place.holes):
            if after <= place.seen:
                continue
            earlier = [message for message in missed if message.seq <= before]
            if earlier and not too_much:
                sink.receive(earlier)
            missed = missed[len(earlier) :]
            sink.hole(before, after)
            place.seen = after
        place.holes = holes
        if too_much and head > place.seen:
            sink.skip(head)
        elif missed:
            sink.receive(missed)
        sink.advance(head)
        place.seen = max(place.seen, head)
        fresh = [channel for channel in wanted if channel not in place.confirmed]
        if fresh:
            place.confirmed.update(fresh)
            sink.wanted(fresh, place.seen)

    # -- following

    async def follow(self) -> None:
        """Hand over what comes, until the connection is lost."""
        confirming = asyncio.create_task(self._confirm(), name="oncecast-followed-confirm")
        reading = asyncio.create_task(self._follow(), name="oncecast-followed-read")
        try:
            ended, _ = await asyncio.wait((confirming, reading), return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.result()
        finally:
            confirming.cancel()
            reading.cancel()
            await asyncio.gather(confirming, reading, return_exceptions=True)

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
        for before, after in fed.holes:
            sink.hole(before, after)
            place.holes.add((before, after))
        if fed.messages:
            sink.receive(fed.messages)
        head = ledger.head
        if head > place.seen and not fed.ahead:
            place.seen = head
            if not fed.messages or fed.messages[-1].seq < head:
                sink.advance(head)
        for number in fed.probes:
            waiting = self._probes.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
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
        self._place.confirmed.difference_update(channels)

    async def _confirm(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            fresh, self._fresh = self._fresh, []
            channels = [
                name for name in fresh if (found := self._ledger.channels.find(name)) is not None and found.wanted
            ]
            if channels:
                self._place.confirmed.update(channels)
                self._sink.wanted(channels, self._place.seen)

    # -- publishing

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Write a batch; it is answered when all of it has been read back."""
        return self._writes.append(drafts)

    # -- reading

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page."""
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
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probes[number] = heard
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                await self._server.write([record])
                await heard
        except TimeoutError:
            raise Lost(f"a probe did not come back within {SILENT_SECONDS:g} s") from None
        finally:
            self._probes.pop(number, None)

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
