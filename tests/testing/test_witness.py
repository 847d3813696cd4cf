"""The judge of the promise: it lets the promise pass, and each way to break it is caught."""

from __future__ import annotations

import pytest

from oncecast.message import Cursor, LogGap, Reason
from oncecast.testing.witness import PromiseBroken, PublishedNumbers, Witness


def ledger() -> PublishedNumbers:
    """1, 3, 4 on a; 2, 5 on b."""
    made = PublishedNumbers()
    for seq, channel in enumerate("abaab", 1):
        made.publish(channel, seq)
    return made


def gap(channel: str, first: int, last: int) -> LogGap:
    """A gap with both ends."""
    return LogGap(channel, Reason.SLOW, Cursor("e", first), Cursor("e", last), Cursor("e", last))


def test_every_message_once_and_in_order_keeps_the_promise() -> None:
    """All of two channels, from their beginning, is what is owed."""
    witness = Witness(ledger(), {"a": 0, "b": 0})
    for seq, channel in enumerate("abaab", 1):
        witness.message(channel, seq)
    witness.finish()
    assert [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5)] == witness.seen


def test_a_gap_stands_for_what_it_covers() -> None:
    """Messages that a gap covers are not owed any more, on its channel only."""
    witness = Witness(ledger(), {"a": 0, "b": 0})
    witness.gap(gap("a", 1, 3))
    witness.message("b", 2)
    witness.message("a", 4)
    witness.finish(["a"])
    with pytest.raises(PromiseBroken, match="5 never came on b"):
        witness.finish()
    assert [gap("a", 1, 3)] == witness.gaps


def test_what_came_before_the_start_is_not_owed() -> None:
    """A channel that nothing was published to, and one where it begins at its end, owe nothing."""
    Witness(ledger(), {"a": 4, "c": 0}).finish()


@pytest.mark.parametrize(
    "seen, text",
    [
        ([("c", 1)], "has no subscription"),
        ([("a", 1), ("a", 1)], "again"),
        ([("b", 2), ("a", 1)], "out of order"),
        ([("a", 3)], "where 1 was next"),
        ([("a", 1), ("a", 4)], "where 3 was next"),
        ([("a", 2)], "where 1 was next"),
    ],
)
def test_a_message_that_breaks_the_promise_is_caught(seen: list[tuple[str, int]], text: str) -> None:
    """A stranger's, a repeated, an early and a missing message each have their error."""
    witness = Witness(ledger(), {"a": 0, "b": 0})
    with pytest.raises(PromiseBroken, match=text):  # noqa: PT012 - whichever of them it is
        for channel, seq in seen:
            witness.message(channel, seq)


@pytest.mark.parametrize("named", [("a", 2, 3), ("b", 1, 1), ("b", 3, 5)])
def test_a_gap_that_covers_nothing_missed_is_caught(named: tuple[str, int, int]) -> None:
    """A gap has to begin at or before the first message missed, and reach it."""
    witness = Witness(ledger(), {"a": 0, "b": 0})
    with pytest.raises(PromiseBroken, match="a gap"):
        witness.gap(gap(*named))


def test_a_gap_is_not_sent_twice() -> None:
    """A gap over what was delivered, or named already, is one too many."""
    witness = Witness(ledger(), {"a": 0})
    witness.gap(gap("a", 1, 4))
    with pytest.raises(PromiseBroken, match="where None was next"):
        witness.gap(gap("a", 1, 4))


def test_a_gap_without_an_end_cannot_be_judged() -> None:
    """The log it was in is gone, so it has no place in this ledger."""
    witness = Witness(ledger(), {"a": 0})
    with pytest.raises(ValueError, match="not known"):
        witness.gap(LogGap("a", Reason.EPOCH, Cursor("d", 1), None, Cursor("e", 0)))
