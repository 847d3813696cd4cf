"""Shared by the TLS connections of one server: the loop, the time for reads, and the buffers that bytes pass through.

Invariant: the function that fills a buffer empties it before it returns. So one of each is
enough for any number of connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..read_budget import TURN_SECONDS, ReadBudget

__all__ = ["SEALED_BYTES", "Shared"]

SEALED_BYTES = 16 << 10  # read from a socket at once
RECORD_BYTES = 16 << 10  # of plain text in the longest record (RFC 8446 §5.1)


class Shared:
    """`sealed` takes bytes as they come, `plain` what is in them and in the rest of a record that came before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, budget: ReadBudget, monotonic: Callable[[], float]) -> None:
        self.loop = loop
        self.budget = budget
        self.monotonic = monotonic
        self.sealed = memoryview(bytearray(SEALED_BYTES))
        self.plain = memoryview(bytearray(SEALED_BYTES + RECORD_BYTES))

    def spend(self, began: float) -> None:
        """Count the time since `began` as that of this turn's reads."""
        self.budget.seconds += self.monotonic() - began
        if self.budget.seconds >= TURN_SECONDS:
            self.budget.exhaust()
