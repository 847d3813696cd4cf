"""The numbers of a log whose server numbers by itself: lives, their bases, their holes."""

from __future__ import annotations

import pytest

from oncecast.brokers.base import NUMBERS_A_SECOND
from oncecast.brokers.lives import WIDEST, Life, Lives, first_life, read_life

FIRST = Life(1, "e", 100.0, "one", 0)


def test_a_record_is_read_as_it_was_written() -> None:
    """All fields are equal but the offset, which the server assigns."""
    life = Life(7, "e", 100.5, "one", 42)
    assert life == read_life(7, life.record())


@pytest.mark.parametrize("record", [b"", b"{}", b"\xff", b'{"epoch": "e", "born": 1, "server": "s", "base": "x"}'])
def test_a_record_that_is_none_is_refused(record: bytes) -> None:
    """A text that is no record of a life raises."""
    with pytest.raises(ValueError, match=r"."):
        read_life(1, record)


def test_numbers_and_offsets_are_each_others_inverse() -> None:
    """This holds in each life. A number between two lives gives the offset before it."""
    lives = Lives([FIRST, Life(10, "e", 100.0, "two", 1000)])
    assert [2, 9, 1010, 1011] == [lives.seq_of(offset) for offset in (2, 9, 10, 11)]
    assert [2, 9, 9, 9, 10, 11] == [lives.offset_of(seq) for seq in (2, 9, 10, 1009, 1010, 1011)]
    assert [(9, 1010)] == lives.holes()
    assert ("e", "two") == (lives.epoch, lives.newest.server)
    assert 0 == lives.offset_of(-5)


def test_a_life_begins_at_the_age_of_the_log() -> None:
    """A life begins after a hole as long as any life can have numbered meanwhile."""
    life = Lives([FIRST]).next(20, "two", 110.0)
    assert (10 * NUMBERS_A_SECOND, "e", 100.0, "two") == (life.base + 20, life.epoch, life.born, life.server)


@pytest.mark.parametrize("now, above, first", [(0.0, 0, 21), (100.0, 500, 501), (1e12, 0, WIDEST)])
def test_a_life_takes_no_number_back(now: float, above: int, first: int) -> None:
    """It begins above every number of the log and of a node, within the integers of JSON."""
    assert first == Lives([FIRST]).next(20, "two", now, above).base + 20


def test_the_first_life_numbers_as_the_server() -> None:
    """The first number is 1."""
    life = first_life("e", "one", 5.0)
    assert (0, 0, 5.0) == (life.offset, life.base, life.born)
