"""The WebSocket transport: the handshake, each frame, each close code, and silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from oncecast import Broken, Gap, Refused, Timing, Unavailable
from oncecast.client.base import ChannelRefused, CursorMoved, Received, RetryHint, StartQuery, TransportEvent
from oncecast.client.failures import Drained, Unsuited
from oncecast.client.websocket import WebSocketTransport
from oncecast.errors import OncecastError
from oncecast.wire.ws_connection import CloseReceived, PingReceived

if TYPE_CHECKING:
    from tests.client.conftest import Drain, Peer, Script, Sleep, Talk


Run = Callable[..., Awaitable[tuple[list[TransportEvent], OncecastError]]]


@pytest.fixture
def run(peer: Peer, sleep: Sleep, drain: Drain) -> Run:
    """Play a script; return the events and how the transport ended, once both ends are done."""

    async def run(
        script: Script, starts: dict[str, StartQuery] | None = None, timing: Timing | None = None
    ) -> tuple[list[TransportEvent], OncecastError]:
        peer.scripts = [script]
        transport = WebSocketTransport(peer.endpoint, timing=timing or Timing(), sleep=sleep)
        ended = await drain(transport, starts or {"c": StartQuery("after", "latest")})
        await peer.finish()
        return ended

    return run


async def test_subscribes(run: Run) -> None:
    """Each channel is subscribed from its own start, numbers as numbers."""
    frames = []

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        frames.extend([await talk.frame() for _ in range(3)])

    starts = {"a": StartQuery("after", "e-1"), "b": StartQuery("last", "5"), "c": StartQuery("since", "1.500")}
    await run(script, starts)
    assert [
        {"type": "subscribe", "channel": "a", "after": "e-1", "ref": "a"},
        {"type": "subscribe", "channel": "b", "last": 5, "ref": "b"},
        {"type": "subscribe", "channel": "c", "since": 1.5, "ref": "c"},
    ] == frames


async def test_frames(run: Run) -> None:
    """Messages, gaps and cursors are yielded; a heartbeat's cursor counts for the attached channels only."""

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.say(type="subscribed", channel="c", cursor="e-1", ref="c")
        await talk.say(type="message", id="e-2", channel="c", data={"a": 1}, event=None, time=2)
        await talk.say(type="gap", channel="c", reason="slow", missed_from="e-3", missed_to="e-4", cursor="e-4")
        await talk.say(type="novelty", of="a later version")
        await talk.send(talk.codec.binary(b"not ours"))
        await talk.say(type="cursor", cursor="e-9")

    events, end = await run(script, {"c": StartQuery("after", "e-0"), "d": StartQuery("after", "e-0")})
    assert [CursorMoved("e-1", "c"), CursorMoved("e-9", "c")] == [e for e in events if isinstance(e, CursorMoved)]
    assert [{"a": 1}] == [event.message.data for event in events if isinstance(event, Received)]
    gap = Gap(channel="c", reason="slow", missed_from="e-3", missed_to="e-4", cursor="e-4")
    assert [gap] == [event for event in events if isinstance(event, Gap)]
    assert "the server closed the connection" == str(end)


async def test_drain(run: Run) -> None:
    """A drain is obeyed: the client closes, and knows when to come back."""
    parting = []

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.say(type="drain", retry_after_ms=1500)
        parting.extend(talk.codec.receive(await talk.reader.read(100)))

    events, end = await run(script)
    assert ([RetryHint(1.5)], Drained) == (events, type(end))
    assert [CloseReceived(1000, "")] == parting


@pytest.mark.parametrize(
    "fields, expected, text",
    [
        ({"type": "error", "code": "forbidden", "message": "not you", "ref": None}, Refused, "not you"),
        ({"type": "error", "code": "unavailable", "message": "later", "ref": "c"}, Drained, "later"),
        ({"type": "error", "code": "novelty", "message": "what", "ref": None}, Refused, "what"),
        ({"type": "unsubscribed", "channel": "c"}, Broken, "the server ended the subscription"),
        ({"type": "subscribed"}, Broken, "the server sent a frame that is malformed"),
        ({"type": "gap"}, Broken, "the server sent a gap that is malformed"),
        ({"type": "message"}, Broken, "the server sent a message that is malformed"),
        ({}, Broken, "the server sent a frame that is malformed"),
    ],
)
async def test_ends(run: Run, fields: dict[str, Any], expected: type[Exception], text: str) -> None:
    """An error frame ends the subscription as its code says; a malformed frame breaks the connection."""

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.say(**fields)
        await talk.hold()

    _, end = await run(script)
    assert (expected, text) == (type(end), str(end))


@pytest.mark.parametrize(
    "code, expected",
    [
        *[(code, Refused) for code in (4400, 4401, 4403, 4404, 4499)],
        *[(code, Drained) for code in (4408, 4409, 4429, 1001, 1011, 1012, 1013)],
        *[(code, Broken) for code in (4500, 1000, 1002)],
    ],
)
async def test_close_codes(run: Run, code: int, expected: type[Exception]) -> None:
    """Our codes say whether to come back; RFC 6455's own never forbid it."""

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.send(talk.codec.close(code, "because"))
        await talk.hold()

    _, end = await run(script)
    assert (expected, f"the server closed the connection: {code} because") == (type(end), str(end))


async def test_a_broken_frame(run: Run) -> None:
    """A server that breaks the protocol gets a Close that says so."""
    answers = []

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.send(b"\xff\x00")
        answers.extend(talk.codec.receive(await talk.reader.read(100)))

    _, end = await run(script)
    assert str(end).startswith("the server broke the WebSocket protocol: ")
    assert [1002] == [answer.code for answer in answers if isinstance(answer, CloseReceived)]


async def test_a_ping_is_answered(run: Run) -> None:
    """The codec's pong is sent at once."""
    answer = bytearray()

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.send(talk.codec.ping(b"there?"))
        answer.extend(await talk.reader.readexactly(12))

    await run(script)
    assert 0x8A == answer[0]


@pytest.mark.parametrize("attached, pings", [(True, [PingReceived(b"")]), (False, [])])
async def test_silence(run: Run, attached: bool, pings: list[PingReceived]) -> None:
    """A silent server is pinged once if it had attached us, then given up."""
    heard = []

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        if attached:
            await talk.say(type="subscribed", channel="c", cursor="e-1")
        while data := await talk.reader.read(100):
            heard.extend(talk.codec.receive(data))

    timing = Timing(answer=0.05, idle=0.05) if attached else Timing(answer=0.2, idle=0.05)
    _, end = await run(script, timing=timing)
    assert "the server has gone silent" == str(end)
    assert pings == [event for event in heard if isinstance(event, PingReceived)]


async def test_no_protocol(run: Run) -> None:
    """A WebSocket that does not speak our protocol is of no use."""

    async def script(talk: Talk) -> None:
        await talk.upgrade(protocol=None)

    _, end = await run(script)
    assert Unsuited is type(end)


async def test_a_wrong_answer(run: Run) -> None:
    """A 101 that does not prove that it read our key is no WebSocket."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")

    _, end = await run(script)
    assert Unsuited is type(end)


@pytest.mark.parametrize(
    "status, code, expected",
    [(403, "origin_refused", Refused), (400, "", Unsuited), (426, "", Unsuited), (502, "", Unavailable)],
)
async def test_another_answer(run: Run, status: int, code: str, expected: type[Exception]) -> None:
    """An answer of ours is final; a proxy's is this transport's failing, or passes."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(status, {"error": {"code": code, "message": "no"}})

    _, end = await run(script)
    assert expected is type(end)


async def test_adjusts(peer: Peer, sleep: Sleep) -> None:
    """Channels are left and attached on the connection; what was on its way for one that was left is dropped."""
    frames = []

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        frames.extend([await talk.frame() for _ in range(2)])
        for channel in ("c", "d"):
            await talk.say(type="subscribed", channel=channel, cursor="e-1", ref=channel)
        frames.extend([await talk.frame() for _ in range(2)])
        for fields in (
            {"type": "message", "id": "e-5", "data": 5, "event": None, "time": 5},
            {"type": "gap", "reason": "slow", "cursor": "e-6"},
            {"type": "subscribed", "cursor": "e-7", "ref": "c"},
            {"type": "error", "code": "forbidden", "message": "once", "ref": "c"},
            {"type": "unsubscribed", "ref": None},
            {"type": "subscribed", "cursor": "e-1", "ref": "c"},
            {"type": "message", "id": "e-2", "data": 2, "event": None, "time": 2},
            {"type": "error", "code": "forbidden", "message": "no", "ref": "c"},
        ):
            await talk.say(channel="c", **fields)
        await talk.hold()

    peer.scripts = [script]
    transport = WebSocketTransport(peer.endpoint, timing=Timing(), sleep=sleep)
    events = transport({"a": StartQuery("after", "latest"), "d": StartQuery("after", "e-1")})
    opening = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)  # it has begun, and is not open yet
    await transport.adjust({"c": StartQuery("after", "e-0")}, ["a"])
    seen = [await opening, await anext(events)]
    await transport.adjust({"c": StartQuery("after", "e-1")}, ["c"])
    seen += [await anext(events) for _ in range(3)]
    await events.aclose()
    await transport.adjust({}, ["c"])  # nothing is listened to: it has nothing to send
    await peer.finish()
    assert ["subscribe d", "subscribe c", "unsubscribe c", "subscribe c"] == [
        f"{frame['type']} {frame['channel']}" for frame in frames
    ]
    assert [CursorMoved("e-1", "c"), CursorMoved("e-1", "d"), CursorMoved("e-1", "c")] == seen[:3]
    assert isinstance(seen[3], Received)
    assert 2 == seen[3].message.data
    assert isinstance(seen[4], ChannelRefused)
    assert ("c", "no") == (seen[4].channel, str(seen[4].error))


async def test_a_stripped_upgrade(run: Run) -> None:
    """An answer of our server to a request that was no handshake any more is the failing of this transport."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(426, {"error": {"code": "upgrade_required", "message": "no"}})

    _, end = await run(script)
    assert (Unsuited, "the server has seen no handshake: no") == (type(end), str(end))


async def test_a_server_that_never_confirms(run: Run) -> None:
    """Pings keep a connection from being silent, and do not stand for the answer to a subscribe frame."""

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        with contextlib.suppress(ConnectionError):
            while True:
                await talk.send(talk.codec.ping())
                await asyncio.sleep(0.01)

    _, end = await run(script, timing=Timing(answer=0.1))
    assert (Broken, "the server has gone silent") == (type(end), str(end))


@pytest.mark.parametrize("announced, pinged", [("0.1", True), (None, False)])
async def test_the_silence_that_is_borne_follows_the_heartbeat(run: Run, announced: str | None, pinged: bool) -> None:
    """A server that announces short heartbeats is asked soon, any other after the default."""
    heard: list[object] = []

    async def script(talk: Talk) -> None:
        await talk.upgrade(heartbeat=announced)
        await talk.frame()
        await talk.say(type="subscribed", channel="c", cursor="e-1", ref="c")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.4):
                heard.extend(talk.codec.receive(await talk.reader.read(100)))

    await run(script)
    assert ([PingReceived(b"")] if pinged else []) == heard


async def test_a_channel_that_was_not_asked_for(run: Run) -> None:
    """A frame about a channel that was not asked for moves no place, and is not kept."""

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.say(type="subscribed", channel="other", cursor="e-1")
        await talk.say(type="subscribed", channel="c", cursor="e-1")
        await talk.say(type="cursor", cursor="e-2")

    events, _ = await run(script)
    assert [CursorMoved("e-1", "c"), CursorMoved("e-2", "c")] == events


async def test_a_close_for_want_of_a_token(run: Run) -> None:
    """A close code has the code of its error, so that another token can be tried."""

    async def script(talk: Talk) -> None:
        await talk.upgrade()
        await talk.frame()
        await talk.send(talk.codec.close(4401, "no"))
        await talk.hold()

    _, end = await run(script)
    assert isinstance(end, Refused)
    assert "unauthorized" == end.code
