"""Waits for a log that is not there yet: each is called, removed, or refused in time."""

from __future__ import annotations

import pytest

from oncecast.brokers.base import Opening
from oncecast.core import ahead as ahead_module
from oncecast.core.ahead import WAIT_SECONDS, Ahead
from oncecast.core.subscription import State
from oncecast.errors import Refusal
from oncecast.message import Mark, Page
from tests.core.conftest import Bench, HistoryBench


class Waits:
    """Waits, and what has become of each."""

    def __init__(self) -> None:
        self.ahead = Ahead()
        self.seen: list[str] = []

    def add(self, name: str, seq: int) -> None:
        """Wait for a number."""

        def refuse(refusal: Refusal) -> None:
            self.seen.append(f"{name} {refusal.code}")

        self.ahead.add(name, seq, lambda: self.seen.append(name), refuse)


def test_a_wait_goes_on_when_the_log_has_come_to_its_number() -> None:
    """A wait is called back once when the log reaches its number, and waits for higher numbers stay."""
    waits = Waits()
    for name, seq in (("c", 5), ("a", 3), ("b", 4)):
        waits.add(name, seq)
    waits.ahead.reach(2)
    assert ([], 3) == (waits.seen, len(waits.ahead))
    waits.ahead.reach(3)
    assert ["a"] == waits.seen
    waits.ahead.reach(4)
    waits.ahead.reach(4)
    assert (["a", "b"], ["c"]) == (waits.seen, waits.ahead.owners())
    waits.add("d", 2)
    waits.ahead.reach(3)
    assert ["a", "b", "d"] == waits.seen
    waits.ahead.reach(5)
    assert (["a", "b", "d", "c"], 0) == (waits.seen, len(waits.ahead))


def test_a_wait_that_fails_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The waits behind it go on, or are refused, and the log has the error."""
    waits = Waits()

    def fails(*refusal: Refusal) -> None:
        raise RuntimeError("nobody waits")

    for seq in (1, 2):
        waits.ahead.add(f"failing {seq}", seq, fails, fails)
        waits.add(str(seq), seq)
    waits.ahead.reach(1)
    waits.ahead.expire(0.0)
    waits.ahead.expire(WAIT_SECONDS)
    assert (["1", "2 unavailable"], 2) == (waits.seen, caplog.text.count("RuntimeError: nobody waits"))


def test_a_wait_that_is_removed_ends() -> None:
    """A removed wait is called neither by `reach` nor by `expire`."""
    waits = Waits()
    waits.add("a", 3)
    waits.ahead.remove("a")
    waits.ahead.remove("a")
    waits.ahead.reach(9)
    waits.ahead.expire(0.0)
    waits.ahead.expire(1e9)
    assert [] == waits.seen


def test_a_wait_is_refused_in_time() -> None:
    """The time counts from the first `expire` that sees the wait."""
    waits = Waits()
    waits.add("a", 3)
    waits.ahead.expire(1e6)
    waits.add("b", 3)
    waits.ahead.expire(1e6 + WAIT_SECONDS - 0.1)
    assert [] == waits.seen
    waits.ahead.expire(1e6 + WAIT_SECONDS)
    assert (["a unavailable"], ["b"]) == (waits.seen, waits.ahead.owners())
    waits.ahead.expire(1e6 + 2 * WAIT_SECONDS)
    assert ["a unavailable", "b unavailable"] == waits.seen


def test_waits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait past the bound is refused at once."""
    monkeypatch.setattr(ahead_module, "WAITS", 2)
    waits = Waits()
    for name in "abc":
        waits.add(name, 3)
    assert (["c unavailable"], ["a", "b"]) == (waits.seen, waits.ahead.owners())


def test_a_subscriber_ahead_of_the_log_is_refused_in_time() -> None:
    """A subscriber whose cursor this node does not reach by the deadline is refused."""
    bench = HistoryBench("aa")
    sink, subscription = bench.behind("a", 5)
    bench.turns.run_all()
    bench.hub.tick(100.0)
    bench.hub.tick(100.0 + WAIT_SECONDS - 1)
    assert ([], State.CATCHING_UP) == (sink.refusals, subscription.state)
    bench.hub.tick(100.0 + WAIT_SECONDS)
    assert ["unavailable"] == sink.refusals
    bench.hub.detach(subscription)
    assert (0, []) == (len(bench.hub._replay._ahead), bench.hub._replay.members())


def test_a_subscriber_ahead_of_the_log_costs_no_turn() -> None:
    """A subscriber ahead of the log is read for when the log reaches its number, and not with each message before."""
    bench = HistoryBench()
    sink, subscription = bench.behind("a", 3)
    for _ in range(2):
        bench.append("b")
        bench.turns.run_all()
        assert {} == bench.hub._replay._queue
    bench.append("b")
    bench.turns.run_all()
    bench.append("a")
    bench.turns.run_all()
    assert ([4], State.LIVE) == (sink.seqs, subscription.state)


def test_a_full_or_ended_subscriber_waits_for_nothing() -> None:
    """A full subscription waits again after it has drained."""
    bench = HistoryBench()
    _, full = bench.behind("a", 3)
    _, ended = bench.behind("a", 3)
    bench.turns.run_all()
    bench.hub.block([full])
    bench.hub.detach(ended)
    assert 0 == len(bench.hub._replay._ahead)
    bench.hub.unblock([full])
    bench.turns.run_all()
    assert [full] == bench.hub._replay._ahead.owners()


def test_nothing_waits_without_a_history() -> None:
    """A tick of a hub whose log is all there is does nothing."""
    bench = Bench()
    bench.hub.tick(0.0)
    assert 0 == len(bench.turns)


def test_a_skip_reaches_those_ahead_of_the_log() -> None:
    """A skip ends the wait, without a further message."""
    bench = HistoryBench("aa")
    _, subscription = bench.behind("a", 5)
    bench.turns.run_all()
    bench.hub.skip(5)
    bench.turns.run_all()
    assert State.LIVE is subscription.state


def test_another_log_ends_each_wait_for_the_one_before() -> None:
    """A poll reads again, and a subscription is served: neither waits for a number that means nothing any more."""
    bench = HistoryBench("aa")
    sink, subscription = bench.behind("a", 5)
    bench.turns.run_all()
    seen: list[str] = []
    page = Page(0, [], 2, {"a": Mark(9)})
    bench.hub.wait_for(page, lambda: seen.append("again"), lambda refusal: seen.append(refusal.code))
    bench.hub.begin(Opening("f", 1, Mark(1)), 0.0)
    assert (["again"], 0) == (seen, len(bench.hub._replay._ahead))
    bench.finish()
    assert (State.LIVE, [], 1) == (subscription.state, sink.refusals, len(sink.gaps))


def test_a_head_that_moves_for_no_wait_wakes_nothing() -> None:
    """A broker that advances a quiet node costs no turns; with a wait it takes one, also where nothing has come."""
    bench = HistoryBench("aa")
    bench.hub.advance(3)
    assert 0 == len(bench.turns)
    _, subscription = bench.behind("a", 5)
    bench.turns.run_all()
    bench.hub.advance(5)
    assert 1 == len(bench.turns)
    bench.finish()
    assert State.LIVE is subscription.state
