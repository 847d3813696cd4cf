"""Places: where each start begins, and when a gap is due."""

from __future__ import annotations

import pytest

from oncecast.core.log import Log
from oncecast.core.place import chain_gaps, locate, pass_gaps, place_of, resolve
from oncecast.message import (
    EARLIEST,
    LATEST,
    MAX_SEQ,
    Cursor,
    LogGap,
    Mark,
    Page,
    Reason,
    Retention,
    Start,
)
from tests.core.conftest import after, fill, last, make, plain, read, seqs, since

BOTH = ("a", "b")


# -- starts


@pytest.mark.parametrize(
    "channels, start, expected",
    [
        (("a",), LATEST, []),
        (("a",), EARLIEST, [1, 3, 4]),
        (("a",), after(0), [1, 3, 4]),
        (("a",), after(1), [3, 4]),
        (("a",), after(2), [3, 4]),
        (("a",), after(6), []),
        (("a",), last(0), []),
        (("a",), last(2), [3, 4]),
        (("a",), last(10**18), [1, 3, 4]),
        (("a",), since(3.0), [3, 4]),
        (("a",), since(2.5), [3, 4]),
        (("a",), since(0.0), [1, 3, 4]),
        (("a",), since(4.1), []),
        (BOTH, EARLIEST, [1, 2, 3, 4, 6]),
        (BOTH, after(2), [3, 4, 6]),
        (BOTH, last(1), [4, 6]),
        (BOTH, last(2), [2, 3, 4, 6]),
        (BOTH, last(3), [1, 2, 3, 4, 6]),
        (("a", "empty"), last(1), [4]),
        (("b", "a"), last(1), [4, 6]),
        (BOTH, since(2.0), [2, 3, 4, 6]),
        (BOTH, since(5.0), [6]),
        (("empty",), EARLIEST, []),
        (("empty",), last(3), []),
        (("empty",), since(0.0), []),
        (("empty",), after(0), []),
    ],
)
def test_each_start_begins_where_it_says(channels: tuple[str, ...], start: Start, expected: list[int]) -> None:
    """Nothing was trimmed, so each start yields exactly its messages, in the log's order, and no gap."""
    log = fill(make(), "abaacb")
    place = resolve(log, channels, start)
    assert expected == read(log, channels, place)
    assert [] == place.gaps
    assert [] == pass_gaps(log, channels, place, Reason.EXPIRED)


@pytest.mark.parametrize("start", [LATEST, EARLIEST, after(0), last(5), since(0.0)])
def test_an_empty_log_has_a_place_to_begin(start: Start) -> None:
    """A subscriber of an empty log is sent a cursor, from which it gets the first message."""
    log = make()
    place = resolve(log, ("a",), start)
    assert (Cursor("e", 0), []) == (place.announced, place.gaps)
    assert [1] == read(fill(log, "a"), ("a",), place)


def test_latest_begins_at_the_head_of_the_whole_log() -> None:
    """The cursor is as fresh as it can be, whatever channel the last message was on."""
    assert 3 == resolve(fill(make(), "abb"), ("a",), LATEST).seq


@pytest.mark.parametrize("start", [EARLIEST, last(9)])
def test_what_was_trimmed_before_a_start_at_what_is_held_is_no_gap(start: Start) -> None:
    """`earliest` and `last` ask for what is held, so nothing of it is missing; what goes later is."""
    log = fill(make(Retention(messages=2)), "aaab")
    place = resolve(log, BOTH, start)
    assert [] == place.gaps
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)
    fill(log, "a")
    assert [("a", Reason.SLOW, 2, 2, 2)] == plain(pass_gaps(log, BOTH, place, Reason.SLOW))


def test_earliest_of_several_channels_reports_no_gap_of_any() -> None:
    """A channel trimmed past the first message of another is no gap at the start, and only its later loss is one."""
    log = fill(make(Retention(messages=1)), "baaa")
    place = resolve(log, BOTH, EARLIEST)
    assert ([1, 4], []) == (read(log, BOTH, place), pass_gaps(log, BOTH, place, Reason.SLOW))
    fill(log, "a")
    assert [("a", Reason.SLOW, 4, 4, 0)] == plain(pass_gaps(log, BOTH, place, Reason.SLOW))
    assert [1, 5] == read(log, BOTH, place)


def test_since_a_time_that_was_trimmed_is_a_gap() -> None:
    """Messages of that time were there and are gone."""
    log = fill(make(Retention(messages=2)), "aaaa")
    place = resolve(log, ("a",), since(2.0))
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == plain(place.gaps)
    assert (Cursor("e", 1), [3, 4]) == (place.announced, read(log, ("a",), place))


def test_since_a_time_after_what_was_trimmed_is_no_gap() -> None:
    """Only older messages are gone, also where another channel puts the place before them."""
    log = fill(make(Retention(messages=2)), "baaaa")
    assert ([], [4, 5]) == ((place := resolve(log, ("a",), since(3.5))).gaps, read(log, ("a",), place))
    place = resolve(log, BOTH, since(1.0))
    assert [("a", Reason.EXPIRED, 3, 3, 0)] == plain(place.gaps)
    log = fill(make(Retention(messages=2)), "aaab")
    place = resolve(log, BOTH, since(1.5))
    assert ([], [2, 3, 4]) == (place.gaps, read(log, BOTH, place))
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)


def test_since_over_channels_names_what_it_names_for_each_alone() -> None:
    """Where several channels were trimmed, each one's gap is of its last message, however they are read."""
    log = fill(make(Retention(messages=1)), "aababbc")
    alone = [gap for name in BOTH for gap in plain(resolve(log, (name,), since(1.0)).gaps)]
    assert [("a", Reason.EXPIRED, 2, 2), ("b", Reason.EXPIRED, 5, 5)] == [gap[:4] for gap in alone]
    for channels in (BOTH, BOTH[::-1], ("b", "c", "a")):
        together = plain(resolve(log, channels, since(1.0)).gaps)
        assert [gap[:4] for gap in alone] == sorted((gap[:4] for gap in together), key=lambda gap: gap[0])


def test_since_on_a_channel_that_has_emptied_goes_by_its_mark() -> None:
    """The mark remembers when its message was, so the answer is a gap or nothing, as it should be."""
    log = fill(make(Retention(seconds=10)), "aab")
    log.trim(11.0)
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == plain(resolve(log, ("a",), since(2.0)).gaps)
    assert [] == resolve(log, ("a",), since(2.5)).gaps


@pytest.mark.parametrize("count", [1, 2, 3, 10**6, 2**63 - 1, 2**63, 10**26, 1e300])
def test_last_counts_for_each_channel(count: float) -> None:
    """Each has its newest, as many as it has, whatever number is asked for and in whichever order they are named."""
    log = fill(make(), "abbcabb")
    held = {name: seqs(log.read_after((name,), 0, 9)) for name in "abcd"}
    for channels in (("a", "b"), ("b", "a"), ("a", "b", "c", "d"), ("d", "a"), ("d",), ("b",)):
        place = resolve(log, channels, last(count))
        expected = sorted(n for name in channels for n in held[name][-min(9, int(count)) :])
        assert expected == read(log, channels, place)
        assert ([], []) == (place.gaps, pass_gaps(log, channels, place, Reason.EXPIRED))
        place.advance(log.head)
        assert () == place.floors


def test_a_place_of_one_channel_has_no_floor() -> None:
    """A place of one channel has no floor, so that all readers at the same number share its pages."""
    log = fill(make(), "aabab")
    for channels in (("a",), ("b",), ("c",), ("c", "d")):
        assert () == resolve(log, channels, last(1)).floors


def test_a_place_with_floors_has_no_gap_for_what_is_below_them() -> None:
    """Trimmed before or after the start: it was not asked for. What is above a floor is missed."""
    log = fill(make(Retention(messages=3)), "abbbb")
    place = resolve(log, BOTH, last(2))
    assert ((0, 3), [1, 4, 5]) == (place.floors, read(log, BOTH, place))
    fill(log, "b")
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)
    fill(log, "b")
    assert [("b", Reason.SLOW, 4, 4, 0)] == plain(pass_gaps(log, BOTH, place, Reason.SLOW))
    assert [1, 5, 6, 7] == read(log, BOTH, place)
    fill(log, "aaa")
    assert [("a", Reason.SLOW, 1, 1, 4)] == plain(pass_gaps(log, BOTH, place, Reason.SLOW))


def test_last_of_a_log_with_a_history_is_known_where_the_window_has_enough() -> None:
    """Of each channel that was ever trimmed the window must hold as many; else the history is asked."""
    log = Log("e", lambda channel: Retention(messages=3), history=True)
    fill(log, "aabbbb")
    for channels, count, known in ((("a",), 9, True), (("b",), 3, True), (("b",), 4, False), (BOTH, 4, False)):
        assert known == (locate(log, channels, last(count)) is not None)
    place = locate(log, BOTH, last(3))
    assert place is not None
    assert [1, 2, 4, 5, 6] == read(log, BOTH, place)
    assert log.covers(BOTH, place.seq, place.floors)
    assert not log.covers(BOTH, place.seq)
    assert None is not locate(log, BOTH, last(0))
    dropped = Log("e", lambda channel: Retention(messages=0), history=True)
    assert None is locate(fill(dropped, "a"), ("a",), last(1))


def test_a_page_gives_a_place_its_floors() -> None:
    """In the order of the channels; what it has trimmed, and what is below a floor, was not asked for."""
    log = Log("e", lambda channel: Retention(), history=True)
    log.head = 9
    page = Page(2, [], 2, {"a": Mark(1), "b": Mark(8)}, {"b": 5, "a": 2})
    place = place_of(log, BOTH, last(3), page)
    assert (2, (2, 5), {"a": 2, "b": 8}) == (place.seq, place.floors, place.reported)
    plain = place_of(log, BOTH, last(3), Page(2, [], 2, {"a": Mark(1), "b": Mark(8)}))
    assert (2, (), {"a": 1, "b": 8}) == (plain.seq, plain.floors, plain.reported)


@pytest.mark.parametrize(
    "start, reported",
    [
        (EARLIEST, {"a": 1, "b": 8}),
        (LATEST, {"a": 1, "b": 8}),
        (since(8.0), {"a": 1, "b": 7}),
        (since(8.1), {"a": 1, "b": 8}),
        (since(1.0), {"a": 1, "b": 7}),
        (since(0.5), {"a": 0, "b": 7}),
        (after(2), {}),
    ],
)
def test_a_page_says_which_of_the_trimmed_was_not_asked_for(start: Start, reported: dict[str, int]) -> None:
    """Everything before a start at what is held, what is older than the time of `since`, nothing after a cursor."""
    log = Log("e", lambda channel: Retention(), history=True)
    log.head = 9
    page = Page(2, [], 2, {"a": Mark(1, 0.5), "b": Mark(8, 8.0)})
    place = place_of(log, BOTH, start, page)
    assert (2, Cursor("e", 2), [], reported) == (place.seq, place.announced, place.gaps, place.reported)
    assert (page.marks["b"].seq > reported.get("b", 2)) == bool(pass_gaps(log, BOTH, place, Reason.EXPIRED, page))


def test_a_cursor_that_the_history_never_gave_is_unknown() -> None:
    """The history says how far it has come: the range is what the cursor claims to have beyond that."""
    log = Log("e", lambda channel: Retention(), history=True)
    place = place_of(log, BOTH, after(7), Page(4, [], 4, {"a": Mark(), "b": Mark()}))
    assert (4, Cursor("e", 7)) == (place.seq, place.announced)
    assert [(c, Reason.UNKNOWN, 5, 7, 4) for c in BOTH] == plain(place.gaps)


@pytest.mark.parametrize("start", [since(1e18), since(4.5)])
def test_since_a_time_to_come_begins_at_the_head(start: Start) -> None:
    """However far it is."""
    log = fill(make(), "abab")
    place = resolve(log, BOTH, start)
    assert (4, [], []) == (place.seq, place.gaps, read(log, BOTH, place))


# -- gaps


def test_an_expired_cursor_is_a_gap_exactly_when_something_was_missed() -> None:
    """From before the last message trimmed it is one; from it on it is none."""
    log = fill(make(Retention(messages=2)), "abab" + "ab" + "c")
    found = {seq: plain(resolve(log, ("a",), after(seq)).gaps) for seq in range(4)}
    expired = {seq: [("a", Reason.EXPIRED, seq + 1, 1, 2)] for seq in (0,)}
    assert expired | {1: [], 2: [], 3: []} == found


def test_another_epoch_is_a_gap_whose_end_is_not_known() -> None:
    """Each channel has a gap with the old cursor, and the stream continues at the earliest that is held."""
    log = fill(make(Retention(messages=2)), "aaab")
    place = resolve(log, BOTH, after(40, "old"))
    assert [LogGap(c, Reason.EPOCH, Cursor("old", 41), None, Cursor("e", 1)) for c in BOTH] == place.gaps
    assert (Cursor("old", 40), [2, 3, 4]) == (place.announced, read(log, BOTH, place))
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)


def test_another_epoch_on_an_empty_log_is_a_gap() -> None:
    """A log that was lost answers its old cursors before its first message."""
    place = resolve(make(), ("a",), after(40, "old"))
    assert [LogGap("a", Reason.EPOCH, Cursor("old", 41), None, Cursor("e", 0))] == place.gaps


def test_the_largest_cursor_of_another_epoch_makes_a_cursor() -> None:
    """Where the missing range begins can be read back, even where nothing can be after it."""
    (gap,) = resolve(make(), ("a",), after(MAX_SEQ, "old")).gaps
    assert gap.missed_from == Cursor.parse(str(gap.missed_from))


def test_a_cursor_from_the_future_is_a_gap() -> None:
    """A cursor that this life of the log has not handed out gets a gap, and the stream goes on at the head."""
    log = fill(make(), "ab")
    place = resolve(log, BOTH, after(9))
    assert [(c, Reason.UNKNOWN, 3, 9, 2) for c in BOTH] == plain(place.gaps)
    assert (Cursor("e", 9), 2) == (place.announced, place.seq)


def test_a_gap_on_one_channel_keeps_the_others_messages() -> None:
    """The place goes to before the first message still held, so that what another channel has in the range comes."""
    log = Log("e", lambda channel: Retention(messages=1 if channel == "a" else 9))
    fill(log, "abaabab")
    place = resolve(log, BOTH, after(0))
    assert [("a", Reason.EXPIRED, 1, 4, 1)] == plain(place.gaps)
    assert [2, 5, 6, 7] == read(log, BOTH, place)


def test_a_gap_is_due_once() -> None:
    """The place has the marks that were reported, however far behind them it stands."""
    log = Log("e", lambda channel: Retention(messages=1 if channel == "a" else 9))
    fill(log, "baaab")
    place = resolve(log, BOTH, after(0))
    assert [("a", Reason.EXPIRED, 1, 3, 0)] == plain(place.gaps)
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)
    fill(log, "a")
    assert [("a", Reason.SLOW, 4, 4, 0)] == plain(pass_gaps(log, BOTH, place, Reason.SLOW))
    place.seq = 6
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)


def test_only_the_last_of_several_gaps_moves_its_holder() -> None:
    """The others point back to before all of them; one alone, or none, is as it is."""
    log = fill(make(Retention(messages=1)), "abab")
    gaps = resolve(log, BOTH, after(0)).gaps
    assert [0, 2] == [gap.cursor.seq for gap in chain_gaps(gaps, Cursor("e", 0))]
    assert (gaps[1:], []) == (chain_gaps(gaps[1:], Cursor("e", 0)), chain_gaps([], Cursor("e", 0)))


def test_with_nothing_left_the_place_goes_past_all_that_was_trimmed() -> None:
    """Else the next read would find the same gap again."""
    log = fill(make(Retention(messages=0)), "abab")
    place = resolve(log, BOTH, after(0))
    assert [("a", Reason.EXPIRED, 1, 3, 4), ("b", Reason.EXPIRED, 1, 4, 4)] == plain(place.gaps)


def test_another_epoch_of_a_history_has_one_gap_for_all_before() -> None:
    """A reader from another epoch gets one gap for all that is trimmed at its first page, and more for later trims."""
    log = Log("e", lambda channel: Retention(), history=True)
    log.head = 9
    place = locate(log, BOTH, after(40, "old"))
    assert place is not None
    assert [LogGap(c, Reason.EPOCH, Cursor("old", 41), None, Cursor("e", 0)) for c in BOTH] == place.gaps
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW, Page(0, [], 5, {"a": Mark(3), "b": Mark()}))
    found = pass_gaps(log, BOTH, place, Reason.SLOW, Page(0, [], 5, {"a": Mark(4), "b": Mark(1)}))
    assert [("a", Reason.SLOW, 4, 4, 5), ("b", Reason.SLOW, 1, 1, 5)] == plain(found)


@pytest.mark.parametrize(
    "channels, start, seq",
    [
        (BOTH, since(2.0), None),  # 2 is trimmed and of that time
        (BOTH, since(2.5), 2),
        (("a",), since(2.0), None),
        (("b",), since(0.0), 4),  # nothing of `b` is trimmed
        (BOTH, EARLIEST, None),
        (("b",), EARLIEST, 4),
        (("c",), EARLIEST, 0),
    ],
)
def test_a_start_is_looked_up_only_where_the_window_lacks_some_of_it(
    channels: tuple[str, ...], start: Start, seq: int | None
) -> None:
    """Else it has its place at once, without a gap."""
    log = fill(Log("e", lambda channel: Retention(messages=2), history=True), "aaaab")
    place = locate(log, channels, start)
    assert seq == (None if place is None else place.seq)
    assert [] == (place.gaps if place else [])
