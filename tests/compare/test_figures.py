"""How figures are written."""

from __future__ import annotations

import math

import pytest

from oncecast.compare import figures


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, "–"),
        (math.inf, "–"),
        (0.0, "0.00 µs"),
        (0.0000012, "1.20 µs"),
        (0.0009994, "999 µs"),
        (0.00099999, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.9999, "1.00 s"),
        (61.2, "61.2 s"),
        (4321.0, "4321 s"),
    ],
)
def test_seconds(value: float | None, expected: str) -> None:
    """Seconds have three digits and a unit."""
    assert expected == figures.seconds(value)


@pytest.mark.parametrize(
    "value, expected",
    [(None, "–"), (0, "0 B"), (999, "999 B"), (999.6, "1.00 kB"), (12_345, "12.3 kB"), (7_000_000, "7.00 MB")],
)
def test_size(value: float | None, expected: str) -> None:
    """Bytes are whole up to a thousand, and have three digits then."""
    assert expected == figures.size(value)


@pytest.mark.parametrize("value, expected", [(0, "0"), (9999, "9999"), (10_000, "10.0 k"), (2_500_000, "2.50 M")])
def test_count(value: float, expected: str) -> None:
    """Counts are whole up to ten thousand."""
    assert expected == figures.count(value)
