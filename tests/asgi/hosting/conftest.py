"""An application beside a server in this process, as `oncecast serve --app` has it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from oncecast.asgi.embedding import Embedding
from oncecast.asgi.hosting import guest
from oncecast.asgi.hosting.guest import AppGuest
from oncecast.server.settings import Settings
from tests.server.conftest import Answer, Open, Peer, Site, open_site
from tests.server.tls.conftest import Dial, dial

__all__ = ["Beside", "Dial", "OwnApp", "ask", "beside", "dial", "open_site"]

SECONDS = 60.0


class OwnApp:
    """An application of ASGI. It says what it was asked, and notes its life in `life`."""

    def __init__(self, cast: Embedding | None = None) -> None:
        self.cast = cast
        self.life: list[str] = []
        self.bodies: list[bytes] = []
        self.go = asyncio.Event()  # the answer of /late, and the reading of /slow
        self.asked = asyncio.Event()  # for it

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._echo(receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            self.life.append(event["type"])
            if self.cast is not None:
                await self.cast.publish("life", event["type"])  # type: ignore[attr-defined]
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return

    async def _echo(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await self.go.wait()
        if scope["path"] == "/early":
            pass
        else:
            body = b""
            while True:
                event = await receive()
                body += event.get("body", b"")
                if not event.get("more_body"):
                    break
            self.bodies.append(body)
        if scope["path"] == "/late":
            self.asked.set()
            await self.go.wait()
        text = f"app {scope['method']} {scope['path']} {scope['client'][0]} {scope['scheme']}".encode()
        length = (b"content-length", b"%d" % len(text))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": text})


Beside = Callable[..., Awaitable[Site]]


@pytest.fixture
def beside(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> Beside:
    """Start a server with an application, and the `Oncecast` that it has."""

    async def start(app: OwnApp, settings: Settings | None = None, *, tls: ssl.SSLContext | None = None) -> Site:
        monkeypatch.setattr(guest, "load_application", lambda target: app)
        monkeypatch.setattr(guest, "find_cast", lambda: app.cast)
        return await open_site(settings or Settings(port=0, app="own:app"), tls=tls, guest=AppGuest("own:app"))

    return start


async def ask(peer: Peer, path: str, *lines: str, method: str = "GET", body: bytes = b"") -> Answer:
    """Send a request on a connection, and return its answer."""
    fields = ["Host: localhost", *lines, *([f"Content-Length: {len(body)}"] if body else [])]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode()
    async with asyncio.timeout(SECONDS):
        await peer.send(head + body)
        return await peer.answer()
