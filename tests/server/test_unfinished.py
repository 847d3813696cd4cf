"""The bound on what all connections hold together."""

from __future__ import annotations

import pytest

from oncecast.server.unfinished import Unfinished


class Owner:
    """Gives its memory back, or fails to."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.log: list[str] = []

    def overflow(self) -> None:
        self.log.append("overflow")
        if self.broken:
            raise ZeroDivisionError("a defect")

    def abort(self) -> None:
        self.log.append("abort")


def test_the_oldest_gives_way() -> None:
    """A new size does not make an owner younger; as many give way as it takes."""
    held = Unfinished(10)
    owners = [Owner() for _ in range(4)]
    for owner in owners[:3]:
        held.set(owner, 3)
    held.set(owners[0], 4)
    assert (10, 0) == (held.total, held.refused)
    held.set(owners[3], 5)
    assert [["overflow"], ["overflow"], [], []] == [owner.log for owner in owners]
    assert (8, 2, 2) == (held.total, len(held), held.refused)
    for owner in owners:
        held.set(owner, 0)
    assert (0, 0) == (held.total, len(held))


def test_one_that_is_too_large_alone_gives_way_itself() -> None:
    """The total is within the limit after each call."""
    held = Unfinished(10)
    owner = Owner()
    held.set(owner, 11)
    assert (["overflow"], 0) == (owner.log, held.total)


def test_a_defect_at_the_refusal_cuts_its_own_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A defect at a refusal ends its own connection, and not the one that has just read."""
    held = Unfinished(10)
    broken, other = Owner(broken=True), Owner()
    held.set(broken, 9)
    held.set(other, 2)
    assert (["overflow", "abort"], []) == (broken.log, other.log)
    assert "a defect" in caplog.text
