"""An answer written word by word, which survives a reload, a second device and a lost network."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from oncecast import Caller, Grant, Oncecast

from .words import answer

HERE = Path(__file__).parent
QUESTION_CHARS = 200
AT_ONCE = 20  # answers that are being written
LONGEST_SECONDS = 120  # for one of them

cast = Oncecast(settings=HERE / "oncecast.toml")  # how long an answer is kept
writing: set[asyncio.Task[None]] = set()


@cast.authorize
async def identify(caller: Caller) -> Grant:
    """Let everybody read an answer whose channel they know. Nobody guesses one, and only this server writes."""
    return Grant(subscribe=["answer.*"], publish=[])


async def write(channel: str, question: str) -> None:
    """Publish each word as it comes, and an event at the end. It goes on whether anybody reads or not."""
    event = "failed"
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            async for word in answer(question):
                await cast.publish(channel, word)
        event = "done"
    finally:
        await cast.publish(channel, "", event=event)


async def ask(request: Request) -> JSONResponse:
    """Begin the answer to `?question=…`, and return its channel at once."""
    question = request.query_params.get("question", "").strip()
    if not 0 < len(question) <= QUESTION_CHARS:
        return JSONResponse({"error": f"Ask something of at most {QUESTION_CHARS} characters."}, 400)
    if len(writing) >= AT_ONCE:
        return JSONResponse({"error": "Many answers are being written. Ask again in a minute."}, 503)
    channel = f"answer.{secrets.token_hex(16)}"
    task = asyncio.create_task(write(channel, question))
    writing.add(task)
    task.add_done_callback(writing.discard)
    return JSONResponse({"channel": channel})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """End what is being written with the application."""
    async with cast.lifespan(app):
        yield
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)


routes = [
    Route("/ask", ask, methods=["POST"]),
    Mount("/rt", cast),
    Mount("/shared", StaticFiles(directory=HERE.parent / "shared")),
    Mount("/", StaticFiles(directory=HERE / "page", html=True)),
]
app = Starlette(routes=routes, lifespan=lifespan)
