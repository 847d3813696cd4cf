"""The applications of the pages about coming from another library, as processes, and what listens and publishes there.

Invariant: an ear has its listener's task, and ends it. What it hears is the texts, in the order they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import socketio
import websockets

import oncecast
from tests.asgi.conftest import SECONDS
from tests.docs_rig import ROOT, blocks

__all__ = ["PEERS", "Ear", "Peer", "serving", "write_apps"]

UVICORN = ("uvicorn", "{app}:app", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
FLASK = ("flask", "--app", "{app}", "run", "--port", "{port}")
AGAIN_SECONDS = 0.1  # between two attempts of a stream; and the part of its longest pause that our client waits
TOKEN = "token-of-ann"

Ear = asyncio.Queue[str]
Listen = Callable[[str], AbstractAsyncContextManager[Ear]]
Say = Callable[[str, str], Awaitable[None]]  # the URL, the text


@dataclass(frozen=True, slots=True)
class Peer:
    """A library, and how its application and ours are spoken to. `field` of the data on `channel` has the text."""

    name: str
    channel: str
    field: str
    listen_before: Listen
    listen_after: Listen
    say_before: tuple[Say, ...]
    say_after: tuple[Say, ...]
    command: tuple[str, ...] = UVICORN
    needs_redis: bool = False


def write_apps(peer: Peer, place: Path) -> None:
    """Write the two applications of a page."""
    for block in blocks(ROOT / "docs" / "how-to" / f"from-{peer.name}.md"):
        if block.mark.startswith("file "):
            (place / block.mark.removeprefix("file ")).write_text(block.text, "utf-8")


@contextlib.asynccontextmanager
async def serving(
    command: tuple[str, ...], app: str, place: Path, port: int, *options: str, **environ: str
) -> AsyncIterator[str]:
    """Run a server until it answers, and kill it at the end."""
    words = [word.format(app=app, port=port) for word in command]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words, *options), cwd=place, env=os.environ | environ, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(timeout=SECONDS) as http, asyncio.timeout(SECONDS):
            while True:
                assert process.returncode is None, "the server has ended"
                with contextlib.suppress(httpx.TransportError):
                    await http.get(url)
                    break
                await asyncio.sleep(0.05)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def owned(task: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run what listens beside the test. Its failure is the test's."""
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(task)
        try:
            yield
        finally:
            listening.cancel()


# Server-Sent Events ----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def source(url: str, *, path: str, field: str, answers_at_once: bool = True) -> AsyncIterator[Ear]:
    """Listen as an `EventSource` does: after a loss it connects again, and sends the last id that it was given."""
    ear: Ear = asyncio.Queue()
    opened = asyncio.Event()

    async def listen() -> None:
        seen: dict[str, str] = {}
        async with httpx.AsyncClient(timeout=None) as http:  # the test has the deadline
            while True:
                with contextlib.suppress(httpx.TransportError):
                    async with httpx_sse.aconnect_sse(http, "GET", url + path, headers=seen) as events:
                        opened.set()
                        async for event in events.aiter_sse():
                            if event.id:
                                seen["Last-Event-ID"] = event.id
                            if event.data:
                                ear.put_nowait(json.loads(event.data)[field])
                await asyncio.sleep(AGAIN_SECONDS)

    async with owned(listen()):
        if answers_at_once:
            await opened.wait()
        yield ear


async def post(url: str, text: str, *, path: str, field: str) -> None:
    """Publish by a route."""
    async with httpx.AsyncClient(timeout=SECONDS) as http:
        (await http.post(url + path, params={field: text})).raise_for_status()


# Sockets ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def in_room(url: str) -> AsyncIterator[Ear]:
    """Join a room by the client of python-socketio."""
    ear: Ear = asyncio.Queue()
    async with socketio_client(url) as client:
        for event in ("chat", "notice"):
            client.on(event, lambda data: ear.put_nowait(data["text"]))
        assert "joined" == await client.call("join", "7")
        yield ear


async def chat(url: str, text: str) -> None:
    """Say something in the room."""
    async with socketio_client(url) as client:
        assert "sent" == await client.call("chat", {"room": "7", "text": text})


@contextlib.asynccontextmanager
async def socketio_client(url: str) -> AsyncIterator[Any]:
    """Connect, with a token."""
    client = socketio.AsyncClient()
    await client.connect(url, auth={"token": TOKEN}, wait_timeout=SECONDS)
    try:
        yield client
    finally:
        await client.disconnect()


@contextlib.asynccontextmanager
async def in_group(url: str) -> AsyncIterator[Ear]:
    """Listen on a WebSocket of the consumer."""
    ear: Ear = asyncio.Queue()

    async def listen(socket: websockets.ClientConnection) -> None:
        async for message in socket:
            ear.put_nowait(json.loads(message)["text"])

    async with websockets.connect(socket_url(url)) as socket, owned(listen(socket)):
        yield ear


async def send(url: str, text: str) -> None:
    """Say something in the group; it comes back once it was sent to all."""
    async with websockets.connect(socket_url(url)) as socket:
        await socket.send(json.dumps({"text": text}))
        assert {"text": text} == json.loads(await socket.recv())


def socket_url(url: str) -> str:
    """Where the consumer is."""
    return url.replace("http:", "ws:") + "/ws/chat/7"


# Clients of our own ----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def subscribed(url: str) -> AsyncIterator[Ear]:
    """Listen by the client."""
    ear: Ear = asyncio.Queue()
    async with oncecast_client(url) as client, client.subscribe("chat.7", on_gap="raise") as messages:

        async def listen() -> None:
            async for message in messages:
                ear.put_nowait(message.data["text"])

        async with owned(listen()):
            yield ear


async def publish(url: str, text: str) -> None:
    """Publish by the client."""
    async with oncecast_client(url) as client:
        await client.publish("chat.7", {"text": text})


def oncecast_client(url: str) -> oncecast.AsyncClient:
    """Connect, with the token that one page wants and the other has no use for. It tries again soon."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return oncecast.AsyncClient(f"{url}/rt", headers=headers, rng=lambda: AGAIN_SECONDS)


# The table -------------------------------------------------------------------------------------------------------

order = partial(post, path="/orders", field="item")
notice = partial(post, path="/rooms/7/notices", field="text")
stream = partial(source, path="/orders/stream", field="item")
flask_before = partial(source, path="/stream?channel=orders", field="item", answers_at_once=False)
flask_after = partial(source, path="/rt/v1/channels/orders", field="item")

PEERS = [
    Peer("python-socketio", "chat.7", "text", in_room, subscribed, (chat, notice), (publish, notice)),
    Peer("channels", "chat.7", "text", in_group, subscribed, (send, notice), (publish, notice), needs_redis=True),
    Peer("sse-starlette", "orders", "item", stream, stream, (order,), (order,)),
    Peer("flask-sse", "orders", "item", flask_before, flask_after, (order,), (order,), FLASK, needs_redis=True),
    Peer("fastapi-sse", "orders", "item", stream, stream, (order,), (order,)),
]
