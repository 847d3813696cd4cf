"""Time limits: which numbers they may be, and how long a stream may be silent."""

from __future__ import annotations

import dataclasses
import math

import pytest

from oncecast import Timing, UsageError
from oncecast.client.timing import heartbeat_of


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Timing)])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 1e6, "1", True, None])
def test_absurd_numbers(name: str, value: object) -> None:
    """A limit that is none is refused where it is set, by name."""
    if value is None and name == "idle":
        assert Timing(idle=None) == Timing()
        return
    with pytest.raises(UsageError, match=rf"timing\.{name}: give seconds"):
        Timing(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("announced, expected", [(60.0, 150.0), (1.0, 2.5), (None, 37.5)])
def test_idle_follows_the_server(announced: float | None, expected: float) -> None:
    """Two and a half heartbeats, as the server announces them; a number that is set wins."""
    assert expected == Timing().idle_for(announced)
    assert 3.0 == Timing(idle=3).idle_for(announced)


@pytest.mark.parametrize(
    "value, expected",
    [
        ("15", 15.0),
        ("0.1", 0.1),
        (" 60 ", 60.0),
        ("3600", 3600.0),
        *[(value, None) for value in ("", "0", "3601", "-1", "nan", "inf", "1e3", "9" * 400, "١٥", "15, 15")],
    ],
)
def test_heartbeat_of(value: str, expected: float | None) -> None:
    """Only a sensible number is believed."""
    assert expected == heartbeat_of({"oncecast-heartbeat": value})
    assert heartbeat_of({}) is None
