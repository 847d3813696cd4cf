"""The arena: who is where, and the rules. It knows nothing of a network or of a clock: it is told to `step`."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta, convert

__all__ = ["TICK", "World"]

TICK = 0.05  # seconds of a step: 20 a second
WIDTH, HEIGHT = 16.0, 9.0
EDGE = 0.5  # nobody and nothing is nearer to it
SPEED = 6.0  # lengths a second
REACH = 0.6  # a dot that is nearer is taken
PLAYERS = 16
NAME_CHARS = 16
DOTS = 12
Part = Annotated[float, Meta(ge=-1, le=1)]
IDLE_SECONDS = 10.0  # a page steers every second at least; who does not has left


@dataclass
class Player:
    """`token` is the player's secret, `id` is for everybody."""

    id: str
    name: str
    token: str
    x: float
    y: float
    to: tuple[float, float] = (0.0, 0.0)
    score: int = 0
    idle: float = 0.0


@dataclass
class World:
    """At most `PLAYERS` players, and always `DOTS` dots."""

    players: dict[str, Player] = field(default_factory=dict)
    dots: list[tuple[float, float]] = field(default_factory=lambda: [anywhere() for _ in range(DOTS)])
    tick: int = 0

    def player_of(self, token: str | None) -> Player | None:
        """Return the player whose secret this is."""
        return next((player for player in self.players.values() if player.token == token), None)

    def join(self, name: str) -> Player | None:
        """Return a new player, or None where the arena is full."""
        if len(self.players) >= PLAYERS:
            return None
        player = Player(
            secrets.token_hex(4), name.strip()[:NAME_CHARS] or "Somebody", secrets.token_urlsafe(), *anywhere()
        )
        self.players[player.id] = player
        return player

    def steer(self, player: str, direction: object) -> None:
        """Have a player go in a direction, [x, y]. Raises ValueError for what is none, or has no player."""
        found = self.players.get(player)
        if found is None:
            raise ValueError("You were away for too long: join again.")
        found.to = convert(direction, tuple[Part, Part])
        found.idle = 0.0

    def step(self) -> None:
        """Move everybody, hand out the dots, and remove those who have left."""
        self.tick += 1
        for player in list(self.players.values()):
            far = SPEED * TICK / max(1.0, math.hypot(*player.to))  # diagonally no faster than straight on
            player.x = min(WIDTH - EDGE, max(EDGE, player.x + player.to[0] * far))
            player.y = min(HEIGHT - EDGE, max(EDGE, player.y + player.to[1] * far))
            for index, dot in enumerate(self.dots):
                if math.dist(dot, (player.x, player.y)) < REACH:
                    player.score += 1
                    self.dots[index] = anywhere()
            player.idle += TICK
            if player.idle > IDLE_SECONDS:
                del self.players[player.id]

    def state(self) -> dict[str, object]:
        """Return what everybody is told, about 1 KiB."""
        players = [[p.id, p.name, round(p.x, 2), round(p.y, 2), p.score] for p in self.players.values()]
        return {"tick": self.tick, "players": players, "dots": self.dots}


def anywhere() -> tuple[float, float]:
    """Return a place, in hundredths of a length."""
    x, y = (EDGE + secrets.randbelow(round(100 * (size - 2 * EDGE))) / 100 for size in (WIDTH, HEIGHT))
    return round(x, 2), round(y, 2)
