"""Sessions with a followed log, over a log in memory: the contract, and what sessions do about faults."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from unittest.mock import patch

import pytest

from oncecast.brokers import handover, probes
from oncecast.brokers.base import Capabilities, Outcome
from oncecast.brokers.followed import session as sessions
from oncecast.brokers.followed.record import LIFE, LIVES, encode_control, encode_draft
from oncecast.brokers.followed.session import FollowedPlace, FollowedRules, FollowedSession
from oncecast.brokers.lives import Life, first_life
from oncecast.brokers.operable import ChannelState, LogState, Operable
from oncecast.brokers.remote import Remote
from oncecast.brokers.session import GuardedSink
from oncecast.errors import Refusal
from oncecast.message import EARLIEST, Draft, Page, Receipt, Retention
from oncecast.testing.broker import CHECKS, Lab, check_broker
from oncecast.testing.broker_bench import BrokerBench
from oncecast.testing.driver import LoopDriver
from tests.brokers.followed.memory_log import MemoryLog, MemoryServer

_numbers = itertools.count()


class LogLab:
    """A log in memory, and nodes on it."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = MemoryLog() if log is None else log
        self.driver = LoopDriver(5.0)
        self.kept: dict[str, int] = {}
        self.places: list[FollowedPlace] = []
        self.servers: list[MemoryServer] = []
        self.most_bytes = 8 << 20
        self.wall = lambda: self.log.now

    def make(self) -> Remote:
        """Return one more node."""
        place = FollowedPlace(bytes([len(self.places) + 1]) * 8)
        self.places.append(place)
        rules = FollowedRules(
            lambda: f"e{next(_numbers)}", lambda name: Retention(self.kept.get(name, 10_000)), self.wall, 60
        )

        def session(sink: GuardedSink) -> FollowedSession:
            self.servers.append(MemoryServer(self.log, self.most_bytes))
            return FollowedSession(self.servers[-1], sink, place, rules)

        return Remote(
            session,
            name="memory-log",
            capabilities=Capabilities("broker", history=True, key_seconds=60, only_wanted=True),
            batch_drafts=100,
        )

    def lab(self) -> Lab:
        """Return the lab of the contract's checks."""
        return Lab(
            self.make,
            self.driver,
            renew=self.log.wipe,
            lose=lambda: self.log.lose(2),
            damage=lambda: self.log.append([b"", b"foreign", b"oc" * 40, encode_control(LIFE, bytes(8), 1, b"{")]),
            trim=lambda name, count: self.kept.update({name: count}),
            close=self.driver.close,
        )

    def bench(self, *channels: str) -> BrokerBench:
        """Return a node that is started."""
        bench = BrokerBench(self.make(), self.lab())
        bench.start()
        bench.want(*channels)
        return bench


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a session does from time to time be due at once."""
    monkeypatch.setattr(sessions, "PING_SECONDS", 0.005)


@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_the_contract(name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: LogLab().lab(), name)


class Nodes:
    """Nodes of one lab, stopped at the end."""

    def __init__(self) -> None:
        self.lab = LogLab()
        self.log = self.lab.log
        self.benches: list[BrokerBench] = []

    def __call__(self, *channels: str) -> BrokerBench:
        """Return one more node."""
        self.benches.append(self.lab.bench(*channels))
        return self.benches[-1]


@pytest.fixture
def nodes() -> object:
    """Nodes on a log."""
    made = Nodes()
    yield made
    for bench in made.benches:
        bench.stop()
    made.lab.driver.close()


def taken(bench: BrokerBench, *drafts: Draft) -> list[Receipt]:
    """Publish until the node takes it."""
    answers: list[Sequence[Outcome]] = [bench.send(*drafts)]

    def done() -> bool:
        if answers[-1] and isinstance(answers[-1][0], Refusal):
            answers.append(bench.send(*drafts))
        return bool(answers[-1]) and isinstance(answers[-1][0], Receipt)

    bench.wait(done)
    return [outcome for outcome in answers[-1] if isinstance(outcome, Receipt)]


def wait(bench: BrokerBench, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    bench.wait(condition)
    assert condition()


def test_a_cut_connection_loses_nothing(nodes: Nodes) -> None:
    """A node that reconnects is handed what came meanwhile, once; without a hole, as the server is the same."""
    one, two = nodes("a"), nodes("a")
    taken(one, Draft("a", b"1"))
    nodes.log.connections.remove(nodes.lab.servers[1])
    nodes.lab.servers[1].lost = True
    taken(one, Draft("a", b"2"))
    nodes.lab.servers[1].grown.set()
    taken(one, Draft("a", b"3"))
    wait(two, lambda: len(two.messages) == 3 and two.unready is None)
    assert two.messages == one.messages
    assert (two.holes, two.skipped, two.openings[1:]) == ([], [], [])


def test_a_cursor_of_a_node_that_is_ahead_is_read_up_to(nodes: Nodes) -> None:
    """A node that is behind takes such a cursor for what it is once it has read on, and not for one that is lost."""
    one, two = nodes("a"), nodes("a")
    behind = nodes.lab.servers[1]
    nodes.log.connections.remove(behind)
    *_, receipt = taken(one, Draft("a", b"1"), Draft("a", b"2"))
    answers: list[Page | Refusal] = []
    two.broker.read(("a",), two.after(receipt.seq), 10, 1000, answers.append)
    end = nodes.log.end
    wait(two, lambda: nodes.log.end > end)  # it asks for the log's end
    assert [] == answers
    nodes.log.connections.append(behind)
    behind.grown.set()
    wait(two, lambda: bool(answers))
    (page,) = answers
    assert isinstance(page, Page)
    assert (receipt.seq, []) == (page.after, page.messages)


def test_what_becomes_wanted_while_a_session_is_opened_is_delivered(nodes: Nodes) -> None:
    """Channels that are wanted and unwanted in the middle of a reconnect are in force after it."""
    one, two = nodes("a"), nodes("a", "b")
    nodes.log.opening = asyncio.Event()
    nodes.log.connections.remove(nodes.lab.servers[0])
    nodes.lab.servers[0].lost = True
    nodes.lab.servers[0].grown.set()
    wait(one, lambda: len(nodes.lab.servers) == 3)
    one.broker.want(("b",))
    one.broker.unwant(("a",))
    nodes.log.opening.set()
    wait(one, lambda: "b" in one.confirmed and one.unready is None)
    taken(two, Draft("a", b"1"), Draft("b", b"2"))
    wait(one, lambda: bool(one.messages))
    assert [message.data for message in one.messages] == [b"2"]


def test_a_restart_begins_a_life(nodes: Nodes) -> None:
    """Each node has one hole at a restart of the server, and the same numbers after it."""
    one, two = nodes("a"), nodes("a")
    taken(one, Draft("a", b"1"))
    nodes.log.restart()
    wait(one, lambda: bool(one.holes) and bool(two.holes) and one.unready is None and two.unready is None)
    (receipt,) = taken(two, Draft("a", b"2"))
    wait(one, lambda: len(one.messages) == 2 and len(two.messages) == 2)
    assert one.messages == two.messages
    assert one.holes == two.holes
    assert len(one.holes) == 1
    assert receipt.seq > one.holes[0][1]


def test_an_older_copy_is_noticed_where_the_server_begins_no_life(nodes: Nodes) -> None:
    """A node that saw more of the log than there is begins a life by itself."""
    one = nodes("a")
    taken(one, Draft("a", b"1"), Draft("a", b"2"))
    seen = one.head
    del nodes.log.records[-1:]
    nodes.log.append([b"another", b"and another"])
    nodes.log.cut()
    wait(one, lambda: bool(one.holes) and one.unready is None)
    (receipt,) = taken(one, Draft("a", b"3"))
    assert receipt.seq > seen
    page = one.page("a", EARLIEST)
    assert page is not None
    assert [message.data for message in page.messages] == [b"1", b"3"]


def test_a_stale_publish_is_refused(nodes: Nodes) -> None:
    """A message that another leader has written, of which the node did not know, counts nowhere and is refused."""
    one, two = nodes("a"), nodes("a")
    taken(one, Draft("a", b"1"))
    nodes.log.incarnation += 1  # connections stay
    (outcome,) = one.publish(Draft("a", b"2"))
    assert isinstance(outcome, Refusal)
    assert outcome.code == "unavailable"
    wait(one, lambda: bool(one.holes) and bool(two.holes) and one.unready is None and two.unready is None)
    taken(one, Draft("a", b"3"))
    wait(two, lambda: len(two.messages) == 2)
    assert [message.data for message in two.messages] == [b"1", b"3"]
    assert one.messages == two.messages


def test_two_lives_at_once_are_one(nodes: Nodes) -> None:
    """Of two records of one life the first counts."""
    one = nodes("a")
    epoch = one.opening.epoch
    life = first_life("other", str(nodes.log.incarnation), 5.0)
    nodes.log.append([encode_control(LIFE, b"x" * 8, 1, life.record())])
    taken(one, Draft("a", b"1"))
    assert nodes("a").opening.epoch == epoch
    assert one.holes == []


def test_a_life_between_messages_that_come_together(nodes: Nodes) -> None:
    """What is before the hole is handed over before it, and the node gets no message twice."""
    one = nodes("a")
    (receipt,) = taken(one, Draft("a", b"1"))
    life = Life(0, one.opening.epoch, 1_000.0, f"{nodes.log.incarnation} other", 10_000)
    other = b"x" * 8
    nodes.log.append(
        [
            encode_draft(Draft("a", b"before"), other, 1),
            encode_control(LIFE, other, 2, life.record()),
            encode_draft(Draft("a", b"after"), other, 3),
        ]
    )
    wait(one, lambda: len(one.messages) == 3)
    first, last = receipt.seq + 1, one.messages[-1].seq
    assert [("sink", first), ("hole", one.holes[0][1]), ("sink", last)] == one.events[-3:]
    assert first <= one.holes[0][0] < one.holes[0][1] < last
    assert [b"1", b"before", b"after"] == [message.data for message in one.messages]


def test_another_log_of_a_server_that_counts_from_the_beginning_again(nodes: Nodes) -> None:
    """Its first life has the names of the old log's first one, but for the epoch: no node takes it for an old life."""
    nodes.log.incarnation = 0
    one, two = nodes("a"), nodes("a")
    taken(one, Draft("a", b"1"))
    later = nodes.lab.servers[1]
    nodes.log.connections.remove(later)
    nodes.log.wipe()
    wait(one, lambda: len(one.openings) == 2 and one.unready is None)
    later.lost = True
    later.grown.set()
    wait(two, lambda: len(two.openings) == 2 and two.unready is None)
    taken(two, Draft("a", b"2"))
    wait(one, lambda: len(one.messages) == 2)
    assert ([], []) == (one.holes, two.holes)


def test_what_comes_behind_a_probe_is_read_too(nodes: Nodes) -> None:
    """Another node's life that comes with this node's probe is the log's life, not one that this node writes next."""
    nodes.log.after_write = [[encode_control(LIFE, b"x" * 8, 1, first_life("other", "3", 5.0).record())]]
    one = nodes("a")
    assert one.opening.epoch == "other"
    assert nodes("a").opening.epoch == "other"
    assert [record[2] for record, _, _ in nodes.log.records].count(LIFE) == 1


def test_too_much_is_left_to_the_history(nodes: Nodes) -> None:
    """What came in a pause and is too much to hand over is skipped."""
    one, two = nodes("a"), nodes("a")
    lost = nodes.lab.servers[1]
    nodes.log.connections.remove(lost)
    with patch.object(handover, "CAUGHT_UP", 10):
        taken(one, *(Draft("a", b"%d" % n) for n in range(50)))
        lost.lost = True
        lost.grown.set()
        wait(two, lambda: bool(two.skipped) and two.unready is None)
    assert two.head >= one.messages[-1].seq
    taken(one, Draft("a", b"last"))
    wait(two, lambda: bool(two.messages) and two.messages[-1].data == b"last")


def test_a_log_is_read_whose_beginning_is_gone(nodes: Nodes, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of the lives stands in the log: a node that starts late has the same numbers and keys, and marks."""
    monkeypatch.setattr(sessions, "LIST_RECORDS", 5)
    one = nodes("a")
    nodes.log.restart()
    taken(one, *(Draft("a", b"%d" % n, key=f"k{n}") for n in range(20)))
    before = nodes.log.end
    wait(one, lambda: any(record[:3] == b"oc\x11" for record, _, _ in nodes.log.records))
    nodes.log.remove(before - 5)
    two = nodes("a")
    assert two.opening.epoch == one.opening.epoch
    again = taken(two, Draft("a", b"x", key="k19"))
    assert again[0].seq == one.messages[-1].seq
    page = two.page("a", two.after(0))
    assert page is not None
    assert page.messages == [message for message in one.messages if message.seq > page.marks["a"].seq]
    assert 0 < page.marks["a"].seq < page.messages[0].seq


def test_a_log_without_any_life_begins_anew() -> None:
    """Where the lives are gone with the log's beginning, another log begins."""
    lab = LogLab(MemoryLog(first=100))
    lab.log.append([b"old", b"older"])
    bench = lab.bench("a")
    (receipt,) = bench.receipts(Draft("a", b"1"))
    assert receipt.epoch == bench.opening.epoch
    page = bench.page("a", bench.after(0))
    assert page is not None
    assert page.messages == bench.messages
    bench.stop()
    lab.driver.close()


def test_what_the_server_removes_is_marked(nodes: Nodes, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page says what the server has removed meanwhile, noticed by the page or by the sweep."""
    one = nodes("a")
    receipts = taken(one, *(Draft("a", b"%d" % n) for n in range(20)))
    nodes.log.remove(nodes.log.end - 5)
    page = one.page("a", one.after(0))
    assert page is not None
    assert page.marks["a"].seq == receipts[14].seq
    assert page.messages == one.messages[15:]
    monkeypatch.setattr(sessions, "SWEEP_SECONDS", 0.0)
    nodes.log.remove(3)
    ledger = nodes.lab.places[0].ledger
    assert ledger is not None
    wait(one, lambda: ledger.first == nodes.log.first)


def test_a_probe_that_does_not_come_back_is_a_loss(nodes: Nodes, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes records and lets none come is away."""
    one = nodes("a")
    monkeypatch.setattr(probes, "SILENT_SECONDS", 0.01)
    nodes.lab.servers[0].silent = True
    monkeypatch.setattr(sessions, "QUIET_SECONDS", 0.0)
    wait(one, lambda: len(nodes.lab.servers) > 1 and one.unready is None)
    taken(one, Draft("a", b"1"))
    assert nodes.lab.servers[0].closed


def test_a_message_too_large_is_refused_alone(nodes: Nodes) -> None:
    """What the server does not take is refused with a text that says how much it takes; the others are published."""
    nodes.lab.most_bytes = 200
    one = nodes("a")
    outcomes = one.publish(Draft("a", b"1"), Draft("a", bytes(200)), Draft("a", b"2"))
    refused = outcomes[1]
    assert isinstance(refused, Refusal)
    assert (refused.code, "200 bytes" in refused.message) == ("body_too_large", True)
    assert [message.data for message in one.messages] == [b"1", b"2"]
    (alone,) = one.publish(Draft("a", bytes(200)))
    assert isinstance(alone, Refusal)


def test_the_state_and_the_channels_of_a_log(nodes: Nodes) -> None:
    """What a person asks is answered from what has been read up to now; a trim holds for every node."""
    one, two = nodes("a"), nodes("a")
    drafts = [Draft("b", b"1"), *(Draft("a", b"%d" % n) for n in range(5))]
    taken(one, *drafts)
    run = nodes.lab.driver.run
    assert isinstance(two.broker, Operable)
    numbers = [message.seq for message in one.messages]
    expected = [ChannelState("a", 5, numbers[0], numbers[-1]), ChannelState("b", 1, numbers[0] - 1, numbers[0] - 1)]
    assert run(two.broker.channels()) == expected
    assert run(two.broker.inspect()) == LogState("a log in memory", 0)
    assert run(two.broker.trim("a", Retention(2, 1e9))) == ChannelState("a", 2, numbers[3], numbers[4])
    assert run(two.broker.trim("a", Retention(2, 1e9))) == ChannelState("a", 2, numbers[3], numbers[4])
    assert run(two.broker.trim("none", Retention(0, 1e9))) == ChannelState("none")
    page = one.page("a", one.after(0))
    assert page is not None
    assert (page.marks["a"].seq, page.messages) == (numbers[2], one.messages[3:])


@pytest.mark.parametrize("removed", [True, False])
def test_a_log_that_lacks_what_a_node_was_to_read_next(nodes: Nodes, removed: bool) -> None:
    """What was removed before a node had read it is a gap for its readers: the node skips it, and goes on."""
    one, two = nodes("a"), nodes("a")
    lost = nodes.lab.servers[1]
    nodes.log.connections.remove(lost)
    taken(one, *(Draft("a", b"%d" % n) for n in range(9)))
    listed = nodes.lab.places[0].ledger
    assert listed is not None
    nodes.log.append([encode_control(LIVES, b"x" * 8, 1, listed.list_of_lives())])
    taken(one, Draft("a", b"kept"))
    nodes.log.remove(nodes.log.end - 2)
    lost.lost = not removed
    lost.grown.set()
    wait(two, lambda: bool(two.skipped) and two.unready is None)
    taken(one, Draft("a", b"last"))
    wait(two, lambda: bool(two.messages))
    assert [message.data for message in two.messages] == [b"last"]
    assert two.openings[1:] == []


def test_a_server_that_changes_all_the_time_is_given_up(nodes: Nodes) -> None:
    """A life that no record can begin is a loss; the next attempt begins one."""
    one = nodes("a")
    real, count = nodes.log.append, 0

    def append(records: Sequence[bytes], incarnation: int | None = None) -> None:
        nonlocal count
        count += 1
        if count < 12:
            nodes.log.incarnation += 1
        real(records, incarnation)

    nodes.log.append = append  # type: ignore[method-assign]
    nodes.log.cut()
    wait(one, lambda: count > 12 and one.unready is None)
    taken(one, Draft("a", b"1"))
    assert one.failures == []


def test_unwanted_before_it_is_confirmed(nodes: Nodes) -> None:
    """A channel that is let go in the same turn is not confirmed."""
    one = nodes("a")
    one.broker.want(("b",))
    one.broker.unwant(("b",))
    taken(one, Draft("a", b"1"), Draft("b", b"2"))
    assert "b" not in one.confirmed
    assert [message.data for message in one.messages] == [b"1"]
