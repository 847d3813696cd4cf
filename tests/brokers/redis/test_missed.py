"""What a node has missed on Redis, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from oncecast.brokers.address import parse_address
from oncecast.brokers.redis.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.redis.line import RedisLine, connect
from oncecast.brokers.redis.pages import read_missed
from tests.brokers.servers import Servers

_numbers = itertools.count()


@pytest.fixture
async def line(servers: Servers) -> AsyncIterator[RedisLine]:
    """A connection with a prefix of its own."""
    server = servers("redis")
    address = parse_address(server.url, SCHEMES, PORT, OPTIONS)
    made = RedisLine(await connect(address, *address.hosts[0], None), f"missed{next(_numbers)}" + "{oncecast}")
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await made.close()


async def store(line: RedisLine, channel: str, seq: int) -> None:
    """Store a message as the script does."""
    fields = ("d", b"%d" % seq, "k", "1", "e", "", "t", "1000")
    await line.command("XADD", f"{line.prefix}:s:{channel}", f"{seq}-0", *fields)
    await line.command("ZADD", f"{line.prefix}:c", seq, channel)


async def test_a_channel_that_grows_meanwhile_is_read_up_to_the_head(line: RedisLine) -> None:
    """A publish after the head was asked for moves the channel's newest number past it, and hides nothing."""
    for seq, channel in enumerate("abab", 1):
        await store(line, channel, seq)
    missed = await read_missed(line, 1, 2, ("a", "b"), pytest.fail)
    assert [(2, b"2")] == [(message.seq, message.data) for message in missed.messages() or ()]
    missed = await read_missed(line, 0, 3, ("a", "other"), pytest.fail)
    assert [1, 3] == [message.seq for message in missed.messages() or ()]
