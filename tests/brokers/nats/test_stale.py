"""Clusters some of whose answers lack the newest records: whichever answers these are, nothing is passed over."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from oncecast.brokers.address import parse_address
from oncecast.brokers.handover import Handover
from oncecast.brokers.lives import Life
from oncecast.brokers.nats import asking, pages, session
from oncecast.brokers.nats.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.nats.session import NatsSession
from oncecast.brokers.nats.stream import encode_draft
from oncecast.brokers.session import GuardedSink, Lost
from oncecast.message import Cursor, Draft, Receipt, Retention, Start, StartKind
from tests.brokers.nats.stale import SECONDS, TIME, StaleCluster
from tests.brokers.test_handover import HandedOver

SEEN, LAST = 5, 15  # the node has had the messages 2 to 5, and missed the others
QUESTIONS = range(32)  # more than an opening or a page asks
LENGTHS = (1, 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no time between two tries."""
    for module in (asking, pages):
        monkeypatch.setattr(module, "BEHIND_SECONDS", 0.0)


@pytest.fixture(params=["beside the leader", "as the leader"])
def beside(request: pytest.FixtureRequest) -> bool:
    """Whether a member answers beside the leader."""
    return bool(request.param == "beside the leader")


def windows() -> Iterator[tuple[int, int]]:
    """Every place at which answers may begin to be stale, and for how many of them."""
    return itertools.product(QUESTIONS, LENGTHS)


class Bench:
    """A node that comes back to a cluster. `handed` is what it is handed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: StaleCluster, base: int = 0) -> None:
        self.client = client
        client.store("s.life", Life(1, "e", 0.0, f"cluster {TIME}", 0).record())
        for number in range(SEEN - 1):
            self.message(number)
        self.handed = HandedOver()
        sink = GuardedSink(self.handed)  # type: ignore[arg-type]
        self.place = Handover()
        self.place.begin(sink, "e", SEEN, [], ["a"])
        self.handed.calls.clear()
        if base:
            client.store("s.life", Life(SEEN + 1, "e", 0.0, f"cluster {TIME}", base).record())
        for number in range(LAST - SEEN):
            self.message(number)

        async def connect(address: Any, handler: Any) -> StaleCluster:
            client.handler = handler
            return client

        monkeypatch.setattr(session, "connect", connect)
        self.session = NatsSession(
            parse_address("nats://h?stream=s", SCHEMES, PORT, OPTIONS),
            sink,
            self.place,
            node="n",
            new_epoch=lambda: "e",
            policy=lambda channel: Retention(1_000, 1e9),
            wall=lambda: SECONDS + 10.0,
            key_seconds=60,
            replicas=None,
        )

    def message(self, number: int) -> int:
        """Let somebody publish a message."""
        return self.client.store("s.m.a", encode_draft(Draft("a", b"%d" % number), SECONDS * 1000))

    async def page(self, start: Start) -> tuple[list[int], int]:
        """Return the numbers of a page's messages, and up to where it is whole."""
        page = await self.session.page(["a"], start, 1_000, 1 << 20)
        return [message.seq for message in page.messages], page.upto


async def test_what_was_missed_is_handed_over(monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """A node that opens while answers are stale is handed all that it has missed, and in no other case advances."""
    for begin, length in windows():
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=SEEN))
        client.stale_from(begin, length)
        await bench.session.open(["a"])
        received = [call[1:] for call in bench.handed.calls if call[0] == "receive"]
        assert [tuple(range(SEEN + 1, LAST + 1))] == received, (begin, length)


async def test_the_numbers_are_those_of_the_newest_life(monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """The newest life counts, as an older one would give its messages other numbers."""
    for begin, length in windows():
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=SEEN), base=1_000)
        client.stale_from(begin, length)
        await bench.session.open(["a"])
        assert [("receive", *range(1_000 + SEEN + 2, 1_000 + LAST + 2))] == [
            call for call in bench.handed.calls if call[0] == "receive"
        ], (begin, length)


async def test_a_probe_says_which_life_its_node_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that knows an earlier life ends its session at such a probe."""
    bench = Bench(monkeypatch, client := StaleCluster(), base=1_000)
    await bench.session.open(["a"])
    (probe,) = (record.data for record in client.log if record.subject == "s.m.%probe")
    assert [b"n", b"1000"] == probe.split()[::2]


@pytest.mark.parametrize("kind", [StartKind.CURSOR, StartKind.EARLIEST, StartKind.LAST, StartKind.SINCE])
async def test_a_page_is_whole(monkeypatch: pytest.MonkeyPatch, beside: bool, kind: StartKind) -> None:
    """Pages from each start have all messages up to where they say."""
    start = Start(kind, cursor=Cursor("e", 0) if kind is StartKind.CURSOR else None, number=1_000)
    for begin, length in windows():
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=SEEN))
        await bench.session.open(["a"])
        client.stale_from(begin, length)
        numbers, upto = await bench.page(start)
        assert list(range(2, LAST + 1)) == numbers, (begin, length)
        assert upto >= LAST


async def test_an_acknowledged_message_is_in_the_next_page(monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """This holds for a channel that the node does not follow, too."""
    for begin, length in windows():
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside))
        await bench.session.open([])
        (receipt,) = await bench.session.append([Draft("a", b"x")])
        assert isinstance(receipt, Receipt)
        client.lag = receipt.seq - 1
        client.stale_from(begin, length)
        numbers, _ = await bench.page(Start(StartKind.EARLIEST))
        assert receipt.seq == numbers[-1], (begin, length)


async def test_nothing_is_trimmed_too_early(monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """No message and no mark is trimmed by a stale answer, and no mark is set back."""
    for begin, length in windows():
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=SEEN))
        await bench.session.open(["a"])
        client.store("s.t.a", b"%d %d" % (LAST - 1, SECONDS))
        client.stale_from(begin, length)
        await bench.session.trim("a", Retention(2, 1e9))
        (mark,) = (record.data.split()[0] for record in client.log if record.subject == "s.t.a")
        assert b"%d" % (LAST - 1) == mark, (begin, length)


async def test_what_is_to_be_kept_is_not_trimmed(monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """A channel whose newest message a stale answer lacks keeps it."""
    for begin in QUESTIONS:
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=1))
        await bench.session.open(["a"])
        client.stale_from(begin, 2)  # its late messages, and its newest
        await bench.session.trim("a", Retention(1_000, 60.0))
        assert [] == client.purges, begin


async def test_nothing_is_purged_without_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is purged if the stream refuses the mark."""
    bench = Bench(monkeypatch, client := StaleCluster())
    await bench.session.open(["a"])
    client.refuses["s.t.a"] = {"code": 503, "err_code": 10023, "description": "insufficient resources"}
    await bench.session.trim("a", Retention(2, 1e9))
    assert [] == client.purges
    client.refuses.clear()
    await bench.session.trim("a", Retention(2, 1e9))
    assert [{"filter": "s.m.a", "seq": LAST - 1}] == client.purges


async def test_the_channels_are_all_named(monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    """Every channel is listed, as an export would leave out one that is not."""
    for begin, length in windows():
        bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=1))
        await bench.session.open([])
        client.stale_from(begin, length)
        (found,) = await bench.session.channels()
        assert ("a", LAST - 1, 2, LAST) == (found.name, found.messages, found.oldest, found.newest), (begin, length)


@pytest.mark.parametrize(("beside", "said"), [(True, "has no leader"), (False, "lacks the record 16")])
async def test_a_cluster_that_stays_so(monkeypatch: pytest.MonkeyPatch, beside: bool, said: str) -> None:
    """The session is lost with the reason, and the place in the log does not move."""
    bench = Bench(monkeypatch, client := StaleCluster(beside=beside, lag=SEEN))
    client.applies = False
    client.stale_from(1, 10**6)
    with pytest.raises(Lost, match=said):
        await bench.session.open(["a"])
    assert (SEEN, []) == (bench.place.seen, bench.handed.calls)
