"""The clauses of the brokers' contract about the history: pages, starts, openings and trims."""

from __future__ import annotations

import time
from dataclasses import replace

from ..errors import Refusal
from ..message import EARLIEST, LATEST, MAX_SEQ, Draft, Kind, Message, Page, Start, StartKind
from .broker_bench import ENOUGH, BrokerBench, expect

TRIM_SECONDS = 20.0  # for a broker to trim to its retention


def reads_what_it_delivered(bench: BrokerBench) -> None:
    """A page from any cursor has the messages delivered after it, in order, unaltered, up to the limit and `upto`."""
    seqs = [0, *_publish_over_channels(bench)]
    for channels in ("a", "ab", "cba", "x"):
        for seq in (*seqs, seqs[-1] + 1_000):
            for limit in (0, 1, 3, ENOUGH):
                page = bench.page(channels, bench.after(seq), limit)
                if page is None:
                    return
                # The head may be above the last message: a log can number records of its own.
                begins = page.after == seq if seq <= seqs[-1] else seqs[-1] <= page.after <= seq
                expect(begins, "a page begins at its cursor, or at the head before it", page)
                kept = bench.kept(channels, page, page.after)
                expect(page.messages == kept[:limit], "a page has what was delivered after its cursor", page)
                if limit == 0:
                    whole = page.upto == page.after
                elif len(kept) > limit:
                    whole = page.upto == kept[limit - 1].seq
                else:
                    whole = page.upto >= max(page.after, seqs[-1])
                expect(whole, "a page says up to where it has all there is", page)
                expect(set(page.marks) == set(channels), "a page has the mark of each of its channels", page)
                trimmed = [name for name, mark in page.marks.items() if mark.seq > seqs[-1]]
                expect(not trimmed, "a mark is the number of a message", page)


def reads_on_page_by_page(bench: BrokerBench) -> None:
    """A reader that continues at the end of each page gets each message once, up to the head."""
    _publish_over_channels(bench)
    found: list[Message] = []
    seq = 0
    while (page := bench.page("abc", bench.after(seq), 4)) and page.messages:
        expect(page.upto > seq, "a page moves its reader on", page)
        found.extend(page.messages)
        seq = page.upto
    if page is not None:
        expect(found == bench.kept("abc", page, 0), "pages follow one another without a loss or a repeat", found)


def bounds_a_page_by_bytes(bench: BrokerBench) -> None:
    """A page has as many messages as fit in its bytes, and at least one, however large."""
    bench.receipts(*(Draft("a", bytes(100), Kind.BINARY) for _ in range(5)))
    for max_bytes, count in ((1, 1), (100, 1), (250, 2), (300, 3), (ENOUGH, 5)):
        page = bench.page("a", bench.after(0), max_bytes=max_bytes)
        if page is not None:
            expected = bench.kept("a", page, 0)[:count]
            expect(page.messages == expected, "a page holds what fits, or one message", (max_bytes, page))
            expect(page.upto == expected[-1].seq, "a page that is full ends with its last message", page)


def finds_every_start(bench: BrokerBench) -> None:
    """`earliest`, `latest`, `last` and `since` begin right before the first message that they name."""
    _publish_over_channels(bench)
    head = bench.messages[-1].seq
    for channels in ("a", "bc", "x"):
        for start in (LATEST, EARLIEST, *(Start(StartKind.LAST, number=n) for n in (0, 1, 3, 100))):
            page = bench.page(channels, start)
            if page is None:
                return
            kept = bench.kept(channels, page, 0)
            if start.kind is not StartKind.EARLIEST:
                count = int(start.number)
                newest = {name: [m.seq for m in kept if m.channel == name][::-1][:count] for name in channels}
                kept = [message for message in kept if message.seq in newest[message.channel]]
                if start.kind is StartKind.LAST:
                    expect(set(page.floors) == set(channels), "`last` has the floor of each channel", page)
                    above = tuple(page.floors[name] for name in channels)
                    again = bench.page(channels, replace(bench.after(page.after), floors=above))
                    assert again is not None
                    expect(again.messages == kept, "a read with floors leaves out what is not above them", again)
            begins = page.after < kept[0].seq if kept else page.after >= head
            expect(begins and page.messages == kept, f"`{start.kind.value}` begins where it says", page)
        for since in {0.0, *(m.time for m in bench.messages), bench.messages[-1].time + 1}:
            page = bench.page(channels, Start(StartKind.SINCE, number=since))
            assert page is not None
            expected = [message for message in bench.kept(channels, page, 0) if message.time >= since]
            expect(page.messages == expected, "`since` begins with the first message of that time", (since, page))


def opens_where_it_stands(bench: BrokerBench) -> None:
    """An opening's newest messages are the end of the log, and deliveries continue from its head."""
    opening = bench.opening
    seqs = [message.seq for message in opening.recent]
    expect(seqs == sorted(set(seqs)), "the recent messages are in order", seqs)
    expect(opening.floor.seq <= opening.head, "the floor is not above the head", opening)
    expect(all(opening.floor.seq < n <= opening.head for n in seqs), "they are between the floor and the head", opening)
    channels = "".join(sorted({message.channel for message in opening.recent}))
    page = bench.page(channels, bench.after(opening.floor.seq)) if channels else None
    if page is not None:
        expect(page.messages == list(opening.recent), "they are what a read after the floor gives", page)
        above = {name: mark for name, mark in page.marks.items() if mark.seq > opening.floor.seq}
        expect(above == dict(opening.marks), "the marks are those above the floor", opening.marks)
    (receipt,) = bench.receipts(Draft("a", b"1"))
    expect(receipt.seq > opening.head, "what is published is after the head", receipt)


def refuses_reads_once_closed(bench: BrokerBench) -> None:
    """A closed broker answers a read with `unavailable`."""
    bench.receipts(Draft("a", b"1"))
    bench.stop()
    answer = bench.ask("a", EARLIEST)
    refused = answer is None or (isinstance(answer, Refusal) and answer.code == "unavailable")
    expect(refused, "a closed broker refuses to read with `unavailable`", answer)


def _publish_over_channels(bench: BrokerBench) -> list[int]:
    drafts = [Draft("abc"[n * n % 3], b"%d" % n, Kind.JSON, "made" if n % 2 else None) for n in range(14)]
    drafts[5] = Draft("c", b"5", Kind.TEXT)
    return [receipt.seq for at in (0, 5, 10) for receipt in bench.receipts(*drafts[at : at + 5])]


def reads_whatever_number_is_asked(bench: BrokerBench) -> None:
    """A number beyond every log is answered like the log's largest or smallest, and the next read is answered too."""
    if not bench.broker.capabilities.history:
        return
    seqs = _publish_over_channels(bench)
    for number in (MAX_SEQ, MAX_SEQ + 1, 10**26, 1e300):
        last = bench.page("abcx", Start(StartKind.LAST, number=number))
        since = bench.page("abcx", Start(StartKind.SINCE, number=number))
        assert last is not None
        assert since is not None
        expect(
            last.messages == bench.kept("abcx", last, 0), "`last` of more than there is is all of it", (number, last)
        )
        expect(since.messages == [], "`since` a time to come is nothing", (number, since))
    beyond = bench.page("a", bench.after(MAX_SEQ))
    assert beyond is not None
    expect((beyond.messages, beyond.after >= seqs[-1]) == ([], True), "a cursor from beyond begins at the head", beyond)


def answers_many_reads(bench: BrokerBench) -> None:
    """Concurrent reads are all answered, each with its own page."""
    if not bench.broker.capabilities.history:
        return
    seqs = [0, *_publish_over_channels(bench)]
    answers: list[tuple[str, int, Page | Refusal]] = []
    asked = [(channel, seq) for channel in "abcx" for seq in seqs] * 4
    for channel, seq in asked:

        def answered(answer: Page | Refusal, channel: str = channel, seq: int = seq) -> None:
            answers.append((channel, seq, answer))

        bench.broker.read((channel,), bench.after(seq), ENOUGH, ENOUGH, answered)
    bench.wait(lambda: len(answers) >= len(asked))
    expect(len(answers) == len(asked), "each read is answered once", len(answers))
    for channel, seq, answer in answers:
        expect(isinstance(answer, Page), "a read of what there is is answered with a page", answer)
        assert isinstance(answer, Page)
        expect(answer.messages == bench.kept(channel, answer, seq), "a read gets its own page", (channel, seq, answer))


def marks_what_it_trims(bench: BrokerBench) -> None:
    """A page has the mark of a trimmed channel and all messages above it; other channels keep their messages."""
    if bench.lab.trim is None:
        return
    for _ in range(30):
        bench.receipts(*(Draft("a", b"trimmed") for _ in range(20)), Draft("b", b"kept"))
    bench.lab.trim("a", 10)
    bench.receipts(*(Draft("a", b"1") for _ in range(100)))

    def trimmed() -> Page | None:
        page = bench.page("ab", bench.after(0))
        return page if page is not None and page.marks["a"].seq > bench.messages[0].seq else None

    end = time.monotonic() + TRIM_SECONDS
    while trimmed() is None and time.monotonic() < end:
        bench.receipts(Draft("a", b"1"))  # a publish may make the broker trim
    page = trimmed()
    expect(page is not None, "what is over is trimmed, and marked", None)
    assert page is not None
    mark = page.marks["a"]
    gone = [message for message in bench.messages if message.channel == "a" and message.seq <= mark.seq]
    expect((mark.seq, mark.time) == (gone[-1].seq, gone[-1].time), "a mark is the last message that was trimmed", mark)
    expect(page.messages == bench.kept("ab", page, 0), "a page holds all that is not trimmed", page)
    expect(page.marks["b"].seq < bench.messages[0].seq, "another channel is not trimmed", page.marks)
    for start in (EARLIEST, Start(StartKind.LAST, number=3), Start(StartKind.SINCE, number=0)):
        found = bench.page("a", start)
        assert found is not None
        kept = bench.kept("a", found, 0)
        if start.kind is StartKind.LAST:
            kept = kept[-3:]
        expect(found.messages == kept, "each start finds what is not trimmed", (start, found))
