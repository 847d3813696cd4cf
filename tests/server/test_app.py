"""What all connections share: the count of connections, and the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncecast.server.phases import Phase

if TYPE_CHECKING:
    from tests.server.conftest import Bench


def test_connections_are_counted_in_and_out(bench: Bench) -> None:
    """Each connection stands among the open ones from its first moment to its last."""
    first, _ = bench.connect()
    second, _ = bench.connect()
    assert {first, second} == bench.app.connections
    first.connection_lost(None)
    assert {second} == bench.app.connections
    assert 2 == bench.app.admission.opened


def test_whoever_waits_for_the_end_hears_of_it_once_nobody_is_left(bench: Bench) -> None:
    """`when_empty` is called when the last connection goes, and not before."""
    calls: list[int] = []
    first, _ = bench.connect()
    second, _ = bench.connect()
    bench.app.when_empty = lambda: calls.append(1)
    first.connection_lost(None)
    assert [] == calls
    second.connection_lost(None)
    assert [1] == calls


def test_the_last_to_go_needs_no_listener(bench: Bench) -> None:
    """A server that is not stopping has nobody to tell."""
    connection, _ = bench.connect()
    connection.connection_lost(None)
    assert set() == bench.app.connections


def test_the_date_is_the_wall_clocks(bench: Bench) -> None:
    """Answers carry the time of day, whatever the monotonic clock says."""
    assert b"Mon, 24 Nov 2025 16:00:00 GMT" == bench.app.date


@pytest.mark.parametrize("wall", [-1e12, 1e308, 4e11])
def test_a_wall_clock_that_is_set_to_nonsense(bench: Bench, wall: float) -> None:
    """Answers have some date then, and deadlines go on by the monotonic clock."""
    bench.app.wall = lambda: wall
    connection, transport = bench.connect()
    bench.pass_time(11)
    assert transport.eof_written
    assert bench.app.date.endswith(b" GMT")
    assert connection.phase is Phase.LINGERING


def test_a_wall_clock_that_steps_moves_no_deadline(bench: Bench) -> None:
    """An hour forward or back changes the date alone."""
    _, transport = bench.connect()
    for step in (3600.0, -3600.0):
        bench.app.wall = lambda step=step: 1_764_000_000.0 + step  # type: ignore[misc]
        bench.pass_time(1)
    assert b"Mon, 24 Nov 2025 15:00:00 GMT" == bench.app.date
    assert not transport.eof_written
