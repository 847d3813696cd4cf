"""What a broker counts for the metrics."""

from __future__ import annotations

import logging

import pytest

from oncecast.brokers.meters import Meters


def test_records_that_are_left_out_are_counted_and_logged_ever_less_often(caplog: pytest.LogCaptureFixture) -> None:
    """A record that is met at each read fills no log: of ten there are four lines, each with the count so far."""
    meters = Meters()
    with caplog.at_level(logging.ERROR):
        for number in range(10):
            meters.skip(f"record {number}")
    assert 10 == meters.foreign
    said = [
        f"record {count - 1}: left out, as it is damaged or not Oncecast's (a record was left out {count} times)"
        for count in (1, 2, 4, 8)
    ]
    assert said == [record.getMessage() for record in caplog.records]
