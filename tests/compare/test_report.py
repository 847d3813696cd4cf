"""The values of a report."""

from __future__ import annotations

import math

import msgspec
import pytest

from oncecast.compare.report import ORDER, TITLES, ComparedLane, ComparisonReport
from tests.compare.conftest import blocked, lane_of, report_of


def test_values_for_a_message() -> None:
    """They are of the messages that arrived; where none has, there is no value, and no message is cheap."""
    lane = lane_of("sse", 0.1, received=10, bytes_up=50, bytes_down=150)
    assert (5.0, 20.0, None) == (lane.a_message(lane.bytes_up), lane.bytes_a_message, lane.a_message(None))
    lost = ComparedLane(transport="sse", state="silent")
    assert (None, math.inf) == (lost.a_message(7), lost.bytes_a_message)


def test_a_lane_by_its_name() -> None:
    """Each transport has a lane and a title."""
    report = report_of()
    assert list(ORDER) == [report.lane(name).transport for name in ORDER] == list(TITLES)
    with pytest.raises(StopIteration):
        report.lane("pigeon")


def test_json() -> None:
    """A report can be written as JSON and read again, also where nothing arrived."""
    report = report_of(sse=blocked("sse", "no"))
    assert report == msgspec.json.decode(msgspec.json.encode(report), type=ComparisonReport)
