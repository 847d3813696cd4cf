"""What a node has missed on NATS, against real servers of two versions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from oncecast.brokers.address import parse_address
from oncecast.brokers.handover import CAUGHT_UP
from oncecast.brokers.lives import Lives, first_life
from oncecast.brokers.nats import missed as module
from oncecast.brokers.nats.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.nats.client import connect
from oncecast.brokers.nats.missed import read_missed
from oncecast.brokers.nats.stream import PROBE, Stream, encode_draft
from oncecast.message import Draft
from tests.brokers.servers import Servers

ROLL_UP = {"Nats-Rollup": "sub"}
LIVES = Lives([first_life("e", "server", 0.0)])
ROUNDS = 20
FOREIGN: list[str] = []  # the records that were left out
_numbers = itertools.count()


@pytest.fixture(params=["nats", "nats-newest"])
async def stream(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Stream]:
    """A stream of its own, on a connection of its own."""
    address = parse_address(f"{servers(request.param).url}?stream=missed{next(_numbers)}", SCHEMES, PORT, OPTIONS)
    client = await connect(address, lambda subject, data, headers: None)
    made = Stream(client, address, key_seconds=60.0, replicas=1, clustered=False)
    await made.prepare(lambda: "e")
    yield made
    await client.shut()


async def publish(stream: Stream, channel: str, data: bytes) -> None:
    """Publish a message, and wait until it is stored."""
    answer = await stream.client.ask(stream.subject(channel), encode_draft(Draft(channel, data), 1_000))
    assert b'"seq"' in answer.data


async def probe(stream: Stream) -> None:
    """Publish a probe as another node does: the one before it is removed."""
    await stream.client.ask(stream.subject(PROBE), b"other 1", ROLL_UP)


async def missed_after(stream: Stream, after: int) -> list[tuple[int, bytes]] | None:
    """Return what was missed in the channels a and b."""
    found = await read_missed(
        stream, LIVES, after, await stream.last(), {"a", "b"}, stamped=False, foreign=FOREIGN.append
    )
    messages = found.messages()
    return None if messages is None else [(message.seq, message.data) for message in messages]


async def test_nothing_is_left_out_while_other_nodes_probe(stream: Stream) -> None:
    """A probe that is rolled up during the reading does not move it, as it would a consumer."""
    for number in range(10):
        await publish(stream, "ab"[number % 2], b"%d" % number)
        await probe(stream)
    going = True

    async def others() -> None:
        while going:
            await probe(stream)

    probing = asyncio.create_task(others())
    try:
        for _ in range(ROUNDS):
            assert [(2 * number + 1, b"%d" % number) for number in range(3, 10)] == await missed_after(stream, 6)
    finally:
        going = False
        await probing


async def test_what_is_not_wanted_is_left_out(stream: Stream) -> None:
    """Messages of unwanted channels are left out, and foreign records too, with a line in the log."""
    await publish(stream, "other", b"1")
    await stream.client.ask(stream.subject("a"), b"none of ours")
    await publish(stream, "a", b"3")
    FOREIGN.clear()
    assert [(3, b"3")] == await missed_after(stream, 0)
    assert ["the record 2 of the channel a"] == [text.partition(":")[0] for text in FOREIGN]


async def test_what_is_trimmed_meanwhile_is_left_to_the_history(stream: Stream) -> None:
    """A mark that is written during the reading counts, so that subscribers get their gap."""
    for number in range(3):
        await publish(stream, "a", b"%d" % number)
    head = await stream.last()
    await stream.client.ask(f"{stream.name}.t.a", b"2 1.0", ROLL_UP)
    await stream.client.ask_json(f"$JS.API.STREAM.PURGE.{stream.name}", {"filter": stream.subject("a"), "seq": 3})
    found = await read_missed(stream, LIVES, 1, head, {"a"}, stamped=False, foreign=FOREIGN.append)
    assert found.too_much
    found = await read_missed(stream, LIVES, 1, head, {"b"}, stamped=False, foreign=FOREIGN.append)
    assert [] == found.messages()


async def test_too_much_is_left_to_the_history(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past `CAUGHT_UP` records nothing is read, and past `CAUGHT_UP_BYTES` the reading stops."""
    found = await read_missed(stream, LIVES, 0, CAUGHT_UP + 1, {"a"}, stamped=False, foreign=FOREIGN.append)
    assert found.too_much
    monkeypatch.setattr(module, "CAUGHT_UP_BYTES", 20)
    for number in range(3):
        await publish(stream, "a", b"%08d" % number)
    assert await missed_after(stream, 0) is None
    assert await missed_after(stream, 2) is not None
