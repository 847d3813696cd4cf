"""The prober: what it leads to, and that nothing ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from oncecast import Moved, Timing
from oncecast.client import prober as module
from oncecast.client.base import Transport
from oncecast.client.ladder import Ladder
from oncecast.client.prober import Prober

TIMING = Timing(probe=0.08)
Probe = Callable[[Sequence[str], Callable[[str], Transport], str, Timing], object]


def make(moves: list[Moved], channel: str | None = "c") -> tuple[Ladder, Prober]:
    """A prober of a ladder that stands on its last step."""
    ladder = Ladder(("a", "b", "c"), proof=1.0, on_move=moves.append, start="c")

    def transport(name: str) -> Transport:
        raise AssertionError(name)

    return ladder, Prober(ladder, TIMING, make=transport, channel=lambda: channel)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str | Exception | None]:
    """What the next probes find, one after another."""
    found: list[str | Exception | None] = []

    async def best(names: Sequence[str], *args: object) -> str | None:
        result = found.pop(0) if found else None
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(module, "best_proven", best)
    return found


async def test_it_leads_up(probes: list[str | Exception | None]) -> None:
    """Step by step, as far as the probes get through; what is no step up any more is passed over."""
    moves: list[Moved] = []
    ladder, prober = make(moves)
    probes += [None, "b", "c", "a"]
    prober.start()
    prober.start()
    async with asyncio.timeout(60):
        while ladder.current != "a":  # noqa: ASYNC110 - it is about what no event tells
            await asyncio.sleep(0.01)
    assert ["b", "a"] == [move.after for move in moves]
    await prober.close()
    assert not prober.running


async def test_a_probe_that_fails_ends_nothing(
    probes: list[str | Exception | None], caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged, and the next probe runs."""
    moves: list[Moved] = []
    ladder, prober = make(moves)
    probes += [ZeroDivisionError("oh"), "a"]
    prober.start()
    async with asyncio.timeout(60):
        while ladder.current != "a":  # noqa: ASYNC110 - it is about what no event tells
            await asyncio.sleep(0.01)
    await prober.close()
    assert ["a probe has failed, which is a defect of the client"] == caplog.messages


async def test_a_task_that_was_ended_is_started_again(probes: list[str | Exception | None]) -> None:
    """Whatever ended it, as where all tasks of a loop are cancelled."""
    _, prober = make([])
    prober.start()
    assert prober._task is not None
    prober._task.cancel()
    await asyncio.wait({prober._task})
    states = [prober.running]
    prober.start()
    states.append(prober.running)
    assert [False, True] == states
    await prober.close()


async def test_without_a_channel_nothing_is_probed(probes: list[str | Exception | None]) -> None:
    """A probe needs something to listen to."""
    _, prober = make([], channel=None)
    probes.append("a")
    assert not await prober._probe(["a"])
    assert ["a"] == probes
    await prober.close()


async def test_a_new_choice_is_given_a_moment(probes: list[str | Exception | None]) -> None:
    """After a move the pause begins again."""
    ladder, prober = make([])
    prober.start()
    prober.moved()
    await asyncio.sleep(0.001)
    assert not prober._stepped.is_set()
    assert "c" == ladder.current
    await prober.close()
