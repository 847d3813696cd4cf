"""What a node takes of the republished messages, and what it hands over if they come in another order or not at all."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from oncecast.brokers.handover import Handover
from oncecast.brokers.lives import Lives, first_life
from oncecast.brokers.meters import Meters
from oncecast.brokers.nats.client import OrderedClient
from oncecast.brokers.nats.follower import NatsFollower
from oncecast.brokers.session import GuardedSink, Lost
from oncecast.brokers.wanting import Wanting
from tests.brokers.test_handover import HandedOver

DATA = b"1 0 0\nx"


class Connection:
    """A client that keeps the error it was ended with."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reason = ""

    def end(self, error: Exception) -> None:
        """Take the reason."""
        self.reason = str(error)
        self.lost.set_exception(error)
        self.lost.exception()


class Bench:
    """A follower of the channels `a` and `b`, which has everything up to offset 10."""

    def __init__(self, *, stamped: bool) -> None:
        self.handed = HandedOver()
        self.meters = Meters()
        sink = GuardedSink(self.handed, self.meters)  # type: ignore[arg-type]
        place = self.place = Handover()
        place.begin(sink, "e", 10, [], ["a", "b"])
        self.client = Connection()
        wanting = Wanting(cast(Any, None), sink, place)
        self.follower = NatsFollower(cast(OrderedClient, self.client), sink, place, wanting)
        self.reached: list[int] = []
        self.follower.begin(Lives([first_life("e", "server", 0.0)]), 10, stamped=stamped, reached=self.reached.append)
        self.handed.calls.clear()

    def came(self, channel: str, offset: int, before: int, data: bytes = DATA) -> None:
        """Let a message come."""
        self.follower.came(
            f"s.r.{channel}", data, {b"Nats-Sequence": b"%d" % offset, b"Nats-Last-Sequence": b"%d" % before}
        )


async def test_in_order() -> None:
    """Each message is handed over once, and not again if catching up has handed it over."""
    bench = Bench(stamped=False)
    for channel, offset, before in (("a", 9, 8), ("a", 11, 10), ("b", 12, 10), ("a", 14, 11)):
        bench.came(channel, offset, before)
    assert [("receive", 11), ("receive", 12), ("receive", 14)] == bench.handed.calls
    assert [10, 11, 12, 14] == bench.reached


async def test_one_that_did_not_arrive() -> None:
    """The session is lost. Messages that other channels got meanwhile stand behind a hole."""
    bench = Bench(stamped=False)
    bench.came("b", 13, 10)
    with pytest.raises(Lost, match="a message of a before 14 did not arrive"):
        bench.came("a", 14, 12)
    assert [("receive", 13), ("hole", 10, 13)] == bench.handed.calls


async def test_one_that_comes_too_late() -> None:
    """A message that arrives after a later one of another channel is not handed over, but reported as a hole."""
    bench = Bench(stamped=False)
    bench.came("b", 13, 10)
    with pytest.raises(Lost, match="a message of a came after later ones"):
        bench.came("a", 12, 10)
    assert [("receive", 13), ("hole", 10, 13)] == bench.handed.calls


async def test_a_server_of_2_9_may_send_in_another_order() -> None:
    """A message that arrives early is held until those before it have arrived."""
    bench = Bench(stamped=True)
    bench.came("b", 13, 10)
    bench.came("a", 12, 10)
    assert [] == bench.handed.calls
    bench.came("a", 11, 10)
    assert [("receive", 11), ("receive", 12), ("receive", 13)] == bench.handed.calls


async def test_one_that_is_held_in_vain() -> None:
    """A held message is taken after `HOLD_SECONDS`. If one of its channel is missing, the session is lost."""
    bench = Bench(stamped=True)
    bench.came("a", 13, 12)
    await asyncio.wait((bench.client.lost,), timeout=30)
    assert "a message of a before 13 did not arrive" == bench.client.reason


async def test_a_life_that_another_node_has_begun() -> None:
    """A probe of a later life ends the session. A probe of an earlier life, or of none, does not."""
    bench = Bench(stamped=False)
    for number, probe in enumerate((b"other 1", b"other 2 0"), 11):
        bench.came("%probe", number, 0, probe)
    assert [("advance", 11), ("advance", 12)] == [call for call in bench.handed.calls if call[0] == "advance"]
    with pytest.raises(Lost, match="the log has another life"):
        bench.came("%probe", 13, 0, b"other 3 1000")
    assert 12 == bench.place.seen


async def test_what_is_no_message_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """A foreign record is skipped with a line in the log, and the next message is handed over."""
    bench = Bench(stamped=False)
    bench.follower.came("s.r.a", DATA, {})
    bench.came("a", 11, 10, b"foreign")
    bench.came("a", 12, 11)
    assert [("receive", 12)] == bench.handed.calls
    assert "was not published through the stream" in caplog.text
    assert "the record 11 of the channel a: " in caplog.text
    assert 2 == bench.meters.foreign
