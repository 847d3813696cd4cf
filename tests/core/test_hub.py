"""The hub: attaching, blocking at every point, heartbeats, and what the broker does to all subscriptions at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oncecast.brokers.base import Opening
from oncecast.core.place import Place
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.message import EARLIEST, LATEST, Cursor, Kind, Mark, Message, Reason, Start, StartKind
from tests.core.conftest import Bench, FakeSink, HistoryBench, after

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
    """A message published while others catch up is in the log and in the next turn: it must not come from both."""
    bench = Bench()
    bench.append("a")
    bench.turns.run()
    first, _ = bench.attach("a", EARLIEST)
    first.on_write = lambda: bench.append("a")
    second, _ = bench.attach("a", EARLIEST)
    bench.turns.run_all()
    assert ([1, 2], [1, 2]) == (first.seqs, second.seqs)


def test_a_subscription_attached_from_a_write_after_a_publish_gets_nothing_twice() -> None:
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
    """A blocked subscriber keeps its place, catches up from there once it has drained, and is live again."""
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
    """A subscription whose sink fills up stops being live after the turn, and no message of the turn is repeated."""
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
    """The other channels' messages of the turn in which a socket fills up are written in that turn, and once."""
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
    assert ({}, {}) == (bench.hub._audiences.of, bench.hub._blocked)


@pytest.mark.parametrize("lag", Lag)
def test_a_subscription_without_a_place_is_not_slow(lag: Lag) -> None:
    """A subscription whose start is still looked up is not slow when its socket is full, and gets its backlog later."""
    bench = HistoryBench("aaa")
    sink = FakeSink()
    subscription = Subscription(("a",), bench.format, sink, None, lag)
    bench.hub.attach(subscription)
    bench.hub.block([subscription])
    bench.hub.place(subscription, Place(0, bench.log.cursor(0)))
    bench.turns.run_all()
    assert ([], []) == (sink.refusals, bench.asked)
    bench.hub.unblock([subscription])
    bench.finish()
    assert ([1, 2, 3], [], State.LIVE) == (sink.seqs, sink.gaps, subscription.state)


# -- heartbeats


def test_a_heartbeat_tells_a_cursor_only_while_all_are_live() -> None:
    """A heartbeat carries a cursor only while no subscription of the socket is blocked or reads its backlog."""
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


# -- a broker that skips


@pytest.mark.parametrize("crowd", [1, 2])
def test_when_the_broker_skips_the_live_catch_up(crowd: int) -> None:
    """One subscriber of a channel or several: each gets a gap for what it has missed, then the next messages."""
    bench = Bench()
    bench.append("a")
    sinks = [bench.live()[0] for _ in range(crowd)]
    bench.hub.skip(4)
    bench.turns.run_all()
    assert [[("a", Reason.EXPIRED, 2, 4)]] * crowd == [sink.missed for sink in sinks]
    bench.append("a")
    bench.turns.run_all()
    assert [[5]] * crowd == [sink.seqs for sink in sinks]


def test_a_skip_delivers_the_turn_first() -> None:
    """Messages that were handed over before a skip are delivered, and its gap does not name them."""
    bench = Bench()
    sink, _ = bench.live()
    bench.append("a")
    bench.hub.skip(4)
    bench.turns.run_all()
    assert ([1], [("a", Reason.EXPIRED, 2, 4)]) == (sink.seqs, sink.missed)


def test_a_skip_moves_the_place_of_the_live() -> None:
    """A subscription that has caught up after it stands at the new head: nothing comes twice, and no gap."""
    bench = Bench()
    bench.append("a")
    sink, subscription = bench.live()
    bench.hub.skip(4)
    bench.turns.run_all()
    assert Cursor("e", 4) == bench.hub.heartbeat_cursor([subscription])
    bench.hub.block([subscription])
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert 1 == len(sink.gaps)


# -- another log, and a hole


def begin(bench: HistoryBench) -> None:
    """Put another log with two messages in the place of the first."""
    recent = tuple(Message(n, "a", b"x", Kind.JSON, None, float(n)) for n in (1, 2))
    bench.hub.begin(Opening("f", 2, Mark(), recent), 0.0)


def hole(bench: HistoryBench) -> None:
    """Lose the numbers from 2 to 9."""
    bench.hub.hole(1, 10)


@pytest.mark.parametrize("change, gap", [(begin, (Reason.EPOCH, 2, -1)), (hole, (Reason.UNKNOWN, 2, 9))])
def test_another_log_or_a_hole_delivers_the_turn_first(
    change: Callable[[HistoryBench], None], gap: tuple[Reason, int, int]
) -> None:
    """Messages that were handed over before another log or a hole are delivered before its gap."""
    bench = HistoryBench()
    sink, subscription = bench.live()
    bench.append("a")
    change(bench)
    assert [1] == sink.seqs
    bench.finish()
    assert ([("a", *gap)], State.LIVE) == (sink.missed, subscription.state)
    assert bench.log.cursor(bench.log.head) == bench.hub.heartbeat_cursor([subscription])


@pytest.mark.parametrize("change", [begin, hole])
@pytest.mark.parametrize("lag", [Lag.LATEST, Lag.DISCONNECT])
def test_another_log_or_a_hole_makes_no_subscriber_slow(change: Callable[[HistoryBench], None], lag: Lag) -> None:
    """The live replay because of the broker, and the blocked have nothing that could be skipped."""
    bench = HistoryBench(messages=9)
    live_sink, live = bench.live(lag=lag)
    full_sink, full = bench.live(lag=lag)
    bench.hub.block([full])
    full_sink.refusals.clear()
    change(bench)
    bench.hub.block([live])
    bench.append("aa")
    bench.hub.unblock([live])
    bench.hub.unblock([full])
    bench.finish()
    assert [] == live_sink.refusals + full_sink.refusals
    assert 1 == len(live_sink.gaps) == len(full_sink.gaps)
    assert live_sink.seqs == full_sink.seqs == [entry.seq for entry in bench.log.read_after(("a",), 0, 9)]


@pytest.mark.parametrize("change", [begin, hole])
def test_another_log_or_a_hole_may_end_a_subscription(change: Callable[[HistoryBench], None]) -> None:
    """A raw socket closes at the gap: nothing is read for it after that."""
    bench = HistoryBench()
    sink, subscription = bench.live()
    bench.append("a")
    sink.on_gap = lambda: bench.hub.detach(subscription)
    change(bench)
    bench.turns.run_all()
    assert (1, [], 0) == (len(sink.gaps), bench.asked, bench.hub.subscriptions)
