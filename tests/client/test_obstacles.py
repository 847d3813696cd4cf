"""The obstacle matrix: whatever stands in the way, the first message comes soon, none is lost, and it goes up again.

Times are scaled by `SCALE`; `python -m oncecast.testing.client_matrix` measures the same with a client's own.
"""

from __future__ import annotations

import pytest

from oncecast.testing.client_matrix import measure
from oncecast.testing.obstacles import MATRIX

SCALE = 0.1
FIRST_SECONDS, WORST_SECONDS, BACK_SECONDS = 5.0, 10.0, 60.0
WORST = "all-silent"
SLACK = 1.0  # of real time: a loaded machine does not scale


@pytest.mark.parametrize("row", list(MATRIX))
async def test_row(row: str) -> None:
    """One unbroken, ordered stream, in time, and on WebSocket again in time."""
    result = await measure(row, scale=SCALE)
    assert result.first < (WORST_SECONDS if row == WORST else FIRST_SECONDS) * SCALE + SLACK
    assert result.back < BACK_SECONDS * SCALE + SLACK
    assert "websocket" == result.transports[0]
    assert "websocket" == result.transports[-1]
    if row not in ("none",):
        assert row.partition("-")[0] != result.lowest
