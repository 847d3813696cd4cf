"""Tickets and disconnections: on one node, on two of one log, and on every broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from oncecast.policy.limits import Limits
from oncecast.policy.server_keys import hash_line, make_key
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Settings
from tests.brokers.servers import Servers
from tests.token_rig import SECRET, token

SECONDS = 60.0
KEY = make_key(bytes(32))
AUTH = AuthSettings(secret=SECRET, leeway_seconds=0, server_keys=(hash_line("shop", KEY),))


def of_ann(age: float = 0.0, **more: object) -> str:
    """Return a token that was issued some seconds ago."""
    now = time.time()
    return token({"sub": "ann", "iat": now - age, "exp": now + 300, **more})


async def ask(
    server: Server, target: str, credential: str | None = None, body: object = None, accept: str = ""
) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    data = b"" if body is None else json.dumps(body).encode()
    bearer = "" if credential is None else f"Authorization: Bearer {credential}\r\n"
    method = "GET" if body is None else "POST"
    writer.write(
        f"{method} /v1/{target} HTTP/1.0\r\n{bearer}Accept: {accept}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    async with asyncio.timeout(SECONDS):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2] or b"null")


async def ticket_of(server: Server, credential: str, body: object = ()) -> str:
    """Return a ticket."""
    status, answer = await ask(server, "ticket", credential, {} if body == () else body)
    assert (201, 30) == (status, answer["expires_in"]), answer
    return str(answer["ticket"])


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that the other side makes true."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.02)


@asynccontextmanager
async def nodes(broker: str, count: int) -> AsyncIterator[list[Server]]:
    """Run servers on one log."""
    running: list[Server] = []
    try:
        for _ in range(count):
            server = Server(Settings(port=0, broker=broker, auth=AUTH))
            await server.start()
            running.append(server)
        yield running
    finally:
        for server in running:
            await server.stop(0)


def brokers(name: str, servers: Servers, directory: Path) -> str:
    """Return the URL of an empty log."""
    if name == "sqlite":
        return f"sqlite:///{directory / 'log.db'}"
    return servers.new_log(name)


async def test_a_ticket_is_used_once() -> None:
    """A ticket grants what its token does once; another use, another text and an old token are refused."""
    async with nodes("memory://", 1) as (server,):
        credential = of_ann(oncecast={"subscribe": ["c"]})
        ticket = await ticket_of(server, credential)
        assert 200 == (await ask(server, f"channels/c?ticket={ticket}"))[0]
        assert 401 == (await ask(server, f"channels/c?ticket={ticket}"))[0]
        assert 403 == (await ask(server, f"channels/d?ticket={await ticket_of(server, credential)}"))[0]
        assert 401 == (await ask(server, "channels/c?ticket=x"))[0]
        both = await ask(server, f"channels/c?ticket={await ticket_of(server, credential)}", credential)
        assert (400, "request_invalid") == (both[0], both[1]["error"]["code"])
        assert 401 == (await ask(server, "ticket", None, {}))[0]
        assert 405 == (await ask(server, "ticket", credential))[0]


async def test_a_poll_by_a_ticket_is_not_answered_from_memory(tmp_path: Path) -> None:
    """A repeated request on the same connection is refused, as its ticket was used, even if nothing has changed."""
    async with nodes(f"sqlite:///{tmp_path / 'log.db'}", 1) as (server,):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(8):  # an answer is kept until the second ends, and this may be its end
            request = (
                f"GET /v1/channels/c?ticket={await ticket_of(server, of_ann())} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            answers = []
            async with asyncio.timeout(SECONDS):
                for _ in range(2):
                    writer.write(request.encode())
                    answers.append(await reader.readuntil(b"}\n"))
            assert b" 200 " in answers[0]
            assert b" 401 " in answers[1]
            assert b"was used" in answers[1]
        writer.close()


async def test_a_ticket_opens_a_socket_and_a_stream() -> None:
    """The transport begins once it is redeemed, and is the user's."""
    async with nodes("memory://", 1) as (server,):
        for path in ("connect", "channels/c"):
            url = f"ws://127.0.0.1:{server.port}/v1/{path}?ticket={await ticket_of(server, of_ann())}"
            async with connect(url, subprotocols=[websockets.Subprotocol("oncecast.v1")]) as socket:
                await socket.send('{"type":"publish","channel":"c","data":1,"ref":1}')
                async with asyncio.timeout(SECONDS):
                    while json.loads(await socket.recv())["type"] != "published":
                        pass
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        target = f"/v1/channels/c?ticket={await ticket_of(server, of_ann())}&after=earliest"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
        async with asyncio.timeout(SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            assert b"Referrer-Policy: no-referrer" in head
            await reader.readuntil(b"data: 1\n")
        writer.close()


async def test_a_server_asks_for_a_user() -> None:
    """A key has no user of its own: it names one, and what the ticket grants."""
    async with nodes("memory://", 1) as (server,):
        ticket = await ticket_of(server, KEY, {"sub": "bob", "subscribe": ["b.*"]})
        assert 200 == (await ask(server, f"channels/b.1?ticket={ticket}"))[0]
        ticket = await ticket_of(server, KEY, {"sub": "bob", "subscribe": ["b.*"]})
        assert 403 == (await ask(server, f"channels/c?ticket={ticket}"))[0]
        bodies: list[object] = [
            {},
            {"sub": 5},
            {"sub": ""},
            {"sub": "b", "subscribe": ["a*b"]},
            {"sub": "b", "x": 1},
            [],
            {"sub": "b" * 256},
            *({"sub": f"b{each}"} for each in "\n\0\x7f\x85"),
            {"sub": "b", "publish": ["c"] * 65},
            {"sub": "b", "publish": ["c" * 1000]},
        ]
        for body in bodies:
            assert 400 == (await ask(server, "ticket", KEY, body))[0]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({}, (200, 201)),
        ({"subscribe": ["c"]}, (200, 403)),
        ({"publish": ["c"]}, (403, 201)),
        ({"subscribe": [], "publish": []}, (403, 403)),
        ({"subscribe": ["c"], "publish": ["c"]}, (200, 201)),
    ],
)
async def test_a_list_that_a_server_leaves_out(lists: dict[str, object], expected: tuple[int, int]) -> None:
    """It grants nothing where the other one is given, as in the claim of a token; without both the rules decide."""
    async with nodes("memory://", 1) as (server,):
        read, _ = await ask(server, f"channels/c?ticket={await ticket_of(server, KEY, {'sub': 'bob', **lists})}")
        ticket = await ticket_of(server, KEY, {"sub": "bob", **lists})
        async with connect(
            f"ws://127.0.0.1:{server.port}/v1/connect?ticket={ticket}",
            subprotocols=[websockets.Subprotocol("oncecast.v1")],
        ) as socket:
            await socket.send('{"type":"publish","channel":"c","data":1,"ref":1}')
            async with asyncio.timeout(SECONDS):
                while (answer := json.loads(await socket.recv()))["type"] not in ("published", "error"):
                    pass
        assert expected == (read, 201 if answer["type"] == "published" else {"forbidden": 403}[answer["code"]])


async def test_who_may_disconnect() -> None:
    """A server only, with a user's name."""
    async with nodes("memory://", 1) as (server,):
        assert 401 == (await ask(server, "disconnect", None, {"sub": "ann"}))[0]
        assert 403 == (await ask(server, "disconnect", of_ann(), {"sub": "ann"}))[0]
        for absurd in ("", "a" * 256, "a\nb", "a\x1b[2Jb", "a\u0085b", None, 5, ["ann"]):
            status, answer = await ask(server, "disconnect", KEY, {"sub": absurd})
            assert (400, "request_invalid") == (status, answer["error"]["code"])
        status, answer = await ask(server, "disconnect", KEY, {"sub": "nobody"})
        assert (200, "memory") == (status, answer["durability"])


BROKERS = ["sqlite", "redis", "nats", "kafka", "rabbitmq"]


@pytest.mark.parametrize("name", BROKERS)
async def test_two_nodes_of_one_log(name: str, servers: Servers, tmp_path: Path) -> None:
    """A ticket of one works on the other, and once for both; a disconnection reaches both, and outlives a restart."""
    url = brokers(name, servers, tmp_path)
    async with nodes(url, 2) as (one, two):
        ticket = await ticket_of(one, of_ann())
        assert 200 == (await ask(two, f"channels/c?ticket={ticket}"))[0]
        for _ in range(5):
            target = f"channels/c?ticket={await ticket_of(one, of_ann())}"
            answers = await asyncio.gather(*(ask(server, target) for server in (one, two, one, two)))
            assert [200, 401, 401, 401] == sorted(status for status, _ in answers)
        async with (
            connect(
                f"ws://127.0.0.1:{two.port}/v1/channels/c", additional_headers={"Authorization": f"Bearer {of_ann(5)}"}
            ) as anns,
            connect(
                f"ws://127.0.0.1:{two.port}/v1/channels/c",
                additional_headers={"Authorization": f"Bearer {of_ann(5, sub='bob')}"},
            ) as bobs,
        ):
            poll = asyncio.create_task(ask(two, "channels/c?after=latest&wait=50", of_ann(5)))
            await until(lambda: two.app.node.hub.subscriptions >= 4)
            status, answer = await ask(one, "disconnect", KEY, {"sub": "ann", "revoke": True})
            assert 200 == status, answer
            async with asyncio.timeout(SECONDS):
                with pytest.raises(websockets.ConnectionClosed):
                    await anns.recv()
                assert 401 == (await poll)[0]
            assert 4401 == anns.close_code
            await bobs.ping()
        assert [401, 401] == [(await ask(server, "channels/c", of_ann(5)))[0] for server in (one, two)]
        assert [200, 200] == [(await ask(server, "channels/c", of_ann()))[0] for server in (one, two)]
    async with nodes(url, 1) as (three,):
        await until(lambda: three.app.bulletin is not None and "ann" in three.app.bulletin.revoked)
        assert 401 == (await ask(three, "channels/c", of_ann(60)))[0]


async def test_tickets_count_as_messages() -> None:
    """A connection and a user have as many tickets and messages together as their limit of messages."""
    for limits in (Limits(publishes_per_second=1), Limits(user_publishes_per_second=1)):
        server = Server(Settings(port=0, broker="memory://", auth=AUTH, limits=limits))
        await server.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            one = f"POST /v1/ticket HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {of_ann()}\r\n"
            writer.write(f"{one}Content-Length: 0\r\n\r\n".encode() * 4)
            writer.write(f"{one}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(SECONDS):
                answers = await reader.read()
            writer.close()
            assert 5 == answers.count(b"HTTP/1.1 201") + answers.count(b"HTTP/1.1 429"), answers
            assert 0 < answers.count(b"HTTP/1.1 429"), answers
        finally:
            await server.stop(0)
