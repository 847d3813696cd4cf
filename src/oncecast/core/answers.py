"""The answers to those who publish and read: calls of callbacks that are not the node's own, and futures.

Invariant: a callback that raises is logged, and ends nothing else: not the answers behind it, nor the node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["answer", "settle"]

T_contra = TypeVar("T_contra", contravariant=True)

logger = logging.getLogger("oncecast.core.answers")


class Awaited(Protocol[T_contra]):
    """What a loop calls a future."""

    def done(self) -> bool:
        """Return whether it has an outcome, or who waited for it has given up."""
        ...

    def set_result(self, result: T_contra, /) -> None:
        """Give it its outcome."""
        ...


def answer(done: Callable[..., object], *outcome: object) -> None:
    """Call a callback with what it waits for."""
    try:
        done(*outcome)
    except Exception:
        logger.exception("an answer failed; the others go on")


def settle(future: Awaited[T_contra], outcome: T_contra) -> None:
    """Give a future its outcome, unless who waited for it has given up, which cancels it."""
    if not future.done():
        future.set_result(outcome)
