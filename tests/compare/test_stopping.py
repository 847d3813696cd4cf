"""The early end of a comparison."""

from __future__ import annotations

import asyncio

import pytest

from oncecast.compare.stopping import EarlyEnd


async def test_the_first_reason_counts() -> None:
    """What is asked for later changes no reason."""
    end = EarlyEnd()
    assert ("", False) == (end.reason, end.asked)
    end.ask("one")
    end.ask("two")
    assert ("one", True) == (end.reason, end.asked)


async def test_a_wait_ends_with_it() -> None:
    """A wait for what never happens ends at once when the end is asked for, and by itself when time is up."""
    end = EarlyEnd()
    await end.or_until(asyncio.Event().wait(), 0.01)
    waiting = asyncio.create_task(end.or_until(asyncio.Event().wait(), 3600))
    await asyncio.sleep(0)
    end.ask("enough")
    await asyncio.wait_for(waiting, 60)


async def test_a_defect_is_raised() -> None:
    """What the awaited work raises is not swallowed."""

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await EarlyEnd().or_until(fail(), 60)
