"""The log: what retention keeps, marks, reading, and what is counted."""

from __future__ import annotations

import sys

import pytest

from oncecast.brokers.base import Opening
from oncecast.core import log as log_module
from oncecast.core.entry import ENTRY_BYTES, TRACE_MEMORY
from oncecast.core.log import Log
from oncecast.core.place import resolve
from oncecast.message import INTERNAL, REVOCATIONS, TICKETS, Kind, Mark, Message, Reason, Retention
from tests.core.conftest import after, fill, make, plain, read, seqs

BOTH = ("a", "b")


class Upper:
    """A wire format that counts how often it is asked."""

    def __init__(self) -> None:
        self.made = 0

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the data in capitals, and the epoch."""
        self.made += 1
        return message.data.upper() + epoch.encode()


# -- retention


def test_a_channel_keeps_its_number_of_messages() -> None:
    """The oldest goes when one too many comes, on that channel alone."""
    log = fill(make(Retention(messages=2)), "abbaa")
    assert ([2, 3, 4, 5], 4) == (seqs(log.read_after(BOTH, 0, 9)), log.count)


def test_a_channel_may_keep_nothing() -> None:
    """Retention of no messages delivers live and answers every resume with a gap."""
    log = fill(make(Retention(messages=0)), "aa")
    assert ([], 0, 0) == (log.read_after(("a",), 0, 9), log.count, log.bytes)
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == plain(resolve(log, ("a",), after(1)).gaps)


def test_each_channel_has_its_own_retention() -> None:
    """The channel's name selects its retention."""
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


def test_how_much_is_kept_may_change() -> None:
    """The next appends and trims apply it, of messages, seconds and bytes; what is trimmed does not come back."""
    kept = {"retention": Retention(messages=3)}
    log = fill(Log("e", lambda channel: kept["retention"], max_bytes=1 << 20), "aaaa")
    kept["retention"] = Retention(messages=2, seconds=10)
    log.change(1 << 20)
    assert [2, 3, 4] == seqs(log.read_after(("a",), 0, 9))
    fill(log, "a", now=5.0)
    assert [4, 5] == seqs(log.read_after(("a",), 0, 9))
    log.trim(11.0)
    assert [5] == seqs(log.read_after(("a",), 0, 9))
    fill(log, "b", now=11.0)
    log.change(ENTRY_BYTES + 1)
    log.trim(11.0)
    assert [6] == seqs(log.read_after(BOTH, 0, 9))


def test_an_append_trims_its_channel_by_age() -> None:
    """A busy channel needs no sweep."""
    log = fill(make(Retention(seconds=10)), "aab")
    fill(log, "a", now=20.0)
    assert [3, 4] == seqs(log.read_after(BOTH, 0, 9))


def test_a_sweep_looks_at_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trim looks at SWEEP_CHANNELS channels, and the next one at those after them."""
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
    assert [("a", Reason.EXPIRED, 1, 1, 1)] == plain(resolve(log, ("a",), after(0)).gaps)


def test_a_message_larger_than_the_bound_is_still_held() -> None:
    """The newest message stays, or no subscriber could read it."""
    log = fill(make(max_bytes=500), "ab", data=bytes(1000))
    assert [2] == seqs(log.read_after(BOTH, 0, 9))


def test_encodings_count_against_the_bytes() -> None:
    """The bytes of an encoding push older messages out at the next append or the next trim."""
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


def test_an_internal_channel_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records push out the oldest of their own channel alone, and no message pushes out one of them."""
    monkeypatch.setattr(log_module, "INTERNAL_BYTES", 2 * (ENTRY_BYTES + 100))
    log = make(max_bytes=2 * (ENTRY_BYTES + 100))
    for seq, channel in enumerate(("a", REVOCATIONS, *[TICKETS] * 50, "b"), 1):
        log.append(Message(seq, channel, bytes(100), Kind.JSON, None, 0.0), 0.0)
    assert [1, 2, 51, 52, 53] == seqs(log.read_after((*BOTH, *INTERNAL), 0, 99))
    assert (5, 5 * (ENTRY_BYTES + 100)) == (log.count, log.bytes)
    fill(log, "bb", data=bytes(100))
    assert [2, 51, 52, 54, 55] == seqs(log.read_after((*BOTH, *INTERNAL), 0, 99))
    log.encode(log.read_after((TICKETS,), 0, 1)[0], Upper())
    log.trim(0.0)
    assert [2, 52, 54, 55] == seqs(log.read_after((*BOTH, *INTERNAL), 0, 99))
    log.forget(60)
    assert (0, 0) == (log.count, log.bytes)


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
    """A channel that emptied and went still answers a gap, and does so after it has come back."""
    log = fill(make(Retention(seconds=10)), "aab")
    log.trim(11.0)
    assert 2 == log.mark("a").seq
    assert [("a", Reason.EXPIRED, 2, 2, 2)] == plain(resolve(log, ("a",), after(1)).gaps)
    fill(log, "a", now=11.0)
    place = resolve(log, ("a",), after(1))
    assert ([("a", Reason.EXPIRED, 2, 2, 3)], [4]) == (plain(place.gaps), read(log, ("a",), place))


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


# -- reading


def test_a_read_is_bounded_by_messages() -> None:
    """A read stops at its limit of messages, on one channel and across several."""
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


@pytest.mark.parametrize("formats", range(4))
def test_the_bytes_of_each_encoding_are_given_back(formats: int) -> None:
    """A log that has dropped an entry counts nothing for it, in however many formats it was."""
    log = fill(make(Retention(messages=1)), "ab")
    (entry,) = log.read_after(("a",), 0, 1)
    for _ in range(formats):
        log.encode(entry, Upper())
    assert 2 * (ENTRY_BYTES + 1) + 2 * formats == log.bytes
    fill(log, "a")
    assert (2 * (ENTRY_BYTES + 1), 2) == (log.bytes, log.count)


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
    """A turn may still have an entry to deliver when the log is emptied."""
    log = make()
    entry = log.append(Message(1, "a", b"x", Kind.JSON, None, 0.0), 0.0)
    log.forget(1)
    assert (b"Xe", 0) == (log.encode(entry, Upper()), log.bytes)


def test_a_window_gives_its_front_back() -> None:
    """Trimmed messages leave a channel's list once they are half of it, so that memory follows what is held."""
    log = fill(make(Retention(messages=10)), "a" * 1000)
    window = log._windows["a"]
    assert 10 == len(window)
    assert len(window.entries) <= 20


def test_the_order_of_ages_is_compacted() -> None:
    """Entries that retention took leave the log's order too, though they left from its middle."""
    log = Log("e", lambda channel: Retention(messages=2))
    fill(log, "b" + "a" * 5000)
    order = log._windows["b"].budget.order
    assert len(order) <= 2 * log.count + 1025
    assert log._windows["b"] is order[0]


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


# -- another log, a hole, and channels that are delivered when they are wanted


def test_a_log_that_is_emptied_knows_nothing_of_before() -> None:
    """Each channel's mark is the number it goes on after, and a trim finds nothing of the windows there were."""
    log = fill(make(Retention(messages=2, seconds=10), max_bytes=3 * (ENTRY_BYTES + 1)), "aaabc")
    log.trim(0.0)
    version = log.version
    log.forget(9)
    assert ([9, 9, 9], 9) == ([log.mark(name).seq for name in "abd"], log.head)
    assert (0, 0, []) == (log.count, log.bytes, log.read_after(BOTH, 0, 9))
    assert version < log.version
    log.trim(100.0)
    fill(log, "abaa", now=100.0)
    assert ([11, 12, 13], 3) == (seqs(log.read_after(BOTH, 0, 9)), log.count)
    fill(log, "bbbbb", now=100.0)
    assert log.bytes <= 3 * (ENTRY_BYTES + 1)
    log.forget(3)
    assert 18 == log.head


def test_a_log_that_is_renewed_is_as_its_opening_says() -> None:
    """A renewed log has the epoch, head, marks and holes of its opening, and refuses places and pages of the log
    before."""
    log = fill(make(), "aab")
    messages = tuple(Message(n, "a", b"1", Kind.JSON, None, float(n)) for n in (6, 7))
    opening = Opening("f", 9, Mark(5, 5.0), messages, {"b": Mark(8, 8.0)}, ((2, 4),))
    version, life = log.version, log.life
    log.renew(opening, 0.0)
    assert ("f", 9, [6, 7]) == (log.epoch, log.head, seqs(log.read_after(BOTH, 0, 9)))
    assert [5, 8, 5] == [log.mark(name).seq for name in "abc"]
    assert [1, 2, 2, 4, 9] == [log.last_given(seq) for seq in (1, 2, 3, 4, 10)]
    assert version < log.version
    assert life < log.life
    log.renew(Opening("g"), 0.0)
    assert ("g", 0, []) == (log.epoch, log.head, log.read_after(BOTH, 0, 9))


def test_a_hole_empties_the_log_and_has_no_cursor() -> None:
    """The numbers between were never given to messages that are left."""
    log = fill(make(), "aaa")
    life = log.life
    log.add_hole(2, 8)
    assert (8, [], [2, 2, 8]) == (log.head, log.read_after(BOTH, 0, 9), [log.last_given(n) for n in (2, 7, 8)])
    assert life < log.life


def test_a_channel_is_held_from_where_the_broker_delivers_it() -> None:
    """A channel's messages before the start of its delivery are in the history, and all of them without a delivery."""
    log = Log("e", lambda channel: Retention(), history=True, only_wanted=True)
    assert ["a", "b"] == log.unwanted(BOTH)
    fill(log, "aaa")
    version = log.version
    log.want("a", 2)
    assert (["b"], [3], 2) == (log.unwanted(BOTH), seqs(log.read_after(("a",), 0, 9)), log.mark("a").seq)
    assert (True, False, False) == (log.covers(("a",), 2), log.covers(("a",), 1), log.covers(("b",), 10**9))
    assert version < log.version
    log.want("b", 7)
    assert 7 == log.mark("b").seq
    version = log.version
    log.unwant("a")
    assert (["a"], [], False) == (log.unwanted(BOTH), log.read_after(("a",), 0, 9), log.covers(("a",), 10**9))
    assert version < log.version


def test_a_broker_that_delivers_everything_is_asked_for_nothing() -> None:
    """`want` and `unwant` change nothing."""
    log = fill(make(), "aa")
    version = log.version
    log.want("a", 1)
    log.unwant("a")
    assert ([], [1, 2], version) == (log.unwanted(BOTH), seqs(log.read_after(("a",), 0, 9)), log.version)


def test_holes_that_overlap_are_one() -> None:
    """A log that was put back to one copy twice: what its second life gave lies in the hole of the third."""
    log = Log("e", lambda channel: Retention(), history=True, lossy_holes=True, holes=((5, 90), (5, 300), (400, 500)))
    assert [(5, 300), (5, 300), (400, 500), None] == [log.next_hole(seq) for seq in (0, 5, 6, 401)]
    log.add_hole(5, 600)
    assert (5, 600) == log.next_hole(1)
    assert [5, 5, 600] == [log.last_given(seq) for seq in (6, 450, 600)]


def test_a_hole_that_lost_nothing_is_passed_without_a_word() -> None:
    """There is no gap if the broker knows that no acknowledged message is lost."""
    assert Log("e", lambda channel: Retention(), history=True, holes=((5, 90),)).next_hole(0) is None


def test_the_context_of_a_trace_counts_against_the_bytes() -> None:
    """What it takes in memory counts, and is given back."""
    log = make()
    log.append(Message(1, "a", b"1", Kind.BINARY, None, 0.0, bytes(25)), 0.0)
    assert ENTRY_BYTES + 1 + TRACE_MEMORY == log.bytes
    log.trim(10**9)
    assert 0 == log.bytes
