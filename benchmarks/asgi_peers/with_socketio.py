"""python-socketio as an ASGI application, with its WebSocket transport: an event to all who are connected."""

from __future__ import annotations

import msgspec
import socketio

from .publisher import PublishBeside

PING_SECONDS = 3600

connected: set[str] = set()
server = socketio.AsyncServer(async_mode="asgi", ping_interval=PING_SECONDS, cors_allowed_origins="*")


async def connect(sid: str, environ: object, auth: object = None) -> None:
    """Count a listener."""
    connected.add(sid)


async def disconnect(sid: str, reason: object = None) -> None:
    """Count it out."""
    connected.discard(sid)


server.on("connect", connect)
server.on("disconnect", disconnect)


async def publish(text: str) -> None:
    """Emit the event to all."""
    await server.emit("price", msgspec.json.decode(text))


app = PublishBeside(socketio.ASGIApp(server), publish, connected.__len__)
