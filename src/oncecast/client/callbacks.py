"""Calling functions of the application. Invariant: whatever such a function does, the client goes on."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from ..errors import UsageError

__all__ = ["call_back", "check_callback"]

logger = logging.getLogger("oncecast.client")


def check_callback(name: str, callback: object) -> None:
    """Check that a callback can be called. Raises `UsageError`."""
    if not callable(callback):
        raise UsageError(f"{name}: give a function, not {callback!r}")
    if inspect.iscoroutinefunction(callback):
        raise UsageError(f"{name} is called and not awaited: give a plain function, which may create a task")


def call_back(name: str, callback: Callable[[Any], object], value: object) -> None:
    """Call back. An exception is logged and goes no further; so is a result that would have to be awaited."""
    try:
        result = callback(value)
    except Exception:
        logger.exception("the callback %s has raised", name)
        return
    if inspect.isawaitable(result):
        logger.error("the callback %s returned something to await, which is not awaited: give a plain function", name)
        if inspect.iscoroutine(result):
            result.close()
