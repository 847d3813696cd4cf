"""The answers to those who publish and read: calls of callbacks that are not the node's own.

Invariant: a callback that raises is logged, and ends nothing else: not the answers behind it, nor the node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["answer"]

logger = logging.getLogger("oncecast.core.answers")


def answer(done: Callable[..., object], *outcome: object) -> None:
    """Call a callback with what it waits for."""
    try:
        done(*outcome)
    except Exception:
        logger.exception("an answer failed; the others go on")
