"""Game: an arena for 16, in which the server moves everybody and the players only steer.

Up a page's WebSocket go directions, to the channel `input`. Down come 20 states a second, of the channel `arena`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from oncecast import Caller, Grant, Oncecast, Publication, Refused, Unavailable

from .world import TICK, World

HERE = Path(__file__).parent
world = World()
cast = Oncecast(settings=HERE / "oncecast.toml")


async def join(request: Request) -> Response:
    """Make a player, whose token says who steers."""
    if player := world.join((await request.body()).decode(errors="replace")):
        return JSONResponse({"id": player.id, "token": player.token})
    return PlainTextResponse("The arena is full. Watch, and try again when somebody has left.", 503)


@cast.authorize
async def identify(caller: Caller) -> Grant | None:
    """Return what a token is good for. Without one a caller may watch, as oncecast.toml says."""
    player = world.player_of(caller.token)
    if player is None and caller.token is not None:
        raise Refused("You were away for too long: join again.", code="unauthorized")
    return None if player is None else Grant(player.id, subscribe=["arena"], publish=["input"])


@cast.on_publish("input")
async def steer(publication: Publication) -> None:
    """Take [x, y], a direction. Whose it is says the token, and not the message."""
    try:
        world.steer(publication.subject or "", publication.data)
    except ValueError as error:
        raise Refused(str(error), code="data_invalid") from None


async def play() -> None:
    """Publish the next state every 50 ms while somebody plays. What the process is late with is not made up for."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + TICK, loop.time())
        await asyncio.sleep(due - loop.time())
        if world.players:
            world.step()
            with contextlib.suppress(Unavailable):  # the broker is away: the next state is as good
                await cast.publish("arena", world.state())


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Play while the application runs."""
    async with cast, asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(play())
        yield
        playing.cancel()


routes = [
    Route("/join", join, methods=["POST"], max_body_size=100),
    Mount("/rt", cast),
    Mount("/shared", StaticFiles(directory=HERE.parent / "shared")),
    Mount("/", StaticFiles(directory=HERE / "page", html=True)),
]
app = Starlette(routes=routes, lifespan=lifespan)
