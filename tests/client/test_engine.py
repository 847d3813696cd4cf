"""The thread of a blocking client: how it starts, how it ends, and what a caller sees of that."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from oncecast import AsyncClient, Broken, ClientFailed, UsageError
from oncecast.client import engine as module
from oncecast.client.engine import Engine

URL = "http://127.0.0.1:1"


def test_calls_run_on_its_thread() -> None:
    """A result comes back, an exception too; past its timeout a call is cancelled."""

    async def name() -> str:
        return threading.current_thread().name

    async def fail() -> None:
        raise ZeroDivisionError

    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    engine = Engine(AsyncClient(URL))
    assert "oncecast-client" == engine.call(name())
    with pytest.raises(ZeroDivisionError):
        engine.call(fail())
    with pytest.raises(TimeoutError):
        engine.call(hang(), timeout=0.02)
    assert cancelled.wait(5)
    usable = [engine.usable]
    engine.stop()
    assert [True, False] == [*usable, engine.usable]
    engine.stop()
    with pytest.raises(Broken, match="the client was closed"):
        engine.call(name())


def test_a_thread_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller waits for its deadline and gets a typed error; a thread that starts later ends at once."""
    go_on = threading.Event()
    run = asyncio.run

    def late(*args: object) -> None:
        go_on.wait(10)
        run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "run", late)
    before = threading.active_count()
    with pytest.raises(ClientFailed, match=r"has not started within 0\.05 s"):
        Engine(AsyncClient(URL), start_seconds=0.05)
    go_on.set()
    (thread,) = [each for each in threading.enumerate() if each.name == "oncecast-client"]
    thread.join(5)
    assert before == threading.active_count()


def test_a_loop_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The reason comes to the caller at once, as where no descriptor is left."""

    def fail(main: object) -> None:
        main.close()  # type: ignore[attr-defined]
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "run", fail)
    began = time.monotonic()
    with pytest.raises(ClientFailed, match="Too many open files"):
        Engine(AsyncClient(URL))
    assert time.monotonic() - began < 5
    assert [logging.ERROR] == [record.levelno for record in caplog.records]


def test_a_thread_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that the system allows no more threads."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(ClientFailed, match="can't start new thread"):
        Engine(AsyncClient(URL))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_while_a_call_waits(caplog: pytest.LogCaptureFixture) -> None:
    """A call that waits raises, and does not wait for ever."""

    async def wait() -> None:
        await asyncio.Event().wait()

    async def leave() -> None:
        asyncio.get_running_loop().call_later(0.05, leave_now)

    def leave_now() -> None:
        raise SystemExit

    engine = Engine(AsyncClient(URL))
    engine.call(leave())
    with pytest.raises(Broken, match="the client was closed"):
        engine.call(wait())
    engine._thread.join(5)
    assert not engine.usable


def test_a_call_that_waits_for_another_process() -> None:
    """A thread that is not there, as in a fork, is noticed while a call waits."""
    engine = Engine(AsyncClient(URL))
    pid = engine._pid

    async def wait() -> None:
        engine._pid = -1
        await asyncio.Event().wait()

    with pytest.raises(Broken, match="the client was closed"):
        engine.call(wait())
    engine._pid = pid
    engine.stop()
    assert not engine._thread.is_alive()


def test_a_thread_that_is_held(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Closing has a deadline too: a callback that never returns keeps its thread, not the application."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    go_on = threading.Event()
    engine = Engine(AsyncClient(URL))

    async def hold() -> None:
        go_on.wait(10)

    engine.submit(hold())
    engine.stop()
    assert ["a callback of the application holds it" in record.getMessage() for record in caplog.records] == [True]
    go_on.set()
    engine._thread.join(5)
    assert not engine._thread.is_alive()


def test_a_callback_can_not_call() -> None:
    """The call raises, as it would wait for itself."""
    engine = Engine(AsyncClient(URL))

    async def call() -> str:
        try:
            engine.call(asyncio.sleep(0))
        except UsageError as error:
            return str(error)
        return ""

    assert "hand the work to another thread" in engine.call(call())
    engine.stop()
