"""What `oncecast broker` asks of Redis: the state of the log and its channels, by plain commands."""

from __future__ import annotations

import asyncio
from typing import Any

from ..operable import ChannelState, LogState
from .line import RedisLine

AT_ONCE = 200  # channels whose state is asked for together


async def state(line: RedisLine) -> LogState:
    """Return the state of the log. The memory is that of the whole server: Redis does not know a prefix's."""
    info = _fields(await line.command("INFO", "server") + b"\n" + await line.command("INFO", "memory"))
    name, version = "Redis", info.get("redis_version", "of an unknown version")
    if "valkey_version" in info:
        name, version = "Valkey", info["valkey_version"]
    holes = int(await line.command("LLEN", f"{line.prefix}:x"))
    return LogState(f"{name} {version}", holes, int(info.get("used_memory", 0)), "memory of the whole server")


async def channels(line: RedisLine) -> list[ChannelState]:
    """Return every channel that holds a message, by name."""
    names: set[str] = set()
    cursor = b"0"
    while True:
        cursor, found = await line.command("ZSCAN", f"{line.prefix}:c", cursor, "COUNT", 1_000)
        names.update(name.decode(errors="replace") for name in found[0::2])
        if cursor == b"0":
            break
    ordered = sorted(names)
    states: list[ChannelState] = []
    for at in range(0, len(ordered), AT_ONCE):
        some = ordered[at : at + AT_ONCE]
        states += await asyncio.gather(*(channel(line, name) for name in some))
    return [each for each in states if each.messages]


async def channel(line: RedisLine, name: str) -> ChannelState:
    """Return the state of one channel."""
    stream = f"{line.prefix}:s:{name}"
    count, first, last = await asyncio.gather(
        line.command("XLEN", stream),
        line.command("XRANGE", stream, "-", "+", "COUNT", 1),
        line.command("XREVRANGE", stream, "+", "-", "COUNT", 1),
    )
    if not first or not last:
        return ChannelState(name)
    return ChannelState(name, int(count), _number(first), _number(last))


def _number(entries: list[Any]) -> int:
    return int(entries[0][0].partition(b"-")[0])


def _fields(info: bytes) -> dict[str, str]:
    pairs = (line.decode(errors="replace").partition(":") for line in info.splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon}
