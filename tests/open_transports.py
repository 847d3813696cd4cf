"""A check of every test: a loop of asyncio that is closed leaves no transport open.

A transport that nothing has closed is found by the garbage collector, and what fails then is whichever test runs. Here
each loop is looked at as it is closed, in whatever thread, and the test that has closed it fails at its end. The
failure names the transport's protocol, its addresses, and the lines that were running when it was made.

A loop of uvloop closes what it has open, and is not looked at.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import selector_events
from collections.abc import Generator
from types import CodeType, FrameType
from typing import Any

import pytest

FRAMES = 12  # of the stack that are shown, without those of the loop itself and of pytest
KEPT_FRAMES = 40  # of all, for as long as the transport lives
OTHERS = ("/asyncio/base_events", "/asyncio/events", "/asyncio/runners", "/_pytest/", "/pluggy/", "/pytest_asyncio/")

_left: list[str] = []  # by the loops that were closed since the last look
_make = selector_events._SelectorTransport.__init__  # type: ignore[attr-defined]
_close = selector_events.BaseSelectorEventLoop.close


def _made(transport: Any, *arguments: Any, **named: Any) -> None:
    _make(transport, *arguments, **named)
    transport.made_at = _stack(sys._getframe(1))


def _stack(frame: FrameType | None) -> list[tuple[CodeType, int]]:
    """Return the code and the line of each frame; they become text only if the transport stays open."""
    stack: list[tuple[CodeType, int]] = []
    while frame is not None and len(stack) < KEPT_FRAMES:
        stack.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return stack


def _places(stack: list[tuple[CodeType, int]]) -> list[str]:
    shown = [(code, line) for code, line in stack if not any(part in code.co_filename for part in OTHERS)]
    return [f"{code.co_filename}:{line} {code.co_name}" for code, line in shown[:FRAMES]]


def _closed(loop: Any) -> None:
    _close(loop)
    for transport in _open_in(loop):
        _left.append(_described(transport))
        transport._sock.close()
        transport._sock = None  # or the garbage collector would report it too


def _open_in(loop: Any) -> list[Any]:
    return [transport for transport in list(loop._transports.values()) if transport._sock is not None]


def open_now() -> list[str]:
    """Return what is open in the running loop."""
    return [_described(transport) for transport in _open_in(asyncio.get_running_loop())]


def _described(transport: Any) -> str:
    protocol = transport.get_protocol()
    inner = getattr(protocol, "_app_protocol", None)  # of TLS
    kind = type(protocol).__qualname__ + (f" of {type(inner).__qualname__}" if inner is not None else "")
    asked = getattr(protocol, "_client_connected_cb", None)
    state = "closing" if transport.is_closing() else "open"
    near, far = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    lines = "\n    ".join(_places(transport.made_at))
    return f"{state}: {kind}, {near} to {far}, accepted for {asked}, made at\n    {lines}"


def pytest_configure() -> None:
    """Look at each loop that is closed from now on."""
    selector_events._SelectorTransport.__init__ = _made  # type: ignore[attr-defined]
    selector_events.BaseSelectorEventLoop.close = _closed  # type: ignore[method-assign, assignment]


def taken() -> list[str]:
    """Return what was left open since the last call."""
    left = _left.copy()
    del _left[: len(left)]
    return left


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Fail a test that has closed a loop in which a transport was open."""
    try:
        yield
    finally:
        if left := taken():
            pytest.fail("transports were open when their loop was closed:\n  " + "\n  ".join(left), pytrace=False)
