"""A connection over ASGI: peers that do not read, peers that leave, and the end of a process with streams open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from msgspec.structs import replace

from oncecast import Oncecast
from oncecast.asgi import peer as peers
from oncecast.asgi import running, sockets
from oncecast.asgi.gate import Unruled
from oncecast.asgi.pending import ROOM
from oncecast.core.pages import PAGE_BYTES
from oncecast.policy.access import ALLOW_ALL
from oncecast.policy.limits import Limits
from oncecast.server.settings import AuthSettings, ChannelRule, RetentionSettings, Settings
from tests.asgi.conftest import SECONDS
from tests.asgi.peers import HandPeer, http_scope, socket_scope

CHANNEL = "/v1/channels/a"
EVENTS = ("accept", "text/event-stream")
ACCEPT = (b"accept", b"text/event-stream")
BIG = "x" * 10_000


def open_to_all(**more: Any) -> Oncecast:
    """Return an `Oncecast` that lets everybody do everything."""
    return Oncecast(settings=Settings(dev=True, **more))


def connections(cast: Oncecast) -> list[Any]:
    """Return the connections of an `Oncecast`."""
    assert cast._life is not None
    return list(cast._life.app.connections)


async def empty(cast: Oncecast) -> None:
    """Wait until no connection is left."""
    async with asyncio.timeout(SECONDS):
        while connections(cast):  # noqa: ASYNC110 - the server has no event for a test
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["events", "socket"])
async def test_a_peer_that_does_not_read_costs_a_page(kind: str) -> None:
    """At most `ROOM` bytes and a page wait for the peer. Once it reads, it gets each message once."""
    count = 200
    scope = http_scope(CHANNEL, EVENTS) if kind == "events" else socket_scope(CHANNEL)
    async with open_to_all() as cast, HandPeer(cast, scope) as peer:
        await peer.next()
        if kind == "events":
            await peer.until(b"id:")
        peer.let.clear()
        for number in range(count):
            await cast.publish("a", f"{number} {BIG}")
            await asyncio.sleep(0)
        (connection,) = connections(cast)
        assert connection.full
        assert connection._pending._size <= ROOM + PAGE_BYTES + len(BIG)
        peer.let.set()
        heard: list[Any] = [] if kind == "events" else [(await peer.next())["text"] for _ in range(count)]
        if kind == "events":
            heard = (await peer.until(b"data: %d x" % (count - 1))).split(b"data: ")[1:]
        assert [*range(count)] == [int(each.split()[0]) for each in heard]


async def test_a_lag_policy_holds() -> None:
    """The stream of a peer that does not read ends if the channel's `lag` is `disconnect`."""
    cast = open_to_all(channels={"a": ChannelRule(lag="disconnect")})
    async with cast, HandPeer(cast, socket_scope(CHANNEL)) as peer:
        await peer.next()
        await cast.publish("a", "live")
        await peer.next()
        peer.let.clear()
        for _ in range(20):
            await cast.publish("a", BIG)
            await asyncio.sleep(0)
        peer.let.set()
        while (event := await peer.next())["type"] == "websocket.send":
            pass
        assert ("websocket.close", 4409) == (event["type"], event["code"])


async def test_a_peer_that_leaves_is_forgotten() -> None:
    """A stream, a socket and a long poll leave the hub; nothing is sent after that."""
    async with open_to_all() as cast:
        assert cast._life is not None
        hub = cast._life.node.hub
        for scope in (
            http_scope(CHANNEL, EVENTS),
            socket_scope(CHANNEL),
            http_scope(CHANNEL, query="wait=20&after=latest"),
        ):
            async with HandPeer(cast, scope) as peer:
                async with asyncio.timeout(SECONDS):
                    while not hub.subscriptions:  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0.01)
                peer.leave()
                await peer.ended()
                assert (0, []) == (hub.subscriptions, connections(cast))


async def test_a_task_that_is_cancelled_leaves_nothing() -> None:
    """Servers cancel the application's task when a peer is gone."""
    async with open_to_all() as cast:
        peer = HandPeer(cast, http_scope(CHANNEL, EVENTS))
        await peer.__aenter__()
        await peer.until(b"id:")
        assert peer.task is not None
        peer.task.cancel()
        await asyncio.wait({peer.task})
        assert peer.task.cancelled()
        assert [] == connections(cast)


async def test_a_send_that_fails_ends_the_stream() -> None:
    """An OSError of `send` means that the peer is gone. The server gets any other error."""
    for error in (OSError("gone"), ValueError("a defect")):

        async def send(event: Any, error: Exception = error) -> None:
            raise error

        async def receive() -> Any:
            await asyncio.Event().wait()

        async with open_to_all() as cast:
            if isinstance(error, OSError):
                await cast(http_scope(CHANNEL), receive, send)
            else:
                with pytest.raises(ValueError, match="defect"):
                    await cast(http_scope(CHANNEL, EVENTS), receive, send)
            assert [] == connections(cast)


async def test_streams_end_when_the_process_stops() -> None:
    """Each stream ends at once with a `retry`. Later requests are answered, and their streams end too."""
    async with (
        open_to_all() as cast,
        HandPeer(cast, http_scope(CHANNEL, EVENTS)) as events,
        HandPeer(cast, socket_scope(CHANNEL, protocols=("oncecast.v1",))) as socket,
        HandPeer(cast, http_scope(CHANNEL, query="wait=20&after=latest")) as poll,
    ):
        await events.until(b"id:")
        await socket.next()
        await socket.next()
        cast.drain()
        assert b"retry: 1000" in await events.until(b"retry: 1000")
        assert "drain" == json.loads((await socket.next())["text"])["type"]
        close = await socket.next()
        assert ("websocket.close", 1012) == (close["type"], close["code"])
        assert 200 == (await poll.next())["status"]
        for peer in (events, socket, poll):
            await peer.ended()
        async with HandPeer(cast, http_scope(CHANNEL, EVENTS)) as late:
            await late.until(b"retry: 1000")
            await late.ended()


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_peer_that_does_not_read_holds_up_no_stop(stopped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is cut at the deadline of its goodbye, or when the node stops."""
    monkeypatch.setattr(peers, "GOODBYE_SECONDS", 0.1 if stopped else 3600)
    monkeypatch.setattr(running, "LEAVE_SECONDS", 3600 if stopped else 0.1)
    cast = open_to_all()
    await cast.start()
    peer = HandPeer(cast, http_scope(CHANNEL, EVENTS))
    await peer.__aenter__()
    await peer.until(b"id:")
    peer.let.clear()
    await cast.publish("a", 1)
    await peer.until(b"data: 1")
    async with asyncio.timeout(SECONDS):
        await cast.stop()
    await peer.ended()


async def test_an_answer_that_does_not_come_has_a_deadline() -> None:
    """The client gets `unavailable` if the broker does not answer in time."""
    cast = open_to_all(limits=Limits(answer_seconds=1))
    async with cast:
        assert cast._life is not None
        cast._life.node.publish = lambda drafts, done: None  # type: ignore[method-assign]
        scope = http_scope(CHANNEL, method="POST")
        async with HandPeer(cast, scope) as peer:
            peer.say({"type": "http.request", "body": b"1"})
            assert 503 == (await peer.next())["status"]


async def test_a_handshake_is_refused_as_the_server_can_say_it() -> None:
    """With the extension the client gets the error, and without it 403."""
    async with open_to_all() as cast:
        cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({}, "websocket.close"),
            ({"websocket.http.response": {}}, "websocket.http.response.start"),
        )
        for extensions, expected in cases:
            async with HandPeer(cast, socket_scope("/v1/nothing", extensions=extensions)) as peer:
                event = await peer.next()
                assert expected == event["type"]
                if extensions:
                    assert 404 == event["status"]
                    assert "not_found" == json.loads((await peer.next())["body"])["error"]["code"]
                await peer.ended()


async def test_a_socket_publishes_and_is_bounded() -> None:
    """Text and bytes are published as they are; a message that is too large closes the socket with 1009."""
    async with open_to_all(limits=Limits(message_bytes=100)) as cast, cast.subscribe("a") as messages:
        async with HandPeer(cast, socket_scope(CHANNEL)) as peer:
            assert "websocket.accept" == (await peer.next())["type"]
            peer.text("hello")
            peer.say({"type": "websocket.receive", "bytes": b"\x00", "text": None})
            assert ["hello", b"\x00"] == [(await anext(messages)).data for _ in range(2)]
            assert [{"text": "hello"}, {"bytes": b"\x00"}] == [
                {k: v for k, v in (await peer.next()).items() if k != "type"} for _ in range(2)
            ]
            peer.text("x" * 101)
            assert 1009 == (await peer.next())["code"]
            peer.text("late")
        async with HandPeer(cast, socket_scope(CHANNEL, protocols=("oncecast.v1",))) as peer:
            await peer.next()
            await peer.next()
            peer.say({"type": "websocket.receive", "bytes": b"{}"})
            assert 1003 == (await peer.next())["code"]


STREAMS = {
    "poll": http_scope(CHANNEL, query="wait=20&after=latest"),
    "events": http_scope(CHANNEL, EVENTS),
    "socket": socket_scope(CHANNEL, extensions={"websocket.http.response": {}}),
}


@pytest.mark.parametrize("kind", STREAMS)
async def test_connections_of_an_address(kind: str) -> None:
    """A waiting poll, a stream and a socket fill the limit of their address alone, for each kind, until they end."""
    async with open_to_all(limits=Limits(connections_per_address=1)) as cast:
        assert cast._life is not None
        hub = cast._life.node.hub
        async with HandPeer(cast, STREAMS[kind]):
            async with asyncio.timeout(SECONDS):
                while not hub.subscriptions:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            for scope in STREAMS.values():
                async with HandPeer(cast, scope) as second:
                    assert 429 == (await second.next())["status"]
                    error = json.loads((await second.next())["body"])["error"]
                    assert "At most 1 connections from one address." == error["message"]
            async with HandPeer(cast, http_scope(CHANNEL)) as poll:  # does not wait
                assert 200 == (await poll.next())["status"]
            other = ("192.0.2.7", 1234)
            async with HandPeer(cast, {**STREAMS["events"], "client": other}) as third:
                assert 200 == (await third.next())["status"]
        await empty(cast)
        async with HandPeer(cast, STREAMS["events"]) as fourth:
            assert 200 == (await fourth.next())["status"]


async def test_loopback_has_no_limit_of_an_address() -> None:
    """Connections of this machine are not counted: a proxy that nobody has named comes from there."""
    async with open_to_all(limits=Limits(connections_per_address=1)) as cast, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            local = {**STREAMS["events"], "client": ("127.0.0.1", 1234), "headers": [(b"host", b"localhost"), ACCEPT]}
            assert 200 == (await (await stack.enter_async_context(HandPeer(cast, local))).next())["status"]


async def test_heads_of_streams_have_no_body() -> None:
    """HEAD of a stream says what GET would, and of a poll its length."""
    async with open_to_all() as cast:
        for headers in ((EVENTS,), ()):
            async with HandPeer(cast, http_scope(CHANNEL, *headers, method="HEAD")) as peer:
                assert 200 == (await peer.next())["status"]
                assert (b"", False) == ((last := await peer.next())["body"], last["more_body"])
                await peer.ended()


async def nothing(*event: Any) -> Any:
    """Neither receive nor send anything."""


async def test_another_scope_is_an_error() -> None:
    """A type of scope that is not known is a mistake of the server's."""
    async with open_to_all() as cast:
        with pytest.raises(Exception, match="not known"):
            await cast({**http_scope("/"), "type": "gopher"}, nothing, nothing)


async def test_a_token_is_taken_on_an_open_socket() -> None:
    """After an `auth` frame the socket counts for its user, who is warned before the token ends."""
    secret = "s" * 32
    tables = {"a": ChannelRule(subscribe="token"), "open": ChannelRule(subscribe="public")}
    settings = Settings(auth=AuthSettings(secret=secret), channels=tables, limits=Limits(connections_per_user=1))
    now = time.time()
    token = jwt.encode({"sub": "ann", "iat": now - 3, "exp": now + 1.0}, secret, "HS256")
    scope = socket_scope("/v1/channels/open", protocols=("oncecast.v1",))
    leeway = replace(settings, auth=replace(settings.auth, leeway_seconds=0))
    async with Oncecast(settings=leeway) as cast, HandPeer(cast, scope) as peer:
        await peer.next()
        await peer.next()
        peer.text('{"type":"subscribe","channel":"a"}')
        assert "unauthorized" == json.loads((await peer.next())["text"])["code"]
        peer.text(json.dumps({"type": "auth", "token": token}))
        assert "authenticated" == json.loads((await peer.next())["text"])["type"]
        peer.text('{"type":"subscribe","channel":"a"}')
        assert "subscribed" == json.loads((await peer.next())["text"])["type"]
        async with HandPeer(cast, socket_scope("/v1/channels/open", protocols=("oncecast.v1",))) as second:
            await second.next()
            await second.next()
            second.text(json.dumps({"type": "auth", "token": token}))
            assert "too_many_requests" == json.loads((await second.next())["text"])["code"]
        assert "expiring" == json.loads((await peer.next())["text"])["type"]
        assert 4401 == (await peer.next())["code"]


async def test_the_pages_of_one_connection_are_counted(tmp_path: Path) -> None:
    """A socket that reads the history too often is refused for a while, and each refusal is counted."""
    limits = Limits(history_pages_per_second=1)
    broker = f"sqlite:///{tmp_path}/app.db"
    async with Oncecast(broker) as first:
        for number in range(3):
            await first.publish("a", f"{number} {BIG * 5}")
    settings = Settings(dev=True, broker=broker, limits=limits, retention=RetentionSettings(bytes=65536))
    scope = socket_scope("/v1/connect", protocols=("oncecast.v1",))
    async with Oncecast(settings=settings) as cast, HandPeer(cast, scope) as peer:
        await peer.next()
        kinds: list[str] = []
        for _ in range(10):
            peer.text('{"type":"subscribe","channel":"a","after":"earliest"}')
            peer.text('{"type":"unsubscribe","channel":"a"}')
        while kinds.count("unsubscribed") < 10:
            frame = json.loads((await peer.next())["text"])
            kinds.append(frame["code"] if frame["type"] == "error" else frame["type"])
        assert "too_many_requests" in kinds
        (connection,) = connections(cast)
        refused = connection.app.settings.quotas.refused["history_pages_per_second"]
        assert kinds.count("too_many_requests") == refused


async def test_other_rules_end_what_they_refuse() -> None:
    """A stream that new keys or rules refuse ends. The other streams go on."""
    async with open_to_all() as cast, HandPeer(cast, http_scope(CHANNEL, EVENTS)) as peer:
        await peer.until(b"id:")
        (connection,) = connections(cast)
        connection.recheck(ALLOW_ALL)
        await cast.publish("a", 1)
        await peer.until(b"data: 1")
        assert not connection.evict()
        connection.recheck(Unruled())
        assert b"forbidden" in await peer.until(b"event: error")
        connection.overflow()
        await peer.ended()


async def test_a_defect_is_an_error_of_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in our code is logged and answered with 500. A stream on which it happens is cut."""

    def fail(*_: Any) -> None:
        raise KeyError("a defect")

    async with open_to_all() as cast:
        monkeypatch.setattr("oncecast.http.routes.parse_channels", fail)
        async with HandPeer(cast, http_scope(CHANNEL)) as peer:
            assert 500 == (await peer.next())["status"]
        monkeypatch.undo()
        monkeypatch.setattr("oncecast.asgi.serving.find_out", fail)
        async with HandPeer(cast, http_scope(CHANNEL)) as peer:
            assert 500 == (await peer.next())["status"]
        monkeypatch.undo()
        async with HandPeer(cast, socket_scope(CHANNEL)) as peer:
            await peer.next()
            (connection,) = connections(cast)
            monkeypatch.setattr(connection, "_take", fail)
            peer.text("x")
            await peer.ended()
    assert caplog.text.count("a defect") >= 3


async def test_a_request_that_can_not_be_read_is_refused() -> None:
    """The error is answered, also to a handshake."""
    async with open_to_all() as cast:
        for scope in (
            http_scope(CHANNEL, ("x y", "")),
            socket_scope(CHANNEL, ("x y", ""), extensions={"websocket.http.response": {}}),
        ):
            async with HandPeer(cast, scope) as peer:
                assert 400 == (await peer.next())["status"]


async def test_a_socket_that_never_opens_is_left() -> None:
    """A scope whose first event is not `websocket.connect` gets no answer."""
    async with open_to_all() as cast:
        peer = HandPeer(cast, socket_scope(CHANNEL))
        peer.leave()
        await peer.__aenter__()
        await peer.ended()
        assert 0 == peer.waiting


async def test_a_plain_request_for_a_socket_is_refused() -> None:
    """The answer to a plain request for `/v1/connect` is 426, and names WebSocket."""
    async with open_to_all() as cast, HandPeer(cast, http_scope("/v1/connect")) as peer:
        event = await peer.next()
        assert 426 == event["status"]
        assert {(b"upgrade", b"websocket"), (b"connection", b"Upgrade")} <= set(event["headers"])


async def test_of_a_socket_that_does_not_read_nothing_is_read() -> None:
    """Its questions wait in the server, whose buffer is bounded; the answers come once it reads, all of them."""
    ref, count = "r" * 100, 1000
    scope = socket_scope("/v1/connect", protocols=("oncecast.v1",))
    async with open_to_all(limits=Limits(publishes_per_second=100_000)) as cast, HandPeer(cast, scope) as peer:
        assert "websocket.accept" == (await peer.next())["type"]
        peer.let.clear()
        for _ in range(count):
            peer.text(json.dumps({"type": "publish", "channel": "a", "data": 1, "ref": ref}))
        (connection,) = connections(cast)
        async with asyncio.timeout(SECONDS):
            while not connection.full:  # noqa: ASYNC110 - the server has no event for a test
                await asyncio.sleep(0.01)
        assert connection._pending._size <= ROOM + 2 * PAGE_BYTES
        assert peer.unheard > 0
        peer.let.set()
        answers = [json.loads((await peer.next())["text"]) for _ in range(count)]
        assert {"published"} == {answer["type"] for answer in answers}


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_socket_that_never_reads_ends(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is received on slowly, so that its end is heard behind what it has sent; and ended if it goes on and on."""
    monkeypatch.setattr(sockets, "ROOM_SECONDS", 0.01)
    monkeypatch.setattr(sockets, "UNREAD", 10**6 if leaves else 10)
    async with open_to_all() as cast, HandPeer(cast, socket_scope("/v1/connect", protocols=("oncecast.v1",))) as peer:
        assert "websocket.accept" == (await peer.next())["type"]
        peer.let.clear()
        (connection,) = connections(cast)
        connection.put("x" * (ROOM + 1), ROOM + 1)
        for _ in range(20):
            peer.text('{"type":"unsubscribe","channel":"a"}')
        if leaves:
            peer.leave()
        async with asyncio.timeout(SECONDS):
            while not connection._pending.ended:  # noqa: ASYNC110 - the server has no event for a test
                await asyncio.sleep(0.01)
        peer.let.set()
        await peer.ended()
