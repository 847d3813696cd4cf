"""The oracle of the broker's faults sees each fault, and nothing else."""

from __future__ import annotations

import pytest

from oncecast import ClientMessage, Gap
from oncecast.message import Cursor

from .broker_oracle import Acknowledged, judge, judge_log
from .client_oracle import Wrong

START = Cursor("e", 0)


def message(seq: int, data: str, epoch: str = "e") -> ClientMessage:
    """A message as the client hands it over."""
    return ClientMessage(id=f"{epoch}-{seq}", channel="a", data=data, time=0.0)


def gap(first: str, last: str | None, cursor: str, reason: str = "unknown") -> Gap:
    """A gap as the client hands it over."""
    return Gap(channel="a", reason=reason, missed_from=first, missed_to=last, cursor=cursor)


ACKNOWLEDGED = [
    *(Acknowledged("a", Cursor("e", seq), str(seq)) for seq in (1, 2, 3)),
    Acknowledged("a", Cursor("e", 100), "100"),
    Acknowledged("a", Cursor("f", 1), "f1"),
]
TRIED = dict.fromkeys(("1", "2", "3", "100", "f1", "never acknowledged"), "a")


@pytest.mark.parametrize(
    "seen",
    [
        [message(1, "1"), message(2, "2"), message(3, "3"), message(100, "100")],
        [message(1, "1"), gap("e-2", "e-99", "e-99"), message(100, "100")],
        [message(1, "1"), message(2, "2"), message(3, "3"), message(50, "never acknowledged"), message(100, "100")],
        [message(1, "1"), gap("e-2", None, "f-0", "epoch"), message(1, "f1", "f")],
    ],
)
def test_what_was_acknowledged_or_a_gap(seen: list[ClientMessage | Gap]) -> None:
    """Contiguous, with a gap where it is not, and with what may be there."""
    judge("a", START, seen, ACKNOWLEDGED, TRIED, [], gaps=True, loss=True)


@pytest.mark.parametrize(
    "seen, said",
    [
        ([message(1, "1"), message(3, "3")], "e-2 was acknowledged, and never came between"),
        (
            [message(1, "1"), gap("e-3", "e-99", "e-99"), message(100, "100")],
            "e-2 was acknowledged, and never came between",
        ),
        ([message(1, "1"), message(2, "2"), message(2, "2")], "came twice"),
        ([message(1, "1"), message(2, "2"), message(4, "2")], "came twice"),
        ([message(2, "2"), message(1, "1")], "e-1 was acknowledged"),
        ([message(1, "1"), message(2, "3")], "not '2'"),
        ([message(1, "1"), message(2, "nobody's")], "not '2'"),
        ([message(1, "1"), message(1, "f1", "f")], "without a gap"),
        ([message(1, "1"), message(2, "2"), message(3, "3")], "never came"),
        ([message(1, "1"), gap("e-2", "e-3", "e-3"), message(1, "1")], "came twice"),
        ([gap("e-1", "e-3", "e-3"), message(50, "2"), message(4, "never acknowledged")], "after e-50 came e-4"),
    ],
)
def test_each_fault_is_seen(seen: list[ClientMessage | Gap], said: str) -> None:
    """Lost, twice, out of order, another message, another log in silence, an end that never came."""
    with pytest.raises(Wrong, match=said):
        judge("a", START, seen, ACKNOWLEDGED, TRIED, [], gaps=True, loss=True)


def test_a_gap_where_nothing_can_be_lost_is_wrong() -> None:
    """A pause or a partition loses nothing."""
    with pytest.raises(Wrong, match="where nothing can be lost"):
        judge("a", START, [gap("e-1", "e-3", "e-3")], ACKNOWLEDGED, TRIED, [], gaps=False, loss=False)


def test_a_gap_names_nothing_that_is_in_the_log() -> None:
    """What a gap names can't be had any more."""
    seen: list[ClientMessage | Gap] = [message(1, "1"), gap("e-2", "e-99", "e-99"), message(100, "100")]
    with pytest.raises(Wrong, match="the log has e-3 to e-3 of it"):
        judge("a", START, seen, ACKNOWLEDGED, TRIED, [Cursor("e", 3)], gaps=True, loss=True)


def test_a_gap_excuses_no_loss_where_nothing_can_be_lost() -> None:
    """A server that is killed and starts on its data has what was acknowledged."""
    seen: list[ClientMessage | Gap] = [message(1, "1"), gap("e-2", "e-99", "e-99"), message(100, "100")]
    with pytest.raises(Wrong, match="e-2 was acknowledged, and never came"):
        judge("a", START, seen, ACKNOWLEDGED, TRIED, [], gaps=True, loss=False)
    complete: list[ClientMessage | Gap] = [
        *(message(seq, str(seq)) for seq in (1, 2, 3)),
        gap("e-4", "e-99", "e-99"),
        message(100, "100"),
    ]
    judge(
        "a",
        START,
        complete,
        [each for each in ACKNOWLEDGED if each.cursor.epoch == "e"],
        TRIED,
        [],
        gaps=True,
        loss=False,
    )


@pytest.mark.parametrize(
    "log, said",
    [
        ([(1, "1"), (2, "2"), (3, "3")], "e-100 was acknowledged, and is not in the log"),
        ([(1, "1"), (2, "2"), (3, "3"), (50, "3"), (100, "100")], "'3' twice, at e-3 and e-50"),
        ([(1, "1"), (2, "3"), (3, "3"), (100, "100")], "the log has '3' at e-2, not '2'"),
        ([(1, "1"), (2, "2"), (4, "nobody's"), (100, "100")], 'the log has "nobody\'s" at e-4'),
        ([(2, "2"), (1, "1"), (3, "3"), (100, "100")], "the log has e-1 after 2"),
    ],
)
def test_each_fault_of_the_log_is_seen(log: list[tuple[int, str]], said: str) -> None:
    """Lost, twice, another message, out of order."""
    acknowledged = [each for each in ACKNOWLEDGED if each.cursor.epoch == "e"]
    with pytest.raises(Wrong, match=said):
        judge_log("a", [(Cursor("e", seq), data) for seq, data in log], acknowledged, TRIED, loss=False)


def test_a_log_that_has_what_was_acknowledged_is_right() -> None:
    """Also with what was tried and never acknowledged, and where something may be lost with less."""
    log = [(Cursor("e", seq), str(seq)) for seq in (1, 2, 3)]
    judge_log("a", log, ACKNOWLEDGED, TRIED, loss=True)
    judge_log("a", [*log, (Cursor("e", 4), "never acknowledged")], ACKNOWLEDGED[:3], TRIED, loss=False)
