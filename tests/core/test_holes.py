"""How subscriptions cross a hole of the log, in the hub and in the replay.

Invariant: the place at which a client would resume never moves past the gap of a hole that it has not been handed.
"""

from __future__ import annotations

import pytest

from oncecast.core import pages, replay
from oncecast.core.place import locate
from oncecast.core.subscription import Lag, State, Subscription
from oncecast.message import LogGap, Reason, Start, StartKind
from tests.core.conftest import FakeSink, HistoryBench

BEFORE, AFTER = 6, 20  # the hole: the numbers between may have been given to messages that are lost
STORED, LATER = "aababb", "ba"  # the channels of the messages before the hole, and after it
NUMBERED = [*enumerate(STORED, 1), *enumerate(LATER, AFTER + 1)]
ALL = 1000


class Client(FakeSink):
    """A client that keeps its place. It takes `left` items; then its connection is cut, and the rest never comes."""

    def __init__(self, channels: str, place: int, left: int) -> None:
        super().__init__()
        self.place = place
        self.left = left
        self.numbers: list[int] = []
        self.items: list[int | str] = []  # the numbers of messages and the channels of gaps, in their order
        self._channels = channels

    @property
    def cut(self) -> bool:
        """Whether something was sent that did not come."""
        return self.left < 0

    def write(self, block: bytes, /) -> None:
        """Take the messages one by one."""
        for number in map(int, block.split()):
            self.left -= 1
            if not self.cut:
                self.numbers.append(number)
                self.items.append(number)
                self.move(number)

    def gap(self, gap: LogGap, /) -> None:
        """Take a gap."""
        self.left -= 1
        if not self.cut:
            super().gap(gap)
            self.items.append(gap.channel)
            self.move(gap.cursor.seq)

    def move(self, place: int) -> None:
        """Move on. Past the hole its gap has to be here, of each channel."""
        self.place = place
        if place >= AFTER:
            assert set(self._channels) == {gap.channel for gap in self.gaps}, (
                "the place is past a gap that did not come"
            )


def join(bench: HistoryBench, client: Client, channels: str) -> Subscription:
    """Attach a client at its place."""
    place = locate(bench.log, channels, Start(StartKind.CURSOR, bench.log.cursor(client.place)))
    subscription = Subscription(tuple(channels), bench.format, client, place, Lag.RESUME)
    bench.hub.attach(subscription)
    return subscription


def serve(bench: HistoryBench, client: Client, subscription: Subscription) -> None:
    """Serve turn after turn until nothing is left to do. Each turn has a heartbeat, whose cursor moves the client."""
    while bench.turns.run() or bench.asked:
        if bench.asked:
            bench.answer()
        cursor = bench.hub.heartbeat_cursor([subscription])
        if cursor is not None and not client.cut:
            client.move(cursor.seq)


def cross(bench: HistoryBench, client: Client, channels: str, where: str) -> Subscription:
    """Attach a client, and let the log have a hole while the client is at this point."""
    if where == "behind it, later":
        bench.hub.hole(BEFORE, AFTER)
        bench.append(LATER)
        return join(bench, client, channels)
    subscription = join(bench, client, channels)
    if where == "behind it":  # it has read a page by then
        bench.turns.run()
        while bench.asked:
            bench.answer()
        bench.turns.run()
    else:
        serve(bench, client, subscription)
        assert State.LIVE is subscription.state
    if where == "full":
        bench.hub.block([subscription])
    bench.hub.hole(BEFORE, AFTER)
    bench.append(LATER)
    if where == "full":
        bench.turns.run_all()
        bench.hub.unblock([subscription])
    return subscription


@pytest.mark.parametrize("most", [1, 2, 256])
@pytest.mark.parametrize("where", ["behind it", "behind it, later", "live", "full"])
@pytest.mark.parametrize("channels", ["a", "ab", "bax"])
def test_no_place_moves_past_the_gap_of_a_hole_that_was_not_handed_out(
    monkeypatch: pytest.MonkeyPatch, channels: str, where: str, most: int
) -> None:
    """Wherever a client stands at the hole, and after whichever item it is cut: each message once, and the gap."""
    monkeypatch.setattr(pages, "PAGE_MESSAGES", most)
    monkeypatch.setattr(replay, "PAGE_MESSAGES", most)
    begin = BEFORE if where in ("live", "full") else 0
    left, cut = 0, True
    while cut:
        bench = HistoryBench(STORED, messages=100, lossy_holes=True)
        client = Client(channels, begin, left)
        subscription = cross(bench, client, channels, where)
        serve(bench, client, subscription)
        cut, left = client.cut, left + 1
        mine = [number for number, name in NUMBERED if name in channels and number > begin]
        before, after = [n for n in mine if n <= BEFORE], [n for n in mine if n > AFTER]
        if not cut:
            assert [*before, *channels, *after] == client.items
        else:
            bench.hub.detach(subscription)
            client.left = ALL
            subscription = join(bench, client, channels)
            serve(bench, client, subscription)
        assert mine == client.numbers
        assert set(client.missed) == {(name, Reason.UNKNOWN, BEFORE + 1, AFTER - 1) for name in channels}
        assert (State.LIVE, []) == (subscription.state, bench.faults)


def test_a_place_at_a_hole_waits_for_its_gap_while_the_sink_is_full() -> None:
    """A sink that fills with the last message before the hole gets the gap once it has drained, and only then more."""
    bench = HistoryBench(STORED, messages=100, lossy_holes=True)
    bench.hub.hole(BEFORE, AFTER)
    client = Client("a", 0, ALL)
    subscription = join(bench, client, "a")
    write = client.write

    def write_and_fill(block: bytes) -> None:
        write(block)
        bench.hub.block([subscription])

    client.write = write_and_fill  # type: ignore[method-assign]
    serve(bench, client, subscription)
    assert ([1, 2, 4], [], BEFORE) == (client.numbers, client.missed, subscription.place and subscription.place.seq)
    client.write = write  # type: ignore[method-assign]
    bench.hub.unblock([subscription])
    serve(bench, client, subscription)
    assert [("a", Reason.UNKNOWN, BEFORE + 1, AFTER - 1)] == client.missed
    assert (State.LIVE, AFTER) == (subscription.state, client.place)
