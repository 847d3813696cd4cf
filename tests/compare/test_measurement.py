"""A whole comparison on a real server: what it counts, what a distance does, and that each fault is one row's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from oncecast.client.credentials import Credentials
from oncecast.client.failures import Refused
from oncecast.compare import publishing
from oncecast.compare.grounds import ForeignServer
from oncecast.compare.measurement import Measurement
from oncecast.compare.plan import ComparePlan
from oncecast.compare.relay import Relay
from oncecast.compare.report import ORDER, ComparisonReport
from oncecast.server.server import Server
from oncecast.server.settings import ChannelRule, Settings
from tests.compare.conftest import url_of
from tests.compare.recorder import Recorder

QUICK = ComparePlan(rate=10.0, listeners=2, seconds=1, poll_interval=0.1)


def _measurement(server: Server | Recorder, **plan: Any) -> Measurement:
    return Measurement(dataclasses.replace(QUICK, **plan), ForeignServer(url_of(server), credentials=Credentials(None)))


async def _run(made: Measurement) -> ComparisonReport:
    async with asyncio.timeout(120):
        return await made.run()


async def test_all_four_at_once(server: Server) -> None:
    """Every listener of every transport has every message once, in as many requests as its transport makes."""
    made = _measurement(server)
    report = await _run(made)
    assert ("", 10, 0) == (report.ended, report.published, report.unpublished)
    for lane in report.lanes:
        assert ("measured", "", 20, 20, 0, 0) == (
            lane.state,
            lane.reason,
            lane.received,
            lane.expected,
            lane.repeated,
            lane.gaps,
        )
        assert 0 == lane.reconnects
        assert 2.0 == pytest.approx(lane.held)
        assert (False, None) == (lane.ours, lane.cpu_seconds)
        assert lane.bytes_down > 20 * report.size
    streams = [report.lane(name) for name in ("sse", "websocket")]
    assert [(2, 0, 0, 0)] * 2 == [(lane.requests, lane.polls, lane.empty_answers, lane.bytes_up) for lane in streams]
    polls = report.lane("short-poll")
    assert polls.polls > polls.empty_answers
    assert polls.bytes_up > 80 * polls.polls  # each poll sends its head
    assert report.verdict.transport in ORDER
    assert report.cpu_of_all is not None
    assert 0 < report.cpu_of_all
    marks = made.marks()
    assert [20] * 4 == [len(marks[name].arrivals) for name in ORDER]
    assert polls.empty_answers == len(marks["short-poll"].empty)


async def test_what_a_distance_does(server: Server) -> None:
    """A message is under way for half a round trip; over polls it may wait for the next question too."""
    made = _measurement(server, rtt_ms=240, rate=20.0, listeners=1)
    report = await _run(made)
    delays = {name: [delay for _, delay in marks.arrivals] for name, marks in made.marks().items()}
    for name in ORDER:
        assert 20 == len(delays[name])
        assert 0.119 <= min(delays[name])  # a timer may be early by its clock's resolution
    for name in ("sse", "websocket"):
        assert 0.24 > min(delays[name])  # half of the round trip, and not all of it
    # The next question is under way for a round trip after each answer; who comes just then waits for it.
    assert 0.24 <= max(delays["long-poll"])
    assert report.lane("long-poll").polls <= report.seconds / 0.24 + 2
    assert report.lane("short-poll").polls <= report.seconds / (0.1 + 0.24) + 2


@pytest.mark.parametrize(
    "transport, refuses",
    [
        ("websocket", lambda first: b"Upgrade: websocket" in first),
        ("sse", lambda first: b"text/event-stream" in first),
    ],
)
async def test_a_proxy_that_blocks_a_transport(
    transport: str, refuses: Callable[[bytes], bool], server: Server
) -> None:
    """That row says so and why, and the others are measured as ever."""
    async with Recorder(server.port, refuses) as proxy:
        report = await _run(_measurement(proxy))
    for lane in report.lanes:
        assert ("blocked" if lane.transport == transport else "measured") == lane.state
    assert "the server answers 403, but not as Oncecast" in report.lane(transport).reason
    assert transport != report.verdict.transport


async def test_through_a_proxy_that_opens_tunnels(server: Server) -> None:
    """All connections use it, the publisher's too, and its bytes are not the listeners'."""
    proxy = Relay(url_of(server))  # a relay is such a proxy itself
    await proxy.start()
    ground = ForeignServer(url_of(server), credentials=Credentials(None), proxy=proxy.proxy)
    report = await _run(Measurement(QUICK, ground, through=str(proxy.proxy)))
    assert str(proxy.proxy) == report.through
    await proxy.close()
    assert [("measured", 20)] * 4 == [(lane.state, lane.received) for lane in report.lanes]
    assert 8 < proxy.traffic.opened  # the publisher's, and one for each of the eight listeners
    assert sum(lane.bytes_down for lane in report.lanes) < proxy.traffic.down


async def test_a_server_that_refuses() -> None:
    """Where the first publish is refused nothing is measured, and the refusal is raised."""
    rules = {"*": ChannelRule(publish="token")}
    server = Server(Settings(port=0, broker="memory://", channels=rules))
    await server.start()
    try:
        with pytest.raises(Refused):
            await _run(_measurement(server))
    finally:
        await server.stop(0.1)


async def test_a_server_that_dies(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes away in the middle ends the comparison, with the figures until then."""
    monkeypatch.setattr(publishing, "LOST_SECONDS", 1.0)  # in which each lane notices it, too
    made = _measurement(server, seconds=600, rate=20.0)
    running = asyncio.create_task(_run(made))
    async with asyncio.timeout(60):
        while not all(len(tally.arrived) > 10 for tally in made._tallies.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await server.stop(0.1)
    report = await asyncio.wait_for(running, 60)
    assert "the server has taken no message for 1 s" in report.ended
    assert 0 < report.unpublished
    assert all(lane.received > 0 and lane.reason for lane in report.lanes)


async def test_stop_ends_it_with_what_there_is(server: Server) -> None:
    """An early end has the figures so far, and says why."""
    made = _measurement(server, seconds=600, rate=20.0)
    running = asyncio.create_task(_run(made))
    async with asyncio.timeout(60):
        while not all(len(tally.arrived) > 10 for tally in made._tallies.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    made.stop("interrupted")
    report = await asyncio.wait_for(running, 60)
    assert "interrupted" == report.ended
    assert 0 < report.published < 12_000
    assert all(lane.received > 0 for lane in report.lanes)
