"""Reads the records that a node has missed, one by one, by their offsets.

A consumer would be cheaper. But a consumer of a 2.9 server skips records without notice if records of another subject
are rolled up while it reads, and each node's probe does that every second.

Only the stream's leader is asked, as a replica may lack the newest records. An offset without a record counts as empty
only if the leader has the records above it: `Stream.by_one_leader` proves that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

from ...message import Message
from ..handover import CAUGHT_UP, CAUGHT_UP_BYTES, Missed
from ..lives import Lives
from ..meters import Foreign
from .asking import Record
from .stream import PROBE, Stream, channel_of, decode_message

AT_ONCE = 32  # records asked for; each may have 1 MiB, or what the server's max_payload allows


async def read_missed(
    stream: Stream,
    lives: Lives,
    after: int,
    last: int,
    wanted: Collection[str],
    *,
    stamped: bool,
    foreign: Foreign,
) -> Missed:
    """Return the messages of channels in a range of offsets. A trimmed message in the range makes it too many.

    `stamped`: the times are those of the publishers' clocks. `foreign` is called for each record that is left out.
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
            try:
                found.append(
                    decode_message(channel, record.data, lives.seq_of(offset), None if stamped else record.time)
                )
            except ValueError as error:
                foreign(f"the record {offset} of the channel {channel}: {error}")
    missed.add(found)
    return missed


async def _read(stream: Stream, after: int, last: int) -> list[Record | None] | None:
    """Return the record at each offset above `after`, up to `last`. Returns None if they are too many."""
    if last - after > CAUGHT_UP:
        return None
    records: list[Record | None] = []
    size = 0
    for first in range(after + 1, last + 1, AT_ONCE):
        some = range(first, min(first + AT_ONCE, last + 1))
        found = await stream.by_one_leader(partial(_at, stream, some))
        size += sum(len(record.data) for record in found if record is not None)
        if size > CAUGHT_UP_BYTES:
            return None
        records += found
    return records


async def _at(stream: Stream, offsets: range) -> list[Record | None]:
    return await asyncio.gather(*(stream.record(offset) for offset in offsets))
