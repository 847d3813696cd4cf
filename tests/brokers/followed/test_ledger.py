"""The ledger of a followed log: what each record is, and that late readers come to the same conclusions."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from oncecast.brokers.followed.ledger import Chunk, Fed, Ledger
from oncecast.brokers.followed.record import (
    HEAD,
    LIFE,
    LIVES,
    MAGIC,
    NO_KEY,
    PROBE,
    TRIM,
    encode_control,
    encode_draft,
    encode_trim,
)
from oncecast.brokers.lives import Life
from oncecast.brokers.session import Lost
from oncecast.message import Draft, Kind, Mark, Retention

NODE, OTHER = b"node-one", b"node-two"


def life(server: str, base: int = 0, epoch: str = "e1") -> bytes:
    """Return the record of a life."""
    return encode_control(LIFE, OTHER, 1, Life(0, epoch, 5.0, server, base).record())


def draft(data: bytes, channel: str = "a", key: str | None = None, node: bytes = NODE, number: int = 1) -> bytes:
    """Return the record of a message."""
    return encode_draft(Draft(channel, data, Kind.TEXT, None, key), node, number)


class Log:
    """A log that is fed to a ledger as it grows, and to others later."""

    def __init__(self, first: int = 0, policy: Retention | None = None) -> None:
        self.chunks: list[Chunk] = []
        self.first = self.end = first
        self.policy = Retention() if policy is None else policy
        self.foreign: list[str] = []  # what its ledgers have left out
        self.ledger = self.make(first)

    def make(self, first: int) -> Ledger:
        """Return a ledger of this log that knows nothing."""
        policy, foreign = (lambda channel: self.policy), self.foreign.append
        ledger = Ledger(first, node=NODE, policy=policy, key_seconds=10.0, foreign=foreign)
        ledger.channels.want(("a", "b"), True)
        return ledger

    def add(self, *records: bytes, incarnation: int = 1, time: float = 100.0) -> Fed:
        """Append a chunk."""
        self.chunks.append(Chunk(self.end, records, incarnation, time))
        self.end += len(records)
        return self.ledger.feed(self.chunks[-1])

    def late(self, first: int) -> Ledger:
        """Return a ledger that has read the log from an offset on."""
        ledger = self.make(first)
        for chunk in self.chunks:
            if chunk.first + len(chunk.records) > first:
                skip = max(0, first - chunk.first)
                ledger.feed(chunk._replace(first=chunk.first + skip, records=chunk.records[skip:]))
        return ledger


def offsets(ledger: Ledger, channel: str = "a") -> list[int]:
    """Return where a channel's messages are."""
    found = ledger.channels.find(channel)
    return [] if found is None else list(found.offsets)


def seqs(feds: Iterable[Fed]) -> list[int]:
    """Return the numbers of the messages that were fed."""
    return [message.seq for fed in feds for message in fed.messages]


def test_messages_are_handed_over_whole_and_own_ones_have_receipts() -> None:
    """Wanted messages come as they were published; each own record has its offset."""
    log = Log()
    log.add(life("1"))
    record = encode_draft(Draft("a", b"\0x", Kind.BINARY, "ünt"), NODE, 7)
    fed = log.add(record, draft(b"2", "quiet", number=8), draft(b"3", node=OTHER))
    (one, three) = fed.messages
    assert (one.seq, one.channel, one.data, one.kind, one.event) == (1, "a", b"\0x", Kind.BINARY, "ünt")
    assert (three.seq, three.data, three.event, three.time) == (3, b"3", None, 100.0)
    assert fed.own == [(7, 1), (8, 2)]
    assert offsets(log.ledger, "quiet") == [2]


def test_a_key_is_void_within_the_window_of_the_logs_time() -> None:
    """A repeat within the window has the first one's receipt; after it the key is new."""
    log = Log()
    log.add(life("1"), time=100.0)
    log.add(draft(b"1", key="k", number=1), time=100.0)
    fed = log.add(draft(b"2", key="k", number=2), draft(b"3", "b", key="k", number=3), time=110.0)
    assert fed.own == [(2, 1), (3, 3)]
    assert log.ledger.void == 1
    assert log.add(draft(b"4", key="k", number=4), time=110.1).own == [(4, 4)]
    assert offsets(log.ledger) == [1, 4]


def test_times_never_go_back() -> None:
    """A server's clock that goes back does not take times back with it."""
    log = Log()
    log.add(life("1"), time=100.0)
    log.add(draft(b"1"), time=99.0)
    found = log.ledger.channels.find("a")
    assert found is not None
    assert list(found.times) == [100.0]


def test_what_is_not_ours_is_skipped() -> None:
    """Foreign and damaged records are reported, each with its offset, and change nothing."""
    log = Log()
    head = [MAGIC, 0, NODE, 1, NO_KEY, 1, 0]
    damaged = [
        b"",
        b"foreign",
        bytes(100),
        HEAD.pack(*head),  # shorter than its channel
        HEAD.pack(MAGIC, 99, *head[2:]) + b"a",
        HEAD.pack(MAGIC, 16 - 1, *head[2:]) + b"a",
        HEAD.pack(*head) + b"*",
        HEAD.pack(*head) + b"\xff",
        HEAD.pack(*head[:5], 0, 0) + b"no channel",
        HEAD.pack(*head[:5], 1, 1) + b"a\xff",  # an event that is no text
        encode_control(LIFE, OTHER, 1, b"{}"),
        encode_control(TRIM, OTHER, 1, b"[]"),
        encode_control(LIFE, OTHER, 1, Life(0, "e", 0.0, "no number", 0).record()),
    ]
    log.add(life("1"))
    fed = log.add(*damaged, draft(b"1"))
    assert seqs([fed]) == [len(damaged) + 1]
    assert [f"the record at offset {offset}" for offset in range(1, len(damaged) + 1)] == log.foreign


def test_a_message_before_the_first_life_is_none() -> None:
    """Without a life a message has no number."""
    log = Log()
    assert log.add(draft(b"1")).own == [(1, None)]
    assert log.ledger.lives is None
    log.add(life("1"))
    assert offsets(log.ledger) == []


def test_a_life_counts_if_its_incarnation_wrote_it_and_is_new() -> None:
    """Late and repeated life records change nothing; a new life jumps; its hole begins where the incarnation does."""
    log = Log()
    log.add(life("1"), draft(b"1"))
    fed = log.add(encode_control(PROBE, NODE, 5), draft(b"stale", number=9), incarnation=2)
    assert (fed.probes, fed.own, fed.ahead, fed.messages) == ([5], [(9, None)], True, [])
    assert not log.ledger.current
    assert log.add(life("1"), incarnation=2).holes == []
    fed = log.add(life("2", 1000), incarnation=2)
    assert (fed.holes, fed.ahead) == ([(1, 1005)], False)
    assert log.add(life("2", 5000, "e2"), incarnation=2).holes == []
    assert seqs([log.add(draft(b"2"), incarnation=2)]) == [log.ledger.seq_of(7)]
    assert log.ledger.seq_of(7) > 1005
    assert log.ledger.lives is not None
    assert log.ledger.lives.holes() == [(1, 1005)]


def test_a_life_never_takes_numbers_back() -> None:
    """A life whose writer's clock stood still begins above the numbers that were given."""
    log = Log()
    log.add(life("1", 500), draft(b"1"))
    ((before, after),) = log.add(life("2", 3), incarnation=2).holes
    assert (before, after > before) == (501, True)
    assert log.ledger.seq_of(3) > 501


def test_late_readers_agree() -> None:
    """A node that reads from any later offset on, past a list of the lives, has the same numbers, keys and messages."""
    log = Log()
    log.add(life("1"), draft(b"1", key="x"))
    log.add(draft(b"stale"), life("2", 1000), draft(b"2"), incarnation=2)
    log.add(draft(b"3", key="k", number=3), incarnation=2)
    listed = log.ledger.list_of_lives()
    log.add(draft(b"between", key="between"), incarnation=2)
    log.add(life("3", 2000), draft(b"4"), incarnation=3)
    log.add(encode_control(LIVES, OTHER, 1, listed), draft(b"5", key="k"), draft(b"6"), incarnation=3)
    whole = log.ledger
    for first in range(1, 6):  # a log is kept for longer than its key window
        late = log.late(first)
        assert offsets(late) == [offset for offset in offsets(whole) if offset >= first], first
        assert late.head == whole.head
        assert [late.seq_of(offset) for offset in offsets(late)] == [whole.seq_of(offset) for offset in offsets(late)]
        assert late.channels.floor == (first - 1, 100.0)
        assert late.current
    assert log.late(6).void == 0  # the first of that key is gone
    assert log.late(5).void == 1


def test_a_damaged_list_of_lives_is_none() -> None:
    """What can't be read does not name the lives."""
    log = Log(first=50)
    for data in (b"", b"{}", b'{"epoch":"e","born":1,"upto":1,"lives":[]}', b"[]"):
        log.add(encode_control(LIVES, OTHER, 1, data), encode_control(PROBE, NODE, 4))
    log.add(encode_control(LIVES, OTHER, 1, b'{"epoch":"e","born":1,"upto":1,"lives":[[0,0,"x",0]]}'))
    assert log.ledger.lives is None
    log.add(life("1"), draft(b"1"))
    assert log.ledger.lives is None  # another one of this life may have been before
    log.ledger.forget_held()
    log.add(life("1"), draft(b"2"))
    assert offsets(log.ledger) == [log.end - 1]
    assert log.ledger.mark(None) == Mark(log.end - 3, 100.0)


def test_what_was_fed_is_left_out() -> None:
    """A server repeats what precedes an offset in its chunk."""
    log = Log()
    log.add(life("1"), draft(b"1"), draft(b"2"))
    again = log.chunks[0]
    assert log.ledger.feed(again) == Fed([], [], [], [])
    fed = log.ledger.feed(again._replace(records=[*again.records, draft(b"3")]))
    assert seqs([fed]) == [3]


def test_records_that_are_missing_are_noticed() -> None:
    """A chunk that does not follow the one before is refused: what is between may hold a life."""
    log = Log()
    log.add(life("1"), draft(b"1"))
    with pytest.raises(Lost, match="from offset 2 to 3"):
        log.ledger.feed(Chunk(4, [draft(b"2")], 1, 100.0))
    assert log.ledger.last == 1


def test_a_channel_is_trimmed_by_count_as_it_grows_and_by_age_when_read() -> None:
    """Its memory is bounded while a log is read; its mark is the last that was trimmed."""
    log = Log(policy=Retention(10, 50.0))
    log.add(life("1"))
    for n in range(300):
        log.add(draft(b""), time=100.0 + n)
    found = log.ledger.channels.find("a")
    assert found is not None
    assert 10 <= len(found.offsets) <= 10 + 1 + 64
    log.ledger.channels.trim(found, 440.0)
    assert list(found.offsets) == [291 + n for n in range(10)]
    assert log.ledger.mark(found) == Mark(290, 389.0)
    log.ledger.channels.trim(found, 500.0)
    assert (list(found.offsets), log.ledger.mark(found)) == ([], Mark(300, 399.0))


def test_an_order_to_trim_holds_for_every_reader() -> None:
    """What a record trims is trimmed where the log says so, on each node."""
    log = Log()
    log.add(life("1"), draft(b"1"), draft(b"2"), draft(b"3"), draft(b"4", "b"))
    log.add(encode_control(TRIM, OTHER, 1, encode_trim("a", 2)), encode_control(TRIM, OTHER, 1, encode_trim("x", 2)))
    for ledger in (log.ledger, log.late(0)):
        assert (offsets(ledger), offsets(ledger, "b")) == ([3], [4])
        assert ledger.mark(ledger.channels.find("a")) == Mark(2, 100.0)
        assert [] == log.foreign


def test_the_sweep_forgets_channels_without_a_trace() -> None:
    """A channel that has nothing and is not wanted is forgotten once the server has removed what it had."""
    log = Log(policy=Retention(10, 50.0))
    log.add(life("1"), draft(b"1", "x"), draft(b"2", "y"), draft(b"3"))
    channels = log.ledger.channels
    assert len(list(channels.sweep(200.0))) == len(channels.by_name) == 4
    log.ledger.removed(3)
    list(channels.sweep(200.0))
    assert sorted(channels.by_name) == [b"a", b"b"]
    assert log.ledger.mark(channels.find("x")) == Mark(2, 100.0)
    assert log.ledger.mark(channels.find("a")) == Mark(3, 100.0)


def test_lives_that_are_wholly_removed_are_forgotten() -> None:
    """The lives that are kept are those that have records."""
    log = Log()
    log.add(life("1"), draft(b"1"))
    log.add(life("2", 1000), draft(b"2"), incarnation=2)
    log.add(life("3", 2000), draft(b"3"), incarnation=3)
    log.ledger.removed(3)
    assert [each.server for each in log.ledger.known_lives] == ["2", "3"]
    log.ledger.removed(2)
    assert log.ledger.first == 3
    assert log.ledger.lives is not None
    assert log.ledger.lives.epoch == "e1"


def test_unwanted_channels_are_not_handed_over() -> None:
    """To want and to unwant takes effect with the next record."""
    log = Log()
    log.add(life("1"))
    log.ledger.channels.want(("a", "never"), False)
    assert log.add(draft(b"1")).messages == []
    log.ledger.channels.want(("a",), True)
    assert seqs([log.add(draft(b"2"))]) == [2]
