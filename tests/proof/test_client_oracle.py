"""The oracle of the client's runs: what is right passes, and each kind of wrong is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from oncecast import ClientMessage, Gap
from oncecast.message import Cursor, Kind, Message

from .client_oracle import Wrong, judge, judge_log

LOG = [Message(n, "ab"[n % 2], str(n).encode(), Kind.TEXT, None, 0.0) for n in range(1, 9)]
LIVES = {"e": LOG, "f": LOG[:4]}
START = Cursor("e", 0)


def got(number: int, epoch: str = "e", data: str | None = None) -> ClientMessage:
    """A message of channel b."""
    return ClientMessage(id=f"{epoch}-{number}", channel="b", data=data or str(number), time=0.0)


def gap(first: str, last: str | None, cursor: str, reason: str = "expired") -> Gap:
    """A gap of channel b."""
    return Gap(channel="b", reason=reason, missed_from=first, missed_to=last, cursor=cursor)


EPOCH = gap("e-8", None, "f-0", "epoch")


@pytest.mark.parametrize(
    "seen",
    [
        [got(1), got(3), got(5), got(7)],
        [got(1), gap("e-2", "e-5", "e-6"), got(7)],
        [got(1), got(3), got(5), got(7), EPOCH, got(1, "f"), got(3, "f")],
        [gap("e-1", None, "f-0", "epoch"), got(1, "f"), got(3, "f")],
    ],
)
def test_what_is_right(seen: Sequence[ClientMessage | Gap]) -> None:
    """A slice, a gap where something is missing, another life after its gap."""
    judge("b", LIVES, START, seen)


@pytest.mark.parametrize(
    "seen",
    [
        [],
        [got(1), got(3), got(5)],
        [got(1), got(5), got(7)],
        [got(1), got(1), got(3), got(5), got(7)],
        [got(3), got(1), got(5), got(7)],
        [got(1, data="2")],
        [got(1, "f"), got(3, "f")],
        [got(1), gap("e-1", "e-5", "e-5"), got(7)],
        [got(1), gap("e-4", "e-5", "e-5"), got(7)],
        [got(1), got(3), gap("e-4", "e-4", "e-4"), got(5), got(7)],
        [got(1), gap("f-2", "f-3", "f-3"), got(5), got(7)],
        [got(1), got(3), gap("e-3", None, "f-0", "epoch"), got(1, "f"), got(3, "f")],
        [EPOCH, EPOCH, got(1, "f"), got(3, "f")],
        [EPOCH, got(3, "f")],
    ],
)
def test_what_is_wrong(seen: Sequence[ClientMessage | Gap]) -> None:
    """Lost, repeated, out of order, changed, of another life without a gap; a gap too early, too late, or needless."""
    with pytest.raises(Wrong):
        judge("b", LIVES, START, seen)


def test_a_life_that_goes_on_under_another_epoch() -> None:
    """Ids of an heir go on where the life was, without a gap; what is lost or repeated there is found all the same."""
    heirs = {"e2": "e", "e3": "e"}
    right: list[ClientMessage | Gap] = [got(1), got(3, "e2"), gap("e2-4", "e3-5", "e3-5"), got(7, "e3")]
    assert Cursor("e", 7) == judge("b", LIVES, START, right, heirs=heirs)
    for wrong in (right[:3], right[1:], [got(1), got(1, "e2"), *right[1:]]):
        with pytest.raises(Wrong):
            judge("b", LIVES, START, wrong, heirs=heirs)
    with pytest.raises(Wrong):
        judge("b", LIVES, START, [got(1), got(3, "e4"), got(5), got(7)], heirs=heirs)
    judge_log({"e": LOG}, {"1": "e-1", "8": "e3-8"}, [str(n) for n in range(2, 8)], heirs=heirs)
    with pytest.raises(Wrong):
        judge_log({"e": LOG}, {"1": "e-1", "8": "e3-8"}, [str(n) for n in range(2, 8)])


def test_a_life_that_is_trimmed_may_begin_later() -> None:
    """With a short retention the first messages of a life may be trimmed before its first gap."""
    judge("b", LIVES, START, [EPOCH, got(3, "f")], trimmed=True)


@pytest.mark.parametrize(
    "acknowledged, others",
    [
        ({"1": "e-1"}, ["2"]),
        ({"9": "e-9"}, [str(n) for n in range(1, 9)]),
        ({"1": "e-2"}, [str(n) for n in range(2, 9)]),
    ],
)
def test_what_is_wrong_in_a_log(acknowledged: dict[str, str], others: list[str]) -> None:
    """Never published; acknowledged and not there; acknowledged with another id."""
    with pytest.raises(Wrong):
        judge_log({"e": LOG}, acknowledged, others)


def test_what_is_twice_in_a_log() -> None:
    """Acknowledged or not, it may be there once."""
    judge_log({"e": LOG}, {"1": "e-1"}, [str(n) for n in range(2, 9)])
    twice = [*LOG, Message(9, "b", b"1", Kind.TEXT, None, 0.0)]
    with pytest.raises(Wrong, match="more than once"):
        judge_log({"e": twice}, {}, [str(n) for n in range(1, 9)])
