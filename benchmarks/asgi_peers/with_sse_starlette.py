"""sse-starlette: `EventSourceResponse` over a queue for each listener, in FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import FastAPI
from sse_starlette import EventSourceResponse, ServerSentEvent

from .publisher import PublishBeside
from .queues import Queues

PING_SECONDS = 3600

queues = Queues()
routes = FastAPI()


@routes.get("/events")
async def events() -> EventSourceResponse:
    """Stream the messages."""

    async def made() -> AsyncIterator[ServerSentEvent]:
        async for number, text in queues.listen():
            yield ServerSentEvent(data=text, id=number)

    return EventSourceResponse(made(), ping=PING_SECONDS)


app = PublishBeside(routes, queues.publish, queues.__len__)
