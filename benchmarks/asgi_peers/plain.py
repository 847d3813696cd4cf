"""An application that does as little as one can, so that what is around it is most of a request's cost."""

from __future__ import annotations

from typing import Any

__all__ = ["app"]

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer each request alike."""
    if scope["type"] != "http":
        raise ValueError(scope["type"])  # no lifespan, and no sockets
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello"})
