"""The subscription: resume from any cut on any transport, delays, gaps, repeats, fallback and refusal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from oncecast.client.base import (
    Backoff,
    Broken,
    ClientMessage,
    CursorMoved,
    Event,
    Gap,
    Received,
    Refused,
    RetryHint,
    Start,
    Timing,
    Transport,
    Unreachable,
    Unsuited,
)
from oncecast.client.subscription import TRANSPORTS, Attached, Lost, Notice, Subscription, subscribe
from oncecast.errors import Refusal, UsageError

if TYPE_CHECKING:
    from tests.client.conftest import Log, Peer, Sleep, Talk

LATEST = Start("after", "latest")
MOVED = CursorMoved("e-0")
Step = Event | Exception
Play = Callable[..., Awaitable[list[Notice]]]


def message(seq: int, channel: str = "c", epoch: str = "e") -> ClientMessage:
    """Return a message."""
    return ClientMessage(id=f"{epoch}-{seq}", channel=channel, data=seq, time=0.0)


def got(seq: int, channel: str = "c", epoch: str = "e") -> Received:
    """Return the event of a message."""
    return Received(message(seq, channel, epoch))


def gap(cursor: str, reason: str = "expired", channel: str = "c") -> Gap:
    """Return a gap."""
    return Gap(channel=channel, reason=reason, cursor=cursor)


class Scripted:
    """A transport that plays one list of events per attempt, each list ended by an exception, and notes its starts."""

    def __init__(self, *attempts: list[Step]) -> None:
        self.attempts = list(attempts)
        self.starts: list[dict[str, str]] = []

    async def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Play the next attempt; the last one ends the test."""
        self.starts.append({channel: start.value for channel, start in starts.items()})
        for step in self.attempts.pop(0) if self.attempts else [Refused("the script is over")]:
            if isinstance(step, Exception):
                raise step
            yield step


@pytest.fixture
def play(sleep: Sleep) -> Play:
    """Return the function that runs a subscription over transports until it is refused."""

    async def run(*transports: Transport, channels: tuple[str, ...] = ("c",)) -> list[Notice]:
        named = {f"t{n}": transport for n, transport in enumerate(transports)}
        backoff = Backoff(rng=lambda: 1.0, sleep=sleep, base=1.0)
        subscription = Subscription(channels, named, start=LATEST, backoff=backoff)
        notices: list[Notice] = []
        try:
            async for notice in subscription.notices():
                notices.append(notice)
        except Refused:
            return notices
        raise AssertionError("a subscription never ends by itself")

    return run


def news(notices: list[Notice]) -> list[ClientMessage | Gap]:
    """Return what is about messages."""
    return [notice for notice in notices if isinstance(notice, ClientMessage | Gap)]


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_resumes_after_a_cut_at_every_byte(peer: Peer, log: Log, sleep: Sleep, transport: str) -> None:
    """Wherever its first connection is cut, a subscriber gets each message once and in order."""
    more = True
    cut = 0
    while more:
        more = False

        async def first(talk: Talk, cut: int = cut) -> None:
            nonlocal more
            more = await log.play(transport, talk, cut)

        async def second(talk: Talk) -> None:
            await log.play(transport, talk, None)
            await talk.hold()

        peer.scripts = [first, second, second]
        timing = Timing(interval=0, wait=1)
        subscription = subscribe(
            peer.server, ["c"], transport=transport, start=LATEST, timing=timing, rng=lambda: 0.0, sleep=sleep
        )
        received = []
        async with aclosing(subscription.notices()) as notices:
            async for notice in notices:
                if isinstance(notice, ClientMessage):
                    received.append(notice.data)
                    if notice.id == "e-3":
                        break
        assert ["1é", "2é", "3é"] == received, f"cut after {cut} bytes"
        await peer.finish()
        cut += 1
    assert cut > 200


async def test_places_follow_each_channel(play: Play) -> None:
    """Each channel is resumed from its own place; a cursor without a channel moves them all."""
    transport = Scripted(
        [CursorMoved("e-1", "a"), CursorMoved("e-2", "b"), got(5, "a"), Broken("cut")],
        [got(6, "b"), CursorMoved("e-9"), got(12, "a"), Broken("cut")],
    )
    await play(transport, channels=("a", "b"))
    expected = [{"a": "latest", "b": "latest"}, {"b": "e-2", "a": "e-5"}, {"b": "e-9", "a": "e-12"}]
    assert expected == transport.starts
    assert ["b", "a"] == list(transport.starts[1])  # in the order in which they last moved


async def test_repeats_are_dropped(play: Play) -> None:
    """What a server sends again, and what was not asked for, is dropped; a new epoch's numbers are news."""
    transport = Scripted(
        [got(2), got(1), got(2), got(9, "other"), got(3), gap("e-2"), gap("e-9", channel="other"), got(1, epoch="f")],
        [got(1, epoch="f"), got(2, epoch="f"), Refused("end")],
    )
    transport.attempts[0].append(Broken("cut"))
    expected = [message(2), message(3), message(1, epoch="f"), message(2, epoch="f")]
    assert expected == news(await play(transport))


async def test_opaque_cursors(play: Play) -> None:
    """A cursor of a form that is not known is passed on, and a message right at it is a repeat."""
    odd = Received(ClientMessage(id="x_1.y_2", channel="c", data=1, time=0.0))
    transport = Scripted([odd, odd, Broken("cut")], [CursorMoved("z~"), gap("w~"), Broken("cut")])
    assert [odd.message, gap("w~")] == news(await play(transport))
    assert ["latest", "x_1.y_2", "w~"] == [start["c"] for start in transport.starts]


@pytest.mark.parametrize(
    "step, expected",
    [
        (CursorMoved("e-4"), "e-5"),
        (CursorMoved("f-9"), "e-5"),
        (CursorMoved("e-6"), "e-6"),
        (gap("e-7"), "e-7"),
        (gap("f-1", "epoch"), "f-1"),
        (gap("e-3", "unknown"), "e-3"),
        (gap("e-3", "expired"), "e-5"),
    ],
)
async def test_where_a_place_moves(play: Play, step: Event, expected: str) -> None:
    """A bare cursor moves a place neither back nor into another epoch; a gap does, except one that was told before."""
    transport = Scripted([got(5), step, Broken("cut")])
    await play(transport)
    assert expected == transport.starts[1]["c"]


async def test_delays(play: Play, delays: list[float]) -> None:
    """Failures double the delay until something works; Retry-After and hints are waited for, the former first."""
    transport = Scripted(
        [Unreachable("nobody")],
        [MOVED, Broken("cut")],
        [MOVED, got(1), Broken("cut")],
        [MOVED, MOVED, Broken("cut")],
        [RetryHint(10.0), Broken("cut")],
        [RetryHint(10.0), MOVED, Broken("cut", retry_after=20.0)],
    )
    notices = await play(transport)
    assert [1.0, 2.0, 1.0, 1.0, 12.0, 24.0] == delays
    assert [Lost("nobody", 1.0), Attached("t0"), Lost("cut", 2.0), Attached("t0"), message(1)] == notices[:5]


async def test_fallback_when_unsuited(play: Play, delays: list[float]) -> None:
    """What does not work here makes room for the next at once, and that one is kept."""
    first = Scripted([Unsuited("a proxy")])
    second = Scripted([MOVED, Broken("cut")], [MOVED, Refused("end")])
    notices = await play(first, second)
    expected = [Lost("t0 does not work here: a proxy", 0.0), Attached("t1"), Lost("cut", 1.0), Attached("t1")]
    assert expected == notices
    assert [1.0] == delays


async def test_fallback_when_nothing_attaches(play: Play) -> None:
    """A transport that breaks twice before it attaches makes room for the next, in a circle."""
    first = Scripted([Broken("1")], [Broken("2")], [MOVED, Refused("end")])
    second = Scripted([Broken("3")], [Broken("4")])
    notices = await play(first, second)
    assert ["1", "2", "3", "4"] == [notice.reason for notice in notices if isinstance(notice, Lost)]
    assert Attached("t0") == notices[-1]


@pytest.mark.parametrize("end", [Unreachable("nobody"), Broken("busy", retry_after=1.0)])
async def test_no_fallback_from_a_server_that_is_away(play: Play, end: Broken) -> None:
    """Where no server answers, or it asks for patience, another transport would not help."""
    first, second = Scripted([end], [end], [end]), Scripted()
    await play(first, second)
    assert ([], 4) == (second.starts, len(first.starts))


async def test_a_server_that_is_away_is_looked_for_often(play: Play) -> None:
    """However long nobody listens there, the next look is seconds away."""
    attempts: list[list[Step]] = [[Unreachable("x")]] * 7
    lost = [notice.seconds for notice in await play(Scripted(*attempts)) if isinstance(notice, Lost)]
    assert [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0] == lost


async def test_the_last_unsuited_is_final(sleep: Sleep) -> None:
    """Where no transport works, the last one's reason is raised."""
    backoff = Backoff(rng=lambda: 1.0, sleep=sleep)
    transports = {"a": Scripted([Unsuited("1")]), "b": Scripted([Unsuited("2")])}
    subscription = Subscription(["c"], transports, start=LATEST, backoff=backoff)
    with pytest.raises(Unsuited, match="2"):
        assert [Lost("a does not work here: 1", 0.0)] == [notice async for notice in subscription.notices()]


async def test_auto_falls_back_through_a_real_peer(peer: Peer, log: Log, sleep: Sleep) -> None:
    """A server that refuses the upgrade and the stream is polled."""

    async def no_upgrade(talk: Talk) -> None:
        await talk.request()
        await talk.answer(426, b"")

    async def no_stream(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, b"<html>", Content_Type="text/html")

    async def polled(talk: Talk) -> None:
        await log.play("long-poll", talk, None)
        await talk.hold()

    peer.scripts = [no_upgrade, no_stream, polled]
    subscription = subscribe(peer.server, ["c"], start=LATEST, timing=Timing(), sleep=sleep)
    async with aclosing(subscription.notices()) as notices:
        seen = [await anext(notices) for _ in range(4)]
    assert [Lost, Lost, Attached, ClientMessage] == [type(notice) for notice in seen]
    assert Attached("long-poll") == seen[2]
    assert {"c": Start("after", "e-1")} == subscription.places


def test_subscribe_checks_its_arguments(peer: Peer) -> None:
    """Channels and transports that are none are refused before anything is connected."""
    with pytest.raises(UsageError, match="needs a channel"):
        subscribe(peer.server, [], start=LATEST, timing=Timing())
    with pytest.raises(UsageError, match="'carrier-pigeon' is not a transport: use auto, websocket, sse"):
        subscribe(peer.server, ["c"], transport="carrier-pigeon", start=LATEST, timing=Timing())
    with pytest.raises(Refusal, match="is not a channel name"):
        subscribe(peer.server, ["a b"], start=LATEST, timing=Timing())
