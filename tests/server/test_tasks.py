"""Lasting tasks: an end that nobody asked for is noticed."""

from __future__ import annotations

import asyncio

import pytest

from oncecast.server import tasks as module
from oncecast.server.tasks import Tasks

SECONDS = 60.0


async def fail() -> None:
    """Raise at once."""
    raise ZeroDivisionError("a defect")


async def end() -> None:
    """Return at once."""


async def reasons_of(name: str, *, may_end: bool = False) -> list[str]:
    """Return the reason that the owner of one task gets."""
    reasons: list[str] = []
    tasks = Tasks(reasons.append)
    task = tasks.start("work", {"fail": fail, "end": end}[name](), may_end=may_end)
    await asyncio.wait({task}, timeout=SECONDS)
    await tasks.stop()
    return reasons


async def test_an_exception_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The owner gets one line that names the task; the log has the traceback."""
    expected = ["a task of the server has failed (ZeroDivisionError: a defect): work"]
    assert expected == await reasons_of("fail")
    assert expected == await reasons_of("fail", may_end=True)
    assert 2 == caplog.text.count("Traceback")


async def test_returning_is_an_end_too() -> None:
    """Unless the task may end."""
    assert ["a task of the server has ended: work"] == await reasons_of("end")
    assert [] == await reasons_of("end", may_end=True)


async def test_being_cancelled_by_another_is_an_end_too() -> None:
    """Only its owner may cancel it."""
    reasons: list[str] = []
    tasks = Tasks(reasons.append)
    task = tasks.start("work", asyncio.sleep(SECONDS), may_end=True)
    task.cancel()
    await asyncio.wait({task}, timeout=SECONDS)
    await asyncio.sleep(0)
    assert ["a task of the server has ended: work"] == reasons


async def test_stop_is_no_failure_and_has_a_deadline(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that its owner cancels is no failure, and one that does not end by the deadline is named and left."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.01)
    reasons: list[str] = []
    tasks = Tasks(reasons.append)
    tasks.start("a sleeper", asyncio.sleep(SECONDS))
    go = asyncio.Event()

    async def stuck() -> None:
        try:
            await go.wait()
        except asyncio.CancelledError:
            await go.wait()

    task = tasks.start("a stubborn one", stuck())
    await asyncio.sleep(0)
    await tasks.stop()
    assert "the task a stubborn one does not end" in caplog.text
    go.set()
    await task
    assert [] == reasons


async def test_what_fails_at_the_stop_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    """The owner stops anyway."""
    reasons: list[str] = []
    tasks = Tasks(reasons.append)

    async def fail_at_the_end() -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            raise ZeroDivisionError("a late defect")

    tasks.start("work", fail_at_the_end())
    await asyncio.sleep(0)
    await tasks.stop()
    assert ([], True) == (reasons, "a late defect" in caplog.text)
