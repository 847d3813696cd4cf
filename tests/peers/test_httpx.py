"""The client of `httpx`, with `httpx-sse`: short and long polls, publishing, and Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest_asyncio
from httpx_sse import aconnect_sse

if TYPE_CHECKING:
    from tests.peers.conftest import Site, Story

SECONDS = 60.0  # for anything to happen: generous, as the machine may be busy


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that ignores this machine's proxies."""
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        yield client


async def test_events_resume_after_cuts(story: Story, client: httpx.AsyncClient) -> None:
    """A stream that is opened again with its last id brings all, once, in order."""
    numbers: list[int] = []
    headers: dict[str, str] = {}
    retry = None
    async with asyncio.timeout(SECONDS):
        while len(numbers) < story.messages:
            try:
                async with aconnect_sse(client, "GET", story.url(), headers=dict(headers)) as source:
                    async for event in source.aiter_sse():
                        headers["Last-Event-ID"] = event.id
                        retry = event.retry or retry
                        story.begin()
                        if event.data:
                            numbers.append(json.loads(event.data))
                        if len(numbers) == story.messages:
                            break
            except httpx.TransportError:
                continue
    story.check(numbers)
    assert 1000 == retry


async def test_events_end_with_the_server(site: Site, client: httpx.AsyncClient) -> None:
    """A server that stops ends its streams whole, so that no client takes it for a broken connection."""
    data = []
    stopping: list[asyncio.Task[None]] = []
    async with asyncio.timeout(SECONDS), aconnect_sse(client, "GET", site.url()) as source:
        async for event in source.aiter_sse():
            if event.data:
                data.append(event.data)
                stopping.append(asyncio.create_task(site.server.stop()))
            else:
                await site.publish("last words")
    await asyncio.gather(*stopping)
    assert ['"last words"'] == data


async def test_events_of_several_channels(site: Site, client: httpx.AsyncClient) -> None:
    """With several channels each event is a message's JSON, its id the same as in the stream."""
    await site.publish(1, channel="a")
    await site.publish(2, channel="b")
    found = []
    url = site.url("a,b", query="?after=earliest")
    async with asyncio.timeout(SECONDS), aconnect_sse(client, "GET", url) as source:
        async for event in source.aiter_sse():
            if event.data:
                message = event.json()
                assert event.id == message["id"]
                found.append((message["channel"], message["data"]))
            if len(found) == 2:
                break
    assert [("a", 1), ("b", 2)] == found


async def test_short_polls(site: Site, client: httpx.AsyncClient) -> None:
    """Polls after each answer's cursor bring all, once, in pages of `limit`, and then nothing more."""
    await site.publish(*range(2000))
    numbers: list[int] = []
    cursor, pages = "earliest", 0
    while True:
        answer = (await client.get(site.url(), params={"after": cursor, "limit": 300})).json()
        if not answer["messages"]:
            break
        pages += 1
        numbers += [message["data"] for message in answer["messages"]]
        cursor = answer["cursor"]
    assert list(range(2000)) == numbers
    assert 7 == pages
    assert 1 == site.server.app.admission.opened


async def test_long_polls_resume_after_cuts(story: Story, client: httpx.AsyncClient) -> None:
    """Long polls after the last answer's cursor bring all, once, in order, though answers are cut."""
    numbers: list[int] = []
    cursor = (await client.get(story.site.url(), params={"after": "latest"})).json()["cursor"]
    story.begin()
    async with asyncio.timeout(SECONDS):
        while len(numbers) < story.messages:
            try:
                answer = (await client.get(story.url(), params={"after": cursor, "wait": 20, "limit": 150})).json()
            except httpx.TransportError:
                continue
            assert answer["gap"] is None
            numbers += [message["data"] for message in answer["messages"]]
            cursor = answer["cursor"]
    story.check(numbers)


async def test_a_long_poll_waits_and_gives_up(site: Site, client: httpx.AsyncClient) -> None:
    """A long poll is answered empty after its time, with a cursor from which the next message comes."""
    empty = (await client.get(site.url(), params={"after": "latest", "wait": 0.1})).json()
    assert ([], None) == (empty["messages"], empty["gap"])
    await site.publish("next")
    answer = (await client.get(site.url(), params={"after": empty["cursor"], "wait": 20})).json()
    assert ["next"] == [message["data"] for message in answer["messages"]]


async def test_publishes_once_with_a_key(site: Site, client: httpx.AsyncClient) -> None:
    """A repeated POST with the same key gets the first one's id, and the log has the message once."""
    headers = {"Idempotency-Key": "k", "Oncecast-Event": "tick"}
    receipts = [(await client.post(site.url(), json={"t": 1}, headers=headers)).json() for _ in range(3)]
    assert [receipts[0]] * 3 == receipts
    messages = (await client.get(site.url())).json()["messages"]
    assert [(receipts[0]["id"], {"t": 1}, "tick")] == [(m["id"], m["data"], m["event"]) for m in messages]


async def test_publishes_a_batch(site: Site, client: httpx.AsyncClient) -> None:
    """JSON lines are answered line by line, a bad one between good ones with its error."""
    lines = [{"channel": "news", "data": n} for n in range(3)]
    lines.insert(1, {"channel": "no spaces", "data": 0})
    body = "\n".join(map(json.dumps, lines))
    answer = await client.post(f"http://127.0.0.1:{site.port}/v1/publish", content=body)
    answers = [json.loads(line) for line in answer.text.splitlines()]
    assert "channel_invalid" == answers.pop(1)["error"]["code"]
    messages = (await client.get(site.url())).json()["messages"]
    assert [receipt["id"] for receipt in answers] == [message["id"] for message in messages]
