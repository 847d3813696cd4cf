"""Probes: what proves a transport, and which of several is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import pytest

from oncecast import Broken, Refused, Timing
from oncecast.client.base import CursorMoved, StartQuery, Transport, TransportEvent
from oncecast.client.probe import best_proven, proves

TIMING = Timing(attach=0.02, proof=0.05)
MOVED = CursorMoved("e-1")
HOLD = None  # for ever


class Scripted:
    """A transport that yields events, ends with an exception, or holds."""

    def __init__(self, *steps: TransportEvent | Exception | None) -> None:
        self.steps = steps

    async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Play the steps."""
        assert {"c": StartQuery("after", "latest")} == dict(starts)
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            if step is None:
                await asyncio.Event().wait()
            else:
                yield step


@pytest.mark.parametrize(
    "steps, expected",
    [
        ((MOVED, MOVED, HOLD), True),
        ((HOLD,), False),
        ((MOVED, Broken("cut")), False),
        ((Refused("no"),), False),
    ],
)
async def test_proves(steps: tuple[TransportEvent | Exception | None, ...], expected: bool) -> None:
    """A probe succeeds if its transport attaches in time and lives for long enough."""
    assert expected is await proves(Scripted(*steps), "c", TIMING)


@pytest.mark.parametrize("works, expected", [(("a", "b"), "a"), (("b",), "b"), ((), None)])
async def test_the_best_is_taken(works: tuple[str, ...], expected: str | None) -> None:
    """The best transport that works is chosen, and none if none works."""

    def make(name: str) -> Transport:
        return Scripted(MOVED, HOLD) if name in works else Scripted(Broken("no"))

    assert expected == await best_proven(("a", "b"), make, "c", TIMING)
