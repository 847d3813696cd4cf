"""A news feed: older items from the log, new ones by EventSource, over a restart of the server too.

The log is a file, with a channel for each category. A page reads the older items from it, and an EventSource goes on
from there; after a cut or a restart of this server it goes on after the last item that it has.
"""

import asyncio
import contextlib
import os
import random
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from oncecast import Oncecast, Publication, Refused

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("NEWS_SECONDS", "8"))  # between two items; 0 for none
ARCHIVE = 60  # items that a new log begins with
# Any source of text would do; this one puts a sentence together from parts: what, does what, to what, and when.
PARTS: dict[str, list[list[str]]] = tomllib.loads((HERE / "parts.toml").read_text("utf-8"))

cast = Oncecast(settings=HERE / "oncecast.toml")


def write(dice: random.Random) -> tuple[str, dict[str, str]]:
    """Return the channel and the data of an item."""
    category = dice.choice(list(PARTS))
    return f"news.{category}", {"title": " ".join(dice.choice(part) for part in PARTS[category])}


@cast.on_publish("news.*")
async def check(publication: Publication) -> None:
    """Refuse what a page publishes unless it is an item of a category, and keep of it what the feed shows."""
    title = publication.data.get("title") if isinstance(publication.data, dict) else None
    if publication.channel.removeprefix("news.") not in PARTS:
        raise Refused(f"There is no such category. Publish to one of: {', '.join(PARTS)}.")
    if not isinstance(title, str) or not 1 <= len(title.strip()) <= 140:
        raise Refused("Give the item a title of 1 to 140 characters.")
    publication.data = {"title": title.strip(), "by": "a reader"}


async def report() -> None:
    """Fill a new log, then publish an item every few seconds."""
    for n in range(ARCHIVE):
        channel, item = write(random.Random(n))
        await cast.publish(channel, item, key=f"archive-{n}")  # with a key: once, in however many starts
    while SECONDS:
        await asyncio.sleep(SECONDS)
        await cast.publish(*write(random.Random()))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Report for as long as the application lives."""
    async with cast, asyncio.TaskGroup() as tasks:
        reporting = tasks.create_task(report())
        yield
        reporting.cancel()


shared, page = StaticFiles(directory=HERE.parent / "shared"), StaticFiles(directory=HERE / "page", html=True)
app = Starlette(routes=[Mount("/rt", cast), Mount("/shared", shared), Mount("/", page)], lifespan=lifespan)
