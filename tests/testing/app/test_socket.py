"""WebSockets of ASGI applications without a socket: by hand, of Oncecast's own routes, and in plain tests."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from oncecast import Oncecast, UsageError
from oncecast.testing.app import AsgiSocket, HandshakeRefused, OncecastFixture, SocketClosed
from oncecast.testing.app.call import UNREAD
from oncecast.testing.app.socket import scope_of_socket

with warnings.catch_warnings():  # it prefers httpx2
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

cast = Oncecast("sqlite:///never-opened.db", subscribe="public", publish="public")
app = FastAPI(lifespan=cast.lifespan)
app.mount("/rt", cast)
ENDED: list[int] = []


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    """Echo text in upper case; note the code of the end; close at "close", and fail at "fail"."""
    await socket.accept(subprotocol=socket.query_params.get("protocol"), headers=[(b"x-one", b"1")])
    try:
        while (text := await socket.receive_text()) not in ("close", "fail"):
            await socket.send_text(text.upper())
    except WebSocketDisconnect as end:
        ENDED.append(end.code)
        return
    if text == "fail":
        raise KeyError("failed")
    await socket.close(4001, "as asked")


@pytest.fixture
def oncecast_app() -> Oncecast:
    """The application's."""
    return cast


@pytest.fixture
def client(oncecast: OncecastFixture) -> Iterator[TestClient]:
    """A client of the application, which runs in a thread."""
    with TestClient(app) as client:
        yield client


def opened(app: Any, path: str = "/") -> AsgiSocket:
    """A socket of any application."""
    return AsgiSocket(app, scope_of_socket(path, {}, (), ""))


def test_frames_of_the_protocol(oncecast: OncecastFixture, client: TestClient) -> None:
    """A page's connection subscribes, hears and publishes, as at a server."""
    listener = oncecast.subscribe("orders")
    with oncecast.websocket(client, "/rt/v1/connect", protocols=["oncecast.v1"]) as socket:
        assert "oncecast.v1" == socket.protocol
        socket.send({"type": "subscribe", "channel": "orders"})
        assert "subscribed" == socket.receive_json(60)["type"]
        first = oncecast.publish("orders", {"n": 1})
        frame = socket.receive_json(60)
        assert (first.id, {"n": 1}) == (frame["id"], frame["data"])
        socket.send({"type": "publish", "channel": "orders", "data": {"n": 2}, "ref": "a"})
        assert {"published", "message"} == {socket.receive_json(60)["type"] for _ in range(2)}
        assert [{"n": 1}, {"n": 2}] == listener.data
        socket.send("no frame")
        assert "error" == socket.receive_json(60)["type"]


def test_a_raw_socket(oncecast: OncecastFixture, client: TestClient) -> None:
    """Text and bytes are messages, in both directions, after a start in the query too."""
    oncecast.publish("orders", "before")
    with oncecast.websocket(client, "/rt/v1/channels/orders?after=earliest") as socket:
        assert "before" == socket.receive(60)
        socket.send("text")
        socket.send(b"\x00")
        assert ["text", b"\x00"] == [socket.receive(60) for _ in range(2)]
        with pytest.raises(TimeoutError, match="no message came within 0 s"):
            socket.receive(0)
    assert ["before", "text", b"\x00"] == [message.data for message in oncecast.published("orders")]


def test_a_socket_is_dropped_and_time_passes(oncecast: OncecastFixture, client: TestClient) -> None:
    """A heartbeat comes as time passes, and a network that fails cuts the socket without a goodbye."""
    with oncecast.websocket(client, "/rt/v1/connect", protocols=["oncecast.v1"]) as socket:
        oncecast.advance(16)
        assert "cursor" == socket.receive_json(60)["type"]  # a heartbeat
        oncecast.drop()
        with pytest.raises(SocketClosed, match="1006"):
            socket.receive(60)


def test_what_is_refused(oncecast: OncecastFixture, client: TestClient) -> None:
    """A refused handshake has the error that a client would get."""
    with pytest.raises(HandshakeRefused, match="not_found") as refused:
        oncecast.websocket(client, "/rt/v1/nothing")
    assert 404 == refused.value.status
    with pytest.raises(HandshakeRefused) as refused:
        oncecast.websocket(client, "/nothing")
    assert (403, b"") == (refused.value.status, refused.value.body)
    with pytest.raises(UsageError, match="with TestClient"):
        oncecast.websocket(TestClient(app), "/echo")


def test_a_route_of_the_application(oncecast: OncecastFixture, client: TestClient) -> None:
    """Both sides close with a code, and the other one hears it."""
    ENDED.clear()
    with oncecast.websocket(client, "/echo?protocol=p", protocols=["p"], headers={"x-two": "2"}) as socket:
        assert ("p", "1") == (socket.protocol, socket.headers["x-one"])
        socket.send("a")
        assert "A" == socket.receive(60)
        socket.close(4000)
    assert [4000] == ENDED
    with oncecast.websocket(client, "/echo") as socket:
        socket.send("b")
        socket.send("close")
        assert "B" == socket.receive(60)
        with pytest.raises(SocketClosed, match="4001: as asked") as closed:
            socket.receive(60)
        assert (4001, "as asked") == (closed.value.code, closed.value.reason)
        with pytest.raises(SocketClosed):
            socket.send("late")


async def test_on_the_loop_of_the_test(oncecast: OncecastFixture) -> None:
    """Coroutines have the same, and what the application raises is raised in the test."""
    async with oncecast.async_websocket(app, "/rt/v1/channels/orders") as socket:
        await cast.publish("orders", {"n": 1})
        assert {"n": 1} == await socket.receive_json(60)
        oncecast.publish("orders", {"n": 2})  # by nobody of the application
        assert {"n": 2} == await socket.receive_json(60)
    async with oncecast.async_websocket(app, "wss://app.example:8/echo", headers={"Host": "other"}) as socket:
        await socket.send("fail")
        with pytest.raises(KeyError, match="failed"):
            await socket.receive(60)
        with pytest.raises(SocketClosed, match="1006"):
            await socket.receive(60)


async def test_neither_side_holds_more_than_its_bound() -> None:
    """An application that is not read waits, and one that does not read makes the sender wait until its deadline."""
    sent = []

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(3 * UNREAD):
            await send({"type": "websocket.send", "text": str(number)})
            sent.append(number)
        await asyncio.Event().wait() if scope["path"] == "/deaf" else await receive()

    async with opened(flood) as socket:
        for _ in range(5 * UNREAD):
            await asyncio.sleep(0)
        assert UNREAD == len(sent)
        for number in range(UNREAD):
            await socket.send(number)
        with pytest.raises(TimeoutError, match="did not receive within 0 s"):
            await socket.send("one more", 0)
        assert [str(number) for number in range(3 * UNREAD)] == [await socket.receive(60) for _ in range(3 * UNREAD)]


async def test_a_handshake_that_has_no_answer() -> None:
    """The wait for it ends, and an application that returns without an answer is a mistake that is named."""

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def returning(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"log ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"in"})

    with pytest.raises(TimeoutError, match="did not begin its answer within 0 s"):
        await opened(silent).open(0)
    with pytest.raises(UsageError, match="without an answer"):
        await opened(returning).open(60)
    with pytest.raises(HandshakeRefused, match="with 401: log in"):
        await opened(half).open(60)
