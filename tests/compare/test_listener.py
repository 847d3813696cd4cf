"""One listener: what it counts is what the server counts, and after a cut it goes on from its cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Sized

import pytest

from oncecast.client.async_client import AsyncClient
from oncecast.client.base import anonymous
from oncecast.client.dialing import Endpoint
from oncecast.client.timing import Timing
from oncecast.client.transports import TRANSPORTS
from oncecast.client.url import ServerUrl
from oncecast.compare.listener import ComparedListener
from oncecast.compare.relay import Relay
from oncecast.compare.tally import PublishTimes, Tally, text_of
from oncecast.server.measures import measure
from oncecast.server.server import Server
from tests.compare.conftest import until, url_of


def _listener(transport: str, endpoint: Endpoint, tally: Tally) -> ComparedListener:
    return ComparedListener(
        transport, endpoint, "c", tally, timing=Timing(interval=0.05, wait=0.1), authorize=anonymous
    )


@pytest.mark.parametrize("transport", ["short-poll", "long-poll"])
async def test_empty_answers_are_those_of_the_server(transport: str, server: Server) -> None:
    """Of a server's answers all are empty but those that brought a message each."""
    tally = Tally(PublishTimes("abcdef", 4))
    listener = _listener(transport, Endpoint(url_of(server)), tally)
    task = asyncio.create_task(listener.run())
    await asyncio.wait_for(listener.attached.wait(), 60)
    async with AsyncClient(str(url_of(server))) as client:
        for number in range(4):
            await _until_more(tally.empty, 3)
            await client.publish("c", text_of("abcdef", number, 40))
            await until(lambda: tally.received(0, number + 1) == number + 1)  # noqa: B023 - awaited at once
    task.cancel()
    await asyncio.wait({task})
    requests = measure(server.app).labelled["requests"]
    answers = requests["200"] + requests.get("304", 0)
    # A poll that was being answered as the listener was cancelled is known to one of the two only.
    assert 1 >= abs(answers - 4 - len(tally.empty))
    assert 1 >= abs(answers - tally.requests)
    assert 4 * 40 < tally.page_bytes < 4 * 200  # the data and its envelope, without that of an empty page


async def _until_more(values: Sized, count: int) -> None:
    before = len(values)
    await until(lambda: len(values) >= before + count)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cut_loses_nothing(transport: str, server: Server) -> None:
    """After its connection was cut a listener comes back, and has every message once."""
    tally = Tally(PublishTimes("abcdef", 6))
    relay = Relay(url_of(server))
    await relay.start()
    listener = _listener(transport, Endpoint(url_of(server), proxy=relay.proxy), tally)
    task = asyncio.create_task(listener.run())
    await asyncio.wait_for(listener.attached.wait(), 60)
    async with AsyncClient(str(url_of(server))) as client:
        for number in range(3):
            await client.publish("c", text_of("abcdef", number, 40))
        await until(lambda: tally.received(0, 6) == 3)
        for each in tuple(relay._tasks):
            each.cancel()
        for number in range(3, 6):
            await client.publish("c", text_of("abcdef", number, 40))
        await until(lambda: tally.received(0, 6) == 6)
    task.cancel()
    await asyncio.wait({task})
    await relay.close()
    assert (0, 0, True) == (tally.repeated, tally.gaps, relay.traffic.opened > 1)


async def test_a_refusal_ends_it() -> None:
    """A server that refuses is not asked again, and the reason is kept."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error": {"code": "forbidden", "message": "not you"}}'
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    peer = await asyncio.start_server(refuse, "127.0.0.1", 0)
    tally = Tally(PublishTimes("abcdef", 1))
    port = peer.sockets[0].getsockname()[1]
    listener = _listener("sse", Endpoint(ServerUrl("http", "127.0.0.1", port, "")), tally)
    await asyncio.wait_for(listener.run(), 60)
    peer.close()
    assert (1, 0, "not you", True) == (tally.refused, tally.attached, tally.reason, listener.attached.is_set())
