"""Tokens: whatever `get_token` does, a caller gets a token or a reason, and the next call may succeed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from oncecast import Broken, UsageError
from oncecast.client.credentials import Credentials

HEADER = [("Authorization", "Bearer t")]


async def test_without() -> None:
    """No function, no header."""
    assert [] == list(await Credentials(None).headers())
    assert not Credentials(None).renewable


async def coroutine() -> str:
    """A token service."""
    return "t"


@pytest.mark.parametrize("get_token", [coroutine, lambda: "t", lambda: coroutine()])
async def test_a_token_is_fetched_once(get_token: Callable[[], Any]) -> None:
    """By a function, a coroutine function, or a function that returns a coroutine; until it has expired."""
    calls = []

    def count() -> Any:
        calls.append(1)
        return get_token()

    mine = Credentials(count)
    assert [HEADER] * 3 == [list(each) for each in await asyncio.gather(*[mine.headers() for _ in range(3)])]
    assert 1 == len(calls)
    mine.expire()
    assert HEADER == list(await mine.headers())
    assert 2 == len(calls)


def fail() -> str:
    """A token service that is away."""
    raise ConnectionError("away")


def stop() -> str:
    """One that raises what a future can't hold."""
    raise StopIteration


def leave() -> str:
    """One that would end the process."""
    raise SystemExit


def late() -> str:
    """One that has timed out itself."""
    raise TimeoutError("its own")


@pytest.mark.parametrize(
    "bad, words",
    [
        (lambda: None, "get_token returned NoneType: it has to return a str"),
        (lambda: 5, "get_token returned int"),
        (lambda: b"t", "get_token returned bytes"),
        (lambda: "", "no token"),
        (lambda: "a b", "no token"),
        (lambda: "a\r\nX: y", "no token"),
        (lambda: "é", "no token"),
        (lambda: "x" * 9000, "no token"),
        (fail, "get_token failed: ConnectionError"),
        (stop, "get_token failed: .*StopIteration"),
        (leave, "get_token failed: .*SystemExit"),
        (late, "get_token failed: TimeoutError"),
    ],
)
async def test_no_token(bad: Callable[[], Any], words: str, caplog: pytest.LogCaptureFixture) -> None:
    """A function that returns no token gives a `Broken` with the reason and a warning, and may return one later."""
    functions = [bad, lambda: "t"]
    mine = Credentials(lambda: functions.pop(0)())  # type: ignore[no-untyped-call]
    with pytest.raises(Broken, match=words):
        await mine.headers()
    assert [logging.WARNING] == [record.levelno for record in caplog.records]
    assert HEADER == list(await mine.headers())


async def test_a_coroutine_that_hangs() -> None:
    """The coroutine is cancelled at its deadline."""
    cancelled = asyncio.Event()

    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    with pytest.raises(Broken, match=r"get_token has not returned within 0\.02 s"):
        await Credentials(hang, seconds=0.02).headers()
    assert cancelled.is_set()


async def test_a_function_that_hangs() -> None:
    """The next call waits for the thread of a function that hangs, and uses the token that it returns."""
    go_on = threading.Event()
    calls = []

    def hang() -> str:
        calls.append(threading.current_thread())
        go_on.wait(10)
        return "t"

    mine = Credentials(hang, seconds=0.02)
    for _ in range(3):
        with pytest.raises(Broken, match="has not returned"):
            await mine.headers()
    go_on.set()
    calls[0].join(10)
    assert HEADER == list(await mine.headers())
    assert ([True], 1) == ([thread.daemon for thread in calls], len(calls))


def test_a_thread_that_outlives_its_loop() -> None:
    """A result that comes after the loop's end is dropped, and raises nothing on its thread."""
    go_on, raised = threading.Event(), list[Any]()
    threads = []

    def hang() -> str:
        threads.append(threading.current_thread())
        go_on.wait(10)
        return "t"

    async def main() -> None:
        with pytest.raises(Broken):
            await Credentials(hang, seconds=0.02).headers()

    hook, threading.excepthook = threading.excepthook, raised.append
    try:
        asyncio.run(main())
        go_on.set()
        threads[0].join(10)
    finally:
        threading.excepthook = hook
    assert [] == raised


def test_what_is_no_function() -> None:
    """The client's constructor raises."""
    with pytest.raises(UsageError, match="get_token: give a function"):
        Credentials("t")  # type: ignore[arg-type]


def test_types() -> None:
    """Both kinds of function are accepted."""
    kinds: list[Callable[[], str | Awaitable[str]]] = [coroutine, lambda: "t"]
    assert all(Credentials(kind).renewable for kind in kinds)
