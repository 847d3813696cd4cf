"""What a test of hostile peers measures: the longest callback of the loop, in CPU time of its thread, and the memory.

CPU time makes a busy machine no difference. The two are measured apart, as to trace memory takes time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

STALL_SECONDS = 0.05 * (6 if sys.gettrace() else 1)  # under coverage each line costs several times as much


@contextlib.contextmanager
def timing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Give the seconds that each callback of the loop takes, as they come, without those of the calling task."""
    me, times, run = asyncio.current_task(), [0.0], asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        callback: Any = getattr(handle, "_callback", None)
        if getattr(callback, "__self__", None) is not me:
            times.append(time.thread_time() - began)

    gc.collect()  # what earlier tests have left is no callback's own time; what they are made of is frozen
    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    yield times


class Cost:
    """What was measured of `measured`, "stall" or "memory": the seconds of the longest callback, the most bytes."""

    seconds = 0.0
    peak = 0


@contextlib.contextmanager
def measuring(measured: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    """Measure one of the two while the block runs; the result has it afterwards."""
    cost = Cost()
    if measured == "stall":
        with timing(monkeypatch) as times:
            yield cost
        cost.seconds = max(times)
        return
    gc.disable()  # what only a collection of garbage would free counts: when that runs is chance
    tracemalloc.start()
    try:
        yield cost
        cost.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()
