"""The obstacle matrix in Chromium: whatever stands in the way, a page sees one unbroken stream, and is soon back up.

All rows are measured at once, with times scaled, and again alone where one is late.
`python -m tests.proof.client_matrix` takes a client's own, and judges how soon the first message comes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from ..proof.client_matrix import Result, measure, measure_all
from ..proof.matrix_listeners import pages
from ..proof.obstacles import MATRIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCALE = 0.15
BACK_SECONDS = 60.0 * SCALE
BLOCKED_SECONDS = 20.0
LIFE = 3.0  # of a token: the warning comes in its last quarter
GUARDED = ("none", "websocket-403", "sse-cut")
INTERVAL = 1.0  # between messages: ten pages at once, each reported by the browser one by one


async def test_every_row(browser: Browser) -> None:
    """Nothing is lost, repeated or out of order, and WebSocket is in use again within its time."""
    measured = partial(measure, listen=pages(browser), scale=SCALE, blocked=BLOCKED_SECONDS, interval=INTERVAL)
    assert [] == await measure_all(MATRIX, measured, faults_of)


async def test_rows_with_tokens_that_end(browser: Browser) -> None:
    """The same with tokens of three seconds, each made when the client asks for one."""
    measured = partial(measure, listen=pages(browser), scale=SCALE, interval=INTERVAL, life=LIFE)
    assert [] == await measure_all(GUARDED, measured, faults_of)


def faults_of(result: Result) -> Iterator[str]:
    """Say what is not as it is promised."""
    if result.transports[-1] != "websocket":
        yield "it does not end with WebSocket"
    if result.back >= BACK_SECONDS:
        yield "WebSocket is back late"
