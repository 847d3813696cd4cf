"""Functions of the application: what they do is logged and goes no further."""

from __future__ import annotations

import asyncio
import logging

import pytest

from oncecast import UsageError
from oncecast.client.callbacks import call_back, check_callback


def test_a_callback_is_called() -> None:
    """A callback gets the value."""
    seen: list[object] = []
    call_back("f", seen.append, 1)
    assert [1] == seen


def test_an_exception_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of a callback is logged with its traceback."""
    call_back("f", lambda value: 1 / 0, 1)
    (record,) = caplog.records
    assert (logging.ERROR, "the callback f has raised") == (record.levelno, record.getMessage())
    assert record.exc_info is not None


@pytest.mark.filterwarnings("error")
async def test_what_would_have_to_be_awaited_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine is closed, a future left alone; both are said."""

    async def coroutine() -> None:
        raise AssertionError

    call_back("f", lambda value: coroutine(), 1)
    future = asyncio.get_running_loop().create_future()
    call_back("g", lambda value: future, 1)
    future.cancel()
    assert [logging.ERROR] * 2 == [record.levelno for record in caplog.records]


def test_what_can_not_be_called() -> None:
    """`on` raises for a value that is no function, and for a coroutine function."""

    async def coroutine(value: object) -> None: ...

    check_callback("f", print)
    for bad in (None, 1, "print", coroutine):
        with pytest.raises(UsageError, match=r"^f"):
            check_callback("f", bad)
