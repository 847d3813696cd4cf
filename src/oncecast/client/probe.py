"""Probes: whether a better transport works again, tried beside the one in use.

A probe listens to one channel from its newest message on and drops what comes. Invariant: a transport is proven only
after it has attached in time and then lived for `Timing.proof`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from .base import StartQuery, Transport
from .failures import Broken, Refused
from .timing import Timing

__all__ = ["best_proven", "proves"]

ATTACH_FACTOR = 4.0  # a probe is in no hurry: a slow network is no obstacle


async def proves(transport: Transport, channel: str, timing: Timing) -> bool:
    """Say whether the transport attaches, and then lives for `timing.proof` seconds."""
    attached = False
    try:
        async with contextlib.aclosing(transport({channel: StartQuery("after", "latest")})) as events:
            async with asyncio.timeout(timing.attach * ATTACH_FACTOR):
                await anext(events)
            attached = True
            async with asyncio.timeout(timing.proof):
                async for _ in events:
                    pass
    except TimeoutError:
        return attached
    except (Broken, Refused):
        pass
    return False


async def best_proven(
    names: Sequence[str], make: Callable[[str], Transport], channel: str, timing: Timing
) -> str | None:
    """Probe the transports at once; return the best that has proved itself, without waiting for worse ones."""
    probes: Mapping[str, asyncio.Task[bool]] = {
        name: asyncio.create_task(proves(make(name), channel, timing)) for name in names
    }
    try:
        for name, probe in probes.items():
            if await probe:
                return name
        return None
    finally:
        for probe in probes.values():
            probe.cancel()
        await asyncio.wait(probes.values())
