"""Threads that are owned: their end is noticed, and what comes too late is undone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from oncecast.brokers.worker import Worker, run_in_thread

SECONDS = 60.0


async def ended(run: object) -> list[BaseException | None]:
    """Run a thread, and return what its end was called with."""
    ends: list[BaseException | None] = []
    worker = Worker("test", run, ends.append)  # type: ignore[arg-type]
    worker.start()
    assert await worker.wait(SECONDS)
    return ends


async def test_the_end_of_a_thread_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """It may return, raise, or raise SystemExit."""
    assert [None] == await ended(lambda: None)

    def fail() -> None:
        raise SystemExit("defect")

    (error,) = await ended(fail)
    assert isinstance(error, SystemExit)
    assert ["the thread oncecast-test has failed"] == caplog.messages


async def test_a_thread_that_hangs_is_waited_for_in_vain() -> None:
    """The loop goes on while it waits."""
    over = threading.Event()
    worker = Worker("test", over.wait, lambda error: None)  # type: ignore[arg-type]
    worker.start()
    assert not await worker.wait(0.01)
    over.set()
    assert await worker.wait(SECONDS)


def test_a_thread_that_outlives_its_loop_is_no_fault() -> None:
    """The closed loop is not called."""
    over = threading.Event()

    async def begin() -> Worker:
        worker = Worker("test", over.wait, lambda error: None)  # type: ignore[arg-type]
        worker.start()
        return worker

    worker = asyncio.run(begin())
    over.set()
    worker.thread.join(SECONDS)
    assert not worker.thread.is_alive()


async def test_what_a_function_returns_or_raises_is_given() -> None:
    """The caller gets the function's result or exception."""
    found = await run_in_thread("test", threading.get_ident, SECONDS, lambda result: None)
    assert threading.get_ident() != found

    def fail() -> None:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        await run_in_thread("test", fail, SECONDS, lambda result: None)


async def test_what_comes_too_late_is_undone() -> None:
    """A late result is closed, and a late exception is dropped."""
    go, undone = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    given: list[str] = []

    def late() -> str:
        go.wait()
        return "opened"

    def undo(result: str) -> None:
        given.append(result)
        loop.call_soon_threadsafe(undone.set)

    def fail() -> str:
        go.wait()
        raise KeyError("defect")

    for function in (late, fail):
        with pytest.raises(TimeoutError):
            await run_in_thread("test", function, 0.01, undo)
    go.set()
    await undone.wait()
    assert ["opened"] == given


async def test_what_comes_as_its_waiter_gives_up_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that arrives as its waiter is cancelled is closed."""

    async def give_up(given: Awaitable[object], seconds: float) -> None:
        await given
        raise TimeoutError

    monkeypatch.setattr(asyncio, "wait_for", give_up)
    loop = asyncio.get_running_loop()
    undone = asyncio.Event()

    def undo(result: object) -> None:
        loop.call_soon_threadsafe(undone.set)

    with pytest.raises(TimeoutError):
        await run_in_thread("test", int, SECONDS, undo)
    await undone.wait()


def test_what_a_loop_that_is_closed_does_not_take_is_undone() -> None:
    """The thread closes the result itself."""
    go, undone = threading.Event(), threading.Event()

    async def begin() -> None:
        with pytest.raises(TimeoutError):
            await run_in_thread("test", go.wait, 0.01, lambda result: undone.set())

    asyncio.run(begin())
    go.set()
    assert undone.wait(SECONDS)
