"""Where to begin, and which channels: what an application may say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from oncecast import Refused, UsageError
from oncecast.client.base import StartQuery
from oncecast.client.starts import channels_of, start_of


def test_channels() -> None:
    """One or several, as names or lists, each once."""
    assert ("a",) == channels_of(["a"])
    assert ("a", "b", "c") == channels_of(["a", ["b", "c"], ("a",)])


@pytest.mark.parametrize("given", [[], [[]]])
def test_no_channel(given: Any) -> None:
    """A subscription needs one."""
    with pytest.raises(UsageError, match="needs a channel"):
        channels_of(given)


def test_what_is_no_channel() -> None:
    """A malformed name is refused with the server's code, another type is a wrong call."""
    with pytest.raises(Refused, match="not a channel name") as refused:
        channels_of(["a b"])
    assert ("channel_invalid", 400) == (refused.value.code, refused.value.status)
    with pytest.raises(UsageError, match="a channel is a str"):
        channels_of([[1]])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="a channel is a str, not NoneType"):
        channels_of([None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "given, expected",
    [
        ((None, None, None), StartQuery("after", "latest")),
        (("e-1", None, None), StartQuery("after", "e-1")),
        ((None, 0, None), StartQuery("last", "0")),
        ((None, 10**18 - 1, None), StartQuery("last", "9" * 18)),
        ((None, None, 1.5), StartQuery("since", "1.500")),
    ],
)
def test_start(given: tuple[Any, Any, Any], expected: StartQuery) -> None:
    """A cursor, a number of messages, or a time."""
    assert expected == start_of(*given)
    assert StartQuery("after", "earliest") == start_of(None, None, None, default="earliest")


@pytest.mark.parametrize(
    "given, words",
    [
        (("e-1", 1, None), "one of after, last and since"),
        *[((None, last, None), "last: give") for last in (-1, 10**18, 1.5, True, "1")],
        *[((None, None, since), "since: give") for since in (-1, math.nan, math.inf, 1e13, "1")],
        *[((after, None, None), "not a cursor") for after in ("", "a b", "é", "x" * 1025, 1)],
    ],
)
def test_what_is_no_start(given: tuple[Any, Any, Any], words: str) -> None:
    """Absurd numbers are refused by name, before they reach a server."""
    with pytest.raises(UsageError, match=words):
        start_of(*given)
