"""The early end of a comparison: who asks for it says why, and every wait of the comparison hears it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["EarlyEnd"]


class EarlyEnd:
    """`reason` is `""` until something ends the comparison before its time; of several reasons the first one counts."""

    def __init__(self) -> None:
        self.reason = ""
        self._asked = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether the end was asked for."""
        return self._asked.is_set()

    def ask(self, reason: str) -> None:
        """End the comparison now."""
        self.reason = self.reason or reason
        self._asked.set()

    async def or_until(self, work: Coroutine[Any, Any, object], seconds: float) -> None:
        """Await something until it is done, the end is asked for, or time is up. Raises what it raises."""
        task = asyncio.create_task(work)
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait({task, asked}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (task, asked):
                each.cancel()
            await asyncio.wait({task, asked})
        if not task.cancelled():
            task.result()
