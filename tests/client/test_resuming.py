"""Resuming: wherever the first connection is cut, on any transport, each message comes once and in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from oncecast import AsyncClient, Timing
from oncecast.client.transports import TRANSPORTS

if TYPE_CHECKING:
    from tests.client.conftest import Log, Peer, Talk

SECONDS = 5.0
STEP = 3  # bytes: a cut in each field of what is sent is enough


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_resumes_after_a_cut_at_every_byte(peer: Peer, log: Log, transport: str) -> None:
    """Wherever its first connection is cut, a subscriber gets each message once and in order."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    more = True
    cut = 0
    while more:
        more = False

        async def first(talk: Talk, cut: int = cut) -> None:
            nonlocal more
            more = await log.play(transport, talk, cut)

        async def second(talk: Talk) -> None:
            await log.play(transport, talk, None)
            await talk.hold()

        peer.scripts = [first, second, second]
        client = AsyncClient(
            f"http://127.0.0.1:{peer.port}", transports=(transport,), timing=Timing(interval=0, wait=1), sleep=sleep
        )
        async with asyncio.timeout(SECONDS), client:
            messages = client.subscribe("c")
            assert ["1é", "2é", "3é"] == [(await anext(messages)).data for _ in range(3)], f"cut after {cut} bytes"
        await peer.finish()
        cut += STEP
    assert cut > 200
