"""Where several channels start together."""

from __future__ import annotations

import pytest

from oncecast.client.base import StartQuery, common_start


@pytest.mark.parametrize(
    "starts, expected",
    [
        ([("last", "5"), ("last", "5")], ("last", "5")),
        ([("after", "e-7"), ("after", "e-3"), ("after", "e-9")], ("after", "e-3")),
        ([("after", "latest"), ("after", "e-3")], ("after", "e-3")),
        ([("after", "e-3"), ("after", "earliest")], ("after", "earliest")),
        ([("after", "e-3"), ("since", "10")], ("since", "10")),
        ([("after", "old-9"), ("after", "new-1"), ("after", "old-8")], ("after", "old-8")),
        ([("after", "?"), ("after", "!")], ("after", "?")),
    ],
)
def test_common_start(starts: list[tuple[str, str]], expected: tuple[str, str]) -> None:
    """Channels at different places start where none of them misses anything."""
    given = {str(n): StartQuery(*start) for n, start in enumerate(starts)}
    assert StartQuery(*expected) == common_start(given)
