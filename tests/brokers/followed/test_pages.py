"""Pages of a followed log: how records are read back."""

from __future__ import annotations

import asyncio

import pytest

from oncecast.brokers.followed.ledger import Chunk, Ledger
from oncecast.brokers.followed.pages import DENSE_BYTES, SPARSE_BYTES, read_page
from oncecast.brokers.followed.record import LIFE, decode_message, encode_control, encode_draft
from oncecast.brokers.lives import first_life
from oncecast.brokers.session import Lost
from oncecast.message import EARLIEST, Cursor, Draft, Kind, Page, Retention, Start, StartKind
from tests.brokers.followed.memory_log import MemoryLog, MemoryServer


def make(*channels: str) -> tuple[MemoryLog, MemoryServer, Ledger]:
    """Return a log with a message of each of these channels, a server on it, and a ledger that has read it."""
    log = MemoryLog()
    log.append([encode_control(LIFE, bytes(8), 1, first_life("e1", str(log.incarnation), 0.0).record())])
    for number, channel in enumerate(channels):
        log.append([encode_draft(Draft(channel, b"%d" % number, Kind.TEXT), bytes(8), number)])
    ledger = Ledger(0, node=b"node-one", policy=lambda channel: Retention(), key_seconds=10.0, foreign=pytest.fail)
    for at, (record, incarnation, time) in enumerate(log.records):
        ledger.feed(Chunk(at, [record], incarnation, time))
    return log, MemoryServer(log), ledger


def read(ledger: Ledger, server: MemoryServer, channels: str, limit: int = 5000, start: Start = EARLIEST) -> Page:
    """Read a page."""
    return asyncio.run(read_page(ledger, server, channels, start, limit, 1 << 30, server.log.now))


def test_what_is_near_is_read_in_one_go() -> None:
    """A dense channel is read in large pieces, a sparse one in small pieces, at its messages only."""
    _, server, ledger = make(*("a" * 150), *("b" * 2500), "c", *("b" * 2500), "c")
    page = read(ledger, server, "a")
    assert len(page.messages) == 150
    assert {size for _, size in server.reads[:-1]} <= {DENSE_BYTES}
    assert len(server.reads) <= 3
    server.reads.clear()
    assert [message.data for message in read(ledger, server, "c").messages] == [b"2650", b"5151"]
    assert server.reads == [(2651, SPARSE_BYTES), (5152, SPARSE_BYTES)]


def test_a_page_is_bounded() -> None:
    """However much is asked for, a page has at most 1,000 messages, and says where it ends."""
    _, server, ledger = make(*("ab" * 700))
    page = read(ledger, server, "ab")
    assert (len(page.messages), page.upto) == (1000, page.messages[-1].seq)


def test_a_record_that_has_changed_is_left_out() -> None:
    """What the server gives back and is no message of the channel is reported, and the page goes on."""
    log, server, ledger = make("a", "a", "a")
    log.records[2] = (b"damaged", *log.records[2][1:])
    found: list[str] = []
    ledger.foreign = found.append
    page = read(ledger, server, "a")
    assert [message.data for message in page.messages] == [b"0", b"2"]
    assert ["the record at offset 2"] == [text.partition(":")[0] for text in found]


def test_a_record_that_is_not_there_is_a_loss() -> None:
    """A server that answers without what was asked for is not believed."""
    log, server, ledger = make("a", "a")
    log.chunks = lambda offset, count: []  # type: ignore[method-assign]
    with pytest.raises(Lost, match="offset 1"):
        read(ledger, server, "a")


def test_a_log_that_is_removed_while_it_is_read_is_a_loss() -> None:
    """After a few tries the page is given up."""
    log, server, ledger = make(*("a" * 10))
    real = server.read

    async def remove(offset: int, max_bytes: int) -> object:
        log.remove(2)
        return await real(offset, max_bytes)

    server.read = remove  # type: ignore[assignment, method-assign]
    with pytest.raises(Lost, match="faster than they are read"):
        read(ledger, server, "a")


def test_since_a_time_that_is_trimmed_begins_before_the_mark() -> None:
    """A page since a time that the server has removed says by its place that something is missing."""
    log, server, ledger = make("a", "a", "a")
    ledger.removed(3)
    log.remove(3)
    page = read(ledger, server, "a", start=Start(StartKind.SINCE, number=1.0))
    assert (page.after, page.marks["a"].seq, [message.data for message in page.messages]) == (1, 2, [b"2"])


def test_a_cursor_from_before_all_lives_reads_what_there_is() -> None:
    """A number below the first is answered like the first."""
    _, server, ledger = make("a", "b", "a")
    page = read(ledger, server, "ax", start=Start(StartKind.CURSOR, Cursor("e1", 0)))
    assert [message.data for message in page.messages] == [b"0", b"2"]
    assert set(page.marks) == {"a", "x"}


def test_another_channels_record_is_no_message_of_this_one() -> None:
    """A record is checked against what the ledger says of it."""
    record = encode_draft(Draft("a", b"1", Kind.TEXT, "event"), bytes(8), 1)
    assert decode_message(record, "a", 1, 2.0).event == "event"
    for channel, damaged in (("b", record), ("a", record[:20]), ("a", b"xx" + record[2:]), ("a", record[:39])):
        with pytest.raises(ValueError, match="it is"):
            decode_message(damaged, channel, 1, 2.0)
