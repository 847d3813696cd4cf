"""The state of the stream and its channels, for `oncecast broker`."""

from __future__ import annotations

import asyncio
from functools import partial

from ..lives import Lives
from ..operable import ChannelState, LogState
from .stream import PROBE, Stream, channel_of

AT_ONCE = 100  # channels whose state is asked for together


async def state(stream: Stream, lives: Lives, version: str) -> LogState:
    """Return the state of the stream."""
    info = await stream.info()
    return LogState(f"NATS {version}", len(lives.holes()), int(info["state"]["bytes"]), "disk of the stream")


async def channels(stream: Stream, lives: Lives) -> list[ChannelState]:
    """Return every channel that holds a message, by name."""
    names = await stream.by_one_leader(partial(_names, stream))
    states: list[ChannelState] = []
    for at in range(0, len(names), AT_ONCE):
        states += await asyncio.gather(*(channel(stream, lives, name) for name in names[at : at + AT_ONCE]))
    return [each for each in states if each.messages]


async def _names(stream: Stream) -> list[str]:
    counts: dict[str, int] = {}
    total = 1
    while len(counts) < total:
        question = {"subjects_filter": f"{stream.name}.m.>", "offset": len(counts)}
        info = await stream.info(question)
        found = info["state"].get("subjects") or {}
        if not found:
            break
        counts.update(found)
        total = int(info.get("total") or len(counts))
    tokens = (subject.rpartition(".")[2] for subject in counts)
    return sorted(channel_of(token) for token in tokens if token != PROBE)


async def channel(stream: Stream, lives: Lives, name: str) -> ChannelState:
    """Return the state of one channel."""
    return await stream.by_one_leader(partial(_channel, stream, lives, name))


async def _channel(stream: Stream, lives: Lives, name: str) -> ChannelState:
    subject = stream.subject(name)
    info, first, last = await asyncio.gather(
        stream.info({"subjects_filter": subject}),
        _number(stream, lives, {"seq": 1, "next_by_subj": subject}),
        _number(stream, lives, {"last_by_subj": subject}),
    )
    count = int((info["state"].get("subjects") or {}).get(subject, 0))
    return ChannelState(name, count, first, last) if count and first and last else ChannelState(name)


async def _number(stream: Stream, lives: Lives, question: dict[str, str | int]) -> int:
    record = await stream.get(question)
    return 0 if record is None else lives.seq_of(record.offset)
