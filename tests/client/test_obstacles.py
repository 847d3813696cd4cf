"""The obstacle matrix in Python: whatever stands in the way, the first message comes soon and none is lost.

All rows are measured at once, with times scaled; `python -m tests.proof.client_matrix` takes a client's own.
"""

from __future__ import annotations

import asyncio

from ..proof.client_matrix import measure
from ..proof.matrix_listeners import python
from ..proof.obstacles import MATRIX

SCALE = 0.15
FIRST_SECONDS, WORST_SECONDS, BACK_SECONDS = 5.0, 10.0, 60.0
WORST = "all-silent"
SLACK = 1.0  # of real time: a loaded machine does not scale
LOWEST = {
    "none": "websocket",
    "sse-buffered": "long-poll",
    "sse-cut": "long-poll",
    "all-silent": "long-poll",
    "short-only": "long-poll",  # a message comes before the proxy cuts
}


async def test_every_row() -> None:
    """One unbroken, ordered stream, in time, over the transport that gets through, and WebSocket again in time."""
    async with python() as listen:
        results = await asyncio.gather(*[measure(row, listen, scale=SCALE) for row in MATRIX])
    for result in results:
        most = WORST_SECONDS if result.row == WORST else FIRST_SECONDS
        assert result.first < most * SCALE + SLACK, result
        assert result.back < BACK_SECONDS * SCALE + SLACK, result
        assert "websocket" == result.transports[-1], result
        assert LOWEST.get(result.row, "sse") == result.lowest, result


async def test_short_requests_and_few_messages() -> None:
    """Where long polls are cut as they wait, it polls; and goes up again all the same."""
    async with python() as listen:
        result = await measure("short-only", listen, scale=SCALE, interval=6.0)
    assert "short-poll" == result.lowest, result
    assert "websocket" == result.transports[-1], result
    assert result.back < BACK_SECONDS * SCALE + SLACK, result
