"""Each framework and each server with real clients: everybody hears everything, and open streams hold no server up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import oncecast
from oncecast.client.values import ClientMessage
from tests.asgi.conftest import SECONDS, free_port, serving
from tests.brokers.servers import Servers

TRANSPORTS = ("websocket", "sse", "long-poll")
PAIRS = [
    ("uvicorn", "fastapi_app", ()),
    ("hypercorn", "fastapi_app", ()),
    ("granian", "fastapi_app", ()),
    ("uvicorn", "starlette_app", ()),
    ("uvicorn", "litestar_app", ()),
    ("uvicorn", "quart_app", ()),
    ("uvicorn", "django_app", ()),
    ("uvicorn", "starlette_app", ("--workers", "2")),
]


async def heard(messages: AsyncIterator[ClientMessage], count: int) -> list[object]:
    """Return the data of the next messages."""
    async with asyncio.timeout(SECONDS):
        return [(await anext(messages)).data for _ in range(count)]


async def events(lines: AsyncIterator[str], count: int) -> list[str]:
    """Return the data of the next events of a stream."""
    found: list[str] = []
    async with asyncio.timeout(SECONDS):
        while len(found) < count:
            line = await anext(lines)
            if line.startswith("data: "):
                found.append(line.removeprefix("data: "))
    return found


@pytest.mark.parametrize(
    "server, app, options", PAIRS, ids=["-".join((server, app[:-4], *options)) for server, app, options in PAIRS]
)
async def test_everybody_hears_everything(server: str, app: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """Each transport and a route's stream get what a route and a client publish; the server ends at SIGTERM."""
    await hear_everything(server, app, f"sqlite:///{tmp_path}/app.db", *options)


async def test_workers_share_a_redis(servers: Servers) -> None:
    """Several workers on one Redis get each other's messages."""
    await hear_everything("uvicorn", "starlette_app", servers.new_log("redis"), "--workers", "2")


async def hear_everything(server: str, app: str, broker: str, *options: str) -> None:
    """Check one server with one application."""
    async with serving(server, app, broker, *options) as served, httpx.AsyncClient(timeout=SECONDS) as http:
        clients = [oncecast.AsyncClient(served.realtime, transports=(name,)) for name in TRANSPORTS]
        subscriptions = [client.subscribe("orders") for client in clients]
        for subscription in subscriptions:
            await subscription.__aenter__()
        async with http.stream("GET", f"{served.url}/orders") as stream:
            assert 200 == stream.status_code
            assert "text/event-stream" == stream.headers["content-type"].partition(";")[0]
            lines = stream.aiter_lines()
            first = (await http.post(f"{served.url}/publish")).json()["id"]
            ack = await clients[0].publish("orders", "from a client", key="k")
            for subscription in subscriptions:
                found = await heard(subscription, 2)
                assert [True, "from a client"] == ["from" in found[0], found[1]]  # type: ignore[operator]
            assert "from a client" == (await events(lines, 2))[1]
            assert first < ack.id
            resumed = {"Last-Event-ID": first}
            async with http.stream("GET", f"{served.url}/orders", headers=resumed) as again:
                assert ["from a client"] == await events(again.aiter_lines(), 1)
            await served.terminate()
        for subscription, client in zip(subscriptions, clients, strict=True):
            await subscription.close()
            await client.close()


async def test_clients_resume_at_the_next_process(tmp_path: Path) -> None:
    """A client that a stopping process sends away misses no message of the next process."""
    broker, port = f"sqlite:///{tmp_path}/app.db", free_port()
    async with oncecast.AsyncClient(f"http://127.0.0.1:{port}/rt") as client:
        async with serving("uvicorn", "starlette_app", broker, port=port) as served:
            messages = client.subscribe("orders", on_gap="raise")
            async with asyncio.timeout(SECONDS):
                await messages.__aenter__()
            await client.publish("orders", 1)
            assert [1] == await heard(messages, 1)
            await served.terminate()
        async with serving("uvicorn", "starlette_app", broker, port=port):
            await client.publish("orders", 2)
            assert [2] == await heard(messages, 1)
            await messages.close()
