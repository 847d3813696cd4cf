"""What `oncecast broker` asks of NATS: the state of the stream and its channels."""

from __future__ import annotations

import asyncio
import json

from ..lives import Lives
from ..operable import ChannelState, LogState
from ..session import Lost
from .stream import PROBE, Stream, channel_of

AT_ONCE = 100  # channels whose state is asked for together


async def state(stream: Stream, lives: Lives, version: str) -> LogState:
    """Return the state of the stream."""
    info = await stream.client.ask_json(f"$JS.API.STREAM.INFO.{stream.name}")
    if "error" in info:
        raise Lost(f"the stream {stream.name}: {info['error']['description']}")
    return LogState(f"NATS {version}", len(lives.holes()), int(info["state"]["bytes"]), "disk of the stream")


async def channels(stream: Stream, lives: Lives) -> list[ChannelState]:
    """Return every channel that holds a message, by name."""
    counts: dict[str, int] = {}
    total = 1
    while len(counts) < total:
        question = {"subjects_filter": f"{stream.name}.m.>", "offset": len(counts)}
        info = await stream.client.ask_json(f"$JS.API.STREAM.INFO.{stream.name}", question)
        if "error" in info:
            raise Lost(f"the stream {stream.name}: {info['error']['description']}")
        found = info["state"].get("subjects") or {}
        if not found:
            break
        counts.update(found)
        total = int(info.get("total") or len(counts))
    tokens = (subject.rpartition(".")[2] for subject in counts)
    names = sorted(channel_of(token) for token in tokens if token != PROBE)
    states: list[ChannelState] = []
    for at in range(0, len(names), AT_ONCE):
        states += await asyncio.gather(*(channel(stream, lives, name) for name in names[at : at + AT_ONCE]))
    return [each for each in states if each.messages]


async def channel(stream: Stream, lives: Lives, name: str) -> ChannelState:
    """Return the state of one channel."""
    subject = stream.subject(name)
    info, first, last = await asyncio.gather(
        stream.client.ask_json(f"$JS.API.STREAM.INFO.{stream.name}", {"subjects_filter": subject}),
        _number(stream, lives, {"seq": 1, "next_by_subj": subject}),
        _number(stream, lives, {"last_by_subj": subject}),
    )
    if "error" in info:
        raise Lost(f"the stream {stream.name}: {info['error']['description']}")
    count = int((info["state"].get("subjects") or {}).get(subject, 0))
    return ChannelState(name, count, first, last) if count and first and last else ChannelState(name)


async def _number(stream: Stream, lives: Lives, question: dict[str, str | int]) -> int:
    answer = await stream.client.ask(f"$JS.API.DIRECT.GET.{stream.name}", json.dumps(question).encode())
    return 0 if answer.status else lives.seq_of(int(answer.headers[b"Nats-Sequence"]))
