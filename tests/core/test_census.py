"""The census: which channels a node has, how much is said on them, and who listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from oncecast.brokers.memory import MemoryBroker
from oncecast.core import census
from oncecast.core.census import MOST, ORDERS, Census, ListedChannel, merge
from oncecast.core.node import ChannelPolicy, Node
from oncecast.core.subscription import Subscription
from oncecast.message import REVOCATIONS, Draft, Kind, Retention, Start, StartKind
from oncecast.testing.driver import run_now
from tests.core.conftest import FakeSink, Words

EARLIEST, LATEST = Start(StartKind.EARLIEST), Start(StartKind.LATEST)


class Bench:
    """A node in memory, on a clock that the test moves; 20 messages of each channel are kept."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.scheduled: list[Callable[[], None]] = []
        self.turns = 0
        self.broker = MemoryBroker("e0", lambda: 1_700_000_000.0)
        self.node = Node(
            self.broker,
            policy=lambda channel: ChannelPolicy(Retention(20, 3600)),
            max_bytes=1 << 24,
            monotonic=lambda: self.now,
            schedule=self.scheduled.append,
        )
        run_now(self.node.start())

    def turn(self) -> None:
        """Run what is due, turn by turn."""
        while self.scheduled:
            self.turns += 1
            due, self.scheduled[:] = list(self.scheduled), []
            for call in due:
                call()

    def publish(self, *channels: str) -> None:
        """Publish a message to each."""
        self.broker.publish([Draft(name, b"1", Kind.JSON) for name in channels], lambda outcomes: None)
        self.turn()

    def listen(self, *channels: str, start: Start = LATEST) -> Subscription:
        """Subscribe to channels."""
        subscription = self.node.subscribe(channels, start, FakeSink(), Words(), lambda place: None)
        self.turn()
        return subscription

    def take(self) -> Census:
        """Take a census, once the last one is no longer fresh."""
        self.now += census.FRESH_SECONDS
        found: list[Census] = []
        self.node.census.take(found.append)
        self.turn()
        (one,) = found
        return one

    def rows(self) -> dict[str, ListedChannel]:
        """Return the channels of a census."""
        return {row.name: row for row in self.take().channels}


@pytest.fixture
def bench() -> Bench:
    """A node without a loop."""
    return Bench()


def test_nothing(bench: Bench) -> None:
    """A node that has done nothing has no channels."""
    assert Census() == bench.take()


def test_messages_and_listeners(bench: Bench) -> None:
    """A channel is listed for its messages or its listeners, each listener counts on each of its channels."""
    bench.publish("a", "a", "b", REVOCATIONS)
    bench.listen("b")
    bench.listen("b")
    both = bench.listen("b", "c")
    assert {
        "a": ListedChannel("a", 0.2, 2, 0, 0, 0),
        "b": ListedChannel("b", 0.1, 1, 3, 0, 0),
        "c": ListedChannel("c", 0.0, 0, 1, 0, 0),
    } == bench.rows()
    bench.node.hub.detach(both)
    assert {"a", "b"} == set(bench.rows())


def test_one_who_fails_at_the_census_ends_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The others that ask get it, and the log has the error."""

    def fails(found: Census) -> None:
        raise RuntimeError("nobody takes this")

    bench.now += census.FRESH_SECONDS
    bench.node.census.take(fails)
    assert Census() == bench.take()
    assert "nobody takes this" in caplog.text


def test_a_listener_that_is_behind(bench: Bench) -> None:
    """One whose socket is full is a listener still, behind, with its distance to the head."""
    slow = bench.listen("a")
    bench.listen("a")
    bench.node.hub.block([slow])
    bench.publish("a", "b", "a")
    row = bench.rows()["a"]
    assert (2, 1, 3) == (row.listeners, row.behind, row.lag)


def test_who_listens(bench: Bench) -> None:
    """Those of the channel, by how far they are behind, and no more of them than is asked for; how many there are."""
    bench.publish("a", "a", "b")
    slow = bench.listen("a")
    bench.node.hub.block([slow])
    slower = bench.listen("a", "c", start=EARLIEST)
    bench.node.hub.block([slower])
    assert slower.place is not None
    slower.place.advance(1)
    live = [bench.listen("a") for _ in range(3)]
    bench.listen("b")
    found, total = bench.node.census.listening("a", 10)
    assert [(slower, 2), (slow, 0)] == found[:2]
    assert ({*live}, 5) == ({subscription for subscription, _ in found[2:]}, total)
    assert ([(slower, 2), (slow, 0), (live[0], 0)], 5) == bench.node.census.listening("a", 3)
    assert ([(slower, 2)], 1) == bench.node.census.listening("c", 3)
    assert ([], 0) == bench.node.census.listening("d", 3)


def test_the_rate_is_that_of_the_last_seconds(bench: Bench) -> None:
    """What came before ten seconds ago does not count; where the window holds less, what it holds does."""
    for _ in range(10):
        bench.publish("slow")
    bench.now += 11
    bench.publish("slow", "slow")
    for _ in range(100):
        bench.now += 0.01
        bench.publish("fast")
    rows = bench.rows()
    assert 0.2 == rows["slow"].rate
    assert 20 == rows["fast"].messages
    assert 25 < rows["fast"].rate < 35  # 20 messages in 0.2 s, and half a second without one since


def test_many_channels_take_many_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn looks at `CHUNK` channels, and at most `MOST` by each order are kept, the first ones."""
    monkeypatch.setattr(census, "CHUNK", 50)
    bench.publish(*(f"c{number}" for number in range(1000)))
    bench.publish(*["c7"] * 5)
    bench.listen("c9")
    bench.turns = 0
    found = bench.take()
    assert bench.turns >= 20
    assert (1000, True) == (found.total, found.complete)
    assert MOST <= len(found.channels) <= MOST * len(ORDERS)
    assert "c7" == max(found.channels, key=ORDERS["rate"]).name
    assert "c9" == max(found.channels, key=ORDERS["listeners"]).name


def test_those_who_ask_together_have_one_answer(bench: Bench) -> None:
    """One census is taken for all who ask while it is, and it stays fresh for a moment."""
    bench.publish("a")
    bench.now += 1
    found: list[Census] = []
    bench.node.census.take(found.append)
    bench.node.census.take(found.append)
    assert [] == found
    bench.turn()
    bench.node.census.take(found.append)
    assert 3 == len(found)
    assert found[0] is found[1] is found[2]


def test_a_defect_is_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where the count fails, those who ask get an answer that says that it is not complete."""
    bench.publish("a")

    def fail(channel: str) -> int:
        raise ZeroDivisionError(channel)

    monkeypatch.setattr(bench.node.hub, "live", fail)
    assert not bench.take().complete
    assert "could not be counted" in caplog.text


def row(name: str, *figures: int) -> ListedChannel:
    """Return a channel's line."""
    rate, messages, listeners, behind, lag = figures
    return ListedChannel(name, rate, messages, listeners, behind, lag)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], Census()),
        (
            [Census((row("a", 1, 2, 3, 1, 9),), 1), Census((row("a", 2, 2, 4, 1, 5), row("b", 0, 0, 1, 0, 0)), 2)],
            Census((row("a", 2, 2, 7, 2, 9), row("b", 0, 0, 1, 0, 0)), 2),
        ),
        ([Census((row("a", 1, 1, 1, 0, 0),), 5000)], Census((row("a", 1, 1, 1, 0, 0),), 5000)),
        (
            [Census((row("a", 1, 1, 1, 0, 0),), 5000), Census((), 0)],
            Census((row("a", 1, 1, 1, 0, 0),), 5000, False),
        ),
        ([Census((), 0, False), Census()], Census((), 0, False)),
    ],
)
def test_several_processes(parts: Sequence[Census], expected: Census) -> None:
    """Listeners add up, rates do not, and what may be missing is said."""
    assert expected == merge(parts)
