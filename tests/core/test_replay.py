"""The replay: pages turn by turn, floors, and gaps."""

from __future__ import annotations

import pytest

from oncecast.core import replay as replay_module
from oncecast.core.subscription import State
from oncecast.message import EARLIEST, Reason, Start, StartKind
from tests.core.conftest import Bench, after

# -- pages


def test_a_backlog_comes_in_pages_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn serves the live subscriptions first, then reads at most PAGES_PER_TURN pages."""
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
    """A page is made once for all subscriptions at one place, and at most PAGES_PER_TURN pages are kept."""
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
    """A message that a gap has named does not come from an older page."""
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


@pytest.mark.parametrize("leave", ["end", "fill"])
def test_those_that_have_left_use_up_no_page_of_a_turn(leave: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have ended or filled up since they came, the next turn serves those that are behind."""
    monkeypatch.setattr(replay_module, "PAGES_PER_TURN", 2)
    bench = Bench()
    bench.append("a")
    bench.turns.run()
    for _ in range(100):
        _, subscription = bench.attach(start=EARLIEST)
        if leave == "end":
            bench.hub.detach(subscription)
        else:
            bench.hub.block([subscription])
    sinks = [bench.attach(start=EARLIEST)[0] for _ in range(2)]
    bench.turns.run()
    assert [[1], [1]] == [sink.seqs for sink in sinks]
    assert {} == bench.hub._replay._queue


def test_a_sink_that_fills_and_drains_with_a_page_is_served_once() -> None:
    """A sink that fills and drains with a page stays behind until the next turn, and each message counts once."""
    bench = Bench()
    bench.append("aa")
    bench.turns.run()
    sink, subscription = bench.attach(start=EARLIEST)

    def flap() -> None:
        bench.hub.block([subscription])
        bench.hub.unblock([subscription])

    sink.on_write = flap
    bench.turns.run()
    assert State.CATCHING_UP is subscription.state
    bench.turns.run_all()
    bench.append("a")
    bench.turns.run_all()
    assert ([1, 2, 3], State.LIVE, 3) == (sink.seqs, subscription.state, bench.hub.counters.deliveries)


def test_a_page_may_end_those_behind_it() -> None:
    """Subscriptions that a page ends are served nothing, and the turn comes to its end."""
    bench = Bench()
    bench.append("a")
    bench.turns.run()
    first, _ = bench.attach(start=EARLIEST)
    others = [bench.attach(start=EARLIEST) for _ in range(3)]

    def end_others() -> None:
        for _, subscription in others:
            bench.hub.detach(subscription)

    first.on_write = end_others
    bench.turns.run_all()
    assert ([1], [[]] * 3) == (first.seqs, [sink.seqs for sink, _ in others])


def test_floors_hold_until_they_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of each channel come, page by page, and then all that is published."""
    monkeypatch.setattr(replay_module, "PAGE_MESSAGES", 1)
    bench = Bench()
    bench.append("abbbacb")
    bench.turns.run()
    sink, _ = bench.attach("abc", Start(StartKind.LAST, number=2))
    one, _ = bench.attach("b", Start(StartKind.LAST, number=2))
    bench.append("b")
    bench.turns.run_all()
    bench.append("ab")
    bench.turns.run_all()
    assert ([1, 4, 5, 6, 7, 8, 9, 10], [4, 7, 8, 10]) == (sink.seqs, one.seqs)
    assert [] == sink.gaps


def test_a_page_is_shared_only_with_the_same_floors() -> None:
    """Two that stand at one place with different floors get different messages."""
    bench = Bench()
    bench.append("abbb")
    bench.turns.run()
    last, _ = bench.attach("ab", Start(StartKind.LAST, number=1))
    earliest, _ = bench.attach("ab", EARLIEST)
    again, _ = bench.attach("ab", Start(StartKind.LAST, number=1))
    bench.turns.run_all()
    assert ([1, 4], [1, 2, 3, 4], [1, 4]) == (last.seqs, earliest.seqs, again.seqs)
    assert last.blocks[0] is again.blocks[0]


def test_what_is_below_a_floor_is_never_missed() -> None:
    """A trimmed message below a floor is no gap, and one above it is."""
    bench = Bench()
    bench.append("abbb")
    bench.turns.run()
    sink, subscription = bench.attach("ab", Start(StartKind.LAST, number=1))
    bench.hub.block([subscription])
    for _ in range(2):
        bench.log._drop(bench.log._windows["b"])
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([], [1, 4]) == (sink.missed, sink.seqs)
    sink, subscription = bench.attach("ab", Start(StartKind.LAST, number=1))
    bench.hub.block([subscription])
    bench.log._drop(bench.log._windows["b"])
    bench.hub.unblock([subscription])
    bench.turns.run_all()
    assert ([("b", Reason.EXPIRED, 4, 4)], [1]) == (sink.missed, sink.seqs)


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
    assert 3 == bench.hub.counters.gaps.total()


def test_a_live_subscriber_has_no_gap_where_retention_is_shorter_than_a_turn() -> None:
    """A live subscriber gets all messages of a turn, also those that retention has dropped in it."""
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
