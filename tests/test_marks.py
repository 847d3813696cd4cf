"""The marks by which `make quick` leaves tests out, and `make test` chooses those without coverage."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import pytest

from tests.conftest import HERE, MARKS, dealt, marks_of


@pytest.mark.parametrize("place", sorted({place for places in MARKS.values() for place in places}))
def test_each_place_is_there(place: str) -> None:
    """A file or folder that was renamed keeps its mark only if the table follows."""
    assert (HERE / place).exists()


@pytest.mark.parametrize(
    "path, expected",
    [
        ("proof/test_crashes.py", {"bare", "slow"}),
        ("web/test_client.py", {"browser"}),
        ("test_package.py", {"npm"}),
        ("wire/test_sse.py", set()),
    ],
)
def test_marks_of_a_file(path: str, expected: Set[str]) -> None:
    """A file has its own marks and those of the folders above it."""
    assert expected == marks_of(Path(path))


@pytest.mark.parametrize(
    "workers, expected",
    [
        (1, "abCdeFGhij"),
        (2, "Cabde" + "FGhij"),
        (3, "Cab" + "Fde" + "Ghij"),
        (4, "ab" + "Cd" + "Feh" + "Gij"),
        (20, "abdehijCFG"),
    ],
)
def test_each_worker_begins_with_its_share_of_the_long_tests(workers: int, expected: str) -> None:
    """The pieces that pytest-xdist cuts begin with a part of the long tests, which are capitals here."""
    assert list(expected) == dealt("abCdeFGhij", set("CFG"), workers)
