"""The node: what a poll finds and where its cursor points, how policies merge, and that it ties the parts together."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from oncecast.brokers.base import Outcome
from oncecast.brokers.memory import MemoryBroker
from oncecast.core import pages as pages_module
from oncecast.core import polls as polls_module
from oncecast.core import replay as replay_module
from oncecast.core.ahead import WAIT_SECONDS
from oncecast.core.node import ChannelPolicy, Node
from oncecast.core.place import Place, resolve
from oncecast.core.polls import Poll
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.errors import Refusal
from oncecast.message import (
    EARLIEST,
    LATEST,
    Cursor,
    Draft,
    LogGap,
    Message,
    Reason,
    Receipt,
    Retention,
    Start,
    StartKind,
)
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import run_now
from oncecast.testing.history_broker import HistoryBroker


class Words:
    """A format that can be read back."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the number and a space."""
        return b"%d " % message.seq

    def block(self, parts: list[bytes]) -> bytes:
        """Join them."""
        return b"".join(parts)


WORDS = Words()


class FakeSink:
    """A sink that keeps what it gets, or fails."""

    def __init__(self, *, broken: bool = False) -> None:
        self.blocks: list[bytes] = []
        self.broken = broken

    def write(self, block: bytes, /) -> None:
        """Keep the block."""
        self.blocks.append(block)
        if self.broken:
            raise RuntimeError("defect")

    def gap(self, gap: LogGap, /) -> None:
        """Not asked for here."""
        raise AssertionError(gap)

    def refuse(self, refusal: Refusal, /) -> None:
        """Not asked for here."""
        raise AssertionError(refusal)


class Bench:
    """A node with a memory broker, a fake clock and turns that a test ends."""

    def __init__(self, **policies: ChannelPolicy) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.broker = MemoryBroker("e", self.clock.wall)
        self.node = Node(
            self.broker,
            policy=lambda channel: policies.get(channel, ChannelPolicy()),
            max_bytes=1 << 20,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
        )
        run_now(self.node.start())

    def publish(self, channels: str, data: bytes = b"1") -> list[Outcome]:
        """Publish a message for each letter in one batch, and return the outcomes."""
        answers: list[Sequence[Outcome]] = []
        self.node.publish([Draft(channel, data) for channel in channels], answers.append)
        (outcomes,) = answers
        return list(outcomes)

    def poll(self, channels: str, start: Start, limit: int = 100) -> Poll:
        """Poll channels with a letter each."""
        answers: list[Poll | Refusal] = []
        self.node.poll(tuple(channels), start, limit, answers.append)
        (answer,) = answers
        assert isinstance(answer, Poll)
        return answer

    def subscribe(self, channels: str, start: Start, sink: FakeSink) -> tuple[Subscription, Place]:
        """Subscribe to channels with a letter each."""
        places: list[Place] = []
        subscription = self.node.subscribe(tuple(channels), start, sink, Words(), places.append)
        (place,) = places
        return subscription, place


def seqs(poll: Poll) -> list[int]:
    """The numbers that a poll found."""
    return [entry.seq for entry in poll.entries]


def after(cursor: Cursor) -> Start:
    """The start right after a cursor."""
    return Start(StartKind.CURSOR, cursor)


def test_a_publish_is_answered_once_with_an_outcome_for_each_draft() -> None:
    """The broker's receipts come back, in order."""
    assert [Receipt("e", 1, "memory"), Receipt("e", 2, "memory")] == Bench().publish("ab")


def test_what_is_published_can_be_polled_at_once() -> None:
    """The message is in the log before its publisher is answered, whether the turn has ended or not."""
    bench = Bench()
    bench.publish("a")
    assert [1] == seqs(bench.poll("a", EARLIEST))


def test_what_is_published_reaches_subscribers_at_the_end_of_the_turn() -> None:
    """A publish writes to no sink. The end of the turn writes all of it."""
    bench = Bench()
    sink = FakeSink()
    subscription, place = bench.subscribe("a", LATEST, sink)
    bench.publish("a")
    bench.publish("a")
    assert (Cursor("e", 0), [], []) == (place.announced, place.gaps, sink.blocks)
    bench.turns.run_all()
    assert [b"1 2 "] == sink.blocks
    bench.node.hub.detach(subscription)
    assert 0 == bench.node.hub.subscriptions


def test_a_subscriber_gets_its_place_with_the_gaps_before_it() -> None:
    """An old cursor is answered at once, and the stream goes on with what is held."""
    bench = Bench(a=ChannelPolicy(Retention(messages=1)))
    bench.publish("aaa")
    sink = FakeSink()
    _, place = bench.subscribe("a", after(Cursor("e", 1)), sink)
    assert [LogGap("a", Reason.EXPIRED, Cursor("e", 2), Cursor("e", 2), Cursor("e", 2))] == place.gaps
    bench.turns.run_all()
    assert [b"3 "] == sink.blocks


def test_a_poll_that_leaves_nothing_behind_points_to_the_head() -> None:
    """The fresher its cursor the later it expires, so other channels' messages move it on."""
    bench = Bench()
    bench.publish("abb")
    for start in (EARLIEST, LATEST, after(Cursor("e", 1))):
        assert Cursor("e", 3) == bench.poll("a", start).cursor


def test_a_poll_that_is_cut_points_to_its_last_message() -> None:
    """Polled on, page by page, each message comes once, until nothing is left."""
    bench = Bench()
    bench.publish("abcab")
    found = []
    start = EARLIEST
    for expected in (2, 5, 5):
        poll = bench.poll("ab", start, limit=2)
        assert Cursor("e", expected) == poll.cursor
        found.append(seqs(poll))
        start = after(poll.cursor)
    assert [[1, 2], [4, 5], []] == found


def test_a_poll_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer holds so much data, or one message."""
    monkeypatch.setattr(polls_module, "POLL_BYTES", 250)
    bench = Bench()
    bench.publish("aaa", bytes(100))
    poll = bench.poll("a", EARLIEST)
    assert ([1, 2], Cursor("e", 2)) == (seqs(poll), poll.cursor)


def test_a_poll_of_an_empty_log_has_a_cursor() -> None:
    """A poll after this cursor misses nothing."""
    bench = Bench()
    poll = bench.poll("a", LATEST)
    assert Poll([], Cursor("e", 0), []) == poll
    bench.publish("a")
    assert [1] == seqs(bench.poll("a", after(poll.cursor)))


def test_a_poll_tells_gaps_and_reads_past_them() -> None:
    """The gap of what was trimmed comes with what is there, and the cursor is past both."""
    bench = Bench(a=ChannelPolicy(Retention(messages=1)))
    bench.publish("aaab")
    poll = bench.poll("ab", after(Cursor("e", 0)))
    assert [LogGap("a", Reason.EXPIRED, Cursor("e", 1), Cursor("e", 2), Cursor("e", 2))] == poll.gaps
    assert ([3, 4], Cursor("e", 4)) == (seqs(poll), poll.cursor)
    assert [] == bench.poll("ab", after(poll.cursor)).gaps


@pytest.mark.parametrize("cursor", [Cursor("e", 9), Cursor("old", 1)])
def test_a_poll_with_a_cursor_of_nowhere_goes_on_from_here(cursor: Cursor) -> None:
    """The gap comes once: the next poll, from the cursor that came with it, has none."""
    bench = Bench()
    bench.publish("a")
    poll = bench.poll("a", after(cursor))
    assert (1, Cursor("e", 1)) == (len(poll.gaps), poll.cursor)
    assert [] == bench.poll("a", after(poll.cursor)).gaps


def test_each_channel_is_kept_as_its_policy_says() -> None:
    """By number as it comes, and by age at the trim, on the monotonic clock."""
    bench = Bench(a=ChannelPolicy(Retention(messages=1)), b=ChannelPolicy(Retention(seconds=5)))
    bench.publish("aab")
    bench.clock.jump(3600)
    bench.node.tick()
    assert [2, 3] == seqs(bench.poll("ab", EARLIEST))
    bench.clock.advance(6)
    bench.node.tick()
    assert [2] == seqs(bench.poll("ab", EARLIEST))


@pytest.mark.parametrize(
    "channels, lag",
    [
        ("r", Lag.RESUME),
        ("l", Lag.LATEST),
        ("d", Lag.DISCONNECT),
        ("lm", Lag.LATEST),
        ("lr", Lag.RESUME),
        ("ld", Lag.DISCONNECT),
        ("rd", Lag.DISCONNECT),
        ("lrd", Lag.DISCONNECT),
    ],
)
def test_the_strictest_policy_of_several_channels_holds(channels: str, lag: Lag) -> None:
    """One channel that must not skip holds for all, and one that disconnects too."""
    lags = {"r": Lag.RESUME, "l": Lag.LATEST, "m": Lag.LATEST, "d": Lag.DISCONNECT}
    bench = Bench(**{name: ChannelPolicy(lag=each) for name, each in lags.items()})
    subscription, _ = bench.subscribe(channels, LATEST, FakeSink())
    assert lag is subscription.lag


def test_an_encoding_is_kept() -> None:
    """Polls share the log's bytes with everybody else."""
    bench = Bench()
    bench.publish("a")
    (entry,) = bench.poll("a", EARLIEST).entries
    words = Words()
    assert b"1 " == bench.node.encode(entry, words)
    assert bench.node.encode(entry, words) is bench.node.encode(entry, words)


def test_a_sink_with_a_defect_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The operator sees the cause; the others see their message."""
    bench = Bench()
    broken, whole = FakeSink(broken=True), FakeSink()
    for sink in (broken, whole):
        bench.subscribe("a", LATEST, sink)
    bench.turns.run_all()
    bench.publish("a")
    with caplog.at_level(logging.ERROR, "oncecast.core.node"):
        bench.turns.run_all()
    assert [b"1 "] == whole.blocks
    assert ["a delivery failed; the subscriber is skipped, the others are not"] == caplog.messages
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "defect" == str(record.exc_info[1])


def test_a_poll_for_nothing_moves_nothing() -> None:
    """With a limit of 0 the cursor stays before what was not returned."""
    bench = Bench()
    bench.publish("aa")
    for start, place in ((EARLIEST, 0), (after(Cursor("e", 1)), 1), (LATEST, 2)):
        poll = bench.poll("a", start, limit=0)
        assert ([], Cursor("e", place)) == (poll.entries, poll.cursor)


def test_last_counts_for_each_channel_of_a_poll() -> None:
    """Within one answer; the next poll goes on from its cursor."""
    bench = Bench()
    bench.publish("abbbab")
    start = Start(StartKind.LAST, number=2)
    assert [1, 4, 5, 6] == seqs(bench.poll("ab", start))
    poll = bench.poll("ab", start, limit=2)
    assert ([1, 4], Cursor("e", 4)) == (seqs(poll), poll.cursor)
    assert [5, 6] == seqs(bench.poll("ab", after(poll.cursor)))
    assert [6] == seqs(bench.poll("bc", Start(StartKind.LAST, number=1)))


# -- a broker with a history


class Late:
    """A node whose broker keeps everything, in a window of `window` messages, and reads when the test says so."""

    def __init__(self, before: str = "", *, window: int = 2, recent: int = 0, **policies: ChannelPolicy) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.broker = HistoryBroker("e", self.clock.wall, at_once=False, recent=recent)
        self.append(before)
        every = ChannelPolicy(Retention(messages=window))
        self.node = Node(
            self.broker,
            policy=lambda channel: policies.get(channel, every),
            max_bytes=1 << 20,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
        )
        run_now(self.node.start())

    def append(self, channels: str) -> None:
        """Let another node publish a message for each letter, not heard of yet."""
        self.broker.append(*(Draft(channel, b"1") for channel in channels))

    def publish(self, channels: str) -> None:
        """Do so, and hear of it."""
        self.append(channels)
        self.broker.hand_over()
        self.turns.run_all()

    def subscribe(self, channels: str, start: Start) -> tuple[LateSink, Subscription]:
        """Subscribe to channels with a letter each."""
        sink = LateSink()
        subscription = self.node.subscribe(tuple(channels), start, sink, WORDS, sink.places.append)
        return sink, subscription

    def poll(self, channels: str, start: Start, limit: int = 100) -> list[Poll | Refusal]:
        """Poll, and return where the answer will be."""
        answers: list[Poll | Refusal] = []
        self.node.poll(tuple(channels), start, limit, answers.append)
        return answers

    def run_all(self) -> None:
        """Answer and turn until nothing is left to do."""
        while self.broker.reads or self.turns.run():
            if self.broker.reads:
                self.broker.answer()


class LateSink:
    """A sink that keeps its places, its messages, its gaps and its refusals."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.blocks: list[bytes] = []
        self.gaps: list[LogGap] = []
        self.refusals: list[str] = []

    def write(self, block: bytes, /) -> None:
        """Keep the block."""
        self.blocks.append(block)

    def gap(self, gap: LogGap, /) -> None:
        """Keep the gap."""
        self.gaps.append(gap)

    def refuse(self, refusal: Refusal, /) -> None:
        """Keep the code."""
        self.refusals.append(refusal.code)

    @property
    def seqs(self) -> list[int]:
        """All the numbers that came."""
        return [int(word) for word in b"".join(self.blocks).split()]


@pytest.mark.parametrize(
    "start, found",
    [
        (EARLIEST, [1, 2, 3, 4, 5, 6]),
        (Start(StartKind.LAST, number=5), [2, 3, 4, 5, 6]),
        (Start(StartKind.SINCE, number=0), [1, 2, 3, 4, 5, 6]),
        (after(Cursor("e", 1)), [2, 3, 4, 5, 6]),
        (after(Cursor("old", 9)), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_subscription_behind_the_window_reads_the_history(start: Start, found: list[int]) -> None:
    """A stream from any start has all of it, pages of the history and then the window, and goes live."""
    late = Late("aaaaaa")
    answers = late.poll("a", start)
    sink, subscription = late.subscribe("a", start)
    late.run_all()
    (poll,) = answers
    assert isinstance(poll, Poll)
    assert (found, Cursor("e", 6)) == (seqs(poll), poll.cursor)
    late.publish("a")
    late.run_all()
    assert ([*found, 7], State.LIVE, 1) == (sink.seqs, subscription.state, len(sink.places))


@pytest.mark.parametrize("start", [LATEST, after(Cursor("e", 5)), Start(StartKind.LAST, number=1)])
def test_a_subscription_in_the_window_asks_no_history(start: Start) -> None:
    """A start that the window covers is answered at once."""
    late = Late()
    late.publish("aaaaaa")
    sink, _ = late.subscribe("a", start)
    assert ([], 1) == (late.broker.reads, len(sink.places))
    assert 1 == len(late.poll("a", start))


def test_a_place_that_comes_late_loses_nothing_of_what_came_meanwhile() -> None:
    """Messages published while a place is looked up come once, after those that were there before."""
    late = Late("aaaa")
    sink, _ = late.subscribe("a", EARLIEST)
    late.broker.look(0)
    late.publish("a")
    late.broker.answer()
    late.turns.run()
    late.broker.look(0)
    late.publish("aa")
    late.run_all()
    assert [1, 2, 3, 4, 5, 6, 7] == sink.seqs


def test_a_subscription_that_ends_before_its_place_is_left_in_peace() -> None:
    """A subscription that ends before its place is known gets neither a place nor a refusal."""
    late = Late("aa")
    for refusal in (None, Refusal("unavailable", "no")):
        sink, subscription = late.subscribe("a", EARLIEST)
        late.node.hub.detach(subscription)
        late.broker.answer(0, refusal)
        assert ([], []) == (sink.places, sink.refusals)


def test_a_subscription_may_be_blocked_before_it_has_a_place() -> None:
    """A subscription that is blocked before it has a place gets its place, and reads when its sink has drained."""
    late = Late("aa")
    sink, subscription = late.subscribe("a", EARLIEST)
    late.node.hub.block([subscription])
    late.node.hub.unblock([subscription])
    late.node.hub.block([subscription])
    late.run_all()
    assert (1, []) == (len(sink.places), sink.seqs)
    late.node.hub.unblock([subscription])
    late.run_all()
    assert [1, 2] == sink.seqs


def test_a_history_that_fails_is_a_refusal() -> None:
    """A history that fails refuses a start, a page and a poll."""
    late = Late("aaaa")
    refusal = Refusal("unavailable", "no")
    sink, _ = late.subscribe("a", EARLIEST)
    late.broker.answer(0, refusal)
    page, subscription = late.subscribe("a", after(Cursor("e", 0)))
    late.turns.run_all()
    late.broker.answer(0, refusal)
    answers = late.poll("a", EARLIEST)
    late.broker.answer(0, refusal)
    assert (["unavailable"], ["unavailable"], [refusal]) == (sink.refusals, page.refusals, answers)
    late.node.hub.detach(subscription)
    late.node.hub.refuse(subscription, refusal)
    assert ["unavailable"] == page.refusals


def test_a_refusal_that_comes_at_once_is_raised() -> None:
    """A refusal that comes before the call returns is raised by it, and no subscription is left behind."""
    late = Late("aaaa")
    run_now(late.broker.stop())
    with pytest.raises(Refusal):
        late.subscribe("a", EARLIEST)
    assert 0 == late.node.hub.subscriptions


def test_a_history_that_answers_at_once_is_fine() -> None:
    """The place is there before `subscribe` returns."""
    late = Late("aaaa")
    late.broker.at_once = True
    sink, _ = late.subscribe("a", EARLIEST)
    assert 1 == len(sink.places)
    late.turns.run_all()
    assert [1, 2, 3, 4] == sink.seqs


def test_a_gap_is_what_the_history_has_trimmed() -> None:
    """Messages that only the window has dropped are no gap."""
    late = Late("aaaaaaaa")
    late.broker.trim("a", 3)
    sink, subscription = late.subscribe("a", after(Cursor("e", 1)))
    late.run_all()
    gap = LogGap("a", Reason.EXPIRED, Cursor("e", 2), Cursor("e", 3), Cursor("e", 3))
    assert ([gap], [4, 5, 6, 7, 8]) == (sink.gaps, sink.seqs)
    answers = late.poll("a", after(Cursor("e", 1)))
    late.run_all()
    (poll,) = answers
    assert isinstance(poll, Poll)
    assert ([gap], [4, 5, 6, 7, 8]) == (poll.gaps, seqs(poll))
    late.node.hub.block([subscription])
    late.publish("aaaa")
    late.broker.trim("a", 10)
    late.node.hub.unblock([subscription])
    late.run_all()
    assert [Reason.EXPIRED, Reason.SLOW] == [gap.reason for gap in sink.gaps]
    assert [4, 5, 6, 7, 8, 11, 12] == sink.seqs


def test_what_a_gap_names_does_not_come_from_the_window() -> None:
    """The window may hold what retention has trimmed on the disk: after a gap it lets go of that."""
    late = Late(window=2)
    late.publish("aaaab")
    late.broker.trim("a", 3)
    late.broker.append()
    sink, _ = late.subscribe("ab", after(Cursor("e", 0)))
    late.run_all()
    assert ([(1, 3)], [4, 5]) == ([(g.missed_from.seq, g.missed_to and g.missed_to.seq) for g in sink.gaps], sink.seqs)
    assert 3 == late.node.log.mark("a").seq


def test_what_is_trimmed_and_still_on_its_way_is_waited_for() -> None:
    """A gap must not name what is then delivered: not to a stream, and not to a poll that reads on."""
    late = Late("aa")
    sink, _ = late.subscribe("a", after(Cursor("e", 0)))
    late.turns.run_all()
    late.append("aab")
    late.broker.fetch()
    late.broker.trim("a", 4)
    late.broker.answer()
    answers = late.poll("a", after(Cursor("e", 0)))
    late.broker.answer()
    late.turns.run_all()
    assert ([], [], [], []) == (sink.gaps, sink.seqs, answers, late.broker.reads)
    late.broker.arrive()
    late.run_all()
    (poll,) = answers
    assert isinstance(poll, Poll)
    gap = LogGap("a", Reason.EXPIRED, Cursor("e", 1), Cursor("e", 4), Cursor("e", 5))
    assert ([gap], [], [gap], []) == (sink.gaps, sink.seqs, poll.gaps, seqs(poll))


def test_a_cursor_of_another_node_waits_until_this_one_is_there() -> None:
    """A cursor ahead of this node waits for it and repeats no message; one that no log has handed out gets a gap."""
    late = Late()
    late.append("aaaa")
    sink, subscription = late.subscribe("a", after(Cursor("e", 3)))
    nowhere, _ = late.subscribe("a", after(Cursor("e", 99)))
    late.run_all()
    assert (State.CATCHING_UP, [3]) == (subscription.state, [place.announced.seq for place in sink.places])
    assert [Reason.UNKNOWN] == [gap.reason for gap in nowhere.places[0].gaps]
    late.broker.fetch(2)
    late.broker.arrive()
    late.run_all()
    assert [] == sink.seqs
    late.publish("a")
    late.run_all()
    assert ([4, 5], [5]) == (sink.seqs, nowhere.seqs)


@pytest.mark.parametrize("count", [1, 2, 3, 10**26])
@pytest.mark.parametrize("page", [1, 2, 100])
def test_last_counts_for_each_channel_of_a_history(count: int, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floors go with the subscription from page to page, and from there into what is published."""
    monkeypatch.setattr(pages_module, "PAGE_MESSAGES", page)
    monkeypatch.setattr(replay_module, "PAGE_MESSAGES", page)
    late = Late("abbbbbab")
    sink, subscription = late.subscribe("ab", Start(StartKind.LAST, number=count))
    answers = late.poll("ab", Start(StartKind.LAST, number=count))
    late.run_all()
    newest = {1: [7, 8], 2: [1, 6, 7, 8], 3: [1, 5, 6, 7, 8]}.get(count, [1, 2, 3, 4, 5, 6, 7, 8])
    late.publish("ba")
    late.run_all()
    assert ([*newest, 9, 10], [], State.LIVE) == (sink.seqs, sink.gaps, subscription.state)
    (poll,) = answers
    assert isinstance(poll, Poll)
    assert (newest, [], Cursor("e", 8)) == (seqs(poll), poll.gaps, poll.cursor)


def test_a_page_of_history_is_not_read_through_what_is_below_a_floor() -> None:
    """A busy channel beside a quiet one costs no page for the messages that are left out."""
    late = Late("a" + "b" * 1000)
    sink, _ = late.subscribe("ab", Start(StartKind.LAST, number=1))
    late.run_all()
    assert ([1, 1001], 1) == (sink.seqs, late.node.hub.counters.pages)


def test_a_poll_that_waits_for_its_node_is_refused_in_time() -> None:
    """A poll whose cursor this node does not reach by the deadline is refused, and its client asks elsewhere."""
    late = Late("aa")
    late.append("aab")
    late.broker.fetch()
    late.broker.trim("a", 4)
    answers = late.poll("a", after(Cursor("e", 0)))
    late.broker.answer()
    late.node.tick()
    late.clock.advance(WAIT_SECONDS - 1)
    late.node.tick()
    assert [] == answers
    late.clock.advance(1)
    late.node.tick()
    (answer,) = answers
    assert isinstance(answer, Refusal)
    assert ("unavailable", 1) == (answer.code, answer.retry_after)
    late.broker.hand_over()
    late.run_all()
    assert 1 == len(answers)


def test_a_subscription_that_is_ahead_may_leave() -> None:
    """A subscription that is ahead of the log, or waits for its page, is removed when it leaves."""
    late = Late()
    late.append("aaaa")
    _, subscription = late.subscribe("a", after(Cursor("e", 3)))
    late.run_all()
    assert [subscription] == late.node.hub._replay._ahead.owners()
    late.node.hub.detach(subscription)
    assert [] == late.node.hub._replay._ahead.owners()


def test_a_skip_sends_everybody_to_the_history() -> None:
    """Live subscriptions read what they lack, in order and without a gap."""
    late = Late()
    live, one = late.subscribe("a", LATEST)
    both, two = late.subscribe("ab", LATEST)
    stalled, three = late.subscribe("a", LATEST)
    late.turns.run_all()
    late.publish("a")
    late.node.hub.block([three])
    late.append("abab")
    late.broker.skip()
    late.publish("b")
    late.node.hub.unblock([three])
    late.run_all()
    late.publish("a")
    late.run_all()
    assert ([1, 2, 4, 7], [1, 2, 3, 4, 5, 6, 7], [1, 2, 4, 7]) == (live.seqs, both.seqs, stalled.seqs)
    assert [State.LIVE] * 3 == [subscription.state for subscription in (one, two, three)]
    assert [] == live.gaps + both.gaps + stalled.gaps


def test_a_skip_in_the_middle_of_a_turn_delivers_the_turn_first() -> None:
    """Messages handed over before a skip in the same turn are delivered, and the rest is read from the history."""
    late = Late()
    sink, _ = late.subscribe("a", LATEST)
    late.turns.run_all()
    late.append("a")
    late.broker.hand_over()
    late.append("aa")
    late.broker.skip()
    late.run_all()
    assert [1, 2, 3] == sink.seqs


def test_those_at_one_place_share_a_page() -> None:
    """One read for all of them, and its bytes are made once."""
    late = Late("aaaa")
    sinks = [late.subscribe("a", after(Cursor("e", 0)))[0] for _ in range(5)]
    late.turns.run_all()
    assert 1 == len(late.broker.reads)
    late.run_all()
    assert [[1, 2, 3, 4]] * 5 == [sink.seqs for sink in sinks]
    assert 1 == late.node.hub.counters.pages
    assert sinks[0].blocks[0] is sinks[1].blocks[0]


def test_reads_are_bounded_and_everybody_gets_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many pages are asked for or held, whoever else comes, leaves or blocks, and answers in a burst."""
    monkeypatch.setattr(pages_module, "PAGES_FOUND", 2)
    monkeypatch.setattr(replay_module, "PAGES_PER_TURN", 2)
    late = Late("a" * 12)
    clients = [late.subscribe("a", after(Cursor("e", n))) for n in range(10)]
    hub = late.node.hub
    pages = hub._replay._history
    assert pages is not None
    late.turns.run_all()
    assert (2, 8) == (len(late.broker.reads), len(pages._later))
    hub.detach(clients[9][1])
    hub.block([clients[8][1]])
    assert 6 == len(pages._later)
    while late.broker.reads:
        while late.broker.reads:  # all of them before the loop turns once
            late.broker.answer()
            assert len(pages._asked) + len(pages._found) <= 2
        late.turns.run_all()
    hub.unblock([clients[8][1]])
    late.run_all()
    assert [list(range(n + 1, 13)) for n in range(9)] == [sink.seqs for sink, _ in clients[:9]]
    assert ({}, {}, {}) == (pages._found, pages._kept, pages._later)


def test_what_the_history_is_encoded_to_is_not_counted() -> None:
    """Pages reach into the window: their bytes are not those of its entries."""
    late = Late()
    late.publish("aaaa")
    before = late.node.log.bytes
    late.subscribe("a", after(Cursor("e", 0)))
    late.run_all()
    answers = late.poll("a", after(Cursor("e", 0)))
    late.run_all()
    (poll,) = answers
    assert isinstance(poll, Poll)
    words = Words()
    assert [b"1 ", b"2 ", b"3 ", b"4 "] == [late.node.encode(entry, words) for entry in poll.entries]
    assert before == late.node.log.bytes


@pytest.mark.parametrize(
    "between, channels, gaps, found",
    [
        ("aaa", "a", [("a", 2, 3)], [4]),  # the window holds enough to tell what is skipped
        ("aaaab", "ab", [("a", 2, 4)], [5, 6]),  # several have one place: the oldest of their newest
        ("aaabbbb", "ab", [], [2, 3, 4, 5, 6, 7, 8]),  # past the newest of `a` some of `b` is in the history alone
    ],
)
def test_a_slow_subscription_skips_to_the_newest_where_the_window_knows_it(
    between: str, channels: str, gaps: list[tuple[str, int, int]], found: list[int]
) -> None:
    """A gap says exactly what is skipped; where that is not known here, nothing is."""
    policy = ChannelPolicy(Retention(messages=2), Lag.LATEST)
    late = Late(a=policy, b=policy)
    sink, subscription = late.subscribe(channels, LATEST)
    late.turns.run_all()
    late.publish("a")
    late.node.hub.block([subscription])
    late.publish(between)
    late.node.hub.unblock([subscription])
    late.run_all()
    named = [(g.channel, g.missed_from.seq, g.missed_to.seq if g.missed_to else 0) for g in sink.gaps]
    assert (gaps, [1, *found]) == (named, sink.seqs)


def test_a_broker_that_fails_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """`on_failure` is called with the reason, also if it is set later, and the log has it."""
    late = Late()
    other = Late()
    other.node.fail("without anybody to tell")
    heard: list[str] = []
    late.node.on_failure = heard.append
    late.node.fail("the file is gone")
    late.node.fail("and again")
    assert (["the file is gone"], "the file is gone") == (heard, late.node.failed)
    assert ["without anybody to tell", "the file is gone"] == caplog.messages


def test_an_opening_fills_the_window() -> None:
    """The recent messages of an opening are served from memory, and no cursor can be from its holes."""
    late = Late("aaab", recent=3)
    assert [2, 3, 4] == [entry.seq for entry in late.node.log.read_after(("a", "b"), 0, 9)]
    assert (4, 4) == (late.node.log.head, late.node.hub.flushed)
    sink, _ = late.subscribe("ab", after(Cursor("e", 2)))
    late.turns.run_all()
    assert ([], [3, 4]) == (late.broker.reads, sink.seqs)


def test_a_cursor_from_a_hole_is_of_a_lost_end() -> None:
    """A cursor from a hole gets a gap at once, and goes on from before the hole."""
    clock = FakeClock()
    broker = HistoryBroker("e", clock.wall)
    broker.append(Draft("a", b"1"))
    broker.skip_numbers(10)
    node = Node(
        broker,
        policy=lambda channel: ChannelPolicy(),
        max_bytes=1 << 20,
        monotonic=clock.monotonic,
        schedule=Turns().schedule,
    )
    run_now(node.start())
    for seq, reasons in ((1, []), (2, [Reason.UNKNOWN]), (10, [Reason.UNKNOWN]), (11, [])):
        place = resolve(node.log, ("a",), after(Cursor("e", seq)))
        assert reasons == [gap.reason for gap in place.gaps]
        assert (1 if reasons else seq) == place.seq
