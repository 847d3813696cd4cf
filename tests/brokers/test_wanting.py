"""Channels that are wanted: subscribed to, standing, confirmed by a probe, in whatever order things happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from oncecast.brokers import probes, wanting
from oncecast.brokers.handover import Handover
from oncecast.brokers.session import GuardedSink, Lost, SinkFailed, run_together
from oncecast.brokers.wanting import Wanting


class Connection:
    """A connection whose server does what the test says."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, object]] = []
        self.some = asyncio.Event()

    def _note(self, verb: str, what: object) -> None:
        self.sent.append((verb, what))
        self.some.set()

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Note it."""
        self._note("subscribe", list(channels))

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Note it."""
        self._note("unsubscribe", list(channels))

    async def send_probe(self, token: bytes) -> None:
        """Note it."""
        self._note("probe", token)

    async def until(self, count: int) -> None:
        """Wait until so much was sent."""
        async with asyncio.timeout(30):
            while len(self.sent) < count:
                self.some.clear()
                await self.some.wait()


class Confirmed:
    """A sink that notes what is confirmed."""

    def __init__(self) -> None:
        self.wanted_calls: list[tuple[list[str], int]] = []
        self.head = 0

    def wanted(self, channels: Sequence[str], seq: int) -> None:
        """Note it."""
        self.wanted_calls.append((list(channels), seq))

    def advance(self, seq: int) -> None:
        """Note it."""
        self.head = seq


class Room:
    """A session's channels, between a connection and a sink that are made up."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.sink = Confirmed()
        self.place = Handover()
        guarded: Any = GuardedSink(self.sink)  # type: ignore[arg-type]
        self.wanting = Wanting(self.connection, guarded, self.place, b"n ")


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    """A room whose changes are made."""
    room = Room()
    task = asyncio.create_task(room.wanting.change())
    yield room
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_channel_is_confirmed_where_the_probe_comes_back(room: Room) -> None:
    """The probe goes out once the subscription stands, not before."""
    room.wanting.want(["a"])
    await room.connection.until(1)
    room.wanting.stands("a")
    await room.connection.until(2)
    assert room.connection.sent == [("subscribe", ["a"]), ("probe", b"n 1")]
    room.wanting.reached(b"other", 5)
    assert (room.sink.wanted_calls, room.sink.head) == ([], 5)
    room.wanting.reached(b"n 1", 7)
    assert (room.sink.wanted_calls, room.sink.head, room.place.last) == ([(["a"], 7)], 7, {"a": 7})


async def test_what_is_wanted_again_waits_for_its_last_subscription(room: Room) -> None:
    """The answer to a subscription that was ended meanwhile confirms nothing."""
    room.wanting.want(["a"])
    room.wanting.unwant(["a"])
    room.wanting.want(["a"])
    await room.connection.until(3)
    room.wanting.stands("a")
    await asyncio.sleep(0)
    assert [verb for verb, _ in room.connection.sent] == ["subscribe", "unsubscribe", "subscribe"]
    room.wanting.stands("a")
    await room.connection.until(4)
    room.wanting.reached(b"n 1", 3)
    assert room.sink.wanted_calls == [(["a"], 3)]


async def test_a_probe_does_not_confirm_what_changed_after_it(room: Room) -> None:
    """A channel that was unwanted since then is left out, and one that was wanted again since then, too."""
    room.wanting.want(["a", "b"])
    await room.connection.until(1)
    room.wanting.stands("a")
    room.wanting.stands("b")
    await room.connection.until(2)
    room.wanting.unwant(["a", "b"])
    room.wanting.want(["b"])
    room.wanting.reached(b"n 1", 3)
    assert room.sink.wanted_calls == []
    await room.connection.until(4)
    room.wanting.stands("b")
    await room.connection.until(5)
    room.wanting.reached(b"n 2", 4)
    assert room.sink.wanted_calls == [(["b"], 4)]


async def test_a_channel_that_is_confirmed_is_not_confirmed_again(room: Room) -> None:
    """What was wanted twice is subscribed to once."""
    room.wanting.want(["a"])
    room.wanting.want(["a", "b"])
    await room.connection.until(2)
    assert room.connection.sent == [("subscribe", ["a"]), ("subscribe", ["b"])]
    room.place.last["a"] = 1
    room.wanting.stands("a")
    room.wanting.stands("b")
    await room.connection.until(3)
    room.wanting.reached(b"n 1", 2)
    assert room.sink.wanted_calls == [(["b"], 2)]


async def test_a_probe_that_does_not_come_back_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is merely open proves nothing."""
    monkeypatch.setattr(probes, "SILENT_SECONDS", 0.01)
    room = Room()
    with pytest.raises(Lost, match="has not answered"):
        await room.wanting.probe()


async def test_probes_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe has a token of its own."""
    monkeypatch.setattr(wanting, "PROBE_SECONDS", 0.0)
    room = Room()
    task = asyncio.create_task(room.wanting.probe_on())
    for number in range(1, 4):
        await room.connection.until(number)
        room.wanting.reached(b"n %d" % number, number)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert room.connection.sent[:3] == [("probe", b"n 1"), ("probe", b"n 2"), ("probe", b"n 3")]


async def test_the_parts_of_a_session_end_together() -> None:
    """The first one to end ends the others; a node that could not take something counts first."""
    ended: list[str] = []

    async def fail(error: Exception) -> None:
        raise error

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("wait")

    with pytest.raises(SinkFailed):
        await run_together(fail(Lost("x")), fail(SinkFailed("y")), wait())
    watched: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watched.set_exception(Lost("z"))
    with pytest.raises(Lost, match="z"):
        await run_together(wait(), watched=[watched])
    assert ended == ["wait", "wait"]


async def test_a_part_that_ends_ends_the_session() -> None:
    """Without an error too; and a part that was cancelled from outside."""

    async def end() -> None:
        return

    async def wait() -> None:
        await asyncio.Event().wait()

    await run_together(end(), wait())
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    await run_together(wait(), watched=[cancelled])


def test_a_sink_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """`SinkFailed` is raised, and the log says that the node lacks what was handed over."""

    class Full:
        def skip(self, seq: int) -> None:
            raise MemoryError("no room")

    with pytest.raises(SinkFailed, match="no room"):
        GuardedSink(Full()).skip(1)  # type: ignore[arg-type]
    assert "the node could not take what the broker has handed over" in caplog.text
