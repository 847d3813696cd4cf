"""A ticker: the prices of 3,000 symbols, ten times a second, on pages that never lag."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from oncecast import Oncecast, Unavailable

HERE = Path(__file__).parent
SYMBOLS = ["".join(letters) for letters in itertools.product("BCDFGHKLMNPRSTV", "AEIOU", "LMNRST", "AEIOUXY")][:3000]
INTERVAL = 0.1  # seconds between two messages
TRADED = 600  # symbols whose price changes in one of them

cast = Oncecast(settings=HERE / "oncecast.toml", subscribe="public")  # `lag = "latest"` is there


async def trade() -> None:
    """Publish the whole market again and again: the tick's number, then each price, as 32-bit floats.

    A message needs no other one, so a reader may skip all but the newest.
    """
    prices = array("f", (random.uniform(10, 500) for _ in SYMBOLS))
    for tick in itertools.count(1):
        for index in random.sample(range(len(prices)), TRADED):
            prices[index] *= random.gauss(1, 0.004)
        with contextlib.suppress(Unavailable):  # the next one has newer prices
            await cast.publish("prices", (array("f", [tick]) + prices).tobytes())
        await asyncio.sleep(INTERVAL)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Trade for as long as the application runs."""
    async with cast.lifespan(app), asyncio.TaskGroup() as tasks:
        trading = tasks.create_task(trade())
        yield
        trading.cancel()


async def symbols(_request: Request) -> JSONResponse:
    """The names, in the order of the prices."""
    return JSONResponse(SYMBOLS)


app = Starlette(
    routes=[
        Route("/symbols", symbols),
        Mount("/rt", cast),
        Mount("/shared", StaticFiles(directory=HERE.parent / "shared")),
        Mount("/", StaticFiles(directory=HERE / "page", html=True)),
    ],
    lifespan=lifespan,
)
