"""The marks by which `make quick` leaves tests out, and `make test` chooses those without coverage."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import pytest

from tests.conftest import HERE, MARKS, dealt, is_wanted, marks_of, pytest_ignore_collect


@pytest.mark.parametrize("place", sorted({place for places in MARKS.values() for place in places}))
def test_each_place_is_there(place: str) -> None:
    """A file or folder that was renamed keeps its mark only if the table follows."""
    assert (HERE / place).exists()


@pytest.mark.parametrize(
    "path, expected",
    [
        ("proof/test_crashes.py", {"bare", "slow"}),
        ("web/test_client.py", {"bare", "browser"}),
        ("test_package.py", {"bare", "npm"}),
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


@pytest.mark.parametrize(
    ("marks", "expression", "wanted"),
    [
        ("", "", True),
        ("bare slow", "bare", True),
        ("slow", "bare", False),
        ("bare", "not bare", False),
        ("", "not (browser or npm or servers or slow)", True),
        ("npm", "not (browser or npm or servers or slow)", False),
        ("npm slow", "npm and slow", True),
    ],
)
def test_what_an_expression_asks_for(marks: str, expression: str, wanted: bool) -> None:
    """By the marks of a file, before it is read."""
    assert wanted is is_wanted(set(marks.split()), expression)


def test_a_mark_of_a_decorator_is_left_to_pytest(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is read where an expression has a name that is not in the table."""
    path = HERE / "test_marks.py"
    for expression, ignored in (("bare", True), ("asyncio", None), ("bare or asyncio", None), ("not bare", None)):
        monkeypatch.setattr(pytestconfig.option, "markexpr", expression)
        assert ignored is pytest_ignore_collect(path, pytestconfig), expression
