"""The obstacle matrix in Chromium: whatever stands in the way, a page sees one unbroken stream, and is soon back up.

All rows are measured at once, with times scaled; `python -m tests.proof.client_matrix` takes a client's own, and
judges how soon the first message comes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ..proof.client_matrix import measure
from ..proof.matrix_listeners import pages
from ..proof.obstacles import MATRIX

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCALE = 0.15
BACK_SECONDS = 60.0 * SCALE
BLOCKED_SECONDS = 20.0
INTERVAL = 1.0  # between messages: ten pages at once, each reported by the browser one by one


async def test_every_row(browser: Browser) -> None:
    """Nothing is lost, repeated or out of order, and WebSocket is in use again within its time."""
    rows = (measure(row, pages(browser), scale=SCALE, blocked=BLOCKED_SECONDS, interval=INTERVAL) for row in MATRIX)
    for result in await asyncio.gather(*rows):
        assert "websocket" == result.transports[-1], result
        assert result.back < BACK_SECONDS, result
