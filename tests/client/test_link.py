"""One connection for many feeds, and its sessions, over scripted transports: what belongs to whom, how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oncecast import (
    Broken,
    ClientFailed,
    ClientMessage,
    Gap,
    LinkState,
    Moved,
    Refused,
    StateChanged,
    Timing,
    Unavailable,
    Unreachable,
)
from oncecast.client.backoff import Backoff
from oncecast.client.base import ChannelRefused, CursorMoved, Received, RetryHint, StartQuery, Transport, TransportEvent
from oncecast.client.credentials import Credentials
from oncecast.client.dialing import Endpoint
from oncecast.client.failures import Drained
from oncecast.client.feed import Feed, FeedState
from oncecast.client.ladder import Ladder
from oncecast.client.link import LINK_MOVES, ClientLink
from oncecast.client.url import ServerUrl

if TYPE_CHECKING:
    from tests.client.conftest import Peer, Talk, Until

Make = Callable[..., ClientLink]
NOWHERE = Endpoint(ServerUrl.parse("http://127.0.0.1:1"))
TIMING = Timing(attach=0.2, grace=0.02, proof=10.0, answer=1.0)


def got(number: int, channel: str = "c") -> Received:
    """A message."""
    return Received(ClientMessage(id=f"e-{number}", channel=channel, data=number, time=0.0))


class Live:
    """A transport whose events a test puts in, one after another. An exception ends it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[TransportEvent | Exception] = asyncio.Queue()
        self.starts: list[dict[str, str]] = []
        self.changes: list[tuple[dict[str, str], list[str]]] = []

    async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Yield what is put in."""
        self.starts.append({channel: start.value for channel, start in starts.items()})
        while True:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def put(self, *events: TransportEvent | Exception) -> None:
        """Put events in."""
        for event in events:
            self.events.put_nowait(event)


class Adjusting(Live):
    """One that can change its channels."""

    async def adjust(self, join: Mapping[str, StartQuery], leave: Collection[str]) -> None:
        """Note the change."""
        self.changes.append(({channel: start.value for channel, start in join.items()}, sorted(leave)))


@pytest.fixture
async def states() -> list[StateChanged]:
    """The moves of the link."""
    return []


@pytest.fixture
async def make(states: list[StateChanged], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Make a link over transports named a, b, …, of a server that answers polls, or of an endpoint; it is closed."""
    made: list[ClientLink] = []

    def link(
        *transports: Transport,
        moves: list[Moved] | None = None,
        get_token: Callable[[], str] | None = None,
        endpoint: Endpoint | None = None,
        timing: Timing = TIMING,
    ) -> ClientLink:
        named = {"abcd"[n]: transport for n, transport in enumerate(transports)}
        moved: Callable[[Moved], None] = (moves if moves is not None else []).append
        made.append(
            ClientLink(
                endpoint or NOWHERE,
                named,
                Ladder(tuple(named), proof=timing.proof, on_move=moved),
                Credentials(get_token),
                timing=timing,
                backoff=Backoff(rng=lambda: 0.001, sleep=asyncio.sleep),
                clock=asyncio.get_running_loop().time,
                on_state=states.append,
            )
        )
        if endpoint is None:
            monkeypatch.setattr(made[0], "_serves", serves)
        return made[0]

    async def serves() -> bool:
        return True

    yield link
    for each in made:
        await each.close()


def feed(*channels: str, limit: int = 10, start: str = "e-0") -> Feed:
    """A feed."""
    return Feed(channels or ("c",), StartQuery("after", start), limit=limit)


async def numbers(of: Feed, count: int) -> list[object]:
    """Take `count` items out; gaps as their reasons."""
    found: list[object] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            await of.wait()
            items = of.pop(count - len(found))
            assert items, "it has ended"
            found += [item.data if isinstance(item, ClientMessage) else item.reason for item in items]
    return found


async def test_what_is_in_flight_when_a_feed_is_parked(make: Make, until: Until) -> None:
    """Messages that arrive for a parked feed are dropped and read again from its place, in order and without loss."""
    transport = Adjusting()
    link = make(transport)
    slow, quick = feed("s", limit=2), feed("q")
    link.add(slow)
    link.add(quick)
    transport.put(CursorMoved("e-0", "s"), CursorMoved("e-0", "q"), *[got(n, "s") for n in range(1, 5)], got(9, "q"))
    transport.put(CursorMoved("e-9"), Gap(channel="s", reason="slow", cursor="e-9"))
    assert [9] == await numbers(quick, 1)
    assert (FeedState.PARKED, {"s": "e-0"}) == (slow.state, slow.cursors)
    await until(lambda: [({}, ["s"])] == transport.changes)
    transport.put(CursorMoved("e-9", "s"))  # the answer to an earlier subscription
    assert [1, 2] == await numbers(slow, 2)
    await until(lambda: len(transport.changes) > 1)
    assert ({"s": "e-2"}, []) == transport.changes[1]
    transport.put(CursorMoved("e-2", "s"), got(3, "s"))
    assert [3] == await numbers(slow, 1)


async def test_an_alone_feed_is_waited_for(make: Make) -> None:
    """With no other feed behind it, a full feed keeps its connection; it ends all the same when it is closed."""
    transport = Adjusting()
    link = make(transport)
    slow = feed(limit=1)
    link.add(slow)
    transport.put(CursorMoved("e-0", "c"), got(1), got(2))
    await slow.wait()
    await asyncio.sleep(TIMING.grace * 2)
    assert FeedState.ACTIVE is slow.state
    slow.end()
    assert [1] == [item.data for item in slow.pop(9) if isinstance(item, ClientMessage)]
    assert [] == slow.pop(9)


async def test_room_that_is_made_at_the_last_moment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that has been emptied just as its grace was over is not parked: nothing would bring it back."""
    transport = Adjusting()
    link = make(transport)
    slow, other = feed("s", limit=1), feed("o")

    async def room() -> None:
        slow.pop(1)
        raise TimeoutError

    monkeypatch.setattr(slow, "room", room)
    link.add(slow)
    link.add(other)
    transport.put(CursorMoved("e-0", "s"), CursorMoved("e-0", "o"), got(1, "s"), got(2, "s"))
    await asyncio.sleep(0.05)
    assert FeedState.ACTIVE is slow.state
    assert [2] == await numbers(slow, 1)


async def test_channels_come_and_go(make: Make, states: list[StateChanged], until: Until) -> None:
    """The transport hears of what changes; with the last feed the connection ends, with the next it begins."""
    transport = Adjusting()
    link = make(transport)
    first, second = feed("x"), feed("y", start="latest")
    link.add(first)
    transport.put(CursorMoved("e-5", "x"))
    await first.attached()
    link.add(second)
    await until(lambda: [({"y": "latest"}, [])] == transport.changes)
    first.end()
    assert {"y"} == link.channels
    await until(lambda: ({}, ["x"]) == transport.changes[-1])
    second.end()
    await until(lambda: link.state is LinkState.IDLE)
    third = feed("z")
    link.add(third)
    await until(lambda: len(transport.starts) == 2)
    assert {"z": "e-0"} == transport.starts[1]
    await link.close()
    await link.close()
    await third.attached()  # it has ended
    assert LinkState.CLOSED is link.state
    assert all(change.after in LINK_MOVES[change.before].values() for change in states)


async def test_a_channel_is_refused(make: Make) -> None:
    """The feed of a refused channel ends once, with the error, and the others go on."""
    transport = Adjusting()
    link = make(transport)
    bad, good = feed("b"), feed("g")
    link.add(bad)
    link.add(good)
    transport.put(
        ChannelRefused("other", Refused("whose?")),
        ChannelRefused("b", Refused("no", code="forbidden")),
        ChannelRefused("b", Refused("again", code="forbidden")),
        got(1, "b"),
        got(2, "g"),
    )
    assert [2] == await numbers(good, 1)
    with pytest.raises(Refused, match="no"):
        await bad.attached()
    await bad.wait()
    with pytest.raises(Refused, match="no"):
        bad.pop(1)


@pytest.mark.parametrize("by_channel", [True, False])
async def test_a_token_is_renewed_for_a_channel(make: Make, until: Until, by_channel: bool) -> None:
    """A 401 in a frame, or of the whole connection, begins again with another token, once."""
    transport = Adjusting()
    link = make(transport, get_token=lambda: "t")
    mine = feed()
    link.add(mine)
    refused = Refused("no", code="unauthorized")
    transport.put(ChannelRefused("c", refused) if by_channel else refused)
    await until(lambda: len(transport.starts) == 2)
    transport.put(ChannelRefused("c", refused) if by_channel else refused)
    with pytest.raises(Refused, match="no"):
        await mine.attached()


async def test_all_are_refused(make: Make) -> None:
    """A refusal of all channels at once is tried again one time, and then ends all feeds."""
    transport = Adjusting()
    link = make(transport)
    feeds = [feed("x"), feed("y")]
    for each in feeds:
        link.add(each)
    transport.put(Refused("no"), Refused("really"))
    for each in feeds:
        with pytest.raises(Refused, match="really"):
            await each.attached()


@pytest.mark.parametrize("end", [Unreachable("nobody"), Drained("restart"), Broken("busy", retry_after=0.001)])
async def test_a_server_that_is_away_is_no_reason_to_fall_back(make: Make, until: Until, end: Broken) -> None:
    """Another transport would not help."""
    moves: list[Moved] = []
    first, second = Live(), Live()
    link = make(first, second, moves=moves)
    link.add(feed())
    first.put(*[end] * 6)
    await until(lambda: len(first.starts) == 7)
    assert [] == moves


async def test_a_server_that_is_away_is_looked_for_often(make: Make, until: Until, states: list[StateChanged]) -> None:
    """However long nothing listens there, the next attempt is seconds away; a server that refuses gets more time."""
    transport = Live()
    link = make(transport)
    link.add(feed())
    transport.put(*[Unreachable("nobody")] * 8, Broken("busy"))
    await until(lambda: len(transport.starts) == 10)
    seconds = [change.seconds for change in states if change.after is LinkState.WAITING]
    assert ([0.005] * 4, 0.03) == (seconds[4:8], seconds[8])  # by this test's random number


async def test_an_early_cut_is_one(make: Make, until: Until, states: list[StateChanged]) -> None:
    """A transport that attaches and is cut, three times, makes room for the next, mid-stream."""
    moves: list[Moved] = []
    first, second = Live(), Live()
    link = make(first, second, moves=moves)
    mine = feed()
    link.add(mine)
    for number in range(3):
        first.put(RetryHint(0.001), CursorMoved(f"e-{number}"), got(number + 1), Broken("cut"))
    second.put(got(3), got(4))
    assert [1, 2, 3, 4] == await numbers(mine, 4)
    assert ["b"] == [move.after for move in moves]
    assert [{"c": "e-3"}] == second.starts
    assert 0.001 <= states[2].seconds


async def test_a_transport_that_stays_silent(make: Make) -> None:
    """A transport without a sign of life is left for the next one after a moment, and the last one is not hurried."""
    moves: list[Moved] = []
    first, second = Live(), Live()
    link = make(first, second, moves=moves)
    mine = feed()
    link.add(mine)
    await asyncio.sleep(TIMING.attach * 2.5)
    second.put(got(1))
    assert [1] == await numbers(mine, 1)
    assert ["a does not work here: nothing came within 0.2 s"] == [move.reason for move in moves]


async def test_a_transport_that_breaks_as_it_is_left(make: Make) -> None:
    """A transport that breaks while its silence is ended leaves no exception behind that asyncio would log."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))

    class Breaking(Live):
        async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
            try:
                async for event in super().__call__(starts):
                    yield event
            except asyncio.CancelledError:
                raise Broken("the connection broke") from None

    second = Live()
    link = make(Breaking(), second)
    mine = feed()
    link.add(mine)
    second.put(got(1))
    assert [1] == await numbers(mine, 1)
    await link.close()
    gc.collect()
    assert [] == complaints


@pytest.mark.parametrize("end", [Unavailable("the server answers 502", status=502), Broken("the connection broke")])
async def test_a_restart_is_no_reason_to_fall_back(make: Make, until: Until, end: Broken) -> None:
    """While no poll is answered either, a proxy's 502 or a reset is no reason to leave the transport."""
    moves: list[Moved] = []
    first, second = Live(), Live()
    link = make(first, second, moves=moves, endpoint=NOWHERE)  # where nothing listens
    link.add(feed())
    first.put(*[end] * 6)
    await until(lambda: len(first.starts) == 7)
    assert [] == moves


async def test_an_answer_like_502_is_the_transports(make: Make, peer: Peer) -> None:
    """Where the server answers polls all the same, the second one leads to the next transport."""

    async def serves(talk: Talk) -> None:
        assert "GET /v1/channels/c?after=latest&limit=1" == (await talk.request())[0]
        await talk.answer(200, {"messages": [], "cursor": "e-1", "gap": None})

    async def refuses(talk: Talk) -> None:
        await talk.request()
        await talk.answer(403, {"error": {"code": "forbidden", "message": "no"}})

    async def is_no_server(talk: Talk) -> None:
        await talk.request()
        await talk.answer(404, b"<html>")

    moves: list[Moved] = []
    first, second = Live(), Live()
    link = make(first, second, moves=moves, endpoint=peer.endpoint)
    mine = feed()
    peer.scripts = [serves, is_no_server, refuses]
    first.put(*[Unavailable("the server answers 502", status=502)] * 3)
    second.put(got(1))
    link.add(mine)
    assert [1] == await numbers(mine, 1)
    assert ["a is cut again and again: the server answers 502"] == [move.reason for move in moves]
    assert [] == peer.scripts


async def test_a_feed_that_ended_is_not_asked_for(make: Make) -> None:
    """Whether the server serves is asked for a channel that is wanted."""
    assert not await make(Live(), endpoint=NOWHERE)._serves()


async def test_a_slow_application_is_not_the_transports_fault(make: Make, until: Until) -> None:
    """A connection that the server cut while its buffer was full is made again over the same transport."""
    moves: list[Moved] = []
    first, second = Live(), Live()
    link = make(first, second, moves=moves)
    mine = feed(limit=1)
    link.add(mine)
    for number in range(1, 10, 2):
        first.put(got(number), got(number + 1), Broken("cut"))
        assert [number] == await numbers(mine, 1)
        await until(lambda: mine.full)
        assert [number + 1] == await numbers(mine, 1)
    await until(lambda: len(first.starts) == 6)
    assert [] == moves


async def test_a_busy_loop_is_not_the_transports_silence(make: Make, until: Until) -> None:
    """Time in which the application holds the event loop does not count against a transport."""
    moves: list[Moved] = []
    first, second = Live(), Live()
    timing = replace(TIMING, attach=1.2)  # of which most is left after the work, for a busy machine
    link = make(first, second, moves=moves, timing=timing)
    mine = feed()
    link.add(mine)
    await until(lambda: bool(first.starts))
    time.sleep(timing.attach * 1.25)  # noqa: ASYNC251 - the application's work
    await asyncio.sleep(0.05)  # what has arrived is read in some turns of the loop
    first.put(got(1))
    assert [1] == await numbers(mine, 1)
    assert [] == moves


async def test_what_ends_after_the_close_moves_nothing(make: Make, states: list[StateChanged]) -> None:
    """A closed link stays closed, whatever its last session does."""
    transport = Live()
    link = make(transport)
    link.add(feed())
    await asyncio.sleep(0.01)
    transport.put(CursorMoved("e-1"))
    await link.close()
    link._attached()
    assert [LinkState.CONNECTING, LinkState.CLOSED] == [change.after for change in states]


async def test_a_defect_ends_the_subscription_and_not_the_link(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is logged and ends the feeds with a typed error; the next feed is listened to."""
    transport = Live()
    link = make(transport)
    mine = feed()
    link.add(mine)
    transport.put(ZeroDivisionError("oh"))
    with pytest.raises(ClientFailed, match="ZeroDivisionError") as caught:
        await mine.attached()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [logging.ERROR] == [record.levelno for record in caplog.records]
    mine.fail(Refused("too late"))
    assert isinstance(mine.error, ClientFailed)
    following = feed()
    link.add(following)
    transport.put(got(1))
    assert [1] == await numbers(following, 1)


async def test_a_task_that_is_cancelled_from_outside_is_noticed(make: Make, until: Until) -> None:
    """Subscriptions of a cancelled task end with a typed error, and the next subscription starts a task again."""
    transport = Live()
    link = make(transport)
    mine = feed()
    link.add(mine)
    transport.put(got(1))
    assert [1] == await numbers(mine, 1)
    assert link._task is not None
    link._task.cancel()
    await mine.wait()
    with pytest.raises(ClientFailed, match="cancelled from outside"):
        mine.pop(1)
    assert LinkState.IDLE is link.state
    following = feed()
    link.add(following)
    transport.put(got(1))
    assert [1] == await numbers(following, 1)


def test_the_table_is_whole() -> None:
    """Each state has its moves."""
    assert set(LinkState) == set(LINK_MOVES)


def test_the_page_shows_the_table() -> None:
    """The reference draws the states of a connection as the code has them."""
    page = (Path(__file__).parent.parent.parent / "docs" / "reference" / "python-client.md").read_text("utf-8")
    for state, moves in LINK_MOVES.items():
        shown = ", ".join(f"{event} → {after.name}" for event, after in moves.items())
        assert (f"{state.name:<10} | {shown}\n" if moves else f"{state.name:<10} → (the end)\n") in page
