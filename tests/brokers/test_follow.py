"""What is handed over: once, in order, whole or skipped."""

from __future__ import annotations

from oncecast.brokers.base import Opening
from oncecast.brokers.follow import Follower
from oncecast.brokers.memory import MemoryBroker
from oncecast.message import Kind, Message
from oncecast.testing.broker import BrokerBench, Lab


def message(seq: int) -> Message:
    """A message with a number."""
    return Message(seq, "a", b"", Kind.BINARY, None, 0.0)


def bench() -> tuple[BrokerBench, Follower]:
    """A sink that keeps what it gets, and what hands over to it."""
    lab = Lab(lambda: MemoryBroker("e", lambda: 0.0))
    made = BrokerBench(lab.make(), lab)
    follower = Follower(made)
    follower.begin(Opening("e", head=3))
    return made, follower


def test_what_was_handed_over_is_not_handed_over_again() -> None:
    """A range that is read after a reconnect overlaps with what came before."""
    sink, follower = bench()
    follower.receive([message(3), message(4), message(5)])
    follower.receive([message(4), message(5)])
    follower.receive([])
    follower.receive([message(6)])
    assert [4, 5, 6] == [found.seq for found in sink.messages]
    assert 6 == follower.seen


def test_what_is_not_whole_is_skipped() -> None:
    """The head moves to where the log is; without a message it only moves."""
    sink, follower = bench()
    follower.follow([message(4)], 6)
    follower.follow([], 8)
    follower.follow(None, 9)
    follower.follow(None, 9)
    follower.advance(2)
    assert ([4], [9], 9, 9) == ([found.seq for found in sink.messages], sink.skipped, sink.head, follower.seen)


def test_a_hole_moves_the_place() -> None:
    """What comes next is after it, and another log begins where its opening says."""
    sink, follower = bench()
    follower.hole(2, 90)
    follower.receive([message(50), message(91)])
    assert ([(2, 90)], [91], 91) == (sink.holes, [found.seq for found in sink.messages], follower.seen)
    follower.begin(Opening("f", head=1))
    follower.receive([message(2)])
    assert [91, 2] == [found.seq for found in sink.messages]
