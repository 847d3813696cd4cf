"""`GET /v1/overview` and `POST /v1/drain`: what they do, who may ask for them, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from oncecast import __version__
from oncecast.http import roll
from oncecast.http.overview import ChannelListeners, Overview, PresentNode
from oncecast.message import LATEST, Draft, Kind
from oncecast.policy.server_keys import hash_line, make_key
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from tests.core.conftest import FakeSink, Words
from tests.http.test_users import ask, of_ann, until
from tests.server.conftest import Bench, parse_answer
from tests.token_rig import SECRET

SECONDS = 60.0
KEY = make_key(bytes(32))
AUTH = AuthSettings(secret=SECRET, leeway_seconds=0, server_keys=(hash_line("shop", KEY),))

Serve = Callable[[Settings], Awaitable[Server]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers, which end with the test."""
    started: list[Server] = []

    async def start(settings: Settings) -> Server:
        server = Server(settings)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop(0)


async def test_what_goes_on(serve: Serve) -> None:
    """It has the node, its connections by transport, its messages, its refusals, and its channels by the order."""
    server = await serve(Settings(port=0, auth=AUTH))
    published = asyncio.Event()
    drafts = [Draft(name, b"1", Kind.JSON) for name in "aab"]
    server.node.publish(drafts, lambda outcomes: published.set())
    async with asyncio.timeout(SECONDS):
        await published.wait()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /v1/channels/b?after=latest HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
    )
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"\r\n\r\n")
    assert 401 == (await ask(server, "overview"))[0]
    status, body = await ask(server, "overview?order=rate&limit=1", KEY)
    assert 200 == status
    found = msgspec.convert(body, Overview)
    assert (True, [], 1, "memory", 3) == (
        found.node.ready,
        found.node.reasons,
        found.node.workers,
        found.node.broker,
        found.node.head,
    )
    assert {"sse": 1} == found.connections.listeners
    assert (3, 3) == (found.messages.published, found.messages.received)
    assert [("other", "unauthorized", 1)] == [(row.transport, row.code, row.count) for row in found.refusals]
    assert ("rate", 2, True) == (found.channels.order, found.channels.total, found.channels.complete)
    assert [("a", 2, 0)] == [(row.name, row.messages, row.listeners) for row in found.channels.listed]
    _, body = await ask(server, "overview?order=listeners", KEY)
    assert [("b", 1), ("a", 0)] == [(row["name"], row["listeners"]) for row in body["channels"]["listed"]]
    writer.close()


async def test_who_listens_to_a_channel(serve: Serve) -> None:
    """Each of its listeners has its transport, what it has shown of itself, and its address."""
    rules = {"a": ChannelRule(subscribe="public")}
    server = await serve(Settings(port=0, auth=AUTH, channels=rules))
    target = "GET /v1/channels/a?after=latest{} HTTP/1.1\r\nHost: localhost\r\n{}\r\n"
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    stream = "Accept: text/event-stream\r\n"
    writers = []
    for query, headers in (
        ("", f"{stream}Authorization: Bearer {KEY}\r\n"),
        ("", stream),
        ("", f"{upgrade}Authorization: Bearer {of_ann()}\r\n"),
        ("&wait=20", f"Authorization: Bearer {of_ann()}\r\n"),
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(target.format(query, headers).encode())
        writers.append(writer)
    server.node.subscribe(("a", "b"), LATEST, FakeSink(), Words(), lambda place: None)
    await until(lambda: server.node.hub.live("a") == 5)
    _, body = await ask(server, "overview?channel=a", KEY)
    found = msgspec.convert(body["listeners"], ChannelListeners)
    assert ("a", 5) == (found.channel, found.total)
    assert [
        ("long-poll", "token", "ann", "127.0.0.1", 0),
        ("process", "anybody", None, "", 0),
        ("sse", "anybody", None, "127.0.0.1", 0),
        ("sse", "server", "shop", "127.0.0.1", 0),
        ("websocket", "token", "ann", "127.0.0.1", 0),
    ] == sorted(msgspec.structs.astuple(row) for row in found.listed)
    _, body = await ask(server, "overview?channel=b", KEY)
    assert ["process"] == [row["transport"] for row in body["listeners"]["listed"]]
    _, body = await ask(server, "overview?channel=none", KEY)
    assert {"channel": "none", "total": 0, "listed": []} == body["listeners"]
    _, body = await ask(server, "overview", KEY)
    assert body["listeners"] is None
    for writer in writers:
        writer.close()


async def test_the_nodes_that_share_the_log(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node sees the others soon after the first look, and one that has ended no more; a lone one sees itself."""
    monkeypatch.setattr(roll, "CALL_SECONDS", 0.2)
    monkeypatch.setattr(roll, "ANSWER_SECONDS", 0.0)
    settings = Settings(port=0, auth=AUTH, broker=f"sqlite:///{tmp_path}/log.db")
    one, two = [await serve(settings) for _ in range(2)]

    async def nodes(count: int) -> list[PresentNode]:
        async with asyncio.timeout(SECONDS):
            while True:
                _, body = await ask(one, "overview", KEY)
                found = msgspec.convert(body["nodes"], list[PresentNode])
                if len(found) == count:
                    return found
                await asyncio.sleep(0.05)

    found = {each.name.rpartition(":")[2]: each for each in await nodes(2)}
    assert {str(one.port): True, str(two.port): False} == {name: each.this for name, each in found.items()}
    assert [(1, [], [__version__])] * 2 == [(each.processes, each.unready, each.versions) for each in found.values()]
    monkeypatch.setattr(roll, "PRESENT_SECONDS", 1.0)
    await two.stop(0)
    assert [True] == [each.this for each in await nodes(1)]
    _, body = await ask(one, "overview", KEY)  # what nodes tell each other is no traffic
    assert {"published": 0, "delivered": 0} == {name: body["messages"][name] for name in ("published", "delivered")}
    assert one.node.publishes > 0
    lone = await serve(Settings(port=0, auth=AUTH))
    _, body = await ask(lone, "overview", KEY)
    assert [True] == [each["this"] for each in body["nodes"]]


async def test_only_a_servers_key_opens_it(serve: Serve) -> None:
    """Nobody else may read it, and without keys in the settings nobody may."""
    server = await serve(Settings(port=0, auth=AUTH))
    assert 401 == (await ask(server, "overview"))[0]
    assert 403 == (await ask(server, "overview", of_ann()))[0]
    assert 200 == (await ask(server, "overview", KEY))[0]
    bare = await serve(Settings(port=0))
    status, body = await ask(bare, "overview")
    assert (404, True) == (status, "oncecast key create" in body["error"]["message"])


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        (Settings(port=0, dev=True), 200),
        (Settings(port=0, dev=True, host="0.0.0.0", public=True), 404),
        (Settings(port=0, dev=True, hosts=("*",)), 404),
    ],
)
async def test_development_opens_it_on_loopback_alone(serve: Serve, settings: Settings, status: int) -> None:
    """With `--dev` it is open, unless others may reach the server, or a page may name it as it likes."""
    server = await serve(settings)
    assert status == (await ask(server, "overview"))[0]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("order=size", "order is one of"),
        ("limit=x", "limit is a number"),
        ("limit=301", "limit is a number"),
        ("limit=-1", "limit is a number"),
        ("limit=1&limit=2", "each once"),
        ("colour=red", "each once"),
        ("channel=a*", "is not a channel name"),
        ("channel=", "is not a channel name"),
        ("order=%ff", "not UTF-8"),
    ],
)
async def test_a_query_that_is_wrong(serve: Serve, query: str, said: str) -> None:
    """It is refused, with what may be given."""
    server = await serve(Settings(port=0, dev=True))
    status, body = await ask(server, f"overview?{query}")
    assert (400, True) == (status, said in body["error"]["message"])


def test_a_server_without_one(bench: Bench) -> None:
    """An `Oncecast` in another server has no overview, and says so; other methods are refused as elsewhere."""
    answer = parse_answer(bench.ask(b"GET /v1/overview HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert (404, "not_found") == (answer.status, answer.code)
    answer = parse_answer(bench.ask(b"POST /v1/overview HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"))
    assert (405, "GET, HEAD, OPTIONS") == (answer.status, answer.headers["allow"])


async def test_a_server_is_drained_by_a_key(serve: Serve) -> None:
    """Nobody else may, each refusal leaves the server as it is, and the reason names the key and holds no secret."""
    reasons: list[str] = []
    server = await serve(Settings(port=0, auth=AUTH))
    assert 404 == (await ask(server, "drain", KEY, {}))[0]
    server.app.drain = reasons.append
    assert 401 == (await ask(server, "drain", body={}))[0]
    assert 403 == (await ask(server, "drain", of_ann(), {}))[0]
    assert 405 == (await ask(server, "drain", KEY))[0]
    assert [] == reasons
    assert (202, {"draining": True}) == await ask(server, "drain", KEY, {})
    assert ["/v1/drain was asked for by the key shop"] == reasons


async def test_a_page_of_another_origin_drains_nothing(serve: Serve) -> None:
    """In development a page of another site is refused, and a client of this machine is not."""
    reasons: list[str] = []
    server = await serve(Settings(port=0, dev=True))
    server.app.drain = reasons.append
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /v1/drain HTTP/1.0\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(SECONDS):
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
    writer.close()
    assert [] == reasons
    assert 202 == (await ask(server, "drain", body={}))[0]
    assert ["/v1/drain was asked for by a client, as the server runs with --dev"] == reasons
