"""What the tests of the comparison share: a real server in this process, and a report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from oncecast.client.url import ServerUrl
from oncecast.compare.advice import verdict_of
from oncecast.compare.plan import ComparePlan
from oncecast.compare.report import ORDER, ComparedLane, ComparisonReport, DelayFigures
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.compare.recorder import Recorder

SECONDS = 60.0  # for what happens anyway


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A real server in this process."""
    made = Server(Settings(port=0, broker="memory://"))
    await made.start()
    yield made
    await made.stop(0.1)


def url_of(server: Server | Recorder, scheme: str = "http") -> ServerUrl:
    """Return where a server or a pipe is."""
    return ServerUrl.parse(f"{scheme}://127.0.0.1:{server.port}")


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def lane_of(transport: str, p50: float, **fields: Any) -> ComparedLane:
    """Return a lane that has brought its messages."""
    given = {"listeners": 2, "expected": 20, "received": 20, "bytes_up": 1000, "bytes_down": 5000, "held": 2.0}
    delay = DelayFigures(p50, 2 * p50, 3 * p50, p50)
    return ComparedLane(transport=transport, state="measured", delay=delay, **{**given, **fields})


LANES = {
    "short-poll": lane_of(
        "short-poll", 0.5, polls=40, requests=42, empty_answers=30, page_bytes=4000, bytes_down=12000
    ),
    "long-poll": lane_of("long-poll", 0.002, polls=20, requests=22),
    "sse": lane_of("sse", 0.001, requests=2, bytes_up=0),
    "websocket": lane_of("websocket", 0.001, requests=2, bytes_up=0),
}


def report_of(plan: ComparePlan | None = None, /, **changed: ComparedLane) -> ComparisonReport:
    """Return a report; `changed` has lanes in place of those of `LANES`, with `_` for `-` in their names."""
    plan = plan or ComparePlan(schedule="ticker", seconds=10)
    given = {name.replace("_", "-"): lane for name, lane in changed.items()}
    lanes = [given.get(name, LANES[name]) for name in ORDER]
    return ComparisonReport(
        schedule=plan.schedule,
        describes=plan.describe(),
        server="http://here",
        seconds=10.0,
        listeners=2,
        size=60,
        poll_interval=1.0,
        rtt_ms=0,
        published=10,
        lanes=lanes,
        verdict=verdict_of(lanes, plan),
    )


def blocked(transport: str, reason: str) -> ComparedLane:
    """Return a lane that did not get through."""
    return msgspec.structs.replace(LANES[transport], state="blocked", reason=reason, received=0, delay=None)
