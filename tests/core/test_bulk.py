"""Large work: in which order it is done, how much of it in a turn, and what is shared."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from oncecast.core.bulk import SHARED, TURN_SECONDS, Bulk
from oncecast.testing.clock import FakeClock, Turns


class Rig:
    """Work that takes `seconds` each; `done` has what was done."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.bulk = Bulk(self.clock.monotonic, self.turns.schedule)
        self.done: list[int] = []

    def add(self, number: int, seconds: float) -> None:
        def work() -> None:
            self.done.append(number)
            self.clock.advance(seconds)

        self.bulk.add(work)


@pytest.fixture
def rig() -> Rig:
    """Nothing to do yet."""
    return Rig()


def test_a_turn_does_as_much_as_its_time_allows_in_order(rig: Rig) -> None:
    """Nothing is done in the turn that adds it, and a turn always does something."""
    for number in range(4):
        rig.add(number, TURN_SECONDS * 0.6)
    rig.add(4, TURN_SECONDS * 9)
    rig.add(5, 0.0)
    assert ([], 6) == (rig.done, len(rig.bulk))
    for done in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]):
        rig.turns.run()
        assert done == rig.done
    assert (0, 0) == (len(rig.bulk), len(rig.turns))


def test_work_may_add_work(rig: Rig) -> None:
    """The next pipelined request is parsed as soon as the answer before it is sent."""
    rig.bulk.add(lambda: rig.add(1, 0.0))
    rig.turns.run_all()
    assert [1] == rig.done


def test_a_failure_is_logged_and_the_others_go_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The exception of one piece of work is logged, and the next piece runs."""
    rig.bulk.add(lambda: [].pop())
    rig.add(1, 0.0)
    with caplog.at_level(logging.ERROR):
        rig.turns.run_all()
    assert [1] == rig.done
    assert "a large answer has failed" in caplog.text


def test_equal_results_are_made_once_while_something_waits(rig: Rig) -> None:
    """The oldest of `SHARED` gives way, and nothing is kept once the queue is empty."""
    made: list[int] = []

    def share(number: int) -> Callable[[], None]:
        def make() -> bytes:
            made.append(number)
            return b"%d" % number

        return lambda: rig.done.append(int(rig.bulk.share(number, make)))

    asked = [0, 0, *range(1, SHARED + 1), 0, SHARED]
    for number in asked:
        rig.bulk.add(share(number))
    rig.turns.run_all()
    assert asked == rig.done
    assert [0, *range(1, SHARED + 1), 0] == made
    rig.bulk.add(share(SHARED))
    rig.turns.run_all()
    assert SHARED == made[-1]
    assert SHARED + 3 == len(made)
