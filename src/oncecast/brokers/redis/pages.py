"""Reading the log in pages: what the scripts answer, made into messages, and where a start comes to.

A page is one script's answer, so it is of one moment: nothing is trimmed between its ranges and its marks.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from ...message import Mark, Message, Page, Start, StartKind
from ..handover import Missed
from ..meters import Foreign
from ..stored import stored_message
from . import scripts
from .line import RedisLine

FORWARD = 1_000  # the longest page: a script that reads more would hold the server up
FIELDS = [b"d", b"k", b"e", b"t"]
RANGE = 32  # entries of what was missed that are read at once
WALK = 1_000  # entries that one script passes on the way back to the N newest


async def read_page(
    line: RedisLine, life: bytes, channels: Sequence[str], start: Start, limit: int, max_bytes: int, foreign: Foreign
) -> Page:
    """Read a page from a start. Raises `Lost` where the log has another life by now.

    `foreign` is called for each entry that is left out.
    """
    (seq,) = await line.script(scripts.PAGE, life, 0, 0)
    head = int(seq)
    floors: dict[str, int] = {}
    match start.kind:
        case StartKind.CURSOR:
            assert start.cursor is not None
            after = min(start.cursor.seq, head)
        case StartKind.LATEST:
            after = head
        case StartKind.EARLIEST:
            after = 0
        case StartKind.LAST:
            floors = {name: await _floor(line, name, start.number, head) for name in channels}
            after = min(floors.values(), default=head)
        case _:
            after = await _since(line, channels, start.number, head)
    above = floors or dict(zip(channels, start.floors, strict=False))
    page, cut, marks, head = await _range(
        line, life, channels, after, above, max(1, min(limit, FORWARD)), max_bytes, foreign
    )
    if start.kind is StartKind.EARLIEST:
        after = page[0].seq - 1 if page else head
    elif start.kind is StartKind.SINCE:
        trimmed = [mark.seq - 1 for mark in marks.values() if mark.seq and mark.time >= start.number]
        after = min([after, *trimmed])
    upto = cut if cut is not None else max(head, after)
    return Page(after, page if limit else [], upto if limit else after, marks, floors)


async def _range(
    line: RedisLine,
    life: bytes,
    channels: Sequence[str],
    after: int,
    floors: dict[str, int],
    limit: int,
    max_bytes: int,
    foreign: Foreign,
) -> tuple[list[Message], int | None, dict[str, Mark], int]:
    """Return messages in order, where they were cut, the marks, and the head."""
    share = max(1, max_bytes // max(1, len(channels)))
    arguments: list[str | int] = []
    for name in channels:
        arguments += [name, max(after, floors.get(name, 0))]
    answer = await line.script(scripts.PAGE, life, limit, share, *arguments)
    head = int(answer[0])
    marks: dict[str, Mark] = {}
    ranges: list[list[Message]] = []
    ends: list[int] = []
    for name, found in zip(channels, answer[1:], strict=True):
        marks[name] = _mark(found[0])
        entries = found[2:]
        ranges.append([m for m in messages_of(name, entries, foreign) if m.seq <= head])
        if found[1] and entries:
            # An entry that is not ours ends a page as well, but no page ends above the head.
            ends.append(min(head, int(entries[-1][0].partition(b"-")[0])))
    cut = min(ends, default=None)
    messages: list[Message] = []
    size = 0
    for message in heapq.merge(*ranges, key=attrgetter("seq")):
        size += len(message.data)
        if cut is not None and message.seq > cut:
            break
        if len(messages) >= limit or (messages and size > max_bytes):
            return messages, messages[-1].seq, marks, head
        messages.append(message)
    return messages, cut, marks, head


async def _floor(line: RedisLine, channel: str, count: float, head: int) -> int:
    """Return the number above which a channel's newest messages stand, `count` of them."""
    left, below, floor = min(int(count), head), "+", head
    while left > 0:
        oldest, passed = await line.script(scripts.BACK, channel, min(left, WALK), below)
        if not oldest:
            break
        floor = int(oldest) - 1
        left -= int(passed)
        below = str(floor)
        if floor <= 0:
            break
    return floor


async def _since(line: RedisLine, channels: Sequence[str], time: float, head: int) -> int:
    firsts = [await line.script(scripts.SINCE, name, f"{time * 1000:.0f}") for name in channels]
    return min((int(first) for first in firsts if first), default=head + 1) - 1


async def read_missed(line: RedisLine, after: int, head: int, wanted: Sequence[str], foreign: Foreign) -> Missed:
    """Return what has come to channels above a number. It is too much also where some of it is trimmed."""
    missed = Missed()
    if after < head:
        # A channel's score is its newest number: one that has grown beyond the head meanwhile counts too.
        changed = await line.command("ZRANGEBYSCORE", f"{line.prefix}:c", f"({after}", "+inf")
        for channel in {name.decode(errors="replace") for name in changed} & set(wanted):
            await _read_missed_of(line, channel, after, head, missed, foreign)
            if missed.too_much:
                break
    return missed


async def _read_missed_of(
    line: RedisLine, channel: str, after: int, head: int, missed: Missed, foreign: Foreign
) -> None:
    at = after
    while True:
        entries = await line.command("XRANGE", f"{line.prefix}:s:{channel}", at + 1, head, "COUNT", RANGE)
        if not missed.add(messages_of(channel, entries, foreign)):
            return
        if len(entries) < RANGE:
            break
        at = int(entries[-1][0].partition(b"-")[0])
    mark = await line.command("HGET", f"{line.prefix}:m", channel)  # after the entries
    if mark is not None and int(mark.partition(b" ")[0]) > after:
        missed.give_up()


def messages_of(channel: str, entries: Sequence[list[Any]], foreign: Foreign) -> list[Message]:
    """Make messages of a stream's entries, without those that are none of ours."""
    messages: list[Message] = []
    for entry in entries:
        try:
            identity, fields = entry
            if fields[0::2] != FIELDS:
                raise ValueError("its fields are not ours")
            data, kind, event, time = fields[1::2]
            messages.append(
                stored_message(_seq(identity), channel, data, int(kind), event.decode() or None, int(time) / 1000)
            )
        except (ValueError, TypeError, IndexError) as error:
            foreign(f"an entry of the channel {channel}: {error}")
    return messages


def _mark(text: bytes) -> Mark:
    seq, _, time = text.partition(b" ")
    return Mark(int(seq), int(time or b"0") / 1000)


def _seq(identity: bytes) -> int:
    seq, _, second = identity.partition(b"-")
    if second != b"0":
        raise ValueError(f"the id {identity!r} is not one of ours")
    return int(seq)


def read_pushed(channel: str, payload: bytes) -> tuple[int, Message]:
    """Read a pushed message: the number before it in its channel, and the message. Raises `ValueError`."""
    head, _, rest = payload.partition(b"\n")
    seq, before, time, kind, size = head.split(b" ")
    length = int(size)
    event = rest[:length].decode() or None
    return int(before), stored_message(int(seq), channel, rest[length:], int(kind), event, int(time) / 1000)
