"""The hub: one block for all, states, blocking at every point, catching up in pages, gaps, and sinks with defects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oncecast.core import replay as replay_module
from oncecast.core.hub import Hub
from oncecast.core.log import Log
from oncecast.core.place import resolve
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Cursor, Gap, Kind, Message, Reason, Retention, Start, StartKind
from oncecast.testing.clock import Turns


class Words:
    """A format that can be read back, and counts what it makes."""

    def __init__(self) -> None:
        self.made = 0
        self.poison = 0

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the number and a space; fail on the poisoned one."""
        self.made += 1
        if message.seq == self.poison:
            raise ValueError("damaged")
        return b"%d " % message.seq

    def block(self, parts: list[bytes]) -> bytes:
        """Join them."""
        return b"".join(parts)


class FakeSink:
    """A sink that keeps its blocks; `on_write` runs inside the next write, once."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.gaps: list[Gap] = []
        self.refusals: list[str] = []
        self.on_write: Callable[[], object] | None = None
        self.on_gap: Callable[[], object] | None = None
        self.on_refuse: Callable[[], object] | None = None

    def write(self, block: bytes, /) -> None:
        """Keep the block."""
        self.blocks.append(block)
        call, self.on_write = self.on_write, None
        if call:
            call()

    def gap(self, gap: Gap, /) -> None:
        """Keep the gap."""
        self.gaps.append(gap)
        if self.on_gap:
            self.on_gap()

    def refuse(self, refusal: Refusal, /) -> None:
        """Keep the code."""
        self.refusals.append(refusal.code)
        if self.on_refuse:
            self.on_refuse()

    @property
    def seqs(self) -> list[int]:
        """All the numbers that came."""
        return [int(word) for word in b"".join(self.blocks).split()]

    @property
    def missed(self) -> list[tuple[str, Reason, int, int]]:
        """All the gaps that came."""
        return [(g.channel, g.reason, g.missed_from.seq, g.missed_to.seq if g.missed_to else -1) for g in self.gaps]


class FakeSocket:
    """A socket that takes `room` bytes, then raises as a full one does."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def send(self, data: bytes, /) -> int:
        """Take what there is room for."""
        if self.room == 0:
            raise BlockingIOError
        taken, self.room = data[: self.room], max(0, self.room - len(data))
        self.taken += taken
        return len(taken)


class Bench:
    """A hub with its log, its turns and the faults it reports."""

    def __init__(self, messages: int = 1000) -> None:
        self.sockets: list[FakeSocket] = []
        self.log = Log("e", lambda channel: Retention(messages, 1e9))
        self.turns = Turns()
        self.faults: list[str] = []
        self.hub = Hub(self.log, self.turns.schedule, lambda error: self.faults.append(str(error)), self.send)
        self.format = Words()

    def send(self, descriptor: int, data: bytes) -> int:
        """Write to a socket; its descriptor is its place in the list."""
        return self.sockets[descriptor].send(data)

    def append(self, channels: str) -> None:
        """Append a message for each letter."""
        first = self.log.head + 1
        self.hub.append([Message(n, c, b"x", Kind.JSON, None, float(n)) for n, c in enumerate(channels, first)], 0.0)

    def attach(
        self, channels: str = "a", start: Start = LATEST, *, lag: Lag = Lag.RESUME, sink: FakeSink | None = None
    ) -> tuple[FakeSink, Subscription]:
        """Attach a subscription of channels with a letter each."""
        sink = sink or FakeSink()
        subscription = Subscription(tuple(channels), self.format, sink, resolve(self.log, channels, start), lag)
        self.hub.attach(subscription)
        return sink, subscription

    def live(self, channels: str = "a", *, lag: Lag = Lag.RESUME) -> tuple[FakeSink, Subscription]:
        """Attach a subscription and let it go live."""
        sink, subscription = self.attach(channels, lag=lag)
        self.turns.run_all()
        assert State.LIVE is subscription.state
        return sink, subscription


def after(seq: int) -> Start:
    """The start right after a cursor."""
    return Start(StartKind.CURSOR, Cursor("e", seq))


# -- delivery


def test_a_turn_is_one_block_that_all_share() -> None:
    """Whatever came in a turn is one write for each subscriber, of the very same bytes, encoded once."""
    bench = Bench()
    sinks = [bench.live()[0] for _ in range(3)]
    bench.append("aa")
    bench.append("a")
    bench.turns.run()
    assert [[b"1 2 3 "]] * 3 == [sink.blocks for sink in sinks]
    assert 1 == len({id(sink.blocks[0]) for sink in sinks})
    assert (3, 3, 9) == (bench.format.made, bench.hub.counters.messages, bench.hub.counters.deliveries)


def test_each_format_has_a_block_of_its_own() -> None:
    """Two formats are encoded once each."""
    bench = Bench()
    first, _ = bench.live()
    words, bench.format = bench.format, Words()
    second, _ = bench.live()
    bench.append("a")
    bench.turns.run()
    assert ([b"1 "], [b"1 "], 1, 1) == (first.blocks, second.blocks, words.made, bench.format.made)


def test_nobody_gets_what_they_did_not_subscribe_to() -> None:
    """A channel without listeners is logged and not encoded."""
    bench = Bench()
    sink, _ = bench.live("a")
    bench.append("bcb")
    bench.turns.run()
    assert ([], 0) == (sink.blocks, bench.format.made)


def test_several_channels_come_in_the_logs_order() -> None:
    """A subscription of several channels gets one block in order; those with the same channels in a turn share it."""
    bench = Bench()
    one, two = bench.live("ab")[0], bench.live("abc")[0]
    single = bench.live("a")[0]
    bench.append("baab")
    bench.turns.run()
    assert ([b"1 2 3 4 "], [b"1 2 3 4 "], [b"2 3 "]) == (one.blocks, two.blocks, single.blocks)
    assert one.blocks[0] is two.blocks[0]
    assert 4 == bench.format.made


def test_a_turn_with_nothing_in_it_delivers_nothing() -> None:
    """Attaching wakes the hub too, and the others get no empty block."""
    bench = Bench()
    sink, _ = bench.live()
    bench.attach()
    bench.turns.run_all()
    assert [] == sink.blocks


def test_what_was_refused_by_the_log_keeps_nothing_back() -> None:
    """Messages in front of a bad one are in the log, so they go out in this turn."""
    bench = Bench()
    sink, _ = bench.live()
    good, bad = (Message(1, "a", b"x", Kind.JSON, None, 1.0) for _ in range(2))
    with pytest.raises(ValueError, match="not above"):
        bench.hub.append([good, bad], 0.0)
    bench.turns.run()
    assert [1] == sink.seqs


# -- attaching


@pytest.mark.parametrize(
    "start, before, between",
    [
        (LATEST, [5, 6], [5, 6]),
        (EARLIEST, [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (after(1), [2, 3, 4, 5, 6], [2, 3, 4, 5, 6]),
        (after(4), [5, 6], [5, 6]),
        (Start(StartKind.LAST, number=1), [4, 5, 6], [4, 5, 6]),
        (Start(StartKind.SINCE, number=3.0), [3, 4, 5, 6], [3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("channels", ["a", "ab"])
def test_attaching_in_a_turn_loses_and_repeats_nothing(
    channels: str, start: Start, before: list[int], between: list[int]
) -> None:
    """Attached before, between or after messages of the same turn, a subscriber gets each from its start on once."""
    bench = Bench()
    bench.append("aa")
    bench.turns.run()
    bench.append("aa")
    sink, _ = bench.attach(channels, start)
    bench.append("aa")
    bench.turns.run_all()
    assert between == sink.seqs
    bench.append("a")
    bench.turns.run_all()
    assert [*before, 7] == sink.seqs


def test_what_a_sink_publishes_from_its_write_comes_once() -> None:
    """A message published while others catch up is in the log and in the next turn: nobody may get it from both."""
    bench = Bench()
    bench.append("a")
    bench.turns.run()
    first, _ = bench.attach("a", EARLIEST)
    first.on_write = lambda: bench.append("a")
    second, _ = bench.attach("a", EARLIEST)
    bench.turns.run_all()
    assert ([1, 2], [1, 2]) == (first.seqs, second.seqs)


def test_who_attaches_from_a_write_after_a_publish_gets_nothing_twice() -> None:
    """`latest` begins after a message that is still to be delivered, so it must not come."""
    bench = Bench()
    first, _ = bench.live()
    late = FakeSink()

    def publish_and_attach() -> None:
        bench.append("a")
        bench.attach(sink=late)

    first.on_write = publish_and_attach
    bench.append("a")
    bench.turns.run_all()
    assert ([1, 2], []) == (first.seqs, late.seqs)
    bench.append("a")
    bench.turns.run_all()
    assert [3] == late.seqs


# -- blocking


def test_a_blocked_subscriber_is_not_written_to_and_reads_on_later() -> None:
    """It keeps its place; drained, it catches up from there, and is live again."""
    bench = Bench()
    sink, subscription = bench.live()
    bench.hub.block([subscription])
    bench.append("aa")
    bench.turns.run_all()
    assert (State.BLOCKED, []) == (subscription.state, sink.seqs)
    bench.hub.unblock([subscription])
    bench.append("a")
    bench.turns.run_all()
    assert (State.LIVE, [1, 2, 3]) == (subscription.state, sink.seqs)
    assert 1 == bench.hub.counters.blocked


@pytest.mark.parametrize("channels", ["a", "ab"])
def test_a_sink_that_fills_in_a_delivery_has_had_all_of_it(channels: str) -> None:
    """It is taken out after the turn, at one place, and nothing of the turn comes again."""
    bench = Bench()
    sink, subscription = bench.live(channels)
    sink.on_write = lambda: bench.hub.block([subscription])
    bench.append("aa")
    bench.turns.run()
    assert (State.BLOCKED, [1, 2]) == (subscription.state, sink.seqs)
    bench.append("a")
    bench.turns.run_all()
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert [1, 2, 3] == sink.seqs


def test_a_socket_that_fills_stands_at_one_place_with_all_its_subscriptions() -> None:
    """Its other channels' messages of the same turn have still been written, and come once."""
    bench = Bench()
    sink, one = bench.live("a")
    _, two = bench.attach("b", sink=sink)
    bench.turns.run_all()
    sink.on_write = lambda: bench.hub.block([one, two])
    bench.append("abab")
    bench.turns.run_all()
    assert [State.BLOCKED] * 2 == [one.state, two.state]
    bench.hub.unblock([one, two])
    bench.turns.run_all()
    assert [1, 3, 2, 4] == sink.seqs


def test_a_sink_that_fills_and_drains_in_one_delivery_stays_live() -> None:
    """Only what is still full at the end of the delivery is taken out."""
    bench = Bench()
    sink, subscription = bench.live()

    def flap() -> None:
        bench.hub.block([subscription])
        bench.hub.unblock([subscription])

    sink.on_write = flap
    bench.append("a")
    bench.turns.run()
    assert State.LIVE is subscription.state


def test_a_sink_that_drains_during_anothers_delivery_reads_on() -> None:
    """A drain that comes from inside a delivery counts for those that were blocked before it."""
    bench = Bench()
    sink, subscription = bench.live()
    other, _ = bench.live()
    bench.hub.block([subscription])
    other.on_write = lambda: bench.hub.unblock([subscription])
    bench.append("a")
    bench.turns.run_all()
    assert (State.LIVE, [1]) == (subscription.state, sink.seqs)


def test_a_sink_may_fill_before_it_was_ever_live() -> None:
    """Blocked before its first page, it is passed over, and reads when it drains."""
    bench = Bench()
    bench.append("a")
    sink, subscription = bench.attach(start=EARLIEST)
    bench.hub.block([subscription])
    bench.turns.run_all()
    assert [] == sink.blocks
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([1], State.LIVE) == (sink.seqs, subscription.state)


def test_a_sink_that_fills_with_a_page_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page counts as read, and the next begins after it."""
    monkeypatch.setattr(replay_module, "PAGE_MESSAGES", 2)
    bench = Bench()
    bench.append("aaa")
    sink, subscription = bench.attach(start=EARLIEST)
    sink.on_write = lambda: bench.hub.block([subscription])
    bench.turns.run_all()
    assert (State.BLOCKED, [1, 2]) == (subscription.state, sink.seqs)
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert [1, 2, 3] == sink.seqs


def test_a_flapping_sink_stands_in_the_queue_once() -> None:
    """Blocked and drained again before its page, it gets no second place in the queue."""
    bench = Bench()
    _, subscription = bench.attach()
    for _ in range(5):
        bench.hub.block([subscription])
        bench.hub.unblock([subscription])
    assert 1 == len(bench.hub._replay._queue)


@pytest.mark.parametrize("state", State)
def test_blocking_draining_and_ending_twice_is_fine(state: State) -> None:
    """Each call is harmless in each state, so a transport need not remember."""
    bench = Bench()
    sink, subscription = bench.attach()
    if state is not State.CATCHING_UP:
        bench.turns.run_all()
    if state is State.BLOCKED:
        bench.hub.block([subscription])
    if state is State.CLOSED:
        bench.hub.detach(subscription)
    for _ in range(2):
        bench.hub.block([subscription])
    for _ in range(2):
        bench.hub.unblock([subscription])
    for _ in range(2):
        bench.hub.detach(subscription)
    bench.append("a")
    bench.turns.run_all()
    assert (State.CLOSED, 0, []) == (subscription.state, bench.hub.subscriptions, sink.blocks)
    assert {} == bench.hub._audiences.of


# -- policies


def test_a_channel_may_disconnect_who_lags() -> None:
    """The sink is told why, once, and ends all its subscriptions."""
    bench = Bench()
    sink, subscription = bench.live(lag=Lag.DISCONNECT)
    sink.on_refuse = lambda: bench.hub.detach(subscription)
    bench.hub.block([subscription, subscription])
    assert (["slow"], State.CLOSED) == (sink.refusals, subscription.state)


def test_a_ticker_skips_to_its_newest_value() -> None:
    """What it skipped is a gap, and the newest value comes."""
    bench = Bench()
    sink, subscription = bench.live(lag=Lag.LATEST)
    bench.hub.block([subscription])
    bench.append("aabaa")
    bench.turns.run_all()
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([("a", Reason.SLOW, 1, 4)], [5]) == (sink.missed, sink.seqs)


@pytest.mark.parametrize("kept, missed", [(1, 3), (2, 3), (3, 3)])
def test_a_ticker_tells_what_was_trimmed_with_what_it_skips(kept: int, missed: int) -> None:
    """What retention took while it was blocked is in the gap too, also where there is nothing else to skip."""
    bench = Bench(messages=kept)
    sink, subscription = bench.live(lag=Lag.LATEST)
    bench.hub.block([subscription])
    bench.append("aaaa")
    bench.turns.run_all()
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([("a", Reason.SLOW, 1, missed)], [4]) == (sink.missed, sink.seqs)
    assert sink.gaps[0].missed_to == sink.gaps[0].cursor


def test_a_ticker_that_missed_nothing_has_no_gap() -> None:
    """With one new value, or none, there is nothing to skip."""
    bench = Bench()
    sink, subscription = bench.live(lag=Lag.LATEST)
    for channels in ("", "a"):
        bench.hub.block([subscription])
        bench.append(channels)
        bench.hub.unblock([subscription])
        bench.turns.run_all()
    assert ([], [1]) == (sink.missed, sink.seqs)


def test_a_ticker_of_several_channels_skips_to_before_the_oldest_newest() -> None:
    """They have one place, so each gets its newest value, and nothing is skipped past it."""
    bench = Bench(messages=2)
    sink, subscription = bench.live("abc", lag=Lag.LATEST)
    bench.hub.block([subscription])
    bench.append("abbaaaa")
    bench.turns.run_all()
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([("a", Reason.SLOW, 1, 5), ("b", Reason.SLOW, 2, 2)], [3, 6, 7]) == (sink.missed, sink.seqs)


@pytest.mark.parametrize("lag", [Lag.RESUME, Lag.LATEST])
def test_only_the_last_of_several_gaps_moves_the_cursor_on(lag: Lag) -> None:
    """Who is cut off between two gaps comes back from before both, and hears of both."""
    bench = Bench(messages=1)
    sink, subscription = bench.live("abc", lag=lag)
    bench.append("c")
    bench.turns.run()
    bench.hub.block([subscription])
    bench.append("aaabbb")
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert [("a", Reason.SLOW, 2, 3), ("b", Reason.SLOW, 2, 6)] == sink.missed
    assert [1, 3] == [gap.cursor.seq for gap in sink.gaps]
    assert [1, 4, 7] == sink.seqs


def test_a_ticker_may_be_ended_by_its_gap() -> None:
    """A raw socket closes at a gap; it is told of one, and reads no more."""
    bench = Bench()
    sink, subscription = bench.live("ab", lag=Lag.LATEST)
    sink.on_gap = lambda: bench.hub.detach(subscription)
    bench.hub.block([subscription])
    bench.append("aabbabab")
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert (1, []) == (len(sink.gaps), sink.seqs)


# -- catching up


def test_a_backlog_comes_in_pages_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn the live are served first, then so many pages are read and no more."""
    monkeypatch.setattr(replay_module, "PAGE_MESSAGES", 2)
    monkeypatch.setattr(replay_module, "PAGES_PER_TURN", 2)
    bench = Bench()
    live, _ = bench.live()
    bench.append("aaaaa")
    bench.turns.run()
    behind = [bench.attach(start=EARLIEST)[0] for _ in range(3)]
    bench.append("a")
    bench.turns.run()
    assert (6, [[1, 2], [1, 2], []]) == (live.seqs[-1], [sink.seqs for sink in behind])
    bench.append("a")
    bench.turns.run()
    assert (7, [4, 2, 2]) == (live.seqs[-1], [len(sink.seqs) for sink in behind])
    bench.turns.run_all()
    assert [[1, 2, 3, 4, 5, 6, 7]] * 3 == [sink.seqs for sink in behind]


def test_those_that_come_back_together_share_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is made once for all that stand at one place, and so many pages are kept and no more."""
    monkeypatch.setattr(replay_module, "PAGES_PER_TURN", 3)
    bench = Bench()
    bench.append("aaaaaaa")
    bench.turns.run()
    sinks = [bench.attach(start=EARLIEST)[0] for _ in range(3)]
    bench.turns.run()
    assert 1 == len({id(sink.blocks[0]) for sink in sinks})
    for seq in range(7):
        bench.attach(start=after(seq))
    for _ in range(2):
        bench.turns.run()
        assert 3 == len(bench.hub._replay._pages)
    bench.turns.run()
    assert {} == bench.hub._replay._pages


def test_a_page_is_not_kept_past_a_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message told as missed does not come from an old page after all."""
    monkeypatch.setattr(replay_module, "PAGES_PER_TURN", 1)
    bench = Bench(messages=2)
    bench.append("bab")
    bench.turns.run()
    early, late = bench.attach("ab", after(0))[0], bench.attach("ab", after(0))[0]
    bench.turns.run()
    bench.append("cc")
    bench.log._drop(bench.log._windows["a"])
    bench.turns.run_all()
    assert [1, 2, 3] == early.seqs
    assert ([("a", Reason.EXPIRED, 1, 2)], [1, 3]) == (late.missed, late.seqs)


def test_a_page_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled reader holds one page, so it is small."""
    monkeypatch.setattr(replay_module, "PAGE_BYTES", 2)
    bench = Bench()
    bench.append("aaa")
    sink, _ = bench.attach(start=EARLIEST)
    bench.turns.run_all()
    assert [b"1 2 ", b"3 "] == sink.blocks


# -- gaps


def test_a_gap_is_slow_after_having_been_live_and_expired_before() -> None:
    """A reader that replays has missed what was trimmed before it came to it, however often its socket was full."""
    bench = Bench(messages=1)
    was_live, first = bench.live()
    fresh, _ = bench.attach(start=after(0))
    stalled, third = bench.attach(start=after(0))
    bench.hub.block([first])
    bench.hub.block([third])
    bench.append("aaa")
    bench.hub.unblock([first, third])
    bench.turns.run_all()
    assert [("a", Reason.SLOW, 1, 2)] == was_live.missed
    assert [("a", Reason.EXPIRED, 1, 2)] == fresh.missed == stalled.missed
    assert [[3]] * 3 == [was_live.seqs, fresh.seqs, stalled.seqs]
    assert 3 == bench.hub.counters.gaps


def test_a_live_subscriber_has_no_gap_where_retention_is_shorter_than_a_turn() -> None:
    """What comes in a turn is delivered, though the log has let go of it already."""
    bench = Bench(messages=1)
    sink, _ = bench.live()
    bench.append("aaa")
    bench.turns.run_all()
    assert ([], [1, 2, 3]) == (sink.missed, sink.seqs)


def test_a_gap_may_end_a_subscription() -> None:
    """A raw socket closes at the first gap, hears of no other, and gets no page."""
    bench = Bench(messages=1)
    sink, subscription = bench.attach("ab", after(0))
    sink.on_gap = lambda: bench.hub.detach(subscription)
    bench.append("aabb")
    bench.turns.run_all()
    assert ([("a", Reason.EXPIRED, 1, 1)], []) == (sink.missed, sink.seqs)


@pytest.mark.parametrize("crowd", [1, 2])
def test_when_the_broker_skips_the_live_catch_up(crowd: int) -> None:
    """A channel's only listener as well as one of several: it hears of what it has missed, and goes on."""
    bench = Bench()
    bench.append("a")
    sinks = [bench.live()[0] for _ in range(crowd)]
    bench.hub.skip(4)
    bench.turns.run_all()
    assert [[("a", Reason.EXPIRED, 2, 4)]] * crowd == [sink.missed for sink in sinks]
    bench.append("a")
    bench.turns.run_all()
    assert [[5]] * crowd == [sink.seqs for sink in sinks]


# -- ending


def test_a_write_may_end_its_subscription() -> None:
    """A long poll answers from its write and is gone, live or catching up, and the others are served."""
    bench = Bench()
    one, first = bench.live("a")
    two, second = bench.live("ab")
    rest, _ = bench.live("a")
    third_sink, third = bench.attach(start=EARLIEST)
    for sink, subscription in ((one, first), (two, second), (third_sink, third)):
        sink.on_write = lambda subscription=subscription: bench.hub.detach(subscription)
    for _ in range(2):
        bench.append("a")
        bench.turns.run_all()
    assert [[1], [1], [1, 2], [1]] == [one.seqs, two.seqs, rest.seqs, third_sink.seqs]
    assert 1 == bench.hub.subscriptions


def test_the_last_of_a_format_may_end_in_its_write() -> None:
    """With it its format goes, while the channel's other formats still wait for their block."""
    bench = Bench()
    sinks = []
    for _ in range(3):
        sink, subscription = bench.live()
        sink.on_write = lambda subscription=subscription: bench.hub.detach(subscription)
        sinks.append(sink)
        bench.format = Words()
    bench.append("a")
    bench.turns.run()
    assert ([[1]] * 3, {}) == ([sink.seqs for sink in sinks], bench.hub._audiences.of)


def test_a_write_may_end_another_of_several_channels() -> None:
    """Whoever was ended before its turn came is not written to."""
    bench = Bench()
    one, _ = bench.live("ab")
    two, second = bench.live("ab")
    one.on_write = lambda: bench.hub.detach(second)
    bench.append("ab")
    bench.turns.run()
    assert ([1, 2], []) == (one.seqs, two.seqs)


# -- defects


def fail() -> None:
    """What a sink with a defect does."""
    raise RuntimeError("defect")


def test_a_sink_that_fails_keeps_nothing_from_the_others() -> None:
    """It is reported, and everybody after it gets the block."""
    bench = Bench()
    sinks = [bench.live(channels)[0] for channels in ("a", "a", "a", "ab", "ab")]
    late, _ = bench.attach(start=LATEST)
    for sink in (sinks[0], sinks[1], sinks[3], late):
        sink.on_write = fail
    bench.append("a")
    bench.turns.run_all()
    assert [[1]] * 6 == [sink.seqs for sink in (*sinks, late)]
    assert ["defect"] * 4 == bench.faults


def test_a_sink_that_fails_at_a_gap_or_a_refusal_is_reported() -> None:
    """Neither stops the turn: those that are behind it still catch up."""
    bench = Bench(messages=1)
    broken, slow = bench.attach(start=after(0))[0], bench.live(lag=Lag.DISCONNECT)
    gap_first, _ = bench.attach(start=after(0))
    behind, _ = bench.attach(start=after(0))
    gap_first.on_gap = slow[0].on_refuse = fail
    bench.hub.block([slow[1]])
    bench.append("aa")
    bench.turns.run_all()
    assert ["defect"] * 2 == bench.faults
    assert [[1, 2], [2], [2]] == [broken.seqs, gap_first.seqs, behind.seqs]


def test_a_damaged_message_is_skipped_and_harms_no_other() -> None:
    """What can't be encoded is reported, and the rest of its block goes out, live and in pages."""
    bench = Bench()
    live, _ = bench.live()
    bench.format.poison = 2
    bench.append("aaa")
    bench.turns.run()
    late, _ = bench.attach(start=EARLIEST)
    bench.append("a")
    bench.turns.run_all()
    assert ([1, 3, 4], [1, 3, 4]) == (live.seqs, late.seqs)
    assert {"damaged"} == set(bench.faults)


# -- heartbeats


def test_a_heartbeat_tells_a_cursor_only_while_all_are_live() -> None:
    """It moves the cursor of each, so it must hold for each: not while one reads its backlog or is blocked."""
    bench = Bench()
    _, one = bench.live("a")
    bench.append("b")
    assert Cursor("e", 0) == bench.hub.heartbeat_cursor([one])
    bench.turns.run()
    assert Cursor("e", 1) == bench.hub.heartbeat_cursor([one])
    _, two = bench.attach("b")
    assert None is bench.hub.heartbeat_cursor([one, two])
    bench.turns.run_all()
    assert Cursor("e", 1) == bench.hub.heartbeat_cursor([one, two])
    bench.hub.block([two])
    assert None is bench.hub.heartbeat_cursor([one, two])


def test_subscriptions_of_one_sink_are_written_once_a_turn() -> None:
    """Once gathered, what a turn brings to several subscriptions of a sink comes in one block, in the log's order."""
    bench = Bench()
    sink, first = bench.attach("a")
    _, second = bench.attach("b", sink=sink)
    bench.turns.run_all()
    bench.hub.gather([first, second])
    bench.append("aba")
    bench.turns.run_all()
    assert [b"1 2 3 "] == sink.blocks
    bench.hub.detach(first)
    bench.append("ab")
    bench.turns.run_all()
    assert [b"1 2 3 ", b"5 "] == sink.blocks


def test_gathering_before_going_live_is_as_good() -> None:
    """A subscription that is still catching up can be gathered, and gathering twice changes nothing."""
    bench = Bench()
    bench.append("ab")
    sink, first = bench.attach("a", EARLIEST)
    _, second = bench.attach("b", EARLIEST, sink=sink)
    bench.hub.gather([first, second])
    bench.hub.gather([first, second])
    bench.turns.run_all()
    bench.append("ba")
    bench.turns.run_all()
    assert [b"1 ", b"2 ", b"3 4 "] == sink.blocks


@pytest.mark.parametrize("channels", ["aaa", "abc"])
@pytest.mark.parametrize("room", range(6))
def test_a_socket_gets_what_it_takes_and_its_sink_the_rest(room: int, channels: str) -> None:
    """However little a socket takes of a block, its sink gets exactly what is left, and the others get theirs."""
    bench = Bench()
    sinks = [FakeSink() for _ in channels]
    bench.sockets = [FakeSocket(100), FakeSocket(room), FakeSocket(100)]
    for descriptor, (channel, sink) in enumerate(zip(channels, sinks, strict=True)):
        place = resolve(bench.log, channel, LATEST)
        bench.hub.attach(Subscription((channel,), bench.format, sink, place, Lag.RESUME, descriptor))
    bench.turns.run_all()
    bench.append("aabbcc")
    bench.turns.run_all()
    expected = [{"a": b"1 2 ", "b": b"3 4 ", "c": b"5 6 "}[channel] for channel in channels]
    assert [expected[0], expected[1][:room], expected[2]] == [socket.taken for socket in bench.sockets]
    assert [b"", expected[1][room:], b""] == [b"".join(sink.blocks) for sink in sinks]


@pytest.mark.parametrize("rooms", [(), (0, 100)])
def test_a_write_may_end_the_only_listener_of_another_channel(rooms: tuple[int, ...]) -> None:
    """Whoever was ended before its turn came is not written to, by its sink or by its socket."""
    bench = Bench()
    bench.sockets = [FakeSocket(room) for room in rooms]
    sinks, subscriptions = [FakeSink(), FakeSink()], []
    for place, channel in enumerate("ab"):
        start = resolve(bench.log, channel, LATEST)
        descriptor = place if rooms else None
        subscriptions.append(Subscription((channel,), bench.format, sinks[place], start, Lag.RESUME, descriptor))
        bench.hub.attach(subscriptions[place])
    sinks[0].on_write = lambda: bench.hub.detach(subscriptions[1])
    bench.turns.run_all()
    bench.append("ab")
    bench.turns.run_all()
    assert ([b"1 "], []) == (sinks[0].blocks, sinks[1].blocks)
    assert [b""] * len(rooms) == [socket.taken for socket in bench.sockets]


def test_a_socket_is_written_to_only_while_its_subscription_is_live() -> None:
    """A backlog goes through the sink, and nothing goes to the socket of one that is blocked or gone."""
    bench = Bench()
    bench.append("a")
    sink, socket = FakeSink(), FakeSocket(100)
    bench.sockets = [socket]
    place = resolve(bench.log, "a", EARLIEST)
    subscription = Subscription(("a",), bench.format, sink, place, Lag.RESUME, 0)
    bench.hub.attach(subscription)
    bench.turns.run_all()
    bench.append("a")
    bench.turns.run_all()
    bench.hub.block([subscription])
    bench.append("a")
    bench.turns.run_all()
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    bench.hub.detach(subscription)
    bench.append("a")
    bench.turns.run_all()
    assert (b"2 ", [b"1 ", b"3 "]) == (socket.taken, sink.blocks)
