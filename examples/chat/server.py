"""A chat: rooms with their history, names, and who is typing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from oncecast import Caller, Grant, Oncecast, Publication, Refused

HERE = Path(__file__).parent
ROOMS = ("lobby", "kitchen", "workshop")
CHANNELS = [f"{kind}.{room}" for kind in ("room", "typing") for room in ROOMS]
NAME_CHARS = 24
TEXT_CHARS = 500

cast = Oncecast(settings=HERE / "oncecast.toml")  # how much of a room is kept


@cast.authorize
async def identify(caller: Caller) -> Grant:
    """Let everybody into the rooms, and nowhere else: an application would look at its session here."""
    return Grant(subscribe=CHANNELS, publish=CHANNELS)


@cast.on_publish("room.*")
async def check_message(publication: Publication) -> None:
    """Keep what a message is: a name and a text, both short. The page shows what it gets."""
    publication.data = {
        "name": text_of(publication.data, "name", NAME_CHARS),
        "text": text_of(publication.data, "text", TEXT_CHARS),
    }


@cast.on_publish("typing.*")
async def check_typing(publication: Publication) -> None:
    """Somebody is typing: only the name counts."""
    publication.data = {"name": text_of(publication.data, "name", NAME_CHARS)}


def text_of(data: Any, field: str, most: int) -> str:
    """Return a text of what a page has published. A refusal is shown to its user."""
    text = data.get(field) if isinstance(data, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise Refused(f"Give a {field}.")
    if len(text) > most:
        raise Refused(f"The {field} may have {most} characters.")
    return text.strip()


async def rooms(_request: Any) -> JSONResponse:
    """The rooms, for the page."""
    return JSONResponse(ROOMS)


app = Starlette(
    routes=[
        Route("/rooms", rooms),
        Mount("/rt", cast),
        Mount("/shared", StaticFiles(directory=HERE.parent / "shared")),
        Mount("/", StaticFiles(directory=HERE / "page", html=True)),
    ],
    lifespan=cast.lifespan,
)
