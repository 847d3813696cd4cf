"""The obstacle matrix in Python: whatever stands in the way, the first message comes soon and none is lost.

All rows are measured at once, with times scaled, and again alone where one is late.
`python -m tests.proof.client_matrix` takes a client's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..proof.client_matrix import Result, measure, measure_all
from ..proof.matrix_listeners import python
from ..proof.obstacles import MATRIX

SCALE = 0.15
FIRST_SECONDS, WORST_SECONDS, BACK_SECONDS = 5.0, 10.0, 60.0
WORST = "all-silent"
LIFE = 3.0  # of a token: the warning comes in its last quarter
GUARDED = ("none", "websocket-403", "sse-cut", "all-silent")
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
        assert [] == await measure_all(MATRIX, partial(measure, listen=listen, scale=SCALE), faults_of)


async def test_rows_with_tokens_that_end() -> None:
    """The server asks for tokens of three seconds: what stands in the way then keeps no renewal from being made."""
    async with python() as listen:
        measured = partial(measure, listen=listen, scale=SCALE, life=LIFE)
        assert [] == await measure_all(GUARDED, measured, faults_of)


async def test_short_requests_and_few_messages() -> None:
    """Where long polls are cut as they wait, it polls; and goes up again all the same."""
    async with python() as listen:
        measured = partial(measure, listen=listen, scale=SCALE, interval=6.0)
        assert [] == await measure_all(["short-only"], measured, partial(faults_of, lowest="short-poll"))


def faults_of(result: Result, lowest: str = "") -> Iterator[str]:
    """Say what is not as it is promised; `lowest` is the last resort, of this row's own unless it is given."""
    if result.first >= (WORST_SECONDS if result.row == WORST else FIRST_SECONDS) * SCALE + SLACK:
        yield "the first message is late"
    if result.back >= BACK_SECONDS * SCALE + SLACK:
        yield "WebSocket is back late"
    if result.transports[-1] != "websocket":
        yield "it does not end with WebSocket"
    if result.lowest != (lowest or LOWEST.get(result.row, "sse")):
        yield "it went to another transport"
