"""The index of a log that a node keeps: what each record is, where the messages are, and which keys are known.

The log's server orders and keeps records; it knows nothing of channels, keys or lives. Each node reads every record, in
order, and comes to the same conclusions, as they depend on the log alone:

* A record counts if the server wrote it in the life that the newest life record began. `incarnation` is the server's
  own number of that. Other messages are stale: their publisher did not know that the log had lost records.
* A life record counts if it is of the incarnation that wrote it, and begins another life than the newest. The life's
  numbers count from the first record of the incarnation, its `turn`: what was lost may have had the numbers from there.
* A message whose key was seen within the key window is void: it is no message of the log, and its receipt is the first.

A log whose beginning was removed by its server has no life records there. A record that lists the lives stands in it
from time to time; what precedes the first such record is held back until it comes.

Invariants
* `last` is the offset of the newest record that was fed; offsets rise by one.
* `lives` is None until a life is known; then `head` and `seq_of` have numbers.

Sans-I/O: `feed` is given the records, and nothing here waits. Memory: what `channels.py` says, and about 150 bytes for
each key of the window.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ...message import CHANNEL_PATTERN, INTERNAL, Mark, Message, Retention
from ..lives import Life, Lives, read_life
from ..meters import Foreign
from ..session import Lost
from ..stored import STORED_KINDS, stored_message
from .channels import Channel, Channels
from .record import (
    HEAD,
    HEAD_SIZE,
    LIFE,
    LIVES,
    MAGIC,
    NAMES_SIZE,
    NO_KEY,
    PROBE,
    TRIM,
    LifeEntry,
    LivesList,
    decode_lives,
    decode_trim,
)


class Chunk(NamedTuple):
    """Records of the log with rising offsets. `time` is the server's, in Unix seconds."""

    first: int
    records: Sequence[bytes]
    incarnation: int
    time: float


class Fed(msgspec.Struct):
    """What a chunk has brought. Both `holes` and `messages` are in the order of their numbers.

    `own` are this node's records: their number, and the offset that is their receipt, or None for a stale one.
    `probes` are the numbers of this node's probes. `ahead` says that the server is in a life that has no record yet.
    """

    messages: list[Message]
    own: list[tuple[int, int | None]]
    probes: list[int]
    holes: list[tuple[int, int]]
    ahead: bool = False


class Ledger:
    """See the module. `first` is the offset that the log begins with, `node` this node's name in records.

    `foreign` is called for each record that is left out.
    """

    def __init__(
        self,
        first: int,
        *,
        node: bytes,
        policy: Callable[[str], Retention],
        key_seconds: float,
        foreign: Foreign,
    ) -> None:
        self.first = first
        self.last = first - 1
        self.last_record = b""  # the beginning of the record at `last`
        self.incarnation: int | None = None  # of the newest record
        self.listed = first  # the offset of the newest life record, or list of lives
        self.time = 0.0
        self.void = 0
        self.channels = Channels(policy)
        self.foreign = foreign
        self._node = node
        self._key_seconds = key_seconds
        self._keys: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._lives: list[Life] = []  # their offsets are their turns
        self._starts: list[int] = []  # the offsets of their records
        self._turn: int | None = None  # the first offset of an incarnation that has no life yet
        self._index: Lives | None = None
        self._server = -1  # the incarnation of the newest life
        self._held: list[Chunk] = []  # what precedes the first list of lives
        self._whole = first == 0  # the first life record is the log's first

    # -- lives

    @property
    def lives(self) -> Lives | None:
        """The lives of the log, None as long as none is known."""
        return self._index

    @property
    def known_lives(self) -> Sequence[Life]:
        """The lives of the log, the oldest first. The offset of each is its turn."""
        return self._lives

    @property
    def current(self) -> bool:
        """Whether the newest record is of the newest life."""
        return self._index is not None and self.incarnation == self._server

    @property
    def head(self) -> int:
        """The number of the newest record."""
        return self.seq_of(self.last)

    def seq_of(self, offset: int) -> int:
        """Return the number of an offset."""
        assert self._index is not None
        return self._index.seq_of(offset)

    def list_of_lives(self) -> bytes:
        """Return the data of a record that lists all lives."""
        entries = [
            LifeEntry(life.offset, start, life.server, life.base)
            for life, start in zip(self._lives, self._starts, strict=True)
        ]
        newest = self._lives[-1]
        return msgspec.json.encode(LivesList(newest.epoch, newest.born, self.last, entries))

    def _live(self, lives: list[Life], starts: list[int]) -> None:
        self._lives, self._starts = lives, starts
        self._index = Lives(lives)
        self._server = server_of(lives[-1])
        self._turn = None

    # -- channels

    def mark(self, channel: Channel | None) -> Mark:
        """Return the trimmed mark of a channel."""
        trimmed = self.channels.trimmed(channel)
        return Mark() if trimmed is None else Mark(self.seq_of(trimmed[0]), trimmed[1])

    def removed(self, first: int) -> None:
        """Note that the server has removed all records below an offset."""
        if first > self.first:
            self.first = first
            self.channels.removed(first, self.time)
            while len(self._lives) > 1 and self._lives[1].offset < first:
                del self._lives[0], self._starts[0]
            if self._lives:
                self._index = Lives(self._lives)

    # -- reading the log

    def feed(self, chunk: Chunk) -> Fed:
        """Take the next records. What was fed before is left out. Raises `Lost` where records between are missing."""
        fed = Fed([], [], [], [])
        skip = self.last + 1 - chunk.first
        if skip < 0:
            raise Lost(f"the records from offset {self.last + 1} to {chunk.first - 1} did not come")
        if skip > 0:
            chunk = chunk._replace(first=chunk.first + skip, records=chunk.records[skip:])
        if not chunk.records:
            return fed
        self.time = max(self.time, chunk.time)  # a server's clock may go back
        chunk = chunk._replace(time=self.time)
        self.incarnation = chunk.incarnation
        self.last_record = bytes(chunk.records[-1][:HEAD_SIZE])
        end = chunk.first + len(chunk.records) - 1
        if self._index is None and not self._whole:
            self._hold(chunk, fed)
        else:
            self._take(chunk, fed)
        self.last = end
        fed.ahead = self._index is not None and chunk.incarnation != self._server
        return fed

    def forget_held(self) -> None:
        """Give up what precedes the first list of lives: there is none, and the log begins here."""
        if self._index is None:
            self._held.clear()
            self._whole = True
            if self.last >= 0:
                self.channels.removed(self.last + 1, self.time)

    def _hold(self, chunk: Chunk, fed: Fed) -> None:
        """Keep the heads of records until a list of lives comes; then take them."""
        for at, record in enumerate(chunk.records):
            if len(record) < HEAD_SIZE or record[:2] != MAGIC or record[2] != LIVES:
                continue
            try:
                listed = decode_lives(record[HEAD_SIZE:])
                lives = [Life(each.turn, listed.epoch, listed.born, each.server, each.base) for each in listed.lives]
                server_of(lives[-1])
            except ValueError:
                continue
            held, self._held = self._held, []
            self._live(lives, [each.record for each in listed.lives])
            self.channels.removed(self.first, held[0].time if held else chunk.time)
            self.listed = chunk.first + at
            for each in (*held, chunk):
                self._take(each, fed, known=listed.upto)
            fed.holes.clear()
            return
        heads = [HEAD.unpack_from(record) for record in chunk.records if len(record) >= HEAD_SIZE]
        fed.probes += [head[3] for head in heads if head[:3] == (MAGIC, PROBE, self._node)]
        self._held.append(chunk._replace(records=[record[:NAMES_SIZE] for record in chunk.records]))

    def _take(self, chunk: Chunk, fed: Fed, known: int = -1) -> None:
        """Take records. The lives up to the offset `known` are known."""
        time, incarnation = chunk.time, chunk.incarnation
        channels, keys, own_node = self.channels.by_name, self._keys, self._node
        self._expire_keys(time)
        server, base = self._place(chunk.first, known)
        if self._turn is None and self._index is not None and incarnation != self._server and chunk.first > known:
            self._turn = chunk.first
        offset = chunk.first - 1
        unpack, size = HEAD.unpack_from, HEAD_SIZE
        for record in chunk.records:
            offset += 1
            try:
                magic, kind, node, number, key, names, events = unpack(record)
            except struct.error:
                magic = b""
            if magic != MAGIC or kind > TRIM or size + names + events > len(record):
                self._skip(offset)
                continue
            if kind not in STORED_KINDS:
                if kind == PROBE:
                    if node == own_node:
                        fed.probes.append(number)
                elif kind == TRIM:
                    self._trim(record, offset)
                else:
                    if offset > known:
                        self._control(kind, record, offset, incarnation, fed)
                    server, base = self._place(offset + 1, known)
                continue
            if incarnation != server:
                if node == own_node:
                    fed.own.append((number, None))
                continue
            name = record[size : size + names]
            channel = channels.get(name)
            if channel is None:
                text = name.decode("ascii", "replace")
                if CHANNEL_PATTERN.fullmatch(text) is None and text not in INTERNAL:
                    self._skip(offset)
                    continue
                channel = self.channels.make(text)
            if key != NO_KEY:
                seen = keys.get(key)
                if seen is not None:
                    self.void += 1
                    if node == own_node:
                        fed.own.append((number, seen[0]))
                    continue
                keys[key] = (offset, time)
            if channel.wanted:
                try:
                    at = size + names + events
                    event = record[at - events : at].decode() if events else None
                    message = stored_message(offset + base, channel.name, record[at:], kind, event, time)
                except ValueError:  # the event is no UTF-8, or the context is cut off
                    self._skip(offset)
                    continue
                fed.messages.append(message)
            channel.offsets.append(offset)
            channel.times.append(time)
            if len(channel.offsets) > channel.bound:
                self.channels.trim(channel, 0.0)
            if node == own_node:
                fed.own.append((number, offset))

    def _place(self, offset: int, known: int) -> tuple[int, int]:
        """Return the incarnation and the base of the life that a message at an offset is in; -1 before the first."""
        if self._index is None:
            return -1, 0
        if offset > known:
            return self._server, self._lives[-1].base
        at = bisect_left(self._starts, offset) - 1
        return (server_of(self._lives[at]), self._lives[at].base) if at >= 0 else (-1, 0)

    def _control(self, kind: int, record: bytes, offset: int, incarnation: int, fed: Fed) -> None:
        """Take a life record or a list of lives."""
        if kind == LIVES:
            self.listed = offset
            return
        if kind != LIFE:
            self._skip(offset)
            return
        try:
            life = read_life(offset, record[HEAD_SIZE:])
            server = server_of(life)
        except ValueError:
            self._skip(offset)
            return
        newest = self._lives[-1] if self._lives else None
        if server != incarnation or (newest is not None and newest.server == life.server):
            return  # another node's was first, or the server has begun another life meanwhile
        if newest is not None:
            turn = offset if self._turn is None else self._turn
            before = self.seq_of(turn - 1)
            base = max(life.base + offset, before + 1) - turn
            life = Life(turn, newest.epoch, newest.born, life.server, base)
            fed.holes.append((before, base + turn))
        self._live([*self._lives, life], [*self._starts, offset])
        self.listed = offset

    def _trim(self, record: bytes, offset: int) -> None:
        try:
            name, upto = decode_trim(record[HEAD_SIZE:])
        except ValueError:
            self._skip(offset)
            return
        channel = self.channels.find(name)
        if channel is not None:
            channel.cut(bisect_right(channel.offsets, upto))

    def _skip(self, offset: int) -> None:
        self.foreign(f"the record at offset {offset}")

    def _expire_keys(self, time: float) -> None:
        keys, oldest = self._keys, time - self._key_seconds
        while keys:
            key = next(iter(keys))
            if keys[key][1] >= oldest:
                return
            del keys[key]


def server_of(life: Life) -> int:
    """Return the incarnation that a life is of. Raises `ValueError` where the record names none."""
    return int(life.server.partition(" ")[0])
