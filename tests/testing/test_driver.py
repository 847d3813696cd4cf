"""What runs a broker for a check: coroutines that never suspend, and those that need a loop."""

from __future__ import annotations

import asyncio

import pytest

from oncecast.errors import UsageError
from oncecast.testing.clock import Turns
from oncecast.testing.driver import AtOnce, LoopDriver, run_now


async def at_once(value: int) -> int:
    """Never suspend."""
    return value


async def suspend() -> None:
    """Suspend once."""
    await asyncio.sleep(0)


def test_a_coroutine_that_never_suspends_is_run_without_a_loop() -> None:
    """The result of a coroutine that never suspends is returned without a loop, and its exception is raised."""

    async def fail() -> None:
        raise KeyError("defect")

    assert 7 == run_now(at_once(7)) == AtOnce().run(at_once(7))
    with pytest.raises(KeyError):
        run_now(fail())


def test_one_that_suspends_is_a_mistake() -> None:
    """A coroutine that suspends is refused with what to do, and is closed."""
    coroutine = suspend()
    with pytest.raises(UsageError, match="run it on an event loop"):
        run_now(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


def test_what_is_due_is_run_until_a_condition_holds() -> None:
    """Or until nothing is due: the check then says what is missing."""
    turns = Turns()
    seen: list[int] = []
    driver = AtOnce(turns.run)
    for n in range(3):
        turns.schedule(lambda n=n: turns.schedule(lambda: seen.append(n)))  # type: ignore[misc]
    driver.wait(lambda: len(seen) == 1)
    assert [0, 1, 2] == seen
    driver.wait(lambda: False)


def test_a_loop_runs_until_a_condition_holds_or_its_time_is_over() -> None:
    """A coroutine that does not end in time is cut off."""
    driver = LoopDriver(0.05)
    seen: list[int] = []
    driver.loop.call_later(0.01, seen.append, 1)
    driver.wait(lambda: bool(seen))
    assert [1] == seen
    driver.wait(lambda: False)
    assert 7 == driver.run(at_once(7))
    with pytest.raises(TimeoutError):
        driver.run(asyncio.sleep(60))
    driver.close()
    assert driver.loop.is_closed()
