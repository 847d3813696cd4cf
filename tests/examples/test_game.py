"""The game: the server moves the players, and all pages see the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from examples.game.world import EDGE, IDLE_SECONDS, PLAYERS, SPEED, TICK, WIDTH, World
from tests.examples.conftest import LIVE

if TYPE_CHECKING:
    from tests.examples.conftest import Demonstrating, Meeting
    from tests.web.conftest import Visit

# What the page draws: the module is the one that runs.
STATE = "async () => (await import('./main.js')).arena.last"
AHEAD = "async (tick) => (await import('./main.js')).arena.last.tick > tick"
MOVED = """async ([name, x]) => {
  const { arena } = await import("./main.js");
  return Math.abs(arena.last.players.find((player) => player[1] === name)[2] - x) > 1;
}"""


async def join(visit: Visit, name: str) -> None:
    """Join, and wait until the page is a player."""
    await visit.page.fill("[name=name]", name)
    await visit.page.click("#join button")
    await visit.until("(name) => document.getElementById('players').textContent.includes(`${name} (you)`)", name)


async def place_of(visit: Visit, name: str) -> float:
    """Return how far to the right a page shows a player."""
    (x,) = [player[2] for player in (await visit.page.evaluate(STATE))["players"] if player[1] == name]
    return float(x)


@pytest.mark.asyncio(loop_scope="session")
async def test_what_one_player_steers_the_other_sees_also_after_a_cut(demo: Demonstrating, meet: Meeting) -> None:
    """A key moves the player in both pages; a page that was cut comes back as the same player, where the others are."""
    server = await demo("game")
    ann, ben = await meet(server.url), await meet(server.url)
    ann.expect_problems("WebSocket is closed before")
    await join(ann, "Ann")
    await join(ben, "Ben")
    x = await place_of(ann, "Ann")
    await ann.page.keyboard.down("ArrowRight" if x < WIDTH / 2 else "ArrowLeft")
    for page in (ann, ben):
        await page.until(MOVED, ["Ann", x])
    await ann.page.context.set_offline(True)
    await ann.until("() => document.getElementById('state').dataset.state !== 'live'")
    before = (await ann.page.evaluate(STATE))["tick"]
    await ben.until(AHEAD, before + 5)
    assert before == (await ann.page.evaluate(STATE))["tick"]
    await ann.page.context.set_offline(False)
    await ann.until(LIVE)
    await ann.until(AHEAD, before + 5)
    assert ["Ann", "Ben"] == sorted(player[1] for player in (await ann.page.evaluate(STATE))["players"])
    x = await place_of(ben, "Ben")
    await ben.page.keyboard.down("ArrowRight" if x < WIDTH / 2 else "ArrowLeft")
    await ann.until(MOVED, ["Ben", x])


def test_a_step_moves_a_player_no_faster_diagonally_and_not_beyond_the_edge() -> None:
    """The length of a direction counts up to one."""
    world = World(dots=[])
    player = world.join(" Ann ")
    assert player is not None
    player.x = player.y = EDGE
    world.steer(player.id, [1, 1])
    world.step()
    assert SPEED * TICK == pytest.approx(math.hypot(player.x - EDGE, player.y - EDGE))
    world.steer(player.id, [-1, -1])
    for _ in range(10):
        world.step()
    assert (EDGE, EDGE) == (player.x, player.y)


def test_who_says_nothing_has_left_and_a_full_arena_takes_nobody() -> None:
    """The number of players is bounded, and a place becomes free."""
    world = World()
    joined = [world.join(str(number)) for number in range(PLAYERS)]
    assert None not in joined
    assert world.join("late") is None
    for _ in range(round(IDLE_SECONDS / TICK) + 1):
        world.step()
    assert {} == world.players
    assert world.join("late") is not None


@pytest.mark.parametrize("direction", [[2, 0], ["1", 0], [0], None, {"x": 1}, [float("nan"), 0]])
def test_a_direction_that_is_none_is_refused(direction: object) -> None:
    """Only two numbers from -1 to 1 steer."""
    world = World()
    player = world.join("Ann")
    assert player is not None
    with pytest.raises(ValueError, match=r"Expected|Invalid"):
        world.steer(player.id, direction)
    assert (0.0, 0.0) == player.to


def test_a_dot_that_is_reached_counts_once() -> None:
    """The dot is somewhere else then."""
    world = World(dots=[(5.0, 5.0)])
    player = world.join("Ann")
    assert player is not None
    player.x, player.y = 5.0, 5.1
    world.step()
    assert 1 == player.score
    assert [(5.0, 5.0)] != world.dots
