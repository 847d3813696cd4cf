"""Tokens against the real server, on each transport: a wrong one, one that ends, and one that stays wrong."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from oncecast import AsyncClient, Refused
from oncecast.client.transports import TRANSPORTS
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Settings
from tests.token_rig import SECRET, token

SECONDS = 30.0
LIFE = 3.0  # of a short token: the warning comes in its last quarter


def lasting(seconds: float, **claims: object) -> str:
    """Return a token from now on."""
    now = time.time()
    return token({"sub": "ann", "iat": now, "exp": now + seconds, **claims})


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A server that takes tokens, and to which clocks are exact."""
    server = Server(Settings(port=0, auth=AuthSettings(secret=SECRET, leeway_seconds=0)))
    await server.start()
    yield server
    await server.stop(0)


def url(server: Server) -> str:
    """Return where it is."""
    return f"http://127.0.0.1:{server.port}"


each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))


@each_transport
async def test_a_wrong_token_is_replaced(server: Server, transport: str) -> None:
    """A refusal is answered with another token, once, for listening and for publishing."""
    tokens = itertools.chain([lasting(60, exp=time.time() - 1)], itertools.repeat(lasting(60)))
    async with AsyncClient(url(server), transports=[transport], get_token=lambda: next(tokens)) as client:
        messages = client.subscribe("c", after="earliest")
        async with asyncio.timeout(SECONDS):
            await client.publish("c", 1)
            assert 1 == (await anext(messages)).data


@each_transport
async def test_a_token_that_stays_wrong(server: Server, transport: str) -> None:
    """Two in a row are an error of the application, not a loop."""
    asked = itertools.count(1)

    def wrong() -> str:
        next(asked)
        return lasting(60, exp=time.time() - 1)

    async with AsyncClient(url(server), transports=[transport], get_token=wrong) as client:
        async with asyncio.timeout(SECONDS):
            with pytest.raises(Refused) as caught:
                await anext(client.subscribe("c"))
    assert "unauthorized" == caught.value.code
    assert 3 == next(asked)


@each_transport
@pytest.mark.slow
async def test_tokens_that_end_again_and_again(server: Server, transport: str) -> None:
    """Nothing is lost or repeated while the tokens of a listener end twice under a steady stream of messages."""
    given = []

    def fresh() -> str:
        given.append(lasting(LIFE))
        return given[-1]

    received: list[object] = []
    async with (
        AsyncClient(url(server), transports=[transport], get_token=fresh) as client,
        AsyncClient(url(server), get_token=lambda: lasting(60)) as writer,
        asyncio.timeout(2 * SECONDS),
    ):
        messages = client.subscribe("c", after="earliest")
        sent = 0
        while len(given) < 4:
            await writer.publish("c", sent)
            sent += 1
            received.append((await anext(messages)).data)
            await asyncio.sleep(0.05)  # messages are spread over the tokens' lives
    assert list(range(sent)) == received


@pytest.mark.slow
async def test_an_idle_socket_goes_on_with_its_next_token(server: Server) -> None:
    """At the warning the client sends an `auth` frame: the connection stays the same one."""
    given = []

    def fresh() -> str:
        given.append(lasting(LIFE))
        return given[-1]

    async with (
        AsyncClient(url(server), transports=["websocket"], get_token=fresh) as client,
        asyncio.timeout(2 * SECONDS),
    ):
        messages = client.subscribe("c")
        while len(given) < 3:  # noqa: ASYNC110 - given by another thread
            await asyncio.sleep(0.05)  # the tokens' lives pass
        async with AsyncClient(url(server), get_token=lambda: lasting(60)) as writer:
            await writer.publish("c", 1)
        assert 1 == (await anext(messages)).data
    assert 1 == server.app.counters.requests[101]


@pytest.mark.parametrize("transport", ["websocket", "sse"])
@pytest.mark.slow
async def test_a_service_that_is_away_at_the_warning(server: Server, transport: str) -> None:
    """The client listens until the token ends, and goes on where it stood once the service gives another."""
    given: list[str] = []
    asked = 0

    def sometimes() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise ConnectionError("the service is away")
        given.append(lasting(LIFE if asked == 1 else 60))
        return given[-1]

    async with (
        AsyncClient(url(server), transports=[transport], get_token=sometimes) as client,
        AsyncClient(url(server), get_token=lambda: lasting(60)) as writer,
        asyncio.timeout(2 * SECONDS),
    ):
        messages = client.subscribe("c", after="earliest")
        await writer.publish("c", 1)
        assert 1 == (await anext(messages)).data
        while len(given) < 2:  # noqa: ASYNC110 - given by another thread
            await asyncio.sleep(0.05)  # the token's life passes
        await writer.publish("c", 2)
        assert 2 == (await anext(messages)).data
