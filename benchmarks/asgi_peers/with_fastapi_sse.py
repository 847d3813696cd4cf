"""`fastapi.sse`: a route that yields events, over a queue for each listener."""

from __future__ import annotations

from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

from .publisher import PublishBeside
from .queues import Queues

queues = Queues()
routes = FastAPI()


@routes.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterable[ServerSentEvent]:
    """Stream the messages."""
    async for number, text in queues.listen():
        yield ServerSentEvent(raw_data=text, id=number)


app = PublishBeside(routes, queues.publish, queues.__len__)
