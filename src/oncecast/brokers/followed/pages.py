"""Pages of a followed log: which messages, by the ledger; their records are read back from the server in ranges."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice

import msgspec

from ...message import Mark, Message, Page, Start, StartKind
from ..session import Lost
from .channels import Channel
from .ledger import Ledger
from .record import decode_message
from .server import LogServer, Removed

MOST = 1_000  # messages of one page
NEAR = 2_000  # offsets: where `DENSE` messages of a page are within them, they are read in one go
DENSE = 40
DENSE_BYTES = 1 << 20
SPARSE_BYTES = 1 << 15
TRIES = 3  # while the server removes what is read

FoundRecord = tuple[int, str, float]  # offset, channel, time


class Chosen(msgspec.Struct):
    """What a page will hold, as the ledger knows it at one moment. `more` says that the page ends with its messages."""

    after: int
    head: int
    marks: dict[str, Mark]
    floors: dict[str, int]
    found: list[FoundRecord]
    more: bool


async def read_page(
    ledger: Ledger, server: LogServer, channels: Sequence[str], start: Start, limit: int, max_bytes: int, now: float
) -> Page:
    """Read a page. `now` in Unix seconds is what the age of messages is counted from."""
    for _ in range(TRIES):
        chosen = choose(ledger, channels, start, limit, now)
        try:
            return await _fill(ledger, server, chosen, limit, max_bytes)
        except Removed:
            ledger.removed((await server.bounds())[0])
    raise Lost("records of the log are removed faster than they are read")


def choose(ledger: Ledger, channels: Sequence[str], start: Start, limit: int, now: float) -> Chosen:
    """Find what a page will hold."""
    lives = ledger.lives
    assert lives is not None
    known: dict[str, Channel | None] = {name: ledger.channels.find(name) for name in channels}
    for channel in known.values():
        if channel is not None:
            ledger.channels.trim(channel, now)
    marks = {name: ledger.mark(channel) for name, channel in known.items()}
    head = ledger.head
    kept = {name: channel for name, channel in known.items() if channel is not None and channel.offsets}
    floors: dict[str, int] = {}
    match start.kind:
        case StartKind.CURSOR:
            assert start.cursor is not None
            after = min(start.cursor.seq, head)
        case StartKind.LATEST:
            after = head
        case StartKind.EARLIEST:
            after = min((ledger.seq_of(each.offsets[0]) - 1 for each in kept.values()), default=head)
        case StartKind.LAST:
            count = int(min(start.number, head))
            floors = {
                name: ledger.seq_of(kept[name].offsets[max(0, len(kept[name].offsets) - count)]) - 1
                if count and name in kept
                else head
                for name in channels
            }
            after = min(floors.values(), default=head)
        case _:
            places = [(each, bisect_left(each.times, start.number)) for each in kept.values()]
            firsts = [ledger.seq_of(each.offsets[at]) - 1 for each, at in places if at < len(each.offsets)]
            trimmed = [mark.seq - 1 for mark in marks.values() if mark.seq and mark.time >= start.number]
            after = min([*firsts, *trimmed], default=head)
    above = floors or dict(zip(channels, start.floors, strict=False))
    most = min(limit, MOST)
    ranges = [
        _above(each, lives.offset_of(max(after, above.get(name, 0))), most + 1)
        for name, each in kept.items()
        if max(after, above.get(name, 0)) < head
    ]
    found = list(islice(heapq.merge(*ranges), most + 1))
    return Chosen(after, head, marks, floors, found[:most], len(found) > most)


def _above(channel: Channel, offset: int, count: int) -> Iterator[FoundRecord]:
    first = bisect_right(channel.offsets, offset)
    for at in range(first, min(first + count, len(channel.offsets))):
        yield channel.offsets[at], channel.name, channel.times[at]


async def _fill(ledger: Ledger, server: LogServer, chosen: Chosen, limit: int, max_bytes: int) -> Page:
    after, messages, size = chosen.after, list[Message](), 0
    if limit <= 0:
        return Page(after, [], after, chosen.marks, chosen.floors)
    upto = max(chosen.head, after)
    if chosen.more:
        upto = ledger.seq_of(chosen.found[-1][0])
    records = _records(server, [offset for offset, _, _ in chosen.found])
    try:
        for offset, name, time in chosen.found:
            record = await anext(records)
            seq = ledger.seq_of(offset)
            try:
                message = decode_message(record, name, seq, time)
            except ValueError as error:
                ledger.foreign(f"the record at offset {offset}: {error}")
                continue
            size += len(message.data)
            if messages and size > max_bytes:
                upto = messages[-1].seq
                break
            messages.append(message)
    finally:
        await records.aclose()
    return Page(after, messages, upto, chosen.marks, chosen.floors)


async def _records(server: LogServer, offsets: Sequence[int]) -> AsyncGenerator[bytes, None]:
    """Yield the records at rising offsets."""
    window: dict[int, bytes] = {}
    for at, offset in enumerate(offsets):
        if offset not in window:
            near = bisect_left(offsets, offset + NEAR) - at
            window = {
                chunk.first + number: record
                for chunk in await server.read(offset, DENSE_BYTES if near >= DENSE else SPARSE_BYTES)
                for number, record in enumerate(chunk.records)
            }
        if offset not in window:
            raise Lost(f"the record at offset {offset} is not where it was")
        yield window[offset]
