"""The client of `aiohttp`: WebSocket, Server-Sent Events read line by line, and polls on a pool of connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio
from aiohttp import ClientError, ClientSession, ClientTimeout, WSMsgType

if TYPE_CHECKING:
    from tests.peers.conftest import Site, Story

SECONDS = 60.0  # for anything to happen: generous, as the machine may be busy


@pytest_asyncio.fixture
async def session() -> AsyncIterator[ClientSession]:
    """A session with aiohttp's own defaults, but for its patience."""
    async with ClientSession(timeout=ClientTimeout(total=SECONDS)) as session:
        yield session


async def test_websocket_resumes_after_cuts(story: Story, session: ClientSession) -> None:
    """Cut off again and again, a WebSocket that subscribes after its last id hears all, once, in order."""
    numbers: list[int] = []
    query = ""
    async with asyncio.timeout(SECONDS):
        while len(numbers) < story.messages:
            try:
                async with session.ws_connect(story.url(query=query), protocols=("oncecast.v1",)) as socket:
                    async for received in socket:
                        if received.type is not WSMsgType.TEXT:
                            break
                        frame = received.json()
                        query = f"?after={frame['id'] if frame['type'] == 'message' else frame['cursor']}"
                        story.begin()
                        if frame["type"] == "message":
                            numbers.append(frame["data"])
                        if len(numbers) == story.messages:
                            break
            except (OSError, ClientError):
                continue
    story.check(numbers)


async def test_events_resume_after_cuts(story: Story, session: ClientSession) -> None:
    """A reader of lines that sends back its last id of a whole event hears all, once, in order."""
    numbers: list[int] = []
    headers = {"Accept": "text/event-stream"}
    async with asyncio.timeout(SECONDS):
        while len(numbers) < story.messages:
            try:
                async with session.get(story.url(), headers=headers) as answer:
                    assert 200 == answer.status
                    assert "text/event-stream" == answer.content_type
                    event: dict[bytes, bytes] = {}
                    async for line in answer.content:
                        if line != b"\n":
                            name, _, value = line.removesuffix(b"\n").partition(b": ")
                            event[name] = value
                            continue
                        headers["Last-Event-ID"] = event[b"id"].decode()
                        story.begin()
                        if b"data" in event:
                            numbers.append(json.loads(event[b"data"]))
                        event = {}
                        if len(numbers) == story.messages:
                            break
            except (OSError, ClientError):
                continue
    story.check(numbers)


async def test_polls_resume_after_cuts(story: Story, session: ClientSession) -> None:
    """Long polls after the last answer's cursor bring all, once, in order, though answers are cut."""
    numbers: list[int] = []
    query = {"after": "latest", "wait": "20", "limit": "150"}
    async with asyncio.timeout(SECONDS):
        answer = await session.get(story.site.url(), params={"after": "latest"})
        query["after"] = (await answer.json())["cursor"]
        story.begin()
        while len(numbers) < story.messages:
            try:
                async with session.get(story.url(), params=query) as answer:
                    body = await answer.json()
            except (OSError, ClientError):
                continue
            query["after"] = body["cursor"]
            assert body["gap"] is None
            numbers += [message["data"] for message in body["messages"]]
    story.check(numbers)


async def test_no_compression(site: Site, session: ClientSession) -> None:
    """A client that offers compression is answered without, and both go on."""
    async with session.ws_connect(site.url(), compress=15) as socket:
        assert 0 == socket.compress
        await socket.send_str("plain" * 100)
        assert "plain" * 100 == await socket.receive_str()
        await socket.ping(b"?")
        await socket.close(code=4321, message=b"done")
        assert 4321 == socket.close_code


async def test_the_pool_is_used_again(site: Site, session: ClientSession) -> None:
    """Publishes, polls, refusals and pages in a row take a single connection."""
    for number in range(20):
        async with session.post(site.url(), json={"n": number}) as answer:
            assert 201 == answer.status
        async with session.get(site.url(), params={"last": 1}) as answer:
            assert [{"n": number}] == [message["data"] for message in (await answer.json())["messages"]]
            tag = answer.headers["ETag"]
        async with session.get(site.url(), params={"last": 1}, headers={"If-None-Match": tag}) as answer:
            assert 304 == answer.status
        async with session.get(site.url(), params={"after": "yesterday"}) as answer:
            assert 400 == answer.status
        async with session.head(site.url()) as answer:
            assert (200, b"") == (answer.status, await answer.read())
        async with session.get(f"http://127.0.0.1:{site.port}/") as answer:
            assert "text/html" == answer.content_type
    assert 1 == site.server.app.admission.opened


async def test_many_waiting_polls(site: Site, session: ClientSession) -> None:
    """Fifty long polls at once are all answered by one message, and their connections serve again."""

    async def poll(after: str) -> list[str]:
        async with session.get(site.url(), params={"after": after, "wait": "20"}) as answer:
            return [message["id"] for message in (await answer.json())["messages"]]

    (cursor,) = await site.publish("before")
    for number in range(2):
        polls = [asyncio.create_task(poll(cursor)) for _ in range(50)]
        await site.until_subscribed(50)
        (cursor,) = await site.publish(number)
        assert [[cursor]] * 50 == await asyncio.gather(*polls)
    assert 50 == site.server.app.admission.opened


async def test_a_chunked_body(site: Site, session: ClientSession) -> None:
    """A body that is sent in pieces is one message."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a" * 10, b"b" * 70_000, b"c"):
            yield piece

    async with session.post(site.url(), data=pieces(), headers={"Content-Type": "text/plain"}) as answer:
        assert 201 == answer.status
    async with session.get(site.url()) as answer:
        assert ["a" * 10 + "b" * 70_000 + "c"] == [message["data"] for message in (await answer.json())["messages"]]
