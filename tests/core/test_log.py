"""The log: where each start begins, what retention keeps, when a gap is told, and what is counted."""

from __future__ import annotations

import sys

import pytest

from oncecast.core import log as log_module
from oncecast.core.entry import ENTRY_BYTES, Entry
from oncecast.core.log import Log
from oncecast.core.place import Place, chain_gaps, pass_gaps, resolve
from oncecast.message import EARLIEST, LATEST, MAX_SEQ, Cursor, Gap, Kind, Message, Reason, Retention, Start, StartKind

BOTH = ("a", "b")


class Upper:
    """A wire format that counts how often it is asked."""

    def __init__(self) -> None:
        self.made = 0

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the data in capitals, and the epoch."""
        self.made += 1
        return message.data.upper() + epoch.encode()


def make(retention: Retention | None = None, max_bytes: int = 1 << 20) -> Log:
    """A log whose every channel is kept alike."""
    kept = Retention() if retention is None else retention
    return Log("e", lambda channel: kept, max_bytes=max_bytes)


def fill(log: Log, channels: str, *, now: float = 0.0, data: bytes = b"1") -> Log:
    """Append one message for each letter, to the channel of that letter; its time is its number."""
    for channel in channels:
        seq = log.head + 1
        log.append(Message(seq, channel, data, Kind.JSON, None, float(seq)), now)
    return log


def seqs(entries: list[Entry]) -> list[int]:
    """The numbers of entries."""
    return [entry.seq for entry in entries]


def after(seq: int, epoch: str = "e") -> Start:
    """The start right after a cursor."""
    return Start(StartKind.CURSOR, Cursor(epoch, seq))


def last(count: int) -> Start:
    """The start that yields the last `count` messages."""
    return Start(StartKind.LAST, number=count)


def since(time: float) -> Start:
    """The start at a time."""
    return Start(StartKind.SINCE, number=time)


def read(log: Log, channels: tuple[str, ...], place: Place) -> list[int]:
    """All that a reader gets from a place, as numbers."""
    return seqs(log.read_after(channels, place.seq, 1000, floors=place.floors))


def told(gaps: list[Gap]) -> list[tuple[str, Reason, int, int | None, int]]:
    """Gaps as plain tuples: channel, reason, from, to, and where the stream goes on."""
    return [
        (g.channel, g.reason, g.missed_from.seq, g.missed_to.seq if g.missed_to else None, g.cursor.seq) for g in gaps
    ]


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
        (("a", "nobody"), last(1), [4]),
        (("b", "a"), last(1), [4, 6]),
        (BOTH, since(2.0), [2, 3, 4, 6]),
        (BOTH, since(5.0), [6]),
        (("nobody",), EARLIEST, []),
        (("nobody",), last(3), []),
        (("nobody",), since(0.0), []),
        (("nobody",), after(0), []),
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
    """A subscriber of an empty log is told a cursor, from which it gets the first message."""
    log = make()
    place = resolve(log, ("a",), start)
    assert (Cursor("e", 0), []) == (place.announced, place.gaps)
    assert [1] == read(fill(log, "a"), ("a",), place)


def test_latest_begins_at_the_head_of_the_whole_log() -> None:
    """The cursor is as fresh as it can be, whatever channel the last message was on."""
    assert 3 == resolve(fill(make(), "abb"), ("a",), LATEST).seq


@pytest.mark.parametrize("start", [EARLIEST, last(9)])
def test_what_was_trimmed_before_is_no_gap_to_who_asks_for_what_there_is(start: Start) -> None:
    """`earliest` and `last` ask for what is held, so nothing of it is missing; what goes later is."""
    log = fill(make(Retention(messages=2)), "aaab")
    place = resolve(log, BOTH, start)
    assert [] == place.gaps
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)
    fill(log, "a")
    assert [("a", Reason.SLOW, 2, 2, 2)] == told(pass_gaps(log, BOTH, place, Reason.SLOW))


def test_earliest_of_several_channels_forgives_each_its_own() -> None:
    """A channel trimmed past the first message of another is no gap at the start, and only its later loss is one."""
    log = fill(make(Retention(messages=1)), "baaa")
    place = resolve(log, BOTH, EARLIEST)
    assert ([1, 4], []) == (read(log, BOTH, place), pass_gaps(log, BOTH, place, Reason.SLOW))
    fill(log, "a")
    assert [("a", Reason.SLOW, 4, 4, 0)] == told(pass_gaps(log, BOTH, place, Reason.SLOW))
    assert [1, 5] == read(log, BOTH, place)


def test_since_a_time_that_was_trimmed_is_a_gap() -> None:
    """Messages of that time were there and are gone."""
    log = fill(make(Retention(messages=2)), "aaaa")
    place = resolve(log, ("a",), since(2.0))
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == told(place.gaps)
    assert (Cursor("e", 1), [3, 4]) == (place.announced, read(log, ("a",), place))


def test_since_a_time_after_what_was_trimmed_is_no_gap() -> None:
    """Only older messages are gone, also where another channel puts the place before them."""
    log = fill(make(Retention(messages=2)), "baaaa")
    assert ([], [4, 5]) == ((place := resolve(log, ("a",), since(3.5))).gaps, read(log, ("a",), place))
    place = resolve(log, BOTH, since(1.0))
    assert [("a", Reason.EXPIRED, 1, 3, 0)] == told(place.gaps)
    log = fill(make(Retention(messages=2)), "aaab")
    place = resolve(log, BOTH, since(1.5))
    assert ([], [2, 3, 4]) == (place.gaps, read(log, BOTH, place))
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)


def test_since_on_a_channel_that_has_emptied_goes_by_its_mark() -> None:
    """The mark remembers when its message was, so the answer is a gap or nothing, as it should be."""
    log = fill(make(Retention(seconds=10)), "aab")
    log.trim(11.0)
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == told(resolve(log, ("a",), since(2.0)).gaps)
    assert [] == resolve(log, ("a",), since(2.5)).gaps


# -- retention


def test_a_channel_keeps_its_number_of_messages() -> None:
    """The oldest goes when one too many comes, on that channel alone."""
    log = fill(make(Retention(messages=2)), "abbaa")
    assert ([2, 3, 4, 5], 4) == (seqs(log.read_after(BOTH, 0, 9)), log.count)


def test_a_channel_may_keep_nothing() -> None:
    """Retention of no messages delivers live and answers every resume with a gap."""
    log = fill(make(Retention(messages=0)), "aa")
    assert ([], 0, 0) == (log.read_after(("a",), 0, 9), log.count, log.bytes)
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == told(resolve(log, ("a",), after(1)).gaps)


def test_each_channel_has_its_own_retention() -> None:
    """The name decides."""
    log = Log("e", lambda channel: Retention(messages=1 if channel == "a" else 9))
    assert [2, 3, 4] == seqs(fill(log, "abba").read_after(BOTH, 0, 9))


def test_a_channel_keeps_messages_for_a_time() -> None:
    """A message is held as long as retention says, to the second, and is gone after the next trim."""
    log = fill(make(Retention(seconds=10)), "a")
    fill(log, "a", now=5.0)
    log.trim(10.0)
    assert [1, 2] == seqs(log.read_after(("a",), 0, 9))
    log.trim(10.1)
    assert [2] == seqs(log.read_after(("a",), 0, 9))


def test_an_append_trims_its_channel_by_age() -> None:
    """A busy channel needs no sweep."""
    log = fill(make(Retention(seconds=10)), "aab")
    fill(log, "a", now=20.0)
    assert [3, 4] == seqs(log.read_after(BOTH, 0, 9))


def test_a_sweep_looks_at_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trim looks at so many channels and no more, and the next goes on after them."""
    monkeypatch.setattr(log_module, "SWEEP_CHANNELS", 2)
    log = fill(make(Retention(seconds=10)), "abc")
    log.trim(11.0)
    assert [3] == seqs(log.read_after(("a", "b", "c"), 0, 9))
    log.trim(11.0)
    assert [] == log.read_after(("a", "b", "c"), 0, 9)
    log.trim(11.0)
    assert (0, 0) == (log.count, log.bytes)


def test_past_the_bytes_the_oldest_of_the_whole_log_goes() -> None:
    """Memory has one bound for all channels, so a busy one may push out a quiet one's."""
    log = make(max_bytes=3 * (ENTRY_BYTES + 100))
    fill(log, "abbb", data=bytes(100))
    assert ([2, 3, 4], 3 * (ENTRY_BYTES + 100)) == (seqs(log.read_after(BOTH, 0, 9)), log.bytes)
    assert [("a", Reason.EXPIRED, 1, 1, 1)] == told(resolve(log, ("a",), after(0)).gaps)


def test_a_message_larger_than_the_bound_is_still_held() -> None:
    """The newest message stays, or nobody could read it at all."""
    log = fill(make(max_bytes=500), "ab", data=bytes(1000))
    assert [2] == seqs(log.read_after(BOTH, 0, 9))


def test_encodings_count_against_the_bytes() -> None:
    """What an encoding weighs pushes older messages out, at the next append or the next trim."""
    log = fill(make(max_bytes=3 * (ENTRY_BYTES + 100)), "aaa", data=bytes(100))
    (entry,) = log.read_after(("a",), 2, 9)
    log.encode(entry, Upper())
    assert 3 * (ENTRY_BYTES + 100) + 101 == log.bytes
    log.trim(0.0)
    assert ([2, 3], 2 * (ENTRY_BYTES + 100) + 101) == (seqs(log.read_after(("a",), 0, 9)), log.bytes)


def test_bytes_skip_what_other_retention_took_already() -> None:
    """An entry that its channel has dropped is passed over, and the next oldest goes."""
    log = Log("e", lambda channel: Retention(messages=1 if channel == "a" else 9), max_bytes=3 * (ENTRY_BYTES + 1))
    assert [5, 6, 7] == seqs(fill(log, "aabbbba").read_after(BOTH, 0, 9))


def test_a_number_never_goes_back() -> None:
    """Only the broker numbers, upwards; anything else would break every cursor."""
    log = fill(make(), "aa")
    with pytest.raises(ValueError, match="not above the head 2"):
        log.append(Message(2, "a", b"", Kind.JSON, None, 0.0), 0.0)


def test_the_version_changes_with_every_answer() -> None:
    """An append and a trim change what a read finds; a read and an idle trim do not."""
    log = fill(make(Retention(seconds=10)), "a")
    before = log.version
    log.trim(1.0)
    log.read_after(("a",), 0, 9)
    assert before == log.version
    fill(log, "a")
    appended = log.version
    assert before < appended
    log.trim(11.0)
    assert appended < log.version


# -- marks


def test_a_mark_outlives_its_channel() -> None:
    """A channel that emptied and went still answers a gap, and goes on so when it comes back."""
    log = fill(make(Retention(seconds=10)), "aab")
    log.trim(11.0)
    assert 2 == log.mark("a").seq
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == told(resolve(log, ("a",), after(1)).gaps)
    fill(log, "a", now=11.0)
    place = resolve(log, ("a",), after(1))
    assert ([("a", Reason.EXPIRED, 2, 2, 3)], [4]) == (told(place.gaps), read(log, ("a",), place))


def test_marks_beyond_the_bound_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest marks melt into one that stands for all: a gap too many at worst, never one too few."""
    monkeypatch.setattr(log_module, "MARKS", 2)
    log = fill(make(Retention(seconds=10)), "abcd")
    log.trim(11.0)
    assert [2, 2, 3, 4, 2] == [log.mark(name).seq for name in ("a", "b", "c", "d", "never")]
    assert [] == resolve(log, ("never",), after(2)).gaps
    fill(log, "a", now=11.0)
    assert (2, 2) == (log.mark("a").seq, log.mark("b").seq)


def test_a_channel_of_the_shared_mark_takes_no_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that lost nothing since costs nothing when it goes."""
    monkeypatch.setattr(log_module, "MARKS", 0)
    log = fill(make(Retention(seconds=10)), "a")
    log.trim(11.0)
    assert (1, 0) == (log.mark("a").seq, len(log._marks))
    log._close(log._open("b"))
    assert (1, 0) == (log.mark("b").seq, len(log._marks))


# -- gaps


def test_an_expired_cursor_is_a_gap_exactly_when_something_was_missed() -> None:
    """From before the last message trimmed it is one; from it on it is none."""
    log = fill(make(Retention(messages=2)), "abab" + "ab" + "c")
    found = {seq: told(resolve(log, ("a",), after(seq)).gaps) for seq in range(4)}
    expired = {seq: [("a", Reason.EXPIRED, seq + 1, 1, 2)] for seq in (0,)}
    assert expired | {1: [], 2: [], 3: []} == found


def test_another_epoch_is_a_gap_whose_end_is_not_known() -> None:
    """Each channel is told, with the old cursor, and goes on from the earliest there is."""
    log = fill(make(Retention(messages=2)), "aaab")
    place = resolve(log, BOTH, after(40, "old"))
    assert [Gap(c, Reason.EPOCH, Cursor("old", 41), None, Cursor("e", 1)) for c in BOTH] == place.gaps
    assert (Cursor("old", 40), [2, 3, 4]) == (place.announced, read(log, BOTH, place))
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)


def test_another_epoch_on_an_empty_log_is_a_gap() -> None:
    """A log that was lost answers its old cursors before its first message."""
    place = resolve(make(), ("a",), after(40, "old"))
    assert [Gap("a", Reason.EPOCH, Cursor("old", 41), None, Cursor("e", 0))] == place.gaps


def test_the_largest_cursor_of_another_epoch_makes_a_cursor() -> None:
    """Where the missing range begins can be read back, even where nothing can be after it."""
    (gap,) = resolve(make(), ("a",), after(MAX_SEQ, "old")).gaps
    assert gap.missed_from == Cursor.parse(str(gap.missed_from))


def test_a_cursor_from_the_future_is_a_gap() -> None:
    """It was never handed out by this life of the log, so it goes on from the head."""
    log = fill(make(), "ab")
    place = resolve(log, BOTH, after(9))
    assert [(c, Reason.UNKNOWN, 3, 9, 2) for c in BOTH] == told(place.gaps)
    assert (Cursor("e", 9), 2) == (place.announced, place.seq)


def test_a_gap_on_one_channel_keeps_the_others_messages() -> None:
    """The place goes to before the first message still held, so that what another channel has in the range comes."""
    log = Log("e", lambda channel: Retention(messages=1 if channel == "a" else 9))
    fill(log, "abaabab")
    place = resolve(log, BOTH, after(0))
    assert [("a", Reason.EXPIRED, 1, 4, 1)] == told(place.gaps)
    assert [2, 5, 6, 7] == read(log, BOTH, place)


def test_a_gap_is_told_once() -> None:
    """The place remembers what it was told, however far behind the mark it still stands."""
    log = Log("e", lambda channel: Retention(messages=1 if channel == "a" else 9))
    fill(log, "baaab")
    place = resolve(log, BOTH, after(0))
    assert [("a", Reason.EXPIRED, 1, 3, 0)] == told(place.gaps)
    assert [] == pass_gaps(log, BOTH, place, Reason.SLOW)
    fill(log, "a")
    assert [("a", Reason.SLOW, 4, 4, 0)] == told(pass_gaps(log, BOTH, place, Reason.SLOW))
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
    assert [("a", Reason.EXPIRED, 1, 3, 4), ("b", Reason.EXPIRED, 1, 4, 4)] == told(place.gaps)


# -- reading


def test_a_read_is_bounded_by_messages() -> None:
    """It stops at the limit, on one channel and across several."""
    log = fill(make(), "abababab")
    assert [1, 3] == seqs(log.read_after(("a",), 0, 2))
    assert [2, 3, 4] == seqs(log.read_after(BOTH, 1, 3))


def test_a_read_is_bounded_by_bytes_but_yields_one() -> None:
    """As many as fit, and one that does not fit alone, or the reader would stand still."""
    log = fill(make(), "abab", data=bytes(100))
    assert [1, 2] == seqs(log.read_after(BOTH, 0, 9, 299))
    assert [1, 2, 3] == seqs(log.read_after(BOTH, 0, 9, 300))
    assert [1] == seqs(log.read_after(BOTH, 0, 9, 99))
    assert [1] == seqs(log.read_after(BOTH, 0, 9, 0))


def test_the_newest_of_channels_is_what_is_held() -> None:
    """Channels without messages count as nothing, emptied ones too."""
    log = fill(make(Retention(seconds=10)), "aab")
    assert (3, 2, 0) == (log.newest(BOTH), log.newest(("a",)), log.newest(("c",)))
    log._trim_window(log._windows["b"], 11.0)
    assert (2, 0) == (log.newest(BOTH), log.newest(("b",)))


# -- what is held


def test_an_encoding_is_made_once() -> None:
    """Each format asks for its bytes once per entry, and their weight is counted once."""
    log = fill(make(), "a", data=b"x")
    (entry,) = log.read_after(("a",), 0, 1)
    upper, other = Upper(), Upper()
    first = log.encode(entry, upper)
    assert (b"Xe", True, 1) == (first, first is log.encode(entry, upper), upper.made)
    log.encode(entry, other)
    assert ENTRY_BYTES + 1 + 2 * 2 == log.bytes


def test_what_is_gone_is_encoded_but_not_counted() -> None:
    """A block may still need an entry that retention took in the same turn; the log's bytes know nothing of it."""
    log = make(Retention(messages=1))
    entry = log.append(Message(1, "a", b"x", Kind.JSON, None, 0.0), 0.0)
    log.encode(entry, Upper())
    fill(log, "a")
    assert ENTRY_BYTES + 1 == log.bytes
    assert b"Xe" == log.encode(entry, Upper())
    assert ENTRY_BYTES + 1 == log.bytes


def test_what_is_forgotten_is_encoded_but_not_counted() -> None:
    """A turn may still have an entry to deliver when the log begins anew."""
    log = make()
    entry = log.append(Message(1, "a", b"x", Kind.JSON, None, 0.0), 0.0)
    log.forget(1)
    assert (b"Xe", 0) == (log.encode(entry, Upper()), log.bytes)


def test_a_window_gives_its_front_back() -> None:
    """What was trimmed leaves the list once it is half of it, so a channel's memory follows what it holds."""
    log = fill(make(Retention(messages=10)), "a" * 1000)
    window = log._windows["a"]
    assert 10 == len(window)
    assert len(window.entries) <= 20


def test_the_order_of_ages_is_compacted() -> None:
    """Entries that retention took leave the log's order too, though they left from its middle."""
    log = Log("e", lambda channel: Retention(messages=2))
    fill(log, "b" + "a" * 5000)
    assert len(log._order) <= 2 * log.count + 1025
    assert log._windows["b"] is log._order[0]


def test_what_is_dropped_is_let_go_of_at_once() -> None:
    """Memory is given back message by message, not when the list is cleared of half a window."""
    log = make(Retention(messages=100))
    data = bytes([49]) * 1000
    before = sys.getrefcount(data)
    for seq in range(1, 101):
        log.append(Message(seq, "a", data, Kind.JSON, None, float(seq)), 0.0)
    for seq in range(101, 111):
        log.append(Message(seq, "a", b"1", Kind.JSON, None, float(seq)), 0.0)
    assert before + 90 == sys.getrefcount(data)
