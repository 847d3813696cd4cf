"""Endless answers of ASGI applications, read piece by piece without a socket, by hand and by httpx."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx_sse
import pytest

from oncecast.errors import UsageError
from oncecast.testing.app import AsgiConversation, OncecastFixture, call
from oncecast.testing.app.call import UNREAD
from oncecast.testing.app.conversation import scope_of_request

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
ENDED: list[str] = []


def body(text: str, *, more: bool = True) -> dict[str, Any]:
    """A piece of an answer."""
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """An event stream that ends once its peer has gone."""
    await receive()
    await send(START)
    await send(body("id: 1\ndata: one\n\n: a comment\n\nid: 2\nda"))
    await send(body(f"ta: {scope['path']}\n\n"))
    while (await receive())["type"] != "http.disconnect":
        pass
    await send(body("nobody reads this"))
    ENDED.append(scope["path"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An answer that ends: the request."""
    event = await receive()
    assert not event["more_body"]
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-one", b"1")]})
    said = (scope["method"], scope["path"], scope["query_string"], scope["root_path"], event["body"])
    await send(body(repr(said), more=False))


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """An event stream that does not hear that its peer has gone."""
    await send(START)
    await asyncio.Event().wait()


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """No answer, ever."""
    await receive()
    await receive()


async def flood(scope: Any, receive: Any, send: Any) -> None:
    """More than anybody reads; `sent` counts the pieces."""
    await send(START)
    for number in range(10 * UNREAD):
        await send(body(f"data: {number}\n\n"))
        scope["state"]["sent"] = number + 1


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """Fails: before the answer, amid it, or once its peer has gone, as its path says."""
    if scope["path"] == "/before":
        raise KeyError("before")
    await send(START)
    await send(body("data: 1\n\n"))
    if scope["path"] == "/amid":
        raise KeyError("amid")
    await receive()
    await receive()
    raise KeyError("after")


async def returning(scope: Any, receive: Any, send: Any) -> None:
    """Returns at once."""


@asynccontextmanager
async def asked(app: Any, path: str = "/") -> AsyncIterator[AsgiConversation]:
    """A conversation with an application, closed in any case."""
    request = httpx.Request("GET", f"http://app.example{path}")
    made = AsgiConversation(app, scope_of_request(request))
    try:
        await made.open(60)
        yield made
    finally:
        await made.close()


async def up_to(
    events: AsyncIterator[httpx_sse.ServerSentEvent], data: str
) -> AsyncIterator[httpx_sse.ServerSentEvent]:
    """Yield events up to the one with this data."""
    async for event in events:
        yield event
        if event.data == data:
            return


async def test_an_endless_stream_is_read_event_by_event() -> None:
    """Events come as they are sent, however they are cut, and the application hears of the end."""
    async with asked(endless, "/news") as answer:
        found = [await answer.event(60), await answer.event(60)]
        assert [("1", "one"), ("2", "/news")] == [(each.id, each.data) for each in found if each]
        with pytest.raises(TimeoutError, match="no event came within 0 s"):
            await answer.event(0)
        assert "/news" not in ENDED
    assert "/news" in ENDED


async def test_a_reader_that_does_not_read_holds_the_application_up() -> None:
    """The unread part of an answer has a bound, and all of it comes once it is read."""
    scope = scope_of_request(httpx.Request("GET", "http://app.example/"))
    answer = AsgiConversation(flood, scope)
    await answer.open(60)
    for _ in range(3 * UNREAD):
        await asyncio.sleep(0)
    assert UNREAD == scope["state"]["sent"]
    events = [await answer.event(60) for _ in range(10 * UNREAD)]
    assert [str(number) for number in range(10 * UNREAD)] == [each.data for each in events if each]
    assert await answer.event(60) is None
    await answer.close()


async def test_leaving_ends_a_send_that_waits_for_room(caplog: pytest.LogCaptureFixture) -> None:
    """An application that sends without end goes on, and ends, when its reader leaves."""
    async with asked(flood) as answer:
        assert 200 == answer.status
        for _ in range(3 * UNREAD):
            await asyncio.sleep(0)
    assert [] == caplog.messages  # it was not cancelled
    assert b"" == await answer.block()


async def test_an_application_that_does_not_hear_is_cancelled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that does not end within a moment is cancelled, and the log says so."""
    monkeypatch.setattr(call, "END_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING, "oncecast.testing"):
        async with asked(deaf) as answer:
            with pytest.raises(TimeoutError):
                await answer.event(0)
    assert ["an application did not end 0.01 s after its peer had gone: it is cancelled"] == caplog.messages


async def test_what_the_application_raises_is_raised_here() -> None:
    """Before its answer, amid it, and after its peer has gone: each once."""
    with pytest.raises(KeyError, match="before"):
        async with asked(failing, "/before"):
            pass
    with pytest.raises(KeyError, match="after"):
        async with asked(failing, "/after") as answer:
            assert await answer.event(60)
    async with asked(failing, "/amid") as answer:
        assert await answer.event(60)
        with pytest.raises(KeyError, match="amid"):
            await answer.event(60)


async def test_an_application_that_does_not_answer() -> None:
    """The wait for its answer ends, as does one for an application that has returned."""
    request = httpx.Request("GET", "http://app.example/")
    made = AsgiConversation(silent, scope_of_request(request))
    with pytest.raises(TimeoutError, match="did not begin its answer within 0 s"):
        await made.open(0)
    with pytest.raises(UsageError, match="opened once"):
        await made.open(0)
    made = AsgiConversation(returning, scope_of_request(request))
    with pytest.raises(UsageError, match="without an answer"):
        await made.open(60)
    await AsgiConversation(returning, scope_of_request(request)).close()


async def test_the_transport_of_httpx_streams(oncecast: OncecastFixture) -> None:
    """`client.stream` reads an endless stream, also by httpx-sse, and its end is the stream's."""
    async with httpx.AsyncClient(transport=oncecast.transport(endless), base_url="http://app.example") as client:
        async with httpx_sse.aconnect_sse(client, "GET", "/sse") as source:
            events = [event.data async for event in up_to(source.aiter_sse(), "/sse")]
        assert ["one", "/sse"] == [data for data in events if data]  # it shows a comment as an event without data
        assert "/sse" in ENDED
        with pytest.raises(httpx.ReadTimeout, match="no more of the answer came within"):
            await client.get("/whole", timeout=0.01)
        assert "/whole" in ENDED


async def test_the_transport_of_httpx_answers(oncecast: OncecastFixture) -> None:
    """An answer that ends is whole; an application that never answers is a timeout of httpx, not a hang."""
    transport = oncecast.transport(echo, root_path="/root")
    async with httpx.AsyncClient(transport=transport, base_url="http://app.example") as client:
        answer = await client.post("/a%20b?c=d", content=b"data")
        assert (201, "1") == (answer.status_code, answer.headers["x-one"])
        assert "('POST', '/a b', b'c=d', '/root', b'data')" == answer.text
    async with httpx.AsyncClient(transport=oncecast.transport(silent), base_url="http://app.example") as client:
        with pytest.raises(httpx.ReadTimeout, match="did not begin its answer"):
            await client.get("/", timeout=0.01)
