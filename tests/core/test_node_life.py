"""The node and a broker elsewhere: start and stop, away and back, what is wanted, the head, holes, and another log."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from oncecast.brokers.base import ANSWER_SECONDS, Done, Outcome, Sink
from oncecast.core import waiting as waiting_module
from oncecast.core.ahead import WAIT_SECONDS
from oncecast.core.node import AWAY_SECONDS, ChannelPolicy, Node
from oncecast.core.place import Place
from oncecast.core.polls import Poll
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.core.wants import UNWANT_SECONDS
from oncecast.errors import Refusal, UsageError
from oncecast.message import EARLIEST, LATEST, Cursor, Draft, LogGap, Message, Reason, Retention, Start, StartKind
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import run_now
from oncecast.testing.history_broker import HistoryBroker


class Words:
    """A format that can be read back."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the epoch and the number."""
        return f"{epoch}-{message.seq} ".encode()

    def block(self, parts: list[bytes]) -> bytes:
        """Join them."""
        return b"".join(parts)


class Listener:
    """A sink that keeps what it gets as words, gaps among them."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.seen: list[str] = []
        self.gaps: list[LogGap] = []
        self.refusals: list[Refusal] = []

    def attached(self, place: Place) -> None:
        """Keep the place, and its gaps."""
        self.places.append(place)
        for gap in place.gaps:
            self.gap(gap)

    def write(self, block: bytes, /) -> None:
        """Keep the words."""
        self.seen.extend(block.decode().split())

    def gap(self, gap: LogGap, /) -> None:
        """Keep the gap."""
        self.gaps.append(gap)
        self.seen.append(gap.reason.value)

    def refuse(self, refusal: Refusal, /) -> None:
        """Keep the refusal."""
        self.refusals.append(refusal)


def fails(outcome: object) -> None:
    """Fail, as a callback."""
    raise RuntimeError("nobody takes this")


class Bench:
    """A node on a broker with a history, a fake clock, and turns that a test ends."""

    def __init__(
        self,
        *,
        at_once: bool = True,
        only_wanted: bool = False,
        wait: float = 0.0,
        policy: ChannelPolicy | None = None,
        started: bool = True,
        lossy_holes: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.broker = HistoryBroker("e", self.clock.wall, at_once=at_once, only_wanted=only_wanted)
        self.broker.capabilities = msgspec.structs.replace(self.broker.capabilities, lossy_holes=lossy_holes)
        every = policy or ChannelPolicy(Retention(messages=3))
        self.node = Node(
            self.broker,
            policy=lambda channel: every,
            max_bytes=1 << 20,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
            publish_wait_seconds=wait,
        )
        if started:
            run_now(self.node.start())

    def publish(self, channels: str) -> list[Outcome]:
        """Publish a message for each letter, and return where the outcomes will be."""
        outcomes: list[Outcome] = []
        self.node.publish([Draft(channel, b"1") for channel in channels], outcomes.extend)
        self.turns.run_all()
        return outcomes

    def subscribe(self, channels: str, start: Start = LATEST) -> tuple[Listener, Subscription]:
        """Subscribe to channels with a letter each."""
        listener = Listener()
        subscription = self.node.subscribe(tuple(channels), start, listener, WORDS, listener.attached)
        self.turns.run_all()
        return listener, subscription

    def poll(self, channels: str, start: Start) -> list[Poll | Refusal]:
        """Poll, and return where the answer will be."""
        answers: list[Poll | Refusal] = []
        self.node.poll(tuple(channels), start, 100, answers.append)
        self.turns.run_all()
        return answers

    def answer(self) -> None:
        """Answer the oldest read, and end the turns that follow."""
        self.broker.answer()
        self.turns.run_all()


WORDS = Words()


def after(seq: int, epoch: str = "e") -> Start:
    """The start right after a number."""
    return Start(StartKind.CURSOR, Cursor(epoch, seq))


def unready(bench: Bench) -> str | None:
    """Why the node is not ready, as it says now."""
    return bench.node.unready


def open_reads(bench: Bench) -> int:
    """How many reads the broker has not answered."""
    assert bench.node._history is not None
    return len(bench.node._history.reads)


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    """Receipts as `taken`, refusals by their code."""
    return [outcome.code if isinstance(outcome, Refusal) else "taken" for outcome in outcomes]


# -- start and stop


def refused(bench: Bench) -> None:
    """Whatever is asked is refused with `unavailable`."""
    assert ["unavailable"] == codes(bench.publish("a"))
    (answer,) = bench.poll("a", EARLIEST)
    assert isinstance(answer, Refusal)
    with pytest.raises(Refusal) as caught:
        bench.subscribe("a")
    assert {"unavailable"} == {answer.code, caught.value.code}


def test_nothing_is_served_before_the_start_and_after_the_stop() -> None:
    """A node is ready in between, and says why it is not."""
    bench = Bench(started=False)
    assert "the server is starting" == unready(bench)
    refused(bench)
    run_now(bench.node.start())
    assert unready(bench) is None
    assert ["taken"] == codes(bench.publish("a"))
    run_now(bench.node.stop())
    assert "the server is stopping" == unready(bench)
    refused(bench)
    bench.node.away("too late to matter")
    bench.node.back()
    assert "the server is stopping" == unready(bench)


def test_a_broker_that_does_not_begin_is_a_defect() -> None:
    """The node's start raises if the broker's start has not called `begin`."""

    class Mute(HistoryBroker):
        async def start(self, sink: Sink) -> None:
            pass

    bench = Bench(started=False)
    bench.node.broker = Mute("e", bench.clock.wall)
    with pytest.raises(UsageError, match="without calling `begin`"):
        run_now(bench.node.start())


def test_the_same_log_does_not_begin_twice() -> None:
    """A second `begin` for the same log raises, and names `hole` and `skip`."""
    bench = Bench()
    with pytest.raises(UsageError, match="call `hole` or `skip`"):
        bench.node.begin(bench.broker.opening())


def test_a_node_that_has_failed_refuses_everything() -> None:
    """A read that is open is answered too."""
    bench = Bench(at_once=False)
    answers = bench.poll("a", Start(StartKind.SINCE, number=0)) + bench.poll("a", EARLIEST)
    bench.broker.append(Draft("a", b"1"))
    bench.broker.skip()
    answers = bench.poll("a", EARLIEST)
    assert [] == answers
    bench.node.fail("the file is gone")
    assert ["unavailable"] == codes(answers)  # type: ignore[arg-type]
    assert "the file is gone" == unready(bench)
    refused(bench)


def test_a_turn_that_fails_fails_the_node(caplog: pytest.LogCaptureFixture) -> None:
    """A defect in the fan-out is not left to the loop, which would go on in silence."""
    bench = Bench()
    bench.node.hub._replay = None  # type: ignore[assignment]
    bench.publish("a")
    assert "the delivery of messages has failed: AttributeError" in (bench.node.failed or "")


# -- away and back


def test_a_publish_is_refused_while_the_broker_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """A publish is refused with a time to try again while the broker is away; polls are served and listeners stay."""
    bench = Bench()
    listener, _ = bench.subscribe("a")
    bench.publish("a")
    bench.node.away("redis: connection refused")
    bench.node.away("redis: no route to host")
    assert "redis: no route to host" == unready(bench)
    (refusal,) = bench.publish("a")
    assert isinstance(refusal, Refusal)
    assert ("unavailable", AWAY_SECONDS) == (refusal.code, refusal.retry_after)
    (poll,) = bench.poll("a", EARLIEST)
    assert isinstance(poll, Poll)
    assert [1] == [entry.seq for entry in poll.entries]
    bench.node.back()
    bench.node.back()
    assert unready(bench) is None
    assert ["taken"] == codes(bench.publish("a"))
    assert (["e-1", "e-2"], []) == (listener.seen, listener.refusals)
    assert ["not ready: redis: connection refused", "ready again: the broker is back"] == caplog.messages


def test_a_publish_waits_for_the_broker_as_long_as_is_set() -> None:
    """In order, and refused after its time."""
    bench = Bench(wait=5.0)
    listener, _ = bench.subscribe("ab")
    bench.node.away("gone")
    late = bench.publish("a")
    bench.clock.advance(3.0)
    first, second = bench.publish("ab"), bench.publish("b")
    bench.clock.advance(2.0)
    bench.node.tick()
    assert (["unavailable"], [], [], 3) == (codes(late), first, second, len(bench.node.held))
    bench.node.back()
    bench.turns.run_all()
    assert (["taken"] * 2, ["taken"], 0) == (codes(first), codes(second), len(bench.node.held))
    assert ["e-1", "e-2", "e-3"] == listener.seen


@pytest.mark.parametrize("bound", ["HELD_DRAFTS", "HELD_BYTES"])
def test_what_waits_for_the_broker_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Past the bound a publish is refused at once; what is published or refused gives its room back."""
    monkeypatch.setattr(waiting_module, bound, 2)
    bench = Bench(wait=5.0)
    for _ in range(2):
        bench.node.away("gone")
        assert [[], ["unavailable"]] == [codes(bench.publish(c)) for c in ("ab", "c")]
        bench.node.back()
    bench.node.away("gone")
    held = bench.publish("ab")
    run_now(bench.node.stop())
    assert ["unavailable"] * 2 == codes(held)


def test_what_waits_is_refused_when_the_broker_fails() -> None:
    """Each waiting publish and read is refused."""
    bench = Bench(wait=5.0)
    bench.node.away("gone")
    held = bench.publish("a")
    bench.node.fail("for good")
    assert ["unavailable"] == codes(held)


@pytest.mark.parametrize("end", ["late", "failed", "back"])
def test_a_publisher_that_fails_at_its_answer_ends_nothing(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """The publish behind it is answered, and the log has the error."""
    bench = Bench(wait=5.0)
    bench.node.away("gone")
    bench.node.publish([Draft("a", b"1")], fails)
    behind = bench.publish("a")
    if end == "late":
        bench.clock.advance(5.0)
        bench.node.tick()
    elif end == "failed":
        bench.node.fail("for good")
    else:
        bench.node.back()
    assert ["taken" if end == "back" else "unavailable"] == codes(behind)
    assert "nobody takes this" in caplog.text


# -- reads and their deadlines


def test_a_reader_that_fails_at_its_answer_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The reads behind it are answered at their deadline, those that wait for the log among them."""
    bench = Bench(at_once=False)
    bench.broker.append(*(Draft("a", b"1") for _ in range(9)))
    bench.broker.skip()
    bench.node.poll(("a",), EARLIEST, 100, fails)
    polled = bench.poll("a", EARLIEST)
    bench.clock.advance(ANSWER_SECONDS)
    bench.node.tick()
    assert ["unavailable"] == [answer.code for answer in polled if isinstance(answer, Refusal)]
    assert "nobody takes this" in caplog.text


def test_a_read_that_is_not_answered_is_refused_after_its_time() -> None:
    """The read is refused at its deadline. A late answer is dropped."""
    bench = Bench(at_once=False)
    bench.broker.append(*(Draft("a", b"1") for _ in range(9)))
    bench.broker.skip()
    polled = bench.poll("a", EARLIEST)
    listener, _ = bench.subscribe("a", EARLIEST)
    bench.clock.advance(ANSWER_SECONDS - 1)
    later = bench.poll("a", EARLIEST)
    bench.node.tick()
    assert ([], [], []) == (polled, later, listener.refusals)
    bench.clock.advance(1)
    bench.node.tick()
    bench.turns.run_all()
    assert (["unavailable"], []) == (codes(polled), later)  # type: ignore[arg-type]
    assert ["unavailable"] == [refusal.code for refusal in listener.refusals]
    bench.answer()
    bench.answer()
    assert (1, [], 1) == (len(polled), listener.seen, open_reads(bench))
    run_now(bench.node.stop())
    assert ["unavailable"] == codes(later)  # type: ignore[arg-type]


def test_a_read_that_the_broker_can_not_begin_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """A defect of the broker is one answer, and the log of the operator has its cause."""
    bench = Bench()
    bench.broker.append(Draft("a", b"1"))
    bench.broker.skip()

    def fail(*rest: object) -> None:
        raise ZeroDivisionError

    bench.broker.read = fail  # type: ignore[method-assign,assignment]
    assert ["internal"] == codes(bench.poll("a", EARLIEST))  # type: ignore[arg-type]
    assert ["the broker could not begin a read"] == caplog.messages


# -- the head without a message


def test_a_reader_that_is_ahead_goes_on_when_the_head_moves() -> None:
    """A cursor of another node may be ahead of this one, where nothing comes that its listeners want."""
    bench = Bench()
    bench.broker.append(*(Draft("z", b"1") for _ in range(5)))
    listener, subscription = bench.subscribe("a", after(5))
    polled = bench.poll("a", after(5))
    assert State.CATCHING_UP is subscription.state
    bench.node.advance(4)
    bench.turns.run_all()
    assert State.CATCHING_UP is subscription.state
    bench.node.advance(5)
    bench.node.advance(3)  # older than the head: nothing
    bench.turns.run_all()
    assert (State.LIVE, 5, 5) == (subscription.state, bench.node.hub.flushed, bench.node.log.head)
    assert Cursor("e", 5) == bench.node.hub.heartbeat_cursor([subscription])
    (poll,) = polled
    assert isinstance(poll, Poll)
    assert Cursor("e", 5) == poll.cursor
    assert [] == listener.seen


def test_the_head_may_move_in_the_turn_of_a_message() -> None:
    """A live subscription has been written all of it, so its cursor is the head."""
    bench = Bench()
    listener, subscription = bench.subscribe("a")
    bench.node.receive([Message(1, "a", b"1", Draft("a", b"").kind, None, 0.0)])
    bench.node.advance(4)
    assert 0 == bench.node.hub.flushed
    bench.turns.run_all()
    assert (["e-1"], 4) == (listener.seen, bench.node.hub.flushed)
    assert Cursor("e", 4) == bench.node.hub.heartbeat_cursor([subscription])


# -- another log, and a hole


def everywhere(bench: Bench) -> dict[str, tuple[Listener, Subscription]]:
    """Subscribers of channel `a` in each place where one can stand, all of whom have what they could get."""
    bench.broker.append(*(Draft("a", b"1") for _ in range(5)))
    bench.broker.hand_over()
    bench.turns.run_all()
    found = {"live": bench.subscribe("a"), "blocked": bench.subscribe("a")}
    bench.node.hub.block([found["blocked"][1]])
    found["asked"] = bench.subscribe("a", after(1))  # behind the window: it waits for a page
    found["ahead"] = bench.subscribe("a", after(5))
    bench.node.hub._replay._wait_for(found["ahead"][1], 6)
    found["looked up"] = bench.subscribe("a", Start(StartKind.LAST, number=4))
    return found


def run_all(bench: Bench) -> None:
    """Answer and turn until nothing is left to do."""
    while bench.broker.reads or bench.turns.run():
        if bench.broker.reads:
            bench.broker.answer()


def test_every_subscriber_hears_of_another_log_and_reads_it() -> None:
    """Whatever it was waiting for: one gap, and all that the new log has. No page of the old one is served."""
    bench = Bench(at_once=False)
    found = everywhere(bench)
    stale = bench.poll("a", after(1))
    stale_last = bench.poll("a", Start(StartKind.LAST, number=4))
    for read in range(len(bench.broker.reads)):
        bench.broker.look(read)  # each has found what the old log had
    bench.broker.renew("f")
    bench.broker.append(Draft("a", b"new"), Draft("b", b"new"), Draft("a", b"new"))
    bench.broker.hand_over()
    bench.node.hub.unblock([found["blocked"][1]])
    run_all(bench)
    for name, (listener, subscription) in found.items():
        expected = ["f-1", "f-3"] if name == "looked up" else ["epoch", "f-1", "f-3"]
        assert (name, expected, State.LIVE) == (name, listener.seen, subscription.state)
        assert [] == listener.refusals
    (poll,), (last,) = stale, stale_last
    assert isinstance(poll, Poll)
    assert isinstance(last, Poll)
    assert ([Reason.EPOCH], [1, 3]) == ([gap.reason for gap in poll.gaps], [entry.seq for entry in poll.entries])
    assert ([], [1, 3]) == (last.gaps, [entry.seq for entry in last.entries])
    assert "f" == poll.cursor.epoch
    assert (3, 0) == (bench.node.log.count, len(bench.node.hub._blocked))


def test_every_subscriber_hears_of_a_hole_and_goes_on() -> None:
    """Each subscriber gets one gap for a hole, as the channels of what was lost are unknown, and then new messages."""
    bench = Bench(at_once=False)
    found = everywhere(bench)
    stale = bench.poll("a", after(1))
    for read in range(len(bench.broker.reads)):
        bench.broker.look(read)
    bench.broker.lose(2)
    bench.broker.append(Draft("a", b"new"))
    bench.broker.hand_over()
    bench.node.hub.unblock([found["blocked"][1]])
    run_all(bench)
    expected = {
        "live": ["unknown", "e-106"],
        "blocked": ["unknown", "e-106"],
        "asked": ["unknown", "e-2", "e-3", "e-106"],
        "ahead": ["unknown", "e-106"],
        "looked up": ["e-1", "e-2", "e-3", "e-106"],  # it had not begun
    }
    assert expected == {name: listener.seen for name, (listener, _) in found.items()}
    gap = found["live"][0].gaps[0]
    assert (Cursor("e", 4), Cursor("e", 104), Cursor("e", 105)) == (gap.missed_from, gap.missed_to, gap.cursor)
    assert Cursor("e", 1) == found["asked"][0].gaps[0].cursor  # its gap comes at once, and reads on from where it was
    (poll,) = stale
    assert isinstance(poll, Poll)
    assert [2, 3, 106] == [entry.seq for entry in poll.entries]
    listener, _ = bench.subscribe("a", after(5))
    run_all(bench)
    assert [Reason.UNKNOWN] == [gap.reason for gap in listener.gaps]


@pytest.mark.parametrize("start, gaps", [(after(1), 1), (after(3), 1), (after(103), 0), (EARLIEST, 0)])
def test_a_poll_passes_a_hole_that_nothing_precedes(start: Start, gaps: int) -> None:
    """A poll at a hole is answered with the gap at once: a 304 would send its client to the same cursor for ever."""
    bench = Bench(lossy_holes=True)
    bench.publish("aaa")
    bench.broker.lose(0)
    bench.publish("ab")
    (poll,) = bench.poll("c", start)
    assert isinstance(poll, Poll)
    assert [Reason.UNKNOWN] * gaps == [gap.reason for gap in poll.gaps]
    assert ([], Cursor("e", 105)) == (poll.entries, poll.cursor)
    (poll,) = bench.poll("b", start)
    assert isinstance(poll, Poll)
    assert ([105], Cursor("e", 105)) == ([entry.seq for entry in poll.entries], poll.cursor)


def test_a_subscriber_of_several_channels_hears_of_each() -> None:
    """Only the last gap moves it on, so that a cut in between loses none; its own end in between ends it."""
    bench = Bench()
    bench.publish("ab")
    listener, subscription = bench.subscribe("ab")
    other, ended = bench.subscribe("ab")

    def end(gap: LogGap, /) -> None:
        other.gaps.append(gap)
        bench.node.hub.detach(ended)

    other.gap = end  # type: ignore[method-assign]
    bench.broker.renew("f")
    run_all(bench)
    assert [("a", Cursor("e", 2)), ("b", Cursor("f", 0))] == [(gap.channel, gap.cursor) for gap in listener.gaps]
    assert (State.LIVE, State.CLOSED, 1) == (subscription.state, ended.state, len(other.gaps))


def test_a_lagging_subscriber_of_newest_values_hears_of_a_hole() -> None:
    """A subscriber of newest values that lags behind does not skip past the gap of a hole."""
    bench = Bench(policy=ChannelPolicy(Retention(messages=3), Lag.LATEST))
    listener, subscription = bench.subscribe("a")
    bench.publish("a")
    bench.node.hub.block([subscription])
    bench.broker.lose(1)
    bench.publish("aa")
    bench.node.hub.unblock([subscription])
    run_all(bench)
    assert ["e-1", "unknown", "e-102", "e-103"] == listener.seen


# -- what is wanted


def test_a_listener_waits_until_its_channel_is_delivered() -> None:
    """Messages from before a channel's delivery are read from the history, so that none is missed or repeated."""
    bench = Bench(at_once=False, only_wanted=True)
    listener, subscription = bench.subscribe("a")
    bench.answer()  # where the log ends
    assert (["a"], State.CATCHING_UP) == (bench.broker.wanted, subscription.state)
    bench.broker.append(Draft("a", b"1"), Draft("b", b"1"))
    bench.broker.hand_over()
    bench.turns.run_all()
    assert [] == bench.broker.reads  # it does not ask again and again meanwhile
    bench.broker.confirm("a")
    bench.turns.run_all()
    bench.answer()
    assert (["e-1"], State.LIVE) == (listener.seen, subscription.state)
    bench.broker.append(Draft("a", b"2"))
    bench.broker.hand_over()
    bench.turns.run_all()
    assert (["e-1", "e-3"], []) == (listener.seen, bench.broker.reads)


def test_a_channel_may_be_delivered_from_beyond_the_head() -> None:
    """The broker's subscription stands further on than this node has come: it waits for the head."""
    bench = Bench(at_once=False, only_wanted=True)
    listener, subscription = bench.subscribe("a")
    bench.answer()
    bench.broker.append(Draft("a", b"1"), Draft("b", b"1"))
    bench.node.wanted(["a"], 2)
    bench.turns.run_all()
    assert ([], State.CATCHING_UP) == (bench.broker.reads, subscription.state)
    bench.node.advance(2)
    bench.turns.run_all()
    bench.answer()
    assert (["e-1"], State.LIVE) == (listener.seen, subscription.state)


@pytest.mark.parametrize("start", [LATEST, Start(StartKind.LAST, number=0)])
def test_latest_is_after_what_is_acknowledged_though_this_node_is_behind(start: Start) -> None:
    """A channel that nobody listens to here is not delivered: how far the log has come, only the history knows."""
    bench = Bench(only_wanted=True)
    bench.broker.append(Draft("a", b"1"), Draft("b", b"1"), Draft("a", b"2"))
    assert (0, 3) == (bench.node.log.head, bench.broker.messages[-1].seq)
    (poll,) = bench.poll("a", start)
    assert isinstance(poll, Poll)
    assert ([], "e-3") == ([entry.seq for entry in poll.entries], str(poll.cursor))
    listener, _ = bench.subscribe("a", start)
    run_all(bench)
    bench.broker.append(Draft("a", b"3"))
    bench.broker.hand_over()
    run_all(bench)
    assert ["e-4"] == listener.seen


def test_a_channel_is_unwanted_some_time_after_its_last_listener() -> None:
    """Clients that come back at once find it still delivered; one turn asks once for all."""
    bench = Bench(only_wanted=True)
    asked: list[list[str]] = []
    want, bench.broker.want = bench.broker.want, lambda channels: asked.append(list(channels))  # type: ignore[method-assign]
    bench.node._wants._want = bench.broker.want  # type: ignore[union-attr]
    subscriptions = [
        bench.node.subscribe(tuple(channels), LATEST, listener, WORDS, listener.attached)
        for channels, listener in (("ab", Listener()), ("bc", Listener()))
    ]
    bench.turns.run_all()
    assert [["a", "b", "c"]] == asked
    want(asked[0])
    bench.turns.run_all()
    for subscription in subscriptions:
        bench.node.hub.detach(subscription)
    bench.clock.advance(UNWANT_SECONDS - 1)
    again, _ = bench.subscribe("b")
    bench.clock.advance(1)
    bench.node.tick()
    assert (["b"], 1) == (bench.broker.wanted, len(asked))
    bench.publish("ab")
    assert ["e-2"] == again.seen
    assert ["b"] == [name for name in "abc" if not bench.node.log.unwanted(name)]


def test_what_nobody_wants_is_read_from_the_history() -> None:
    """A poll of an unwanted channel does not use the window."""
    bench = Bench(only_wanted=True)
    bench.publish("aab")
    for start in (EARLIEST, after(0), Start(StartKind.SINCE, number=0), Start(StartKind.LAST, number=9)):
        (poll,) = bench.poll("a", start)
        assert isinstance(poll, Poll)
        assert ([1, 2], []) == ([entry.seq for entry in poll.entries], poll.gaps)
    assert 0 == bench.node.log.count


def test_what_was_held_while_unwanted_is_not_believed() -> None:
    """A message that comes late for a channel that was let go does not make the window whole."""
    bench = Bench(only_wanted=True)
    _, subscription = bench.subscribe("a")
    bench.publish("a")
    bench.node.hub.detach(subscription)
    bench.clock.advance(UNWANT_SECONDS)
    bench.node.tick()
    assert 0 == bench.node.log.count
    bench.broker.append(Draft("a", b"2"))
    bench.node.receive(bench.broker.messages[-1:])
    bench.broker.append(Draft("a", b"3"))
    bench.broker.hand_over()
    listener, _ = bench.subscribe("a", after(0))
    run_all(bench)
    assert ["e-1", "e-2", "e-3"] == listener.seen


def test_a_confirmation_that_comes_too_late_is_dropped() -> None:
    """The channel is not wanted any more."""
    bench = Bench(at_once=False, only_wanted=True)
    _, subscription = bench.subscribe("a")
    bench.node.hub.detach(subscription)
    assert {} == bench.node.hub._replay._unconfirmed
    bench.clock.advance(UNWANT_SECONDS)
    bench.node.tick()
    bench.broker.confirm("a")
    assert ["a"] == bench.node.log.unwanted("a")


def test_what_was_wanted_is_confirmed_again_in_another_log() -> None:
    """Until then its listeners wait, and get all that came meanwhile."""
    bench = Bench(at_once=False, only_wanted=True)
    listener, subscription = bench.subscribe("a")
    bench.answer()
    bench.broker.confirm("a")
    bench.turns.run_all()
    assert State.LIVE is subscription.state
    bench.broker.renew("f")
    bench.broker.append(Draft("a", b"1"))
    bench.broker.hand_over()
    bench.turns.run_all()
    assert (["epoch"], []) == (listener.seen, bench.broker.reads)
    bench.broker.confirm("a")
    run_all(bench)
    assert (["epoch", "f-1"], State.LIVE) == (listener.seen, subscription.state)


def test_other_brokers_confirm_nothing() -> None:
    """If the broker delivers every channel, a confirmation changes nothing."""
    bench = Bench()
    bench.publish("a")
    bench.node.wanted(["a"], 9)
    bench.node.log.want("a", 9)
    bench.node.log.unwant("a")
    assert (1, True, []) == (bench.node.log.count, bench.node.log.covers("a", 0), bench.node.log.unwanted("a"))


def test_a_publish_in_the_order_of_its_calls() -> None:
    """A publish made while what waited is published comes after it."""
    bench = Bench(wait=5.0)
    bench.node.away("gone")
    order: list[str] = []

    def first(outcomes: Sequence[Outcome]) -> None:
        order.append("first")
        bench.node.publish([Draft("a", b"3")], third)

    second: Done = lambda outcomes: order.append("second")  # noqa: E731
    third: Done = lambda outcomes: order.append("third")  # noqa: E731
    bench.node.publish([Draft("a", b"1")], first)
    bench.node.publish([Draft("a", b"2")], second)
    bench.node.back()
    assert ["first", "second", "third"] == order


def test_a_subscriber_does_not_wait_for_a_confirmation_for_ever() -> None:
    """A subscriber without a confirmation is refused at its deadline, and holds nothing after that."""
    bench = Bench(at_once=False, only_wanted=True)
    listener, subscription = bench.subscribe("a", after(0))
    bench.turns.run_all()
    bench.node.tick()
    bench.clock.advance(WAIT_SECONDS - 1)
    bench.node.tick()
    assert [] == listener.refusals
    bench.clock.advance(1)
    bench.node.tick()
    assert ["unavailable"] == [refusal.code for refusal in listener.refusals]
    bench.node.hub.detach(subscription)
    assert ([], {}) == (bench.node.hub._replay.members(), bench.node.hub._replay._unconfirmed)


def test_a_subscriber_whose_channel_is_confirmed_waits_no_more() -> None:
    """No deadline applies to it once it is live."""
    bench = Bench(at_once=False, only_wanted=True)
    listener, subscription = bench.subscribe("a")
    bench.answer()
    bench.turns.run_all()
    bench.broker.confirm("a")
    bench.turns.run_all()
    assert State.LIVE is subscription.state
    for _ in range(3):
        bench.clock.advance(WAIT_SECONDS)
        bench.node.tick()
    assert ([], State.LIVE) == (listener.refusals, subscription.state)


def test_a_channel_is_wanted_before_it_is_unwanted() -> None:
    """No channel stays wanted whose only listener has gone, even if the turn in which it came lasted UNWANT_SECONDS."""
    bench = Bench(at_once=False, only_wanted=True)
    listener = Listener()
    subscription = bench.node.subscribe(("a",), LATEST, listener, WORDS, listener.attached)
    bench.node.hub.detach(subscription)
    bench.clock.advance(UNWANT_SECONDS)
    bench.node.tick()
    assert [] == bench.broker.wanted
    bench.turns.run_all()
    assert [] == bench.broker.wanted
