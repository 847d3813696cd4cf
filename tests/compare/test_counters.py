"""From counters to a lane: differences of two readings, and why a transport has brought nothing."""

from __future__ import annotations

import pytest
from msgspec import structs

from oncecast.compare.counters import LaneCounters, beyond_nobody, compared_lane
from oncecast.compare.relay import Traffic
from oncecast.compare.report import ComparedLane
from oncecast.compare.tally import PublishTimes, Tally, text_of

READINGS = (
    LaneCounters(Traffic(up=20, down=40, opened=2, open=2, now=1.0), 2, 0),
    LaneCounters(Traffic(up=100, down=300, opened=2, open=2, held_seconds=2.0, now=2.0), 10, 50),
    LaneCounters(Traffic(up=500, down=900, opened=3, open=2, held_seconds=22.0, now=12.0), 30, 250),
)


def _lane(tally: Tally, transport: str = "short-poll") -> ComparedLane:
    return compared_lane(transport, tally, READINGS, range(1, 3), 2, ours=True, cpu_seconds=0.5)


def test_only_what_lies_between_the_readings() -> None:
    """Bytes, polls and delays are of the measured time; requests are all, and connecting is before it."""
    tally = Tally(PublishTimes("abcdef", 3))
    tally.times.sent[:] = type(tally.times.sent)("d", [1.5, 3.0, 4.0])
    listeners = [tally.listener(), tally.listener()]
    tally.attached = 2
    for seen in listeners:
        for number, at in ((0, 1.6), (1, 3.2), (2, 4.4)):
            tally.arrive(seen, text_of("abcdef", number, 40), at)
    tally.empty.extend([1.0, 5.0, 6.0])
    lane = _lane(tally)
    assert ("measured", "", 4, 4) == (lane.state, lane.reason, lane.received, lane.expected)
    assert (400, 600, 10.0, 20.0) == (lane.bytes_up, lane.bytes_down, lane.connect_up, lane.connect_down)
    assert (30, 20, 200, 2, 1, 2.0) == (
        lane.requests,
        lane.polls,
        lane.page_bytes,
        lane.empty_answers,
        lane.reconnects,
        lane.held,
    )
    assert lane.delay is not None
    assert pytest.approx((0.2, 0.4, 0.4, 0.3)) == structs.astuple(lane.delay)
    assert 250.0 == lane.bytes_a_message


@pytest.mark.parametrize(
    "attached, reason, state, says",
    [
        (0, "a proxy refuses", "blocked", "a proxy refuses"),
        (0, "", "blocked", "the server has not answered"),
        (1, "", "silent", "the connection was accepted, but nothing came through: a proxy may hold the stream back"),
        (1, "it was cut", "silent", "it was cut"),
    ],
)
def test_a_transport_that_brings_nothing(attached: int, reason: str, state: str, says: str) -> None:
    """It is blocked where nobody was attached and silent where they were, and the reason is always said."""
    tally = Tally(PublishTimes("abcdef", 3), attached=attached, reason=reason)
    lane = _lane(tally, "sse")
    assert (state, says, None, 0) == (lane.state, lane.reason, lane.delay, lane.polls)


def test_cpu_time_beyond_that_of_nobody() -> None:
    """What the server without listeners used in the same time is subtracted; a server that is not known has none."""
    before, after = {"sse": 1.0, "nobody": 2.0}, {"sse": 4.0, "nobody": 2.5}
    assert 2.5 == beyond_nobody(before, after, "sse")
    assert None is beyond_nobody(before, after, "websocket")
    assert None is beyond_nobody({"all": 1.0}, {"all": 2.0}, "sse")
