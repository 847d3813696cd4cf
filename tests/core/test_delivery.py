"""The delivery: one block for all, sockets and sinks that fill, end or fail inside a write."""

from __future__ import annotations

import pytest

from oncecast.core.place import resolve
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.message import EARLIEST, LATEST, Kind, Message
from tests.core.conftest import Bench, FakeSink, FakeSocket, Words, after

# -- blocks


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
    """Each of two formats is encoded once."""
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
    """Attaching wakes the hub, and no subscription gets an empty block."""
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


# -- sinks that get several subscriptions


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


def test_gathering_beside_others_of_the_channel_repeats_nothing() -> None:
    """A subscription that starts to gather leaves the audience of its channel, so no message reaches it twice."""
    bench = Bench()
    others = [bench.live("a")[0] for _ in range(2)]
    sink, first = bench.live("a")
    _, second = bench.attach("b", sink=sink)
    bench.turns.run_all()
    bench.hub.gather([first, second])
    bench.append("a")
    bench.turns.run_all()
    assert [[b"1 "]] * 3 == [sink.blocks, *(other.blocks for other in others)]
    bench.hub.detach(first)
    bench.append("a")
    bench.turns.run_all()
    assert [b"1 "] == sink.blocks


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


# -- sockets


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
    """A subscription that ends before its block is written gets nothing."""
    bench = Bench()
    one, _ = bench.live("ab")
    two, second = bench.live("ab")
    one.on_write = lambda: bench.hub.detach(second)
    bench.append("ab")
    bench.turns.run()
    assert ([1, 2], []) == (one.seqs, two.seqs)


@pytest.mark.parametrize("rooms", [(), (0, 100)])
def test_a_write_may_end_the_only_listener_of_another_channel(rooms: tuple[int, ...]) -> None:
    """A subscription that ends before its block is written gets nothing, by its sink or by its socket."""
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


@pytest.mark.parametrize("channels", [("a", "a", "a"), ("a", "b", "c"), ("ax", "ax", "ax")])
@pytest.mark.parametrize("room", [0, 1])
def test_nothing_goes_to_the_descriptor_of_one_that_has_ended(channels: tuple[str, ...], room: int) -> None:
    """By then its number may be another connection's. What is left of the turn goes to the others alone."""
    bench = Bench()
    sinks, sockets, subscriptions = zip(
        *(bench.plug(c, r) for c, r in zip(channels, (room, 100, 100), strict=True)), strict=True
    )
    sinks[0].on_write = lambda: bench.hub.detach(subscriptions[1])
    bench.append("abc")
    bench.turns.run_all()
    assert ([], b"") == (sinks[1].blocks, sockets[1].taken)
    assert {"a": b"1 ", "b": b"2 ", "c": b"3 ", "ax": b"1 "}[channels[2]] == sockets[2].taken


@pytest.mark.parametrize("channels", [("a", "a", "a"), ("a", "b", "c"), ("ax", "ax", "ax")])
def test_nothing_goes_past_the_unsent_bytes_of_a_sink_that_has_filled_up(channels: tuple[str, ...]) -> None:
    """A block goes behind what a full sink holds, and the subscription is blocked after the turn."""
    bench = Bench()
    sinks, sockets, subscriptions = zip(
        *(bench.plug(c, r) for c, r in zip(channels, (0, 100, 0), strict=True)), strict=True
    )
    sinks[0].on_write = lambda: bench.hub.block([subscriptions[1]])
    bench.append("abc")
    bench.turns.run_all()
    block = {"a": b"1 ", "b": b"2 ", "ax": b"1 "}[channels[1]]
    assert (b"", [block], State.BLOCKED) == (sockets[1].taken, sinks[1].blocks, subscriptions[1].state)
    assert (b"", 1) == (sockets[2].taken, len(sinks[2].blocks))


@pytest.mark.parametrize("plugged", [True, False])
def test_the_other_subscriptions_of_a_sink_get_their_part(plugged: bool) -> None:
    """One subscription stands for all of a sink in a turn. If it ends, the others still get what they are owed."""
    bench = Bench()
    first_sink, _, _ = bench.plug("a", 0) if plugged else (*bench.live("a"), None)
    sink, socket, standing = bench.plug("b") if plugged else (*bench.live("b")[:1], None, None)
    if standing is None:
        standing = next(iter(s for s in bench.hub._audiences.members() if s.sink is sink))
    others = []
    for channel in "cd":
        place = resolve(bench.log, channel, LATEST)
        subscription = Subscription((channel,), bench.format, sink, place, Lag.RESUME, standing.descriptor)
        bench.hub.attach(subscription)
        others.append(subscription)
    bench.turns.run_all()
    bench.hub.gather([standing, *others])
    first_sink.on_write = lambda: bench.hub.detach(standing)
    bench.append("badc")
    bench.turns.run_all()
    assert [b"3 4 "] == sink.blocks
    assert socket is None or b"" == socket.taken
    bench.hub.detach(others[0])
    first_sink.on_write = lambda: bench.hub.detach(others[1])
    bench.append("ad")
    bench.turns.run_all()
    assert [b"3 4 "] == sink.blocks


def test_a_write_may_gather_and_end_another() -> None:
    """A write may end another subscription of the channel after a block was made for one subscription alone."""
    bench = Bench()
    first_sink, _ = bench.live("a")
    sink, leaving = bench.live("b")
    _, staying = bench.attach("c", sink=sink)
    bench.turns.run_all()

    def gather_and_end() -> None:
        bench.hub.gather([leaving, staying])
        bench.hub.detach(leaving)

    first_sink.on_write = gather_and_end
    bench.append("abc")
    bench.append("c")
    bench.turns.run_all()
    assert ([], [3, 4]) == (bench.faults, sink.seqs)


def test_a_failed_delivery_leaves_no_trace() -> None:
    """An exception that is not a sink's ends the delivery, and the next turn is delivered."""
    bench = Bench()
    sink, _ = bench.live("ab")
    merge = bench.hub._delivery._merge
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bench.hub._delivery), "_merge", lambda *arguments: fail())
        bench.append("a")
        with pytest.raises(RuntimeError, match="defect"):
            bench.turns.run()
    assert not bench.hub._delivery.running
    assert merge == bench.hub._delivery._merge
    bench.append("a")
    bench.turns.run_all()
    assert [2] == sink.seqs


# -- defects


def fail() -> None:
    """What a sink with a defect does."""
    raise RuntimeError("defect")


def test_a_sink_that_fails_keeps_nothing_from_the_others() -> None:
    """A sink that raises is reported, and all subscribers after it get the block."""
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
    """The turn goes on, and those that are behind the sink still catch up."""
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
    """A message that can't be encoded is reported, and the rest of its block is sent, live and in pages."""
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
