"""What a node is handed after a pause, in which order, and which holes it gets."""

from __future__ import annotations

import pytest

from oncecast.brokers import handover
from oncecast.brokers.base import Opening
from oncecast.brokers.handover import Handover, Missed
from oncecast.brokers.session import GuardedSink, Lost
from oncecast.message import Kind, Mark, Message


class HandedOver:
    """A sink that notes the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> object:
        """Return a method that notes its call; messages as their numbers."""

        def call(*arguments: object) -> None:
            if name == "receive":
                (messages,) = arguments
                arguments = tuple(message.seq for message in messages)  # type: ignore[attr-defined]
            self.calls.append((name, *arguments))

        return call


def message(seq: int, data: bytes = b"x", channel: str = "a") -> Message:
    """A message."""
    return Message(seq, channel, data, Kind.TEXT, None, 0.0)


def missed(*numbers: int) -> Missed:
    """What came meanwhile, in no order."""
    found = Missed()
    assert found.add([message(number) for number in numbers])
    return found


@pytest.fixture
def handed() -> HandedOver:
    """A sink."""
    return HandedOver()


@pytest.fixture
def place(handed: HandedOver) -> Handover:
    """A node that has got everything up to 10, of one channel."""
    place = Handover()
    place.begin(GuardedSink(handed), "e", 10, [(2, 5)], ["a"])  # type: ignore[arg-type]
    opening = Opening("e", 10, Mark(10, float("inf")), holes=((2, 5),))
    assert handed.calls == [("begin", opening), ("wanted", ["a"], 10)]
    handed.calls.clear()
    return place


def catch_up(
    place: Handover, handed: HandedOver, found: Missed, head: int, holes: list[tuple[int, int]], *more: str
) -> None:
    """Hand over what came, to a node that wants `a` and more."""
    place.catch_up(GuardedSink(handed), found, head, holes, ["a", *more])  # type: ignore[arg-type]


def test_what_came_meanwhile_is_handed_over_in_order(place: Handover, handed: HandedOver) -> None:
    """The head moves after it, and newly wanted channels are confirmed there."""
    catch_up(place, handed, missed(13, 11), 15, [(2, 5)], "b")
    assert handed.calls == [("receive", 11, 13), ("advance", 15), ("wanted", ["b"], 15)]
    assert (place.seen, place.last) == (15, {"a": 15, "b": 15})


def test_holes_stand_between_the_messages_that_they_separate(place: Handover, handed: HandedOver) -> None:
    """A hole that the node knows is not reported again. A message inside a hole is dropped."""
    holes = [(30, 40), (2, 5), (12, 20), (7, 9)]
    catch_up(place, handed, missed(11, 15, 21, 41), 41, holes)
    expected = [("receive", 11), ("hole", 12, 20), ("receive", 21), ("hole", 30, 40), ("receive", 41), ("advance", 41)]
    assert handed.calls == expected
    assert place.holes == set(holes)
    handed.calls.clear()
    catch_up(place, handed, missed(), 41, holes)
    assert handed.calls == [("advance", 41)]


def test_too_much_is_skipped(place: Handover, handed: HandedOver) -> None:
    """Each hole is reported, as each is a loss. Nothing is skipped below the last of them."""
    found = Missed()
    found.give_up()
    assert not found.add([message(11)])
    catch_up(place, handed, found, 30, [(2, 5), (12, 20)])
    assert handed.calls == [("hole", 12, 20), ("skip", 30), ("advance", 30)]
    handed.calls.clear()
    catch_up(place, handed, found, 50, [(40, 50)])
    assert handed.calls == [("hole", 40, 50), ("advance", 50)]


def test_what_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Missed` is too much past its messages or bytes, and stays so."""
    monkeypatch.setattr(handover, "CAUGHT_UP", 2)
    monkeypatch.setattr(handover, "CAUGHT_UP_BYTES", 10)
    found = missed(1, 2)
    assert not found.add([message(3)])
    assert (found.too_much, found.messages()) == (True, None)
    assert not found.add([])
    assert not Missed().add([message(1, b"12345678901")])
    assert Missed().add([message(1, b"1234567890")])


def test_a_pushed_message_names_the_one_before_it(place: Handover, handed: HandedOver) -> None:
    """One of an unconfirmed channel is dropped. One whose predecessor is missing is a loss."""
    sink = GuardedSink(handed)  # type: ignore[arg-type]
    assert not place.follows(sink, "b", 0, 11)
    assert place.follows(sink, "a", 10, 11)
    assert place.last == {"a": 11}
    place.seen = 11
    with pytest.raises(Lost, match="a message of a before 14 did not arrive"):
        place.follows(sink, "a", 12, 14)
    assert handed.calls == []  # nothing came after 11, so what is missing can still be read
    place.seen = 13
    with pytest.raises(Lost):
        place.follows(sink, "a", 12, 14)
    assert handed.calls == [("hole", 11, 13)]


def test_the_head_never_goes_back(place: Handover, handed: HandedOver) -> None:
    """A probe from before a message moves nothing."""
    sink = GuardedSink(handed)  # type: ignore[arg-type]
    place.advance(sink, 9)
    place.advance(sink, 12)
    assert (handed.calls, place.seen) == ([("advance", 12)], 12)


def test_what_is_forgotten_is_confirmed_again(place: Handover, handed: HandedOver) -> None:
    """A channel that was unwanted while there was no session can be wanted again."""
    place.forget(["a", "never"])
    catch_up(place, handed, missed(), 10, [(2, 5)])
    assert handed.calls == [("advance", 10), ("wanted", ["a"], 10)]
