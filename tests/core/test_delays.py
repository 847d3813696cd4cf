"""How long publishes and deliveries take: histograms of a few of them each second."""

from __future__ import annotations

from collections.abc import Sequence

from oncecast.brokers.base import Done, Outcome
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.delays import BOUNDS, Delays, Histogram
from oncecast.core.node import ChannelPolicy, Node
from oncecast.message import Draft
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import run_now


class LateBroker(MemoryBroker):
    """A broker that answers a publish when the test says so, after its messages where `early`."""

    done: Done | None = None
    early = False

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        self.kept, self.done = drafts, done
        if self.early:
            super().publish(drafts, self._keep)

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes

    def answer(self) -> None:
        assert self.done is not None
        if self.early:
            self.done(self.outcomes)
        else:
            super().publish(self.kept, self.done)


class Bench:
    """A node on a clock that only the test moves."""

    def __init__(self, kind: type[MemoryBroker] = MemoryBroker) -> None:
        self.clock, self.turns = FakeClock(), Turns()
        self.broker = kind("e", self.clock.wall)
        self.delays = Delays(self.clock.monotonic, self.clock.wall)
        self.node = Node(
            self.broker,
            policy=lambda channel: ChannelPolicy(),
            max_bytes=1 << 20,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
            delays=self.delays,
        )
        run_now(self.node.start())

    def publish(self) -> None:
        self.node.publish([Draft("a", b"1")], lambda outcomes: None)

    def measured(self) -> dict[str, tuple[int, float]]:
        """How many values each histogram has, and their sum."""
        each = {name: getattr(self.delays, name) for name in ("acknowledged", "written", "ages")}
        return {name: (sum(found.counts), round(found.total, 6)) for name, found in each.items()}


def test_a_histogram_counts_each_value_once() -> None:
    """A value on a bound is in that bound's bucket; one below 0 is 0; one above all bounds has the last bucket."""
    histogram = Histogram()
    for value in (-1.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1] + 1):
        histogram.observe(value)
    assert [2, 1, *[0] * (len(BOUNDS) - 2), 1] == histogram.counts
    assert round(BOUNDS[0] * 2.01 + BOUNDS[-1] + 1, 9) == round(histogram.total, 9)
    assert sorted(set(BOUNDS)) == list(BOUNDS)


def test_one_publish_and_one_turn_between_two_ticks() -> None:
    """Without a tick nothing is measured; after one, the next publish and the next turn are, and no other."""
    bench = Bench()
    bench.publish()
    bench.turns.run_all()
    assert {"acknowledged": (0, 0.0), "written": (0, 0.0), "ages": (0, 0.0)} == bench.measured()
    bench.delays.tick()
    for _ in range(3):
        bench.publish()
        bench.clock.advance(0.5)
        bench.turns.run_all()
    assert {"acknowledged": (1, 0.0), "written": (1, 0.5), "ages": (1, 0.5)} == bench.measured()


def test_a_broker_that_answers_later() -> None:
    """The acknowledgement and the write are counted from the publish; the age from the broker's time."""
    bench = Bench(LateBroker)
    assert isinstance(bench.broker, LateBroker)
    bench.delays.tick()
    bench.publish()
    bench.clock.advance(2.0)
    bench.broker.answer()
    bench.clock.advance(0.25)
    bench.turns.run_all()
    assert {"acknowledged": (1, 2.0), "written": (1, 2.25), "ages": (1, 0.25)} == bench.measured()


def test_an_acknowledgement_that_comes_after_the_write() -> None:
    """A message that was written before its acknowledgement came is measured all the same, and at once."""
    bench = Bench(LateBroker)
    assert isinstance(bench.broker, LateBroker)
    bench.broker.early = True
    bench.delays.tick()
    bench.publish()
    bench.turns.run_all()
    bench.clock.advance(1.0)
    bench.broker.answer()
    assert {"acknowledged": (1, 1.0), "written": (1, 1.0), "ages": (1, 0.0)} == bench.measured()


def test_a_refused_publish_is_not_measured() -> None:
    """A refusal says nothing about how long a publish takes."""
    bench = Bench()
    bench.node.away("it is gone")
    bench.delays.tick()
    bench.publish()
    bench.node.publish([], lambda outcomes: None)
    assert (0, 0.0) == bench.measured()["acknowledged"]
    assert 1 == bench.node.publishes
