"""Live scores of several matches: the present score on joining, then each event.

Each match has a channel, the clock has one, and one says which matches are played.
Each event of a match carries the score after it. So the last message of a channel is the present state of its match,
and the whole channel is its story: a page needs no other source, and no request to catch up.
"""

import asyncio
import contextlib
import itertools
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from oncecast import Oncecast

HERE = Path(__file__).parent
MINUTE = float(os.environ.get("SCORES_MINUTE", "1"))  # seconds that a minute of play takes
TEAMS = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Linden", "Maple", "Rowan")
EVENTS = {"goal": 0.032, "yellow card": 0.035, "red card": 0.002, "corner": 0.08}  # chance in a minute of a match
PAUSES = {0: "kick-off", 45: "half-time", 90: "full-time"}  # what comes at this minute, with a pause

cast = Oncecast(subscribe="public")  # clients listen; only this process publishes
dice = random.Random()


class Match:
    """A match in play. Its channel has a name of its own, so that the story of another day is not in it."""

    def __init__(self, home: str, away: str) -> None:
        self.teams, self.score = (home, away), [0, 0]
        self.channel = f"match.{dice.getrandbits(64):x}"

    async def tell(self, minute: int, kind: str, team: int | None = None) -> None:
        """Publish what happened, with the score after it. `team` is 0 for home, 1 for away."""
        if kind == "goal" and team is not None:
            self.score[team] += 1
        shirt = None if team is None else dice.randint(1, 11)
        event = {"minute": minute, "kind": kind, "team": team, "shirt": shirt, "score": self.score}
        await cast.publish(self.channel, event)


async def play_day(day: int, matches: list[Match]) -> None:
    """Play 90 minutes of all matches at once."""
    await cast.publish("matches", {"day": day, "matches": [vars(match) for match in matches]})
    for minute in range(91):
        await cast.publish("clock", {"minute": minute, "pause": PAUSES.get(minute)})
        for match in matches:
            for kind in (kind for kind, chance in EVENTS.items() if minute and dice.random() < chance):
                await match.tell(minute, kind, dice.randint(0, 1))
            if minute in PAUSES:
                await match.tell(minute, PAUSES[minute])
        await asyncio.sleep(MINUTE * (5 if minute in PAUSES else 1))


async def play() -> None:
    """Play for ever: each team meets each other in turn, as one stays in its place and the others go round."""
    order = list(TEAMS)
    for day in itertools.count(1):
        await play_day(day, [Match(*pair) for pair in zip(order[:4], reversed(order[4:]), strict=True)])
        order = [order[0], order[-1], *order[1:-1]]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Play for as long as the application lives."""
    async with cast, asyncio.TaskGroup() as tasks:
        season = tasks.create_task(play())
        yield
        season.cancel()


shared, page = StaticFiles(directory=HERE.parent / "shared"), StaticFiles(directory=HERE / "page", html=True)
app = Starlette(routes=[Mount("/rt", cast), Mount("/shared", shared), Mount("/", page)], lifespan=lifespan)
