"""What a node has missed, read record by record by its offset.

A consumer would be cheaper, but one of a 2.9 server jumps ahead, in silence, when records of another subject are rolled
up while it reads, and each node's probe does that every second.

The stream's leader is asked, not any replica: one that is behind would not have the newest records. Where a leader has
no record at an offset, that is the log's answer only if it has what is above: `Stream.settled` proves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

from ...message import Message
from ..handover import CAUGHT_UP, CAUGHT_UP_BYTES, Missed
from ..lives import Lives
from .asking import Record
from .stream import PROBE, Stream, channel_of, decode_record

AT_ONCE = 32  # records asked for; each may have 1 MiB, or what the server's max_payload allows


async def read_missed(
    stream: Stream, lives: Lives, after: int, last: int, wanted: Collection[str], *, stamped: bool
) -> Missed:
    """Return what has come to channels above an offset, up to another. It is too much also where some is trimmed.

    `stamped` says that times are the publishers'.
    """
    missed = Missed()
    messages_of, marks_of, probe = f"{stream.name}.m.", f"{stream.name}.t.", stream.subject(PROBE)
    records = await _read(stream, after, last)
    if records is None:
        missed.give_up()
        return missed
    if None in records:  # a probe that is not the newest; or it was trimmed just now, after its mark was written
        later = await _read(stream, last, await stream.last())
        if later is None:
            missed.give_up()
            return missed
        records += later
    found: list[Message] = []
    for offset, record in enumerate(records, after + 1):
        if record is None or record.subject == probe:
            continue
        channel = channel_of(record.subject.rpartition(".")[2])
        if channel not in wanted:
            continue
        if record.subject.startswith(marks_of) and int(record.data.partition(b" ")[0]) > after:
            missed.give_up()
        elif record.subject.startswith(messages_of) and offset <= last:
            message = decode_record(channel, record, lives.seq_of(offset), stamped=stamped)
            found += [] if message is None else [message]
    missed.add(found)
    return missed


async def _read(stream: Stream, after: int, last: int) -> list[Record | None] | None:
    """Return the record at each offset above one, up to another; None where they are too much."""
    if last - after > CAUGHT_UP:
        return None
    records: list[Record | None] = []
    size = 0
    for first in range(after + 1, last + 1, AT_ONCE):
        some = range(first, min(first + AT_ONCE, last + 1))
        found = await stream.settled(partial(_at, stream, some))
        size += sum(len(record.data) for record in found if record is not None)
        if size > CAUGHT_UP_BYTES:
            return None
        records += found
    return records


async def _at(stream: Stream, offsets: range) -> list[Record | None]:
    return await asyncio.gather(*(stream.record(offset) for offset in offsets))
