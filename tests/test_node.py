"""The node: what a poll finds and where its cursor points, how policies merge, and that it ties the parts together."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from oncecast import node as node_module
from oncecast.brokers.base import Outcome
from oncecast.brokers.memory import MemoryBroker
from oncecast.errors import Refusal
from oncecast.log import Place
from oncecast.message import EARLIEST, LATEST, Cursor, Draft, Gap, Message, Reason, Receipt, Retention, Start, StartKind
from oncecast.node import ChannelPolicy, Node, Poll
from oncecast.subscription import Lag, Subscription
from oncecast.testing.clock import FakeClock, Turns


class Words:
    """A format that can be read back."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the number and a space."""
        return b"%d " % message.seq

    def block(self, parts: list[bytes]) -> bytes:
        """Join them."""
        return b"".join(parts)


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

    def gap(self, gap: Gap, /) -> None:
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
    """Nobody is written to inside a publish; then all of the turn comes at once."""
    bench = Bench()
    sink = FakeSink()
    subscription, place = bench.subscribe("a", LATEST, sink)
    bench.publish("a")
    bench.publish("a")
    assert (Cursor("e", 0), [], []) == (place.told, place.gaps, sink.blocks)
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
    assert [Gap("a", Reason.EXPIRED, Cursor("e", 2), Cursor("e", 2), Cursor("e", 2))] == place.gaps
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
    monkeypatch.setattr(node_module, "POLL_BYTES", 250)
    bench = Bench()
    bench.publish("aaa", bytes(100))
    poll = bench.poll("a", EARLIEST)
    assert ([1, 2], Cursor("e", 2)) == (seqs(poll), poll.cursor)


def test_a_poll_of_an_empty_log_has_a_cursor() -> None:
    """From it nothing is lost."""
    bench = Bench()
    poll = bench.poll("a", LATEST)
    assert Poll([], Cursor("e", 0), []) == poll
    bench.publish("a")
    assert [1] == seqs(bench.poll("a", after(poll.cursor)))


def test_a_poll_tells_gaps_and_reads_past_them() -> None:
    """What was trimmed is told with what is there, and the cursor is past both."""
    bench = Bench(a=ChannelPolicy(Retention(messages=1)))
    bench.publish("aaab")
    poll = bench.poll("ab", after(Cursor("e", 0)))
    assert [Gap("a", Reason.EXPIRED, Cursor("e", 1), Cursor("e", 2), Cursor("e", 2))] == poll.gaps
    assert ([3, 4], Cursor("e", 4)) == (seqs(poll), poll.cursor)
    assert [] == bench.poll("ab", after(poll.cursor)).gaps


@pytest.mark.parametrize("cursor", [Cursor("e", 9), Cursor("old", 1)])
def test_a_poll_with_a_cursor_of_nowhere_goes_on_from_here(cursor: Cursor) -> None:
    """The gap is told once: the next poll, from the cursor that came with it, has none."""
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
    bench.node.trim()
    assert [2, 3] == seqs(bench.poll("ab", EARLIEST))
    bench.clock.advance(6)
    bench.node.trim()
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
    with caplog.at_level(logging.ERROR, "oncecast.node"):
        bench.turns.run_all()
    assert [b"1 "] == whole.blocks
    assert ["a delivery failed; the subscriber is skipped, the others are not"] == caplog.messages
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "defect" == str(record.exc_info[1])
