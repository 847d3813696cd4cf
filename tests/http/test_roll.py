"""Who shares a log: asked for, answered, and forgotten."""

from __future__ import annotations

import pytest

from oncecast.http.roll import CALL_SECONDS, MOST, PRESENT_SECONDS, PresentProcess, Roll
from oncecast.testing.clock import FakeClock


class Rig:
    """One process's end, with what it writes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.asked = 0
        self.said: list[PresentProcess] = []
        self.roll = Roll(self.clock.monotonic, self.ask, self.said.append, lambda: PresentProcess("a:1", "m", 7, "1"))

    def ask(self) -> None:
        """Count a call."""
        self.asked += 1


@pytest.fixture
def rig() -> Rig:
    """One process."""
    return Rig()


def test_a_look_asks_now_and_then(rig: Rig) -> None:
    """Not at each look, and not where another process has just asked."""
    assert [] == rig.roll.look()
    rig.roll.look()
    assert 1 == rig.asked
    rig.clock.advance(CALL_SECONDS - 1)
    rig.roll.called()
    rig.clock.advance(CALL_SECONDS - 1)
    rig.roll.look()
    assert 1 == rig.asked
    rig.clock.advance(1)
    rig.roll.look()
    assert 2 == rig.asked


def test_a_call_is_answered_once_a_second_at_most(rig: Rig) -> None:
    """Whoever asks, and how often; a process that has no name yet does not answer."""
    for _ in range(5):
        rig.roll.called()
    assert [PresentProcess("a:1", "m", 7, "1")] == rig.said
    rig.clock.advance(1)
    rig.roll.called()
    assert 2 == len(rig.said)
    rig.roll.me = None
    rig.clock.advance(1)
    rig.roll.called()
    assert 2 == len(rig.said)


def test_who_does_not_answer_any_more_is_forgotten(rig: Rig) -> None:
    """The newest answer of a process counts."""
    rig.roll.heard(PresentProcess("b:1", "m", 1, "1", 5))
    rig.roll.heard(PresentProcess("c:1", "m", 1, "1"))
    rig.clock.advance(PRESENT_SECONDS - 1)
    rig.roll.heard(PresentProcess("b:1", "m", 1, "1", 6))
    rig.clock.advance(1)
    assert [PresentProcess("b:1", "m", 1, "1", 6)] == rig.roll.look()


def test_what_is_kept_is_bounded(rig: Rig) -> None:
    """The process that was heard of first gives way."""
    for pid in range(MOST + 1):
        rig.roll.heard(PresentProcess("b:1", "m", pid, "1"))
    found = rig.roll.look()
    assert (MOST, 1) == (len(found), found[0].pid)
