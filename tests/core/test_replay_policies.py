"""The policies for slow subscribers: which subscriptions are slow, and what a subscriber skips."""

from __future__ import annotations

import pytest

from oncecast.core import replay as replay_module
from oncecast.core.subscription import Lag, State
from oncecast.message import EARLIEST, Reason
from tests.core.conftest import Bench, HistoryBench


@pytest.mark.parametrize("lag", Lag)
def test_a_policy_for_slow_readers_leaves_a_replay_alone(lag: Lag, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog fills a socket however fast its reader is: all of it comes, and the connection stays."""
    monkeypatch.setattr(replay_module, "PAGE_MESSAGES", 2)
    bench = Bench()
    bench.append("aaaaaa")
    bench.turns.run()
    sink, subscription = bench.attach(start=EARLIEST, lag=lag)
    for _ in range(3):
        sink.on_write = lambda: bench.hub.block([subscription])
        bench.turns.run_all()
        assert State.BLOCKED is subscription.state
        bench.append("a")
        bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([1, 2, 3, 4, 5, 6, 7, 8, 9], [], []) == (sink.seqs, sink.missed, sink.refusals)
    assert State.LIVE is subscription.state
    bench.hub.block([subscription])
    bench.append("aa")
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    slow = {
        Lag.RESUME: ([10, 11], [], []),
        Lag.LATEST: ([11], [("a", Reason.SLOW, 10, 10)], []),
        Lag.DISCONNECT: ([10, 11], [], ["slow"]),
    }
    assert slow[lag] == (sink.seqs[9:], sink.missed, sink.refusals)


@pytest.mark.parametrize("lag", [Lag.LATEST, Lag.DISCONNECT])
@pytest.mark.parametrize("delivering", [False, True])
def test_a_replay_fills_the_socket_of_live_subscriptions_too(lag: Lag, delivering: bool) -> None:
    """A live subscription of a socket that a replay fills is not slow: nothing is skipped, and nobody is cut off."""
    bench = Bench()
    bench.append("b")
    sink, live = bench.live(lag=lag)
    _, other = bench.attach("b", EARLIEST, sink=sink)
    bench.hub.gather([live, other])
    if delivering:
        sink.on_write = lambda: bench.hub.block([live, other])
        bench.append("a")
        bench.turns.run()
    else:
        bench.hub.block([live, other])
        bench.append("a")
    bench.append("aa")
    bench.hub.unblock([live, other])
    bench.turns.run_all()
    assert ([], [], [1, 2, 3, 4]) == (sink.refusals, sink.missed, sorted(sink.seqs))
    bench.hub.block([live, other])
    assert (["slow"] if lag is Lag.DISCONNECT else []) == sink.refusals


def test_a_subscription_that_has_ended_excuses_no_other() -> None:
    """A live subscription is slow again once the replaying subscription of its socket has ended."""
    bench = Bench()
    sink, live = bench.live(lag=Lag.DISCONNECT)
    _, ended = bench.attach("b", EARLIEST, sink=sink)
    bench.hub.detach(ended)
    bench.hub.block([live, ended])
    assert ["slow"] == sink.refusals


def test_a_reader_that_the_broker_sets_back_is_not_slow() -> None:
    """A reader that misses messages by a skip of the broker replays them, whatever the policy for slow readers."""
    bench = Bench()
    sink, subscription = bench.live(lag=Lag.DISCONNECT)
    bench.hub.skip(4)
    bench.hub.block([subscription])
    assert [] == sink.refusals
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert [("a", Reason.EXPIRED, 1, 4)] == sink.missed


def test_a_channel_may_disconnect_slow_subscribers() -> None:
    """The sink is refused once, with the reason, and ends all its subscriptions."""
    bench = Bench()
    sink, subscription = bench.live(lag=Lag.DISCONNECT)
    sink.on_refuse = lambda: bench.hub.detach(subscription)
    bench.hub.block([subscription, subscription])
    assert (["slow"], State.CLOSED) == (sink.refusals, subscription.state)


def test_a_ticker_skips_to_its_newest_value() -> None:
    """A lagging subscriber of newest values gets a gap for the values it skips, and then the newest one."""
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
    """The gap of a skip includes messages that retention took while the subscriber was blocked, or only those."""
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
    """A skip over several channels ends before the oldest of their newest values, so that each value comes."""
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
    """A subscriber that is cut off between two gaps comes back from before both, and gets both."""
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
    """A raw socket closes at a gap: it gets one, and no message."""
    bench = Bench()
    sink, subscription = bench.live("ab", lag=Lag.LATEST)
    sink.on_gap = lambda: bench.hub.detach(subscription)
    bench.hub.block([subscription])
    bench.append("aabbabab")
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert (1, []) == (len(sink.gaps), sink.seqs)


def test_a_ticker_skips_from_a_place_that_is_its_newest_of_another_channel() -> None:
    """A channel without a new value holds nothing back."""
    bench = Bench()
    sink, subscription = bench.live("ab", lag=Lag.LATEST)
    bench.append("ba")
    bench.turns.run_all()
    bench.hub.block([subscription])
    bench.append("bbb")
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([("b", Reason.SLOW, 3, 4)], [1, 2, 5]) == (sink.missed, sink.seqs)


@pytest.mark.parametrize(
    "kept, between, missed, found",
    [
        (2, "aaaa", [("a", 3, 5)], [6]),  # some of it has been dropped, some is held
        (1, "aa", [("a", 3, 3)], [4]),  # all that is skipped has been dropped
        (1, "bba", [("b", 3, 3)], [4, 5]),  # what was dropped of `a` had been delivered
        (1, "abb", None, None),  # after the newest of `a` comes a value of `b` that only the history has
    ],
)
def test_a_ticker_skips_where_the_window_tells_what(
    kept: int, between: str, missed: list[tuple[str, int, int]] | None, found: list[int] | None
) -> None:
    """Exactly what is skipped must be known; else the history is read, and nothing is skipped."""
    bench = HistoryBench(messages=kept)
    sink, subscription = bench.live("ab", lag=Lag.LATEST)
    bench.append("aa")
    bench.turns.run_all()
    bench.hub.block([subscription])
    bench.append(between)
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    if found is None:
        assert ([], [2]) == (sink.gaps, [asked.seq for asked in bench.asked])
    else:
        assert ([(c, Reason.SLOW, a, b) for c, a, b in missed or []], found) == (sink.missed, sink.seqs[2:])
        assert [] == bench.asked


@pytest.mark.parametrize("published, missed, found", [("a", [], [11]), ("aa", [("a", Reason.SLOW, 2, 11)], [12])])
def test_a_ticker_skips_after_a_skip_of_the_broker_only_what_it_knows_of(
    published: str, missed: list[tuple[str, Reason, int, int]], found: list[int]
) -> None:
    """A skip reports a gap only for known messages of the channel, not for numbers that the window lacks."""
    bench = HistoryBench(messages=9)
    sink, subscription = bench.live(lag=Lag.LATEST)
    bench.append("b")
    bench.turns.run_all()
    bench.hub.block([subscription])
    bench.hub.skip(10)
    bench.append(published)
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert bool(missed) == (not bench.asked)
    bench.finish()
    assert (missed, found) == (sink.missed, sink.seqs)
